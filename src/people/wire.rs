//! What nodes tell each other over a room's channel, as JSON. Kinds that a node doesn't know are from
//! newer nodes, and left alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::board::NodeId;
use super::member::Member;
use super::roster::Delta;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Message {
    /// Something to be shown now, or never.
    Ephemeral {
        /// The node and the number of the connection that does not want it back.
        #[serde(skip_serializing_if = "Option::is_none")]
        except: Option<(String, u64)>,
        /// The client's frame, ready but for nothing.
        json: String,
    },
    /// Reactions of one node's tick, and the totals since the room began to count.
    Reactions {
        counts: BTreeMap<String, u64>,
        totals: BTreeMap<String, u64>,
    },
    /// A change of one node's people.
    Presence {
        node: String,
        seq: u64,
        /// Users and their records.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<(String, String)>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<String>,
    },
    /// From a newer node.
    #[serde(other)]
    Unknown,
}

impl Message {
    /// A change of this node's people.
    pub(super) fn presence(node: &NodeId, delta: &Delta) -> Self {
        let record = |member: &Member| String::from_utf8_lossy(&member.record()).into_owned();
        Message::Presence {
            node: node.to_string(),
            seq: delta.seq,
            set: delta
                .set
                .iter()
                .map(|(user, member)| (user.to_string(), record(member)))
                .collect(),
            removed: delta.removed.iter().map(|user| user.to_string()).collect(),
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        // Strings and numbers can't fail to be written.
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// None if it's no message of ours.
    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        serde_json::from_slice(message).ok()
    }
}

/// The delta of a presence message. Records that make no sense are left out.
pub(super) fn delta(seq: u64, set: Vec<(String, String)>, removed: Vec<String>) -> Delta {
    let member = |(user, record): (String, String)| {
        Some((Arc::from(user), Member::read(record.as_bytes())?))
    };
    Delta {
        seq,
        set: set.into_iter().filter_map(member).collect(),
        removed: removed.into_iter().map(Arc::from).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back() {
        let there = Delta {
            seq: 3,
            set: vec![(
                "ann \"a\"".into(),
                Member {
                    devices: 2,
                    since: 9,
                    name: Some("Ann".into()),
                    role: Some(crate::auth::Role::Cohost),
                },
            )],
            removed: vec!["bob".into()],
        };
        let message = Message::presence(&NodeId::new("n1"), &there);
        let read = Message::decode(&message.encode());
        assert_eq!(read.as_ref(), Some(&message));
        match read {
            Some(Message::Presence {
                seq, set, removed, ..
            }) => assert_eq!(delta(seq, set, removed), there),
            other => panic!("{other:?}"),
        }
        let newer = br#"{"kind":"telepathy","what":1}"#;
        assert_eq!(Message::decode(newer), Some(Message::Unknown));
        assert_eq!(Message::decode(b"hello"), None);
    }
}
