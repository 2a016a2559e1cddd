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

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use redis::{Pipeline, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio_util::task::AbortOnDropHandle;

use super::connect::Address;
use super::health::Health;
use super::keys::Keys;
use super::{Settings, TailMode, reply};
use crate::relay::entry::{Entry, EntryId};
use crate::relay::log::{Feed, LogError, Next, Read, Survey, TailGuard};

/// Entries per stream in a read that starts at the cursor's own entry: that one and 100 more.
const OVERLAP_COUNT: usize = 101;

/// What all tails of one Redis share.
struct Context {
    address: Address,
    health: Arc<Health>,
}

/// A room that is tailed.
struct Room {
    key: Bytes,
    feed: Arc<dyn Feed>,
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
        let room = Room {
            key: self.keys.room(feed.room()),
            feed,
        };
        let slot = match self.mode {
            TailMode::Track => None,
            TailMode::Auto | TailMode::Block => Slots::take(&self.slots),
        };
        if let Some(slot) = slot {
            let context = self.context.clone();
            let task = tokio::spawn(async move {
                let _slot = slot;
                block::follow(&context, &room).await;
            });
            return TailGuard::new(move || task.abort());
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
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

/// Adds what [`Next`] asks for, without waiting for entries to come.
fn add(pipe: &mut Pipeline, key: &[u8], next: Next) {
    match next {
        Next::Survey { newest } => {
            // In this order: an entry that comes in between is in the state, not in the entries,
            // so the feed sees that it lacks one.
            pipe.cmd("XREVRANGE").arg(key).arg("+").arg("-");
            pipe.arg("COUNT").arg(newest);
            pipe.cmd("XINFO").arg("STREAM").arg(key);
        }
        Next::Read { after } => {
            // From the entry before the cursor: the first one returned is the witness.
            pipe.cmd("XREAD").arg("COUNT").arg(OVERLAP_COUNT);
            pipe.arg("STREAMS").arg(key);
            pipe.arg(after.predecessor().to_string());
        }
    }
}

/// Hands over the answer to what [`add`] asked. Says whether there is more to be asked for at once.
fn hand_over(
    feed: &dyn Feed,
    next: Next,
    values: &mut impl Iterator<Item = Value>,
) -> Result<bool, LogError> {
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
            let full = entries.len() >= OVERLAP_COUNT;
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
