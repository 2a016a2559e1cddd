//! One stream's live state on this node: its window, its tail's side, its subscribers.

use std::collections::HashMap;
use std::future::Future;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::aside::Aside;
use super::batch::{self, Memo, Pending};
use super::cursor::Cursor;
use super::entry::{EntryId, RoomName};
use super::fanout::{Fanout, Seats};
use super::flight::{Flights, Unwanted};
use super::follower::Follower;
use super::format::{Format, Gap, GapReason};
use super::listener::{Heard, Step};
use super::log::{Feed, Log, LogError, Next, Range, Read, Survey};
use super::page::{self, PageOutcome};
use super::stats::Stats;
use super::window::{Item, Spot, Window, WindowLimits};

mod start;

pub(super) use self::start::Start;

/// How long removed IDs are remembered: longer than any read of the log lasts.
const REMOVED: Duration = Duration::from_secs(10);

/// Bytes that a page of the log should have at most, and the entries it has however large they are.
const PAGE_BYTES: usize = 1 << 20;
const PAGE_LEAST: usize = 2;

/// A room with subscribers on this node, or one that lingers.
pub(super) struct Room {
    name: RoomName,
    shared: Arc<RoomShared>,
    state: Mutex<State>,
    /// Whether the tail has a cursor yet, or why not.
    opened: watch::Sender<Opened>,
    /// Rings whenever the tail brought something.
    moved: Notify,
    /// Reads of the log that are under way.
    reads: Flights<PageKey, Result<PageOutcome, LogError>>,
    pub(super) seats: Box<[Seats]>,
    /// Whether a watcher went without being told who came or went.
    pub(super) missed: AtomicBool,
    itself: Weak<Room>,
}

/// What all rooms of a node share.
pub(super) struct RoomShared {
    pub(super) log: Arc<dyn Log>,
    pub(super) fanout: Fanout,
    pub(super) limits: WindowLimits,
    pub(super) windows: WindowBudget,
    pub(super) stats: Arc<Stats>,
}

/// The bytes of all windows together.
pub(super) struct WindowBudget {
    pub(super) limit: usize,
    pub(super) used: AtomicUsize,
    pub(super) rooms: AtomicUsize,
}

struct State {
    window: Window,
    follower: Follower,
    memo: Memo,
    /// The newest IDs that were removed on purpose: a read that began before may bring them again.
    removed: HashMap<EntryId, Instant>,
    /// The newest entry that this node was told is stored, until the tail is as far.
    stored: EntryId,
    /// Window bytes as last reported to the budget.
    reported: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Opened {
    Waiting,
    Failed(LogError),
    Open,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PageKey {
    /// Older entries for the window itself.
    Older,
    /// Entries for cursors that stand here.
    After(EntryId, bool, u32, usize),
    /// Whether this ID is one that the stream lost.
    Unknown(EntryId, u32),
}

impl Room {
    pub(super) fn new(name: RoomName, shared: Arc<RoomShared>) -> Arc<Self> {
        shared.windows.rooms.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|itself| Room {
            name,
            state: Mutex::new(State {
                window: Window::new(EntryId::ZERO, Vec::new(), None),
                follower: Follower::default(),
                memo: Memo::default(),
                removed: HashMap::new(),
                stored: EntryId::ZERO,
                reported: 0,
            }),
            opened: watch::Sender::new(Opened::Waiting),
            moved: Notify::new(),
            reads: Flights::default(),
            seats: shared.fanout.seats(),
            missed: AtomicBool::new(false),
            shared,
            itself: itself.clone(),
        })
    }

    pub(super) fn name(&self) -> &RoomName {
        &self.name
    }

    pub(super) fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    pub(super) fn lineage(&self) -> u32 {
        self.state().window.lineage()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the item that comes next.
    pub(super) fn end(&self) -> u64 {
        self.state().window.end()
    }

    /// What there is for a cursor, in the window, built anew.
    pub(super) fn build(&self, format: &Format, cursor: &Cursor) -> Pending {
        batch::from_window(&self.state().window, &self.name, format, cursor)
    }

    /// What there is for a cursor, in the window. Sockets of one format at one cursor share the
    /// batch: it's built for the first of them, and kept for a little while.
    pub(super) fn pending(&self, format: &Format, cursor: &Cursor) -> Pending {
        let mut state = self.state();
        let state = &mut *state;
        if cursor.seq == state.window.end() {
            return Pending::CaughtUp;
        }
        let window = &state.window;
        state.memo.pending(format, cursor, || {
            batch::from_window(window, &self.name, format, cursor)
        })
    }

    /// Lets go of what is kept only for a while: the batches of [`Room::pending`], removed IDs.
    pub(super) fn tidy(&self, now: Instant) {
        let mut state = self.state();
        state.memo = Memo::default();
        state
            .removed
            .retain(|_, since| now.duration_since(*since) < REMOVED);
        if state.removed.is_empty() {
            state.removed.shrink_to_fit();
        }
    }

    /// Rings whenever the tail brought something.
    pub(super) fn moved(&self) -> Notified<'_> {
        self.moved.notified()
    }

    /// An entry published on this node is stored; the tail may not have brought it yet.
    pub(super) fn on_stored(&self, id: EntryId) {
        let mut state = self.state();
        state.stored = state.stored.max(id);
    }

    /// What comes next for a subscriber inside this process; moves its cursor over it.
    pub(super) fn step(&self, cursor: &mut Cursor) -> Step {
        let window = &self.state().window;
        loop {
            let seq = match window.locate(cursor) {
                Spot::Behind => return Step::Behind,
                Spot::At(seq) => seq,
                Spot::Lost { upto, reason } => {
                    let gap = gap(cursor.id, upto, reason);
                    *cursor = Cursor::after(upto, window.lineage());
                    return Step::Heard(Heard::Gap(gap));
                }
            };
            let Some(item) = window.item(seq) else {
                return Step::CaughtUp;
            };
            let before = *cursor;
            (cursor.seq, cursor.exact) = (seq + 1, true);
            match item {
                Item::Entry(entry) => {
                    cursor.id = entry.id;
                    return Step::Heard(Heard::Entry(entry.clone()));
                }
                Item::Removed(id) => cursor.id = *id,
                Item::Hole(hole) => {
                    cursor.id = hole.upto;
                    cursor.lineage = hole.lineage.unwrap_or(before.lineage);
                    let gap = gap(before.id, hole.upto, hole.reason);
                    return Step::Heard(Heard::Gap(gap));
                }
            }
        }
    }

    /// Tells all subscribers on this node something beside the stream.
    pub(super) fn tell(&self, aside: Arc<Aside>) {
        if let Some(room) = self.itself.upgrade() {
            self.shared.fanout.tell(&room, aside);
        }
    }

    /// Takes entries that were removed from the log out of the window, too.
    pub(super) fn forget(&self, ids: &[EntryId]) {
        let mut state = self.state();
        let state = &mut *state;
        for id in ids {
            state.removed.insert(*id, Instant::now());
            state.window.remove(*id);
        }
        state.memo = Memo::default();
        self.settle(state);
    }

    /// About how many entries make a page of a megabyte, by what the window holds.
    pub(super) fn page_limit(&self) -> usize {
        let window = &self.state().window;
        let (bytes, items) = (window.bytes(), window.len());
        (PAGE_BYTES * items)
            .checked_div(bytes)
            .map_or(usize::MAX, |entries| entries.max(PAGE_LEAST))
    }

    /// Fills the window with older entries, if there is room in it. One read for all who ask.
    pub(super) async fn fetch_older(&self) -> Result<(), LogError> {
        let vacancy = self.state().window.vacancy(&self.shared.limits);
        if vacancy == 0 {
            return Ok(());
        }
        self.single_flight(PageKey::Older, async move |room: Arc<Room>| {
            let (floor, lineage) = {
                let state = room.state();
                (state.window.floor(), state.window.lineage())
            };
            let range = Range {
                from: Bound::Unbounded,
                to: Bound::Included(floor),
                limit: vacancy,
                newest_first: true,
            };
            let mut older = room.shared.log.range(&room.name, range).await?;
            older.reverse();
            let is_whole = older.len() < vacancy;
            let mut state = room.state();
            if state.window.floor() == floor && state.window.lineage() == lineage {
                let base = state.window.base();
                state.window.prepend(older, is_whole);
                let older = state.window.base()..base;
                state.remove_again(older);
                room.settle(&mut state);
            }
            Ok(PageOutcome::Rewound)
        })
        .await
        .map(drop)
    }

    /// Entries from the log for a cursor below the window. One read for all at the same cursor.
    pub(super) async fn page(&self, cursor: Cursor, limit: usize) -> Result<PageOutcome, LogError> {
        let key = PageKey::After(cursor.id, cursor.exact, cursor.lineage, limit);
        self.single_flight(key, async move |room: Arc<Room>| {
            let floor = room.state().window.floor();
            let log = room.shared.log.as_ref();
            let outcome = page::read(log, &room.name, cursor, floor, limit).await?;
            let removed = &room.state().removed;
            Ok(outcome.without(|id| removed.contains_key(id)))
        })
        .await
    }

    /// Reads the log, or waits for whoever reads the same. The read holds the room as long as it
    /// lasts, and no longer, whatever becomes of those who wait for it.
    async fn single_flight<F>(
        &self,
        key: PageKey,
        read: impl FnOnce(Arc<Room>) -> F,
    ) -> Result<PageOutcome, LogError>
    where
        F: Future<Output = Result<PageOutcome, LogError>> + Send + 'static,
    {
        let closed = || LogError::Unavailable("the room was closed".to_owned());
        let room = self.itself.upgrade().ok_or_else(closed)?;
        let unwanted = match key {
            // There is one at a time, and the window keeps what it brings.
            PageKey::Older => Unwanted::Finishes,
            // A client can ask for as many as there are IDs.
            PageKey::After(..) | PageKey::Unknown(..) => Unwanted::Stops,
        };
        let flight = self.reads.join(key, unwanted, || {
            self.shared.stats.log_reads.add(1);
            read(room)
        });
        let gave_up = || LogError::Unavailable("the read was given up".to_owned());
        flight.await.unwrap_or_else(|_| Err(gave_up()))
    }

    /// After any change of the window: holds the limits and reports its bytes.
    fn settle(&self, state: &mut State) {
        let budget = &self.shared.windows;
        let mut limits = self.shared.limits;
        let used = budget.used.load(Ordering::Relaxed) - state.reported + state.window.bytes();
        if used > budget.limit {
            let rooms = budget.rooms.load(Ordering::Relaxed).max(1);
            limits.bytes = limits.bytes.min(budget.limit / rooms);
        }
        state.window.evict(&limits);
        let bytes = state.window.bytes();
        budget.used.fetch_add(bytes, Ordering::Relaxed);
        budget.used.fetch_sub(state.reported, Ordering::Relaxed);
        state.reported = bytes;
    }

    /// Counts what a read has brought.
    fn count(&self, window: &Window, from: u64) {
        let (entries, oldest) = entries_from(window, from);
        self.shared.stats.entries_tailed.add(entries);
        if let Some((oldest, now)) = oldest.zip(self.shared.log.clock()) {
            self.shared.stats.lag(oldest.ms, now);
        }
    }

    /// Gives the tail's news to follower and window, and what is new to the subscribers.
    fn absorb(&self, news: impl FnOnce(&mut Follower, &mut Window)) {
        let mut state = self.state();
        let state = &mut *state;
        let was_open = state.follower.opened();
        let end = state.window.end();
        news(&mut state.follower, &mut state.window);
        state.remove_again(end..state.window.end());
        let is_new = was_open && state.window.end() != end;
        if is_new {
            self.count(&state.window, end);
        }
        self.settle(state);
        if state.follower.opened() {
            self.opened.send_if_modified(|opened| {
                let changed = *opened != Opened::Open;
                *opened = Opened::Open;
                changed
            });
        }
        self.moved.notify_waiters();
        if is_new && let Some(room) = self.itself.upgrade() {
            self.shared.fanout.wake(&room);
        }
    }
}

/// How many entries a window has from a number on, and the first one.
fn entries_from(window: &Window, seq: u64) -> (u64, Option<EntryId>) {
    let new = (seq..window.end()).filter_map(|seq| match window.item(seq)? {
        Item::Entry(entry) => Some(entry.id),
        Item::Removed(_) | Item::Hole(_) => None,
    });
    new.fold((0, None), |(count, first), id| {
        (count + 1, first.or(Some(id)))
    })
}

impl State {
    /// What was removed on purpose does not come back with a read that began before. These are the
    /// items that the read brought.
    fn remove_again(&mut self, new: std::ops::Range<u64>) {
        if self.removed.is_empty() {
            return;
        }
        for seq in new {
            let id = match self.window.item(seq) {
                Some(Item::Entry(entry)) => entry.id,
                Some(Item::Removed(_) | Item::Hole(_)) | None => continue,
            };
            if self.removed.contains_key(&id) {
                self.window.remove(id);
            }
        }
    }
}

fn gap(after: EntryId, upto: EntryId, reason: GapReason) -> Gap {
    Gap {
        after,
        before: batch::successor(upto),
        reason,
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let reported = self.state().reported;
        self.shared
            .windows
            .used
            .fetch_sub(reported, Ordering::Relaxed);
        self.shared.windows.rooms.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Feed for Room {
    fn room(&self) -> &RoomName {
        &self.name
    }

    fn next(&self) -> Next {
        let state = self.state();
        state.follower.next(&state.window)
    }

    fn on_read(&self, read: Read) {
        self.absorb(|follower, window| follower.on_read(window, read));
    }

    fn on_survey(&self, survey: Survey) {
        self.absorb(|follower, window| follower.on_survey(window, survey));
    }

    fn on_error(&self, error: &LogError) {
        if matches!(error, LogError::WrongType) {
            // Another type under the key means that the stream there was is gone.
            self.absorb(|follower, window| follower.on_gone(window));
        }
        self.opened.send_if_modified(|opened| {
            // A room that is open stays open: its subscribers wait, as they do for Redis.
            if *opened == Opened::Open && error.passes() {
                return false;
            }
            *opened = Opened::Failed(error.clone());
            true
        });
        self.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
