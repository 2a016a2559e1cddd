//! The checker: holds what clients got and what publishers were told against the streams.
//!
//! It knows nothing of how a run came about. It's given each room's stream as XRANGE shows it at
//! the end, each client's events in order, and each publish's outcome, and says which promises
//! were broken:
//!
//! - order: the IDs one client gets strictly increase, and no two clients disagree on the order;
//! - no silent gap: between two entries a client got there is no other one, unless a gap said so;
//! - no duplicate;
//! - an acknowledged publish is in the stream exactly once, a refused one is not, and one of which
//!   nobody knows is there at most once.
//!
//! Messages should differ from each other across a run, as an entry is known again by its ID and
//! its message.

// The end-to-end tests use what the tests of the checker itself don't.
#![allow(dead_code)]

mod clients;
mod mutations;
mod publishes;

use std::collections::BTreeMap;

use bytes::Bytes;
use tailcast::relay::entry::EntryId;
use tailcast::relay::format::GapReason;

/// All that is known of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    /// Rooms by name. A room without an entry here never had a stream.
    pub(crate) rooms: BTreeMap<String, Room>,
    pub(crate) clients: Vec<Client>,
    pub(crate) publishes: Vec<Publish>,
}

/// A room's stream at the end of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Room {
    /// Oldest first, with the message.
    pub(crate) entries: Vec<(EntryId, Bytes)>,
    /// Its oldest entries may have been trimmed, so gaps that say so are fine.
    pub(crate) trimmed: bool,
    /// It was deleted, or its end was lost: entries may be missing anywhere, and IDs may have gone
    /// back. What went before can't be judged as sharply then.
    pub(crate) lost: bool,
}

/// One client in one room.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) name: String,
    pub(crate) room: String,
    /// In the order they happened.
    pub(crate) events: Vec<Event>,
    /// It stayed until it could have got this entry.
    pub(crate) complete_to: Option<EntryId>,
}

/// What happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It's in the room, and begins after `head`. Right after a reconnect the head is not looked
    /// at: the client said itself where to go on.
    Joined { head: EntryId },
    /// It got an entry.
    Entry { id: EntryId, payload: Bytes },
    /// It was told of a gap: by a frame, or by the close of a raw socket.
    Gap {
        after: EntryId,
        before: EntryId,
        reason: GapReason,
    },
    /// It came again, and asked for what follows `from`.
    Reconnected { from: EntryId },
}

/// One publish.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) room: String,
    pub(crate) payload: Bytes,
    /// Its idempotency key. Repeats under one key are one publish.
    pub(crate) key: Option<String>,
    pub(crate) outcome: Outcome,
}

/// What a publisher was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged under this ID.
    Stored(EntryId),
    /// Not stored, for certain.
    Refused,
    /// Perhaps stored, or it was never answered.
    Unknown,
}

/// A broken promise. `client` is a client's name, `room` a room's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Violation {
    #[error("{client}: got {id} after {last}")]
    OutOfOrder {
        client: String,
        last: EntryId,
        id: EntryId,
    },
    #[error("{client}: got {id} twice")]
    Duplicate { client: String, id: EntryId },
    #[error(
        "{client}: nothing told of {count} entries from {first} on, after {after} and before {before}"
    )]
    Missing {
        client: String,
        after: EntryId,
        before: EntryId,
        first: EntryId,
        count: usize,
    },
    #[error("{client}: stopped at {last}, and {to} was there to get")]
    Incomplete {
        client: String,
        last: EntryId,
        to: EntryId,
    },
    #[error("{client}: got {id}, which the stream does not have")]
    Invented { client: String, id: EntryId },
    #[error("{client}: {id} came with another message than the stream has")]
    WrongPayload { client: String, id: EntryId },
    #[error("{client}: got {id} of the stream begun anew, and no gap before it")]
    SilentReset { client: String, id: EntryId },
    #[error("{client}: told of a {} gap between {after} and {before}, but {why}", reason.as_str())]
    FalseGap {
        client: String,
        after: EntryId,
        before: EntryId,
        reason: GapReason,
        why: &'static str,
    },
    #[error("{client}: resumed from {from}, but had got no further than {cursor}; mend the test")]
    ResumedAhead {
        client: String,
        from: EntryId,
        cursor: EntryId,
    },
    #[error("{room}: clients got these entries in different orders: {ids:?}")]
    Disagreement { room: String, ids: Vec<EntryId> },
    #[error(
        "{room}: the publish of {payload:?} was acknowledged as {id}, which the stream does not have"
    )]
    AcknowledgedLost {
        room: String,
        payload: Bytes,
        id: EntryId,
    },
    #[error(
        "{room}: the publish of {payload:?} was acknowledged as {id}, which is another message"
    )]
    AcknowledgedOther {
        room: String,
        payload: Bytes,
        id: EntryId,
    },
    #[error("{room}: two publishes were acknowledged as {id}")]
    AcknowledgedTwice { room: String, id: EntryId },
    #[error("{room}: key {key:?} was answered both {one} and {other}")]
    KeyAnsweredTwice {
        room: String,
        key: String,
        one: EntryId,
        other: EntryId,
    },
    #[error("{room}: {payload:?} is stored as {id}, though {why}")]
    StoredOnce {
        room: String,
        payload: Bytes,
        id: EntryId,
        why: &'static str,
    },
    #[error("{room}: the stream itself is out of order at {id}; mend the test")]
    BadTruth { room: String, id: EntryId },
}

/// Every broken promise; none if all were kept.
pub(crate) fn check(run: &Run) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, room) in &run.rooms {
        for pair in room
            .entries
            .windows(2)
            .filter(|pair| pair[0].0 >= pair[1].0)
        {
            violations.push(Violation::BadTruth {
                room: name.clone(),
                id: pair[1].0,
            });
        }
    }
    clients::check(run, &mut violations);
    publishes::check(run, &mut violations);
    violations
}

/// Panics with all violations, and with what leads back to this run.
#[track_caller]
pub(crate) fn assert_clean(run: &Run, seed: u64) {
    let violations = check(run);
    let shown: Vec<_> = violations
        .iter()
        .take(20)
        .map(|one| format!("  {one}\n"))
        .collect();
    let count = violations.len();
    assert!(
        violations.is_empty(),
        "seed {seed}: {count} violations\n{}",
        shown.concat()
    );
}
