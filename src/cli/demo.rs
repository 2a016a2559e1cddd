//! `tailcast demo`: fills a running server with rooms that look alive, for showing.

use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use ureq::Agent;

use self::script::{Line, REMARKS, Room};
use crate::relay::entry::RoomName;

mod crowd;
mod script;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest pause that is taken for a server that says it's too fast.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A remark of somebody's follows about so many of ten messages.
const REMARKS_OF_TEN: usize = 7;

/// `tailcast demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// The node
    #[arg(long, default_value = "http://127.0.0.1:8080", value_parser = base)]
    pub url: String,

    /// An API key of the node, with which everybody in the demo can speak; not needed under --auth none
    #[arg(long, value_name = "KEY")]
    pub api_key: Option<String>,

    /// A token for back ends, instead of an API key
    #[arg(long, env = "TAILCAST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Go on with a message every second or so, until Ctrl-C; under --auth none everybody is there, too
    #[arg(long)]
    pub live: bool,
}

fn base(text: &str) -> Result<String, String> {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() && !rest.contains(['?', '#', ' ']) => {
            Ok(text.trim_end_matches('/').to_owned())
        }
        _ => Err("write it as in http://127.0.0.1:8080".to_owned()),
    }
}

/// Fills the server, and goes on if asked to.
pub fn run(args: DemoArgs) -> Result<()> {
    let rooms = script::rooms()?;
    let stage = Stage::open(&args)?;
    let left = spoken_in(&stage, &rooms)?;
    let said = fill(&stage, &rooms, &left)?;
    let users = script::users(&rooms);
    let mut out = std::io::stdout();
    if !left.is_empty() {
        writeln!(
            out,
            "left alone, as they have messages already: {}",
            left.join(", ")
        )?;
    }
    writeln!(
        out,
        "{said} messages by {} users in {} rooms: {}/homepage_json",
        if said == 0 { 0 } else { users.len() },
        rooms.len() - left.len(),
        args.url
    )?;
    if args.live {
        writeln!(out, "going on with a message every second; Ctrl-C ends it")?;
        out.flush()?;
        if stage.trusts {
            crowd::gather(&args.url, &rooms)?;
        }
        go_on(&stage, &rooms, &users)?;
    }
    Ok(())
}

/// The rooms that have messages already, of an earlier demo or of people's own.
fn spoken_in<'a>(stage: &Stage, rooms: &'a [Room]) -> Result<Vec<&'a str>> {
    let mut spoken_in = Vec::new();
    for room in rooms {
        if stage.has_messages(room)? {
            spoken_in.push(room.name.as_str());
        }
    }
    Ok(spoken_in)
}

/// Sets the rooms up, and lets everybody talk in all of them at a time; not in those to be left alone.
fn fill(stage: &Stage, rooms: &[Room], left: &[&str]) -> Result<usize> {
    let is_left = |room: &Room| left.contains(&room.name.as_str());
    let users = script::users(rooms);
    let longest = rooms.iter().map(|room| room.lines.len()).max();
    let mut said = 0;
    // When the walk is.
    let pinned = rooms.get(4).map(|room| &room.name);
    for at in 0..longest.unwrap_or(0) {
        for room in rooms.iter().filter(|room| !is_left(room)) {
            let Some(line) = room.lines.get(at) else {
                continue;
            };
            let id = stage.say(&room.name, *line)?;
            said += 1;
            if at == 0 {
                set_up(stage, room)?;
                if pinned == Some(&room.name) {
                    stage.act(room, json!({"act": "pin", "id": id}))?;
                }
            }
            // Always the same ones, so that two who show it show the same.
            if (at * 7 + said) % 10 < REMARKS_OF_TEN {
                let user = users[(at * 5 + said) % users.len()];
                let text = REMARKS[(at + said) % REMARKS.len()];
                stage.say(&room.name, Line { user, text })?;
                said += 1;
            }
        }
    }
    // When the freeze is.
    if let Some(room) = rooms.get(1).filter(|room| !is_left(room)) {
        let message = "Freeze is on Thursday, 18:00 UTC. After that, only blockers.";
        stage.act(room, json!({"act": "announce", "message": message}))?;
    }
    Ok(said)
}

fn set_up(stage: &Stage, room: &Room) -> Result<()> {
    stage.act(room, json!({"act": "topic", "message": room.topic}))?;
    for (name, value) in [
        ("icon", room.icon),
        ("color", room.color),
        ("host", room.host),
        ("moderators", room.moderators),
    ] {
        let property = json!({"act": "property", "name": name, "value": value});
        stage.act(room, property)?;
    }
    Ok(())
}

fn go_on(stage: &Stage, rooms: &[Room], users: &[&'static str]) -> Result<()> {
    loop {
        sleep(Duration::from_millis(rand::random_range(600..1_400)));
        let room = &rooms[rand::random_range(0..rooms.len())];
        let line = match rand::random_range(0..10) < REMARKS_OF_TEN {
            true => Line {
                user: users[rand::random_range(0..users.len())],
                text: REMARKS[rand::random_range(0..REMARKS.len())],
            },
            false => room.lines[rand::random_range(0..room.lines.len())],
        };
        stage.say(&room.name, line)?;
    }
}

/// The server, and how to speak for somebody there.
struct Stage {
    agent: Agent,
    url: String,
    bearer: Option<String>,
    /// Whether anybody is believed who they say they are.
    trusts: bool,
}

impl Stage {
    fn open(args: &DemoArgs) -> Result<Self> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(TIMEOUT));
        let key = args.api_key.as_ref().or(args.token.as_ref());
        let mut stage = Stage {
            agent: config.build().into(),
            url: args.url.clone(),
            bearer: key.map(|key| format!("Bearer {key}")),
            trusts: false,
        };
        // Nobody there from the start is more likely a wrong address than a restart.
        if let Err(error) = stage.get("/me?room=lounge")
            && is_nobody(&error)
        {
            bail!("{}: {error}; is a node serving there? See --url", args.url);
        }
        let (status, me) = stage.repeat(|stage| stage.get("/me?room=lounge"))?;
        if status != 200 {
            bail!(
                "{} answers GET /me with {status}: is it tailcast?",
                args.url
            );
        }
        stage.trusts = me["auth"] == "none";
        if !stage.trusts && stage.bearer.is_none() {
            bail!(
                "this node wants to know who speaks: start it with --api-key demo:KEY, and give that KEY as --api-key here"
            );
        }
        Ok(stage)
    }

    /// Publishes; the ID.
    fn say(&self, room: &RoomName, line: Line) -> Result<String> {
        // One key for all tries: it's stored once.
        let key = format!("{:032x}", rand::random::<u128>());
        let path = self.path(room, "", line.user);
        let body = match self.trusts {
            true => json!({"message": line.text}),
            // A back end says for whom it speaks.
            false => json!({"fields": {"message": line.text, "user": line.user}}),
        };
        let (status, answer) = self.repeat(|stage| stage.post(&path, &key, &body))?;
        let id = answer["id"].as_str().filter(|_| status == 201);
        let id = id.with_context(|| refusal(room, status, &answer))?;
        Ok(id.to_owned())
    }

    /// Whether there is anything to read in a room, as its host sees it.
    fn has_messages(&self, room: &Room) -> Result<bool> {
        let path = self.path(&room.name, "", room.host);
        let and = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{and}limit=1");
        let (status, answer) = self.repeat(|stage| stage.get(&path))?;
        let entries = answer["entries"].as_array().filter(|_| status == 200);
        let entries = entries.with_context(|| refusal(&room.name, status, &answer))?;
        Ok(!entries.is_empty())
    }

    /// Does something to a room, as its host.
    fn act(&self, room: &Room, act: Value) -> Result<()> {
        let path = self.path(&room.name, "/moderation", room.host);
        let (status, answer) = self.repeat(|stage| stage.post(&path, "", &act))?;
        match status {
            200 => Ok(()),
            _ => bail!("{}", refusal(&room.name, status, &answer)),
        }
    }

    fn path(&self, room: &RoomName, rest: &str, user: &str) -> String {
        let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
        let path = format!("/rooms/{}{rest}", encoded(room.as_str()));
        match self.trusts {
            true => format!("{path}?user={}", encoded(user)),
            false => path,
        }
    }

    fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        read(request.call()?)
    }

    fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        request = request.header("content-type", "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", bearer);
        }
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        read(request.send(body.to_string())?)
    }

    /// Asks until there is an answer that stays the same.
    fn repeat(&self, ask: impl Fn(&Self) -> Result<Answer, ureq::Error>) -> Result<(u16, Value)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (why, pause) = match ask(self) {
                Ok(answer) if answer.status == 429 || answer.status >= 502 => {
                    let why = format!("it answers {}", answer.status);
                    (why, answer.retry.min(PAUSE_MAX))
                }
                Ok(answer) => return Ok((answer.status, answer.body)),
                Err(error) => (error.to_string(), Duration::from_secs(1)),
            };
            if Instant::now() + pause >= deadline {
                bail!("{} can't be used: {why}; see --url", self.url);
            }
            sleep(pause);
        }
    }
}

/// Whether nothing listens there at all.
fn is_nobody(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// What a server said.
struct Answer {
    status: u16,
    retry: Duration,
    body: Value,
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let retry = answer.headers().get("retry-after");
    let retry = retry.and_then(|retry| retry.to_str().ok()?.parse().ok());
    let text = answer.body_mut().read_to_string()?;
    Ok(Answer {
        status: answer.status().as_u16(),
        retry: Duration::from_secs(retry.unwrap_or(1)),
        body: serde_json::from_str(&text).unwrap_or_default(),
    })
}

fn refusal(room: &RoomName, status: u16, answer: &Value) -> String {
    let said = answer["error"]["message"].as_str().unwrap_or_default();
    let hint = match answer["error"]["code"].as_str() {
        Some("forbidden" | "reserved_field" | "unauthenticated") => {
            "; give an API key of the node's as --api-key"
        }
        _ => "",
    };
    format!("room {room}: {status} {said}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, want) in [
            ("http://h:1/", Some("http://h:1")),
            ("https://h", Some("https://h")),
            ("ws://h", None),
            ("http://", None),
            ("http://h?x", None),
        ] {
            assert_eq!(base(text).ok().as_deref(), want, "{text}");
        }
    }
}
