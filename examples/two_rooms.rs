//! How long a small room waits for a large one, and what that costs the large one.
//!
//! ```text
//! cargo run --release --example two_rooms -- [large] [seconds] [ms]
//! ```
//!
//! One process, no Redis and no clients: the log is in memory. Each write is a UDP datagram that
//! goes through the kernel over loopback to a socket that nobody reads, so that a write costs about
//! what a real one does, and any number of connections fits into a few descriptors. The large room
//! (20,000 connections) gets its next entry as soon as all its connections have the last one, so
//! that the workers are never idle; the small one (10) gets one every 3 ms. It prints, on one line,
//! the writes in the large room, by second and by second of this process's CPU time (on Linux), and how
//! long entries took, from the publish to the last write, in the small one.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tailcast::relay::connection::{Connection, Publish};
use tailcast::relay::entry::{Fields, RoomName};
use tailcast::relay::format::{Format, GapFrame};
use tailcast::relay::hub::{Relay, Settings};
use tailcast::relay::outlet::Wire;
use tailcast::relay::position::Position;
use tailcast::store::memory::{self, MemoryLog};
use tokio::sync::Notify;

/// Connections of the small room.
const SMALL: usize = 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

static RAW: Format = Format {
    slot: 0,
    entry: |_, entry| entry.message().clone(),
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
    close: |_| Bytes::new(),
};

/// The connections of one room count together.
struct Crowd {
    socket: UdpSocket,
    written: AtomicUsize,
    awaited: AtomicUsize,
    bell: Notify,
}

impl Crowd {
    fn new(sink: &UdpSocket) -> io::Result<Arc<Self>> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(sink.local_addr()?)?;
        Ok(Arc::new(Crowd {
            socket,
            written: AtomicUsize::new(0),
            awaited: AtomicUsize::new(usize::MAX),
            bell: Notify::new(),
        }))
    }

    /// Waits until there were so many writes more than when `begin` began.
    async fn take<T>(&self, writes: usize, begin: impl Future<Output = T>) -> T {
        let awaited = self.written.load(Ordering::SeqCst) + writes;
        self.awaited.store(awaited, Ordering::SeqCst);
        let begun = begin.await;
        while self.written.load(Ordering::SeqCst) < awaited {
            self.bell.notified().await;
        }
        begun
    }
}

struct Datagrams(Arc<Crowd>);

impl Wire for Datagrams {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let crowd = &self.0;
        let written = crowd.socket.send(bytes)?;
        let writes = crowd.written.fetch_add(1, Ordering::SeqCst) + 1;
        if writes == crowd.awaited.load(Ordering::SeqCst) {
            crowd.bell.notify_one();
        }
        Ok(written)
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn fields() -> Fields {
    let message = Bytes::from_static(&[b'x'; 100]);
    Box::new([(Bytes::from_static(b"message"), message)])
}

async fn fill(
    relay: &Arc<Relay>,
    room: &RoomName,
    crowd: &Arc<Crowd>,
    count: usize,
) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        let connection = relay.connect(Arc::new(Datagrams(crowd.clone())), &RAW);
        connection.join(room.clone(), Position::Now, false, None, Box::new(|_| None))?;
        connection.joined().await;
        connections.push(connection);
    }
    Ok(connections)
}

/// CPU time of this process so far, in seconds; not a number where there is no `/proc`. Linux counts
/// it in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in parentheses, may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks: Option<f64> = times.map(|ticks| ticks.parse::<f64>().ok()).sum();
    ticks.filter(|ticks| *ticks > 0.0).unwrap_or(f64::NAN) / 100.0
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let large_size = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let every = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let log = MemoryLog::new(memory::Settings {
        keep: Some(1_000),
        ..memory::Settings::default()
    });
    let relay = Relay::new(Arc::new(log), Settings::default());
    let sink = UdpSocket::bind("127.0.0.1:0")?;
    let (large, small) = (RoomName::parse("large")?, RoomName::parse("small")?);
    let (many, few) = (Crowd::new(&sink)?, Crowd::new(&sink)?);
    let _large = fill(&relay, &large, &many, large_size).await?;
    let _small = fill(&relay, &small, &few, SMALL).await?;

    let cpu_before = cpu_seconds();
    let end = Instant::now() + Duration::from_secs(seconds);
    let busy = tokio::spawn({
        let (relay, many) = (relay.clone(), many.clone());
        async move {
            let begun = Instant::now();
            let mut writes = 0;
            while Instant::now() < end {
                let publish = relay.publish(Publish::new(large.clone(), fields()));
                many.take(large_size, publish).await?;
                writes += large_size;
            }
            Ok::<_, Failure>((writes as f64, begun.elapsed().as_secs_f64()))
        }
    });
    let mut took = Vec::new();
    let mut next = tokio::time::interval(Duration::from_millis(every));
    while Instant::now() < end {
        next.tick().await;
        let began = Instant::now();
        let publish = relay.publish(Publish::new(small.clone(), fields()));
        few.take(SMALL, publish).await?;
        took.push(began.elapsed());
    }
    let (writes, lasted) = busy.await??;
    let rate = writes / lasted;
    let by_cpu = writes / (cpu_seconds() - cpu_before);
    took.sort_unstable();
    let of = |part: f64| {
        let at = (took.len() as f64 * part) as usize;
        took.get(at).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    println!(
        "large: {rate:.0} writes/s, {by_cpu:.0} by CPU second; small: {} entries, p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
        took.len(),
        of(0.5),
        of(0.99),
        of(1.0 - f64::EPSILON),
    );
    Ok(())
}
