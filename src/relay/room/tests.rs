//! What a room holds, and for how long.

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use super::*;
use crate::relay::format::GapFrame;
use crate::relay::hub::{Relay, Settings};
use crate::relay::outlet::Wire;
use crate::relay::position::Position;
use crate::relay::slow_log::SlowLog;
use crate::store::memory::MemoryLog;

const SLOW: Duration = Duration::from_millis(300);
const LINGER: Duration = Duration::from_secs(2);

static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| entry.message().clone(),
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
    close: |_| Bytes::new(),
};

/// A socket that takes everything.
struct Sink;

impl Wire for Sink {
    fn try_write(&self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn poll_writable(
        &self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// A room of 200 entries of 2 KB, none of which has an odd sequence number, and a relay that has
/// lately become slow to read it.
async fn slow_room() -> (Arc<Relay>, Arc<SlowLog<MemoryLog>>, RoomName) {
    let log = Arc::new(SlowLog::new(MemoryLog::new(Default::default())));
    let room = RoomName::parse("x").unwrap();
    for ms in 1_000..1_200 {
        let fields = [(Bytes::from("message"), Bytes::from(vec![b'x'; 2_000]))];
        let added = log.log.append_with_id(&room, EntryId::new(ms, 0), fields);
        added.unwrap();
    }
    let settings = Settings {
        linger: LINGER,
        ..Settings::default()
    };
    (Relay::new(log.clone(), settings), log, room)
}

/// Waits until the relay has let go of the room.
async fn retired(relay: &Relay) {
    sleep(LINGER + SLOW + Duration::from_secs(2)).await;
    assert_eq!((relay.stats().rooms.value(), relay.window_bytes()), (0, 0));
}

/// In the window's range, but not in the stream.
const UNKNOWN: Position = Position::After(EntryId::new(1_005, 1));

#[tokio::test(start_paused = true)]
async fn a_join_that_is_given_up_leaves_nothing_of_its_room() {
    let (relay, log, room) = slow_room().await;
    for from in [
        UNKNOWN,
        Position::After(EntryId::new(1_000, 1)),
        Position::After(EntryId::ZERO),
        Position::Last(500),
        Position::Start,
    ] {
        log.set_delay(Duration::ZERO);
        let inside = relay.listen(&room, Position::Last(150)).await.unwrap();
        log.set_delay(SLOW);
        let joining = timeout(SLOW / 6, relay.listen(&room, from)).await;
        // Others are found in the window, and need no read.
        assert!(from != UNKNOWN || joining.is_err());
        drop((joining, inside));
        retired(&relay).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_joins_and_leaves_leaves_nothing_of_its_rooms() {
    let (relay, log, room) = slow_room().await;
    let inside = relay.listen(&room, Position::Last(150)).await.unwrap();
    log.set_delay(SLOW);
    let connection = relay.connect(Arc::new(Sink), &FORMAT);
    for _ in 0..600 {
        let joined = connection.join(room.clone(), UNKNOWN, false, None, Box::new(|_| None));
        joined.unwrap();
        sleep(Duration::from_millis(1)).await;
        assert!(connection.leave(&room));
    }
    drop(inside);
    retired(&relay).await;
}

/// A tail wakes the workers while it holds the room's state, which a pass needs to begin.
#[test]
fn a_worker_that_begins_a_pass_keeps_no_tail_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (relay, _log, name) = runtime.block_on(slow_room());
    let connection = relay.connect(Arc::new(Sink), &FORMAT);
    runtime.block_on(async {
        let join = connection.join(name.clone(), Position::Now, false, None, Box::new(|_| None));
        join.unwrap();
        connection.joined().await;
    });
    let room = relay.registry().find(&name).unwrap();
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let state = room.state();
        room.shared.fanout.wake(&room);
        // The worker comes to the state meanwhile, and waits for it.
        std::thread::sleep(Duration::from_millis(300));
        room.shared.fanout.wake(&room);
        drop(state);
        let _ = sender.send(());
    });
    let woken = done.recv_timeout(Duration::from_secs(60));
    runtime.shutdown_background();
    if woken.is_err() {
        // Dropped, they would wait, too.
        std::mem::forget((connection, relay));
        panic!("the tail and the worker wait for each other");
    }
}
