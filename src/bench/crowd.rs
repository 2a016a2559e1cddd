//! The sockets: few threads own many, and each thread reads all of its sockets into one buffer, so
//! that the client costs a fraction of the server it measures.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Proto;
use super::frames::{Control, Frames, client_frame};
use super::marker::{CARRY, Search};
use super::socket::{Request, Target, open};
use super::tally::{Histogram, Tally};

/// One read's worth, shared by all sockets of a thread.
const BUFFER: usize = 64 * 1024;

/// What one socket is to do.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) room: usize,
    pub(super) path: String,
    pub(super) target: usize,
    /// Never read from, once open.
    pub(super) stalled: bool,
    /// Its writing half is handed out to publish through.
    pub(super) writes: bool,
}

/// What all sockets have in common.
pub(super) struct Common {
    pub(super) targets: Vec<Target>,
    pub(super) rooms: Arc<[String]>,
    pub(super) proto: Proto,
    pub(super) subprotocol: Option<&'static str>,
    /// Whether a ping is answered once a raw socket is in its room, and only then.
    pub(super) answers_when_joined: bool,
    /// Whether the IDs are looked for that sockets come back with.
    pub(super) resumes: bool,
    pub(super) epoch: Instant,
    pub(super) parallel: usize,
    pub(super) sockets: usize,
}

/// Figures that change while the sockets run.
pub(super) struct Live {
    delivered: Vec<AtomicU64>,
    disconnected: AtomicU64,
    /// Only entries sent in here count for the latencies.
    pub(super) measure_from: AtomicU64,
    pub(super) measure_until: AtomicU64,
}

impl Live {
    /// Deliveries so far.
    pub(super) fn delivered(&self) -> u64 {
        self.delivered.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Sockets that the server, or an error, has ended so far.
    pub(super) fn disconnected(&self) -> u64 {
        self.disconnected.load(Relaxed)
    }
}

/// What one socket saw.
pub(super) struct Seen {
    pub(super) room: usize,
    pub(super) stalled: bool,
    pub(super) tally: Tally,
    pub(super) last_id: Option<String>,
    /// When its last delivery came, in nanoseconds since the epoch.
    pub(super) last_at: u64,
    carry: [u8; CARRY],
    carried: usize,
    frames: Frames,
}

/// What one thread's sockets saw.
pub(super) struct Sight {
    pub(super) sockets: Vec<Seen>,
    pub(super) latency: Histogram,
    /// Close codes that came.
    pub(super) closes: BTreeMap<u16, u64>,
    search: Search,
    buffer: Box<[u8]>,
}

thread_local! {
    static SIGHT: RefCell<Option<Sight>> = const { RefCell::new(None) };
}

type Ready = Result<Option<(usize, OwnedWriteHalf)>>;

/// All sockets, open or opening.
pub(super) struct Crowd {
    threads: Vec<JoinHandle<Result<Sight>>>,
    stop: CancellationToken,
    ready: mpsc::UnboundedReceiver<Ready>,
    expected: usize,
    pub(super) live: Arc<Live>,
}

impl Crowd {
    /// Begins to open the sockets, shared out evenly among `threads`.
    pub(super) fn open(common: Arc<Common>, plans: &[Plan], threads: usize) -> Result<Self> {
        let live = Arc::new(Live {
            delivered: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            disconnected: AtomicU64::new(0),
            measure_from: AtomicU64::new(u64::MAX),
            measure_until: AtomicU64::new(u64::MAX),
        });
        let stop = CancellationToken::new();
        let (opened, ready) = mpsc::unbounded_channel();
        let limit = Arc::new(Semaphore::new(common.parallel));
        let mut handles = Vec::new();
        for thread in 0..threads {
            let mine: Vec<(usize, Plan)> = plans
                .iter()
                .cloned()
                .enumerate()
                .skip(thread)
                .step_by(threads)
                .collect();
            let seat = Seat {
                thread,
                common: common.clone(),
                live: live.clone(),
                opened: opened.clone(),
                limit: limit.clone(),
            };
            let stop = stop.clone();
            handles.push(
                std::thread::Builder::new()
                    .name(format!("sockets-{thread}"))
                    .spawn(move || seat.run(mine, &stop))?,
            );
        }
        Ok(Crowd {
            threads: handles,
            stop,
            ready,
            expected: plans.len(),
            live,
        })
    }

    /// Waits until all are open. Returns the writing halves asked for, by room.
    pub(super) async fn opened(
        &mut self,
        mut progress: impl FnMut(usize),
    ) -> Result<BTreeMap<usize, OwnedWriteHalf>> {
        let mut writers = BTreeMap::new();
        let mut failures = 0;
        let mut first = None;
        for count in 1..=self.expected {
            match self.ready.recv().await {
                Some(Ok(writer)) => writers.extend(writer),
                Some(Err(error)) => {
                    failures += 1;
                    first.get_or_insert(error);
                }
                None => bail!("a socket thread ended early"),
            }
            progress(count);
        }
        match first {
            Some(error) => Err(error.context(format!(
                "{failures} of {} sockets did not open",
                self.expected
            ))),
            None => Ok(writers),
        }
    }

    /// Cuts all sockets and collects what they saw.
    pub(super) async fn cut(self) -> Result<Vec<Sight>> {
        self.stop.cancel();
        let threads = self.threads;
        tokio::task::spawn_blocking(move || {
            threads
                .into_iter()
                .map(|thread| match thread.join() {
                    Ok(sight) => sight,
                    Err(_) => bail!("a socket thread panicked"),
                })
                .collect()
        })
        .await?
    }
}

/// One thread's part.
struct Seat {
    thread: usize,
    common: Arc<Common>,
    live: Arc<Live>,
    opened: mpsc::UnboundedSender<Ready>,
    limit: Arc<Semaphore>,
}

impl Seat {
    fn run(self, plans: Vec<(usize, Plan)>, stop: &CancellationToken) -> Result<Sight> {
        let sight = Sight {
            sockets: plans.iter().map(|(_, plan)| Seen::new(plan)).collect(),
            latency: Histogram::new(),
            closes: BTreeMap::new(),
            search: Search::new(),
            buffer: vec![0; CARRY + BUFFER].into(),
        };
        SIGHT.set(Some(sight));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let seat = Arc::new(self);
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for (slot, (number, plan)) in plans.into_iter().enumerate() {
                tasks.spawn(seat.clone().socket(slot, number, plan));
            }
            stop.cancelled().await;
            tasks.shutdown().await;
        });
        SIGHT.take().context("the thread's figures are gone")
    }

    async fn socket(self: Arc<Self>, slot: usize, number: usize, plan: Plan) {
        let common = &self.common;
        let permit = self.limit.acquire().await;
        let target = &common.targets[plan.target];
        let opened = open(&Request {
            target,
            source: target.source(number, common.sockets),
            path: &plan.path,
            subprotocol: common.subprotocol,
            proto: common.proto,
            answers_when_joined: common.answers_when_joined,
            room: &common.rooms[plan.room],
        })
        .await;
        drop(permit);
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let _ = self.opened.send(Err(error));
                return;
            }
        };
        let (mut read, write) = opened.stream.into_split();
        if plan.writes {
            let _ = self.opened.send(Ok(Some((plan.room, write))));
        } else {
            write.forget();
            let _ = self.opened.send(Ok(None));
        }
        if plan.stalled {
            // The socket stays open and is never read from.
            let () = pending().await;
        }
        SIGHT.with_borrow_mut(|sight| {
            if let Some(sight) = sight {
                for part in opened.frames.chunks(BUFFER) {
                    sight.buffer[CARRY..CARRY + part.len()].copy_from_slice(part);
                    self.take(sight, slot, part.len(), &read);
                }
            }
        });
        let ended = poll_fn(|cx| {
            SIGHT.with_borrow_mut(|sight| match sight {
                Some(sight) => self.read(sight, slot, &mut read, cx),
                None => Poll::Ready(Ok(())),
            })
        })
        .await;
        // Whether it was an error or the other side's wish makes no difference here: it's gone.
        let _: io::Result<()> = ended;
        self.live.disconnected.fetch_add(1, Relaxed);
    }

    /// Reads until there is nothing more. A short read tells tokio so without another syscall.
    fn read(
        &self,
        sight: &mut Sight,
        slot: usize,
        read: &mut OwnedReadHalf,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut buffer = ReadBuf::new(&mut sight.buffer[CARRY..]);
            std::task::ready!(Pin::new(&mut *read).poll_read(cx, &mut buffer))?;
            let length = buffer.filled().len();
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            self.take(sight, slot, length, read);
        }
    }

    /// Counts what lies in the buffer.
    fn take(&self, sight: &mut Sight, slot: usize, length: usize, read: &OwnedReadHalf) {
        let Sight {
            sockets,
            latency,
            closes,
            search,
            buffer,
        } = sight;
        let seen = &mut sockets[slot];
        let now = self.common.epoch.elapsed().as_nanos() as u64;
        let proto = self.common.proto;

        let is_engine = matches!(proto, Proto::Socketio | Proto::SocketioAdapter);
        // Events are not in frames.
        if proto != Proto::Sse {
            seen.frames
                .walk(&buffer[CARRY..CARRY + length], |control| match control {
                    Control::Ping(payload) => reply(read, 10, &payload),
                    Control::EnginePing if is_engine => reply(read, 1, b"3"),
                    Control::EnginePing => {}
                    Control::Close(code) => *closes.entry(code).or_default() += 1,
                });
        }

        let begin = CARRY - seen.carried;
        buffer[begin..CARRY].copy_from_slice(&seen.carry[..seen.carried]);
        let bytes = &buffer[begin..CARRY + length];
        let from = self.live.measure_from.load(Relaxed);
        let until = self.live.measure_until.load(Relaxed);
        let mut count = 0;
        let keep = search.markers(bytes, |marker| {
            count += 1;
            seen.tally.take(marker.sequence);
            if (from..until).contains(&marker.sent) {
                latency.record(now.saturating_sub(marker.sent));
            }
        });
        if self.common.resumes
            && let Some(id) = search.last_id(bytes)
        {
            seen.last_id = Some(String::from_utf8_lossy(id).into_owned());
        }
        if proto == Proto::Nats && memmem::find(bytes, b"PING\r\n").is_some() {
            reply(read, 2, b"PONG\r\n");
        }
        seen.carried = keep;
        seen.carry[..keep].copy_from_slice(&bytes[bytes.len() - keep..]);
        if count > 0 {
            seen.last_at = now;
            self.live.delivered[self.thread].fetch_add(count, Relaxed);
        }
    }
}

/// Answers a ping. The kernel's buffer is empty but for such answers, so that one write takes it,
/// except on a socket that is being published through, and those outrun no server's pings.
fn reply(read: &OwnedReadHalf, opcode: u8, payload: &[u8]) {
    let _ = read.as_ref().try_write(&client_frame(opcode, payload));
}

impl Seen {
    fn new(plan: &Plan) -> Self {
        Seen {
            room: plan.room,
            stalled: plan.stalled,
            tally: Tally::default(),
            last_id: None,
            last_at: 0,
            carry: [0; CARRY],
            carried: 0,
            frames: Frames::default(),
        }
    }
}
