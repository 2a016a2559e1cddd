//! Fan-out: few workers, many sockets.
//!
//! Each connection belongs to one worker. When a room has something new, each worker with
//! subscribers in it makes a pass over them and writes to every socket what it has not seen, by
//! hand, in a plain loop. A task woken per socket and entry costs three to four times as much; and
//! because whatever piled up during one pass goes out in one write in the next, a node that falls
//! behind catches up by itself.
//!
//! A worker goes through its rooms in turn, a chunk of sockets at a time, so that a small room does
//! not wait for a large one's whole pass. Within a room all is done in the order it was asked for.
//!
//! A socket that would block is left to a task of its own (`Outlet::drain`) until it's level again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Sockets written to before another room has its turn, and other tasks: well under a millisecond.
const CHUNK: usize = 64;

/// Asides of one room that wait for a worker. More than that, and those that may be shed are.
const ASIDES: usize = 32;

/// The workers.
pub(super) struct Fanout {
    /// A room is sent to a worker when it gets something to do there, and not again before that is
    /// done.
    workers: Box<[mpsc::UnboundedSender<Arc<Room>>]>,
    turn: AtomicUsize,
}

/// One room's subscribers that belong to one worker.
#[derive(Default)]
pub(super) struct Seats {
    members: Mutex<Slab<Arc<Outlet>>>,
    jobs: Mutex<Jobs>,
}

/// What a worker has to do in one room, in this order.
#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    /// Whether a pass is among them.
    has_pass: bool,
    /// So many of them are asides.
    asides: usize,
    /// Whether the worker has the room, or is about to get it.
    is_scheduled: bool,
}

enum Job {
    /// The room's stream has something new.
    Pass,
    /// The room is told something beside its stream.
    Aside(Arc<Aside>),
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
            if !seats.is_empty() && seats.jobs().add_pass() {
                // It fails only when the runtime shuts down.
                let _ = worker.send(room.clone());
            }
        }
    }

    /// The room is told something beside its stream.
    pub(super) fn tell(&self, room: &Arc<Room>, aside: Arc<Aside>) {
        for (worker, seats) in self.workers.iter().zip(room.seats.iter()) {
            if seats.is_empty() {
                continue;
            }
            match seats.jobs().add_aside(&aside) {
                Some(true) => drop(worker.send(room.clone())),
                Some(false) => {}
                None => room.stats().shed.add(1),
            }
        }
    }
}

impl Jobs {
    /// Whether the room is to be sent to the worker.
    fn schedule(&mut self) -> bool {
        !std::mem::replace(&mut self.is_scheduled, true)
    }

    /// A pass, unless one waits that has not begun. The answer as for [`Jobs::schedule`].
    fn add_pass(&mut self) -> bool {
        if std::mem::replace(&mut self.has_pass, true) {
            return false;
        }
        self.waiting.push_back(Job::Pass);
        self.schedule()
    }

    /// An aside; `None` if the room goes without it. Else the answer as for [`Jobs::schedule`].
    fn add_aside(&mut self, aside: &Arc<Aside>) -> Option<bool> {
        // Who is here is told by changes: nobody may miss one without being known to. There are a
        // few of them per tick, so they can wait.
        let sheds = aside.sheds && aside.audience == Audience::All;
        if self.asides >= ASIDES && sheds {
            return None;
        }
        self.asides += 1;
        self.waiting.push_back(Job::Aside(aside.clone()));
        Some(self.schedule())
    }

    /// The next one. If there is none, the worker has let go of the room.
    fn next(&mut self) -> Option<Job> {
        let job = self.waiting.pop_front();
        match &job {
            Some(Job::Pass) => self.has_pass = false,
            Some(Job::Aside(_)) => self.asides -= 1,
            None => {
                self.is_scheduled = false;
                // A burst is over.
                self.waiting = VecDeque::new();
            }
        }
        job
    }
}

impl Seats {
    fn members(&self) -> MutexGuard<'_, Slab<Arc<Outlet>>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
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

async fn work(worker: usize, mut rooms: mpsc::UnboundedReceiver<Arc<Room>>) {
    let mut turns = VecDeque::new();
    let mut visited = 0;
    loop {
        // Rooms that got something meanwhile come before those that go on have a turn twice.
        while let Ok(room) = rooms.try_recv() {
            turns.push_back(Turn::new(room));
        }
        let Some(mut turn) = turns.pop_front() else {
            match rooms.recv().await {
                Some(room) => turns.push_back(Turn::new(room)),
                None => return,
            }
            continue;
        };
        visited += turn.step(worker);
        if !turn.is_over {
            turns.push_back(turn);
        }
        if visited >= CHUNK {
            visited = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// One room's turn at one worker, until all its jobs are done.
struct Turn {
    room: Arc<Room>,
    running: Option<Running>,
    /// The first seat of the next chunk.
    seat: usize,
    is_over: bool,
}

/// A job that has begun.
enum Running {
    Pass(Box<Pass>),
    Aside(Arc<Aside>),
}

impl Turn {
    fn new(room: Arc<Room>) -> Self {
        Turn {
            room,
            running: None,
            seat: 0,
            is_over: false,
        }
    }

    /// Visits one chunk of subscribers, and says how many there were.
    fn step(&mut self, worker: usize) -> usize {
        let seats = &self.room.seats[worker];
        if self.running.is_none() {
            // Nothing is done under the lock: a room's state is locked when it's taken in `wake`.
            let job = seats.jobs().next();
            self.running = job.map(|job| match job {
                Job::Pass => Running::Pass(Box::new(Pass::new(self.room.clone()))),
                Job::Aside(aside) => Running::Aside(aside),
            });
        }
        let Some(running) = &mut self.running else {
            self.is_over = true;
            return 0;
        };
        let (chunk, next) = seats.chunk(self.seat);
        for outlet in &chunk {
            match running {
                Running::Pass(pass) => outlet.deliver(pass),
                Running::Aside(aside) => outlet.tell_in(&self.room, aside),
            }
        }
        self.seat = next.unwrap_or_default();
        if next.is_none() {
            self.running = None;
        }
        chunk.len()
    }
}

/// One worker's way through one room. Nearly all its sockets stand at the same cursor, so what it
/// looked up for the first it need not ask the room for again: the room's lock, and the counts of a
/// shared batch, would be what workers fight for.
pub(super) struct Pass {
    room: Arc<Room>,
    /// Where the window ended when the pass began. What is newer, the next pass brings.
    end: u64,
    memo: Memo,
    pub(super) tally: Tally,
}

impl Pass {
    fn new(room: Arc<Room>) -> Self {
        Pass {
            end: room.end(),
            room,
            memo: Memo::default(),
            tally: Tally::default(),
        }
    }

    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    /// What there is for a cursor.
    pub(super) fn pending(&mut self, format: &Format, cursor: &Cursor) -> Pending {
        if cursor.seq == self.end {
            return Pending::CaughtUp;
        }
        let room = &self.room;
        self.memo
            .pending(format, cursor, || room.build(format, cursor))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.room.stats().tally(&self.tally);
    }
}

#[cfg(test)]
mod tests;
