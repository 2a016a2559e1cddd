//! What nodes share besides the streams, in memory: several nodes in one process may have one
//! board, die on it and be buried, as they would on a Redis.
//!
//! It's under the same lock as the streams, so that notices come with their changes. Leases run by
//! tokio's clock. Whispers go through one task, hence in order, and reach ears a moment later.

mod ears;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{MemoryLog, Settings, Shared, Streams};
use crate::people::board::{Answer, Beat, Board, Change, Ear, EarGuard, NodeId, RoomChange};
use crate::relay::entry::{EntryId, Fields, RoomName};
use crate::relay::log::LogError;

/// How many of the acts are kept.
const AUDIT_KEPT: usize = 10_000;

/// A room's counters are forgotten when nobody counted for so long.
const COUNTERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// The board.
#[derive(Default)]
pub(super) struct State {
    nodes: BTreeMap<NodeId, Node>,
    rules: HashMap<RoomName, BTreeMap<String, String>>,
    counters: HashMap<RoomName, (BTreeMap<String, u64>, Instant)>,
    secret: Option<Bytes>,
    ears: ears::Ears,
}

/// What one node has written.
#[derive(Default)]
struct Node {
    lease: Option<(Instant, Bytes)>,
    rooms: HashMap<RoomName, Room>,
    users: HashMap<String, Bytes>,
}

#[derive(Default)]
struct Room {
    users: BTreeMap<String, Bytes>,
    size: u64,
}

impl Node {
    fn lives(&self) -> bool {
        matches!(&self.lease, Some((until, _)) if *until > Instant::now())
    }

    fn has(&self, room: &RoomName, user: &str) -> bool {
        let room = self.rooms.get(room);
        room.is_some_and(|room| room.users.contains_key(user))
    }
}

impl State {
    /// As after a reconnect: ears listen anew.
    pub(super) fn reconnected(&mut self) {
        self.ears.listen_anew();
    }

    fn elsewhere(&self, node: &NodeId, room: &RoomName, user: &str) -> bool {
        let mut others = self.nodes.iter().filter(|(other, _)| *other != node);
        others.any(|(_, other)| other.has(room, user))
    }
}

impl MemoryLog {
    /// Forgets everything nodes shared besides the streams, as a Redis does that was restarted
    /// empty.
    pub fn forget_board(&self) {
        let (_, mut streams) = self.shared.lock();
        let board = &mut streams.board;
        board.nodes.clear();
        board.rules.clear();
        board.counters.clear();
        board.reconnected();
    }

    /// From now on whispers are lost, as on a connection that broke; `false` ends it, and all ears
    /// are told that they listen again.
    pub fn drop_whispers(&self, lost: bool) {
        self.shared.lock().1.board.ears.set_losing(lost);
    }

    /// Answers what `work` says of the streams, unless the log is told to fail.
    pub(super) fn answer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Streams, &Settings, u64) -> Result<T, LogError> + Send + 'static,
    ) -> Answer<T> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let (now, mut streams) = shared.up()?;
            work(&mut streams, &shared.settings, now)
        })
    }
}

impl Board for MemoryLog {
    fn whisper(&self, room: &RoomName, message: Bytes) {
        if let Ok((_, streams)) = self.shared.up() {
            streams.board.ears.tell(room, message);
        }
    }

    /// Spawns a task, so it needs a tokio runtime around it.
    fn listen(&self, room: &RoomName, ear: Arc<dyn Ear>) -> EarGuard {
        let id = self.shared.lock().1.board.ears.add(room, ear, &self.shared);
        // Weakly: an ear may own the log.
        let (shared, room) = (Arc::downgrade(&self.shared), room.clone());
        EarGuard::new(move || {
            if let Some(shared) = shared.upgrade() {
                // Dropped after the lock is free: it may own anything.
                let _ear = shared.lock().1.board.ears.remove(&room, id);
            }
        })
    }

    fn beat(&self, node: &NodeId, status: Bytes, lease: Duration) -> Answer<Beat> {
        let node = node.clone();
        self.answer(move |streams, _, _| {
            let nodes = &mut streams.board.nodes;
            let own = nodes.entry(node).or_default();
            let kept = own.lives();
            own.lease = Some((Instant::now() + lease, status));
            let (mut living, mut dead) = (Vec::new(), Vec::new());
            for (id, node) in nodes {
                match &node.lease {
                    Some((_, status)) if node.lives() => living.push((id.clone(), status.clone())),
                    _ => dead.push(id.clone()),
                }
            }
            Ok(Beat { kept, living, dead })
        })
    }

    fn retire(&self, node: &NodeId) -> Answer<()> {
        let node = node.clone();
        self.answer(move |streams, _, _| {
            if let Some(node) = streams.board.nodes.get_mut(&node) {
                node.lease = None;
            }
            Ok(())
        })
    }

    fn write(&self, node: &NodeId, changes: Vec<Change>, notices: bool) -> Answer<()> {
        let node = node.clone();
        self.answer(move |streams, settings, now| {
            for change in changes {
                let own = streams.board.nodes.entry(node.clone()).or_default();
                match change {
                    Change::User(user, Some(record)) => drop(own.users.insert(user, record)),
                    Change::User(user, None) => drop(own.users.remove(&user)),
                    Change::Room(change) => {
                        let told = notices.then_some((settings, now));
                        streams.change_room(&node, change, told)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn bury(&self, node: &NodeId, notices: bool) -> Answer<bool> {
        let node = node.clone();
        self.answer(move |streams, settings, now| {
            let nodes = &mut streams.board.nodes;
            if nodes.get(&node).is_some_and(Node::lives) {
                return Ok(false);
            }
            let Some(buried) = nodes.remove(&node) else {
                return Ok(true);
            };
            if notices {
                for (room, people) in buried.rooms {
                    for user in people.users.into_keys() {
                        streams.notice(&node, &room, "leave", &user, settings, now)?;
                    }
                }
            }
            Ok(true)
        })
    }

    fn members(&self, room: &RoomName, node: &NodeId) -> Answer<Vec<(String, Bytes)>> {
        let (room, node) = (room.clone(), node.clone());
        self.answer(move |streams, _, _| {
            let node = streams.board.nodes.get(&node);
            let users = node.and_then(|node| Some(&node.rooms.get(&room)?.users));
            Ok(users.map_or_else(Vec::new, |users| {
                let pair = |(user, record): (&String, &Bytes)| (user.clone(), record.clone());
                users.iter().map(pair).collect()
            }))
        })
    }

    fn user(&self, user: &str, nodes: &[NodeId]) -> Answer<Vec<Option<Bytes>>> {
        let (user, nodes) = (user.to_owned(), nodes.to_vec());
        self.answer(move |streams, _, _| {
            let all = &streams.board.nodes;
            let record = |node| all.get(node)?.users.get(&user).cloned();
            Ok(nodes.iter().map(record).collect())
        })
    }

    fn sizes(&self, rooms: &[RoomName], nodes: &[NodeId]) -> Answer<Vec<Vec<u64>>> {
        let (rooms, nodes) = (rooms.to_vec(), nodes.to_vec());
        self.answer(move |streams, _, _| {
            let all = &streams.board.nodes;
            let size = |room, node| Some(all.get(node)?.rooms.get(room)?.size);
            let row = |room| {
                let sizes = nodes.iter().map(|node| size(room, node).unwrap_or(0));
                sizes.collect()
            };
            Ok(rooms.iter().map(row).collect())
        })
    }

    fn rules(&self, room: &RoomName) -> Answer<Vec<(String, String)>> {
        let room = room.clone();
        self.answer(move |streams, _, _| {
            let rules = streams.board.rules.get(&room).cloned();
            Ok(rules.unwrap_or_default().into_iter().collect())
        })
    }

    fn rule(&self, rooms: &[RoomName], name: &str) -> Answer<Vec<Option<String>>> {
        let (rooms, name) = (rooms.to_vec(), name.to_owned());
        self.answer(move |streams, _, _| {
            let rules = &streams.board.rules;
            let rule = |room| rules.get(room)?.get(&name).cloned();
            Ok(rooms.iter().map(rule).collect())
        })
    }

    fn act(
        &self,
        room: &RoomName,
        rules: Vec<(String, Option<String>)>,
        record: Fields,
    ) -> Answer<EntryId> {
        let room = room.clone();
        self.answer(move |streams, settings, now| {
            let audit = Settings {
                keep: Some(AUDIT_KEPT),
                keep_for: None,
                expire_after: None,
                ..settings.clone()
            };
            // First, as it's what may fail.
            let id = streams.append(&audit, now, RoomName::audit(), record, None)?;
            let all = &mut streams.board.rules;
            let kept = all.entry(room.clone()).or_default();
            for (name, value) in rules {
                match value {
                    Some(value) => drop(kept.insert(name, value)),
                    None => drop(kept.remove(&name)),
                }
            }
            if kept.is_empty() {
                all.remove(&room);
            }
            Ok(id)
        })
    }

    fn count(&self, room: &RoomName, counts: Vec<(String, u64)>) -> Answer<Vec<u64>> {
        let room = room.clone();
        self.answer(move |streams, _, _| {
            if counts.is_empty() {
                return Ok(Vec::new());
            }
            let (all, now) = (&mut streams.board.counters, Instant::now());
            all.retain(|_, (_, until)| *until > now);
            let (counters, until) = all.entry(room).or_insert_with(|| (BTreeMap::new(), now));
            *until = now + COUNTERS_KEPT;
            let mut add = |(name, count)| {
                let counter: &mut u64 = counters.entry(name).or_default();
                *counter = counter.saturating_add(count);
                *counter
            };
            Ok(counts.into_iter().map(&mut add).collect())
        })
    }

    fn secret(&self, made: Bytes) -> Answer<Bytes> {
        self.answer(move |streams, _, _| Ok(streams.board.secret.get_or_insert(made).clone()))
    }

    fn rooms(&self, cursor: u64, limit: usize) -> Answer<(Vec<RoomName>, u64)> {
        self.answer(move |streams, _, now| {
            // In the order of their hashes, so that rooms that come and go move no others.
            let live = streams.rooms.iter().filter(|(_, s)| !s.expired(now));
            let public = live.filter_map(|(room, _)| {
                let public =
                    !room.as_str().starts_with('@') && RoomName::parse(room.as_str()).is_ok();
                public.then(|| (place(room), room))
            });
            let mut rooms: Vec<_> = public.filter(|(at, _)| *at >= cursor).collect();
            rooms.sort_unstable();
            // Those with one hash stay on one page.
            let end = match limit.max(1).checked_sub(1).and_then(|last| rooms.get(last)) {
                Some((last, _)) => rooms.partition_point(|(at, _)| at <= last),
                None => rooms.len(),
            };
            let next = rooms.get(end).map_or(0, |(at, _)| *at);
            let page = rooms[..end].iter().map(|(_, room)| (*room).clone());
            Ok((page.collect(), next))
        })
    }
}

/// Where a room is among all, never at 0.
fn place(room: &RoomName) -> u64 {
    let mut hasher = DefaultHasher::new();
    room.hash(&mut hasher);
    hasher.finish().max(1)
}

impl Streams {
    /// Changes who a node has in a room; with the settings and the time, tells of it in the room.
    fn change_room(
        &mut self,
        node: &NodeId,
        change: RoomChange,
        notices: Option<(&Settings, u64)>,
    ) -> Result<(), LogError> {
        let room = &change.room;
        let tell = |streams: &mut Streams, event, user: &str| match notices {
            Some((settings, now)) => streams.notice(node, room, event, user, settings, now),
            None => Ok(()),
        };
        for (user, record) in change.set {
            if self
                .people(node, room)
                .users
                .insert(user.clone(), record)
                .is_none()
            {
                tell(self, "join", &user)?;
            }
        }
        for user in change.removed {
            if self.people(node, room).users.remove(&user).is_some() {
                tell(self, "leave", &user)?;
            }
        }
        self.people(node, room).size = change.size;
        if change.size == 0
            && let Some(own) = self.board.nodes.get_mut(node)
        {
            own.rooms.remove(room);
        }
        self.board.ears.tell(room, change.message);
        Ok(())
    }

    fn people(&mut self, node: &NodeId, room: &RoomName) -> &mut Room {
        let own = self.board.nodes.entry(node.clone()).or_default();
        own.rooms.entry(room.clone()).or_default()
    }

    /// Tells that a user came or went, unless another node has them in the room.
    fn notice(
        &mut self,
        node: &NodeId,
        room: &RoomName,
        event: &'static str,
        user: &str,
        settings: &Settings,
        now: u64,
    ) -> Result<(), LogError> {
        if user.is_empty() || self.board.elsewhere(node, room, user) {
            return Ok(());
        }
        let fields = [("event", event), ("user", user)];
        let fields = fields.map(|(n, v)| (Bytes::from(n), Bytes::copy_from_slice(v.as_bytes())));
        self.append(settings, now, room.clone(), fields.into(), None)
            .map(drop)
    }
}

#[cfg(test)]
mod tests;
