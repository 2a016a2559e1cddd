//! Joins while the tail lags behind, which here takes its steps when told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::*;
use crate::relay::connection::Publish;
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::hub::Relay;
use crate::relay::listener::Heard;
use crate::relay::log::{Append, Feed, Log, Next, Read, StreamState, Survey, TailGuard};
use crate::store::memory::MemoryLog;

/// A log whose tail is stepped by hand.
struct ByHand {
    log: MemoryLog,
    feed: Mutex<Option<Arc<dyn Feed>>>,
}

impl ByHand {
    fn feed(&self) -> Arc<dyn Feed> {
        let feed = self.feed.lock().unwrap();
        feed.clone().expect("a room is open")
    }

    /// Goes on until the feed stands behind this entry.
    async fn step_to(&self, id: EntryId) {
        while self.feed().next() != (Next::Read { after: id }) {
            self.step().await;
        }
    }

    /// Does what the feed says next.
    async fn step(&self) {
        let feed = self.feed();
        let room = feed.room().clone();
        let all = |newest_first, from| Range {
            from,
            to: Bound::Unbounded,
            limit: 100,
            newest_first,
        };
        match feed.next() {
            Next::Survey { .. } => {
                let newest = self.log.range(&room, all(false, Bound::Unbounded));
                let newest = newest.await.unwrap();
                let state = self.log.state(&room).await.unwrap();
                feed.on_survey(Survey { state, newest });
            }
            Next::Read { after } => {
                let at = Range {
                    from: Bound::Included(after),
                    to: Bound::Included(after),
                    ..all(false, Bound::Unbounded)
                };
                let entries = self.log.range(&room, all(false, Bound::Excluded(after)));
                let entries = entries.await.unwrap();
                let cursor_entry = self.log.range(&room, at).await.unwrap().pop();
                feed.on_read(Read {
                    after,
                    cursor_entry,
                    entries,
                });
            }
        }
    }
}

impl Log for ByHand {
    fn append(&self, append: Append) {
        self.log.append(append);
    }

    fn range(
        &self,
        room: &RoomName,
        range: Range,
    ) -> BoxFuture<'static, Result<Vec<Entry>, LogError>> {
        self.log.range(room, range)
    }

    fn state(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<StreamState>, LogError>> {
        self.log.state(room)
    }

    fn remove(
        &self,
        room: &RoomName,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<u64, LogError>> {
        Log::remove(&self.log, room, ids)
    }

    fn tail(&self, feed: Arc<dyn Feed>) -> TailGuard {
        *self.feed.lock().unwrap() = Some(feed);
        TailGuard::new(|| {})
    }

    fn health(&self) -> Result<(), LogError> {
        Ok(())
    }
}

async fn publish(relay: &Relay, text: &'static str) -> EntryId {
    let fields = Box::new([(Bytes::from("message"), Bytes::from(text))]);
    let room = RoomName::parse("r").unwrap();
    relay.publish(Publish::new(room, fields)).await.unwrap()
}

/// Somebody has an ID of the stream that was deleted. The new one has an entry already, which the
/// tail has yet to come to.
#[tokio::test(start_paused = true)]
async fn a_stream_begun_anew_is_told_though_the_tail_has_not_come_to_it() {
    let clock = AtomicU64::new(1_000);
    let log = Arc::new(ByHand {
        log: MemoryLog::with_clock(Default::default(), move || {
            clock.fetch_add(10, Ordering::Relaxed)
        }),
        feed: Mutex::default(),
    });
    let relay = Relay::new(log.clone(), Default::default());
    let room = RoomName::parse("r").unwrap();
    let old = publish(&relay, "old").await;
    let stepping = tokio::spawn({
        let log = log.clone();
        async move {
            sleep(Duration::from_millis(1)).await;
            log.step().await;
        }
    });
    let mut first = relay.listen(&room, Position::After(old)).await.unwrap();
    stepping.await.unwrap();
    assert!(log.log.delete(&room));
    log.step_to(EntryId::ZERO).await;
    let new = publish(&relay, "new").await;
    assert!(new > old);
    let joining = tokio::spawn({
        let (relay, room) = (relay.clone(), room.clone());
        async move { relay.listen(&room, Position::After(old)).await.unwrap() }
    });
    sleep(Duration::from_secs(1)).await;
    log.step_to(new).await;
    let mut second = joining.await.unwrap();
    for listener in [&mut first, &mut second] {
        let heard = listener.next().await;
        let Heard::Gap(gap) = &heard else {
            panic!("{heard:?}");
        };
        assert_eq!((gap.after, gap.reason), (old, GapReason::Deleted));
        let heard = listener.next().await;
        assert!(
            matches!(&heard, Heard::Entry(entry) if entry.id == new),
            "{heard:?}"
        );
    }
}
