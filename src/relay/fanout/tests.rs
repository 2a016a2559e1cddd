//! Rooms have turns at a worker, and in each of them all comes in order.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::*;
use crate::relay::connection::{Connection, Publish};
use crate::relay::entry::RoomName;
use crate::relay::format::GapFrame;
use crate::relay::hub::{Relay, Settings};
use crate::relay::outlet::Wire;
use crate::relay::position::Position;
use crate::store::memory::MemoryLog;

/// Sockets of the large room: some eighty chunks.
const LARGE: usize = 5_000;

static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| [entry.message(), &b";"[..]].concat().into(),
    gap: |_, _| GapFrame::Close,
    aside: |aside| Some([aside.json(), &b";"[..]].concat().into()),
    close: |_| Bytes::new(),
};

/// What the sockets of a room took, and how many writes that were.
#[derive(Default)]
struct Taken {
    writes: AtomicUsize,
    texts: Mutex<Vec<String>>,
}

impl Taken {
    fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }
}

/// A socket, and whether it keeps what it's given.
struct Tap(Arc<Taken>, bool);

impl Wire for Tap {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        if self.1 {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.texts.lock().unwrap().push(text);
        }
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        Ok(bytes.len())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn name(room: &str) -> RoomName {
    RoomName::parse(room).unwrap()
}

async fn enter(relay: &Arc<Relay>, room: &str, taken: &Arc<Taken>, keeps: bool) -> Connection {
    let connection = relay.connect(Arc::new(Tap(taken.clone(), keeps)), &FORMAT);
    let join = connection.join(name(room), Position::Now, false, None, Box::new(|_| None));
    join.unwrap();
    connection.joined().await;
    connection
}

async fn publish(relay: &Relay, room: &str, text: &'static str) {
    let fields = Box::new([(Bytes::from("message"), Bytes::from(text))]);
    let publish = Publish::new(name(room), fields);
    relay.publish(publish).await.unwrap();
}

/// Lets the other tasks run until this holds.
async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    let came = tokio::time::timeout(std::time::Duration::from_secs(60), wait).await;
    assert!(came.is_ok(), "it has not come to this within a minute");
}

#[tokio::test]
async fn a_small_room_does_not_wait_for_a_large_one() {
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let relay = Relay::new(Arc::new(MemoryLog::new(Default::default())), settings);
    let (large, small) = (Arc::<Taken>::default(), Arc::<Taken>::default());
    let mut connections = Vec::new();
    for _ in 0..LARGE {
        connections.push(enter(&relay, "large", &large, false).await);
    }
    connections.push(enter(&relay, "small", &small, true).await);
    let tell = |text: &'static str| relay.tell(&name("large"), Arc::new(Aside::new("test", text)));

    // A pass, and a crowd of asides behind one another.
    publish(&relay, "large", "entry").await;
    until(|| large.writes() > 0).await;
    for (many, text) in [(0, "during a pass"), (50, "during asides")] {
        for _ in 0..many {
            tell("aside");
        }
        let (before, had) = (large.writes(), small.writes());
        publish(&relay, "small", text).await;
        until(|| small.writes() > had).await;
        assert_eq!(small.texts().last(), Some(&format!("{text};")));
        let meanwhile = large.writes() - before;
        assert!(meanwhile <= 10 * CHUNK, "{meanwhile} writes before it");
    }
    // Nobody in the large room was passed over.
    until(|| large.writes() == 51 * LARGE).await;
}

/// An entry that comes while an aside goes round must not come before that, nor the other way.
#[tokio::test]
async fn in_one_room_all_comes_in_the_order_it_was_asked_for() {
    let settings = Settings {
        workers: 1,
        ..Settings::default()
    };
    let relay = Relay::new(Arc::new(MemoryLog::new(Default::default())), settings);
    let (taken, last) = (Arc::<Taken>::default(), Arc::<Taken>::default());
    let mut connections = Vec::new();
    for _ in 0..LARGE {
        connections.push(enter(&relay, "r", &taken, false).await);
    }
    // Its seat is the last one, so that all others have had their turn before it.
    connections.push(enter(&relay, "r", &last, true).await);
    let mut want = Vec::new();
    for round in 0..5 {
        let text = format!("aside {round}");
        relay.tell(&name("r"), Arc::new(Aside::new("test", text.clone())));
        publish(&relay, "r", "entry").await;
        want.extend([text + ";", "entry;".to_owned()]);
        until(|| last.writes() >= want.len()).await;
        assert_eq!(last.texts(), want);
        assert_eq!(taken.writes(), want.len() * LARGE);
    }
}
