//! Tails: what follows the rooms' streams.
//!
//! A tail does what its feed says and hands over what came; which entries are new, missing or
//! rewound is for the feed to tell. What a tail owes it is the *witness*: with every read, whether
//! the cursor's own entry is still there, looked up with the read or after it.
//!
//! Three ways to wait: [`block`], a room's own connection with a blocking read; [`track`], one
//! connection for any number of rooms on which Redis rings for those that changed; and [`group`],
//! blocking reads over many rooms, for servers without tracking.

mod block;
mod group;
mod track;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connect::Address;
use super::health::{Health, Stalled};
use super::keys::Keys;
use super::size::ReadSize;
use super::{Settings, TailMode, reply};
use crate::relay::entry::{Entry, EntryId};
use crate::relay::log::{Feed, LogError, Next, Read, Survey, TailGuard};

/// Entries per stream in a read that starts at the cursor's own entry, beside that one.
const OVERLAP_COUNT: usize = 100;

/// Entries per blocking read of one room: at most about this many frames wait in memory for the
/// hand-over.
const COUNT: usize = 256;

/// So many reads of one entry that lose their connections in a row make a room one that stands still:
/// once may be chance.
const STANDS_STILL: u32 = 3;

/// What all tails of one Redis share.
struct Context {
    address: Address,
    health: Arc<Health>,
}

/// A room that is tailed.
struct Room {
    key: Bytes,
    feed: Arc<dyn Feed>,
    reach: Mutex<Reach>,
}

/// How far one read of a room goes.
struct Reach {
    size: ReadSize,
    /// Reads of one entry that failed in a row.
    failed: u32,
    stalled: Option<Stalled>,
}

impl Room {
    fn new(key: Bytes, feed: Arc<dyn Feed>) -> Self {
        Room {
            key,
            feed,
            reach: Mutex::new(Reach {
                size: ReadSize::new(COUNT),
                failed: 0,
                stalled: None,
            }),
        }
    }

    fn reach(&self) -> MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries to ask for where so many are wanted.
    fn size(&self, wanted: usize) -> usize {
        self.reach().size.of(wanted)
    }

    /// A read of so many entries was answered.
    fn answered(&self) {
        let mut reach = self.reach();
        reach.size.answered(Instant::now());
        reach.failed = 0;
        if reach.stalled.take().is_some() {
            tracing::info!(room = %self.feed.room(), "the room can be read again");
        }
    }

    /// A read of so many entries lost its connection.
    fn lost(&self, health: &Arc<Health>, asked: usize, error: &LogError) {
        let mut reach = self.reach();
        reach.size.lost(asked, Instant::now());
        reach.failed = if asked <= 1 { reach.failed + 1 } else { 0 };
        if reach.failed == STANDS_STILL && reach.stalled.is_none() {
            reach.stalled = Some(health.stalled());
            tracing::warn!(
                room = %self.feed.room(), next = ?self.feed.next(), %error,
                "the room stands still: Redis closes the connection, or gives no answer, when its next entry is read; \
                 raise client-output-buffer-limit normal in Redis, or delete the entry"
            );
        }
    }
}

/// To the tails that share connections.
enum Order {
    Join(u64, Room),
    Leave(u64),
}

/// All tails of one Redis.
pub(super) struct Tails {
    context: Arc<Context>,
    keys: Keys,
    mode: TailMode,
    slots: Arc<Slots>,
    orders: UnboundedSender<Order>,
    next_id: AtomicU64,
    _shared: AbortOnDropHandle<()>,
}

impl Tails {
    /// Nothing to tail yet.
    pub(super) fn start(
        settings: &Settings,
        keys: Keys,
        address: Address,
        health: Arc<Health>,
    ) -> Self {
        let context = Arc::new(Context { address, health });
        let (orders, receiver) = mpsc::unbounded_channel();
        let shared = tokio::spawn(follow_shared(context.clone(), settings.tail_mode, receiver));
        Tails {
            context,
            keys,
            mode: settings.tail_mode,
            slots: Arc::new(Slots {
                most: settings.tail_connections,
                used: AtomicUsize::new(0),
            }),
            orders,
            next_id: AtomicU64::new(0),
            _shared: AbortOnDropHandle::new(shared),
        }
    }

    /// Tails a room until the guard is dropped.
    pub(super) fn tail(&self, feed: Arc<dyn Feed>) -> TailGuard {
        let room = Room::new(self.keys.room(feed.room()), feed);
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let slot = match self.mode {
            TailMode::Track => None,
            TailMode::Auto | TailMode::Block => Slots::take(&self.slots),
        };
        if let Some(slot) = slot {
            let (context, orders) = (self.context.clone(), self.orders.clone());
            // Whether the room has gone. Looked at with the order, or a room could join that left.
            let gone = Arc::new(Mutex::new(false));
            let task = tokio::spawn({
                let gone = gone.clone();
                async move {
                    block::follow(&context, &room).await;
                    drop(slot);
                    let gone = gone.lock().unwrap_or_else(PoisonError::into_inner);
                    if !*gone {
                        let _ = orders.send(Order::Join(id, room));
                    }
                }
            });
            let orders = self.orders.clone();
            return TailGuard::new(move || {
                task.abort();
                *gone.lock().unwrap_or_else(PoisonError::into_inner) = true;
                // Of a room that never joined it means nothing.
                let _ = orders.send(Order::Leave(id));
            });
        }
        // The receiver lives as long as `self`.
        let _ = self.orders.send(Order::Join(id, room));
        let orders = self.orders.clone();
        TailGuard::new(move || {
            let _ = orders.send(Order::Leave(id));
        })
    }
}

/// Tails the rooms without a connection of their own.
async fn follow_shared(
    context: Arc<Context>,
    mode: TailMode,
    mut orders: UnboundedReceiver<Order>,
) {
    let mut table = track::Table::default();
    if mode != TailMode::Block {
        match track::follow(&context, &mut orders, &mut table).await {
            track::End::Stopped => return,
            track::End::Refused(error) => {
                tracing::warn!(%error, "no client tracking here; rooms share blocking reads");
            }
        }
    }
    group::dispatch(&context, &mut orders, table.into_rooms()).await;
}

/// How many rooms have a connection of their own.
struct Slots {
    most: usize,
    used: AtomicUsize,
}

impl Slots {
    fn take(self: &Arc<Self>) -> Option<Slot> {
        let more = |used| (used < self.most).then_some(used + 1);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .ok()?;
        Some(Slot(self.clone()))
    }
}

/// One of them; free again when dropped.
struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a room is left alone after an error reply. What somebody must mend is asked for each
/// second; what passes by itself more often.
fn patience(error: &LogError) -> Duration {
    match error {
        LogError::WrongType | LogError::Denied(_) | LogError::Full(_) | LogError::Other(_) => {
            Duration::from_secs(1)
        }
        LogError::Unavailable(_) | LogError::Busy | LogError::Loading | LogError::ReadOnly(_) => {
            Duration::from_millis(200)
        }
    }
}

/// Adds what [`Next`] asks for, without waiting for entries to come. Says how many entries it asks for.
fn add(pipe: &mut Pipeline, room: &Room, next: Next) -> usize {
    let key = room.key.as_ref();
    match next {
        Next::Survey { newest } => {
            // Of a survey that was too much, the follower gets the newest part.
            let newest = room.size(newest);
            // In this order: an entry that comes in between is in the state, not in the entries,
            // so the feed sees that it lacks one.
            pipe.cmd("XREVRANGE").arg(key).arg("+").arg("-");
            pipe.arg("COUNT").arg(newest);
            pipe.cmd("XINFO").arg("STREAM").arg(key);
            newest
        }
        Next::Read { after } => {
            // From the entry before the cursor: the first one returned is the witness.
            let count = room.size(OVERLAP_COUNT);
            pipe.cmd("XREAD").arg("COUNT").arg(count + 1);
            pipe.arg("STREAMS").arg(key);
            pipe.arg(after.predecessor().to_string());
            count
        }
    }
}

/// Hands over the answer to what [`add`] asked, of so many entries. Says whether there is more to be
/// asked for at once.
fn hand_over(
    room: &Room,
    next: Next,
    asked: usize,
    values: &mut impl Iterator<Item = Value>,
) -> Result<bool, LogError> {
    room.answered();
    let feed = room.feed.as_ref();
    let mut value = || values.next().unwrap_or(Value::Nil);
    match next {
        Next::Survey { .. } => {
            let (newest, state) = (value(), value());
            let mut newest = reply::entries(newest)?;
            newest.reverse();
            let state = reply::stream_state(state)?;
            feed.on_survey(Survey { state, newest });
            Ok(true)
        }
        Next::Read { after } => {
            let entries = reply::stream(value())?;
            let full = entries.len() > asked;
            Ok(deliver(feed, overlapped(after, entries)) || full)
        }
    }
}

/// A read that started before the cursor's own entry.
fn overlapped(after: EntryId, mut entries: Vec<Entry>) -> Read {
    let cursor_entry = (after != EntryId::ZERO
        && entries.first().is_some_and(|first| first.id == after))
    .then(|| entries.remove(0));
    Read {
        after,
        cursor_entry,
        entries,
    }
}

/// Hands over a read. Says whether the feed now wants something else than to wait for what follows
/// it.
fn deliver(feed: &dyn Feed, read: Read) -> bool {
    let cursor = read.entries.last().map_or(read.after, |last| last.id);
    feed.on_read(read);
    feed.next() != Next::Read { after: cursor }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(after: EntryId, ids: &[u64]) -> (Option<bool>, Vec<u64>) {
        let entry = |id: &u64| Entry::new(EntryId::new(*id, 0), []);
        let read = overlapped(after, ids.iter().map(entry).collect());
        let ids = read.entries.iter().map(|entry| entry.id.ms).collect();
        (read.cursor_present(), ids)
    }

    #[test]
    fn the_first_entry_is_the_witness() {
        let five = EntryId::new(5, 0);
        assert_eq!(read(five, &[5, 6, 7]), (Some(true), vec![6, 7]));
        assert_eq!(read(five, &[5]), (Some(true), vec![]));
        assert_eq!(read(five, &[6, 7]), (Some(false), vec![6, 7]));
        assert_eq!(read(five, &[]), (Some(false), vec![]));
        assert_eq!(read(EntryId::ZERO, &[6]), (None, vec![6]));
        assert_eq!(read(EntryId::ZERO, &[]), (None, vec![]));
    }

    #[test]
    fn slots_are_free_again() {
        let slots = Arc::new(Slots {
            most: 1,
            used: AtomicUsize::new(0),
        });
        let slot = Slots::take(&slots);
        assert!(slot.is_some());
        assert!(Slots::take(&slots).is_none());
        drop(slot);
        assert!(Slots::take(&slots).is_some());
    }
}
