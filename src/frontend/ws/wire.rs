//! What a JSON client is told: every frame out, one object each.

use std::time::Duration;

use bytes::Bytes;

use super::request::{Ref, Refused};
use crate::auth::Identity;
use crate::frontend::json;
use crate::frontend::websocket::frame::{self, Opcode, frame};
use crate::people::Refusal;
use crate::people::moderation::Done;
use crate::people::query::Presence;
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};

/// Entries and gaps as objects.
pub(crate) static JSON: Format = Format {
    slot: 1,
    entry: |room, entry| frame(Opcode::Text, &json::entry_json(room, entry, true)),
    gap: |room, gap: &Gap| GapFrame::Frame(frame(Opcode::Text, &json::gap_json(room, gap, true))),
    aside: |aside| Some(frame(Opcode::Text, aside.json())),
    close: frame::close,
};

/// The join is done; `head` is the ID to resume from.
pub(super) fn joined(room: &RoomName, head: EntryId) -> Bytes {
    Object::new("joined")
        .text("room", room.as_str())
        .id("head", head)
        .frame()
}

/// The room is left.
pub(super) fn left(room: &RoomName) -> Bytes {
    Object::new("left").text("room", room.as_str()).frame()
}

/// The publish is stored.
pub(super) fn ack(reference: &Ref, room: &RoomName, id: EntryId) -> Bytes {
    Object::new("ack")
        .raw("ref", reference.as_deref().unwrap_or("null"))
        .text("room", room.as_str())
        .id("id", id)
        .frame()
}

/// The ephemeral publish is on its way.
pub(super) fn shown(reference: &Ref, room: &RoomName) -> Bytes {
    Object::new("ack")
        .raw("ref", reference.as_deref().unwrap_or("null"))
        .text("room", room.as_str())
        .raw("id", "null")
        .frame()
}

/// It's known who the client is.
pub(super) fn authenticated(reference: &Ref, identity: &Identity) -> Bytes {
    let mut object = Object::new("authenticated");
    if let Some(reference) = reference {
        object = object.raw("ref", reference);
    }
    match identity.user() {
        Some(user) => object.text("user", user.as_str()),
        None => object.raw("user", "null"),
    }
    .frame()
}

/// Who is in a room.
pub(super) fn users(reference: &Ref, room: &RoomName, presence: &Presence) -> Bytes {
    let mut object = Object::new("users").text("room", room.as_str());
    object.name("presence");
    json::presence(&mut object.out, presence);
    object
        .raw("ref", reference.as_deref().unwrap_or("null"))
        .frame()
}

/// What a moderator wanted is done.
pub(super) fn done(reference: &Ref, room: &RoomName, done: &Done) -> Bytes {
    let mut object = Object::new("done")
        .raw("ref", reference.as_deref().unwrap_or("null"))
        .text("room", room.as_str());
    object.out.push(b',');
    json::done(&mut object.out, done);
    object.frame()
}

/// People refused it.
pub(super) fn refused(reference: &Ref, room: Option<&RoomName>, refusal: &Refusal) -> Bytes {
    let message = refusal.to_string();
    let object = failure(reference, room, refusal.code(), &message);
    match refusal.retry() {
        Some(retry) => object.raw("retry_ms", &millis_up(retry).to_string()),
        None => object,
    }
    .frame()
}

/// Whole milliseconds, never too few.
fn millis_up(wait: Duration) -> u64 {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

/// Something was refused, or failed.
pub(super) fn error(reference: &Ref, room: Option<&RoomName>, refused: &Refused) -> Bytes {
    failure(reference, room, refused.code, &refused.message).frame()
}

fn failure(reference: &Ref, room: Option<&RoomName>, code: &str, message: &str) -> Object {
    let mut object = Object::new("error");
    if let Some(reference) = reference {
        object = object.raw("ref", reference);
    }
    if let Some(room) = room {
        object = object.text("room", room.as_str());
    }
    object.text("code", code).text("message", message)
}

/// A page of history.
pub(super) fn history(
    reference: &Ref,
    room: &RoomName,
    entries: &[Entry],
    next: Option<EntryId>,
) -> Bytes {
    let mut object = Object::new("history").text("room", room.as_str());
    object.name("entries");
    json::entries(&mut object.out, entries);
    let object = match next {
        Some(next) => object.id("next", next),
        None => object.raw("next", "null"),
    };
    object
        .raw("ref", reference.as_deref().unwrap_or("null"))
        .frame()
}

/// The answer to a JSON ping.
pub(super) fn pong() -> Bytes {
    Object::new("pong").frame()
}

/// This node is about to close the socket.
pub(super) fn bye(retry_ms: u64) -> Bytes {
    Object::new("bye")
        .raw("retry_ms", &retry_ms.to_string())
        .frame()
}

/// An object being written.
struct Object {
    out: Vec<u8>,
}

impl Object {
    fn new(kind: &str) -> Self {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        Object { out }
    }

    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn text(mut self, name: &str, text: &str) -> Self {
        self.name(name);
        json::value(&mut self.out, text);
        self
    }

    /// A value that is JSON already.
    fn raw(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.out.extend_from_slice(value.as_bytes());
        self
    }

    fn id(self, name: &str, id: EntryId) -> Self {
        self.raw(name, &format!("\"{id}\""))
    }

    fn frame(mut self) -> Bytes {
        self.out.push(b'}');
        frame(Opcode::Text, &self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::close::CloseReason;
    use crate::relay::format::GapReason;

    fn check(frame: Bytes, want: &str) {
        let header = if want.len() < 126 { 2 } else { 4 };
        assert_eq!(std::str::from_utf8(&frame[header..]).unwrap(), want);
        assert_eq!(frame[0], 0x81);
        let _: serde::de::IgnoredAny = serde_json::from_str(want).unwrap();
    }

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    #[test]
    fn frames_out() {
        let r = &room("a\"b");
        let id = EntryId::new(17, 2);
        let reference: Ref = Some(r#""x\u00e9""#.into());
        check(
            joined(r, id),
            r#"{"type":"joined","room":"a\"b","head":"17-2"}"#,
        );
        check(left(r), r#"{"type":"left","room":"a\"b"}"#);
        check(
            ack(&reference, r, id),
            r#"{"type":"ack","ref":"x\u00e9","room":"a\"b","id":"17-2"}"#,
        );
        check(
            ack(&None, r, id),
            r#"{"type":"ack","ref":null,"room":"a\"b","id":"17-2"}"#,
        );
        check(
            error(&None, None, &Refused::new("bad_json", "no \"object\"")),
            r#"{"type":"error","code":"bad_json","message":"no \"object\""}"#,
        );
        check(
            error(&Some("1e400".into()), Some(r), &Refused::new("c", "m")),
            r#"{"type":"error","ref":1e400,"room":"a\"b","code":"c","message":"m"}"#,
        );
        check(pong(), r#"{"type":"pong"}"#);
        check(bye(500), r#"{"type":"bye","retry_ms":500}"#);
    }

    #[test]
    fn pages() {
        let fields = vec![(Bytes::from("k"), Bytes::from_static(b"\xff"))];
        let entries = [Entry::new(EntryId::new(1, 0), fields)];
        check(
            history(
                &Some("7".into()),
                &room("r"),
                &entries,
                Some(EntryId::new(1, 0)),
            ),
            r#"{"type":"history","room":"r","entries":[{"id":"1-0","fields":{"k":{"base64":"/w=="}}}],"next":"1-0","ref":7}"#,
        );
        check(
            history(&None, &room("r"), &[], None),
            r#"{"type":"history","room":"r","entries":[],"next":null,"ref":null}"#,
        );
    }

    #[test]
    fn what_the_relay_sends() {
        let pair = |n: &'static str, v: &'static str| (Bytes::from(n), Bytes::from(v));
        let entry = Entry::new(EntryId::new(5, 1), vec![pair("a", "1"), pair("a", "2")]);
        check(
            (JSON.entry)(&room("r"), &entry),
            r#"{"type":"entry","room":"r","id":"5-1","fields":{"a":["1","2"]}}"#,
        );
        let gap = Gap {
            after: EntryId::ZERO,
            before: EntryId::new(5, 1),
            reason: GapReason::Trimmed,
        };
        let GapFrame::Frame(told) = (JSON.gap)(&room("r"), &gap) else {
            panic!("a JSON client is told of gaps");
        };
        check(
            told,
            r#"{"type":"gap","room":"r","after":"0-0","before":"5-1","reason":"trimmed"}"#,
        );
        assert_eq!(
            (JSON.close)(&CloseReason::Drain)[..4],
            [0x88, 36, 0x03, 0xf4]
        );
    }
}
