//! Entries as JSON, for every front end and for the history page: one shape everywhere.
//!
//! A value that is not UTF-8 is `{"base64":"…"}`, and a name that occurs more than once has an
//! array of its values, in stream order, at the place of the first.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::Serialize;
use smallvec::{SmallVec, smallvec};

use crate::people::Present;
use crate::people::moderation::Done;
use crate::people::query::Presence;
use crate::relay::entry::{Entry, RoomName};
use crate::relay::format::Gap;

/// Why JSON can't be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JsonError {
    /// It has an escape that is half a character, as JavaScript writes a text that was cut within one.
    #[error(
        "the text has half a surrogate pair ({0}), which is no character; do not cut a text between the two"
    )]
    HalfPair(String),
    /// What the parser says.
    #[error("{0}")]
    Other(#[from] serde_json::Error),
}

impl JsonError {
    /// The error without its place, for a part of a text, whose place would count from the start of the
    /// part.
    pub(crate) fn sentence(&self) -> String {
        let text = self.to_string();
        match text.rfind(" at line ") {
            Some(end) => text[..end].to_owned(),
            None => text,
        }
    }
}

/// Reads JSON from a client. All of it that a client sends comes through here, so that the same fault
/// has the same words everywhere.
pub(crate) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, JsonError> {
    serde_json::from_slice(json).map_err(|error| match half_pair(json) {
        // Where the parser fails for another reason, that comes first only by chance.
        Some(escape) if error.is_syntax() => JsonError::HalfPair(escape),
        _ => JsonError::Other(error),
    })
}

/// The first escape, as in `\ud83d`, that is one half of a surrogate pair without the other.
pub(crate) fn half_pair(json: &[u8]) -> Option<String> {
    let mut rest = json;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        rest = &rest[at..];
        match (unit(rest), rest.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => rest = &rest[12..],
            (Some(0xd800..=0xdfff), _) => {
                return Some(String::from_utf8_lossy(&rest[..6]).into_owned());
            }
            (Some(_), _) => rest = &rest[6..],
            // Another escape, whose second half may be a backslash.
            (None, _) => rest = rest.get(2..)?,
        }
    }
    None
}

/// The number of the `\u` escape that some JSON begins with.
fn unit(json: &[u8]) -> Option<u16> {
    let digits = json.strip_prefix(br"\u")?.get(..4)?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok()
}

/// Appends a value's JSON. Text and numbers can't fail to be written to memory.
pub(crate) fn value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let _ = serde_json::to_writer(out, value);
}

/// Appends fields as one object.
pub(crate) fn fields(out: &mut Vec<u8>, fields: &[(Bytes, Bytes)]) {
    out.push(b'{');
    for (at, (name, values)) in by_name(fields).iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        value(out, &*String::from_utf8_lossy(name));
        out.push(b':');
        if let [one] = values.as_slice() {
            field_value(out, one);
            continue;
        }
        for (at, bytes) in values.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            field_value(out, bytes);
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// A name with all its values.
type Group<'a> = (&'a Bytes, SmallVec<[&'a Bytes; 1]>);

fn by_name(fields: &[(Bytes, Bytes)]) -> SmallVec<[Group<'_>; 4]> {
    // Few fields are compared each with each; an entry that somebody added with thousands of them
    // must not take a second.
    let mut index = (fields.len() > 32).then(HashMap::new);
    let mut groups: SmallVec<[Group<'_>; 4]> = SmallVec::new();
    for (name, bytes) in fields {
        let at = match &mut index {
            Some(index) => *index.entry(name).or_insert(groups.len()),
            None => groups
                .iter()
                .position(|(n, _)| *n == name)
                .unwrap_or(groups.len()),
        };
        match groups.get_mut(at) {
            Some((_, values)) => values.push(bytes),
            None => groups.push((name, smallvec![bytes])),
        }
    }
    groups
}

fn field_value(out: &mut Vec<u8>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => value(out, text),
        Err(_) => {
            out.extend_from_slice(b"{\"base64\":\"");
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.extend_from_slice(b"\"}");
        }
    }
}

/// An entry as `{"room","id","fields"}`; `typed` puts `"type":"entry"` before that.
pub(crate) fn entry_json(room: &RoomName, entry: &Entry, typed: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(96 + room.as_str().len() + entry.size() * 5 / 4);
    out.push(b'{');
    if typed {
        out.extend_from_slice(b"\"type\":\"entry\",");
    }
    out.extend_from_slice(b"\"room\":");
    value(&mut out, room.as_str());
    out.extend_from_slice(format!(",\"id\":\"{}\",\"fields\":", entry.id).as_bytes());
    fields(&mut out, &entry.fields);
    out.push(b'}');
    out
}

/// An ephemeral publish as a client's frame: like an entry, without an ID.
pub(crate) fn ephemeral_json(
    room: &RoomName,
    user: Option<&str>,
    published: &[(Bytes, Bytes)],
) -> String {
    let mut out = b"{\"type\":\"ephemeral\",\"room\":".to_vec();
    value(&mut out, room.as_str());
    if let Some(user) = user {
        out.extend_from_slice(b",\"user\":");
        value(&mut out, user);
    }
    out.extend_from_slice(b",\"fields\":");
    fields(&mut out, published);
    out.push(b'}');
    // All of it is text: bytes that are none stand there in base64.
    String::from_utf8(out).unwrap_or_default()
}

/// Who is in a room, as `{"count","users":[…],"truncated"}`.
pub(crate) fn presence(out: &mut Vec<u8>, presence: &Presence) {
    let users: Vec<serde_json::Value> = presence.users.iter().map(Present::json).collect();
    let truncated = presence.users.len() < presence.count;
    let object = serde_json::json!({
        "count": presence.count, "users": users, "truncated": truncated,
    });
    value(out, &object);
}

/// What a moderator's act came to: the members of an object, without its braces.
pub(crate) fn done(out: &mut Vec<u8>, done: &Done) {
    out.extend_from_slice(
        format!("\"act\":\"{}\",\"audit\":\"{}\"", done.act, done.audit).as_bytes(),
    );
    if let Some(until) = done.until {
        out.extend_from_slice(format!(",\"until\":{until}").as_bytes());
    }
    if done.act == "delete" {
        let deleted: Vec<String> = done.deleted.iter().map(|id| id.to_string()).collect();
        out.extend_from_slice(b",\"deleted\":");
        value(out, &deleted);
    }
}

/// A gap as `{"room","after","before","reason"}`; `typed` puts `"type":"gap"` before that.
pub(crate) fn gap_json(room: &RoomName, gap: &Gap, typed: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + room.as_str().len());
    out.push(b'{');
    if typed {
        out.extend_from_slice(b"\"type\":\"gap\",");
    }
    out.extend_from_slice(b"\"room\":");
    value(&mut out, room.as_str());
    out.extend_from_slice(
        format!(
            ",\"after\":\"{}\",\"before\":\"{}\",\"reason\":\"{}\"}}",
            gap.after,
            gap.before,
            gap.reason.as_str()
        )
        .as_bytes(),
    );
    out
}

/// Appends entries as an array of `{"id","fields"}`.
pub(crate) fn entries(out: &mut Vec<u8>, entries: &[Entry]) {
    out.push(b'[');
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!("{{\"id\":\"{}\",\"fields\":", entry.id).as_bytes());
        fields(out, &entry.fields);
        out.push(b'}');
    }
    out.push(b']');
}

/// Fields as a client sends them, in the order they came. A repeated name is a repeated field, as in
/// Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldList(pub(crate) Vec<(Bytes, Bytes)>);

impl<'de> Deserialize<'de> for FieldList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = FieldList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FieldList, A::Error> {
                let mut list = Vec::new();
                while let Some((name, Value(value))) = map.next_entry::<String, Value>()? {
                    list.push((Bytes::from(name), value));
                }
                Ok(FieldList(list))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A field's value: text, or any bytes as base64.
struct Value(Bytes);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or {\"base64\":\"…\"}")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value(Bytes::copy_from_slice(text.as_bytes())))
            }

            fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
                Ok(Value(text.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let not_base64 = || A::Error::custom("a value is a string or {\"base64\":\"…\"}");
                let name: Option<String> = map.next_key()?;
                if name.as_deref() != Some("base64") {
                    return Err(not_base64());
                }
                let text: String = map.next_value()?;
                if map.next_key::<String>()?.is_some() {
                    return Err(not_base64());
                }
                STANDARD
                    .decode(text)
                    .map(|bytes| Value(bytes.into()))
                    .map_err(|_| A::Error::custom("the base64 is not valid (with padding)"))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::EntryId;
    use crate::relay::format::GapReason;

    fn check(pairs: &[(&[u8], &[u8])], want: &str) {
        let pairs: Vec<(Bytes, Bytes)> = pairs
            .iter()
            .map(|(n, v)| (Bytes::copy_from_slice(n), Bytes::copy_from_slice(v)))
            .collect();
        let mut out = Vec::new();
        fields(&mut out, &pairs);
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    #[test]
    fn objects() {
        check(&[], "{}");
        check(&[(b"a", b"1"), (b"b", b"")], r#"{"a":"1","b":""}"#);
        check(
            &[(b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", b"\xff")],
            r#"{"a":["1","3",{"base64":"/w=="}],"b":"2"}"#,
        );
        let many: Vec<(Bytes, Bytes)> = (0..100)
            .map(|n| (Bytes::from(format!("f{}", n % 50)), Bytes::from("v")))
            .collect();
        let mut out = Vec::new();
        fields(&mut out, &many);
        let read: HashMap<String, Vec<String>> = serde_json::from_slice(&out).unwrap();
        assert_eq!(read.len(), 50);
        assert!(read.values().all(|values| values.len() == 2));
        check(&[(b"\"\n", b"\x00\"\\\n")], r#"{"\"\n":"\u0000\"\\\n"}"#);
        check(&[(b"n\xff", b"\xc3\x28")], r#"{"n�":{"base64":"wyg="}}"#);
        check(
            &[("é".as_bytes(), "🙂\u{2028}".as_bytes())],
            "{\"é\":\"🙂\u{2028}\"}",
        );
    }

    #[test]
    fn whole_entries() {
        let room = RoomName::parse("a \"b\"").unwrap();
        let pairs = vec![(Bytes::from("message"), Bytes::from("hi"))];
        let entry = Entry::new(EntryId::new(5, 1), pairs);
        assert_eq!(
            String::from_utf8(entry_json(&room, &entry, false)).unwrap(),
            r#"{"room":"a \"b\"","id":"5-1","fields":{"message":"hi"}}"#
        );
        assert_eq!(
            String::from_utf8(entry_json(&room, &entry, true)).unwrap(),
            r#"{"type":"entry","room":"a \"b\"","id":"5-1","fields":{"message":"hi"}}"#
        );
        let gap = Gap {
            after: EntryId::new(1, 0),
            before: EntryId::new(5, 1),
            reason: GapReason::Trimmed,
        };
        assert_eq!(
            String::from_utf8(gap_json(&room, &gap, true)).unwrap(),
            r#"{"type":"gap","room":"a \"b\"","after":"1-0","before":"5-1","reason":"trimmed"}"#
        );
        let mut out = Vec::new();
        entries(&mut out, &[entry]);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"[{"id":"5-1","fields":{"message":"hi"}}]"#
        );
    }

    #[test]
    fn half_a_pair_is_called_so() {
        let check = |json: &str, want: Option<&str>| {
            let error = read::<String>(json.as_bytes()).unwrap_err().to_string();
            match want {
                Some(half) => {
                    let want = format!("the text has half a surrogate pair ({half}), ");
                    assert!(error.starts_with(&want), "{json}: {error}");
                }
                None => assert!(!error.contains("surrogate"), "{json}: {error}"),
            }
        };
        check(r#""a\ud83d""#, Some(r"\ud83d"));
        check(r#""a\uDE00b""#, Some(r"\uDE00"));
        check(r#""\ud83dx""#, Some(r"\ud83d"));
        check(r#""\ud83d\n""#, Some(r"\ud83d"));
        check(r#""\ud83d\ud83d\ude00""#, Some(r"\ud83d"));
        check(r#""\ud83d\u0041""#, Some(r"\ud83d"));
        check(r#""\ud83d\ude00\ud83d""#, Some(r"\ud83d"));
        // A backslash and letters are no escape.
        check(r#""\\ud83d" x"#, None);
        check(r#""\u00zz""#, None);
        check("1", None);
        check(r#""\"#, None);
        assert_eq!(read::<String>(br#""\ud83d\ude00""#).unwrap(), "😀");
        assert_eq!(read::<String>(br#""\\ud83d""#).unwrap(), r"\ud83d");
    }

    #[test]
    fn field_lists() {
        let list: FieldList = serde_json::from_str(r#"{"b":"1","a":"2"}"#).unwrap();
        assert_eq!(list.0[0], (Bytes::from("b"), Bytes::from("1")));
        for bad in [r#"{"a":1}"#, "[]", r#""a""#, r#"{"a":null}"#] {
            assert!(serde_json::from_str::<FieldList>(bad).is_err(), "{bad}");
        }
    }
}
