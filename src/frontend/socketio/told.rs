//! What entries look like to a client: the arguments of an event, encoded once for all of them.
//!
//! ```text
//! an entry's body
//! 0         1              2                                4 bytes
//! +---------+--------------+---------------+---------------+-----------------+----------+--------+
//! | attach- | length of    | public ID of  | length of the | the event's     | WebSocket frames  |
//! | ments   | the next     | who sent it   | arguments     | arguments       | of attachments    |
//! +---------+--------------+---------------+---------------+-----------------+----------+--------+
//! ```
//!
//! The arguments are the inside of a JSON array, the event's name first.

use bytes::Bytes;
use serde::Deserialize;

use super::packet::{ATTACHMENTS_MAX, is_json, is_reserved, placeholders_fit};
use crate::frontend::json;
use crate::frontend::record::{Kind, bare, encode};
use crate::frontend::websocket::frame::{self, Opcode, frame};
use crate::people::fields::{self, ATTACHMENT, EVENT, SOCKET, USER, USERNAME};
use crate::relay::close::CloseReason;
use crate::relay::entry::{Entry, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};

/// What is in front of every event that is not of an application's making.
pub(super) const OWN: &str = "tailcast:";

/// How the arguments begin that say that somebody went.
const GOING: &[u8] = b"\"message\",{\"event\":\"broadcast_quit\",";

/// Entries as records.
pub(crate) static FORMAT: Format = Format {
    slot: 6,
    entry: |room, entry| encode(Kind::Entry, room, entry.id, &body(room, entry)),
    gap: |room, gap: &Gap| {
        let args = event("gap", &json::gap_json(room, gap, false));
        let before = gap.before.predecessor();
        GapFrame::Frame(encode(Kind::Gap, room, before, &args))
    },
    aside: |aside| Some(bare(Kind::Aside, &event(aside.kind, aside.json()))),
    close,
};

/// The arguments of an event of ours with one object.
pub(super) fn event(name: &str, object: &[u8]) -> Vec<u8> {
    let mut args = Vec::with_capacity(OWN.len() + name.len() + object.len() + 3);
    args.push(b'"');
    args.extend_from_slice(OWN.as_bytes());
    args.extend_from_slice(name.as_bytes());
    args.extend_from_slice(b"\",");
    args.extend_from_slice(object);
    args
}

/// The room of these arguments, if they say that the client was put out of it.
pub(super) fn left_room(args: &[u8]) -> Option<RoomName> {
    #[derive(Deserialize)]
    struct Left {
        room: String,
    }
    let object = args.strip_prefix(b"\"tailcast:left\",")?;
    let left: Left = serde_json::from_slice(object).ok()?;
    RoomName::parse(&left.room).ok()
}

/// An entry's body, taken apart.
#[derive(Debug, PartialEq)]
pub(super) struct Body<'a> {
    pub(super) attachments: usize,
    pub(super) sender: &'a [u8],
    pub(super) args: &'a [u8],
    /// The attachments' WebSocket frames.
    pub(super) frames: &'a [u8],
}

impl<'a> Body<'a> {
    pub(super) fn of(body: &'a [u8]) -> Option<Self> {
        let (&attachments, rest) = body.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let (sender, rest) = rest.split_at_checked(usize::from(length))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (args, frames) = rest.split_at_checked(length)?;
        Some(Body {
            attachments: usize::from(attachments),
            sender,
            args,
            frames,
        })
    }

    /// Whether it says that somebody went.
    pub(super) fn is_going(&self) -> bool {
        self.args.starts_with(GOING)
    }

    fn bytes(&self) -> Vec<u8> {
        let length = 6 + self.sender.len() + self.args.len() + self.frames.len();
        let mut out = Vec::with_capacity(length);
        // Both are checked to be small before.
        out.push(self.attachments as u8);
        out.push(self.sender.len() as u8);
        out.extend_from_slice(self.sender);
        out.extend_from_slice(&(self.args.len() as u32).to_be_bytes());
        out.extend_from_slice(self.args);
        out.extend_from_slice(self.frames);
        out
    }
}

fn body(room: &RoomName, entry: &Entry) -> Vec<u8> {
    emitted(entry).unwrap_or_else(|| {
        Body {
            attachments: 0,
            sender: match text(entry, EVENT) {
                // Nobody is told that they went themselves, once they are back.
                Some("leave") => sender(entry),
                _ => b"",
            },
            args: &message(room, entry),
            frames: b"",
        }
        .bytes()
    })
}

/// The first value of a field.
fn value<'a>(entry: &'a Entry, name: &[u8]) -> Option<&'a Bytes> {
    let mut fields = entry.fields.iter();
    fields.find(|(n, _)| n.as_ref() == name).map(|(_, v)| v)
}

fn text<'a>(entry: &'a Entry, name: &[u8]) -> Option<&'a str> {
    std::str::from_utf8(value(entry, name)?).ok()
}

/// The public ID of the socket that an entry is of, if it says so.
fn sender(entry: &Entry) -> &[u8] {
    let sender = value(entry, SOCKET).filter(|sender| sender.len() <= 64);
    sender.map_or(&b""[..], |sender| sender)
}

/// An entry that is an event, if clients can take it as one.
fn emitted(entry: &Entry) -> Option<Vec<u8>> {
    let (name, args) = fields::emitted(&entry.fields)?;
    if is_reserved(name) || name.starts_with(OWN) || !is_json(args) {
        return None;
    }
    let mut frames = Vec::new();
    let mut attachments = 0;
    for (name, bytes) in &entry.fields {
        if name.as_ref() == ATTACHMENT {
            attachments += 1;
            frames.extend_from_slice(&frame(Opcode::Binary, bytes));
        }
    }
    if attachments > ATTACHMENTS_MAX || !placeholders_fit(args, attachments) {
        return None;
    }
    let inner = args[1..args.len() - 1].trim();
    let mut out = Vec::with_capacity(name.len() + inner.len() + 8);
    json::value(&mut out, name);
    if !inner.is_empty() {
        out.push(b',');
        out.extend_from_slice(inner.as_bytes());
    }
    let body = Body {
        attachments,
        sender: sender(entry),
        args: &out,
        frames: &frames,
    };
    Some(body.bytes())
}

/// Any other entry: `"message",{"event":"broadcast_say","data":{…}}`.
fn message(room: &RoomName, entry: &Entry) -> Vec<u8> {
    let notice = match text(entry, EVENT) {
        Some("join") => Some("join"),
        Some("leave") => Some("broadcast_quit"),
        _ => None,
    };
    let mut out = Vec::with_capacity(128 + entry.size() * 5 / 4);
    out.extend_from_slice(b"\"message\",{\"event\":\"");
    out.extend_from_slice(notice.unwrap_or("broadcast_say").as_bytes());
    out.extend_from_slice(b"\",\"data\":{\"username\":");
    let name = text(entry, USERNAME).or_else(|| text(entry, USER));
    json::value(&mut out, &name);
    if notice.is_none() {
        out.extend_from_slice(b",\"text\":");
        json::value(&mut out, &*String::from_utf8_lossy(entry.message()));
    }
    out.extend_from_slice(format!(",\"id\":\"{}\",\"room\":", entry.id).as_bytes());
    json::value(&mut out, room.as_str());
    if let Some(user) = text(entry, USER) {
        out.extend_from_slice(b",\"user\":");
        json::value(&mut out, user);
    }
    if !is_plain(entry, notice.is_some()) {
        out.extend_from_slice(b",\"fields\":");
        json::fields(&mut out, &entry.fields);
    }
    out.extend_from_slice(b"}}");
    out
}

/// Whether the entry has nothing that is not told by name already.
fn is_plain(entry: &Entry, is_notice: bool) -> bool {
    let said = |(name, value): &(Bytes, Bytes)| {
        let is_told = match name.as_ref() {
            b"message" => !is_notice,
            b"event" | SOCKET => is_notice,
            USERNAME | USER => true,
            _ => false,
        };
        is_told && std::str::from_utf8(value).is_ok()
    };
    let mut names: Vec<&Bytes> = entry.fields.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    let is_repeated = names.windows(2).any(|pair| pair[0] == pair[1]);
    !is_repeated && entry.fields.iter().all(said)
}

/// The end of a connection: whether the client had better not come back by itself, the length of the
/// event that says why, that event, if there is one, and the WebSocket's close frame.
fn close(reason: &CloseReason) -> Bytes {
    if *reason == CloseReason::Gone {
        return Bytes::new();
    }
    let args = match reason {
        // Told before, in `tailcast:bye`.
        CloseReason::Drain => Vec::new(),
        _ => {
            let why = serde_json::json!({"code": reason.code(), "message": reason.text()});
            event("closed", why.to_string().as_bytes())
        }
    };
    let mut body = vec![u8::from(is_final(reason))];
    // A reason has at most 123 bytes.
    body.extend_from_slice(&(args.len() as u16).to_be_bytes());
    body.extend_from_slice(&args);
    body.extend_from_slice(&frame::close(reason));
    bare(Kind::Close, &body)
}

/// Whether it would end the same way again. A client whose token has expired has a fresh one, maybe.
fn is_final(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Forbidden(_) | CloseReason::Policy(_))
}

/// A close record's body, taken apart.
pub(super) fn close_parts(body: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (&is_final, rest) = body.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (args, frame) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((is_final != 0, args, frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::EntryId;

    fn entry(fields: &[(&'static str, &'static str)]) -> Entry {
        let fields: Vec<(Bytes, Bytes)> = fields
            .iter()
            .map(|(name, value)| (Bytes::from(*name), Bytes::from(*value)))
            .collect();
        Entry::new(EntryId::new(5, 1), fields)
    }

    fn check(fields: &[(&'static str, &'static str)], want: &str) {
        let bytes = body(&RoomName::parse("r").unwrap(), &entry(fields));
        let body = Body::of(&bytes).unwrap();
        assert_eq!(std::str::from_utf8(body.args).unwrap(), want);
        let array = format!("[{want}]");
        let _: serde_json::Value = serde_json::from_str(&array).unwrap();
    }

    #[test]
    fn messages() {
        check(
            &[("message", "hi"), ("username", "Jo")],
            r#""message",{"event":"broadcast_say","data":{"username":"Jo","text":"hi","id":"5-1","room":"r"}}"#,
        );
        check(
            &[("message", "hi"), ("user", "jo")],
            r#""message",{"event":"broadcast_say","data":{"username":"jo","text":"hi","id":"5-1","room":"r","user":"jo"}}"#,
        );
        check(
            &[("aaa", "1234")],
            r#""message",{"event":"broadcast_say","data":{"username":null,"text":"1234","id":"5-1","room":"r","fields":{"aaa":"1234"}}}"#,
        );
        check(
            &[("event", "join"), ("username", "Jo")],
            r#""message",{"event":"join","data":{"username":"Jo","id":"5-1","room":"r"}}"#,
        );
        check(
            &[("event", "leave"), ("user", "jo")],
            r#""message",{"event":"broadcast_quit","data":{"username":"jo","id":"5-1","room":"r","user":"jo"}}"#,
        );
    }

    #[test]
    fn events() {
        check(
            &[("event", "draw"), ("args", "[1,{\"a\":2}]")],
            r#""draw",1,{"a":2}"#,
        );
        check(&[("event", "d\"w"), ("args", " [ ] ")], r#""d\"w""#);
        // What clients could not take as an event stays an entry.
        for (event, args) in [
            ("connect", "[]"),
            ("tailcast:gap", "[]"),
            ("draw", "{}"),
            ("draw", "[1"),
            ("draw", ""),
        ] {
            let bytes = body(
                &RoomName::parse("r").unwrap(),
                &entry(&[("event", event), ("args", args)]),
            );
            assert!(
                Body::of(&bytes).unwrap().args.starts_with(b"\"message\""),
                "{event}"
            );
        }
    }

    #[test]
    fn attachments() {
        let fields = [
            ("event", "draw"),
            ("args", "[{\"_placeholder\":true,\"num\":0}]"),
            ("attachment", "abc"),
            ("socket", "me"),
        ];
        let bytes = body(&RoomName::parse("r").unwrap(), &entry(&fields));
        let got = Body::of(&bytes).unwrap();
        assert_eq!((got.attachments, got.sender), (1, &b"me"[..]));
        assert_eq!(got.frames, b"\x82\x03abc");
        // One that its clients would give up their connections for.
        let fields = [
            ("event", "draw"),
            ("args", "[{\"_placeholder\":true,\"num\":1}]"),
            ("attachment", "abc"),
        ];
        let bytes = body(&RoomName::parse("r").unwrap(), &entry(&fields));
        assert_eq!(Body::of(&bytes).unwrap().attachments, 0);
        assert!(Body::of(&bytes[..5]).is_none() && Body::of(&[]).is_none());
    }
}
