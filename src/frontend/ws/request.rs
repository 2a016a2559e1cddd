//! What a JSON client may ask: one object per text frame, read into a [`Request`].
//!
//! The object's values are kept as they came until its `type` says which of them matter. Unknown
//! keys are let through, and `null` is as good as absent. Depth costs nothing, as what is not asked
//! for is skipped without recursion.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::auth::UserName;
use crate::frontend::json::FieldList;
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

/// The object of a frame, unread.
#[derive(serde::Deserialize)]
struct Object<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    fields: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
    #[serde(borrow)]
    order: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    to: Option<&'a RawValue>,
    #[serde(borrow)]
    echo: Option<&'a RawValue>,
    #[serde(borrow)]
    ephemeral: Option<&'a RawValue>,
    #[serde(borrow)]
    presence: Option<&'a RawValue>,
    #[serde(borrow)]
    reaction: Option<&'a RawValue>,
    #[serde(borrow)]
    reason: Option<&'a RawValue>,
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
        Some(_) => match serde_json::from_str(text) {
            Ok(object) => object,
            Err(error) => {
                let message = format!("a frame is one JSON object: {error}");
                return (None, Err(Refused::new("bad_json", message)));
            }
        },
    };
    match reference(object.reference) {
        Ok(reference) => (reference, object.request(text, max_fields)),
        Err(refusal) => (None, Err(refusal)),
    }
}

impl Object<'_> {
    fn request(&self, text: &str, max_fields: usize) -> Result<Request, Refused> {
        const KINDS: &str =
            "one of publish, join, leave, history, presence, react, moderate, auth, ping";
        let kind = optional(self.kind, "type", string)?
            .ok_or_else(|| Refused::new("unknown_type", format!("`type` is missing: {KINDS}")))?;
        match kind.as_str() {
            "auth" => Ok(Request::Auth {
                token: optional(self.token, "token", string)?
                    .ok_or_else(|| Refused::bad("`token` is missing"))?,
            }),
            "publish" => Ok(Request::Publish(Publish {
                room: self.addressee()?,
                fields: self.entry_fields(max_fields)?,
                key: optional(self.key, "key", key)?,
                echo: optional(self.echo, "echo", switch)?.unwrap_or(true),
                ephemeral: optional(self.ephemeral, "ephemeral", switch)?.unwrap_or(false),
            })),
            "join" => Ok(Request::Join {
                room: self.needed_room()?,
                from: optional(self.from, "from", position)?.unwrap_or_default(),
                presence: optional(self.presence, "presence", switch)?.unwrap_or(false),
            }),
            "leave" => Ok(Request::Leave {
                room: self.needed_room()?,
            }),
            "history" => Ok(Request::History {
                room: optional(self.room, "room", room)?,
                after: optional(self.after, "after", id)?,
                before: optional(self.before, "before", id)?,
                limit: optional(self.limit, "limit", count)?,
                newest_first: optional(self.order, "order", newest_first)?.unwrap_or(false),
            }),
            "presence" => Ok(Request::Presence {
                room: optional(self.room, "room", room)?,
                limit: optional(self.limit, "limit", count)?,
            }),
            "react" => Ok(Request::React {
                room: optional(self.room, "room", room)?,
                reaction: optional(self.reaction, "reaction", string)?
                    .ok_or_else(|| Refused::bad("`reaction` is missing: name one, as in heart"))?,
            }),
            "moderate" => Ok(Request::Moderate {
                room: optional(self.room, "room", room)?,
                act: act(text)?,
                reason: optional(self.reason, "reason", string)?,
            }),
            "ping" => Ok(Request::Ping),
            other => {
                let shown: String = other.chars().take(40).collect();
                let message = format!("there is no type `{shown}`: {KINDS}");
                Err(Refused::new("unknown_type", message))
            }
        }
    }

    /// Where a publish goes: a room, or a user's own.
    fn addressee(&self) -> Result<Option<RoomName>, Refused> {
        match (self.room, self.to) {
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
        optional(self.room, "room", room)?
            .ok_or_else(|| Refused::bad("`room` is missing: name the room"))
    }

    fn entry_fields(&self, max_fields: usize) -> Result<Fields, Refused> {
        match (self.message, self.fields) {
            (Some(_), Some(_)) => Err(Refused::bad("give `message` or `fields`, not both")),
            (None, None) => Err(Refused::bad(
                "`message` (a string) or `fields` (an object) is missing",
            )),
            (Some(message), None) => {
                let message = Bytes::from(string(message, "message")?);
                Ok(Box::new([(Bytes::from_static(b"message"), message)]))
            }
            (None, Some(fields)) => {
                let FieldList(fields) = serde_json::from_str(fields.get()).map_err(|error| {
                    Refused::bad(format!("`fields` can't be taken: {}", sentence(&error)))
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
    serde_json::from_str(value.get())
        .map_err(|error| Refused::bad(format!("`{name}` must be a string: {}", sentence(&error))))
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
    let asked: Asked = serde_json::from_str(text)
        .map_err(|error| Refused::bad(format!("the act can't be read: {}", sentence(&error))))?;
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

/// The error without its place, which counts from the start of a part.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
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
