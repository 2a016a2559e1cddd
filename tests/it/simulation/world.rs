//! The simulated world: nodes, clients, streams, and what befalls them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tailcast::relay::WindowLimits;
use tailcast::relay::connection::{Began, Connection, NotJoined, Publish as Publishing};
use tailcast::relay::entry::{EntryId, Fields, RoomName};
use tailcast::relay::format::GapReason;
use tailcast::relay::hub::{Relay, Settings};
use tailcast::relay::log::{AppendError, Log, LogError, Range};
use tailcast::relay::position::Position;
use tailcast::store::memory::{self, MemoryLog};
use tokio::time::{Instant, sleep};

use super::history::{History, Past};
use super::log::{FarLog, Lie};
use super::wire::{self, CLOSING, Frame, MockWire, TELLING};
use crate::checker::{self, Event, Outcome, Publish, Run};
use crate::harness::truth;

/// The clock begins here, in Unix milliseconds.
const EPOCH: u64 = 1_700_000_000_000;

/// What may happen to a room's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    Trims,
    Losses,
    Everything,
}

/// One client's stay in one room: what the checkers get.
struct Record {
    room: usize,
    name: String,
    /// Entries that came before it in the room's history, if that's certain.
    began: Option<usize>,
    events: Vec<Event>,
    /// Still there at the end.
    stays: bool,
}

/// A client in a room, online or not.
struct Place {
    record: usize,
    /// Where to resume from.
    last: Option<EntryId>,
    /// Entries up to `last` in the room's history, where that's certain.
    passed: Option<usize>,
    /// The join failed, or was never tried.
    idle: bool,
}

struct Client {
    wire: Arc<MockWire>,
    connection: Option<Connection>,
    closes_at_gaps: bool,
    places: BTreeMap<usize, Place>,
}

pub(super) struct World {
    rng: StdRng,
    clock: Arc<AtomicU64>,
    log: MemoryLog,
    nodes: Vec<Arc<Relay>>,
    fates: Vec<Fate>,
    histories: Arc<Mutex<Vec<History>>>,
    clients: Vec<Client>,
    records: Vec<Record>,
    publishes: Vec<Publish>,
    keys: Vec<(usize, Bytes, String)>,
    serial: u64,
    failing: bool,
    /// The log is slow, so everything takes longer to settle.
    slow: bool,
}

/// What came out of a run.
#[derive(Default)]
pub(super) struct Report {
    pub(super) faults: Vec<String>,
    pub(super) entries: usize,
    pub(super) gaps: usize,
    pub(super) delivered: usize,
}

/// Runs one seed to its end.
pub(super) async fn run(seed: u64, lie: Option<Lie>) -> Report {
    let mut world = World::new(seed, lie);
    let steps = world.rng.random_range(20..150);
    for _ in 0..steps {
        world.step().await;
    }
    world.finish().await
}

fn name(room: usize) -> RoomName {
    RoomName::parse(&room.to_string()).unwrap()
}

impl World {
    fn new(seed: u64, lie: Option<Lie>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let clock = Arc::new(AtomicU64::new(EPOCH));
        let settings = memory::Settings {
            keep: None,
            ..memory::Settings::default()
        };
        let time = clock.clone();
        let log = MemoryLog::with_clock(settings, move || time.load(Ordering::Relaxed));
        let slow = rng.random_ratio(1, 3);
        let far = FarLog::new(log.clone(), rng.random(), slow, lie);
        let nodes = (0..rng.random_range(1..=2))
            .map(|_| {
                let settings = Settings {
                    window: WindowLimits {
                        entries: rng.random_range(5..=50),
                        bytes: if rng.random() { 1 << 20 } else { 8_000 },
                    },
                    window_total: if rng.random() { 1 << 20 } else { 10_000 },
                    linger: Duration::from_secs(rng.random_range(0..5)),
                    slow_timeout: rng.random::<bool>().then_some(Duration::from_secs(15)),
                    workers: rng.random_range(1..=3),
                    ..Settings::default()
                };
                Relay::new(Arc::new(far.clone()), settings)
            })
            .collect();
        let fates = [Fate::Nothing, Fate::Trims, Fate::Losses, Fate::Everything];
        let fates: Vec<_> = (0..rng.random_range(1..=3))
            .map(|_| *fates.choose(&mut rng).unwrap())
            .collect();
        let histories = fates.iter().map(|_| History::default()).collect();
        World {
            clock,
            log,
            nodes,
            fates,
            histories: Arc::new(Mutex::new(histories)),
            clients: Vec::new(),
            records: Vec::new(),
            publishes: Vec::new(),
            keys: Vec::new(),
            serial: 0,
            failing: false,
            slow,
            rng,
        }
    }

    fn histories(&self) -> MutexGuard<'_, Vec<History>> {
        self.histories.lock().unwrap()
    }

    fn any_room(&mut self) -> usize {
        self.rng.random_range(0..self.fates.len())
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..35 => {
                let room = self.any_room();
                for _ in 0..self.rng.random_range(1..8) {
                    self.publish(room, true);
                }
            }
            35..45 if self.clients.len() < 8 => self.arrive(),
            35..70 => self.client_acts(),
            70..80 => self.suffer().await,
            80..84 => {
                self.failing = !self.failing;
                let error = LogError::Unavailable("simulated".to_owned());
                self.log.set_failing(self.failing.then_some(error));
            }
            84..94 => self.settle().await,
            94..97 => self.notice().await,
            _ => sleep(Duration::from_millis(self.rng.random_range(1..400))).await,
        }
        for _ in 0..self.rng.random_range(0..4) {
            tokio::task::yield_now().await;
        }
        for client in 0..self.clients.len() {
            if self.rng.random_ratio(4, 5) {
                self.read(client);
            }
        }
    }

    /// Lets everything happen that happens soon.
    async fn settle(&mut self) {
        let millis = if self.slow { 100 } else { 1 };
        sleep(Duration::from_millis(millis)).await;
        if self.failing {
            return;
        }
        // A tail that met an error waits before it tries again.
        sleep(Duration::from_millis(60)).await;
        for (room, history) in self.histories.lock().unwrap().iter_mut().enumerate() {
            let state = self.log.state(&name(room)).now_or_never().unwrap().unwrap();
            let newest = newest(&self.log, room);
            history.level = history.entries.len();
            history.stood = state.is_some_and(|state| newest == Some(state.last));
        }
    }

    /// The same, and every tail looks whether its stream is what it was.
    async fn notice(&mut self) {
        if self.failing {
            return self.settle().await;
        }
        sleep(Duration::from_millis(1_200)).await;
        self.settle().await;
        self.histories()
            .iter_mut()
            .for_each(|history| history.unread = false);
    }

    /// Publishes something new, or perhaps what was published before under the same key.
    fn publish(&mut self, room: usize, again: bool) {
        self.tick(room);
        let again = again && self.rng.random_ratio(1, 10);
        let keyed = self.keys.iter().filter(|(known, ..)| *known == room);
        let keyed: Vec<_> = keyed.cloned().collect();
        let (payload, key) = match keyed.choose(&mut self.rng).filter(|_| again) {
            Some((_, payload, key)) => (payload.clone(), Some(key.clone())),
            None => {
                self.serial += 1;
                let payload = Bytes::from(self.serial.to_string());
                let key = self.rng.random_ratio(1, 5);
                let key = key.then(|| format!("key {}", self.serial));
                if let Some(key) = &key {
                    self.keys.push((room, payload.clone(), key.clone()));
                }
                (payload, key)
            }
        };
        let losing = self.rng.random_ratio(1, 20);
        self.log.set_losing_answers(losing);
        let fields: Fields = [(Bytes::from_static(b"message"), payload.clone())].into();
        let publish = Publishing {
            key: key.clone().map(Bytes::from),
            ..Publishing::new(name(room), fields)
        };
        let via = self.clients.choose(&mut self.rng);
        let outcome = match via.and_then(|client| client.connection.as_ref()) {
            None => self.nodes[0]
                .publish(publish)
                .now_or_never()
                .expect("memory answers at once"),
            Some(connection) => {
                let told = Arc::new(Mutex::new(None));
                let tell = told.clone();
                let done = Box::new(move |_: &_, outcome| {
                    tell.lock().unwrap().replace(outcome);
                });
                connection.publish(publish, done);
                let outcome = told.lock().unwrap().take();
                outcome.expect("memory answers at once")
            }
        };
        self.log.set_losing_answers(false);
        let outcome = match outcome {
            Ok(id) => Outcome::Stored(id),
            Err(AppendError::Refused(_)) => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        self.publishes.push(Publish {
            room: room.to_string(),
            payload: payload.clone(),
            key,
            outcome,
        });
        let newest = newest(&self.log, room);
        let history = &mut self.histories.lock().unwrap()[room];
        if let Some(id) = newest.filter(|id| history.find(*id).is_none()) {
            history.entries.push(Past {
                id,
                payload,
                life: history.life,
            });
        }
    }

    /// Moves the clock on, so that the next ID is one that never was.
    fn tick(&mut self, room: usize) {
        let mut now = self.clock.load(Ordering::Relaxed) + self.rng.random_range(0..4);
        let state = self.log.state(&name(room)).now_or_never().unwrap();
        let last = state
            .ok()
            .flatten()
            .map_or(EntryId::ZERO, |state| state.last);
        loop {
            let next = if now > last.ms {
                EntryId::new(now, 0)
            } else {
                EntryId::new(last.ms, last.seq + 1)
            };
            if self.histories()[room].find(next).is_none() {
                break;
            }
            now = now.max(last.ms) + 1;
        }
        self.clock.store(now, Ordering::Relaxed);
    }

    /// Something is done to a stream behind the relay's back.
    async fn suffer(&mut self) {
        let room = self.any_room();
        let fate = self.fates[room];
        if self.rng.random_ratio(2, 3) {
            self.settle().await;
        }
        match self.rng.random_range(0..6) {
            0 | 1 if matches!(fate, Fate::Trims | Fate::Everything) => self.trim(room),
            2 if fate == Fate::Everything => self.remove(room),
            3 if matches!(fate, Fate::Losses | Fate::Everything) => {
                self.delete(room);
                if self.rng.random_ratio(1, 3) {
                    // IDs begin below those that were.
                    let back = self.rng.random_range(1..2_000);
                    self.clock.fetch_sub(back, Ordering::Relaxed);
                    self.went_low(room).await;
                } else {
                    self.clock_past_all(room);
                }
            }
            4 if matches!(fate, Fate::Losses | Fate::Everything) => self.rewind(room).await,
            _ => {}
        }
    }

    fn trim(&mut self, room: usize) {
        let keep = self.rng.random_range(0..30);
        let history = &mut self.histories.lock().unwrap()[room];
        // A stream begun anew that was trimmed before anybody read it can have, by chance, the
        // very counts of the old one.
        if !history.unread {
            history.trimmed = true;
            self.log.trim(&name(room), keep);
        }
    }

    fn remove(&mut self, room: usize) {
        let history = &mut self.histories.lock().unwrap()[room];
        // One that nobody read makes a count that can be any other's.
        let back = self.rng.random_range(0..6);
        if let Some(index) = history.level.checked_sub(1 + back)
            && !history.unread
            && self.log.remove(&name(room), history.entries[index].id)
        {
            history.removed = true;
            history.excused.insert(index);
        }
    }

    fn delete(&mut self, room: usize) {
        if self.log.delete(&name(room)) {
            let history = &mut self.histories.lock().unwrap()[room];
            if !history.stood {
                // Entries that came and went while the tails stood on no entry left nothing to
                // find them by.
                history.excused.extend(0..history.entries.len());
            }
            history.life += 1;
            history.lost = true;
            history.unread = true;
        }
    }

    fn clock_past_all(&self, room: usize) {
        let histories = self.histories();
        let highest = histories[room].entries.iter().map(|past| past.id.ms).max();
        self.clock
            .fetch_max(highest.unwrap_or(EPOCH) + 1, Ordering::Relaxed);
    }

    async fn rewind(&mut self, room: usize) {
        let lost = self.rng.random_range(1..25);
        let held = held(&self.log, room);
        let keep = held.len().saturating_sub(lost).max(1);
        if held.len() <= keep {
            return;
        }
        self.log.rewind(&name(room), held[keep - 1]);
        {
            let history = &mut self.histories.lock().unwrap()[room];
            history.lost = true;
            history.unread = true;
            for id in &held[keep..] {
                // What a failover lost is not in the stream: not owed to those who missed it.
                let index = history.find(*id).expect("it was added");
                history.excused.insert(index);
            }
        }
        if self.rng.random() {
            self.clock_past_all(room);
        } else {
            self.clock.store(held[keep - 1].ms, Ordering::Relaxed);
            self.went_low(room).await;
        }
    }

    /// From now on IDs mean something else than they did. A position from before, held by a client
    /// alone, can't be told from one in the new stream, and neither can a page read in the
    /// moment before the tail looks. Here the tails look first.
    async fn went_low(&mut self, room: usize) {
        self.failing = false;
        self.log.set_failing(None);
        self.notice().await;
        let history = &mut self.histories.lock().unwrap()[room];
        history.low_since = history.entries.len();
    }

    fn arrive(&mut self) {
        let closes_at_gaps = self.rng.random_ratio(1, 4);
        let mut client = Client {
            wire: Arc::default(),
            connection: None,
            closes_at_gaps,
            places: BTreeMap::new(),
        };
        let rooms: Vec<_> = match closes_at_gaps {
            true => vec![0],
            false => (0..self.fates.len())
                .filter(|_| self.rng.random_ratio(2, 3))
                .collect(),
        };
        for room in rooms {
            client.places.insert(room, self.place(room));
        }
        self.clients.push(client);
        self.connect(self.clients.len() - 1);
    }

    /// A new stay in a room.
    fn place(&mut self, room: usize) -> Place {
        let record = self.new_record(room);
        Place {
            record,
            last: None,
            passed: None,
            idle: true,
        }
    }

    fn new_record(&mut self, room: usize) -> usize {
        self.records.push(Record {
            room,
            name: format!("stay {} in room {room}", self.records.len()),
            began: None,
            events: Vec::new(),
            stays: false,
        });
        self.records.len() - 1
    }

    fn connect(&mut self, index: usize) {
        let node = self.nodes.choose(&mut self.rng).unwrap().clone();
        let client = &mut self.clients[index];
        let format = match client.closes_at_gaps {
            true => &CLOSING,
            false => &TELLING,
        };
        client.wire = Arc::default();
        client.connection = Some(node.connect(client.wire.clone(), format));
        let rooms: Vec<_> = client.places.keys().copied().collect();
        self.change_pace(index);
        for room in rooms {
            self.join(index, room);
        }
    }

    fn join(&mut self, index: usize, room: usize) {
        let resumes = self.clients[index].places[&room].last;
        let position = match resumes.filter(|last| self.may_resume(index, room, *last)) {
            Some(last) => {
                let excused = self.histories()[room].find(last);
                let excused =
                    excused.is_some_and(|at| self.histories()[room].excused.contains(&at));
                if excused {
                    // What the client has is gone, in a way that leaves nothing to tell. The
                    // checker can't know.
                    let record = self.new_record(room);
                    let place = self.clients[index].places.get_mut(&room).unwrap();
                    place.record = record;
                    self.records[record].began = place.passed;
                }
                let record = self.clients[index].places[&room].record;
                self.records[record]
                    .events
                    .push(Event::Reconnected { from: last });
                Position::After(last)
            }
            None => {
                let place = self.place(room);
                self.clients[index].places.insert(room, place);
                self.position(room)
            }
        };
        let client = &mut self.clients[index];
        let place = client.places.get_mut(&room).unwrap();
        place.idle = false;
        let (histories, exact) = (
            self.histories.clone(),
            matches!(position, Position::Now | Position::After(_)),
        );
        let joined = Box::new(move |outcome: Result<Began, NotJoined>| {
            Some(match outcome {
                Err(_) => wire::failed(room),
                Ok(Began { head: id, .. }) => {
                    let began = histories.lock().unwrap()[room].before(id);
                    wire::joined(room, id, began.filter(|_| exact))
                }
            })
        });
        if let Some(connection) = &client.connection {
            // Refused only if the client is there already.
            let _ = connection.join(name(room), position, false, None, joined);
        }
    }

    /// Whether a position from an earlier connection still means what it meant.
    fn may_resume(&self, index: usize, room: usize, last: EntryId) -> bool {
        // After 0-0 is from the start on, whatever the client meant by it.
        if last == EntryId::ZERO {
            return false;
        }
        let history = &self.histories()[room];
        let passed = self.clients[index].places[&room].passed;
        history.low_since == 0 || passed.is_some_and(|passed| passed > history.low_since)
    }

    fn position(&mut self, room: usize) -> Position {
        match self.rng.random_range(0..6) {
            0 => Position::Start,
            1 => Position::Last(self.rng.random_range(0..60)),
            2 => Position::Ago(Duration::from_secs(1 << 40)),
            3 => {
                let history = &self.histories.lock().unwrap()[room];
                let known = &history.entries[history.low_since..];
                let current = |past: &&Past| past.life == history.life;
                let known: Vec<_> = known.iter().filter(current).collect();
                match known.choose(&mut self.rng) {
                    Some(past) if !history.unread => Position::After(past.id),
                    _ => Position::Now,
                }
            }
            _ => Position::Now,
        }
    }

    fn client_acts(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let index = self.rng.random_range(0..self.clients.len());
        if self.clients[index].connection.is_none() {
            return self.connect(index);
        }
        match self.rng.random_range(0..10) {
            0..5 => self.change_pace(index),
            5 => self.clients[index].wire.break_off(),
            6 => self.disconnect(index),
            7 if !self.clients[index].closes_at_gaps => {
                let room = self.any_room();
                self.read(index);
                let client = &mut self.clients[index];
                if client.places.remove(&room).is_some()
                    && let Some(connection) = &client.connection
                {
                    connection.leave(&name(room));
                    // What is on its way belongs to nobody.
                    self.disconnect(index);
                }
            }
            8 if !self.clients[index].closes_at_gaps => {
                let room = self.any_room();
                if !self.clients[index].places.contains_key(&room) {
                    let place = self.place(room);
                    self.clients[index].places.insert(room, place);
                    self.join(index, room);
                }
            }
            _ => self.rejoin(index),
        }
    }

    /// Tries failed joins again.
    fn rejoin(&mut self, index: usize) {
        let places = &self.clients[index].places;
        let idle: Vec<_> = places
            .iter()
            .filter(|(_, place)| place.idle)
            .map(|(room, _)| *room)
            .collect();
        for room in idle {
            self.join(index, room);
        }
    }

    fn change_pace(&mut self, index: usize) {
        let wire = &self.clients[index].wire;
        match self.rng.random_range(0..6) {
            0 => wire.stall(),
            1..3 => wire.refill(self.rng.random_range(1..200)),
            3 => wire.refill(self.rng.random_range(1..2_000)),
            _ => wire.refill(1 << 30),
        }
    }

    /// The connection ends, and what the client had not read may be lost.
    fn disconnect(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.connection = None;
        let left = self.rng.random_range(0..=client.wire.unread());
        client.wire.lose_all_but(left);
        self.read(index);
        for place in self.clients[index].places.values_mut() {
            place.idle = true;
        }
    }

    fn read(&mut self, index: usize) {
        while let Some(frame) = self.clients[index].wire.frame() {
            let client = &mut self.clients[index];
            match frame {
                Frame::Closed => {
                    client.connection = None;
                }
                Frame::Failed { room } => {
                    if let Some(place) = client.places.get_mut(&room) {
                        place.idle = true;
                    }
                }
                Frame::Joined { room, id, began } => {
                    let Some(place) = client.places.get_mut(&room) else {
                        continue;
                    };
                    let record = &mut self.records[place.record];
                    if place.last.is_none() {
                        record.began = began;
                        place.passed = began;
                        if began.is_some() {
                            record.events.push(Event::Joined { head: id });
                        }
                        place.last = Some(id);
                    }
                }
                Frame::Event { room, event } => {
                    let Some(place) = client.places.get_mut(&room) else {
                        continue;
                    };
                    let history = &self.histories.lock().unwrap()[room];
                    (place.last, place.passed) = match &event {
                        Event::Entry { id, .. } => (Some(*id), history.find(*id).map(|at| at + 1)),
                        Event::Gap { before, .. } => (Some(before.predecessor()), None),
                        _ => (place.last, place.passed),
                    };
                    self.records[place.record].events.push(event);
                }
            }
        }
        let client = &mut self.clients[index];
        let is_over = |connection: &Connection| connection.outlet().is_closing();
        if client.connection.as_ref().is_some_and(is_over) {
            // The rest of a frame that was cut never comes.
            client.connection = None;
        }
    }

    /// All is well again: everybody gets everything, to one last entry.
    async fn finish(mut self) -> Report {
        let mut faults = Vec::new();
        self.failing = false;
        self.log.set_failing(None);
        self.notice().await;
        for index in 0..self.clients.len() {
            if self.clients[index].wire.is_broken() {
                self.disconnect(index);
            }
        }
        for _ in 0..8 {
            for index in 0..self.clients.len() {
                self.clients[index].wire.refill(1 << 30);
            }
            sleep(Duration::from_secs(2)).await;
            for index in 0..self.clients.len() {
                self.read(index);
                if self.clients[index].connection.is_none() {
                    self.connect(index);
                } else {
                    self.rejoin(index);
                }
            }
        }
        let mut last = Vec::new();
        for room in 0..self.fates.len() {
            self.publish(room, false);
            self.publish(room, false);
            last.push(newest(&self.log, room));
        }
        for index in 0..self.clients.len() {
            self.clients[index].wire.refill(1 << 30);
        }
        sleep(Duration::from_secs(5)).await;
        for index in 0..self.clients.len() {
            self.read(index);
            for (room, place) in &self.clients[index].places {
                let record = &mut self.records[place.record];
                record.stays = true;
                let closed = self.clients[index].connection.is_none();
                if place.last != last[*room] && !closed {
                    faults.push(format!(
                        "{}: ended at {:?}, not at {:?}",
                        record.name, place.last, last[*room]
                    ));
                }
                record.stays &= !closed;
            }
        }
        self.judge(faults).await
    }

    async fn judge(self, mut faults: Vec<String>) -> Report {
        let mut run = Run::default();
        let histories = std::mem::take(&mut *self.histories());
        for (room, history) in histories.iter().enumerate() {
            let entries = truth(&self.log, &name(room)).await;
            let last = entries.last().map(|(id, _)| *id);
            // The checker can't tell a trimmed entry from a lost one, nor knows of XDEL.
            let checked = !(history.removed || history.trimmed && history.lost);
            for record in self.records.iter().filter(|record| record.room == room) {
                faults.extend(history.check(&record.name, record.began, &record.events));
                // The checker knows a lost end by the gap that tells of it, which one who left before
                // never got.
                let trimmed = |event: &Event| {
                    let Event::Gap { reason, .. } = event else {
                        return false;
                    };
                    *reason == GapReason::Trimmed
                };
                // A deletion may be told as a trim where nobody had counted yet; a gap all the
                // same, but the checker goes by the word.
                let is_misnamed = history.lost && record.events.iter().any(trimmed);
                if checked && !is_misnamed && (record.stays || !history.lost) {
                    run.clients.push(checker::Client {
                        name: record.name.clone(),
                        room: room.to_string(),
                        events: record.events.clone(),
                        complete_to: last.filter(|_| record.stays),
                    });
                }
            }
            if checked {
                let (trimmed, lost) = (history.trimmed, history.lost);
                let truth = checker::Room {
                    entries,
                    trimmed,
                    lost,
                };
                run.rooms.insert(room.to_string(), truth);
            }
        }
        let publishes = self.publishes.iter();
        run.publishes = publishes
            .filter(|publish| run.rooms.contains_key(&publish.room))
            .cloned()
            .collect();
        faults.extend(checker::check(&run).iter().map(ToString::to_string));
        let events = self.records.iter().flat_map(|record| &record.events);
        let gaps = events
            .clone()
            .filter(|event| matches!(event, Event::Gap { .. }));
        let entries = events
            .clone()
            .filter(|event| matches!(event, Event::Entry { .. }));
        Report {
            entries: histories.iter().map(|history| history.entries.len()).sum(),
            gaps: gaps.count(),
            delivered: entries.count(),
            faults,
        }
    }
}

fn newest(log: &MemoryLog, room: usize) -> Option<EntryId> {
    held(log, room).pop()
}

/// IDs of what the stream holds; nothing while it fails.
fn held(log: &MemoryLog, room: usize) -> Vec<EntryId> {
    let all = Range {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        limit: usize::MAX,
        newest_first: false,
    };
    let entries = log.range(&name(room), all).now_or_never().unwrap();
    let entries = entries.unwrap_or_default();
    entries.iter().map(|entry| entry.id).collect()
}

/// Runs one seed on a runtime of its own, whose time is simulated.
pub(super) fn run_alone(seed: u64, lie: Option<Lie>) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let began = std::time::Instant::now();
    let report = runtime.block_on(async {
        let limit = Duration::from_secs(3_600);
        tokio::time::timeout_at(Instant::now() + limit, run(seed, lie)).await
    });
    assert!(
        began.elapsed() < Duration::from_secs(60),
        "seed {seed} does not come to an end"
    );
    report.unwrap_or_else(|_| panic!("seed {seed} does not come to an end"))
}
