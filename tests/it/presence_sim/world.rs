//! The simulated world: nodes, people, what befalls them, and the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use tailcast::auth::mint::{NewToken, SigningKey};
use tailcast::auth::{self, Auth, Credentials, Identity, KeySource, Mode, Role, Secret, UserName};
use tailcast::people::board::{Board, NodeId};
use tailcast::people::session::{Entry, Join, Session};
use tailcast::people::{self, People};
use tailcast::relay::entry::{Fields, RoomName};
use tailcast::relay::hub::{self, Relay};
use tailcast::relay::log::{Log, Range};
use tailcast::relay::position::Position;
use tailcast::store::memory::{self, MemoryLog};
use tokio::time::{Instant, sleep};

use super::far::{FarBoard, State};
use super::watcher::{ASIDES, Socket};
use crate::harness::story::Story;

const NODES: usize = 3;
const USERS: u32 = 30;
const ROOMS: usize = 3;

/// What tokens are signed with.
const SECRET: &str = "what the tokens of this world are signed with";

/// From the end of all faults until everything has to be right.
const HEALING: Duration = Duration::from_secs(10);

struct Node {
    board: FarBoard,
    people: Arc<People>,
    /// When its state ends.
    until: Option<Instant>,
}

struct Client {
    user: String,
    role: Role,
    node: usize,
    session: Session,
    socket: Arc<Socket>,
    /// Where it is, and whether it watches.
    rooms: BTreeMap<usize, bool>,
    story: Story,
    /// Its socket takes nothing until then.
    stalls: Option<Instant>,
}

struct World {
    seed: u64,
    random: StdRng,
    log: MemoryLog,
    auth: Arc<Auth>,
    settings: people::Settings,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    whispers_until: Option<Instant>,
    /// The board lost what the streams still have.
    forgot: bool,
    history: Vec<String>,
}

fn name(room: usize) -> RoomName {
    RoomName::parse(&format!("room{room}")).unwrap()
}

pub(super) async fn run(seed: u64) {
    let mut world = World::new(seed);
    let steps = world.random.random_range(30..150);
    for _ in 0..steps {
        world.step().await;
        let pause = [0, 10, 400, 1_500][world.random.random_range(0..4)];
        if pause > 0 {
            let pause = world.random.random_range(0..pause);
            sleep(Duration::from_millis(pause)).await;
        }
        world.clock();
    }
    world.heal().await;
    world.check().await;
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let log = MemoryLog::new(memory::Settings {
            keep: None,
            ..memory::Settings::default()
        });
        let settings = people::Settings {
            notices: random.random(),
            // In some worlds only numbers are told, most of the time.
            presence_limit: [500, 500, 6][random.random_range(0..3)],
            ..people::Settings::default()
        };
        let mut world = World {
            seed,
            random,
            log,
            auth: Auth::new(auth::Settings {
                mode: Mode::Jwt,
                key: Some(KeySource::Secret(Secret::from(SECRET))),
                ..auth::Settings::default()
            })
            .unwrap(),
            settings,
            nodes: Vec::new(),
            clients: Vec::new(),
            whispers_until: None,
            forgot: false,
            history: Vec::new(),
        };
        for _ in 0..NODES {
            let node = world.node();
            world.nodes.push(node);
        }
        world
    }

    fn node(&mut self) -> Node {
        let board = FarBoard::new(self.log.clone(), self.random.random());
        let settings = hub::Settings {
            workers: 1,
            slow_timeout: None,
            ..hub::Settings::default()
        };
        let relay = Relay::new(Arc::new(self.log.clone()), settings);
        let people = People::start(relay, Arc::new(board.clone()), self.settings.clone());
        Node {
            board,
            people,
            until: None,
        }
    }

    fn note(&mut self, what: String) {
        self.history.push(what);
    }

    fn wrong(&self, why: &str) -> ! {
        let last = self.history.iter().rev().take(40).rev();
        let last: Vec<_> = last.map(String::as_str).collect();
        panic!(
            "seed {}: {why}\n(notices: {}, limit: {}, last steps: {})",
            self.seed,
            self.settings.notices,
            self.settings.presence_limit,
            last.join("; ")
        );
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..40 => self.come().await,
            40..58 => self.go(),
            58..71 => self.wander(),
            71..74 => self.renew().await,
            74..86 => {
                self.go();
                self.come().await;
            }
            86..88 => self.kill(),
            88..90 => self.afflict(State::Still, 20_000),
            90..93 => self.afflict(State::Failing, 8_000),
            93..94 => {
                self.note("forget".to_owned());
                self.forgot = true;
                self.log.forget_board();
            }
            94..96 => {
                self.note("drop whispers".to_owned());
                self.log.drop_whispers(true);
                let pause = Duration::from_millis(self.random.random_range(0..3_000));
                self.whispers_until = Some(Instant::now() + pause);
            }
            96..97 => self.chatter().await,
            97..99 => {
                let until = Instant::now() + Duration::from_secs(3);
                if let Some(at) = self.anybody() {
                    self.clients[at].socket.stall(true);
                    self.clients[at].stalls = Some(until);
                }
            }
            _ => sleep(Duration::from_secs(33)).await,
        }
    }

    /// Ends what has lasted long enough.
    fn clock(&mut self) {
        let now = Instant::now();
        let over = |until: &mut Option<Instant>| until.take_if(|until| *until <= now).is_some();
        for node in &mut self.nodes {
            if over(&mut node.until) {
                node.board.set(State::Up);
            }
        }
        for client in &mut self.clients {
            if over(&mut client.stalls) {
                client.socket.stall(false);
            }
        }
        if over(&mut self.whispers_until) {
            self.log.drop_whispers(false);
        }
    }

    fn awake(&self) -> Vec<usize> {
        let still = |node: &Node| node.board.state() == State::Still;
        (0..NODES).filter(|n| !still(&self.nodes[*n])).collect()
    }

    /// A client on a node that does not stand still: on one that does nothing happens.
    fn anybody(&mut self) -> Option<usize> {
        let awake = self.awake();
        let clients = (0..self.clients.len()).filter(|c| awake.contains(&self.clients[*c].node));
        let clients: Vec<usize> = clients.collect();
        let at = self.random.random_range(0..clients.len().max(1));
        clients.get(at).copied()
    }

    /// A user by a token, or a back end.
    async fn identity(&self, user: Option<(&str, Role)>) -> Identity {
        let (user, role) = user.unzip();
        let token = NewToken {
            user: user.map(|user| UserName::parse(user).unwrap()),
            rooms: role.map_or_else(Default::default, |role| {
                format!("*={role}").parse().unwrap()
            }),
            server: user.is_none(),
            ..NewToken::default()
        };
        let key = SigningKey::from_secret(&Secret::from(SECRET)).unwrap();
        let day = Duration::from_secs(24 * 3_600);
        let token = token.sign(&key, SystemTime::now(), day).unwrap();
        let credentials = Credentials::token(&token);
        self.auth.identify(&credentials).await.unwrap()
    }

    /// Mostly one that is not shown.
    fn role(&mut self) -> Role {
        let most = [Role::Member; 6];
        let all = [&most[..], &Role::ALL[..3]].concat();
        all[self.random.random_range(0..all.len())]
    }

    async fn come(&mut self) {
        let awake = self.awake();
        if awake.is_empty() {
            return;
        }
        let node = awake[self.random.random_range(0..awake.len())];
        let user = format!("u{}", self.random.random_range(0..USERS));
        let role = self.role();
        let identity = self.identity(Some((&user, role))).await;
        let socket = Arc::new(Socket::default());
        let people = &self.nodes[node].people;
        let connection = people.relay().connect(socket.clone(), &ASIDES);
        let mut client = Client {
            session: people.session(connection, identity),
            user,
            role,
            node,
            socket,
            rooms: BTreeMap::new(),
            story: Story::default(),
            stalls: None,
        };
        let room = self.random.random_range(0..ROOMS);
        let watches = self.random.random_ratio(1, 3);
        client.join(room, watches).unwrap();
        let what = format!("{role} {}+{room}@{node}", client.user);
        self.history.push(what);
        self.clients.push(client);
    }

    fn go(&mut self) {
        let Some(at) = self.anybody() else {
            return;
        };
        let mut client = self.clients.swap_remove(at);
        self.note(format!("{}-@{}", client.user, client.node));
        if let Err(why) = client.read() {
            self.wrong(&why);
        }
    }

    /// From room to room.
    fn wander(&mut self) {
        let room = self.random.random_range(0..ROOMS);
        let watches = self.random.random_ratio(1, 3);
        let Some(at) = self.anybody() else {
            return;
        };
        let client = &mut self.clients[at];
        let (sign, done) = match client.rooms.contains_key(&room) {
            true => ('-', client.leave(room)),
            false => ('+', client.join(room, watches)),
        };
        let what = format!("{}{sign}{room}@{}", client.user, client.node);
        self.note(what);
        if let Err(why) = done {
            self.wrong(&why);
        }
    }

    /// Somebody has a fresh token, which may say another role.
    async fn renew(&mut self) {
        let role = self.role();
        let Some(at) = self.anybody() else {
            return;
        };
        let user = self.clients[at].user.clone();
        let identity = self.identity(Some((&user, role))).await;
        let client = &mut self.clients[at];
        client.role = role;
        let lost = client.session.renew(identity);
        let what = format!("{user}@{} is {role}", client.node);
        if lost != Ok(Vec::new()) {
            self.wrong(&format!("{what}: {lost:?}"));
        }
        self.note(what);
    }

    fn kill(&mut self) {
        let at = self.random.random_range(0..NODES);
        self.note(format!("kill {at}"));
        self.nodes[at].board.set(State::Dead);
        // Its clients were told no lies before.
        let (dead, alive): (Vec<_>, Vec<_>) =
            self.clients.drain(..).partition(|one| one.node == at);
        self.clients = alive;
        for mut client in dead {
            if let Err(why) = client.read() {
                self.wrong(&why);
            }
        }
        self.nodes[at] = self.node();
    }

    fn afflict(&mut self, state: State, most_ms: u64) {
        let at = self.random.random_range(0..NODES);
        let long = Duration::from_millis(self.random.random_range(0..most_ms));
        if self.nodes[at].board.state() == State::Up {
            self.note(format!("{state:?} {at} for {long:?}"));
            self.nodes[at].board.set(state);
            self.nodes[at].until = Some(Instant::now() + long);
        }
    }

    /// Much is shown at once, and must not be in the way of who comes and goes.
    async fn chatter(&mut self) {
        let message: (Bytes, Bytes) = ("message".into(), "hello".into());
        let room = name(self.random.random_range(0..ROOMS));
        self.come().await;
        self.note(format!("chatter in {room}"));
        // About when changes are told.
        sleep(Duration::from_millis(self.random.random_range(0..500))).await;
        if let Some(at) = self.anybody() {
            let client = &self.clients[at];
            for _ in 0..200 {
                let entry = Entry {
                    room: room.clone(),
                    fields: Fields::from([message.clone()]),
                    key: None,
                    echo: true,
                    socket: None,
                };
                let json = r#"{"type":"ephemeral"}"#.to_owned();
                let _ = client.session.whisper(entry, json);
            }
        }
    }

    async fn heal(&mut self) {
        for node in &mut self.nodes {
            node.board.set(State::Up);
        }
        for client in &mut self.clients {
            client.socket.stall(false);
        }
        self.log.drop_whispers(false);
        sleep(HEALING).await;
    }

    /// Users of a room, their devices there, and the role to show.
    fn truth(&self, room: usize) -> BTreeMap<String, (u32, Option<Role>)> {
        let mut users: BTreeMap<String, (u32, Option<Role>)> = BTreeMap::new();
        for client in &self.clients {
            if client.rooms.contains_key(&room) {
                let (devices, role) = users.entry(client.user.clone()).or_default();
                *devices += 1;
                let is_shown = client.role.is_leading() && role.is_none_or(|r| client.role < r);
                *role = if is_shown { Some(client.role) } else { *role };
            }
        }
        users
    }

    async fn check(&mut self) {
        let server = self.identity(None).await;
        for room in 0..ROOMS {
            let truth = self.truth(room);
            for (number, node) in self.nodes.iter().enumerate() {
                let named = name(room);
                let asked = node.people.presence(&server, &named, 1000);
                let answer = tokio::time::timeout(Duration::from_secs(2), asked).await;
                let Ok(Ok(answer)) = answer else {
                    self.wrong(&format!("node {number} does not know {room}: {answer:?}"));
                };
                let users = answer.users.iter();
                let users: BTreeMap<String, (u32, Option<Role>)> = users
                    .map(|p| (p.user.to_string(), (p.devices, p.role)))
                    .collect();
                if users != truth || answer.count != truth.len() {
                    self.wrong(&format!(
                        "room {room} on node {number}: {users:?} ({}), but {truth:?} is true",
                        answer.count
                    ));
                }
            }
        }
        self.check_users(&server).await;
        self.check_watchers();
        if self.settings.notices && !self.forgot {
            self.check_notices().await;
        }
        let stranger = NodeId::random();
        let beat = self.log.beat(&stranger, Bytes::new(), Duration::ZERO);
        let mut dead = beat.await.unwrap().dead;
        dead.retain(|node| *node != stranger);
        if !dead.is_empty() {
            self.wrong(&format!("{dead:?} are not buried"));
        }
    }

    async fn check_users(&self, server: &Identity) {
        for user in (0..USERS).map(|user| format!("u{user}")) {
            let mut rooms = BTreeSet::new();
            let mut devices = 0;
            for client in self.clients.iter().filter(|client| client.user == user) {
                devices += 1;
                rooms.extend(client.rooms.keys().map(|room| name(*room)));
            }
            for node in &self.nodes {
                let user = UserName::parse(&user).unwrap();
                let found = node.people.whereabouts(server, &user).await.unwrap();
                if (found.devices, &found.rooms) != (devices, &rooms) {
                    self.wrong(&format!("{user}: {found:?}, but {devices} in {rooms:?}"));
                }
            }
        }
    }

    fn check_watchers(&mut self) {
        for at in 0..self.clients.len() {
            if let Err(why) = self.clients[at].read() {
                self.wrong(&why);
            }
            let client = &self.clients[at];
            for room in client
                .rooms
                .iter()
                .filter(|(_, w)| **w)
                .map(|(room, _)| *room)
            {
                let truth: BTreeMap<String, Option<String>> = self
                    .truth(room)
                    .into_iter()
                    .map(|(user, (_, role))| (user, role.map(|role| role.to_string())))
                    .collect();
                let known = client.story.0.get(name(room).as_str());
                let is_right = known.is_some_and(|known| {
                    known.count == Some(truth.len() as u64)
                        && (truth.len() > self.settings.presence_limit
                            || known.users.as_ref() == Some(&truth))
                });
                if !is_right {
                    self.wrong(&format!(
                        "{} on node {} knows of room {room}: {known:?}, but {truth:?} is true",
                        client.user, client.node
                    ));
                }
            }
        }
    }

    async fn check_notices(&self) {
        let all = Range {
            from: Bound::Unbounded,
            to: Bound::Unbounded,
            limit: usize::MAX,
            newest_first: false,
        };
        for room in 0..ROOMS {
            let mut users = BTreeSet::new();
            for entry in self.log.range(&name(room), all).await.unwrap() {
                let field = |at: usize| String::from_utf8_lossy(&entry.fields[at].1).into_owned();
                let (event, user) = (field(0), field(1));
                let is_next = match event.as_str() {
                    "join" => users.insert(user.clone()),
                    _ => users.remove(&user),
                };
                if !is_next {
                    self.wrong(&format!("a second {event} of {user} in room {room}"));
                }
            }
            let truth: BTreeSet<String> = self.truth(room).into_keys().collect();
            if users != truth {
                self.wrong(&format!("room {room}'s notices: {users:?}, not {truth:?}"));
            }
        }
    }
}

impl Client {
    fn join(&mut self, room: usize, presence: bool) -> Result<(), String> {
        let join = Join {
            from: Position::Now,
            presence,
            is_home: false,
        };
        let frame = format!("{{\"type\":\"joined\",\"room\":\"{}\"}}\n", name(room));
        let joined = Box::new(move |_| Some(frame.into()));
        let begun = self.session.join(name(room), join, joined);
        self.rooms.insert(room, presence);
        begun.map_err(|error| error.to_string())
    }

    fn leave(&mut self, room: usize) -> Result<(), String> {
        self.session.leave(&name(room));
        self.rooms.remove(&room);
        self.read()
    }

    fn read(&mut self) -> Result<(), String> {
        for frame in self.socket.lines() {
            let taken = self.story.take(&frame);
            taken.map_err(|why| format!("{} on node {}: {why}", self.user, self.node))?;
        }
        Ok(())
    }
}
