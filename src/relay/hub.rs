//! [`Relay`]: the three verbs, over one log.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::aside::Aside;
use super::connection::{Connection, Publish, now_ms};
use super::entry::{Entry, EntryId, RoomName};
use super::fanout::Fanout;
use super::format::Format;
use super::listener::Listener;
use super::log::{AppendDone, AppendError, Log, LogError, Range, Vitals};
use super::outlet::{Outlet, Wire};
use super::position::Position;
use super::registry::Registry;
use super::room::{RoomShared, WindowBudget};
use super::stats::Stats;
use super::window::WindowLimits;

/// How a relay behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds of each room's window.
    pub window: WindowLimits,
    /// Bytes of all windows together. Above it every room is held to its share.
    pub window_total: usize,
    /// How long a room without subscribers keeps its tail and window.
    pub linger: Duration,
    /// How long a pending write may make no progress before its socket is closed; `None` is for ever.
    pub slow_timeout: Option<Duration>,
    /// Rooms per connection.
    pub max_rooms: usize,
    /// Publishes in flight per connection.
    pub max_in_flight: u32,
    /// How long a publish may wait for its outcome.
    pub publish_timeout: Duration,
    /// Fan-out workers; as many as processors is right.
    pub workers: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            window: WindowLimits {
                entries: 1_000,
                bytes: 1 << 20,
            },
            window_total: 256 << 20,
            linger: Duration::from_secs(30),
            slow_timeout: Some(Duration::from_secs(60)),
            max_rooms: 128,
            max_in_flight: 64,
            publish_timeout: Duration::from_secs(5),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// A node's relay.
pub struct Relay {
    log: Arc<dyn Log>,
    registry: Arc<Registry>,
    shared: Arc<RoomShared>,
    settings: Settings,
}

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
    /// A relay over a log. Its workers run on the current tokio runtime.
    pub fn new(log: Arc<dyn Log>, settings: Settings) -> Arc<Self> {
        let shared = Arc::new(RoomShared {
            log: log.clone(),
            fanout: Fanout::start(settings.workers),
            limits: settings.window,
            windows: WindowBudget {
                limit: settings.window_total,
                used: AtomicUsize::new(0),
                rooms: AtomicUsize::new(0),
            },
            stats: Arc::default(),
        });
        Arc::new(Relay {
            log,
            registry: Registry::new(shared.clone(), settings.linger),
            shared,
            settings,
        })
    }

    /// A connection for a client that was let in.
    pub fn connect(self: &Arc<Self>, wire: Arc<dyn Wire>, format: &'static Format) -> Connection {
        let outlet = Outlet::new(
            wire,
            format,
            self.settings.slow_timeout,
            self.shared.fanout.assign(),
            self.shared.stats.clone(),
        );
        Connection::new(self.clone(), outlet)
    }

    /// Publishes one entry for a client without a connection. Waits for its outcome.
    pub async fn publish(&self, publish: Publish) -> Result<EntryId, AppendError> {
        let (sender, outcome) = oneshot::channel();
        let done = self.watch_outcome(
            &publish.room,
            Box::new(move |outcome| {
                // The client may have gone away; its entry is stored all the same.
                let _ = sender.send(outcome);
            }),
        );
        let deadline = Instant::now() + self.settings.publish_timeout;
        self.log.append(publish.append(deadline, done));
        let gone = || {
            AppendError::Unknown(LogError::Unavailable(
                "this node is shutting down".to_owned(),
            ))
        };
        outcome.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Reads a page of history.
    pub async fn history(
        &self,
        room: &RoomName,
        query: HistoryQuery,
    ) -> Result<HistoryPage, LogError> {
        let range = Range {
            from: query.after.map_or(Bound::Unbounded, Bound::Excluded),
            to: query.before.map_or(Bound::Unbounded, Bound::Excluded),
            limit: query.limit + 1,
            newest_first: query.newest_first,
        };
        self.shared.stats.log_reads.add(1);
        let mut entries = self.log.range(room, range).await?;
        let has_more = entries.len() > query.limit;
        entries.truncate(query.limit);
        let next = entries.last().map(|entry| entry.id).filter(|_| has_more);
        Ok(HistoryPage { entries, next })
    }

    /// Removes entries for good, on this node also from what is held in memory; the others have to
    /// be told. Says how many were there.
    pub async fn remove(&self, room: &RoomName, ids: Vec<EntryId>) -> Result<u64, LogError> {
        let removed = self.log.remove(room, ids.clone()).await?;
        self.forget(room, &ids);
        Ok(removed)
    }

    /// Takes entries that somebody removed out of this node's memory.
    pub fn forget(&self, room: &RoomName, ids: &[EntryId]) {
        if let Some(room) = self.registry.find(room) {
            room.forget(ids);
        }
    }

    /// Tells a room's subscribers on this node something beside the stream.
    pub fn tell(&self, room: &RoomName, aside: Arc<Aside>) {
        if let Some(room) = self.registry.find(room) {
            room.tell(aside);
        }
    }

    /// Whether one of a room's watchers went without an aside since this was asked last.
    pub fn take_missed(&self, room: &RoomName) -> bool {
        let room = self.registry.find(room);
        room.is_some_and(|room| room.missed.swap(false, std::sync::atomic::Ordering::AcqRel))
    }

    /// Follows a room from within. Waits while Redis is away.
    pub async fn listen(&self, room: &RoomName, from: Position) -> Result<Listener, LogError> {
        let membership = self.registry.enter(room);
        let start = membership.room().start(from, now_ms()).await?;
        Ok(Listener::new(membership, start))
    }

    /// How the store's connections are.
    pub fn vitals(&self) -> Vitals {
        self.log.vitals()
    }

    /// Why this node can't serve now, if it can't: Redis does not answer, or tails do not move.
    pub fn health(&self) -> Result<(), LogError> {
        self.log.health()
    }

    /// How long a publish may wait for its outcome.
    pub fn publish_timeout(&self) -> Duration {
        self.settings.publish_timeout
    }

    /// What the relay counts.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.shared.stats
    }

    /// Bytes that the windows of all rooms hold now.
    pub fn window_bytes(&self) -> usize {
        self.shared
            .windows
            .used
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn log(&self) -> &dyn Log {
        self.log.as_ref()
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Counts a publish's outcome, and tells its room before anybody else hears of it.
    pub(super) fn watch_outcome(&self, room: &RoomName, done: AppendDone) -> AppendDone {
        let stats = self.shared.stats.clone();
        let (registry, room) = (self.registry.clone(), room.clone());
        let came = Instant::now();
        Box::new(move |outcome| {
            if let Ok(_) | Err(AppendError::NotReplicated(_)) = &outcome {
                stats.publish_latency.add(came.elapsed());
            }
            match &outcome {
                Ok(id) => {
                    stats.published.add(1);
                    if let Some(room) = registry.find(&room) {
                        room.on_stored(*id);
                    }
                }
                Err(AppendError::Refused(_) | AppendError::TooFast { .. }) => stats.refused.add(1),
                Err(AppendError::Unknown(_) | AppendError::NotReplicated(_)) => {
                    stats.unknown.add(1)
                }
            }
            done(outcome);
        })
    }
}
