//! [`Side`]: the people's side of one room on this node: its rules, who stays here, and, if somebody
//! asks, who is in it over all nodes.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use slab::Slab;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::board::{Ear, EarGuard, NodeId};
use super::pace::Pace;
use super::reactions::Tally;
use super::roster::{Present, Roster, Ticket};
use super::rules::Rules;
use super::session::Stay;
use super::wire::{self, Message};
use super::{Shared, told};
use crate::relay::aside::Audience;
use crate::relay::entry::RoomName;
use crate::relay::log::LogError;

mod reading;

use self::reading::{members, read};

/// How long a side is kept after anybody needed it: longer than the pause between two requests of
/// one client.
const LINGER: Duration = Duration::from_secs(30);

/// How long to wait before the board is asked again, when it does not answer.
const RETRY: Duration = Duration::from_millis(250);

/// In a large room the number of its people changes all the time, and telling it costs a frame for
/// each of them. So it's told less often the more there are, but this often at least.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// A room's people on this node.
pub(super) struct Side {
    room: RoomName,
    shared: Weak<Shared>,
    rules: Mutex<Rules>,
    loaded: watch::Sender<Loaded>,
    stays: Mutex<Slab<Weak<Stay>>>,
    watch: Mutex<Watch>,
    settled: watch::Sender<()>,
    /// For so many ticks yet, those who don't know who is here are told.
    newcomers: AtomicU8,
    pub(super) reactions: Tally,
    /// Of what is shown here by requests, without a connection of their own.
    pace: Mutex<Pace>,
    /// Whether it's on the list of those that the next tick visits.
    stirred: AtomicBool,
    touched: Mutex<Instant>,
    ear: Mutex<Option<EarGuard>>,
}

/// Whether a room's rules are known.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loaded {
    /// Being read for the first time.
    Waiting,
    /// Could not be read yet.
    Failed(LogError),
    /// Known.
    Known,
}

/// Who is here, if somebody wants to know.
#[derive(Default)]
struct Watch {
    roster: Option<Roster>,
    /// Sessions that are told.
    watchers: usize,
    /// When a node was last heard. It's not taken for dead by an older look at who lives.
    heard: HashMap<NodeId, Instant>,
    /// The number told last, and whether it came without names.
    told: (usize, bool),
    next_count: Option<Instant>,
}

impl Side {
    /// Opens the side of a room: begins to listen and to read its rules.
    pub(super) fn open(shared: &Arc<Shared>, room: RoomName) -> Arc<Self> {
        let side = Arc::new(Side {
            shared: Arc::downgrade(shared),
            rules: Mutex::default(),
            // Nobody moderates an inbox.
            loaded: watch::Sender::new(match room.owner() {
                Some(_) => Loaded::Known,
                None => Loaded::Waiting,
            }),
            stays: Mutex::default(),
            watch: Mutex::default(),
            settled: watch::Sender::new(()),
            newcomers: AtomicU8::new(0),
            reactions: Tally::default(),
            pace: Mutex::new(Pace::of_messages()),
            stirred: AtomicBool::new(false),
            touched: Mutex::new(Instant::now()),
            ear: Mutex::default(),
            room,
        });
        let ear = Arc::new(SideEar(Arc::downgrade(&side)));
        *lock(&side.ear) = Some(shared.board.listen(&side.room, ear));
        if !side.is_loaded() {
            tokio::spawn(load(Arc::downgrade(&side), shared.clone()));
        }
        side
    }

    pub(super) fn room(&self) -> &RoomName {
        &self.room
    }

    pub(super) fn touch(&self) {
        *lock(&self.touched) = Instant::now();
    }

    /// Whether nobody has needed it for a while.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        if !lock(&self.stays).is_empty() || self.stirred.load(Ordering::Acquire) {
            self.touch();
            return false;
        }
        now.duration_since(*lock(&self.touched)) >= LINGER
    }

    /// Lets one thing be shown by a request, or says how long to wait.
    pub(super) fn take_pace(&self) -> Result<(), Duration> {
        lock(&self.pace).take(Instant::now())
    }

    pub(super) fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    /// Whether its rules are known.
    pub(super) fn is_loaded(&self) -> bool {
        *self.loaded.borrow() == Loaded::Known
    }

    /// Waits until its rules are known, however long that takes.
    pub(super) async fn loaded(&self) {
        // The sender lives as long as this.
        let mut loaded = self.loaded.subscribe();
        let _ = loaded.wait_for(|loaded| *loaded == Loaded::Known).await;
    }

    /// The same, unless they can't be read for a reason that does not pass by itself.
    pub(super) async fn loaded_if_ever(&self) -> Result<(), LogError> {
        let mut loaded = self.loaded.subscribe();
        let is_over = |loaded: &Loaded| match loaded {
            Loaded::Waiting => false,
            Loaded::Failed(error) => !error.passes(),
            Loaded::Known => true,
        };
        let _ = loaded.wait_for(is_over).await;
        self.known()
    }

    /// Waits until its rules are known, but no longer than this.
    pub(super) async fn known_within(&self, limit: Duration) -> Result<(), LogError> {
        if !self.is_loaded() {
            let _ = timeout(limit, self.loaded()).await;
        }
        self.known()
    }

    /// The same, but does not wait for a log that is known to be away.
    pub(super) async fn looked_up(&self, limit: Duration) -> Result<(), LogError> {
        let is_away = self
            .shared
            .upgrade()
            .is_some_and(|shared| shared.relay.health().is_err());
        if !is_away && !self.is_loaded() {
            let mut loaded = self.loaded.subscribe();
            let looked_up = loaded.wait_for(|loaded| *loaded != Loaded::Waiting);
            let _ = timeout(limit, looked_up).await;
        }
        self.known()
    }

    /// Whether its rules are known, and if not, why.
    pub(super) fn known(&self) -> Result<(), LogError> {
        let why = match &*self.loaded.borrow() {
            Loaded::Known => return Ok(()),
            Loaded::Failed(error) => error.clone(),
            Loaded::Waiting => {
                LogError::Unavailable("the room's rules are not read yet".to_owned())
            }
        };
        // What is wrong with the log now says more than what was when they were last asked for.
        let health = self.shared.upgrade().map(|shared| shared.relay.health());
        Err(health.and_then(Result::err).unwrap_or(why))
    }

    /// Its rules can't be read just now; those it has stay.
    fn cannot_load(&self, error: LogError) {
        self.loaded.send_if_modified(|loaded| {
            let is_new = *loaded != Loaded::Known;
            if is_new {
                *loaded = Loaded::Failed(error);
            }
            is_new
        });
    }

    /// Its rules may have changed without this node's being told: reads them again.
    pub(super) fn reload(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.room.owner().is_none() {
            tokio::spawn(load(Arc::downgrade(self), shared.clone()));
        }
    }

    /// Somebody comes; the number is for [`Side::leave`].
    pub(super) fn enter(&self, stay: Weak<Stay>) -> usize {
        lock(&self.stays).insert(stay)
    }

    pub(super) fn leave(&self, number: usize) {
        let mut stays = lock(&self.stays);
        stays.try_remove(number);
        if stays.is_empty() {
            *stays = Slab::new();
            self.touch();
        }
    }

    /// The stays of one user here.
    pub(super) fn stays_of(&self, user: &str) -> Vec<Arc<Stay>> {
        let mut stays = self.stays();
        stays.retain(|stay| stay.user() == Some(user));
        stays
    }

    /// Whether a user is here, on this node, whom no moderator's word counts against.
    pub(super) fn is_immune(&self, user: &str) -> bool {
        self.stays_of(user).iter().any(|stay| stay.is_immune())
    }

    /// All stays here. None of them may end under the lock, which its end takes.
    pub(super) fn stays(&self) -> Vec<Arc<Stay>> {
        let stays = lock(&self.stays);
        stays
            .iter()
            .filter_map(|(_, stay)| stay.upgrade())
            .collect()
    }

    /// Has the next tick visit it.
    pub(super) fn stir(self: &Arc<Self>) {
        if !self.stirred.swap(true, Ordering::AcqRel)
            && let Some(shared) = self.shared.upgrade()
        {
            shared.stirred().push(self.clone());
        }
    }

    /// One more session is to be told who is here.
    pub(super) fn watch(self: &Arc<Self>, shared: &Arc<Shared>) {
        lock(&self.watch).watchers += 1;
        self.open_roster(shared);
    }

    /// One less.
    pub(super) fn unwatch(&self) {
        lock(&self.watch).watchers -= 1;
        self.touch();
    }

    /// A watcher takes its seat about now.
    pub(super) fn welcome(self: &Arc<Self>) {
        // Two ticks: the first may come before the seat is taken.
        self.newcomers.store(2, Ordering::Release);
        self.stir();
    }

    fn open_roster(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut watch = lock(&self.watch);
        if watch.roster.is_none() {
            watch.roster = Some(Roster::default());
            drop(watch);
            self.reread(shared);
        }
    }

    /// Everybody here, at most so many, and how many there are. Waits until it's known.
    pub(super) async fn present(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        limit: usize,
    ) -> (Vec<Present>, usize) {
        self.open_roster(shared);
        let mut settled = self.settled.subscribe();
        let mut nodes = shared.nodes.subscribe();
        loop {
            settled.mark_unchanged();
            nodes.mark_unchanged();
            let are_nodes_known = shared.nodes.borrow().as_of.is_some();
            {
                let watch = lock(&self.watch);
                if let Some(roster) = watch.roster.as_ref()
                    && are_nodes_known
                    && roster.is_settled()
                {
                    return (roster.present(limit), roster.count());
                }
            }
            tokio::select! {
                _ = settled.changed() => {}
                _ = nodes.changed() => {}
            }
            self.open_roster(shared);
        }
    }

    /// Reads the people of every node anew: of those that live, and of those that were heard since
    /// it was asked which do.
    pub(super) fn reread(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut nodes: BTreeSet<NodeId> = shared.living().into_iter().collect();
        {
            let watch = lock(&self.watch);
            nodes.extend(watch.roster.iter().flat_map(Roster::nodes).cloned());
        }
        for node in nodes {
            self.read(shared, &node);
        }
    }

    fn read(self: &Arc<Self>, shared: &Arc<Shared>, node: &NodeId) {
        let mut watch = lock(&self.watch);
        if let Some(roster) = watch.roster.as_mut() {
            let ticket = roster.begin_reading(node);
            let reading = read(Arc::downgrade(self), shared.clone(), node.clone(), ticket);
            tokio::spawn(reading);
        }
    }

    fn awaits(&self, node: &NodeId, ticket: &Ticket) -> bool {
        let watch = lock(&self.watch);
        let mut roster = watch.roster.iter();
        roster.any(|roster| roster.awaits(node, ticket))
    }

    /// A node's people were read. Returns the ticket for reading them once more, if that's needed.
    fn end_reading(
        self: &Arc<Self>,
        node: &NodeId,
        ticket: &Ticket,
        records: Vec<(String, Bytes)>,
    ) -> Option<Ticket> {
        let again = {
            let mut watch = lock(&self.watch);
            let roster = watch.roster.as_mut()?;
            let (members, upto) = members(records);
            roster.end_reading(node, ticket, members, upto)
        };
        if again.is_none() {
            self.settled.send_replace(());
            self.stir();
        }
        again
    }

    /// Holds the roster against who lives: nodes it doesn't know are read, dead ones dropped.
    pub(super) fn on_beat(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        living: &[NodeId],
        as_of: Instant,
    ) {
        let mut unknown = Vec::new();
        {
            let mut watch = lock(&self.watch);
            let watch = &mut *watch;
            let Some(roster) = &mut watch.roster else {
                return;
            };
            if watch.watchers == 0 && now_idle(&self.touched) {
                // Nobody has asked for a while.
                watch.roster = None;
                watch.heard.clear();
                return;
            }
            let dead: Vec<NodeId> = roster
                .nodes()
                .filter(|node| !living.contains(node))
                .filter(|node| watch.heard.get(node).is_none_or(|heard| *heard < as_of))
                .cloned()
                .collect();
            for node in &dead {
                roster.drop_node(node);
                watch.heard.remove(node);
            }
            if !dead.is_empty() {
                self.settled.send_replace(());
                self.stir();
            }
            let known = |node: &&NodeId| roster.nodes().any(|other| other == *node);
            unknown.extend(living.iter().filter(|node| !known(node)).cloned());
        }
        for node in unknown {
            self.read(shared, &node);
        }
    }

    /// Whether somebody wants to know who is here.
    pub(super) fn is_watched(&self) -> bool {
        lock(&self.watch).roster.is_some()
    }

    /// Tells what has changed since the last tick.
    pub(super) fn tick(self: &Arc<Self>, shared: &Arc<Shared>, now: Instant) {
        self.stirred.store(false, Ordering::Release);
        self.reactions.flush(self, shared);
        let limit = shared.settings.presence_limit;
        let newcomers = self.newcomers.load(Ordering::Acquire);
        let mut asides = Vec::new();
        let mut again = newcomers > 1;
        {
            let mut watch = lock(&self.watch);
            let watch = &mut *watch;
            let Some(roster) = &mut watch.roster else {
                return;
            };
            if !roster.is_settled() || shared.nodes.borrow().as_of.is_none() {
                // Whoever came or went is told when it's known; reading stirs again.
                return;
            }
            if watch.watchers == 0 {
                roster.take_moves();
                return;
            }
            let (room, count) = (&self.room, roster.count());
            let is_large = count > limit;
            if is_large {
                if newcomers > 0 {
                    // Should the room get smaller before the others are told numbers, too, these
                    // need all names.
                    watch.told.1 = true;
                    asides.push(told::count(room, count, Audience::Newcomers));
                }
                let is_due = watch.next_count.is_none_or(|due| due <= now);
                if watch.told.0 != count && is_due {
                    roster.take_moves();
                    asides.push(told::count(room, count, Audience::Watchers));
                    watch.told = (count, true);
                    let share = u32::try_from(count / limit.max(1)).unwrap_or(u32::MAX);
                    let pause = super::TICK.saturating_mul(share).min(COUNT_EVERY);
                    watch.next_count = Some(now + pause);
                } else {
                    again |= watch.told.0 != count;
                }
            } else {
                let moves = roster.take_moves();
                let is_change = !moves.is_empty();
                let everybody = |audience| told::everybody(room, roster.present(limit), audience);
                if watch.told.1 || moves.roles {
                    // They were told numbers only, or other roles.
                    asides.push(everybody(Audience::Watchers));
                } else if is_change {
                    asides.push(told::moves(room, &moves));
                }
                if newcomers > 0 || is_change {
                    asides.push(everybody(Audience::Newcomers));
                }
                watch.told = (count, false);
            }
        }
        // Not if somebody has come since.
        let _ = self.newcomers.compare_exchange(
            newcomers,
            newcomers.saturating_sub(1),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        for aside in asides {
            shared.relay.tell(&self.room, Arc::new(aside));
        }
        if again {
            self.stir();
        }
    }

    fn hear(self: &Arc<Self>, shared: &Arc<Shared>, message: &[u8]) {
        match Message::decode(message) {
            Some(Message::Ephemeral { except, json }) => {
                let own = shared.own();
                let except = except.filter(|(node, _)| node == own.as_str());
                let aside = told::ephemeral(json, except.map(|(_, number)| number));
                shared.relay.tell(&self.room, Arc::new(aside));
            }
            Some(Message::Reactions { counts, totals }) => {
                let aside = told::reactions(&self.room, &counts, &totals);
                shared.relay.tell(&self.room, Arc::new(aside));
            }
            Some(Message::Presence {
                node,
                seq,
                set,
                removed,
            }) => {
                let node = NodeId::new(&node);
                let gap = {
                    let mut watch = lock(&self.watch);
                    let watch = &mut *watch;
                    let Some(roster) = &mut watch.roster else {
                        return;
                    };
                    watch.heard.insert(node.clone(), Instant::now());
                    roster.apply(&node, wire::delta(seq, set, removed))
                };
                if let Some(ticket) = gap {
                    tokio::spawn(read(Arc::downgrade(self), shared.clone(), node, ticket));
                }
                self.stir();
            }
            Some(Message::Unknown) | None => {}
        }
    }
}

/// A listening ear. It must not keep its side alive, which keeps it.
struct SideEar(Weak<Side>);

impl SideEar {
    fn side(&self) -> Option<(Arc<Side>, Arc<Shared>)> {
        let side = self.0.upgrade()?;
        let shared = side.shared.upgrade()?;
        Some((side, shared))
    }
}

impl Ear for SideEar {
    fn on_listening(&self) {
        if let Some((side, shared)) = self.side() {
            side.reread(&shared);
        }
    }

    fn on_message(&self, message: Bytes) {
        if let Some((side, shared)) = self.side() {
            side.hear(&shared, &message);
        }
    }
}

/// Reads a room's rules, however long that takes.
async fn load(side: Weak<Side>, shared: Arc<Shared>) {
    let mut audits = shared.audits.subscribe();
    loop {
        // An act between the reading and the following would be missed.
        let follows = audits.wait_for(|follows| follows.is_some()).await;
        let follows = follows.ok().and_then(|follows| (*follows).clone());
        if let Some(Err(error)) = follows {
            match side.upgrade() {
                Some(side) => side.cannot_load(error),
                None => return,
            }
            let _ = audits.changed().await;
            continue;
        }
        let Some(room) = side.upgrade().map(|side| side.room.clone()) else {
            return;
        };
        match shared.board.rules(&room).await {
            Ok(rules) => {
                if let Some(side) = side.upgrade() {
                    *side.rules() = Rules::read(rules);
                    side.loaded.send_replace(Loaded::Known);
                    super::audit::enforce(&side);
                }
                return;
            }
            Err(error) => {
                tracing::debug!(%room, %error, "cannot read a room's rules");
                if let Some(side) = side.upgrade() {
                    side.cannot_load(error);
                }
                sleep(RETRY).await;
            }
        }
    }
}

fn now_idle(touched: &Mutex<Instant>) -> bool {
    lock(touched).elapsed() >= LINGER
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
