//! The raw format: a frame is a message, and nothing else is on the wire.

use std::sync::Arc;

use bytes::Bytes;

use super::talk::Talk;
use crate::frontend::websocket::frame::{self, Opcode};
use crate::people::Refusal;
use crate::people::session::{self, Joined};
use crate::relay::close::CloseReason;
use crate::relay::connection::NotJoined;
use crate::relay::entry::{Entry, RoomName};
use crate::relay::format::{Format, GapFrame};
use crate::relay::log::LogError;

/// What kind of WebSocket frame a raw socket gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Frames {
    /// Text for what is UTF-8, binary for the rest, so that a browser gets strings wherever it can.
    #[default]
    Auto,
    /// Always text, with U+FFFD for what is not UTF-8.
    Text,
    /// Always binary.
    Binary,
}

impl Frames {
    /// By the word of the `frames=` parameter.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Frames::Auto),
            "text" => Some(Frames::Text),
            "binary" => Some(Frames::Binary),
            _ => None,
        }
    }

    /// How the relay writes to it.
    pub(super) fn format(self) -> &'static Format {
        match self {
            Frames::Auto => &RAW,
            Frames::Text => &RAW_TEXT,
            Frames::Binary => &RAW_BINARY,
        }
    }
}

/// Entries as their message alone, whose kind says whether it's UTF-8. There are no words for a gap.
pub(crate) static RAW: Format = raw(0, |_, entry| frame::data(entry.message()));

/// The same as text only.
static RAW_TEXT: Format = raw(11, |_, entry| {
    let text = String::from_utf8_lossy(entry.message());
    frame::frame(Opcode::Text, text.as_bytes())
});

/// The same as binary only.
static RAW_BINARY: Format = raw(12, |_, entry| frame::frame(Opcode::Binary, entry.message()));

const fn raw(slot: u8, entry: fn(&RoomName, &Entry) -> Bytes) -> Format {
    Format {
        slot,
        entry,
        gap: |_, _| GapFrame::Close,
        aside: |_| None,
        close: frame::close,
    }
}

/// The one field of an entry that came as a raw frame.
const MESSAGE: Bytes = Bytes::from_static(b"message");

/// What a join does here: nothing to tell, unless it fails.
pub(super) fn joined(talk: &Talk) -> Joined {
    // Weak, as the outlet may keep the join, and so this.
    let outlet = Arc::downgrade(talk.connection().outlet());
    Box::new(move |outcome| {
        if let (Err(error), Some(outlet)) = (outcome, outlet.upgrade()) {
            outlet.close(join_failed(&error));
        }
        None
    })
}

/// A raw client can be told only by closing its socket.
fn not_taken(refusal: &Refusal) -> CloseReason {
    let text = refusal.to_string().into();
    match refusal {
        // The error's own text begins with whether it's stored.
        Refusal::Append(_) | Refusal::Log(_) => CloseReason::NotStored(text),
        Refusal::SlowMode(_) | Refusal::TooFast(_) | Refusal::RoomTooFast(_) => {
            CloseReason::TooFast(text)
        }
        _ => CloseReason::Forbidden(text),
    }
}

fn join_failed(error: &NotJoined) -> CloseReason {
    match error {
        NotJoined::Barred(barred) => CloseReason::Forbidden(barred.to_string().into()),
        NotJoined::Log(LogError::WrongType) => CloseReason::BadRequest(error.to_string().into()),
        NotJoined::Log(_) => CloseReason::Internal(error.to_string().into()),
    }
}

/// One frame in: one entry, also of an empty frame, which says as clearly as any where its message ends.
pub(super) fn on_message(talk: &Talk, message: Bytes) {
    let fields = Box::new([(MESSAGE, message)]);
    let entry = session::Entry {
        room: talk.room.clone(),
        fields,
        key: None,
        echo: true,
        socket: None,
    };
    talk.session.publish(
        entry,
        Box::new(|outlet, outcome| {
            if let Err(refusal) = outcome {
                outlet.close(not_taken(&refusal));
            }
        }),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::EntryId;
    use crate::relay::log::AppendError;

    fn check(fields: &[(&'static [u8], &'static [u8])], want: &[u8]) {
        let fields: Vec<(Bytes, Bytes)> = fields
            .iter()
            .map(|(n, v)| (Bytes::from_static(n), Bytes::from_static(v)))
            .collect();
        let room = RoomName::parse("r").unwrap();
        let entry = Entry::new(EntryId::new(1, 0), fields);
        assert_eq!((RAW.entry)(&room, &entry), want);
    }

    #[test]
    fn entries() {
        check(&[(b"message", b"hi")], b"\x81\x02hi");
        check(&[(b"aaa", b"1234"), (b"b", b"x")], b"\x81\x041234");
        check(&[(b"aaa", b"1234"), (b"message", b"x")], b"\x81\x01x");
        check(&[(b"message", b"\xff\x00")], b"\x82\x02\xff\x00");
        check(&[(b"message", "é".as_bytes())], b"\x81\x02\xc3\xa9");
        check(&[(b"message", b"\xc3")], b"\x82\x01\xc3");
        // CESU surrogates are not UTF-8.
        check(&[(b"message", b"\xed\xa0\x80")], b"\x82\x03\xed\xa0\x80");
        check(&[(b"message", b"")], b"\x81\x00");
    }

    #[test]
    fn frames_of_the_readers_choice() {
        let check = |message: &'static [u8], text: &[u8], binary: &[u8]| {
            let message = (MESSAGE, Bytes::from_static(message));
            let entry = Entry::new(EntryId::new(1, 0), vec![message]);
            let room = RoomName::parse("r").unwrap();
            let [got, bytes] = ["text", "binary"]
                .map(|word| (Frames::from_word(word).unwrap().format().entry)(&room, &entry));
            assert_eq!(got, text);
            assert_eq!(bytes, binary);
        };
        check(b"hi", b"\x81\x02hi", b"\x82\x02hi");
        check(b"", b"\x81\x00", b"\x82\x00");
        check(b"a\xff", b"\x81\x04a\xef\xbf\xbd", b"\x82\x02a\xff");
        assert_eq!(Frames::from_word("auto"), Some(Frames::default()));
        assert_eq!(Frames::from_word("bytes"), None);
    }

    #[test]
    fn close_reasons_say_whether_it_is_stored() {
        let refused = AppendError::Refused(LogError::WrongType).to_string();
        assert!(refused.starts_with("not stored"), "{refused}");
        let unknown = AppendError::Unknown(LogError::Loading).to_string();
        assert!(unknown.contains("may or may not"), "{unknown}");
        assert_eq!(join_failed(&LogError::WrongType.into()).code(), 4400);
        assert_eq!(
            join_failed(&LogError::Denied(String::new()).into()).code(),
            1011
        );
    }
}
