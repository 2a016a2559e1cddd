//! The streams in Redis.
//!
//! Four kinds of connection, so that none waits behind another: one appends (`append`), one
//! answers questions and is asked every second whether it lives (`command`), the tails have their
//! own (`tail`), and so has what nodes share besides the streams (`board`). Each reconnects by
//! itself, with backoff and jitter.

mod accounts;
mod append;
mod board;
mod clock;
mod command;
mod connect;
mod health;
mod keys;
mod probe;
mod reply;
mod size;
mod spell;
mod tail;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::task::AbortOnDropHandle;

use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::log::{Append, Feed, Log, LogError, Range, StreamState, TailGuard, Vitals};

pub use connect::ConnectError;
pub use probe::{Persistence, Probe, ProbeError, probe};

#[cfg(fuzzing)]
pub(crate) use reply::fuzz as fuzz_reply;

/// How a stream is trimmed as it grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// About so many of the newest entries (`MAXLEN ~`).
    Entries(u64),
    /// About what was added within so long (`MINID ~`, by this node's clock).
    Age(Duration),
    /// Everything.
    All,
}

impl Retention {
    /// What XADD is told: how to trim, and to what.
    fn threshold(self) -> Option<(&'static str, u64)> {
        match self {
            Retention::All => None,
            Retention::Entries(most) => Some(("MAXLEN", most)),
            Retention::Age(age) => {
                let oldest = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default()
                    .saturating_sub(age);
                Some(("MINID", millis(oldest)))
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// When an append counts as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once Redis answered.
    Fast,
    /// Once so many replicas have it (`WAIT`).
    Replicated {
        /// How many replicas.
        replicas: u32,
        /// How long to wait for them.
        timeout: Duration,
    },
}

/// How rooms are tailed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailMode {
    /// A connection per room within the budget, client tracking beyond it, or groups of rooms on
    /// servers without tracking.
    Auto,
    /// Blocking reads only: a connection per room within the budget, groups of rooms beyond it.
    Block,
    /// Client tracking only, or groups of rooms on servers without it.
    Track,
}

/// Settings of a [`RedisLog`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// `redis://`, `rediss://` or `unix://`, with user, password and database.
    pub url: String,
    /// Stands before each room's name in its key.
    pub key_prefix: String,
    /// How streams are trimmed.
    pub keep: Retention,
    /// A room that nobody writes to for so long is deleted; `None` keeps it.
    pub expire_after: Option<Duration>,
    /// When an append counts as stored.
    pub durability: Durability,
    /// How rooms are tailed.
    pub tail_mode: TailMode,
    /// Rooms that have a connection of their own. Default 64: a blocked connection costs Redis
    /// about as much per entry as tracking does, and a file descriptor on both sides.
    pub tail_connections: usize,
    /// Appends that may wait for Redis at a time.
    pub publish_queue: usize,
    /// Bytes of the appends that may wait for Redis at a time.
    pub publish_queue_bytes: usize,
    /// How long an idempotency key is remembered. Default 5 min, about 165 bytes of Redis each.
    pub idempotency_window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            url: "redis://127.0.0.1:6379".to_owned(),
            key_prefix: String::new(),
            keep: Retention::Entries(10_000),
            expire_after: None,
            durability: Durability::Fast,
            tail_mode: TailMode::Auto,
            tail_connections: 64,
            publish_queue: 10_000,
            publish_queue_bytes: 32 << 20,
            idempotency_window: Duration::from_secs(300),
        }
    }
}

/// A [`Log`] over one Redis server, and a [`Board`](crate::people::board::Board).
pub struct RedisLog {
    keys: keys::Keys,
    board: Arc<board::Connections>,
    publisher: append::Publisher,
    commands: Arc<command::Commands>,
    tails: tail::Tails,
    health: Arc<health::Health>,
    address: connect::Address,
    _pings: AbortOnDropHandle<()>,
}

impl RedisLog {
    /// Starts to connect, in the background: Redis need not be up yet. Must be called within a
    /// tokio runtime.
    pub fn start(settings: Settings) -> Result<Arc<Self>, ConnectError> {
        let address = connect::Address::parse(&settings.url)?;
        let keys = keys::Keys::new(&settings.key_prefix);
        let health = Arc::new(health::Health::new());
        let commands = Arc::new(command::Commands::new(address.clone()));
        let pings = tokio::spawn(health::ping_forever(health.clone(), commands.clone()));
        Ok(Arc::new(RedisLog {
            publisher: append::Publisher::start(
                &settings,
                keys.clone(),
                address.clone(),
                health.clone(),
            ),
            board: Arc::new(board::Connections::start(&settings, keys.clone(), &address)),
            tails: tail::Tails::start(&settings, keys.clone(), address.clone(), health.clone()),
            address,
            keys,
            commands,
            health,
            _pings: AbortOnDropHandle::new(pings),
        }))
    }
}

impl Log for RedisLog {
    fn append(&self, append: Append) {
        self.publisher.append(append);
    }

    fn range(
        &self,
        room: &RoomName,
        range: Range,
    ) -> BoxFuture<'static, Result<Vec<Entry>, LogError>> {
        let (commands, key) = (self.commands.clone(), self.keys.room(room));
        async move { commands.range(&key, range).await }.boxed()
    }

    fn state(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<StreamState>, LogError>> {
        let (commands, key) = (self.commands.clone(), self.keys.room(room));
        async move { commands.state(&key).await }.boxed()
    }

    fn remove(
        &self,
        room: &RoomName,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<u64, LogError>> {
        let (commands, key) = (self.commands.clone(), self.keys.room(room));
        async move { commands.remove(&key, &ids).await }.boxed()
    }

    fn tail(&self, feed: Arc<dyn Feed>) -> TailGuard {
        self.tails.tail(feed)
    }

    fn health(&self) -> Result<(), LogError> {
        self.health.check()
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            up: self.health.is_up(),
            connects: self.address.opened(),
            stalled_rooms: self.health.stalled_rooms(),
        }
    }

    fn clock(&self) -> Option<Duration> {
        self.health.clock()
    }
}
