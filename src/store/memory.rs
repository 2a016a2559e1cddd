//! Streams in this process's memory: for one node without Redis, and for tests.
//!
//! It behaves as a Redis with the same entries would, to the IDs it gives, and keeps nothing beyond
//! the process. What people do to a Redis behind a relay's back (DEL, XTRIM, XDEL, XADD with an ID
//! of one's own, a failover) has a method here, so that a test can do it too.

mod accounts;
mod board;
mod rates;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::stream::Stream;
use crate::relay::entry::{Entry, EntryId, Fields, RoomName};
use crate::relay::log::{
    Append, AppendError, Feed, Limit, Log, LogError, Next, Range, Read, StreamState, Survey,
    TailGuard,
};

/// Most rooms at a time. Names are free to invent, so without a bound anyone could fill the memory
/// with empty rooms; at about 400 bytes each, these take 40 MB.
pub const ROOMS_MAX: usize = 100_000;

/// How long a read waits for an entry before it answers that there is none.
const READ_WAIT: Duration = Duration::from_secs(1);

/// Most entries of one read, so that a tail far behind does not copy its whole stream at once.
const READ_MAX: usize = 1000;

/// Time between tries while the log is told to fail.
const RETRY: Duration = Duration::from_millis(50);

/// What a [`MemoryLog`] keeps, and for how long.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Entries per room; the oldest go first. `None` keeps all.
    pub keep: Option<usize>,
    /// Entries older than this go, whenever one is added to their room.
    pub keep_for: Option<Duration>,
    /// A room that nobody wrote to for this long is deleted.
    pub expire_after: Option<Duration>,
    /// How long an idempotency key is remembered.
    pub idempotency_window: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            keep: Some(10_000),
            keep_for: None,
            expire_after: None,
            idempotency_window: Duration::from_secs(300),
        }
    }
}

/// A [`Log`] in memory, and a [`Board`](crate::people::board::Board). Clones share the streams, and
/// are each good for one node of many.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    /// Unix milliseconds.
    clock: Box<dyn Fn() -> u64 + Send + Sync>,
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    rooms: HashMap<RoomName, Stream>,
    seen: Seen,
    rates: rates::Rates,
    board: board::State,
    accounts: accounts::State,
    /// One bell per tail: rung when its room changes. Apart from the streams, because a tail waits
    /// for rooms that don't exist yet, too.
    bells: HashMap<RoomName, SmallVec<[Arc<Notify>; 1]>>,
    failing: Option<LogError>,
    losing_answers: bool,
    /// Expired rooms are looked for when there are so many.
    sweep_at: usize,
}

/// Idempotency keys and the IDs they led to.
#[derive(Default)]
struct Seen {
    ids: HashMap<(RoomName, Bytes), EntryId>,
    /// In order of expiry, which is the order of arrival, as the window is the same for all.
    expiries: VecDeque<(u64, (RoomName, Bytes))>,
}

impl MemoryLog {
    /// An empty log by the system's clock.
    pub fn new(settings: Settings) -> Self {
        Self::with_clock(settings, || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, millis)
        })
    }

    /// An empty log by a clock of one's own, which tells Unix milliseconds. The clock is asked
    /// under the log's lock, so it must not call the log.
    pub fn with_clock(settings: Settings, clock: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        MemoryLog {
            shared: Arc::new(Shared {
                settings,
                clock: Box::new(clock),
                streams: Mutex::default(),
            }),
        }
    }

    /// DEL. False if there is no such room.
    pub fn delete(&self, room: &RoomName) -> bool {
        let (_, mut streams) = self.shared.lock();
        streams.rooms.remove(room).is_some()
    }

    /// XTRIM MAXLEN = `keep`.
    pub fn trim(&self, room: &RoomName, keep: usize) {
        self.change(room, |stream| stream.trim(keep));
    }

    /// XDEL. False if there is no such entry.
    pub fn remove(&self, room: &RoomName, id: EntryId) -> bool {
        self.change(room, |stream| stream.remove(id))
            .unwrap_or(false)
    }

    /// XADD under an ID of one's own, without retention. Refused unless it's past the last ID.
    pub fn append_with_id(
        &self,
        room: &RoomName,
        id: EntryId,
        fields: impl Into<Fields>,
    ) -> Result<(), LogError> {
        let (now, mut streams) = self.shared.lock();
        match streams.live_mut(room, now) {
            Some(stream) => stream.add(id, fields.into())?,
            None => {
                let mut stream = Stream::default();
                stream.add(id, fields.into())?;
                streams.rooms.insert(room.clone(), stream);
            }
        }
        streams.ring(room);
        Ok(())
    }

    /// Loses what came after `to`, as a failover to a replica that lags behind does.
    pub fn rewind(&self, room: &RoomName, to: EntryId) {
        self.change(room, |stream| stream.rewind(to));
    }

    /// From now on everything fails with this error; `None` ends it. Tails report the error and
    /// try again.
    pub fn set_failing(&self, error: Option<LogError>) {
        let (_, mut streams) = self.shared.lock();
        let back = streams.failing.is_some() && error.is_none();
        streams.failing = error;
        if back {
            streams.board.reconnected();
        }
        streams
            .bells
            .values()
            .flatten()
            .for_each(|bell| bell.notify_one());
    }

    /// From now on appends are stored, but answered as unknown, as if the connection broke between
    /// the two.
    pub fn set_losing_answers(&self, losing: bool) {
        self.shared.lock().1.losing_answers = losing;
    }

    fn change<T>(&self, room: &RoomName, change: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let (now, mut streams) = self.shared.lock();
        streams.live_mut(room, now).map(change)
    }
}

impl Log for MemoryLog {
    fn append(&self, append: Append) {
        let Append {
            room,
            fields,
            key,
            limits,
            done,
            ..
        } = append;
        let outcome = self.shared.append(room, fields, key, &limits);
        // Not under the lock: whoever takes the outcome may append again.
        done(outcome);
    }

    fn range(
        &self,
        room: &RoomName,
        range: Range,
    ) -> BoxFuture<'static, Result<Vec<Entry>, LogError>> {
        let (shared, room) = (Arc::clone(&self.shared), room.clone());
        Box::pin(async move {
            let (now, streams) = shared.up()?;
            let stream = streams.live(&room, now);
            Ok(stream.map_or_else(Vec::new, |stream| stream.range(range)))
        })
    }

    fn state(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<StreamState>, LogError>> {
        let (shared, room) = (Arc::clone(&self.shared), room.clone());
        Box::pin(async move {
            let (now, streams) = shared.up()?;
            Ok(streams.live(&room, now).map(Stream::state))
        })
    }

    fn remove(
        &self,
        room: &RoomName,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<u64, LogError>> {
        let (shared, room) = (Arc::clone(&self.shared), room.clone());
        Box::pin(async move {
            let (now, mut streams) = shared.up()?;
            let Some(stream) = streams.live_mut(&room, now) else {
                return Ok(0);
            };
            Ok(ids.iter().filter(|id| stream.remove(**id)).count() as u64)
        })
    }

    /// Spawns a task, so it needs a tokio runtime around it.
    fn tail(&self, feed: Arc<dyn Feed>) -> TailGuard {
        let (shared, room) = (Arc::clone(&self.shared), feed.room().clone());
        let bell = Arc::new(Notify::new());
        let (_, mut streams) = shared.lock();
        streams
            .bells
            .entry(room.clone())
            .or_default()
            .push(Arc::clone(&bell));
        drop(streams);
        let task = tokio::spawn(follow(Arc::clone(&shared), feed, Arc::clone(&bell)));
        TailGuard::new(move || {
            task.abort();
            shared.lock().1.remove_bell(&room, &bell);
        })
    }

    fn health(&self) -> Result<(), LogError> {
        self.shared.up().map(drop)
    }

    fn clock(&self) -> Option<Duration> {
        Some(Duration::from_millis((self.shared.clock)()))
    }
}

/// One tail: does what its feed says, until it's aborted.
async fn follow(shared: Arc<Shared>, feed: Arc<dyn Feed>, bell: Arc<Notify>) {
    loop {
        let outcome = match feed.next() {
            Next::Survey { newest } => shared
                .survey(feed.room(), newest)
                .map(|survey| feed.on_survey(survey)),
            Next::Read { after } => {
                let deadline = Instant::now() + READ_WAIT;
                // A bell rung before this waits on it is kept, so nothing is slept through.
                while shared.quiet(feed.room(), after)
                    && tokio::time::timeout_at(deadline, bell.notified())
                        .await
                        .is_ok()
                {}
                shared
                    .read(feed.room(), after)
                    .map(|read| feed.on_read(read))
            }
        };
        match outcome {
            // A feed with much to read must neither starve others nor escape its abortion.
            Ok(()) => tokio::task::yield_now().await,
            Err(error) => {
                feed.on_error(&error);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl Shared {
    /// The time and the streams. The clock is read under the lock, so that one room's IDs follow
    /// it in order.
    fn lock(&self) -> (u64, MutexGuard<'_, Streams>) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        ((self.clock)(), streams)
    }

    /// The same, unless the log is told to fail.
    fn up(&self) -> Result<(u64, MutexGuard<'_, Streams>), LogError> {
        let (now, streams) = self.lock();
        match &streams.failing {
            Some(error) => Err(error.clone()),
            None => Ok((now, streams)),
        }
    }

    fn append(
        &self,
        room: RoomName,
        fields: Fields,
        key: Option<Bytes>,
        limits: &[Limit],
    ) -> Result<EntryId, AppendError> {
        let (now, mut streams) = self.up().map_err(AppendError::Refused)?;
        // A repeat passes anyway.
        let repeat = match &key {
            Some(key) => streams.seen.repeated(&room, key, now),
            None => None,
        };
        let id = match repeat {
            Some(id) => id,
            None => {
                let charges = streams.rates.pass(&room, limits, now)?;
                let id = streams.append(&self.settings, now, room, fields, key);
                let id = id.map_err(AppendError::Refused)?;
                streams.rates.charge(charges, now);
                id
            }
        };
        if streams.losing_answers {
            return Err(AppendError::Unknown(LogError::Unavailable(
                "the answer was lost".into(),
            )));
        }
        Ok(id)
    }

    fn survey(&self, room: &RoomName, newest: usize) -> Result<Survey, LogError> {
        let (now, streams) = self.up()?;
        let stream = streams.live(room, now);
        Ok(Survey {
            state: stream.map(Stream::state),
            newest: stream.map_or_else(Vec::new, |stream| stream.newest(newest)),
        })
    }

    fn read(&self, room: &RoomName, after: EntryId) -> Result<Read, LogError> {
        let (now, streams) = self.up()?;
        let stream = streams.live(room, now);
        Ok(Read {
            after,
            cursor_entry: stream.and_then(|stream| {
                let at = Range {
                    from: Bound::Included(after),
                    to: Bound::Included(after),
                    limit: 1,
                    newest_first: false,
                };
                stream.range(at).pop()
            }),
            entries: stream.map_or_else(Vec::new, |stream| {
                stream.range(Range {
                    from: Bound::Excluded(after),
                    to: Bound::Unbounded,
                    limit: READ_MAX,
                    newest_first: false,
                })
            }),
        })
    }

    /// Whether a read from `after` has nothing to say yet.
    fn quiet(&self, room: &RoomName, after: EntryId) -> bool {
        let Ok((now, streams)) = self.up() else {
            return false;
        };
        !streams
            .live(room, now)
            .is_some_and(|stream| stream.has_after(after))
    }
}

impl Streams {
    fn live(&self, room: &RoomName, now: u64) -> Option<&Stream> {
        self.rooms.get(room).filter(|stream| !stream.expired(now))
    }

    /// The same, to change it; one that expired is deleted for good.
    fn live_mut(&mut self, room: &RoomName, now: u64) -> Option<&mut Stream> {
        if self.rooms.get(room)?.expired(now) {
            self.rooms.remove(room);
        }
        self.rooms.get_mut(room)
    }

    fn append(
        &mut self,
        settings: &Settings,
        now: u64,
        room: RoomName,
        fields: Fields,
        key: Option<Bytes>,
    ) -> Result<EntryId, LogError> {
        if fields.is_empty() {
            return Err(LogError::Other(
                "ERR wrong number of arguments for 'xadd' command".into(),
            ));
        }
        let key = key.map(|key| (room.clone(), key));
        if self.live_mut(&room, now).is_none() {
            self.make_place(now)?;
        }
        let stream = self.rooms.entry(room.clone()).or_default();
        let id = stream.next_id(now)?;
        stream.add(id, fields)?;
        if let Some(keep) = settings.keep {
            stream.trim(keep);
        }
        if let Some(keep_for) = settings.keep_for {
            stream.trim_below(EntryId::new(now.saturating_sub(millis(keep_for)), 0));
        }
        stream.expires = settings
            .expire_after
            .map(|after| now.saturating_add(millis(after)));
        if let Some(key) = key {
            let until = now.saturating_add(millis(settings.idempotency_window));
            self.seen.remember(key, id, until);
        }
        self.ring(&room);
        Ok(id)
    }

    /// Makes sure that one more room may be added. Looks through all rooms only when their number
    /// has doubled, so that the cost per room stays constant.
    fn make_place(&mut self, now: u64) -> Result<(), LogError> {
        if self.rooms.len() >= self.sweep_at {
            self.rooms.retain(|_, stream| !stream.expired(now));
            self.sweep_at = (2 * self.rooms.len()).clamp(1024, ROOMS_MAX);
        }
        if self.rooms.len() >= ROOMS_MAX {
            return Err(LogError::Full(format!(
                "{ROOMS_MAX} rooms in memory is the most"
            )));
        }
        Ok(())
    }

    fn ring(&self, room: &RoomName) {
        self.bells
            .get(room)
            .into_iter()
            .flatten()
            .for_each(|bell| bell.notify_one());
    }

    fn remove_bell(&mut self, room: &RoomName, bell: &Arc<Notify>) {
        if let Some(bells) = self.bells.get_mut(room) {
            bells.retain(|other| !Arc::ptr_eq(other, bell));
            if bells.is_empty() {
                self.bells.remove(room);
            }
        }
    }
}

impl Seen {
    /// The ID that a key led to, if it's remembered.
    fn repeated(&mut self, room: &RoomName, key: &Bytes, now: u64) -> Option<EntryId> {
        self.forget(now);
        self.ids.get(&(room.clone(), key.clone())).copied()
    }

    fn remember(&mut self, key: (RoomName, Bytes), id: EntryId, until: u64) {
        self.ids.insert(key.clone(), id);
        self.expiries.push_back((until, key));
    }

    fn forget(&mut self, now: u64) {
        while self
            .expiries
            .front()
            .is_some_and(|(until, _)| *until <= now)
        {
            if let Some((_, key)) = self.expiries.pop_front() {
                self.ids.remove(&key);
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
