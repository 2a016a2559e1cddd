//! The trait [`Log`]: what the relay asks of the thing that keeps the streams.
//!
//! Requests travel down through `Log`. Entries travel up through [`Feed`]: a store's tail does only
//! what its feed tells it to do next, so that every store follows a stream by the same algorithm,
//! which is `relay/follower.rs`.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::entry::{Entry, EntryId, Fields, RoomName};

/// Keeps the streams.
pub trait Log: Send + Sync + 'static {
    /// Queues one entry to be added; never waits. Appends to one room are stored in the order of
    /// these calls. `append.done` is called once, whatever happens, perhaps before this returns.
    fn append(&self, append: Append);

    /// Entries of a range, in the order asked for.
    fn range(
        &self,
        room: &RoomName,
        range: Range,
    ) -> BoxFuture<'static, Result<Vec<Entry>, LogError>>;

    /// What the stream says of itself; `None` if there is none.
    fn state(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<StreamState>, LogError>>;

    /// Removes entries, and says how many of them were there.
    fn remove(
        &self,
        room: &RoomName,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<u64, LogError>>;

    /// Starts to tail a room: from now on asks `feed` what to read next, reads it, and hands it
    /// the answer, through every reconnect, until the guard is dropped.
    fn tail(&self, feed: Arc<dyn Feed>) -> TailGuard;

    /// Whether the store answers just now, and if not, why.
    fn health(&self) -> Result<(), LogError>;

    /// How the store's connections are.
    fn vitals(&self) -> Vitals {
        Vitals {
            up: self.health().is_ok(),
            ..Vitals::default()
        }
    }

    /// The time since the Unix epoch by the clock that IDs are made by, good to a few milliseconds.
    /// `None` where it's not known, as before the store has answered.
    fn clock(&self) -> Option<Duration> {
        None
    }
}

/// How a store's connections are, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Whether it answers.
    pub up: bool,
    /// Connections opened to it since the start, those that replace lost ones among them.
    pub connects: u64,
    /// Rooms that stand still: their next entry can't be read.
    pub stalled_rooms: u64,
}

/// One room's side of its tail. The calls come one at a time, in the order of the answers.
pub trait Feed: Send + Sync + 'static {
    /// The room.
    fn room(&self) -> &RoomName;

    /// What to do next.
    fn next(&self) -> Next;

    /// The answer to [`Next::Read`].
    fn on_read(&self, read: Read);

    /// The answer to [`Next::Survey`].
    fn on_survey(&self, survey: Survey);

    /// Nothing could be read. The tail tries again by itself, with backoff.
    fn on_error(&self, error: &LogError);
}

/// What a tail does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for entries after `after`, as long as the store's kind of waiting takes (a blocking
    /// read, a doorbell), then hand over what there is, nothing included.
    Read {
        /// The cursor.
        after: EntryId,
    },
    /// Something is odd, or the room is new: ask for the stream's state and its newest entries, at
    /// once.
    Survey {
        /// How many of the newest entries to bring.
        newest: usize,
    },
}

/// Entries after a cursor.
#[derive(Debug)]
pub struct Read {
    /// The cursor that was asked from.
    pub after: EntryId,
    /// The witness: the cursor's own entry, if it was still there, looked up together with the read
    /// or after it, never before it. A stream begun anew may have given its ID out again.
    pub cursor_entry: Option<Entry>,
    /// What follows the cursor, oldest first; the cursor's own entry is not among them.
    pub entries: Vec<Entry>,
}

impl Read {
    /// Whether the cursor's entry was still there. `None` for `0-0`, where no entry can be.
    pub fn cursor_present(&self) -> Option<bool> {
        (self.after != EntryId::ZERO).then_some(self.cursor_entry.is_some())
    }
}

/// How a stream stands.
#[derive(Debug)]
pub struct Survey {
    /// What it says of itself, asked after `newest` was; `None` if the key is missing.
    pub state: Option<StreamState>,
    /// The newest entries, oldest first.
    pub newest: Vec<Entry>,
}

/// What a stream says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamState {
    /// The oldest entry that is still there.
    pub first: Option<EntryId>,
    /// The last ID ever given out, even if that entry is gone.
    pub last: EntryId,
    /// How many entries are there.
    pub len: u64,
    /// How many were ever added. `None` before Redis 7.0, which does not count.
    pub added: Option<u64>,
}

/// Part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// The lower end.
    pub from: Bound<EntryId>,
    /// The upper end.
    pub to: Bound<EntryId>,
    /// At most so many entries.
    pub limit: usize,
    /// From the upper end downwards.
    pub newest_first: bool,
}

/// An entry to be.
pub struct Append {
    /// Where to.
    pub room: RoomName,
    /// Its fields, at least one.
    pub fields: Fields,
    /// Repeats under the same key, within the store's window, answer the first one's ID.
    pub key: Option<Bytes>,
    /// Rates that must let it pass, all of them; a repeat of a key passes anyway.
    pub limits: Box<[Limit]>,
    /// Whether it waits with the others.
    pub lane: Lane,
    /// Past this it's refused if it still waits, or given up as unknown if it was sent.
    pub deadline: Instant,
    /// Takes the outcome.
    pub done: AppendDone,
}

/// Which of the waiting appends go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lane {
    /// In the order of their coming; refused when too many wait.
    #[default]
    Usual,
    /// Before the usual ones, and never refused for their sake: a host's.
    First,
}

/// A rate of appends that all nodes keep together, by the store's clock: one every `interval`, and
/// after a rest `burst` at once (the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Whose rate it is, within the room.
    pub name: Bytes,
    /// What one append costs, in time; at least a millisecond.
    pub interval: Duration,
    /// How many may come at once; at least one.
    pub burst: u32,
}

/// Called with the outcome of an [`Append`].
pub type AppendDone = Box<dyn FnOnce(Result<EntryId, AppendError>) + Send>;

/// An append that gave no ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Not stored, for certain.
    #[error("not stored: {0}")]
    Refused(LogError),
    /// Not stored: a limit, by its place in [`Append::limits`], lets the next one pass only later.
    #[error("not stored: too fast; the next one may come in {} ms", .retry.as_millis())]
    TooFast {
        /// Which limit.
        limit: usize,
        /// How long until it would pass.
        retry: Duration,
    },
    /// Perhaps stored: the request went out and no answer came back.
    #[error("it may or may not have been stored: {0}")]
    Unknown(LogError),
    /// Stored under this ID, but not on as many replicas as `--durability replicated` asks for.
    #[error("stored as {0}, but no replica confirmed it in time")]
    NotReplicated(EntryId),
}

/// What a store could not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No connection, or no answer in time.
    #[error("Redis does not answer: {0}")]
    Unavailable(String),
    /// Too many publishes wait already (`--publish-queue`, `--publish-queue-bytes`).
    #[error("too many publishes are waiting for Redis")]
    Busy,
    /// LOADING.
    #[error("Redis is still loading its data")]
    Loading,
    /// READONLY, MASTERDOWN, or NOREPLICAS.
    #[error("Redis takes no writes: {0}")]
    ReadOnly(String),
    /// OOM or MISCONF: memory or disk is full.
    #[error("Redis is full: {0}")]
    Full(String),
    /// The key holds something else.
    #[error("the room's Redis key holds another type than a stream; rename or delete it")]
    WrongType,
    /// NOAUTH, WRONGPASS, NOPERM.
    #[error("Redis denied access: {0}")]
    Denied(String),
    /// Whatever else it said.
    #[error("Redis answered: {0}")]
    Other(String),
}

impl LogError {
    /// Whether it may pass by itself, so that it makes sense to wait.
    pub fn passes(&self) -> bool {
        match self {
            LogError::Unavailable(_)
            | LogError::Busy
            | LogError::Loading
            | LogError::ReadOnly(_)
            | LogError::Full(_) => true,
            LogError::WrongType | LogError::Denied(_) | LogError::Other(_) => false,
        }
    }

    /// A short word for the client contract and for metrics.
    pub const fn code(&self) -> &'static str {
        match self {
            LogError::Unavailable(_) => "redis_unavailable",
            LogError::Busy => "busy",
            LogError::Loading => "redis_loading",
            LogError::ReadOnly(_) => "redis_read_only",
            LogError::Full(_) => "redis_full",
            LogError::WrongType => "wrong_type",
            LogError::Denied(_) => "redis_denied",
            LogError::Other(_) => "redis_error",
        }
    }
}

/// Keeps a tail running; the tail stops when it's dropped.
pub type TailGuard = StopGuard;

/// Stops something when it's dropped.
pub struct StopGuard {
    stop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl StopGuard {
    /// A guard that calls `stop` once, when dropped.
    pub fn new(stop: impl FnOnce() + Send + Sync + 'static) -> Self {
        StopGuard {
            stop: Some(Box::new(stop)),
        }
    }
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}
