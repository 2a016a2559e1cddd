//! Names of Redis keys.

use bytes::Bytes;

use crate::people::board::NodeId;
use crate::relay::entry::{RESERVED_PREFIX, RoomName};

/// Turns room names into keys, and names tailcast's own. Those have the prefix in braces, so that
/// two deployments on one Redis don't meet, however alike their prefixes.
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

    /// What stands before each room's name in its key.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn own(&self, rest: &str) -> String {
        format!("{RESERVED_PREFIX}{{{}}}{rest}", self.prefix)
    }

    /// A rate within a room: a string, the time when it's full again. The room's length keeps
    /// `a:b` with `c` apart from `a` with `b:c`.
    pub(super) fn rate(&self, room: &RoomName, name: &[u8]) -> Vec<u8> {
        let room = room.as_str();
        let mut key = self
            .own(&format!("rate:{}:{room}:", room.len()))
            .into_bytes();
        key.extend_from_slice(name);
        key
    }

    /// The nodes that have written something: a set.
    pub(super) fn nodes(&self) -> String {
        self.own("nodes")
    }

    /// A node's lease: a string that expires.
    pub(super) fn lease(&self, node: &NodeId) -> String {
        self.own(&format!("node:{node}"))
    }

    /// A node's rooms: a hash of how many users it has in each.
    pub(super) fn rooms(&self, node: &NodeId) -> String {
        self.own(&format!("rooms:{node}"))
    }

    /// A node's users: a hash of their records.
    pub(super) fn users(&self, node: &NodeId) -> String {
        self.own(&format!("users:{node}"))
    }

    /// A room's people on one node: a hash of their records.
    pub(super) fn here(&self, node: &NodeId, room: &RoomName) -> String {
        format!("{}{node}:{room}", self.here_of())
    }

    /// The key of a room's people without the node, `:` and the room, for scripts.
    pub(super) fn here_of(&self) -> String {
        self.own("here:")
    }

    /// A room's rules: a hash.
    pub(super) fn policy(&self, room: &RoomName) -> String {
        self.own(&format!("policy:{room}"))
    }

    /// A room's counters: a hash.
    pub(super) fn reactions(&self, room: &RoomName) -> String {
        self.own(&format!("reactions:{room}"))
    }

    /// A user's account: a hash.
    pub(super) fn account(&self, user: &str) -> String {
        self.own(&format!("account:{user}"))
    }

    /// The secret that all nodes share: a string.
    pub(super) fn secret(&self) -> String {
        self.own("secret")
    }

    /// A room's channel.
    pub(super) fn live(&self, room: &RoomName) -> String {
        self.own(&format!("live:{room}"))
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
        let (keys, node) = (Keys::new("app:"), NodeId::new("7f"));
        assert_eq!(keys.nodes(), "tailcast:{app:}nodes");
        assert_eq!(keys.lease(&node), "tailcast:{app:}node:7f");
        assert_eq!(keys.here(&node, &room), "tailcast:{app:}here:7f:lobby");
        assert_eq!(keys.account("ann"), "tailcast:{app:}account:ann");
        assert_eq!(keys.live(&room), "tailcast:{app:}live:lobby");
        assert_eq!(
            keys.rate(&room, b"u\xff"),
            b"tailcast:{app:}rate:5:lobby:u\xff"
        );
    }
}
