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

/// What a listener hears of a room until this entry: gaps as `<after before reason>`.
async fn heard(relay: &Arc<Relay>, from: EntryId, last: &str) -> String {
    let room = RoomName::parse("r").unwrap();
    let mut listener = relay.listen(&room, Position::After(from)).await.unwrap();
    let mut heard = Vec::new();
    while heard.last().is_none_or(|text| text != last) {
        let next = timeout(Duration::from_secs(60), listener.next()).await;
        heard.push(match next {
            Ok(Heard::Entry(entry)) => String::from_utf8_lossy(entry.message()).into_owned(),
            Ok(Heard::Gap(gap)) => format!("<{} {} {:?}>", gap.after, gap.before, gap.reason),
            Err(_) => panic!("nothing comes after {heard:?}"),
        });
    }
    heard.join(" ")
}

/// A replica that lags behind takes over, and its clock is behind as well: what is new has lower IDs
/// than what is lost.
#[tokio::test(start_paused = true)]
async fn a_lost_id_goes_on_where_live_sockets_went_on() {
    // A window that has all, and one that has dropped where the stream lost its end.
    for entries in [1_000, 2] {
        let clock = Arc::new(AtomicU64::new(0));
        let log = MemoryLog::with_clock(Default::default(), {
            let clock = clock.clone();
            move || clock.load(Ordering::Relaxed)
        });
        let log = Arc::new(log);
        let mut settings = crate::relay::hub::Settings::default();
        settings.window.entries = entries;
        let relay = Relay::new(log.clone(), settings.clone());
        let room = RoomName::parse("r").unwrap();
        let add = async |text, ms| {
            clock.store(ms, Ordering::Relaxed);
            publish(&relay, text).await
        };
        let a = add("a", 1_000).await;
        let c = add("c", 5_000).await;
        let mut live = relay.listen(&room, Position::After(c)).await.unwrap();
        let d = add("d", 9_000).await;
        let e = add("e", 10_000).await;
        for _ in [d, e] {
            assert!(matches!(live.next().await, Heard::Entry(_)));
        }
        log.rewind(&room, c);
        add("1", 6_000).await;
        let second = add("2", 6_001).await;
        assert!(matches!(live.next().await, Heard::Gap(gap) if gap.after == e));
        let gap = |after: EntryId| format!("<{after} 5000-1 Rewound>");

        // Both IDs are above all there is.
        for lost in [d, e] {
            let want = gap(lost) + " 1 2";
            assert_eq!(heard(&relay, lost, "2").await, want);
        }
        // The stream has grown past one of them.
        add("3", 9_500).await;
        add("4", 9_501).await;
        for lost in [d, e] {
            let want = gap(lost) + " 1 2 3 4";
            assert_eq!(heard(&relay, lost, "4").await, want, "{entries}");
        }
        // Whose ID is there misses nothing, and is told so; also if it was there.
        assert_eq!(heard(&relay, c, "4").await, "1 2 3 4");
        assert_eq!(heard(&relay, second, "4").await, "3 4");
        if entries > 2 {
            relay.remove(&room, vec![second]).await.unwrap();
            assert_eq!(heard(&relay, second, "4").await, "3 4");
            add("2", 9_502).await;
        }

        // A node that was not there can't know since when the stream is another.
        let fresh = Relay::new(log, settings);
        let newest = add("5", 9_503).await;
        let all = match entries {
            2 => "a c 1 2 3 4 5",
            _ => "a c 1 3 4 2 5",
        };
        let first = EntryId::new(1_000, 0);
        assert_eq!(a, first);
        let want = format!("<{e} {first} Rewound> {all}");
        assert_eq!(heard(&fresh, e, "5").await, want);
        assert!(newest < e);
    }
}
