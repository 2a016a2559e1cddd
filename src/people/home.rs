//! The homepage: the rooms that were active last, with their topics, properties and newest messages,
//! kept in memory so that asking for it costs Redis nothing.
//!
//! A node begins with this when somebody asks, and ends some minutes after the last one did. Each
//! room is followed by a cursor like any other (`follow`); rooms are found by what this node publishes
//! and by looking through Redis every few seconds (`discover`). What is handed out is a [`Snapshot`],
//! made once per change, of [`Card`]s, made once per change of their room.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::publish::is_immune;
use super::rules::Rules;
use super::{People, Refusal, Shared, now_ms};
use crate::auth::{Identity, Right, UserName};
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::log::LogError;

mod cut;
mod discover;
mod follow;

/// Messages shown of each room.
pub const MESSAGES: usize = 10;

/// Changes are gathered for so long, so that a room with a thousand messages a second doesn't have
/// the whole homepage made a thousand times. A removal is never kept back.
const GATHERED: Duration = Duration::from_millis(50);

/// Pages kept of one snapshot: so many kinds of rights are served without making one anew.
const PAGES_MAX: usize = 64;

/// Bytes of them, about; a page of 200 rooms has some 300 KB, and 4 MiB if every message is long.
const PAGES_BYTES: usize = 16 << 20;

/// Rooms that this node saw and that nobody has looked at yet. Beyond, the next look through Redis
/// finds them.
const SEEN_MAX: usize = 1_000;

/// One message of a room.
#[derive(Debug, Clone)]
pub struct Message {
    /// The entry; of a long one, as much as is shown.
    pub entry: Arc<Entry>,
    /// Whether some of it is left out.
    pub is_cut: bool,
}

/// A room on the homepage.
#[derive(Debug)]
pub struct Card {
    /// Its name.
    pub room: RoomName,
    /// What it's about.
    pub topic: Option<Box<str>>,
    /// Its properties.
    pub properties: BTreeMap<Box<str>, Box<str>>,
    /// How many users are in it.
    pub count: usize,
    /// Where to go on from to miss nothing and get nothing twice. None if it has no entries.
    pub last: Option<EntryId>,
    /// Its newest messages, oldest first.
    pub messages: Vec<Message>,
    rules: Arc<Rules>,
    encoded: OnceLock<Bytes>,
    summed_up: OnceLock<Bytes>,
}

/// How much of the rooms a page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum View {
    /// All of it.
    Full,
    /// What a list of rooms shows.
    Summary {
        /// Whether Redis is known to be away, so that nothing here changes.
        is_away: bool,
    },
}

impl Card {
    /// As its protocol shows it in this view; made by the first who asks.
    pub fn encoded(&self, view: View, make: impl FnOnce(&Card) -> Bytes) -> &Bytes {
        let kept = match view {
            View::Full => &self.encoded,
            View::Summary { .. } => &self.summed_up,
        };
        kept.get_or_init(|| make(self))
    }

    /// Whether somebody may subscribe to the room and read its history.
    fn is_for(&self, identity: &Identity, now_ms: u64) -> bool {
        let rights = identity.rights(&self.room);
        let user = identity.user().map(UserName::as_str);
        let user = user.filter(|_| !is_immune(identity, &self.room));
        rights.has(Right::Subscribe)
            && rights.has(Right::History)
            && user.is_none_or(|user| self.rules.admits(user, now_ms).is_ok())
    }
}

/// A homepage as it goes out to everybody with the same rights.
#[derive(Debug)]
pub struct Page {
    /// What it says.
    pub body: Bytes,
    /// A strong validator, in its quotes.
    pub etag: String,
    compressed: OnceLock<Option<Bytes>>,
}

impl Page {
    /// A page with this body.
    pub fn new(body: Bytes, etag: String) -> Self {
        Page {
            body,
            etag,
            compressed: OnceLock::new(),
        }
    }

    /// The body in a content coding; made by the first who asks. None if it can't be coded.
    pub fn compressed(&self, make: impl FnOnce(&Bytes) -> Option<Bytes>) -> Option<&Bytes> {
        self.compressed.get_or_init(|| make(&self.body)).as_ref()
    }
}

/// What a page shows: how much of a room, and of which cards, a bit each.
type Shown = (View, Box<[u64]>);

/// All rooms at one time, those with the newest activity first.
pub struct Snapshot {
    cards: Vec<Arc<Card>>,
    /// Whether there are more rooms than are followed.
    is_truncated: bool,
    pages: Mutex<HashMap<Shown, Arc<Page>>>,
}

impl Snapshot {
    /// The page for somebody: what they may see, made of the cards unless there is one already for
    /// others who may see the same.
    pub fn page(
        &self,
        identity: &Identity,
        view: View,
        make: impl FnOnce(&[&Card], bool) -> Page,
    ) -> Arc<Page> {
        let now = now_ms();
        let mut shown = vec![0_u64; self.cards.len().div_ceil(64)].into_boxed_slice();
        let mut cards = Vec::with_capacity(self.cards.len());
        for (at, card) in self.cards.iter().enumerate() {
            if card.is_for(identity, now) {
                shown[at / 64] |= 1 << (at % 64);
                cards.push(&**card);
            }
        }
        let shown = (view, shown);
        // Whoever asks at the same time waits rather than makes it, too.
        let mut pages = lock(&self.pages);
        if let Some(page) = pages.get(&shown) {
            return page.clone();
        }
        let page = Arc::new(make(&cards, self.is_truncated));
        let bytes: usize = pages.values().map(|page| page.body.len()).sum();
        if pages.len() >= PAGES_MAX || bytes + page.body.len() > PAGES_BYTES {
            pages.clear();
        }
        pages.insert(shown, page.clone());
        page
    }
}

/// What this node knows for its homepage.
pub(super) struct Home {
    /// Whether anybody has asked lately. Apart from the rest, so that publishes take no lock for it.
    runs: AtomicBool,
    state: Mutex<State>,
    /// Whether all rooms have been looked at once.
    ready: watch::Sender<bool>,
    /// Rang when this node has seen a room that isn't followed.
    bell: Arc<Notify>,
}

#[derive(Default)]
struct State {
    task: Option<AbortOnDropHandle<()>>,
    asked: Option<Instant>,
    rooms: HashMap<RoomName, Followed>,
    seen: BTreeSet<RoomName>,
    is_truncated: bool,
    stale: Stale,
    snapshot: Option<(Instant, Arc<Snapshot>)>,
}

/// How far the last snapshot may still be handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Stale {
    /// It shows how things are.
    #[default]
    No,
    /// A little longer.
    Soon,
    /// It shows what is removed.
    Now,
}

/// A room that is followed.
#[derive(Default)]
struct Followed {
    rules: Arc<Rules>,
    count: usize,
    last: Option<EntryId>,
    messages: VecDeque<Message>,
    /// Whether it has a stream, as far as is known.
    exists: bool,
    /// The look through Redis that saw it last.
    pass: u64,
    /// Counts what moderators did, which an answer from before must not undo.
    acts: u64,
    card: Option<Arc<Card>>,
    /// Rings to have it read again.
    bell: Arc<Notify>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl Followed {
    fn is_shown(&self) -> bool {
        self.exists || !self.messages.is_empty()
    }

    fn card(&mut self, room: &RoomName) -> Arc<Card> {
        if let Some(card) = &self.card {
            return card.clone();
        }
        let card = Arc::new(Card {
            room: room.clone(),
            topic: self.rules.topic.clone(),
            properties: self.rules.properties.clone(),
            count: self.count,
            last: self.last,
            messages: self.messages.iter().cloned().collect(),
            rules: self.rules.clone(),
            encoded: OnceLock::new(),
            summed_up: OnceLock::new(),
        });
        self.card.insert(card).clone()
    }
}

impl State {
    fn change(&mut self, room: &RoomName, stale: Stale) -> Option<&mut Followed> {
        let followed = self.rooms.get_mut(room)?;
        followed.card = None;
        self.stale = self.stale.max(stale);
        Some(followed)
    }
}

impl People {
    /// All rooms, as this node knows them. The first who asks waits until they are known.
    pub async fn homepage(&self) -> Result<Arc<Snapshot>, Refusal> {
        let shared = &self.shared;
        if shared.settings.homepage_rooms == 0 {
            return Err(Refusal::BadRequest(
                "this node keeps no homepage; see --homepage-rooms".to_owned(),
            ));
        }
        shared.home.begin(shared);
        let mut ready = shared.home.ready.subscribe();
        let known = timeout(shared.patience(), ready.wait_for(|ready| *ready)).await;
        if known.is_err() {
            let unknown = LogError::Unavailable("the rooms are not read yet".to_owned());
            return Err(shared.relay.health().err().unwrap_or(unknown).into());
        }
        Ok(shared.home.snapshot())
    }
}

impl Home {
    pub(super) fn new() -> Self {
        Home {
            runs: AtomicBool::new(false),
            state: Mutex::default(),
            ready: watch::Sender::new(false),
            bell: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Somebody asks.
    fn begin(&self, shared: &Arc<Shared>) {
        let mut state = self.state();
        state.asked = Some(Instant::now());
        if state.task.is_none() {
            self.runs.store(true, Ordering::Release);
            let task = tokio::spawn(discover::run(Arc::downgrade(shared)));
            state.task = Some(AbortOnDropHandle::new(task));
        }
    }

    /// Forgets everything, if nobody has asked for so long.
    fn end_if_idle(&self, idle: Duration) -> bool {
        let mut state = self.state();
        let is_idle = state.asked.is_none_or(|asked| asked.elapsed() >= idle);
        if is_idle {
            self.runs.store(false, Ordering::Release);
            self.ready.send_replace(false);
            let gone = std::mem::take(&mut *state);
            drop(state);
            // The handle of the task that runs this; it ends by itself now.
            if let Some(task) = gone.task {
                drop(task.detach());
            }
        }
        is_idle
    }

    /// This node publishes into a room.
    pub(super) fn see(&self, room: &RoomName) {
        if !self.runs.load(Ordering::Acquire) || room.owner().is_some() {
            return;
        }
        let mut state = self.state();
        if !state.rooms.contains_key(room) && state.seen.len() < SEEN_MAX {
            state.seen.insert(room.clone());
            self.bell.notify_one();
        }
    }

    /// A moderator has done something to a room.
    pub(super) fn apply(
        &self,
        room: &RoomName,
        rules: &HashMap<String, Option<String>>,
        removed: &[EntryId],
    ) {
        if !self.runs.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state();
        let Some(followed) = state.change(room, Stale::Now) else {
            return;
        };
        followed.acts += 1;
        let laid_down = Arc::make_mut(&mut followed.rules);
        for (name, text) in rules {
            laid_down.set(name, text.as_deref());
        }
        if !removed.is_empty() {
            let messages = &mut followed.messages;
            messages.retain(|message| !removed.contains(&message.entry.id));
            // Older ones take their places.
            followed.bell.notify_one();
        }
    }

    /// Acts of moderators may have been missed.
    pub(super) fn doubt(&self) {
        for followed in self.state().rooms.values() {
            followed.bell.notify_one();
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut state = self.state();
        let state = &mut *state;
        if let Some((made, snapshot)) = &state.snapshot
            && (state.stale == Stale::No
                || (state.stale == Stale::Soon && made.elapsed() < GATHERED))
        {
            return snapshot.clone();
        }
        let shown = state.rooms.iter_mut();
        let shown = shown.filter(|(_, followed)| followed.is_shown());
        let mut cards: Vec<Arc<Card>> = shown.map(|(room, one)| one.card(room)).collect();
        cards.sort_by(|one, other| (other.last, &one.room).cmp(&(one.last, &other.room)));
        let snapshot = Arc::new(Snapshot {
            cards,
            is_truncated: state.is_truncated,
            pages: Mutex::default(),
        });
        state.stale = Stale::No;
        state.snapshot = Some((Instant::now(), snapshot.clone()));
        snapshot
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
