//! What the tests stand on: a real Redis, waiting for conditions, reading the truth.

// Not every helper is used by every set of tests.
#![allow(dead_code)]

pub(crate) mod bare;
pub(crate) mod clients;
pub(crate) mod http;
pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod redis_server;
pub(crate) mod story;

use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use tailcast::relay::entry::{EntryId, RoomName};
use tailcast::relay::log::{Log, Range};
use tokio::time::Instant;

/// Longest wait for anything that should happen. Far more than it takes, as machines can be slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the condition holds; panics with `what` if it never does.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(
                Instant::now() < deadline,
                "{caller}: waited in vain until {what}"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A room by its name.
pub(crate) fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

/// The whole stream as its log has it now, for the checker: IDs and messages.
pub(crate) async fn truth(log: &dyn Log, room: &RoomName) -> Vec<(EntryId, Bytes)> {
    let all = Range {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        limit: usize::MAX,
        newest_first: false,
    };
    let entries = log.range(room, all).await.unwrap();
    entries
        .iter()
        .map(|entry| (entry.id, entry.message().clone()))
        .collect()
}
