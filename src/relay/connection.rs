//! One client of any protocol: its rooms, its publishes, its way out.

use std::sync::Arc;

use bytes::Bytes;

use super::entry::{EntryId, Fields, RoomName};
use super::log::{AppendError, LogError};
use super::outlet::Outlet;
use super::position::Position;

/// A client's connection. Dropping it leaves every room.
pub struct Connection {
    outlet: Arc<Outlet>,
}

/// Called once when a join has its cursor, or failed. The frame it returns goes out before the
/// room's first entry. `Ok` holds the ID to resume from even if nothing ever arrives.
pub type Joined = Box<dyn FnOnce(Result<EntryId, LogError>) -> Option<Bytes> + Send>;

/// Called once with a publish's outcome.
pub type Published = Box<dyn FnOnce(&Arc<Outlet>, Result<EntryId, AppendError>) + Send>;

/// A join that can't be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Already there, or about to be.
    #[error("this socket is in that room already")]
    AlreadyIn,
    /// `--max-rooms` reached.
    #[error("a socket is in at most {0} rooms")]
    TooMany(usize),
}

impl Connection {
    /// Its way out.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Begins to join a room. While Redis is away the join waits.
    pub fn join(&self, _room: RoomName, _from: Position, _joined: Joined) -> Result<(), JoinError> {
        todo!()
    }

    /// Leaves a room, or gives up joining it. False if it was not there.
    pub fn leave(&self, _room: &RoomName) -> bool {
        todo!()
    }

    /// Publishes; stored in the order of these calls.
    pub fn publish(
        &self,
        _room: &RoomName,
        _fields: Fields,
        _key: Option<Bytes>,
        _done: Published,
    ) {
        todo!()
    }

    /// Waits while too many publishes are in flight or too many bytes wait to go out: the front
    /// end reads nothing more from its client before this returns.
    pub async fn ready(&self) {
        todo!()
    }

    /// Waits until no publish is in flight.
    pub async fn settled(&self) {
        todo!()
    }
}
