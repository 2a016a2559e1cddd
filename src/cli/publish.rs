//! `tailcast publish`: one entry through a running node, stored once however often it's sent.

use std::io::{Read, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::client::{self, Failure};
use crate::relay::entry::RoomName;

/// How long lost connections are made up for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The node's answer when Redis was away for all of its publish timeout.
const UNAVAILABLE: &str = "redis_unavailable";

/// Its answer when Redis took the message and did not say what became of it.
const UNKNOWN: &str = "unknown_outcome";

/// How long a node may take to answer once it has the message. It answers within its publish timeout
/// (5 s, unless it was told otherwise), whatever Redis does.
const ANSWER: Duration = Duration::from_secs(10);

/// `tailcast publish`.
#[derive(Debug, Clone, clap::Args)]
pub struct PublishArgs {
    /// The room
    #[arg(value_parser = RoomName::parse)]
    pub room: RoomName,

    /// The message; - reads it from standard input, without the newline at its end
    #[arg(required_unless_present = "field", allow_hyphen_values = true)]
    pub message: Option<String>,

    /// A field of the entry; several make several. A message is the field named so
    #[arg(long, value_name = "NAME=VALUE", value_parser = field)]
    pub field: Vec<(String, String)>,

    /// Idempotency key: repeats under the same key are stored once [default: a random one]
    #[arg(long)]
    pub key: Option<String>,

    /// The node
    #[arg(long, default_value = "ws://127.0.0.1:8080", value_parser = client::base)]
    pub url: String,

    /// A token, or an API key, where the node asks for one
    #[arg(long, env = "TAILCAST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

fn field(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// How a try ended without an ID.
#[derive(Debug, PartialEq, Eq)]
enum Miss {
    /// No answer came.
    Lost(String),
    /// The node did not store it, and may do so soon.
    NotNow(String),
    /// The node said no, or can't.
    Refused(String),
}

/// Publishes, and prints the ID.
pub async fn run(args: PublishArgs) -> Result<()> {
    let address = client::address(&args.url, &args.room, "now");
    let token = args.token.clone();
    let request = request(args)?;
    let deadline = Instant::now() + PATIENCE;
    // Tries that went out and were not answered.
    let mut sent = 0_u32;
    for failures in 0.. {
        let lost = match attempt(&address, token.as_deref(), &request, &mut sent).await {
            Ok(id) => {
                writeln!(std::io::stdout(), "{id}")?;
                return Ok(());
            }
            Err(Miss::Refused(why)) if sent > 1 => {
                bail!("{why}; an earlier try may still have been stored")
            }
            Err(Miss::Refused(why)) => bail!("{why}"),
            Err(Miss::NotNow(why)) => {
                // It's answered: this try is not stored.
                sent -= 1;
                why
            }
            Err(Miss::Lost(why)) => why,
        };
        let pause = client::backoff(failures);
        if Instant::now() + pause >= deadline {
            let outcome = if sent > 0 {
                "it may still have been stored"
            } else {
                "it is not stored"
            };
            bail!("{lost}; {outcome}");
        }
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

/// The frame to send. It's the same on every try, key included.
fn request(args: PublishArgs) -> Result<String> {
    let message = match args.message {
        Some(dash) if dash == "-" => Some(standard_input()?),
        other => other,
    };
    let mut fields: Vec<(String, String)> = Vec::new();
    let message = message.map(|message| ("message".to_owned(), message));
    for (name, value) in message.into_iter().chain(args.field) {
        ensure!(
            fields.iter().all(|(other, _)| *other != name),
            "the field {name} is there twice; leave one out"
        );
        fields.push((name, value));
    }
    let key = args
        .key
        .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
    // By hand, as the fields' order counts and a JSON map of serde's would sort them.
    let quote = |text: &str| Value::from(text).to_string();
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}:{}", quote(name), quote(value)))
        .collect();
    Ok(format!(
        "{{\"type\":\"publish\",\"ref\":\"1\",\"key\":{},\"fields\":{{{}}}}}",
        quote(&key),
        fields.join(",")
    ))
}

fn standard_input() -> Result<String> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("standard input")?;
    let mut text = String::from_utf8(bytes)
        .context("standard input is not UTF-8; publish bytes with POST /rooms/{room} instead")?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

async fn attempt(
    address: &str,
    token: Option<&str>,
    request: &str,
    sent: &mut u32,
) -> Result<String, Miss> {
    let exchange = async {
        let mut socket = match client::connect(address, token).await {
            Ok(socket) => socket,
            Err(Failure::Nobody(why)) if *sent == 0 => {
                let hint = "is a node serving there? See --url";
                return Err(Miss::Refused(format!("{why}; {hint}; it is not stored")));
            }
            Err(Failure::Nobody(why) | Failure::Retry(why)) => return Err(Miss::Lost(why)),
            Err(Failure::Final(why)) => return Err(Miss::Refused(why)),
        };
        *sent += 1;
        let lost = |error: tokio_tungstenite::tungstenite::Error| Miss::Lost(error.to_string());
        socket.send(Message::text(request)).await.map_err(lost)?;
        while let Some(message) = socket.next().await {
            match message.map_err(lost)? {
                Message::Text(text) => {
                    if let Some(outcome) = answer(&text) {
                        // It's answered; how the connection ends changes nothing.
                        let _ = socket.close(None).await;
                        return outcome;
                    }
                }
                Message::Close(Some(frame)) => {
                    let code = u16::from(frame.code);
                    let what = format!("the node closed the connection: {code} {}", frame.reason);
                    return Err(match client::is_final(code) {
                        true => Miss::Refused(what),
                        false => Miss::Lost(what),
                    });
                }
                _ => {}
            }
        }
        Err(Miss::Lost("the connection ended".to_owned()))
    };
    let outcome = timeout(client::CONNECT_TIMEOUT + ANSWER, exchange).await;
    outcome.unwrap_or_else(|_| Err(Miss::Lost("no answer in time".to_owned())))
}

/// The ID or the refusal, if the frame is the answer.
fn answer(text: &str) -> Option<Result<String, Miss>> {
    let frame: Value = serde_json::from_str(text).ok()?;
    let ours = frame["ref"] == "1";
    match frame["type"].as_str()? {
        "ack" if ours => Some(Ok(frame["id"].as_str()?.to_owned())),
        // An error without a ref can only be about the one frame there was, or the room.
        "error" if ours || frame["ref"].is_null() => {
            // Of the room, while Redis is away: the answer to the message is still to come.
            if !ours && frame["code"].as_str().is_some_and(client::passing) {
                return None;
            }
            let code = frame["code"].as_str().unwrap_or("error");
            let message = frame["message"].as_str().unwrap_or_default();
            let what = format!("{code}: {message}");
            Some(Err(match code {
                // The node has waited for Redis as long as it does.
                UNAVAILABLE => Miss::Refused(format!("{what}; it is not stored")),
                // The key makes another try safe.
                UNKNOWN => Miss::Lost(what),
                code if client::passing(code) => Miss::NotNow(what),
                _ => Miss::Refused(what),
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let args = PublishArgs {
            token: None,
            room: RoomName::parse("r").expect("a room"),
            message: Some("h\"i".to_owned()),
            field: vec![
                ("b".to_owned(), "1".to_owned()),
                ("a".to_owned(), "2".to_owned()),
            ],
            key: Some("k".to_owned()),
            url: String::new(),
        };
        assert_eq!(
            request(args.clone()).ok().as_deref(),
            Some(
                r#"{"type":"publish","ref":"1","key":"k","fields":{"message":"h\"i","b":"1","a":"2"}}"#
            )
        );
        let twice = PublishArgs {
            field: vec![("message".to_owned(), String::new())],
            ..args
        };
        assert!(request(twice).is_err());
    }

    #[test]
    fn answers() {
        let check = |text: &str, want: Option<Result<&str, Miss>>| {
            assert_eq!(
                answer(text),
                want.map(|want| want.map(str::to_owned)),
                "{text}"
            );
        };
        let refused = |what: &str| Some(Err(Miss::Refused(what.to_owned())));
        check(r#"{"type":"joined","room":"r","head":"0-0"}"#, None);
        check(
            r#"{"type":"ack","ref":"1","room":"r","id":"5-0"}"#,
            Some(Ok("5-0")),
        );
        check(
            r#"{"type":"error","ref":"1","code":"c","message":"m"}"#,
            refused("c: m"),
        );
        check(
            r#"{"type":"error","ref":"2","code":"c","message":"m"}"#,
            None,
        );
        check(
            r#"{"type":"error","ref":"1","code":"redis_loading","message":"m"}"#,
            Some(Err(Miss::NotNow("redis_loading: m".to_owned()))),
        );
        check(
            r#"{"type":"error","ref":"1","code":"redis_unavailable","message":"m"}"#,
            refused("redis_unavailable: m; it is not stored"),
        );
        check(
            r#"{"type":"error","room":"r","code":"redis_unavailable","message":"m"}"#,
            None,
        );
        check(
            r#"{"type":"error","ref":"1","code":"unknown_outcome","message":"m"}"#,
            Some(Err(Miss::Lost("unknown_outcome: m".to_owned()))),
        );
        check("junk", None);
    }
}
