//! The trait [`Board`]: what all nodes share besides the streams. Who is where, which nodes live,
//! a room's rules, and a channel per room for what is told once and not kept.
//!
//! It's made so that nobody has to clean up after anybody: whatever a node writes of its people it
//! writes under its own name, and what stands under the name of a node without a lease counts for
//! nothing.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::relay::entry::{EntryId, Fields, RoomName};
use crate::relay::log::{LogError, StopGuard};

/// An answer to come.
pub type Answer<T> = BoxFuture<'static, Result<T, LogError>>;

/// What all nodes share.
pub trait Board: Send + Sync + 'static {
    /// Tells every node that listens to the room's channel, this one included. Never waits, and
    /// keeps nothing: while Redis is away it's lost. What one node tells arrives in its order.
    fn whisper(&self, room: &RoomName, message: Bytes);

    /// Listens to a room's channel, through every reconnect, until the guard is dropped.
    fn listen(&self, room: &RoomName, ear: std::sync::Arc<dyn Ear>) -> EarGuard;

    /// Renews this node's lease for so long, with what it says of itself, and tells which nodes
    /// there are.
    fn beat(&self, node: &NodeId, status: Bytes, lease: Duration) -> Answer<Beat>;

    /// Gives the lease up: from now on this node counts as dead.
    fn retire(&self, node: &NodeId) -> Answer<()>;

    /// Writes changes in their order, then whispers each room's message. A record under the empty
    /// name is the node's own note, and no user's. With `notices`, each
    /// user whom no other node has in the room joins or leaves with an entry in it, as
    /// `event=join|leave` and `user`, in one step with the change: once, whatever dies when. Dead
    /// nodes that are not buried yet count as well: burying them tells.
    fn write(&self, node: &NodeId, changes: Vec<Change>, notices: bool) -> Answer<()>;

    /// Removes all that a node has written, with leave notices if asked for. Does nothing, and
    /// answers false, if the node has a lease. A node's own ID is as good as another's: it's how a
    /// node that was taken for dead begins anew.
    fn bury(&self, node: &NodeId, notices: bool) -> Answer<bool>;

    /// The users that a node has in a room, with their records. In pieces, never in one long
    /// command: changes made meanwhile may be in it or not.
    fn members(&self, room: &RoomName, node: &NodeId) -> Answer<Vec<(String, Bytes)>>;

    /// A user's record on each of these nodes.
    fn user(&self, user: &str, nodes: &[NodeId]) -> Answer<Vec<Option<Bytes>>>;

    /// How many users each node has in each room: for each room, in the order of the nodes.
    fn sizes(&self, rooms: &[RoomName], nodes: &[NodeId]) -> Answer<Vec<Vec<u64>>>;

    /// A room's rules, by name.
    fn rules(&self, room: &RoomName) -> Answer<Vec<(String, String)>>;

    /// One rule of each of these rooms, in their order.
    fn rule(&self, rooms: &[RoomName], name: &str) -> Answer<Vec<Option<String>>>;

    /// Changes a room's rules and records the act in [`RoomName::audit`], both or neither. Rules set
    /// to `None` go. Answers the record's ID.
    fn act(
        &self,
        room: &RoomName,
        rules: Vec<(String, Option<String>)>,
        record: Fields,
    ) -> Answer<EntryId>;

    /// Adds to a room's counters, and answers their new values in the same order.
    fn count(&self, room: &RoomName, counts: Vec<(String, u64)>) -> Answer<Vec<u64>>;

    /// The secret that all nodes share: this one, if there is none yet.
    fn secret(&self, made: Bytes) -> Answer<Bytes>;

    /// A page of the rooms that have a stream, about `limit` of them, without order; users' own and
    /// tailcast's are left out. Begins with `0`; answers where the next page begins, `0` at the end.
    fn rooms(&self, cursor: u64, limit: usize) -> Answer<(Vec<RoomName>, u64)>;
}

/// One node of many, under a name made anew at each start.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(std::sync::Arc<str>);

impl NodeId {
    /// A name nobody else has.
    pub fn random() -> Self {
        NodeId(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// The name of a node, as it was told.
    pub fn new(name: &str) -> Self {
        NodeId(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hears one room's channel. The calls come one at a time.
pub trait Ear: Send + Sync + 'static {
    /// From here on messages are heard; some may have been missed before. Called at the first
    /// listening, too.
    fn on_listening(&self);

    /// A message.
    fn on_message(&self, message: Bytes);
}

/// Keeps an ear listening; it stops when this is dropped.
pub type EarGuard = StopGuard;

/// What a renewed lease came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Whether the lease was there still, and the last of what this node wrote. If not, others may
    /// have removed the rest, or a restart or failover lost it.
    pub kept: bool,
    /// The nodes with a lease, and what each says of itself.
    pub living: Vec<(NodeId, Bytes)>,
    /// Nodes that have written something, and have no lease.
    pub dead: Vec<NodeId>,
}

/// One change of what a node has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Of a room's people on this node.
    Room(RoomChange),
    /// Of one user's record on this node; `None` removes it.
    User(String, Option<Bytes>),
}

/// Which of a room's people came, changed or went on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The room.
    pub room: RoomName,
    /// Records that are new, or have changed.
    pub set: Vec<(String, Bytes)>,
    /// Users without a record from now on. They are not in `set`.
    pub removed: Vec<String>,
    /// How many users this node has in the room then.
    pub size: u64,
    /// What to tell the room's channel when it's written.
    pub message: Bytes,
}
