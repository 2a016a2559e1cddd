//! One connection's way out: its own frames, and the entries of the rooms it's in.
//!
//! No queue grows here. What a connection still has to get is a cursor per room; what waits in
//! memory is the rest of one frame that the kernel cut, and the connection's own small frames.
//!
//! Two write to the socket, never both at once: the fan-out's pass, as long as the kernel takes
//! everything, and a task of this connection's own, `Outlet::drain`, which lives only while the
//! socket would block, a room has to be read from the log, or the connection is closing.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::batch::{self, Pending};
use super::close::CloseReason;
use super::cursor::Cursor;
use super::entry::RoomName;
use super::fanout::Pass;
use super::format::{Format, Gap, GapFrame};
use super::registry::Membership;
use super::room::{Room, Start};
use super::stats::{Stats, Tally};

mod beside;
mod quiet;
mod replay;
mod wire;

pub use wire::Wire;

use self::quiet::Quiet;
use self::replay::Replay;

/// Bytes of a connection's own frames that may wait before its front end stops reading from it.
const BACKLOG_BYTES: usize = 64 * 1024;

/// Entries the first page from the log holds; it doubles while the socket takes all of it.
const PAGE_FIRST: usize = 64;
const PAGE_LEAST: usize = 8;
const PAGE_MOST: usize = 512;

/// Where a connection's frames go out. Shared by its front end, its rooms and its publishes.
pub struct Outlet {
    number: u64,
    wire: Arc<dyn Wire>,
    format: &'static Format,
    slow_timeout: Option<Duration>,
    /// The fan-out worker that writes to it.
    worker: usize,
    stats: Arc<Stats>,
    out: Mutex<Out>,
    /// Publishes without an outcome.
    pub(super) in_flight: AtomicU32,
    /// Something got less: publishes in flight, or the backlog.
    pub(super) progress: Notify,
    ended: Notify,
}

#[derive(Default)]
struct Out {
    /// What the kernel did not take of a frame that has begun.
    cut: Bytes,
    own: VecDeque<Bytes>,
    own_bytes: usize,
    seats: SmallVec<[Seat; 1]>,
    quiet: Quiet,
    /// Whether [`Outlet::drain`] runs; passes then leave this connection alone.
    draining: bool,
    closing: Option<CloseReason>,
    /// The closing bytes went out, or never will.
    ended: bool,
}

/// This connection in one room.
struct Seat {
    membership: Membership,
    worker: usize,
    number: usize,
    cursor: Cursor,
    replay: Replay,
    page_entries: u16,
    watch: Watch,
}

/// Whether a seat is told who is in its room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// It didn't ask.
    No,
    /// It asked, and does not know yet, or went without something.
    Unaware,
    /// It knows, and is told of changes.
    Aware,
}

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrote {
    All,
    WouldBlock,
}

impl Outlet {
    pub(super) fn new(
        wire: Arc<dyn Wire>,
        format: &'static Format,
        slow_timeout: Option<Duration>,
        worker: usize,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        Arc::new(Outlet {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            wire,
            format,
            slow_timeout,
            worker,
            stats,
            out: Mutex::default(),
            in_flight: AtomicU32::new(0),
            progress: Notify::new(),
            ended: Notify::new(),
        })
    }

    fn out(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other connection of this process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sends a frame of the connection's own (an acknowledgement, a pong), after those sent
    /// before it and between entries, never inside one. Never waits.
    pub fn send(self: &Arc<Self>, frame: Bytes) {
        let mut out = self.out();
        if out.closing.is_none() && !frame.is_empty() {
            out.push_own(frame);
            self.carry_on(&mut out);
        }
    }

    /// Looks again whether something can go out, for a wire that has changed.
    pub fn nudge(self: &Arc<Self>) {
        self.carry_on(&mut self.out());
    }

    /// Ends the connection: the format's closing bytes go out after what has begun, then nothing.
    /// The first reason wins.
    pub fn close(self: &Arc<Self>, reason: CloseReason) {
        let last = (self.format.close)(&reason);
        self.close_with(reason, last);
    }

    /// Ends the connection with these last bytes instead of the format's: an answer to a client that
    /// closed. It's one step, so nothing comes between them and the end, and nothing behind them.
    pub fn close_with(self: &Arc<Self>, reason: CloseReason, last: Bytes) {
        let mut out = self.out();
        self.begin_close(&mut out, reason, last);
        self.carry_on(&mut out);
    }

    /// Whether it's closed, or about to be.
    pub fn is_closing(&self) -> bool {
        self.out().closing.is_some()
    }

    /// Whether the socket takes nothing just now. A client that does not read can't answer a ping
    /// either; it's `slow_timeout` that judges it.
    pub fn is_blocked(&self) -> bool {
        self.out().draining
    }

    /// Waits until somebody closed it and the closing bytes went out, or can't.
    pub async fn closed(&self) -> CloseReason {
        loop {
            let ended = self.ended.notified();
            if let Some(reason) = self.end_reason() {
                return reason;
            }
            ended.await;
        }
    }

    fn end_reason(&self) -> Option<CloseReason> {
        let out = self.out();
        out.closing.clone().filter(|_| out.ended)
    }

    /// Whether so much of its own waits to go out that its front end had better not read on.
    pub(super) fn is_backlogged(&self) -> bool {
        self.out().own_bytes > BACKLOG_BYTES
    }

    /// Takes a seat in a room. `joined` goes out before the first entry.
    pub(super) fn enter(
        self: &Arc<Self>,
        membership: Membership,
        start: Start,
        watches: bool,
        joined: Option<Bytes>,
    ) {
        let mut out = self.out();
        if out.closing.is_some() {
            return;
        }
        if let Some(frame) = joined {
            out.push_own(frame);
        }
        if let Some(gap) = start.gap {
            match (self.format.gap)(membership.room().name(), &gap) {
                GapFrame::Frame(frame) => {
                    self.stats.gap(gap.reason);
                    out.push_own(frame);
                }
                GapFrame::Close => {
                    self.begin_gap_close(&mut out, gap);
                    self.carry_on(&mut out);
                    return;
                }
            }
        }
        out.quiet.seated(membership.room().name(), start.cursor.id);
        let number = membership.room().seats[self.worker].enter(self.clone());
        out.seats.push(Seat {
            membership,
            worker: self.worker,
            number,
            cursor: start.cursor,
            replay: Replay::Window,
            page_entries: PAGE_FIRST as u16,
            watch: if watches { Watch::Unaware } else { Watch::No },
        });
        self.carry_on(&mut out);
    }

    /// Gives up the seat in a room, or the join of it; false if there is no seat.
    pub(super) fn leave(&self, room: &RoomName) -> bool {
        let mut out = self.out();
        out.quiet.left(room);
        let index = out.seats.iter().position(|seat| seat.room().name() == room);
        index.map(|index| out.seats.swap_remove(index)).is_some()
    }

    /// Gives up everything, at once.
    pub(super) fn abandon(&self) {
        self.fail(&mut self.out(), CloseReason::Gone);
    }

    /// A pass of the fan-out: its room has something new.
    pub(super) fn deliver(self: &Arc<Self>, pass: &mut Pass) {
        let mut out = self.out();
        if out.draining || out.ended {
            return;
        }
        let room = pass.room();
        let Some(index) = out
            .seats
            .iter()
            .position(|seat| Arc::ptr_eq(seat.room(), room))
        else {
            return;
        };
        let mut tally = std::mem::take(&mut pass.tally);
        let step = self.step_seat(&mut out, index, &mut tally, &mut |_, format, cursor| {
            pass.pending(format, cursor)
        });
        pass.tally = tally;
        self.after(&mut out, step);
    }

    /// Writes whatever can be written now, unless the drain does so already.
    fn carry_on(self: &Arc<Self>, out: &mut Out) {
        if out.draining || out.ended {
            return;
        }
        let step = self.step(out);
        self.after(out, step);
    }

    /// Acts on how a step ended.
    fn after(self: &Arc<Self>, out: &mut Out, step: io::Result<Wrote>) {
        match self.through(step) {
            Ok(Wrote::All) if out.closing.is_some() => self.finish(out),
            Ok(Wrote::All) => {}
            Ok(Wrote::WouldBlock) => {
                out.draining = true;
                tokio::spawn(self.clone().drain());
            }
            Err(_) => self.fail(out, CloseReason::Gone),
        }
    }

    /// One more attempt of the drain; whether it's to wait for the socket and come again.
    fn drain_step(self: &Arc<Self>) -> bool {
        let mut out = self.out();
        if out.ended {
            return false;
        }
        let step = self.step(&mut out);
        match self.through(step) {
            Ok(Wrote::WouldBlock) => return true,
            Ok(Wrote::All) if out.closing.is_some() => self.finish(&mut out),
            // Under the same lock as the last look at the rooms: whatever comes later, a pass
            // brings, and it no longer passes this connection over.
            Ok(Wrote::All) => out.draining = false,
            Err(_) => self.fail(&mut out, CloseReason::Gone),
        }
        false
    }

    /// All is out only once the wire keeps nothing of it.
    fn through(&self, step: io::Result<Wrote>) -> io::Result<Wrote> {
        if !matches!(step, Ok(Wrote::All)) {
            return step;
        }
        match self.wire.try_flush() {
            Ok(()) => Ok(Wrote::All),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Wrote::WouldBlock),
            Err(error) => Err(error),
        }
    }

    /// Goes on until this connection is level with all its rooms. It begins when the socket was
    /// found full, so it waits first: a look at the rooms before would only read pages for nothing.
    async fn drain(self: Arc<Self>) {
        loop {
            let writable = std::future::poll_fn(|cx| self.wire.poll_writable(cx));
            let is_stuck = match self.slow_timeout {
                None => writable.await.is_err(),
                Some(limit) => match tokio::time::timeout(limit, writable).await {
                    Ok(outcome) => outcome.is_err(),
                    Err(_) => {
                        self.stats.slow_closed.add(1);
                        true
                    }
                },
            };
            if is_stuck {
                let reason = CloseReason::Timeout("stopped reading; reconnect to go on".into());
                self.fail(&mut self.out(), reason);
            }
            if !self.drain_step() {
                return;
            }
        }
    }

    /// Writes its own frames, then every room's, until all is out or the socket would block.
    fn step(self: &Arc<Self>, out: &mut Out) -> io::Result<Wrote> {
        if self.flush(out)? == Wrote::WouldBlock {
            return Ok(Wrote::WouldBlock);
        }
        let mut tally = Tally::default();
        let mut index = 0;
        let mut wrote = Ok(Wrote::All);
        while index < out.seats.len() && matches!(wrote, Ok(Wrote::All)) {
            wrote = self.step_seat(out, index, &mut tally, &mut Room::pending);
            index += 1;
        }
        self.stats.tally(&tally);
        wrote
    }

    /// Writes what a cut frame still has, and the connection's own frames.
    fn flush(&self, out: &mut Out) -> io::Result<Wrote> {
        loop {
            while !out.cut.is_empty() {
                match self.wire.try_write(&out.cut) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => drop(out.cut.split_to(written)),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Wrote::WouldBlock);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            out.cut = Bytes::new();
            match out.own.pop_front() {
                None => {
                    if out.own.capacity() > 0 {
                        out.own = VecDeque::new();
                    }
                    return Ok(Wrote::All);
                }
                Some(frame) => {
                    out.own_bytes -= frame.len();
                    out.cut = frame;
                    self.progress.notify_waiters();
                }
            }
        }
    }

    /// Writes what one room has for this connection.
    fn step_seat(
        self: &Arc<Self>,
        out: &mut Out,
        index: usize,
        tally: &mut Tally,
        pending_of: &mut impl FnMut(&Room, &Format, &Cursor) -> Pending,
    ) -> io::Result<Wrote> {
        loop {
            if !out.cut.is_empty() && self.flush(out)? == Wrote::WouldBlock {
                return Ok(Wrote::WouldBlock);
            }
            let Some(seat) = out.seats.get_mut(index) else {
                return Ok(Wrote::All);
            };
            let room = seat.membership.room();
            if out.quiet.waits(room.name()) {
                return Ok(Wrote::All);
            }
            let pending = match &seat.replay {
                Replay::Waiting => return Ok(Wrote::All),
                Replay::Window => pending_of(room, self.format, &seat.cursor),
                Replay::Page(page) => {
                    match batch::from_page(page, room.name(), self.format, &seat.cursor) {
                        Pending::CaughtUp => {
                            seat.replay = Replay::Window;
                            let entries = usize::from(seat.page_entries) * 2;
                            seat.page_entries = entries.min(PAGE_MOST) as u16;
                            continue;
                        }
                        pending => pending,
                    }
                }
            };
            let batch = match pending {
                Pending::CaughtUp => return Ok(Wrote::All),
                Pending::Behind => {
                    let room = room.clone();
                    let entries = usize::from(seat.page_entries).min(room.page_limit());
                    seat.replay = Replay::Waiting;
                    tokio::spawn(replay::fetch(self.clone(), room, seat.cursor, entries));
                    return Ok(Wrote::All);
                }
                Pending::Batch(batch) => batch,
            };
            let passed_over = out.quiet.entries(room.name());
            let front = passed_over.and_then(|entries| batch.front(entries));
            let bytes = match &front {
                None => &batch.bytes[..],
                Some(front) => &batch.bytes[..front.bytes],
            };
            let written = if bytes.is_empty() {
                0
            } else {
                match self.wire.try_write(bytes) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        seat.let_go_of_page(0);
                        return Ok(Wrote::WouldBlock);
                    }
                    Err(error) => return Err(error),
                }
            };
            tally.writes += u64::from(written > 0);
            tally.frame_bytes += written as u64;
            if written < bytes.len() {
                let (cut, cursor, frames) = batch.cut(written);
                seat.cursor = cursor;
                seat.let_go_of_page(frames);
                out.cut = cut;
                batch.count(frames, tally);
                // The kernel is full; the next attempt will say so.
                continue;
            }
            if let Some(front) = front {
                batch.count(front.frames, tally);
                seat.cursor = front.behind;
                out.quiet.passed(seat.room().name(), front.entry);
                continue;
            }
            seat.cursor = batch.end;
            out.quiet.passed(seat.room().name(), batch.end.id);
            batch.count(batch.frames(), tally);
            if let Some(gap) = batch.close {
                self.begin_gap_close(out, gap);
                return self.flush(out);
            }
        }
    }

    fn begin_gap_close(&self, out: &mut Out, gap: Gap) {
        let reason = CloseReason::Gap(gap);
        let last = (self.format.close)(&reason);
        self.begin_close(out, reason, last);
    }

    /// Leaves all rooms and queues the last bytes.
    fn begin_close(&self, out: &mut Out, reason: CloseReason, last: Bytes) {
        if out.closing.is_some() {
            return;
        }
        if let CloseReason::Gap(gap) = &reason {
            self.stats.gap(gap.reason);
        }
        if !last.is_empty() {
            out.push_own(last);
        }
        out.seats.clear();
        out.quiet = Quiet::default();
        out.closing = Some(reason);
    }

    /// Everything went out.
    fn finish(&self, out: &mut Out) {
        out.ended = true;
        self.ended.notify_waiters();
        self.progress.notify_waiters();
    }

    /// Nothing more goes out.
    fn fail(&self, out: &mut Out, reason: CloseReason) {
        out.closing.get_or_insert(reason);
        out.seats.clear();
        out.quiet = Quiet::default();
        out.cut = Bytes::new();
        out.own = VecDeque::new();
        out.own_bytes = 0;
        self.finish(out);
    }
}

impl Out {
    fn seat_in(&mut self, room: &RoomName) -> Option<&mut Seat> {
        let mut seats = self.seats.iter_mut();
        seats.find(|seat| seat.membership.room().name() == room)
    }

    fn push_own(&mut self, frame: Bytes) {
        self.own_bytes += frame.len();
        self.own.push_back(frame);
    }
}

impl Seat {
    fn room(&self) -> &Arc<Room> {
        self.membership.room()
    }

    /// The socket is full. A page is not kept for it; the next one holds what this one took.
    fn let_go_of_page(&mut self, taken: usize) {
        if let Replay::Page(_) = self.replay {
            self.replay = Replay::Window;
            self.page_entries = (taken * 2).clamp(PAGE_LEAST, PAGE_MOST) as u16;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.room().seats[self.worker].leave(self.number);
    }
}

#[cfg(test)]
mod tests;
