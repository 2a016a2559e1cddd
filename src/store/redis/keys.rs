//! Names of Redis keys.

use bytes::Bytes;

use crate::relay::entry::{RESERVED_PREFIX, RoomName};

/// Turns room names into keys.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: Box<str>,
}

impl Keys {
    /// Keys that start with `prefix`.
    pub(super) fn new(prefix: &str) -> Self {
        Keys {
            prefix: prefix.into(),
        }
    }

    /// The key of a room's stream: the prefix and the bare name.
    pub(super) fn room(&self, room: &RoomName) -> Bytes {
        let mut key = String::with_capacity(self.prefix.len() + room.as_str().len());
        key.push_str(&self.prefix);
        key.push_str(room.as_str());
        Bytes::from(key)
    }

    /// Where an idempotency key is remembered. The room's key is its hash tag, so that in a
    /// cluster both live in one slot and a script may touch both.
    pub(super) fn idempotency(room_key: &[u8], key: &[u8]) -> Vec<u8> {
        [RESERVED_PREFIX.as_bytes(), b"idem:{", room_key, b"}:", key].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let room = RoomName::parse("lobby").unwrap();
        assert_eq!(Keys::new("").room(&room), "lobby");
        assert_eq!(Keys::new("app:").room(&room), "app:lobby");
        assert_eq!(
            Keys::idempotency(b"app:lobby", b"k\xff1"),
            b"tailcast:idem:{app:lobby}:k\xff1"
        );
    }
}
