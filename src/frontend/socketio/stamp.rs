//! [`Stamp`]: finishes a namespace's packets, with its name in front and the offset behind.

use std::sync::Arc;

use smallvec::SmallVec;

use super::notices::Notices;
use super::offset::{Offset, Place};
use super::packet::{Kind as PacketKind, MAIN, head};
use super::told::{Body, close_parts, event, left_room};
use crate::frontend::carrier::Finish;
use crate::frontend::json;
use crate::frontend::record::{Kind, Record};
use crate::frontend::websocket::frame::{Opcode, put_frame};
use crate::relay::entry::{EntryId, RoomName};

/// What a namespace's packets have of it. One of a transport alone has no name yet.
#[derive(Debug, Default)]
pub(super) struct Stamp {
    /// The namespace; empty before one is connected, and after.
    pub(super) namespace: Arc<str>,
    /// The public socket ID.
    pub(super) sid: Box<str>,
    /// The rooms of the client's pid, and after which entry it began.
    pub(super) first: SmallVec<[(RoomName, EntryId); 1]>,
    /// Where it stands.
    pub(super) place: Place,
    /// Whether the connection ends with this namespace.
    pub(super) is_main: bool,
    /// Who is told that it came and went, if it has a name.
    pub(super) notices: Option<Arc<Notices>>,
}

impl Stamp {
    /// The client is in a room, after this entry.
    pub(super) fn enter(&mut self, room: RoomName, after: EntryId) {
        self.leave(&room);
        self.place.rooms.push((room, after));
    }

    /// The client is in a room no more.
    pub(super) fn leave(&mut self, room: &RoomName) {
        self.place.rooms.retain(|(other, _)| other != room);
    }

    /// The last entry of a room that the client was sent, if it's in it.
    pub(super) fn head(&self, room: &RoomName) -> Option<EntryId> {
        let mut rooms = self.place.rooms.iter();
        rooms.find(|(other, _)| other == room).map(|(_, id)| *id)
    }

    /// Says where the client is. It need not listen: what counts is the offset.
    pub(super) fn rooms(&self, out: &mut Vec<u8>) {
        let mut object = b"{\"rooms\":{".to_vec();
        for (at, (room, id)) in self.place.rooms.iter().enumerate() {
            if at > 0 {
                object.push(b',');
            }
            json::value(&mut object, room.as_str());
            object.extend_from_slice(format!(":\"{id}\"").as_bytes());
        }
        object.extend_from_slice(b"}}");
        self.event(&event("rooms", &object), 0, Some(&self.offset()), out);
    }

    /// Appends an event that says nothing of where the client stands.
    pub(super) fn told(&self, args: &[u8], out: &mut Vec<u8>) {
        self.event(args, 0, None, out);
    }

    fn offset(&self) -> Offset {
        self.place.write(&self.sid, &self.first)
    }

    /// Appends the frame of an event.
    fn event(&self, args: &[u8], attachments: usize, offset: Option<&Offset>, out: &mut Vec<u8>) {
        let (mark, head): (&[u8], _) = match (&*self.namespace, attachments) {
            (MAIN, 0) => (b"42", String::new()),
            (name, count) => (b"", head(PacketKind::Event, false, count, name, None)),
        };
        let offset = offset.map_or(&b""[..], |offset| offset);
        let before: &[u8] = if offset.is_empty() { b"" } else { b",\"" };
        let after: &[u8] = if offset.is_empty() { b"]" } else { b"\"]" };
        text_frame(
            &[mark, head.as_bytes(), b"[", args, before, offset, after],
            out,
        );
    }

    fn entry(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        let is_in = self.place.advance(record.room, record.id);
        let Some(body) = Body::of(record.body) else {
            return;
        };
        // Who sent it has it. But if it's that they went, they did not.
        if !body.sender.is_empty() && body.sender == self.sid.as_bytes() {
            if let Some(notices) = self.notices.as_ref().filter(|_| is_in && body.is_going()) {
                notices.on_went(record.room, record.id);
            }
            return;
        }
        let offset = is_in.then(|| self.offset());
        self.event(body.args, body.attachments, offset.as_ref(), out);
        out.extend_from_slice(body.frames);
    }

    fn close(&mut self, body: &[u8], out: &mut Vec<u8>) {
        let Some((is_final, args, frame)) = close_parts(body) else {
            return;
        };
        let is_connected = !self.namespace.is_empty();
        if is_connected && !args.is_empty() {
            self.event(args, 0, None, out);
        }
        if is_connected && is_final {
            let disconnect = head(PacketKind::Disconnect, false, 0, &self.namespace, None);
            text_frame(&[disconnect.as_bytes()], out);
        }
        self.namespace = Arc::default();
        if self.is_main {
            out.extend_from_slice(frame);
        }
    }
}

impl Finish for Stamp {
    fn finish(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        match record.kind {
            Kind::Close => self.close(record.body, out),
            // Nobody is connected, or no longer.
            _ if self.namespace.is_empty() => {}
            Kind::Entry => self.entry(record, out),
            Kind::Gap => {
                self.place.advance(record.room, record.id);
                self.event(record.body, 0, Some(&self.offset()), out);
            }
            // Our own sign that where the client stands is to be said.
            Kind::Aside if record.body.is_empty() => self.rooms(out),
            Kind::Aside => {
                self.event(record.body, 0, None, out);
                if let Some(room) = left_room(record.body) {
                    self.leave(&room);
                    self.rooms(out);
                }
            }
            Kind::Own => out.extend_from_slice(record.body),
        }
    }

    /// Other namespaces' ends are told in words, and the transport goes on.
    fn ends_carrier(&self) -> bool {
        self.is_main
    }
}

/// Appends a text frame of several parts.
pub(super) fn text_frame(parts: &[&[u8]], out: &mut Vec<u8>) {
    put_frame(out, Opcode::Text, parts);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::payload::from_frames;
    use super::super::told::FORMAT;
    use super::*;
    use crate::frontend::record::{Piece, Pieces, bare};
    use crate::relay::close::CloseReason;
    use crate::relay::entry::Entry;
    use crate::relay::format::{Gap, GapFrame, GapReason};

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn stamp(namespace: &str, first: &[&str]) -> Stamp {
        let mut stamp = Stamp {
            namespace: namespace.into(),
            sid: "abcdefgh".into(),
            first: first
                .iter()
                .map(|name| (room(name), EntryId::new(1, 0)))
                .collect(),
            is_main: true,
            ..Stamp::default()
        };
        for name in first {
            stamp.enter(room(name), EntryId::new(1, 0));
        }
        stamp
    }

    fn finish(stamp: &mut Stamp, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        for piece in Pieces(bytes) {
            match piece.unwrap() {
                Piece::Record(record) => stamp.finish(record, &mut out),
                Piece::Frame(frame) => out.extend_from_slice(frame),
            }
        }
        let (payload, closes) = from_frames(&out);
        String::from_utf8(payload).unwrap() + if closes { "\u{1e}1" } else { "" }
    }

    fn entry(name: &str, ms: u64, fields: &[(&'static str, &'static str)]) -> Bytes {
        let fields: Vec<(Bytes, Bytes)> = fields
            .iter()
            .map(|(name, value)| (Bytes::from(*name), Bytes::from(*value)))
            .collect();
        (FORMAT.entry)(&room(name), &Entry::new(EntryId::new(ms, 0), fields))
    }

    const DRAW: &[(&str, &str)] = &[("event", "draw"), ("args", "[1]")];

    #[test]
    fn offsets_follow_what_goes_out() {
        let mut one = stamp("/", &["a"]);
        assert_eq!(
            finish(&mut one, &entry("a", 5, DRAW)),
            r#"42["draw",1,"5-0"]"#
        );
        one.enter(room("b"), EntryId::new(4, 0));
        assert_eq!(
            finish(&mut one, &entry("b", 6, DRAW)),
            r#"42["draw",1,"abcdef;;5-0,6-0 b"]"#
        );
        assert_eq!(
            finish(&mut one, &bare(Kind::Aside, b"")),
            r#"42["tailcast:rooms",{"rooms":{"a":"5-0","b":"6-0"}},"abcdef;;5-0,6-0 b"]"#
        );
        one.leave(&room("b"));
        assert_eq!(
            finish(&mut one, &entry("a", 7, DRAW)),
            r#"42["draw",1,"7-0"]"#
        );
        // It was left when this was on its way.
        assert_eq!(finish(&mut one, &entry("b", 8, DRAW)), r#"42["draw",1]"#);
    }

    #[test]
    fn namespaces_and_attachments() {
        let mut one = stamp("/x", &["a"]);
        let fields = [
            ("event", "draw"),
            ("args", "[{\"_placeholder\":true,\"num\":0}]"),
            ("attachment", "\u{1}\u{2}"),
        ];
        assert_eq!(
            finish(&mut one, &entry("a", 5, &fields)),
            "451-/x,[\"draw\",{\"_placeholder\":true,\"num\":0},\"5-0\"]\u{1e}bAQI="
        );
    }

    #[test]
    fn who_sent_it_does_not_get_it_back() {
        let mut one = stamp("/", &["a"]);
        let own = [("event", "draw"), ("args", "[1]"), ("socket", "abcdefgh")];
        assert_eq!(finish(&mut one, &entry("a", 5, &own)), "");
        let at = [(room("a"), EntryId::new(5, 0))];
        assert_eq!(one.place.rooms.as_slice(), at);
    }

    #[test]
    fn gaps_and_the_end() {
        let mut one = stamp("/", &["a"]);
        let gap = Gap {
            after: EntryId::new(1, 0),
            before: EntryId::new(9, 3),
            reason: GapReason::Trimmed,
        };
        let GapFrame::Frame(told) = (FORMAT.gap)(&room("a"), &gap) else {
            panic!("gaps are told");
        };
        assert_eq!(
            finish(&mut one, &told),
            r#"42["tailcast:gap",{"room":"a","after":"1-0","before":"9-3","reason":"trimmed"},"9-2"]"#
        );
        let end = (FORMAT.close)(&CloseReason::Forbidden("banned".into()));
        assert_eq!(
            finish(&mut one, &end),
            "42[\"tailcast:closed\",{\"code\":4403,\"message\":\"banned\"}]\u{1e}41\u{1e}1"
        );
        assert_eq!(finish(&mut one, &entry("a", 5, DRAW)), "");
        let mut other = stamp("/", &["a"]);
        let end = (FORMAT.close)(&CloseReason::Drain);
        assert_eq!(finish(&mut other, &end), "\u{1e}1");
        // The client comes back, but knows why it has to.
        let mut large = stamp("/", &["a"]);
        let end = finish(
            &mut large,
            &(FORMAT.close)(&CloseReason::TooLarge("--socketio-max-payload")),
        );
        assert!(
            end.starts_with("42[\"tailcast:closed\",{\"code\":1009,"),
            "{end}"
        );
        assert!(end.ends_with("}]\u{1e}1"), "{end}");
    }
}
