//! The rooms that are tracked, and which of them are to be read.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::super::{Order, Room};
use crate::relay::log::LogError;

/// Every room is read at least so often, bell or no bell. 100,000 rooms cost Redis less than 1 %
/// of a core that way.
const SWEEP: Duration = Duration::from_secs(30);

/// Shortest pause between two steps of the sweep.
const SWEEP_STEP: Duration = Duration::from_millis(50);

/// The rooms.
#[derive(Default)]
pub(in super::super) struct Table {
    rooms: HashMap<u64, Tracked>,
    /// Nearly always one room per key; two while one tail of a room replaces another.
    by_key: HashMap<Bytes, SmallVec<[u64; 1]>>,
    /// Rooms whose flag is set, in the order it was. May hold rooms that left.
    dirty: VecDeque<u64>,
    /// Rooms in the order they are swept. May hold rooms that left.
    sweep: VecDeque<u64>,
    swept: Option<Instant>,
    /// Rooms that had an error, and when to try them again.
    retries: BinaryHeap<Reverse<(Instant, u64)>>,
}

struct Tracked {
    room: Room,
    dirty: bool,
}

impl Table {
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    pub(super) fn room(&self, id: u64) -> Option<&Room> {
        self.rooms.get(&id).map(|tracked| &tracked.room)
    }

    /// Gives the rooms away.
    pub(in super::super) fn into_rooms(self) -> Vec<(u64, Room)> {
        self.rooms
            .into_iter()
            .map(|(id, tracked)| (id, tracked.room))
            .collect()
    }

    /// A room comes or goes.
    pub(super) fn apply(&mut self, order: Order) {
        match order {
            Order::Join(id, room) => {
                self.by_key.entry(room.key.clone()).or_default().push(id);
                self.rooms.insert(id, Tracked { room, dirty: false });
                self.sweep.push_back(id);
                self.ring(id);
            }
            Order::Leave(id) => {
                if let Some(tracked) = self.rooms.remove(&id)
                    && let Some(ids) = self.by_key.get_mut(&tracked.room.key)
                {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.by_key.remove(&tracked.room.key);
                    }
                }
            }
        }
    }

    /// The room is to be read.
    pub(super) fn ring(&mut self, id: u64) {
        if let Some(tracked) = self.rooms.get_mut(&id)
            && !tracked.dirty
        {
            tracked.dirty = true;
            self.dirty.push_back(id);
        }
    }

    /// The room of a key is to be read. A room that just left may still be rung for.
    pub(super) fn ring_key(&mut self, key: &[u8]) {
        let ids = self.by_key.get(key).cloned().unwrap_or_default();
        for id in ids {
            self.ring(id);
        }
    }

    /// Every room is to be read.
    pub(super) fn all_dirty(&mut self) {
        let ids: Vec<u64> = self.rooms.keys().copied().collect();
        for id in ids {
            self.ring(id);
        }
    }

    /// The room is to be read at that time.
    pub(super) fn retry(&mut self, id: u64, at: Instant) {
        self.retries.push(Reverse((at, id)));
    }

    /// Takes out rooms to read. Their flags are cleared now, before the read goes out: a bell that
    /// rings from here on is a new one.
    pub(super) fn take_dirty(&mut self, most: usize) -> Vec<u64> {
        let mut batch = Vec::new();
        while batch.len() < most {
            let Some(id) = self.dirty.pop_front() else {
                break;
            };
            if let Some(tracked) = self.rooms.get_mut(&id) {
                tracked.dirty = false;
                batch.push(id);
            }
        }
        batch
    }

    /// Rings for what is due: retries, and the sweep's share.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some(Reverse((at, id))) = self.retries.peek().copied()
            && at <= now
        {
            self.retries.pop();
            self.ring(id);
        }
        let since = *self.swept.get_or_insert(now);
        let share = now.duration_since(since).as_secs_f64() / SWEEP.as_secs_f64();
        let due = (share * self.rooms.len() as f64) as usize;
        if due == 0 {
            return;
        }
        self.swept = Some(now);
        let mut left = due.min(self.rooms.len());
        while left > 0
            && let Some(id) = self.sweep.pop_front()
        {
            if self.rooms.contains_key(&id) {
                self.sweep.push_back(id);
                self.ring(id);
                left -= 1;
            }
        }
    }

    /// When [`Table::tick`] has something to do again.
    pub(super) fn next_tick(&self, now: Instant) -> Instant {
        let rooms = u32::try_from(self.rooms.len()).unwrap_or(u32::MAX).max(1);
        let sweep = self.swept.unwrap_or(now) + (SWEEP / rooms).max(SWEEP_STEP);
        let sweep = sweep.max(now + Duration::from_millis(1));
        match self.retries.peek() {
            Some(Reverse((at, _))) => sweep.min(*at),
            None => sweep,
        }
    }

    /// Tells every room.
    pub(super) fn on_error(&self, error: &LogError) {
        for tracked in self.rooms.values() {
            tracked.room.feed.on_error(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::RoomName;
    use crate::relay::log::{Feed, Next, Read, Survey};
    use std::sync::Arc;

    struct Mute(RoomName);

    impl Feed for Mute {
        fn room(&self) -> &RoomName {
            &self.0
        }
        fn next(&self) -> Next {
            Next::Survey { newest: 1 }
        }
        fn on_read(&self, _: Read) {}
        fn on_survey(&self, _: Survey) {}
        fn on_error(&self, _: &LogError) {}
    }

    fn join(id: u64, name: &str) -> Order {
        let feed = Arc::new(Mute(RoomName::parse(name).unwrap()));
        let key = Bytes::copy_from_slice(name.as_bytes());
        Order::Join(id, Room::new(key, feed))
    }

    #[tokio::test(start_paused = true)]
    async fn rings_once_until_it_is_taken() {
        let mut table = Table::default();
        table.apply(join(1, "a"));
        table.apply(join(2, "b"));
        table.apply(join(3, "a"));
        assert_eq!(table.take_dirty(2), [1, 2]);
        assert_eq!(table.take_dirty(9), [3]);
        table.ring_key(b"a");
        table.ring_key(b"a");
        table.ring_key(b"unknown");
        assert_eq!(table.take_dirty(9), [1, 3]);
        table.ring_key(b"b");
        table.apply(Order::Leave(2));
        table.apply(Order::Leave(1));
        assert!(table.take_dirty(9).is_empty());
        table.all_dirty();
        assert_eq!(table.take_dirty(9), [3]);
        table.apply(Order::Leave(3));
        assert!(table.is_empty() && table.by_key.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn sweeps_every_room_once_per_period() {
        let mut table = Table::default();
        let start = Instant::now();
        for id in 0..60 {
            table.apply(join(id, &format!("room {id}")));
        }
        table.take_dirty(99);
        table.tick(start);
        let mut seen = Vec::new();
        for step in 1..=30 {
            table.tick(start + Duration::from_secs(step));
            let batch = table.take_dirty(99);
            assert!(batch.len() <= 3, "spread evenly: {batch:?}");
            seen.extend(batch);
        }
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() >= 59, "{}", seen.len());
        table.retry(7, start + Duration::from_secs(31));
        assert!(
            table.next_tick(start + Duration::from_secs(30)) <= start + Duration::from_secs(31)
        );
    }
}
