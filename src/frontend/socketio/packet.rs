//! Socket.IO packets: read from an Engine.IO message, and written into one.
//!
//! ```text
//! <type>[<attachments>-][<namespace>,][<ack id>][<JSON>]
//! 0 CONNECT  1 DISCONNECT  2 EVENT  3 ACK  4 CONNECT_ERROR  5 BINARY_EVENT  6 BINARY_ACK
//! ```
//!
//! The JSON stays as it came. Where attachments belong in it there is `{"_placeholder":true,"num":0}`,
//! and it's the receiving client that puts them there.

use serde_json::value::RawValue;

use crate::frontend::json;

/// The namespace of a packet that names none.
pub(super) const MAIN: &str = "/";

/// Most attachments of one packet; clients take no more than ten either.
pub(super) const ATTACHMENTS_MAX: usize = 10;

/// So many attachments are read and dropped, so that the connection survives the packet.
const SKIPPED_MAX: usize = 1_000;

/// Longest name of a namespace, in bytes: it's kept, and goes out with every packet.
pub(super) const NAMESPACE_MAX: usize = 1_024;

/// Deepest JSON that is taken: clients that read it by recursion must survive it.
const DEPTH_MAX: usize = 64;

/// The largest whole number JavaScript keeps exactly.
const ACK_MAX: u64 = (1 << 53) - 1;

/// Names that the client library keeps for itself: an event of such a name would end its connection.
const RESERVED: [&str; 6] = [
    "connect",
    "connect_error",
    "disconnect",
    "disconnecting",
    "newListener",
    "removeListener",
];

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

/// One packet from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
    /// What an event's answer, or an answer, is numbered with.
    pub(super) ack: Option<u64>,
    /// Binary messages that follow.
    pub(super) attachments: usize,
    /// Its JSON: an object for a connect, an array for events and answers; else empty.
    pub(super) json: &'a str,
}

/// Why a text is no packet. The connection ends with it, as the protocol says. What is wrong with the
/// content of a packet ends no connection: see [`Unfit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a Socket.IO packet: {0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads a packet.
pub(super) fn parse(text: &str) -> Result<Packet<'_>, Malformed> {
    let mut chars = text.chars();
    let (kind, is_binary) = match chars.next() {
        Some('0') => (Kind::Connect, false),
        Some('1') => (Kind::Disconnect, false),
        Some('2') => (Kind::Event, false),
        Some('3') => (Kind::Ack, false),
        Some('5') => (Kind::Event, true),
        Some('6') => (Kind::Ack, true),
        _ => return Err(Malformed("the type is 0 to 3, 5 or 6")),
    };
    let mut rest = chars.as_str();
    let mut attachments = 0;
    if is_binary {
        let (count, after) = number(rest);
        attachments = count
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count <= SKIPPED_MAX)
            .ok_or(Malformed("the number of attachments is 0 to 10"))?;
        rest = after
            .strip_prefix('-')
            .ok_or(Malformed("a minus follows the number of attachments"))?;
    }
    let mut namespace = MAIN;
    if rest.starts_with('/') {
        (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
    }
    let (ack, rest) = number(rest);
    let packet = Packet {
        kind,
        namespace,
        ack,
        attachments,
        json: rest,
    };
    match kind {
        Kind::Event | Kind::Ack if !packet.json.starts_with('[') => {
            Err(Malformed("events and answers carry an array"))
        }
        _ => Ok(packet),
    }
}

/// Digits in front, and what follows them. Too many are no number, and stay.
fn number(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    match text[..end].parse() {
        Ok(number) if number <= ACK_MAX => (Some(number), &text[end..]),
        _ => (None, text),
    }
}

/// Whether a namespace may have this name, which goes out with every packet as it is.
pub(super) fn is_namespace(name: &str) -> bool {
    name.len() <= NAMESPACE_MAX && !name.chars().any(char::is_control)
}

/// Why an event can't be taken. It's refused, and the connection goes on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// A text in it was cut within a character.
    #[error(transparent)]
    HalfPair(json::JsonError),
    /// It can't be read.
    #[error("the event is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// It's too deep.
    #[error("an event nests at most {DEPTH_MAX} levels deep")]
    Deep,
    /// It has no name.
    #[error("an event begins with its name, a text or a number")]
    NoName,
    /// Its name is not for applications.
    #[error("events called `{0}` are the client library's own; give it another name")]
    Reserved(String),
}

impl Unfit {
    /// A word for programs.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Unfit::HalfPair(_) | Unfit::NotJson(_) => "bad_json",
            Unfit::Deep | Unfit::NoName => "bad_request",
            Unfit::Reserved(_) => "unknown_event",
        }
    }
}

/// Whether the client library keeps this name for itself.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

/// Whether a text is one JSON value that every client can read.
pub(super) fn is_json(text: &str) -> bool {
    let is_value = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    is_value && depth(text) <= DEPTH_MAX
}

/// How deep the brackets of valid JSON nest.
fn depth(text: &str) -> usize {
    let (mut deepest, mut depth) = (0_usize, 0_usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' => break,
                        b'\\' => drop(bytes.next()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// The arguments of an event, its name first, each as it came.
#[derive(Debug, Clone)]
pub(super) struct Args<'a>(Vec<&'a RawValue>);

impl<'a> Args<'a> {
    /// Reads an array.
    pub(super) fn of(text: &'a str) -> Result<Self, Unfit> {
        // Neither this nor what is read below goes by recursion.
        if depth(text) > DEPTH_MAX {
            return Err(Unfit::Deep);
        }
        if let Some(half) = json::half_pair(text.as_bytes()) {
            return Err(Unfit::HalfPair(json::JsonError::HalfPair(half)));
        }
        serde_json::from_str(text).map(Args).map_err(Unfit::NotJson)
    }

    /// The event's name. That of an event called by a number is the number as text, as JavaScript's
    /// emitters have it.
    pub(super) fn name(&self) -> Result<String, Unfit> {
        let number = || Some(self.read::<f64>(0)?.to_string());
        let name = self.read(0).or_else(number).ok_or(Unfit::NoName)?;
        match is_reserved(&name) {
            true => Err(Unfit::Reserved(name)),
            false => Ok(name),
        }
    }

    /// One argument, read into a type of the caller's; 0 is the name.
    pub(super) fn read<T: serde::Deserialize<'a>>(&self, at: usize) -> Option<T> {
        serde_json::from_str(self.0.get(at)?.get()).ok()
    }

    /// One argument as it came.
    pub(super) fn raw(&self, at: usize) -> Option<&'a str> {
        self.0.get(at).map(|raw| raw.get())
    }

    /// All that follows the name, as an array.
    pub(super) fn rest(&self) -> String {
        let rest: Vec<&str> = self.0.iter().skip(1).map(|raw| raw.get()).collect();
        format!("[{}]", rest.join(","))
    }
}

/// Whether every placeholder in this JSON names one of so many attachments. A client that meets
/// another one gives up its connection.
pub(super) fn placeholders_fit(json: &str, attachments: usize) -> bool {
    fn fits(value: &serde_json::Value, attachments: usize) -> bool {
        match value {
            serde_json::Value::Array(items) => items.iter().all(|item| fits(item, attachments)),
            serde_json::Value::Object(members) => {
                if members.get("_placeholder") == Some(&serde_json::Value::Bool(true)) {
                    let number = members.get("num").and_then(serde_json::Value::as_u64);
                    return number.is_some_and(|number| number < attachments as u64);
                }
                members.values().all(|member| fits(member, attachments))
            }
            _ => true,
        }
    }
    attachments == 0
        || depth(json) <= DEPTH_MAX
            && serde_json::from_str(json).is_ok_and(|value| fits(&value, attachments))
}

/// The part in front of a packet's JSON: `42`, the namespace, the number.
pub(super) fn head(
    kind: Kind,
    is_error: bool,
    attachments: usize,
    namespace: &str,
    ack: Option<u64>,
) -> String {
    let kind = match (kind, attachments) {
        (Kind::Connect, _) if is_error => "44".to_owned(),
        (Kind::Connect, _) => "40".to_owned(),
        (Kind::Disconnect, _) => "41".to_owned(),
        (Kind::Event, 0) => "42".to_owned(),
        (Kind::Ack, 0) => "43".to_owned(),
        (Kind::Event, count) => format!("45{count}-"),
        (Kind::Ack, count) => format!("46{count}-"),
    };
    let ack = ack.map(|ack| ack.to_string()).unwrap_or_default();
    match namespace {
        MAIN => format!("{kind}{ack}"),
        other => format!("{kind}{other},{ack}"),
    }
}

/// A packet as an Engine.IO message.
pub(super) fn write(kind: Kind, namespace: &str, ack: Option<u64>, json: &str) -> String {
    head(kind, false, 0, namespace, ack) + json
}

/// Says that a namespace can't be entered.
pub(super) fn connect_error(namespace: &str, json: &str) -> String {
    head(Kind::Connect, true, 0, namespace, None) + json
}

/// Reads a packet, and holds what came of it against the rules.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    if let Ok(packet) = parse(text) {
        assert!(packet.attachments <= SKIPPED_MAX);
        assert!(packet.namespace.starts_with('/'));
        let _ = Args::of(packet.json).and_then(|args| args.name());
        let head = head(
            packet.kind,
            false,
            packet.attachments,
            packet.namespace,
            packet.ack,
        );
        let again = head + packet.json;
        let again = parse(&again[1..]).ok();
        assert_eq!(again, Some(packet));
    }
    let _ = placeholders_fit(text, 2);
}

#[cfg(test)]
mod tests;
