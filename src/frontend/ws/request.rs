//! What a JSON client may ask: one object per text frame, read into a [`Request`].
//!
//! The object's values are kept as they came until its `type` says which of them matter. Unknown
//! keys are let through, and `null` is as good as absent. Depth costs nothing, as what is not asked
//! for is skipped without recursion.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::frontend::json::FieldList;
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
    Publish {
        /// The socket's own room if none is named.
        room: Option<RoomName>,
        fields: Fields,
        key: Option<Bytes>,
    },
    Join {
        room: RoomName,
        from: Position,
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
    Ping,
}

/// Why a frame is no request: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            code,
            message: message.into(),
        }
    }

    fn bad(message: impl Into<String>) -> Self {
        Refusal::new("bad_request", message)
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
}

/// Reads a frame. The `ref` comes back also where the rest is refused, as long as it's one.
pub(super) fn parse(text: &str, max_fields: usize) -> (Ref, Result<Request, Refusal>) {
    let object: Object<'_> = match text.trim_ascii_start().strip_prefix('{') {
        // serde would read an array into a struct as well.
        None => {
            return (
                None,
                Err(Refusal::new("bad_json", "a frame is one JSON object")),
            );
        }
        Some(_) => match serde_json::from_str(text) {
            Ok(object) => object,
            Err(error) => {
                let message = format!("a frame is one JSON object: {error}");
                return (None, Err(Refusal::new("bad_json", message)));
            }
        },
    };
    match reference(object.reference) {
        Ok(reference) => (reference, object.request(max_fields)),
        Err(refusal) => (None, Err(refusal)),
    }
}

impl Object<'_> {
    fn request(&self, max_fields: usize) -> Result<Request, Refusal> {
        const KINDS: &str = "one of publish, join, leave, history, ping";
        let kind = optional(self.kind, "type", string)?
            .ok_or_else(|| Refusal::new("unknown_type", format!("`type` is missing: {KINDS}")))?;
        match kind.as_str() {
            "publish" => Ok(Request::Publish {
                room: optional(self.room, "room", room)?,
                fields: self.entry_fields(max_fields)?,
                key: optional(self.key, "key", key)?,
            }),
            "join" => Ok(Request::Join {
                room: self.needed_room()?,
                from: optional(self.from, "from", position)?.unwrap_or_default(),
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
            "ping" => Ok(Request::Ping),
            other => {
                let shown: String = other.chars().take(40).collect();
                let message = format!("there is no type `{shown}`: {KINDS}");
                Err(Refusal::new("unknown_type", message))
            }
        }
    }

    fn needed_room(&self) -> Result<RoomName, Refusal> {
        optional(self.room, "room", room)?
            .ok_or_else(|| Refusal::bad("`room` is missing: name the room"))
    }

    fn entry_fields(&self, max_fields: usize) -> Result<Fields, Refusal> {
        match (self.message, self.fields) {
            (Some(_), Some(_)) => Err(Refusal::bad("give `message` or `fields`, not both")),
            (None, None) => Err(Refusal::bad(
                "`message` (a string) or `fields` (an object) is missing",
            )),
            (Some(message), None) => {
                let message = Bytes::from(string(message, "message")?);
                Ok(Box::new([(Bytes::from_static(b"message"), message)]))
            }
            (None, Some(fields)) => {
                let FieldList(fields) = serde_json::from_str(fields.get()).map_err(|error| {
                    Refusal::bad(format!("`fields` can't be taken: {}", sentence(&error)))
                })?;
                if fields.is_empty() {
                    Err(Refusal::bad("an entry has at least one field"))
                } else if fields.len() > max_fields {
                    let message = format!("an entry has at most {max_fields} fields");
                    Err(Refusal::new("too_many_fields", message))
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
    read: fn(&RawValue, &str) -> Result<T, Refusal>,
) -> Result<Option<T>, Refusal> {
    value.map(|value| read(value, name)).transpose()
}

fn string(value: &RawValue, name: &str) -> Result<String, Refusal> {
    serde_json::from_str(value.get())
        .map_err(|error| Refusal::bad(format!("`{name}` must be a string: {}", sentence(&error))))
}

fn room(value: &RawValue, name: &str) -> Result<RoomName, Refusal> {
    RoomName::parse(&string(value, name)?)
        .map_err(|error| Refusal::new("bad_room", error.to_string()))
}

fn position(value: &RawValue, name: &str) -> Result<Position, Refusal> {
    string(value, name)?
        .parse()
        .map_err(|error| Refusal::new("bad_from", format!("{error}")))
}

fn id(value: &RawValue, name: &str) -> Result<EntryId, Refusal> {
    string(value, name)?
        .parse()
        .map_err(|error| Refusal::bad(format!("`{name}`: {error}")))
}

fn count(value: &RawValue, name: &str) -> Result<usize, Refusal> {
    match serde_json::from_str(value.get()) {
        Ok(count @ 1..) => Ok(count),
        _ => Err(Refusal::bad(format!("`{name}` is a whole number from 1"))),
    }
}

fn newest_first(value: &RawValue, name: &str) -> Result<bool, Refusal> {
    match string(value, name)?.as_str() {
        "asc" => Ok(false),
        "desc" => Ok(true),
        _ => Err(Refusal::bad(format!("`{name}` is asc or desc"))),
    }
}

fn key(value: &RawValue, name: &str) -> Result<Bytes, Refusal> {
    let key = string(value, name)?;
    if (1..=KEY_MAX).contains(&key.len()) {
        Ok(key.into())
    } else {
        Err(Refusal::bad(format!("`{name}` has 1 to {KEY_MAX} bytes")))
    }
}

fn reference(value: Option<&RawValue>) -> Result<Ref, Refusal> {
    let Some(value) = value.map(RawValue::get) else {
        return Ok(None);
    };
    if !value.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit()) {
        Err(Refusal::bad("`ref` is a string or a number"))
    } else if value.len() > REF_MAX {
        Err(Refusal::bad(format!("`ref` has at most {REF_MAX} bytes")))
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
        Ok(Request::Publish { fields, key, .. }) => {
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
