//! From room names to rooms: the first subscriber opens one, and some time after the last has
//! left it retires.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::entry::RoomName;
use super::log::TailGuard;
use super::room::{Room, RoomShared};

/// How often rooms without subscribers are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// The rooms of a node.
pub(super) struct Registry {
    rooms: Mutex<HashMap<RoomName, Opened>>,
    shared: Arc<RoomShared>,
    linger: Duration,
}

struct Opened {
    room: Arc<Room>,
    members: usize,
    /// When the last member left.
    idle_since: Option<Instant>,
    /// Stops the tail when the room goes.
    _tail: TailGuard,
}

/// One subscriber's stake in a room; dropping it leaves.
pub(super) struct Membership {
    room: Arc<Room>,
    registry: Arc<Registry>,
}

impl Membership {
    pub(super) fn room(&self) -> &Arc<Room> {
        &self.room
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut rooms = self.registry.rooms();
        if let Some(opened) = rooms.get_mut(self.room.name()) {
            opened.members -= 1;
            if opened.members == 0 {
                opened.idle_since = Some(Instant::now());
            }
        }
    }
}

impl Registry {
    /// An empty registry, whose sweep runs on the current runtime until it's dropped.
    pub(super) fn new(shared: Arc<RoomShared>, linger: Duration) -> Arc<Self> {
        let registry = Arc::new(Registry {
            rooms: Mutex::default(),
            shared,
            linger,
        });
        tokio::spawn(sweep(Arc::downgrade(&registry)));
        registry
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomName, Opened>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a room, opening it if need be.
    pub(super) fn enter(self: &Arc<Self>, name: &RoomName) -> Membership {
        let mut rooms = self.rooms();
        let opened = match rooms.entry(name.clone()) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let room = Room::new(name.clone(), self.shared.clone());
                self.shared.stats.rooms.add(1);
                slot.insert(Opened {
                    _tail: self.shared.log.tail(room.clone()),
                    room,
                    members: 0,
                    idle_since: None,
                })
            }
        };
        opened.members += 1;
        opened.idle_since = None;
        Membership {
            room: opened.room.clone(),
            registry: self.clone(),
        }
    }

    /// The room of that name, if it's open here.
    pub(super) fn find(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.rooms().get(name).map(|opened| opened.room.clone())
    }

    /// Retires rooms that nobody has been in for the linger time; frees what passes left behind.
    fn sweep(&self, now: Instant) {
        let mut retired = Vec::new();
        let mut rooms = self.rooms();
        rooms.retain(|_, opened| {
            opened.room.tidy(now);
            let goes = opened
                .idle_since
                .is_some_and(|since| now.duration_since(since) >= self.linger);
            if goes {
                retired.push(opened.room.clone());
            }
            !goes
        });
        drop(rooms);
        self.shared.stats.rooms.sub(retired.len() as u64);
    }
}

async fn sweep(registry: Weak<Registry>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        match registry.upgrade() {
            Some(registry) => registry.sweep(Instant::now()),
            None => return,
        }
    }
}
