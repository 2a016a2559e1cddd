//! What `fuzz/` calls, one function per target. Only built by cargo-fuzz, with `--cfg fuzzing`.
//!
//! Bytes must neither panic a reader nor get something past it that its own rules forbid.

use crate::relay::entry::{EntryId, ROOM_NAME_MAX, RoomName};
use crate::relay::position::{LAST_MAX, Position};

/// Names, IDs and positions as text.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(room) = RoomName::parse(text) {
        assert_eq!(room.as_str(), text);
        assert!((1..=ROOM_NAME_MAX).contains(&text.len()));
        assert_eq!(RoomName::parse(&room.to_string()), Ok(room));
    }
    let id = text.parse::<EntryId>();
    if let Ok(id) = id {
        assert_eq!(id.to_string().parse(), Ok(id));
        let before = id.predecessor();
        assert!(before < id || id == EntryId::ZERO);
    }
    match text.parse::<Position>() {
        Ok(Position::After(after)) => assert_eq!(id, Ok(after)),
        Ok(Position::Last(count)) => assert!(count <= LAST_MAX),
        // Whatever reads as an ID is a position.
        Ok(_) | Err(_) => assert!(id.is_err()),
    }
}

/// A text frame of a JSON socket.
pub fn request(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        crate::frontend::ws::fuzz_request(text);
    }
}

/// What a Socket.IO client may send: payloads, packets, pids, offsets.
pub fn socketio(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        crate::frontend::socketio::fuzz(text);
    }
}

/// What STOMP and SockJS clients send.
pub fn stomp(data: &[u8]) {
    crate::frontend::stomp::fuzz_frames(data);
    crate::frontend::sockjs::fuzz(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<crate::frontend::stomp::Aliases>();
    }
}

/// A reply as Redis writes it on the wire.
pub fn reply(data: &[u8]) {
    if let Ok(value) = ::redis::parse_redis_value(data) {
        crate::store::redis::fuzz_reply(&value);
    }
}

/// What nodes tell each other, what stands on the board, and the settings of rates and grants.
pub fn people(data: &[u8]) {
    crate::people::fuzz(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(grants) = text.parse::<crate::auth::Grants>() {
        assert_eq!(grants.to_string().parse(), Ok(grants));
    }
    if let Ok(rates) = text.parse::<crate::people::Rates>() {
        assert_eq!(rates.to_string().parse(), Ok(rates));
    }
    if let (Ok(pattern), Ok(room)) = (
        text.parse::<crate::auth::RoomPattern>(),
        RoomName::parse(text),
    ) {
        // A name without a star is a pattern of itself.
        assert!(text.contains('*') || pattern.matches(&room));
    }
}
