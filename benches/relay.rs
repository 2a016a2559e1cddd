//! What the relay itself costs, without sockets and without Redis: the log is in memory, and a wire
//! takes whatever it's given. One thread, so that the figures are work and not scheduling.
//!
//! `cargo bench --bench relay`

use std::future::Future;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use tailcast::relay::connection::{Connection, Publish};
use tailcast::relay::entry::{Entry, EntryId, Fields, RoomName};
use tailcast::relay::format::{Format, GapFrame};
use tailcast::relay::hub::{Relay, Settings};
use tailcast::relay::outlet::Wire;
use tailcast::relay::position::Position;
use tailcast::store::memory::{self, MemoryLog};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

/// Bytes of a message: a short chat line as JSON.
const MESSAGE: usize = 100;

/// The same as a WebSocket frame.
const FRAME: usize = MESSAGE + 2;

/// Subscribers of the room that is published to, and entries that a join replays.
const WIRES: usize = 1_000;
const HISTORY: usize = 100;

type Failure = Box<dyn std::error::Error>;

/// Frames as a raw WebSocket gets them.
static RAW: Format = Format {
    slot: 0,
    entry: |_, entry| frame(entry.message()),
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
    close: |_| Bytes::new(),
};

fn frame(payload: &[u8]) -> Bytes {
    let is_text = std::str::from_utf8(payload).is_ok();
    let opcode = if is_text { 0x81 } else { 0x82 };
    let mut out = Vec::with_capacity(2 + payload.len());
    // MESSAGE is below 126, so the length is one byte.
    out.extend_from_slice(&[opcode, payload.len() as u8]);
    out.extend_from_slice(payload);
    out.into()
}

/// Many wires that count together.
#[derive(Default)]
struct Crowd {
    taken: AtomicUsize,
    /// Rings once so much was taken.
    awaited: AtomicUsize,
    bell: Notify,
}

impl Crowd {
    /// Awaits so many more bytes from what `begin` begins.
    async fn take<T>(&self, bytes: usize, begin: impl Future<Output = T>) -> T {
        let awaited = self.taken.load(Ordering::SeqCst) + bytes;
        self.awaited.store(awaited, Ordering::SeqCst);
        let begun = begin.await;
        while self.taken.load(Ordering::SeqCst) < awaited {
            self.bell.notified().await;
        }
        begun
    }
}

/// A socket that is always writable.
struct MockWire(Arc<Crowd>);

impl Wire for MockWire {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let crowd = &self.0;
        let taken = crowd.taken.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        if taken >= crowd.awaited.load(Ordering::SeqCst) {
            crowd.bell.notify_one();
        }
        Ok(bytes.len())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn fields() -> Fields {
    let message = Bytes::from(vec![b'x'; MESSAGE]);
    Box::new([(Bytes::from_static(b"message"), message)])
}

/// A relay over an empty log. To be called inside the runtime.
fn relay() -> Arc<Relay> {
    let log = MemoryLog::new(memory::Settings {
        keep: Some(1_000),
        ..memory::Settings::default()
    });
    Relay::new(Arc::new(log), Settings::default())
}

fn join(
    relay: &Arc<Relay>,
    crowd: &Arc<Crowd>,
    room: &RoomName,
    from: Position,
) -> Result<Connection, Failure> {
    let connection = relay.connect(Arc::new(MockWire(crowd.clone())), &RAW);
    connection.join(room.clone(), from, false, None, Box::new(|_| None))?;
    Ok(connection)
}

/// The first call encodes; the others share what it made.
fn encode(criterion: &mut Criterion, room: &RoomName) {
    let entry = || Entry::new(EntryId::new(1, 0), fields());
    let mut group = criterion.benchmark_group("frame");
    group.bench_function("first", |bencher| {
        bencher.iter_batched_ref(
            entry,
            |entry| entry.frame(room, &RAW),
            BatchSize::SmallInput,
        );
    });
    let encoded = entry();
    encoded.frame(room, &RAW);
    group.bench_function("again", |bencher| {
        bencher.iter(|| black_box(&encoded).frame(room, &RAW));
    });
    group.finish();
}

/// From a publish until every wire of the room has the entry.
fn deliver(criterion: &mut Criterion, runtime: &Runtime, room: &RoomName) -> Result<(), Failure> {
    let crowd = Arc::new(Crowd::default());
    let (relay, connections) = runtime.block_on(async {
        let relay = relay();
        let mut connections = Vec::new();
        for _ in 0..WIRES {
            let connection = join(&relay, &crowd, room, Position::Now)?;
            connection.joined().await;
            connections.push(connection);
        }
        Ok::<_, Failure>((relay, connections))
    })?;
    let mut group = criterion.benchmark_group("deliver");
    group.throughput(Throughput::Elements(WIRES as u64));
    group.bench_function(format!("{WIRES} wires"), |bencher| {
        bencher.iter(|| {
            let publish = relay.publish(Publish::new(room.clone(), fields()));
            runtime.block_on(crowd.take(WIRES * FRAME, publish))
        });
    });
    group.finish();
    drop(connections);
    Ok(())
}

/// From a join until the room's history was written, and the leave. The room stays open in between.
fn replay(criterion: &mut Criterion, runtime: &Runtime, room: &RoomName) -> Result<(), Failure> {
    let relay = runtime.block_on(async {
        let relay = relay();
        for _ in 0..HISTORY {
            relay.publish(Publish::new(room.clone(), fields())).await?;
        }
        Ok::<_, Failure>(relay)
    })?;
    let crowd = Arc::new(Crowd::default());
    let mut group = criterion.benchmark_group("join from start");
    group.throughput(Throughput::Elements(HISTORY as u64));
    group.bench_function(format!("{HISTORY} entries"), |bencher| {
        bencher.iter(|| {
            let begin = async { join(&relay, &crowd, room, Position::Start) };
            let joined = runtime.block_on(crowd.take(HISTORY * FRAME, begin));
            assert!(joined.is_ok());
        });
    });
    group.finish();
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Connections are dropped outside of block_on, too.
    let _inside = runtime.enter();
    let room = RoomName::parse("room")?;
    let mut criterion = Criterion::default().configure_from_args();
    encode(&mut criterion, &room);
    deliver(&mut criterion, &runtime, &room)?;
    replay(&mut criterion, &runtime, &room)?;
    criterion.final_summary();
    Ok(())
}
