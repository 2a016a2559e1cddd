//! What a client's frame asks for. Pure: a frame in, a request or a refusal out.

use std::time::Duration;

use bytes::Bytes;

use super::destination::{Aliases, Place, Target};
use super::frame::{Command, Frame, Headers, Version};
use super::refused::Refused;
use crate::relay::entry::{EntryId, Fields};
use crate::relay::position::{Position, PositionError};

/// Headers of a SEND that are about the frame and not about the entry.
const SEND_OWN: [&str; 7] = [
    "destination",
    "content-length",
    "receipt",
    "transaction",
    "idempotency-key",
    "x-idempotency-key",
    "heart-beat",
];

/// The field of an entry that a SEND's body becomes.
pub(super) const MESSAGE: &str = "message";

/// A request, and how it's to be answered.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) what: Request,
    /// The client waits for a RECEIPT of this name.
    pub(super) receipt: Option<Box<str>>,
}

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Request {
    Connect(Connect),
    Subscribe(Subscribe),
    Unsubscribe(Box<str>),
    Send(Option<Box<str>>, Send),
    Ack,
    Begin(Box<str>),
    Commit(Box<str>),
    Abort(Box<str>),
    Disconnect,
}

/// A log-in.
#[derive(Debug, PartialEq)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) beats: Beats,
    /// Token or key, if there is one.
    pub(super) secret: Option<Secret>,
    /// The user's name, as they give it.
    pub(super) login: Option<Box<str>>,
    /// Whether the client reads bodies by their `content-length`, NUL bytes and all.
    pub(super) is_binary: bool,
}

/// A token or key of a CONNECT.
#[derive(PartialEq)]
pub(super) enum Secret {
    /// Everything but what follows.
    Token(Box<str>),
    /// An API key.
    Key(Box<str>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// How often a client can be expected to send something, and wants to be sent something; zero is
/// never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Beats {
    pub(super) sends: Duration,
    pub(super) wants: Duration,
}

/// A subscription.
#[derive(Debug, PartialEq)]
pub(super) struct Subscribe {
    /// Its name; the destination, for a client of 1.0 that gave none.
    pub(super) id: Box<str>,
    pub(super) destination: Box<str>,
    pub(super) place: Place,
    pub(super) from: Position,
    /// Whether the client wants to acknowledge what it gets.
    pub(super) acks: bool,
}

/// An entry to publish.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Send {
    pub(super) target: Target,
    pub(super) fields: Fields,
    pub(super) key: Option<Bytes>,
}

impl Send {
    /// Bytes of it.
    pub(super) fn size(&self) -> usize {
        crate::relay::entry::fields_size(&self.fields)
    }
}

/// What a frame is read by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    /// None before CONNECT.
    pub(super) version: Option<Version>,
    pub(super) aliases: &'a Aliases,
    pub(super) max_fields: usize,
    /// The time by this node's clock, in Unix milliseconds.
    pub(super) now_ms: u64,
}

impl Reading<'_> {
    /// Reads a frame.
    pub(super) fn read(&self, frame: Frame) -> Result<Asked, Refused> {
        let headers = &frame.headers;
        let receipt = headers.filled("receipt").map(Into::into);
        let (Some(version), command) = (self.version, frame.command) else {
            return match frame.command {
                Command::Connect => Ok(Asked {
                    what: Request::Connect(connect(headers)?),
                    receipt,
                }),
                other => Err(Refused::bad(format!("{other} comes after CONNECT"))),
            };
        };
        let transaction = headers.filled("transaction").map(Into::into);
        let needed = || {
            transaction
                .clone()
                .ok_or_else(|| Refused::bad(format!("{command} needs the header transaction")))
        };
        let what = match command {
            Command::Connect => return Err(Refused::bad("this connection is logged in already")),
            Command::Subscribe => Request::Subscribe(self.subscribe(headers, version)?),
            Command::Unsubscribe => Request::Unsubscribe(id(headers, command, version)?.into()),
            Command::Send => Request::Send(transaction, self.send(frame)?),
            // Whatever it names: some clients answer a gap, which has no ID, as any other MESSAGE.
            Command::Ack => Request::Ack,
            Command::Nack => {
                return Err(Refused::unsupported(
                    "there is no NACK: every subscriber gets every entry, and none is delivered again",
                ));
            }
            Command::Begin => Request::Begin(needed()?),
            Command::Commit => Request::Commit(needed()?),
            Command::Abort => Request::Abort(needed()?),
            Command::Disconnect => Request::Disconnect,
        };
        Ok(Asked { what, receipt })
    }

    fn subscribe(&self, headers: &Headers, version: Version) -> Result<Subscribe, Refused> {
        let destination = destination(headers, Command::Subscribe)?;
        if headers.filled("selector").is_some() {
            return Err(Refused::unsupported("there are no selectors here"));
        }
        let acks = match headers.get("ack") {
            None | Some("auto") => false,
            Some("client" | "client-individual") => true,
            Some(other) => {
                return Err(Refused::unsupported(format!(
                    "unknown ack mode {other}; write auto, client or client-individual"
                )));
            }
        };
        Ok(Subscribe {
            id: id(headers, Command::Subscribe, version)?.into(),
            place: Place::parse(destination)?,
            destination: destination.into(),
            from: self.position(headers)?,
            acks,
        })
    }

    /// Where a subscription begins: behind `last-id`, or as `from` or `x-stream-offset` says.
    fn position(&self, headers: &Headers) -> Result<Position, Refused> {
        let read = |text: &str| {
            let position = text.parse::<Position>();
            position.map_err(|error: PositionError| Refused::bad(error))
        };
        if let Some(id) = headers.filled("last-id") {
            let id = id.parse::<EntryId>();
            return id
                .map(Position::After)
                .map_err(|error| Refused::bad(format!("last-id: {error}")));
        }
        if let Some(from) = headers.filled("from") {
            return read(from);
        }
        let Some(offset) = headers.filled("x-stream-offset") else {
            return Ok(Position::Now);
        };
        match (offset, offset.split_once('=')) {
            ("first", _) => Ok(Position::Start),
            ("last", _) => Ok(Position::Last(1)),
            ("next", _) => Ok(Position::Now),
            (_, Some(("offset", id))) => match id.parse::<EntryId>() {
                // That entry is the first to come.
                Ok(id) => Ok(Position::After(id.predecessor())),
                Err(error) => Err(Refused::bad(format!("x-stream-offset: {error}"))),
            },
            (_, Some(("timestamp", seconds))) => match seconds.parse::<u64>() {
                Ok(seconds) => Ok(self.since(seconds)),
                Err(_) => Err(Refused::bad(
                    "x-stream-offset: a timestamp is a number of seconds since 1970",
                )),
            },
            _ => Err(Refused::bad(
                "x-stream-offset is one of: first, last, next, offset=ID, timestamp=SECONDS",
            )),
        }
    }

    fn since(&self, seconds: u64) -> Position {
        let then = seconds.saturating_mul(1_000);
        match self.now_ms.checked_sub(then) {
            Some(ago) => Position::Ago(Duration::from_millis(ago)),
            None => Position::Now,
        }
    }

    fn send(&self, frame: Frame) -> Result<Send, Refused> {
        let headers = &frame.headers;
        let destination = destination(headers, Command::Send)?;
        let target = self.aliases.target(destination)?;
        let key = ["idempotency-key", "x-idempotency-key"];
        let key = key.iter().find_map(|name| headers.filled(name));
        let key = key.map(|key| Bytes::copy_from_slice(key.as_bytes()));
        if headers.get(MESSAGE).is_some() {
            return Err(Refused::bad(
                "the body becomes the field message; give the header another name",
            ));
        }
        let others = || headers.iter().filter(|(name, _)| !SEND_OWN.contains(name));
        let count = 1 + others().count();
        if count > self.max_fields {
            return Err(Refused::bad(format!(
                "an entry has at most {} fields, and this one {count}; send fewer headers",
                self.max_fields
            )));
        }
        let mut fields = Vec::with_capacity(count + 1);
        let others: Vec<(Bytes, Bytes)> = others()
            .map(|(name, value)| {
                let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
                (copy(name), copy(value))
            })
            .collect();
        // First, as it's the first field that a raw socket shows.
        fields.push((Bytes::from_static(MESSAGE.as_bytes()), frame.body.into()));
        fields.extend(others);
        Ok(Send {
            target,
            fields: fields.into(),
            key,
        })
    }
}

fn destination(headers: &Headers, command: Command) -> Result<&str, Refused> {
    let destination = headers.filled("destination");
    destination.ok_or_else(|| Refused::bad(format!("{command} needs the header destination")))
}

/// A subscription's name. Clients of 1.0 may go by its destination.
fn id(headers: &Headers, command: Command, version: Version) -> Result<&str, Refused> {
    let id = headers.filled("id");
    let otherwise = headers.filled("destination");
    id.or(otherwise.filter(|_| version == Version::V10))
        .ok_or_else(|| Refused::bad(format!("{command} needs the header id")))
}

fn connect(headers: &Headers) -> Result<Connect, Refused> {
    let version = match headers.get("accept-version") {
        None => Version::V10,
        Some(offered) => {
            let offers =
                |version: &Version| offered.split(',').any(|v| v.trim() == version.as_str());
            Version::ALL
                .into_iter()
                .find(offers)
                .ok_or_else(Refused::version)?
        }
    };
    let header = |name: &str| {
        let mut headers = headers.iter();
        // Written as in HTTP, too.
        let found =
            headers.find(|(other, value)| other.eq_ignore_ascii_case(name) && !value.is_empty());
        found.map(|(_, value)| value)
    };
    let bearer = header("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        Some(token.trim()).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
    });
    let token = bearer.map(|token| Secret::Token(token.into()));
    let key = || header("x-api-key").map(|key| Secret::Key(key.into()));
    let others = || header("token").or(header("passcode"));
    Ok(Connect {
        version,
        beats: headers
            .get("heart-beat")
            .map(beats)
            .transpose()?
            .unwrap_or_default(),
        secret: token
            .or_else(key)
            .or_else(|| others().map(|token| Secret::Token(token.into()))),
        login: headers.filled("login").map(Into::into),
        is_binary: match headers.get("x-binary") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => return Err(Refused::bad("x-binary is true or false")),
        },
    })
}

fn beats(text: &str) -> Result<Beats, Refused> {
    let time = |text: &str| text.trim().parse().ok().map(Duration::from_millis);
    let times = text.split_once(',');
    let times = times.and_then(|(sends, wants)| Some((time(sends)?, time(wants)?)));
    let (sends, wants) = times.ok_or_else(|| {
        Refused::bad("heart-beat is two numbers of milliseconds, as in 10000,10000")
    })?;
    Ok(Beats { sends, wants })
}

#[cfg(test)]
mod tests;
