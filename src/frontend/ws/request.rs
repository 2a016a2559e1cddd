//! What a JSON client may ask: one object per text frame, read into a [`Request`].
//!
//! The object's values are kept as they came until its `type` says which of them matter. One that
//! does not is refused: a misspelt `key` would be lost without a word. `null` is as good as absent.
//! Depth costs nothing, as what is not asked for is skipped without recursion.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::UserName;
use crate::frontend::json::{self, FieldList, JsonError};
use crate::frontend::moderation::Asked;
use crate::people::moderation::Act;
use crate::relay::entry::{EntryId, Fields, RoomName};
use crate::relay::position::Position;

/// Longest `ref`, in bytes of JSON: it's kept and echoed.
pub(super) const REF_MAX: usize = 256;

/// Longest `key`, in bytes: it becomes part of a Redis key.
pub(super) const KEY_MAX: usize = 256;

/// A client's own mark on a request, as it came.
pub(super) type Ref = Option<Box<str>>;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Auth {
        token: String,
    },
    Publish(Publish),
    Join {
        room: RoomName,
        from: Position,
        presence: bool,
    },
    Leave {
        room: RoomName,
    },
    History {
        room: Option<RoomName>,
        after: Option<EntryId>,
        before: Option<EntryId>,
        limit: Option<usize>,
        newest_first: bool,
    },
    /// Who is here.
    Presence {
        room: Option<RoomName>,
        limit: Option<usize>,
    },
    React {
        room: Option<RoomName>,
        reaction: String,
    },
    Moderate {
        room: Option<RoomName>,
        act: Act,
        reason: Option<String>,
    },
    Ping,
}

/// What is to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    /// The socket's own room if none is named.
    pub(super) room: Option<RoomName>,
    pub(super) fields: Fields,
    pub(super) key: Option<Bytes>,
    /// Whether the client wants it back.
    pub(super) echo: bool,
    /// Shown now, and not stored.
    pub(super) ephemeral: bool,
}

impl Request {
    /// The room whose rules have to be known before it's done, if any have.
    pub(super) fn speaks_in<'a>(&'a self, home: &'a RoomName) -> Option<&'a RoomName> {
        match self {
            Request::Publish(Publish { room, .. }) | Request::React { room, .. } => {
                Some(room.as_ref().unwrap_or(home))
            }
            _ => None,
        }
    }
}

/// Why a frame is no request: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refused {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refused {
            code,
            message: message.into(),
        }
    }

    fn bad(message: impl Into<String>) -> Self {
        Refused::new("bad_request", message)
    }
}

/// What a frame may have, by its type, beside `type` and `ref`.
const MEMBERS: [(&str, &[&str]); 9] = [
    (
        "publish",
        &[
            "room",
            "to",
            "message",
            "fields",
            "key",
            "echo",
            "ephemeral",
        ],
    ),
    ("join", &["room", "from", "presence"]),
    ("leave", &["room"]),
    ("history", &["room", "after", "before", "limit", "order"]),
    ("presence", &["room", "limit"]),
    ("react", &["room", "reaction"]),
    // The rest is read, and what is unknown refused, with the act.
    ("moderate", &["room", "reason"]),
    ("auth", &["token"]),
    ("ping", &[]),
];

/// What every frame may have.
const OF_ALL: [&str; 2] = ["type", "ref"];

/// The object of a frame, unread.
struct Object<'a> {
    /// Members that some type has.
    members: SmallVec<[(&'static str, Option<&'a RawValue>); 8]>,
    /// The first that none has.
    unknown: Option<String>,
}

/// A member's name, which has to be copied only if it's written with escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object {
            members: SmallVec::new(),
            unknown: None,
        };
        while let Some(Name(name)) = map.next_key()? {
            let Some(known) = known(&name) else {
                map.next_value::<IgnoredAny>()?;
                object.unknown.get_or_insert_with(|| shown(&name));
                continue;
            };
            if object.members.iter().any(|(other, _)| *other == known) {
                return Err(A::Error::duplicate_field(known));
            }
            object.members.push((known, map.next_value()?));
        }
        Ok(object)
    }
}

/// The name, if some type has it.
fn known(name: &str) -> Option<&'static str> {
    let mut all = OF_ALL
        .iter()
        .chain(MEMBERS.iter().flat_map(|(_, names)| *names));
    all.find(|known| **known == name).copied()
}

/// A client's own word, as an error repeats it.
fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}

/// Reads a frame. The `ref` comes back also where the rest is refused, as long as it's one.
pub(super) fn parse(text: &str, max_fields: usize) -> (Ref, Result<Request, Refused>) {
    let object: Object<'_> = match text.trim_ascii_start().strip_prefix('{') {
        // serde would read an array into a struct as well.
        None => {
            return (
                None,
                Err(Refused::new("bad_json", "a frame is one JSON object")),
            );
        }
        Some(_) => match json::read(text.as_bytes()) {
            Ok(object) => object,
            Err(error) => {
                let message = format!("a frame is one JSON object: {error}");
                return (None, Err(Refused::new("bad_json", message)));
            }
        },
    };
    match reference(object.member("ref")) {
        Ok(reference) => (reference, object.request(text, max_fields)),
        Err(refusal) => (None, Err(refusal)),
    }
}

impl<'a> Object<'a> {
    fn member(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.members.iter().find(|(known, _)| *known == name);
        found.and_then(|(_, value)| *value)
    }

    /// Refuses what a frame of this type has no use for.
    fn check_members(&self, kind: &str) -> Result<(), Refused> {
        let row = MEMBERS.iter().find(|(of, _)| *of == kind);
        let Some((_, names)) = row.filter(|_| kind != "moderate") else {
            return Ok(());
        };
        let is_of_kind = |name: &&str| names.contains(name) || OF_ALL.contains(name);
        let mut found = self.members.iter().map(|(name, _)| *name);
        let elsewhere = found.find(|name| !is_of_kind(name));
        match self.unknown.as_deref().or(elsewhere) {
            None => Ok(()),
            Some(name) => {
                let all: Vec<&str> = names.iter().chain(&OF_ALL).copied().collect();
                Err(Refused::bad(format!(
                    "{kind} has no member `{name}`; it has {}",
                    all.join(", ")
                )))
            }
        }
    }

    fn request(&self, text: &str, max_fields: usize) -> Result<Request, Refused> {
        const KINDS: &str =
            "one of publish, join, leave, history, presence, react, moderate, auth, ping";
        let kind = self
            .optional("type", string)?
            .ok_or_else(|| Refused::new("unknown_type", format!("`type` is missing: {KINDS}")))?;
        self.check_members(&kind)?;
        match kind.as_str() {
            "auth" => Ok(Request::Auth {
                token: self
                    .optional("token", string)?
                    .ok_or_else(|| Refused::bad("`token` is missing"))?,
            }),
            "publish" => Ok(Request::Publish(Publish {
                room: self.addressee()?,
                fields: self.entry_fields(max_fields)?,
                key: self.optional("key", key)?,
                echo: self.optional("echo", switch)?.unwrap_or(true),
                ephemeral: self.optional("ephemeral", switch)?.unwrap_or(false),
            })),
            "join" => Ok(Request::Join {
                room: self.needed_room()?,
                from: self.optional("from", position)?.unwrap_or_default(),
                presence: self.optional("presence", switch)?.unwrap_or(false),
            }),
            "leave" => Ok(Request::Leave {
                room: self.needed_room()?,
            }),
            "history" => Ok(Request::History {
                room: self.optional("room", room)?,
                after: self.optional("after", id)?,
                before: self.optional("before", id)?,
                limit: self.optional("limit", count)?,
                newest_first: self.optional("order", newest_first)?.unwrap_or(false),
            }),
            "presence" => Ok(Request::Presence {
                room: self.optional("room", room)?,
                limit: self.optional("limit", count)?,
            }),
            "react" => Ok(Request::React {
                room: self.optional("room", room)?,
                reaction: self
                    .optional("reaction", string)?
                    .ok_or_else(|| Refused::bad("`reaction` is missing: name one, as in heart"))?,
            }),
            "moderate" => Ok(Request::Moderate {
                room: self.optional("room", room)?,
                act: act(text)?,
                reason: self.optional("reason", string)?,
            }),
            "ping" => Ok(Request::Ping),
            other => {
                let message = format!("there is no type `{}`: {KINDS}", shown(other));
                Err(Refused::new("unknown_type", message))
            }
        }
    }

    /// Applies a reader to a value that may be absent.
    fn optional<T>(
        &self,
        name: &str,
        read: fn(&RawValue, &str) -> Result<T, Refused>,
    ) -> Result<Option<T>, Refused> {
        optional(self.member(name), name, read)
    }

    /// Where a publish goes: a room, or a user's own.
    fn addressee(&self) -> Result<Option<RoomName>, Refused> {
        match (self.member("room"), self.member("to")) {
            (Some(_), Some(_)) => Err(Refused::bad("give `room` or `to`, not both")),
            (room_named, None) => optional(room_named, "room", room),
            (None, Some(to)) => {
                let user = UserName::parse(&string(to, "to")?)
                    .map_err(|error| Refused::bad(format!("`to`: {error}")))?;
                Ok(Some(user.room().clone()))
            }
        }
    }

    fn needed_room(&self) -> Result<RoomName, Refused> {
        self.optional("room", room)?
            .ok_or_else(|| Refused::bad("`room` is missing: name the room"))
    }

    fn entry_fields(&self, max_fields: usize) -> Result<Fields, Refused> {
        match (self.member("message"), self.member("fields")) {
            (Some(_), Some(_)) => Err(Refused::bad("give `message` or `fields`, not both")),
            (None, None) => Err(Refused::bad(
                "`message` (a string) or `fields` (an object) is missing",
            )),
            (Some(message), None) => {
                let message = Bytes::from(string(message, "message")?);
                Ok(Box::new([(Bytes::from_static(b"message"), message)]))
            }
            (None, Some(fields)) => {
                let FieldList(fields) = json::read(fields.get().as_bytes()).map_err(|error| {
                    Refused::bad(format!("`fields` can't be taken: {}", error.sentence()))
                })?;
                if fields.is_empty() {
                    Err(Refused::bad("an entry has at least one field"))
                } else if fields.len() > max_fields {
                    let message = format!("an entry has at most {max_fields} fields");
                    Err(Refused::new("too_many_fields", message))
                } else {
                    Ok(fields.into())
                }
            }
        }
    }
}

/// Applies a reader to a value that may be absent.
fn optional<T>(
    value: Option<&RawValue>,
    name: &str,
    read: fn(&RawValue, &str) -> Result<T, Refused>,
) -> Result<Option<T>, Refused> {
    value.map(|value| read(value, name)).transpose()
}

fn string(value: &RawValue, name: &str) -> Result<String, Refused> {
    json::read(value.get().as_bytes()).map_err(|error| match error {
        JsonError::HalfPair(_) => Refused::bad(format!("`{name}`: {error}")),
        JsonError::Other(_) => {
            Refused::bad(format!("`{name}` must be a string: {}", error.sentence()))
        }
    })
}

fn room(value: &RawValue, name: &str) -> Result<RoomName, Refused> {
    RoomName::parse(&string(value, name)?)
        .map_err(|error| Refused::new("bad_room", error.to_string()))
}

fn position(value: &RawValue, name: &str) -> Result<Position, Refused> {
    string(value, name)?
        .parse()
        .map_err(|error| Refused::new("bad_from", format!("{error}")))
}

fn id(value: &RawValue, name: &str) -> Result<EntryId, Refused> {
    string(value, name)?
        .parse()
        .map_err(|error| Refused::bad(format!("`{name}`: {error}")))
}

fn count(value: &RawValue, name: &str) -> Result<usize, Refused> {
    match serde_json::from_str(value.get()) {
        Ok(count @ 1..) => Ok(count),
        _ => Err(Refused::bad(format!("`{name}` is a whole number from 1"))),
    }
}

fn switch(value: &RawValue, name: &str) -> Result<bool, Refused> {
    serde_json::from_str(value.get())
        .map_err(|_| Refused::bad(format!("`{name}` is true or false")))
}

/// What a moderator wants, read from the whole frame.
fn act(text: &str) -> Result<Act, Refused> {
    let asked: Asked = json::read(text.as_bytes())
        .map_err(|error| Refused::bad(format!("the act can't be read: {}", error.sentence())))?;
    asked.act().map_err(Refused::bad)
}

fn newest_first(value: &RawValue, name: &str) -> Result<bool, Refused> {
    match string(value, name)?.as_str() {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(Refused::bad(format!("`{name}` is asc or desc"))),
    }
}

fn key(value: &RawValue, name: &str) -> Result<Bytes, Refused> {
    let key = string(value, name)?;
    if (1..=KEY_MAX).contains(&key.len()) {
        Ok(key.into())
    } else {
        Err(Refused::bad(format!("`{name}` has 1 to {KEY_MAX} bytes")))
    }
}

fn reference(value: Option<&RawValue>) -> Result<Ref, Refused> {
    let Some(value) = value.map(RawValue::get) else {
        return Ok(None);
    };
    if !value.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        Err(Refused::bad("`ref` is a string or a number"))
    } else if value.len() > REF_MAX {
        Err(Refused::bad(format!("`ref` has at most {REF_MAX} bytes")))
    } else {
        Ok(Some(value.into()))
    }
}

/// Reads a frame and holds what came of it against the rules.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    const FIELDS_MAX: usize = 8;
    let (reference, request) = parse(text, FIELDS_MAX);
    if let Some(reference) = reference {
        assert!(reference.len() <= REF_MAX);
        assert!(serde_json::from_str::<serde_json::Value>(&reference).is_ok());
    }
    match request {
        Ok(Request::Publish(Publish { fields, key, .. })) => {
            assert!((1..=FIELDS_MAX).contains(&fields.len()));
            assert!(key.is_none_or(|key| (1..=KEY_MAX).contains(&key.len())));
        }
        Ok(Request::History { limit, .. }) => assert_ne!(limit, Some(0)),
        Ok(_) => {}
        Err(refusal) => assert!(!refusal.code.is_empty() && !refusal.message.is_empty()),
    }
}

#[cfg(test)]
mod tests;
