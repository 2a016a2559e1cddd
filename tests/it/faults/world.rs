//! A test's world: Redis, nodes, clients, publishers; and how it ends, with the checker.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailcast::relay::entry::EntryId;
use tailcast::relay::format::GapReason;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::fleet::{Client, Habit, Kind, Ports, RawEvent};
use super::guests::Guests;
use super::publishers::{Pace, Publisher, Told, Way};
use crate::checker::{self, Event, Outcome, Run};
use crate::harness::PATIENCE;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// The room of all these tests.
pub(super) const ROOM: &str = "room";

/// What nodes are started with here: nothing is refused for being fast, publishes end soon, and who
/// waits for a node that is stopped is soon told so.
pub(super) const PUBLISH_TIMEOUT: Duration = Duration::from_secs(2);
const ARGUMENTS: &[&str] = &[
    "--frame-rate",
    "0",
    "--publish-timeout",
    "2s",
    "--socketio-ping-interval",
    "1s",
    "--socketio-ping-timeout",
    "5s",
];

pub(super) struct World {
    pub(super) redis: RedisServer,
    pub(super) nodes: Vec<Node>,
    pub(super) ports: Ports,
    pub(super) clients: Vec<Arc<Client>>,
    /// The published clients, once there are any; their records are among `clients`.
    pub(super) guests: Option<Guests>,
    pub(super) told: Arc<Told>,
    pub(super) random: StdRng,
    /// Longest time from the end of a fault to every client's being at the stream's end.
    pub(super) healing: Duration,
    /// Clients made with [`World::slow_clients`] read while this is true.
    pub(super) reading: watch::Sender<bool>,
    seed: u64,
    arguments: Vec<String>,
    stop_clients: watch::Sender<bool>,
    stop_publishers: watch::Sender<bool>,
    client_tasks: Vec<JoinHandle<()>>,
    /// Publishers have a thread of their own, so that a crowd of clients does not slow them down.
    publishing: Option<Runtime>,
    publisher_tasks: Vec<JoinHandle<()>>,
}

/// What the stream may have lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    Nothing,
    Oldest,
    Anything,
}

impl World {
    /// Redis with an append-only file, and so many nodes with these further arguments.
    pub(super) fn new(nodes: usize, arguments: &[&str]) -> Self {
        let seed = match std::env::var("TAILCAST_SEED") {
            Ok(seed) => seed.parse().unwrap(),
            Err(_) => rand::rng().random(),
        };
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        eprintln!("{test}: TAILCAST_SEED={seed}");
        // What was answered is in the file, then, even while the file system is slow: with
        // `everysec` Redis puts off writing for up to 2 s.
        let redis = RedisServer::start_with(&["--appendfsync", "no"]);
        let publishing = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut world = World {
            redis,
            nodes: Vec::new(),
            ports: Ports::default(),
            clients: Vec::new(),
            guests: None,
            told: Arc::default(),
            random: StdRng::seed_from_u64(seed),
            healing: Duration::from_secs(10),
            reading: watch::Sender::new(true),
            seed,
            arguments: ARGUMENTS
                .iter()
                .chain(arguments)
                .map(|&text| text.to_owned())
                .collect(),
            stop_clients: watch::Sender::new(false),
            stop_publishers: watch::Sender::new(false),
            client_tasks: Vec::new(),
            publishing: Some(publishing),
            publisher_tasks: Vec::new(),
        };
        for _ in 0..nodes {
            world.add_node();
        }
        world
    }

    /// Starts one more node.
    pub(super) fn add_node(&mut self) {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let node = Node::start_with(&self.redis.url(), &arguments);
        let mut ports = self.ports.lock().unwrap();
        ports.push(node.port());
        if let Some(guests) = &mut self.guests {
            guests.know(&ports);
        }
        drop(ports);
        self.nodes.push(node);
    }

    /// Kills the oldest node; another one takes its place.
    pub(super) fn replace_node(&mut self) {
        self.nodes.remove(0).kill9();
        self.ports.lock().unwrap().remove(0);
        self.add_node();
    }

    /// So many clients of a kind that stay, or that come and go.
    pub(super) fn clients(&mut self, kind: Kind, count: usize, churn: Option<Duration>) {
        let reads = watch::Sender::new(true).subscribe();
        let habit = Habit {
            kind,
            churn,
            receive_buffer: None,
            reads,
        };
        self.start_clients(count, &habit);
    }

    /// Clients that read only while `reading` says so, and whose kernel holds little for them.
    pub(super) fn slow_clients(&mut self, count: usize) {
        let habit = Habit {
            kind: Kind::Json,
            churn: None,
            // Below a segment of the loopback's, TCP itself would be what is slow afterwards.
            receive_buffer: Some(256 * 1024),
            reads: self.reading.subscribe(),
        };
        self.start_clients(count, &habit);
    }

    fn start_clients(&mut self, count: usize, habit: &Habit) {
        for _ in 0..count {
            let name = format!("{:?} {}", habit.kind, self.clients.len());
            let client = Client::new(name, habit.kind);
            self.clients.push(client.clone());
            let task = client.run(
                ROOM.to_owned(),
                self.ports.clone(),
                habit.clone(),
                self.random.random(),
                self.stop_clients.subscribe(),
            );
            self.client_tasks.push(tokio::spawn(task));
        }
    }

    /// The published clients of every protocol. They take a while to come, and to see that a node is
    /// gone, on a machine that has other things to do.
    pub(super) fn guests(&mut self) {
        self.healing = PATIENCE;
        let ports = self.ports.lock().unwrap().clone();
        let (guests, clients) = Guests::start(ROOM, &ports);
        self.guests = Some(guests);
        self.clients.extend(clients);
    }

    /// An entry before anybody comes. Who has none, not even one to begin after, lacks nothing of a
    /// stream that is begun anew.
    pub(super) fn begin(&self) {
        self.redis.cli(&["XADD", ROOM, "*", "message", "first"]);
    }

    /// The usual crowd: clients of every kind, two of which come and go, and the published ones, all in
    /// the room already.
    pub(super) async fn crowd(&mut self) {
        self.begin();
        self.clients(Kind::Json, 8, None);
        self.clients(Kind::Json, 2, Some(Duration::from_millis(300)));
        self.clients(Kind::Sse, 2, None);
        self.clients(Kind::Raw, 2, None);
        self.guests();
        self.all_joined().await;
    }

    /// One publisher of every way.
    pub(super) fn publishers(&mut self) {
        let every = Duration::from_millis(4);
        self.publisher(Way::Keyed, every, 4);
        self.publisher(Way::Plain, every, 4);
        self.publisher(Way::Post, every, 1);
        self.publisher(Way::Xadd, every, 1);
    }

    pub(super) fn publisher(&mut self, way: Way, every: Duration, depth: usize) {
        let publisher = Publisher {
            name: format!("{way:?} {:x}", self.random.random::<u32>()),
            room: ROOM.to_owned(),
            pace: Pace { way, every, depth },
            ports: self.ports.clone(),
            redis: self.redis.url(),
            told: self.told.clone(),
            seed: self.random.random(),
            stop: self.stop_publishers.subscribe(),
        };
        let publishing = self.publishing.as_ref().unwrap();
        self.publisher_tasks.push(publishing.spawn(publisher.run()));
    }

    /// A time of the schedule.
    pub(super) async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let pause = self.random.random_range(from_ms..=to_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Waits until it holds of every client.
    #[track_caller]
    pub(super) fn every(
        &self,
        what: &str,
        holds: impl Fn(&Client) -> bool,
    ) -> impl Future<Output = ()> {
        self.every_within(self.healing, what, holds)
    }

    #[track_caller]
    fn every_within(
        &self,
        within: Duration,
        what: &str,
        holds: impl Fn(&Client) -> bool,
    ) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let deadline = Instant::now() + within;
            loop {
                let behind = self.clients.iter().filter(|client| !holds(client));
                let behind: Vec<_> = behind.collect();
                if behind.is_empty() {
                    return;
                }
                assert!(
                    Instant::now() < deadline,
                    "{caller}: seed {}: not every client {what}: {:?}",
                    self.seed,
                    behind.iter().map(|one| told(one)).collect::<Vec<_>>()
                );
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    pub(super) async fn all_joined(&self) {
        self.every_within(PATIENCE, "is in the room", Client::joined)
            .await;
    }

    /// Waits until so many more publishes are acknowledged.
    pub(super) async fn until_stored(&self, more: usize) {
        let deadline = Instant::now() + PATIENCE;
        let goal = self.told.stored() + more;
        while self.told.stored() < goal {
            assert!(Instant::now() < deadline, "publishing does not go on");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends publishing; every publish has its outcome then.
    pub(super) async fn stop_publishing(&mut self) {
        self.stop_publishers.send_replace(true);
        for task in self.publisher_tasks.drain(..) {
            timeout(PATIENCE, task)
                .await
                .expect("publishers end")
                .unwrap();
        }
        self.stop_publishers.send_replace(false);
    }

    /// Ends publishing, waits until every client is at the stream's end, and checks.
    pub(super) async fn finish(mut self, lost: Lost) {
        self.stop_publishing().await;
        let slowest = *self.told.slowest.lock().unwrap();
        assert!(
            slowest < PUBLISH_TIMEOUT + Duration::from_millis(1500),
            "seed {}: an outcome took {slowest:?}",
            self.seed
        );
        let end = self.reach_the_end().await;
        self.stop_clients.send_replace(true);
        for task in self.client_tasks.drain(..) {
            timeout(PATIENCE, task).await.expect("clients end").unwrap();
        }
        if let Some(guests) = &mut self.guests {
            guests.end();
        }
        for client in &self.clients {
            let (name, wrong) = (&client.name, &client.seen().wrong);
            assert!(wrong.is_empty(), "seed {}: {name}: {wrong:?}", self.seed);
        }
        let run = self.run(end, lost);
        let entries = run.rooms[ROOM].entries.len();
        let got: usize = run.clients.iter().map(|client| client.events.len()).sum();
        let connections: usize = self.clients.iter().map(|client| client.connections()).sum();
        eprintln!(
            "{entries} entries, {got} events, {connections} connections, {} publishes, slowest {slowest:?}, errors {:?}",
            run.publishes.len(),
            self.told.codes.lock().unwrap()
        );
        checker::assert_clean(&run, self.seed);
    }

    /// Adds entries until every client has come to the newest.
    async fn reach_the_end(&self) -> EntryId {
        let deadline = Instant::now() + self.healing;
        let raw = |client: &Client| {
            let seen = client.seen();
            let last = seen.stays.last().and_then(|stay| stay.last()).cloned();
            matches!(last, Some(RawEvent::Message(text)) if text.starts_with(b"end "))
        };
        let mut end = EntryId::ZERO;
        let mut number = 0;
        loop {
            if number == 0
                || self
                    .clients
                    .iter()
                    .any(|one| one.kind == Kind::Raw && !raw(one))
            {
                number += 1;
                let text = format!("end {number}");
                let id = self.redis.cli(&["XADD", ROOM, "*", "message", &text]);
                end = id.parse().unwrap();
            }
            let pause = Instant::now() + Duration::from_millis(300);
            loop {
                let is_there = |one: &Arc<Client>| match one.kind {
                    Kind::Raw => raw(one),
                    _ => one.seen().cursor == Some(end),
                };
                let behind: Vec<_> = self.clients.iter().filter(|one| !is_there(one)).collect();
                if behind.is_empty() {
                    return end;
                }
                assert!(
                    Instant::now() < deadline,
                    "seed {}: the end is {end}, but: {:?}",
                    self.seed,
                    behind.iter().map(|one| told(one)).collect::<Vec<_>>()
                );
                if Instant::now() > pause && behind.iter().any(|one| one.kind == Kind::Raw) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn run(&self, end: EntryId, lost: Lost) -> Run {
        let entries = self.redis.entries(ROOM);
        let publishes = std::mem::take(&mut *self.told.publishes.lock().unwrap());
        let mut known: HashMap<Bytes, EntryId> = HashMap::new();
        for publish in &publishes {
            if let Outcome::Stored(id) = publish.outcome {
                known.insert(publish.payload.clone(), id);
            }
        }
        for client in &self.clients {
            for event in &client.seen().events {
                if let Event::Entry { id, payload } = event {
                    known.insert(payload.clone(), *id);
                }
            }
        }
        known.extend(entries.iter().map(|(id, payload)| (payload.clone(), *id)));
        let mut clients = Vec::new();
        for client in &self.clients {
            let seen = client.seen();
            let one = |name: String, events: Vec<Event>, complete_to| checker::Client {
                name,
                room: ROOM.to_owned(),
                events,
                complete_to,
            };
            if client.kind != Kind::Raw {
                let lives = lives(&seen.events);
                let newest = lives.len() - 1;
                for (number, events) in lives.into_iter().enumerate() {
                    let name = format!("{} life {number}", client.name);
                    clients.push(one(name, events, (number == newest).then_some(end)));
                }
                continue;
            }
            for (number, stay) in seen.stays.iter().enumerate() {
                let name = format!("{} stay {number}", client.name);
                clients.push(one(name, with_ids(stay, &known, lost), None));
            }
        }
        let room = checker::Room {
            entries,
            trimmed: lost != Lost::Nothing,
            lost: lost == Lost::Anything,
        };
        Run {
            rooms: BTreeMap::from([(ROOM.to_owned(), room)]),
            clients,
            publishes,
        }
    }
}

/// Cuts a client's events where it went to another node right after it was told that the stream is
/// not the one it was. That node may not know yet, and deliver what is lost once more before it
/// tells the same. What a client got from there on is held against the stream by itself.
fn lives(events: &[Event]) -> Vec<Vec<Event>> {
    let mut lives = vec![Vec::new()];
    let mut is_anew = false;
    for event in events {
        if let Event::Reconnected { from } = event
            && is_anew
        {
            lives.push(vec![Event::Joined { head: *from }]);
        }
        is_anew = match event {
            Event::Gap { reason, .. } => *reason != GapReason::Trimmed,
            Event::Joined { .. } | Event::Reconnected { .. } => is_anew,
            Event::Entry { .. } => false,
        };
        lives.last_mut().unwrap().push(event.clone());
    }
    lives
}

/// A raw client's events under the IDs that others know.
fn with_ids(stay: &[RawEvent], known: &HashMap<Bytes, EntryId>, lost: Lost) -> Vec<Event> {
    let mut events = Vec::new();
    let mut last = EntryId::ZERO;
    for event in stay {
        match event {
            RawEvent::Resumed { from } => {
                last = *from;
                events.push(Event::Joined { head: last });
            }
            RawEvent::Message(payload) => match known.get(payload) {
                Some(id) => {
                    last = *id;
                    let (id, payload) = (*id, payload.clone());
                    events.push(Event::Entry { id, payload });
                }
                // Nobody else saw it before it was lost.
                None if lost != Lost::Nothing => {}
                None => panic!("a raw client got {payload:?}, which was never published"),
            },
            RawEvent::Gap { from, reason } => {
                let before = match from.seq.checked_add(1) {
                    Some(seq) => EntryId::new(from.ms, seq),
                    None => EntryId::new(from.ms + 1, 0),
                };
                events.push(Event::Gap {
                    after: last,
                    before,
                    reason: *reason,
                });
            }
        }
    }
    events
}

/// A client, as far as failures show it.
fn told(client: &Client) -> String {
    let gaps = client.gaps();
    let seen = client.seen();
    let newest = seen.events.iter().rev().take(3).collect::<Vec<_>>();
    let stay = seen
        .stays
        .last()
        .map(|stay| stay.iter().rev().take(2).collect::<Vec<_>>());
    format!(
        "{}: at {:?}, {} connections, {:?} gaps, newest {newest:?} {stay:?}, errors {:?}",
        client.name,
        seen.cursor,
        client.connections(),
        gaps,
        seen.errors.iter().rev().take(3).collect::<Vec<_>>(),
    )
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(publishing) = self.publishing.take() {
            publishing.shutdown_background();
        }
        if std::thread::panicking() {
            for (number, node) in self.nodes.iter().enumerate() {
                let log = node.stderr();
                let lines: Vec<_> = log.lines().collect();
                let newest = &lines[lines.len().saturating_sub(30)..];
                eprintln!("node {number}:\n{}", newest.join("\n"));
            }
        }
    }
}
