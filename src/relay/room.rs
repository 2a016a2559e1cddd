//! One stream's live state on this node: its window, its tail's side, its subscribers.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;

use super::batch::{self, Batch, Pending};
use super::cursor::Cursor;
use super::entry::{EntryId, RoomName};
use super::fanout::{Fanout, Seats};
use super::follower::Follower;
use super::format::{Format, Gap, GapReason};
use super::log::{Feed, Log, LogError, Next, Range, Read, Survey};
use super::page::{self, PageOutcome};
use super::position::Position;
use super::stats::Stats;
use super::window::{Spot, Window, WindowLimits};

/// Batches kept for sockets that stand where another just stood; see [`Room::pending`].
const MEMO: usize = 4;

/// A room with subscribers on this node, or one that lingers.
pub(super) struct Room {
    name: RoomName,
    shared: Arc<RoomShared>,
    state: Mutex<State>,
    /// Whether the tail has a cursor yet, or why not.
    opened: watch::Sender<Opened>,
    pages: Mutex<HashMap<PageKey, SharedPage>>,
    pub(super) seats: Box<[Seats]>,
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
    memo: Vec<(u8, Cursor, Arc<Batch>)>,
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
}

type SharedPage = Shared<BoxFuture<'static, Result<PageOutcome, LogError>>>;

/// Where a join begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// Its ID is what to resume from if nothing ever arrives.
    pub(super) cursor: Cursor,
    /// The position asked for is unknown to the stream; to be told before anything else.
    pub(super) gap: Option<Gap>,
}

impl Room {
    pub(super) fn new(name: RoomName, shared: Arc<RoomShared>) -> Arc<Self> {
        shared.windows.rooms.fetch_add(1, Ordering::Relaxed);
        Arc::new_cyclic(|itself| Room {
            name,
            state: Mutex::new(State {
                window: Window::new(EntryId::ZERO, Vec::new(), None),
                follower: Follower::default(),
                memo: Vec::new(),
                reported: 0,
            }),
            opened: watch::Sender::new(Opened::Waiting),
            pages: Mutex::default(),
            seats: shared.fanout.seats(),
            shared,
            itself: itself.clone(),
        })
    }

    pub(super) fn name(&self) -> &RoomName {
        &self.name
    }

    pub(super) fn lineage(&self) -> u32 {
        self.state().window.lineage()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is for a cursor, in the window. Sockets of one format at one cursor share the
    /// batch: it's built for the first of them and kept till the fan-out's pass is over.
    pub(super) fn pending(&self, format: &Format, cursor: &Cursor) -> Pending {
        let mut state = self.state();
        let state = &mut *state;
        if cursor.seq == state.window.end() {
            return Pending::CaughtUp;
        }
        let known = state
            .memo
            .iter()
            .find(|(slot, start, _)| *slot == format.slot && start == cursor);
        if let Some((_, _, batch)) = known {
            return Pending::Batch(batch.clone());
        }
        let pending = batch::from_window(&state.window, &self.name, format, cursor);
        if let Pending::Batch(batch) = &pending {
            if state.memo.len() == MEMO {
                state.memo.remove(0);
            }
            state.memo.push((format.slot, *cursor, batch.clone()));
        }
        pending
    }

    /// Lets go of the batches kept for [`Room::pending`].
    pub(super) fn forget_batches(&self) {
        self.state().memo = Vec::new();
    }

    /// Where to begin for a client that joins now. Waits until the room's tail has a cursor.
    pub(super) async fn start(&self, from: Position, now_ms: u64) -> Result<Start, LogError> {
        self.wait_open().await?;
        match from {
            Position::Now => {
                Ok(self.start_at(|window| Cursor::after(window.head(), window.lineage())))
            }
            Position::Start => Ok(self.start_nominal(EntryId::ZERO)),
            Position::Ago(age) => {
                let since =
                    now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                Ok(self.start_nominal(EntryId::new(since, 0).predecessor()))
            }
            Position::Last(count) => self.start_last(count).await,
            Position::After(EntryId::ZERO) => Ok(self.start_nominal(EntryId::ZERO)),
            Position::After(id) => self.start_after(id).await,
        }
    }

    fn start_at(&self, cursor: impl FnOnce(&Window) -> Cursor) -> Start {
        Start {
            cursor: cursor(&self.state().window),
            gap: None,
        }
    }

    fn start_nominal(&self, id: EntryId) -> Start {
        self.start_at(|window| Cursor::nominal(id, window.lineage()))
    }

    async fn start_last(&self, count: usize) -> Result<Start, LogError> {
        let in_window = |room: &Room| {
            let state = room.state();
            let id = state.window.before_newest(count)?;
            Some(Start {
                cursor: Cursor::nominal(id, state.window.lineage()),
                gap: None,
            })
        };
        if let Some(start) = in_window(self) {
            return Ok(start);
        }
        if count <= self.shared.limits.entries {
            self.fetch_older().await?;
            if let Some(start) = in_window(self) {
                return Ok(start);
            }
        }
        let head = self.state().window.head();
        let range = Range {
            from: Bound::Unbounded,
            to: Bound::Included(head),
            limit: count,
            newest_first: true,
        };
        self.shared.stats.log_reads.add(1);
        let oldest = self.shared.log.range(&self.name, range).await?.pop();
        Ok(self.start_nominal(oldest.map_or(head, |entry| entry.id.predecessor())))
    }

    /// Resumes after an ID that a client has.
    async fn start_after(&self, id: EntryId) -> Result<Start, LogError> {
        let start = self.start_at(|window| Cursor::after(id, window.lineage()));
        let (head, spot, is_known) = {
            let state = self.state();
            let window = &state.window;
            let is_known = id == window.floor() || id == window.head() || window.find(id).is_some();
            (window.head(), window.locate(&start.cursor), is_known)
        };
        if id > head {
            // Another node may have read further than this one; only the stream itself knows.
            self.shared.stats.log_reads.add(1);
            let reason = match self.shared.log.state(&self.name).await? {
                None => Some(GapReason::Deleted),
                Some(state) if state.last < id => Some(GapReason::Rewound),
                Some(_) => None,
            };
            if let Some(reason) = reason {
                let mut resumed =
                    self.start_at(|window| Cursor::after(window.head(), window.lineage()));
                resumed.gap = Some(Gap {
                    after: id,
                    before: batch::successor(resumed.cursor.id),
                    reason,
                });
                return Ok(resumed);
            }
        } else if spot == Spot::Behind {
            // The usual case of a reconnect storm: a little below the window, and room in it.
            self.fetch_older().await?;
        } else if !is_known {
            // Inside the window, and not of it: removed since, or from before a deletion.
            self.shared.stats.log_reads.add(1);
            let log = self.shared.log.as_ref();
            let outcome = page::read(log, &self.name, start.cursor, head, 1).await?;
            if let PageOutcome::Page(page) = outcome
                && let Some((upto, reason)) = page.lost.filter(|(upto, _)| id < *upto)
            {
                let gap = Gap {
                    after: id,
                    before: batch::successor(upto),
                    reason,
                };
                return Ok(Start {
                    cursor: Cursor::after(upto, start.cursor.lineage),
                    gap: Some(gap),
                });
            }
        }
        Ok(start)
    }

    /// Waits until the tail has its cursor. Errors that pass by themselves are waited out.
    async fn wait_open(&self) -> Result<(), LogError> {
        let mut opened = self.opened.subscribe();
        let outcome = opened
            .wait_for(|opened| match opened {
                Opened::Waiting => false,
                Opened::Failed(error) => !passes(error),
                Opened::Open => true,
            })
            .await;
        match outcome.as_deref() {
            Ok(Opened::Failed(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(LogError::Unavailable("the room was closed".to_owned())),
        }
    }

    /// Fills the window with older entries, if there is room in it. One read for all who ask.
    pub(super) async fn fetch_older(&self) -> Result<(), LogError> {
        let vacancy = self.state().window.vacancy(&self.shared.limits);
        if vacancy == 0 {
            return Ok(());
        }
        self.single_flight(PageKey::Older, |room| {
            async move {
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
                    state.window.prepend(older, is_whole);
                    room.settle(&mut state);
                }
                Ok(PageOutcome::Rewound)
            }
            .boxed()
        })
        .await
        .map(drop)
    }

    /// Entries from the log for a cursor below the window. One read for all at the same cursor.
    pub(super) async fn page(&self, cursor: Cursor, limit: usize) -> Result<PageOutcome, LogError> {
        let key = PageKey::After(cursor.id, cursor.exact, cursor.lineage, limit);
        self.single_flight(key, |room| {
            async move {
                let floor = room.state().window.floor();
                page::read(room.shared.log.as_ref(), &room.name, cursor, floor, limit).await
            }
            .boxed()
        })
        .await
    }

    async fn single_flight(
        &self,
        key: PageKey,
        read: impl FnOnce(Arc<Room>) -> BoxFuture<'static, Result<PageOutcome, LogError>>,
    ) -> Result<PageOutcome, LogError> {
        let Some(room) = self.itself.upgrade() else {
            return Err(LogError::Unavailable("the room was closed".to_owned()));
        };
        let flight = {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            match pages.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    self.shared.stats.log_reads.add(1);
                    let flight = read(room).shared();
                    pages.insert(key, flight.clone());
                    flight
                }
            }
        };
        let outcome = flight.await;
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        outcome
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

    /// Gives the tail's news to follower and window, and what is new to the subscribers.
    fn absorb(&self, news: impl FnOnce(&mut Follower, &mut Window)) {
        let mut state = self.state();
        let state = &mut *state;
        let was_open = state.follower.opened();
        let end = state.window.end();
        news(&mut state.follower, &mut state.window);
        let is_new = was_open && state.window.end() != end;
        if is_new {
            self.shared
                .stats
                .entries_tailed
                .add(state.window.end() - end);
        }
        self.settle(state);
        if state.follower.opened() {
            self.opened.send_if_modified(|opened| {
                let changed = *opened != Opened::Open;
                *opened = Opened::Open;
                changed
            });
        }
        if is_new && let Some(room) = self.itself.upgrade() {
            self.shared.fanout.wake(&room);
        }
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
            if *opened == Opened::Open && passes(error) {
                return false;
            }
            *opened = Opened::Failed(error.clone());
            true
        });
    }
}

/// Whether an error may pass by itself, so that a join waits rather than fails.
fn passes(error: &LogError) -> bool {
    match error {
        LogError::Unavailable(_)
        | LogError::Busy
        | LogError::Loading
        | LogError::ReadOnly(_)
        | LogError::Full(_) => true,
        LogError::WrongType | LogError::Denied(_) | LogError::Other(_) => false,
    }
}
