//! [`Side`]: the people's side of one room on this node: its rules, who stays here, and, if somebody
//! asks, who is in it over all nodes.

mod ear;
mod loading;
mod reading;
mod watching;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use slab::Slab;
use tokio::sync::watch;
use tokio::time::Instant;

use self::ear::SideEar;
use self::loading::{Loaded, load};
use self::watching::Watch;
use super::Shared;
use super::board::EarGuard;
use super::pace::Pace;
use super::reactions::Tally;
use super::rules::Rules;
use super::session::Stay;
use crate::relay::entry::RoomName;

/// How long a side is kept after anybody needed it: longer than the pause between two requests of
/// one client.
const LINGER: Duration = Duration::from_secs(30);

/// How long to wait before the board is asked again, when it does not answer.
const RETRY: Duration = Duration::from_millis(250);

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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
