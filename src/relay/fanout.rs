//! Fan-out: few workers, many sockets.
//!
//! Each connection belongs to one worker. When a room has something new, each worker with
//! subscribers in it makes a pass over them and writes to every socket what it has not seen, by
//! hand, in a plain loop. A task woken per socket and entry costs three to four times as much; and
//! because whatever piled up during one pass goes out in one write in the next, a node that falls
//! behind catches up by itself.
//!
//! A socket that would block is left to a task of its own (`Outlet::drain`) until it's level again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::mpsc;

use super::aside::{Aside, Audience};
use super::batch::{Memo, Pending};
use super::cursor::Cursor;
use super::format::Format;
use super::outlet::Outlet;
use super::room::Room;
use super::stats::Tally;

/// Sockets written to before a pass lets other tasks run: well under a millisecond.
const CHUNK: usize = 64;

/// Asides of one room that wait for a worker. More than that, and those that may be shed are.
const ASIDES: usize = 32;

/// The workers.
pub(super) struct Fanout {
    workers: Box<[mpsc::UnboundedSender<Work>]>,
    turn: AtomicUsize,
}

/// What a worker does next.
enum Work {
    /// The room's stream has something new.
    Pass(Arc<Room>),
    /// The room is told something beside its stream.
    Aside(Arc<Room>, Arc<Aside>),
}

/// One room's subscribers that belong to one worker.
#[derive(Default)]
pub(super) struct Seats {
    members: Mutex<Slab<Arc<Outlet>>>,
    /// Whether the room is queued at the worker.
    queued: AtomicBool,
    /// Asides queued at the worker.
    asides: AtomicUsize,
}

impl Fanout {
    /// Starts so many workers on the current runtime. They end when this is dropped.
    pub(super) fn start(workers: usize) -> Self {
        let workers = (0..workers.max(1))
            .map(|worker| {
                let (sender, rooms) = mpsc::unbounded_channel();
                tokio::spawn(work(worker, rooms));
                sender
            })
            .collect();
        Fanout {
            workers,
            turn: AtomicUsize::new(0),
        }
    }

    /// The worker for a new connection: each in turn.
    pub(super) fn assign(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % self.workers.len()
    }

    /// Seats for a new room.
    pub(super) fn seats(&self) -> Box<[Seats]> {
        self.workers.iter().map(|_| Seats::default()).collect()
    }

    /// The room has something new for its subscribers.
    pub(super) fn wake(&self, room: &Arc<Room>) {
        for (worker, seats) in self.workers.iter().zip(room.seats.iter()) {
            if !seats.is_empty() && !seats.queued.swap(true, Ordering::AcqRel) {
                // It fails only when the runtime shuts down.
                let _ = worker.send(Work::Pass(room.clone()));
            }
        }
    }

    /// The room is told something beside its stream.
    pub(super) fn tell(&self, room: &Arc<Room>, aside: Arc<Aside>) {
        for (worker, seats) in self.workers.iter().zip(room.seats.iter()) {
            if seats.is_empty() {
                continue;
            }
            // Who is here is told by changes: nobody may miss one without being known to. There are a
            // few of them per tick, so they can wait.
            let sheds = aside.sheds && aside.audience == Audience::All;
            if seats.asides.fetch_add(1, Ordering::AcqRel) >= ASIDES && sheds {
                seats.asides.fetch_sub(1, Ordering::AcqRel);
                room.stats().shed.add(1);
                continue;
            }
            let _ = worker.send(Work::Aside(room.clone(), aside.clone()));
        }
    }
}

impl Seats {
    fn members(&self) -> MutexGuard<'_, Slab<Arc<Outlet>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_empty(&self) -> bool {
        self.members().is_empty()
    }

    /// Seats a subscriber; what comes after this call, passes bring it.
    pub(super) fn enter(&self, outlet: Arc<Outlet>) -> usize {
        self.members().insert(outlet)
    }

    pub(super) fn leave(&self, seat: usize) {
        let mut members = self.members();
        members.try_remove(seat);
        if members.is_empty() {
            members.shrink_to_fit();
        }
    }

    /// The subscribers in the next chunk of seats from `from` on, and where the one after begins.
    /// Seats never move, so nobody who stays is passed over.
    fn chunk(&self, from: usize) -> (SmallVec<[Arc<Outlet>; CHUNK]>, Option<usize>) {
        let members = self.members();
        let end = from + CHUNK;
        let chunk = (from..end)
            .filter_map(|seat| members.get(seat).cloned())
            .collect();
        (chunk, (end < members.capacity()).then_some(end))
    }
}

async fn work(worker: usize, mut queue: mpsc::UnboundedReceiver<Work>) {
    while let Some(work) = queue.recv().await {
        match work {
            Work::Pass(room) => {
                let seats = &room.seats[worker];
                seats.queued.store(false, Ordering::Release);
                let mut pass = Pass::new(&room);
                each(seats, |outlet| outlet.deliver(&mut pass)).await;
            }
            Work::Aside(room, aside) => {
                let seats = &room.seats[worker];
                seats.asides.fetch_sub(1, Ordering::AcqRel);
                each(seats, |outlet| outlet.tell_in(&room, &aside)).await;
            }
        }
    }
}

/// Visits each subscriber, and lets other tasks run in between.
async fn each(seats: &Seats, mut visit: impl FnMut(&Arc<Outlet>)) {
    let mut from = Some(0);
    while let Some(seat) = from {
        let (chunk, next) = seats.chunk(seat);
        chunk.iter().for_each(&mut visit);
        drop(chunk);
        from = next;
        if from.is_some() {
            tokio::task::yield_now().await;
        }
    }
}

/// One worker's way through one room. Nearly all its sockets stand at the same cursor, so what it
/// looked up for the first it need not ask the room for again: the room's lock, and the counts of a
/// shared batch, would be what workers fight for.
pub(super) struct Pass<'a> {
    room: &'a Arc<Room>,
    /// Where the window ended when the pass began. What is newer, the next pass brings.
    end: u64,
    memo: Memo,
    pub(super) tally: Tally,
}

impl<'a> Pass<'a> {
    fn new(room: &'a Arc<Room>) -> Self {
        Pass {
            room,
            end: room.end(),
            memo: Memo::default(),
            tally: Tally::default(),
        }
    }

    pub(super) fn room(&self) -> &'a Arc<Room> {
        self.room
    }

    /// What there is for a cursor.
    pub(super) fn pending(&mut self, format: &Format, cursor: &Cursor) -> Pending {
        if cursor.seq == self.end {
            return Pending::CaughtUp;
        }
        let room = self.room;
        self.memo
            .pending(format, cursor, || room.build(format, cursor))
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.room.stats().tally(&self.tally);
    }
}
