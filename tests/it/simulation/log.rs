//! The log between relay and streams: it takes its time, or lies.

use std::ops::Bound;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailcast::relay::entry::{Entry, EntryId, RoomName};
use tailcast::relay::log::{
    Append, Feed, Log, LogError, Next, Range, Read, StreamState, Survey, TailGuard,
};
use tailcast::store::memory::MemoryLog;
use tokio::time::{Instant, sleep};

/// What a log does wrong, to prove that it's noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// A tail's read misses an entry.
    ReadDrops,
    /// A tail's read has two entries the wrong way round.
    ReadSwaps,
    /// A range misses an entry.
    RangeDrops,
    /// A range has an entry twice.
    RangeDoubles,
}

/// A [`MemoryLog`] seen from afar.
#[derive(Clone)]
pub(super) struct FarLog {
    log: MemoryLog,
    rng: Arc<Mutex<StdRng>>,
    /// Every question takes a while, and what it's about may change before and after.
    slow: bool,
    lie: Option<Lie>,
}

impl FarLog {
    pub(super) fn new(log: MemoryLog, seed: u64, slow: bool, lie: Option<Lie>) -> Self {
        FarLog {
            log,
            rng: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
            slow,
            lie,
        }
    }

    fn dice(&self, sides: u32) -> bool {
        self.rng.lock().unwrap().random_ratio(1, sides)
    }

    async fn pause(&self) {
        if self.slow && self.dice(2) {
            let millis = self.rng.lock().unwrap().random_range(0..4);
            sleep(Duration::from_millis(millis)).await;
        }
    }

    /// Distorts a list of entries.
    fn distort(&self, entries: &mut Vec<Entry>, lies: &[Lie]) {
        let lie = self.lie.filter(|lie| lies.contains(lie));
        let Some(lie) = lie.filter(|_| entries.len() >= 2 && self.dice(3)) else {
            return;
        };
        let at = self.rng.lock().unwrap().random_range(0..entries.len() - 1);
        match lie {
            Lie::ReadDrops | Lie::RangeDrops => drop(entries.remove(at)),
            Lie::ReadSwaps => entries.swap(at, at + 1),
            Lie::RangeDoubles => {
                let double = Entry::new(entries[at].id, entries[at].fields.clone());
                entries.insert(at, double);
            }
        }
    }

    fn distort_read(&self, read: &mut Read) {
        self.distort(&mut read.entries, &[Lie::ReadDrops, Lie::ReadSwaps]);
    }

    async fn survey(&self, room: &RoomName, newest: usize) -> Result<Survey, LogError> {
        let range = Range {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            limit: newest,
            newest_first: true,
        };
        self.pause().await;
        let mut newest = self.log.range(room, range).await?;
        newest.reverse();
        self.pause().await;
        let state = self.log.state(room).await?;
        self.pause().await;
        Ok(Survey { state, newest })
    }

    async fn read(&self, room: &RoomName, after: EntryId) -> Result<Read, LogError> {
        let deadline = Instant::now() + Duration::from_secs(1);
        let mut range = Range {
            from: Bound::Excluded(after),
            to: Bound::Unbounded,
            limit: 20,
            newest_first: false,
        };
        let entries = loop {
            let entries = self.log.range(room, range).await?;
            if !entries.is_empty() || Instant::now() >= deadline {
                break entries;
            }
            sleep(Duration::from_millis(20)).await;
        };
        self.pause().await;
        (range.from, range.to, range.limit) = (Bound::Included(after), Bound::Included(after), 1);
        let cursor_entry = self.log.range(room, range).await?.pop();
        self.pause().await;
        Ok(Read {
            after,
            cursor_entry,
            entries,
        })
    }

    async fn follow(self, feed: Arc<dyn Feed>) {
        loop {
            let outcome = match feed.next() {
                Next::Survey { newest } => self
                    .survey(feed.room(), newest)
                    .await
                    .map(|survey| feed.on_survey(survey)),
                Next::Read { after } => self
                    .read(feed.room(), after)
                    .await
                    .map(|read| feed.on_read(read)),
            };
            match outcome {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => {
                    feed.on_error(&error);
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Log for FarLog {
    fn append(&self, append: Append) {
        self.log.append(append);
    }

    fn range(
        &self,
        room: &RoomName,
        range: Range,
    ) -> BoxFuture<'static, Result<Vec<Entry>, LogError>> {
        let (log, room) = (self.clone(), room.clone());
        Box::pin(async move {
            log.pause().await;
            let mut entries = log.log.range(&room, range).await?;
            log.distort(&mut entries, &[Lie::RangeDrops, Lie::RangeDoubles]);
            log.pause().await;
            Ok(entries)
        })
    }

    fn state(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<StreamState>, LogError>> {
        let (log, room) = (self.clone(), room.clone());
        Box::pin(async move {
            log.pause().await;
            let state = log.log.state(&room).await;
            log.pause().await;
            state
        })
    }

    fn remove(
        &self,
        room: &RoomName,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<u64, LogError>> {
        let (log, room) = (self.clone(), room.clone());
        Box::pin(async move {
            log.pause().await;
            Log::remove(&log.log, &room, ids).await
        })
    }

    fn tail(&self, feed: Arc<dyn Feed>) -> TailGuard {
        if self.slow {
            let task = tokio::spawn(self.clone().follow(feed));
            return TailGuard::new(move || task.abort());
        }
        match self.lie {
            None => self.log.tail(feed),
            Some(_) => self.log.tail(Arc::new(Liar {
                feed,
                log: self.clone(),
            })),
        }
    }

    fn health(&self) -> Result<(), LogError> {
        self.log.health()
    }
}

/// A feed that hears what the log makes of the truth.
struct Liar {
    feed: Arc<dyn Feed>,
    log: FarLog,
}

impl Feed for Liar {
    fn room(&self) -> &RoomName {
        self.feed.room()
    }

    fn next(&self) -> Next {
        self.feed.next()
    }

    fn on_read(&self, mut read: Read) {
        self.log.distort_read(&mut read);
        self.feed.on_read(read);
    }

    fn on_survey(&self, survey: Survey) {
        self.feed.on_survey(survey);
    }

    fn on_error(&self, error: &LogError) {
        self.feed.on_error(error);
    }
}
