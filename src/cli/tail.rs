//! `tailcast tail`: prints a room's entries, through every reconnect, each once and in order.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::time::Duration;

use anyhow::bail;
use futures_util::{SinkExt, StreamExt};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::client::{self, Failure, Socket};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::position::Position;

/// After this much silence the node is asked for a sign of life, and after as much again given up.
const SILENCE: Duration = Duration::from_secs(20);

/// `tailcast tail`.
#[derive(Debug, Clone, clap::Args)]
pub struct TailArgs {
    /// The room
    #[arg(value_parser = RoomName::parse)]
    pub room: RoomName,

    /// Where to begin: now, start, an entry ID, last:50, or ago:10m
    #[arg(long, default_value = "now", value_parser = position)]
    pub from: String,

    /// The node
    #[arg(long, default_value = "ws://127.0.0.1:8080", value_parser = client::base)]
    pub url: String,

    /// A token, or an API key, where the node asks for one
    #[arg(long, env = "TAILCAST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

fn position(text: &str) -> Result<String, String> {
    match text.parse::<Position>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// An entry's fields, as a JSON text in the order they came; a [`Value`] would sort them.
#[derive(Deserialize)]
struct InOrder {
    fields: FieldsText,
}

struct FieldsText(String);

impl<'de> Deserialize<'de> for FieldsText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = FieldsText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldsText, A::Error> {
        let mut pairs = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            pairs.push(format!("{}:{value}", Value::from(name)));
        }
        Ok(FieldsText(format!("{{{}}}", pairs.join(","))))
    }
}

/// How a connection ended.
enum End {
    /// Connect again, not before so long.
    Again(String, Option<Duration>),
    /// Nobody reads the output any more.
    Unread,
    /// For good.
    Final(String),
}

/// Prints until interrupted, until nobody reads the output, or until the node sends it away.
pub async fn run(args: TailArgs) -> anyhow::Result<()> {
    tokio::select! {
        result = follow(args) => result,
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

async fn follow(args: TailArgs) -> anyhow::Result<()> {
    let mut from = args.from;
    let mut failures = 0;
    let mut reached = false;
    loop {
        let address = client::address(&args.url, &args.room, &from);
        let (why, wait) = match client::connect(&address, args.token.as_deref()).await {
            Err(Failure::Final(why)) => bail!("{why}"),
            Err(Failure::Nobody(why) | Failure::Retry(why)) if !reached => {
                bail!("{why}; is a node serving at {}? See --url", args.url)
            }
            Err(Failure::Nobody(why) | Failure::Retry(why)) => (why, None),
            Ok(socket) => {
                reached = true;
                let mut joined = false;
                let end = read(socket, &mut from, &mut joined).await;
                if joined {
                    failures = 0;
                }
                match end {
                    End::Again(why, wait) => (why, wait),
                    End::Unread => return Ok(()),
                    End::Final(why) => bail!("{why}"),
                }
            }
        };
        let pause = wait.unwrap_or_default() + client::backoff(failures);
        eprintln!(
            "tailcast: {why}; connecting again in {} ms",
            pause.as_millis()
        );
        tokio::time::sleep(pause).await;
        failures = failures.saturating_add(1);
    }
}

/// Prints what a connection brings, and keeps `from` where another one has to go on.
async fn read(mut socket: Socket, from: &mut String, joined: &mut bool) -> End {
    let mut asked = false;
    let mut retry = None;
    // A node that wants a token would wait for one; what is no token it turns away at once.
    let hello = json!({"type": "ping"}).to_string();
    if let Err(error) = socket.send(Message::text(hello)).await {
        return End::Again(error.to_string(), retry);
    }
    loop {
        let message = match timeout(SILENCE, socket.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(error))) => return End::Again(error.to_string(), retry),
            Ok(None) => return End::Again("the connection ended".to_owned(), retry),
            Err(_) if asked => return End::Again("the node went silent".to_owned(), retry),
            Err(_) => {
                asked = true;
                match ping(&mut socket).await {
                    Ok(()) => continue,
                    Err(error) => return End::Again(error.to_string(), retry),
                }
            }
        };
        asked = false;
        let text = match message {
            Message::Text(text) => text,
            Message::Close(frame) => return closed(frame, retry),
            _ => continue,
        };
        let Ok(frame) = serde_json::from_str::<Value>(&text) else {
            return End::Final("the node sent no JSON; is it tailcast?".to_owned());
        };
        let id = |name: &str| frame[name].as_str()?.parse::<EntryId>().ok();
        match frame["type"].as_str() {
            Some("joined") => {
                *joined = true;
                // With any other `from`, entries up to the head are still to come; but before an
                // empty stream's head there are none.
                let head = id("head");
                if let Some(head) = head.filter(|head| from == "now" || *head == EntryId::ZERO) {
                    *from = head.to_string();
                }
            }
            Some("entry") => {
                let Some(id) = id("id") else {
                    return End::Final("the node sent an entry without ID".to_owned());
                };
                // The ID first, as the eye looks for it there.
                let Ok(InOrder { fields }) = serde_json::from_str(&text) else {
                    return End::Final("the node sent an entry without fields".to_owned());
                };
                let line = format!("{{\"id\":\"{id}\",\"fields\":{}}}", fields.0);
                if let Err(end) = print(&line) {
                    return end;
                }
                *from = id.to_string();
            }
            Some("gap") => {
                let gap = json!({"after": frame["after"], "before": frame["before"], "reason": frame["reason"]});
                if let Err(end) = print(&json!({ "gap": gap }).to_string()) {
                    return end;
                }
                if let Some(before) = id("before") {
                    *from = before.predecessor().to_string();
                }
            }
            Some("bye") => retry = frame["retry_ms"].as_u64().map(Duration::from_millis),
            Some("left") => return End::Again("the node ended the subscription".to_owned(), retry),
            Some("error") => {
                let what = frame["message"]
                    .as_str()
                    .unwrap_or("an error without a message");
                let passing = client::passing(frame["code"].as_str().unwrap_or_default());
                match (*joined, passing) {
                    (true, _) => {}
                    (false, true) => return End::Again(what.to_owned(), retry),
                    (false, false) => return End::Final(what.to_owned()),
                }
                eprintln!("tailcast: {what}");
            }
            _ => {}
        }
    }
}

async fn ping(socket: &mut Socket) -> Result<(), Error> {
    socket.send(Message::Ping(Bytes::new())).await
}

fn closed(frame: Option<CloseFrame>, retry: Option<Duration>) -> End {
    let Some(frame) = frame else {
        return End::Again("the node closed the connection".to_owned(), retry);
    };
    let code = u16::from(frame.code);
    let what = format!("the node closed the connection: {code} {}", frame.reason);
    let what = what.trim_end().to_owned();
    match client::is_final(code) {
        true => End::Final(what),
        false => End::Again(what, retry),
    }
}

fn print(line: &str) -> Result<(), End> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(End::Unread),
        Err(error) => Err(End::Final(format!("standard output: {error}"))),
    }
}
