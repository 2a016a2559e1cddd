//! [`Relay`]: the three verbs, over one log.

use std::sync::Arc;

use bytes::Bytes;

use super::connection::Connection;
use super::entry::{Entry, EntryId, Fields, RoomName};
use super::format::Format;
use super::log::{AppendError, LogError};
use super::outlet::Wire;

/// A node's relay.
pub struct Relay {}

/// Which part of a room's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only what follows this ID.
    pub after: Option<EntryId>,
    /// Only what precedes this ID.
    pub before: Option<EntryId>,
    /// At most so many.
    pub limit: usize,
    /// From the newest down.
    pub newest_first: bool,
}

/// One page of history.
#[derive(Debug)]
pub struct HistoryPage {
    /// In the order asked for.
    pub entries: Vec<Entry>,
    /// The `after` (or, newest first, the `before`) of the next page, if there may be one.
    pub next: Option<EntryId>,
}

impl Relay {
    /// A connection for a client that was let in.
    pub fn connect(self: &Arc<Self>, _wire: Box<dyn Wire>, _format: &'static Format) -> Connection {
        todo!()
    }

    /// Publishes one entry for a client without a connection. Waits for its outcome.
    pub async fn publish(
        &self,
        _room: &RoomName,
        _fields: Fields,
        _key: Option<Bytes>,
    ) -> Result<EntryId, AppendError> {
        todo!()
    }

    /// Reads a page of history.
    pub async fn history(
        &self,
        _room: &RoomName,
        _query: HistoryQuery,
    ) -> Result<HistoryPage, LogError> {
        todo!()
    }

    /// Why this node can't serve now, if it can't: Redis does not answer, or tails do not move.
    pub fn health(&self) -> Result<(), LogError> {
        todo!()
    }
}
