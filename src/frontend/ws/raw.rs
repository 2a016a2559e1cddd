//! The raw format: a frame is a message, and nothing else is on the wire.

use std::sync::Arc;

use bytes::Bytes;

use super::talk::Talk;
use crate::frontend::websocket::frame;
use crate::people::Refusal;
use crate::people::session::{Entry, Joined};
use crate::relay::close::CloseReason;
use crate::relay::connection::NotJoined;
use crate::relay::format::{Format, GapFrame};
use crate::relay::log::LogError;

/// Entries as their message alone. It has no words for a gap.
pub(crate) static RAW: Format = Format {
    slot: 0,
    entry: |_, entry| frame::data(entry.message()),
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
    close: frame::close,
};

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

/// One frame in: one entry.
pub(super) fn on_message(talk: &Talk, message: Bytes) {
    let fields = Box::new([(MESSAGE, message)]);
    let entry = Entry {
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
    use crate::relay::entry::{Entry, EntryId, RoomName};
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
