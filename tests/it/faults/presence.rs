//! Who is here, while nodes are killed or stopped, Redis is restarted, and people move: right in
//! the end on every node, told to watchers without a contradiction, and each join has its leave.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use rand::Rng;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::story::Story;
use crate::harness::{PATIENCE, until};

/// From a fault to everything's being right: what is promised.
const HEALING: Duration = Duration::from_secs(10);

const ROOMS: [&str; 2] = ["red", "blue"];

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(port: u16, room: &str, query: &str) -> Option<Socket> {
    let url = format!("ws://127.0.0.1:{port}/rooms/{room}?format=json&from=now&{query}");
    let opened = timeout(Duration::from_secs(5), connect_async(url)).await;
    Some(opened.ok()?.ok()?.0)
}

/// Somebody in a room; the socket closes when this is dropped.
struct Person {
    user: String,
    node: usize,
    room: usize,
    reading: JoinHandle<()>,
}

impl Drop for Person {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Somebody who is told, and is not there themselves.
#[derive(Clone, Default)]
struct Watcher(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    story: Story,
    wrong: Vec<String>,
    joined: BTreeMap<String, usize>,
    left: BTreeMap<String, usize>,
}

impl Watcher {
    /// Watches a room, for as long as the node is there.
    async fn start(node: &Node, room: usize) -> Self {
        let mut socket = open(node.port(), ROOMS[room], "presence=1").await.unwrap();
        let watcher = Watcher::default();
        let heard = watcher.clone();
        tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                if let Ok(frame) = serde_json::from_str(message.to_text().unwrap_or_default()) {
                    heard.take(&frame);
                }
            }
        });
        watcher
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap()
    }

    fn take(&self, frame: &Value) {
        let mut heard = self.heard();
        if let Err(why) = heard.story.take(frame) {
            heard.wrong.push(why);
        }
        if frame["type"] != "presence" || frame["all"] == true {
            return;
        }
        let heard = &mut *heard;
        for (list, counts) in [("join", &mut heard.joined), ("leave", &mut heard.left)] {
            for user in frame[list].as_array().into_iter().flatten() {
                let user = user["user"].as_str().unwrap().to_owned();
                *counts.entry(user).or_default() += 1;
            }
        }
    }

    fn knows(&self, room: usize) -> Option<BTreeSet<String>> {
        let heard = self.heard();
        let known = heard.story.0.get(ROOMS[room])?;
        Some(known.users.as_ref()?.keys().cloned().collect())
    }

    /// Counts from now on.
    fn forget(&self) {
        let mut heard = self.heard();
        heard.joined.clear();
        heard.left.clear();
    }
}

struct Place {
    redis: RedisServer,
    nodes: Vec<Node>,
    people: Vec<Person>,
    /// Each with its node and room.
    watchers: Vec<(usize, usize, Watcher)>,
}

impl Place {
    async fn new(redis: &[&str], arguments: &[&str]) -> Self {
        let redis = RedisServer::start_with(redis);
        let arguments = [&["--presence-limit", "2000"], arguments].concat();
        let start = || Node::start_with(&redis.url(), &arguments);
        Place {
            nodes: vec![start(), start(), start()],
            redis,
            people: Vec::new(),
            watchers: Vec::new(),
        }
    }

    /// So many more people, evenly over nodes and rooms.
    async fn populate(&mut self, count: usize) {
        let first = self.people.len();
        let ports: Vec<u16> = self.nodes.iter().map(Node::port).collect();
        let numbers: Vec<usize> = (first..first + count).collect();
        for numbers in numbers.chunks(50) {
            let come = numbers.iter().map(|number| {
                let (node, room) = (number % 3, number % ROOMS.len());
                enter(ports[node], node, room, format!("u{number}"))
            });
            let come = join_all(come).await;
            self.people.extend(come.into_iter().map(Option::unwrap));
        }
    }

    /// One watcher per room on this node.
    async fn watch(&mut self, node: usize) {
        for room in 0..ROOMS.len() {
            let watcher = Watcher::start(&self.nodes[node], room).await;
            self.watchers.push((node, room, watcher));
        }
    }

    fn truth(&self, room: usize) -> BTreeSet<String> {
        let here = self.people.iter().filter(|person| person.room == room);
        here.map(|person| person.user.clone()).collect()
    }

    /// Waits until these nodes and their watchers know who is here; how long that took.
    async fn right(&self, nodes: &[usize], within: Duration) -> Duration {
        let began = Instant::now();
        loop {
            let Some(wrong) = self.wrong(nodes) else {
                return began.elapsed();
            };
            assert!(began.elapsed() < within, "after {within:?} {wrong}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn wrong(&self, nodes: &[usize]) -> Option<String> {
        for (room, name) in ROOMS.iter().enumerate() {
            let truth = self.truth(room);
            let differ = |known: &BTreeSet<String>| {
                let missing: Vec<_> = truth.difference(known).take(9).collect();
                let ghosts: Vec<_> = known.difference(&truth).take(9).collect();
                format!("lacks {missing:?}, has {ghosts:?}")
            };
            for &node in nodes {
                let path = format!("/rooms/{name}/presence?limit=1000");
                let answer = self.nodes[node].get(&path).json();
                let users = answer["users"].as_array();
                let Some(users) = users else {
                    return Some(format!("node {node} answers {answer}"));
                };
                let named = |user: &Value| user["user"].as_str().unwrap().to_owned();
                let users: BTreeSet<String> = users.iter().map(named).collect();
                if users != truth || answer["count"] != truth.len() {
                    return Some(format!("node {node}, room {room}: {}", differ(&users)));
                }
            }
            for (node, of, watcher) in &self.watchers {
                if *of != room || !nodes.contains(node) {
                    continue;
                }
                let known = watcher.knows(room).unwrap_or_default();
                if known != truth {
                    return Some(format!(
                        "watcher on {node}, room {room}: {}",
                        differ(&known)
                    ));
                }
            }
        }
        None
    }

    /// No watcher was told nonsense.
    fn assert_told_well(&self) {
        for (node, room, watcher) in &self.watchers {
            let wrong = watcher.heard().wrong.clone();
            assert!(wrong.is_empty(), "node {node}, room {room}: {wrong:?}");
        }
    }

    /// Each join in the streams has its leave, and the end is the truth.
    fn assert_noticed_well(&self) {
        for (room, name) in ROOMS.iter().enumerate() {
            let mut here = BTreeSet::new();
            for (event, user) in notices(&self.redis, name) {
                let is_next = match event.as_str() {
                    "join" => here.insert(user.clone()),
                    _ => here.remove(&user),
                };
                assert!(is_next, "a second {event} of {user} in {name}");
            }
            assert_eq!(here, self.truth(room), "{name}");
        }
    }

    /// Nothing in Redis is of a node that has no lease.
    async fn until_buried(&self, living: usize) {
        let deadline = Instant::now() + HEALING;
        loop {
            let keys = self.redis.cli(&["KEYS", "tailcast:*"]);
            let lease = |key: &str| Some(key.split_once("}node:")?.1.to_owned());
            let leases: BTreeSet<String> = keys.lines().filter_map(lease).collect();
            let of_nodes = |key: &&str| {
                ["}node:", "}rooms:", "}users:", "}here:"]
                    .iter()
                    .any(|kind| key.contains(kind))
            };
            let of_living = |key: &str| leases.iter().any(|node| key.contains(node.as_str()));
            let dead: Vec<&str> = keys
                .lines()
                .filter(of_nodes)
                .filter(|k| !of_living(k))
                .collect();
            let named = self.redis.cli(&["SCARD", "tailcast:{}nodes"]);
            if dead.is_empty() && leases.len() == living && named == living.to_string() {
                return;
            }
            assert!(Instant::now() < deadline, "{dead:?}, {leases:?}, {named}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Kills a node and all who are on it.
    fn kill(&mut self, node: usize) {
        self.nodes[node].kill9();
        self.people.retain(|person| person.node != node);
        self.watchers.retain(|(on, ..)| *on != node);
    }
}

async fn enter(port: u16, node: usize, room: usize, user: String) -> Option<Person> {
    let mut socket = open(port, ROOMS[room], &format!("user={user}")).await?;
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    Some(Person {
        user,
        node,
        room,
        reading,
    })
}

/// A room's notices: event and user.
fn notices(redis: &RedisServer, room: &str) -> Vec<(String, String)> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(room)
        .arg("-")
        .arg("+")
        .query(&mut connection)
        .unwrap();
    entries
        .into_iter()
        .map(|(_, fields)| {
            assert_eq!((fields[0].as_str(), fields[2].as_str()), ("event", "user"));
            (fields[1].clone(), fields[3].clone())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_takes_its_thousand_users_with_it() {
    let mut place = Place::new(&[], &[]).await;
    place.watch(1).await;
    place.watch(2).await;
    place.populate(1_000).await;
    let took = place.right(&[0, 1, 2], PATIENCE).await;
    eprintln!("1,000 users: everybody knows {took:?} after the last has come");
    place.watchers.iter().for_each(|(.., one)| one.forget());
    let here = place.people.iter().filter(|person| person.node == 0);
    let gone: Vec<(usize, String)> = here.map(|one| (one.room, one.user.clone())).collect();
    assert!(gone.len() > 300);

    place.kill(0);
    let took = place.right(&[1, 2], HEALING).await;
    eprintln!("{} users of a killed node: gone after {took:?}", gone.len());
    place.until_buried(2).await;
    place.assert_told_well();
    for (_, room, watcher) in &place.watchers {
        let heard = watcher.heard();
        let left = gone.iter().filter(|(of, _)| of == room);
        let left: BTreeMap<String, usize> = left.map(|(_, user)| (user.clone(), 1)).collect();
        assert_eq!(heard.left, left, "each once");
        assert!(heard.joined.is_empty(), "{:?}", heard.joined);
    }
}

/// Redis is killed and started again, with what it kept.
async fn redis_restarted(redis: &[&str], saves: bool) {
    let mut place = Place::new(redis, &[]).await;
    place.watch(2).await;
    place.populate(60).await;
    place.right(&[0, 1, 2], PATIENCE).await;
    if saves {
        // What comes after this is forgotten.
        place.redis.cli(&["SAVE"]);
    }
    place.people.drain(..20);
    place.populate(30).await;
    place.right(&[0, 1, 2], PATIENCE).await;
    place.redis.kill9();
    place.people.drain(..5);
    place.redis.restart();
    place.populate(5).await;
    let took = place.right(&[0, 1, 2], HEALING).await;
    eprintln!("Redis restarted with {redis:?}: right after {took:?}");
    // And it stays so, beyond a lease.
    sleep(Duration::from_secs(7)).await;
    place.right(&[0, 1, 2], Duration::from_secs(1)).await;
    place.until_buried(3).await;
    place.assert_told_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_with_all_it_knew() {
    redis_restarted(&["--appendfsync", "no"], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_empty() {
    redis_restarted(&["--appendonly", "no"], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_restarted_with_an_old_snapshot() {
    redis_restarted(&["--appendonly", "no"], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stopped_for_longer_than_its_lease() {
    let mut place = Place::new(&[], &["--notices"]).await;
    place.watch(1).await;
    place.populate(90).await;
    place.right(&[0, 1, 2], PATIENCE).await;
    place.watchers.iter().for_each(|(.., one)| one.forget());

    place.nodes[0].stop();
    let stopped = Instant::now();
    let (asleep, awake): (Vec<_>, Vec<_>) =
        place.people.drain(..).partition(|person| person.node == 0);
    place.people = awake;
    let took = place.right(&[1, 2], HEALING).await;
    eprintln!("users of a stopped node: gone after {took:?}");
    sleep(stopped + Duration::from_secs(20) - Instant::now()).await;
    place.nodes[0].cont();
    // Some of them have gone meanwhile, and the node did not see it.
    place.people.extend(asleep.into_iter().skip(5));
    let took = place.right(&[0, 1, 2], HEALING).await;
    eprintln!("users of a node that goes on: back after {took:?}");

    place.until_buried(3).await;
    place.assert_told_well();
    place.assert_noticed_well();
    for (_, room, watcher) in &place.watchers {
        let heard = watcher.heard();
        assert!(
            heard.left.values().all(|times| *times == 1),
            "{:?}",
            heard.left
        );
        let back = place
            .people
            .iter()
            .filter(|one| one.node == 0 && one.room == *room);
        let back: BTreeSet<_> = back.map(|person| person.user.clone()).collect();
        let left: BTreeSet<_> = heard.left.keys().cloned().collect();
        assert!(back.is_subset(&left), "{left:?}");
        for user in back {
            assert_eq!(heard.joined.get(&user), Some(&1), "{user}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_move_all_the_time() {
    let mut place = Place::new(&[], &["--notices"]).await;
    place.watch(1).await;
    place.watch(2).await;
    let ports: Vec<u16> = place.nodes.iter().map(Node::port).collect();
    let alive = Arc::new([const { AtomicBool::new(true) }; 3]);
    let until = Instant::now() + Duration::from_secs(10);
    let moving: Vec<JoinHandle<Person>> = (0..60)
        .map(|number| {
            let (ports, alive) = (ports.clone(), alive.clone());
            tokio::spawn(async move {
                let mut person = None;
                loop {
                    let node = rand::rng().random_range(0..3);
                    let room = rand::rng().random_range(0..ROOMS.len());
                    let pause = rand::rng().random_range(20..600);
                    if alive[node].load(Ordering::Acquire) {
                        // For a moment they are in both places, or in none.
                        if pause % 2 == 0 {
                            drop(person.take());
                        }
                        let user = format!("u{number}");
                        person = enter(ports[node], node, room, user).await;
                    }
                    sleep(Duration::from_millis(pause)).await;
                    let stays = person.as_ref();
                    let is_on = |one: &Person| alive[one.node].load(Ordering::Acquire);
                    if Instant::now() > until && stays.is_some_and(is_on) {
                        return person.unwrap();
                    }
                }
            })
        })
        .collect();
    for second in 0..10 {
        sleep(Duration::from_secs(1)).await;
        let kind = ["pubsub", "normal"][second % 2];
        place.redis.cli(&["CLIENT", "KILL", "TYPE", kind]);
        if second == 4 {
            alive[0].store(false, Ordering::Release);
            place.kill(0);
        }
    }
    for person in join_all(moving).await {
        place.people.push(person.unwrap());
    }
    let took = place.right(&[1, 2], HEALING).await;
    eprintln!("60 users who moved all the time: right after {took:?}");
    place.until_buried(2).await;
    place.assert_told_well();
    place.assert_noticed_well();
    let moves: usize = ROOMS
        .iter()
        .map(|room| notices(&place.redis, room).len())
        .sum();
    eprintln!("{moves} notices");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ends_takes_its_users_with_it_at_once() {
    let mut place = Place::new(&[], &["--notices"]).await;
    place.watch(1).await;
    place.populate(60).await;
    place.right(&[0, 1, 2], PATIENCE).await;
    place.nodes[0].sigterm();
    place.nodes[0].wait_exit();
    place.people.retain(|person| person.node != 0);
    let took = place.right(&[1, 2], Duration::from_secs(2)).await;
    eprintln!("users of a node that ended: gone after {took:?}");
    place.until_buried(2).await;
    place.assert_told_well();
    place.assert_noticed_well();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_that_is_no_stream_harms_no_other() {
    let mut place = Place::new(&[], &["--notices", "--expire-after", "1h"]).await;
    place.watch(1).await;
    let green = || place.nodes[1].get("/rooms/green/presence").json()["count"].clone();
    // One is in the room when it becomes something else, and one comes while its tail lives on.
    let port = place.nodes[0].port();
    let query = "format=json&from=now&user";
    let url = |user: &str| format!("ws://127.0.0.1:{port}/rooms/green?{query}={user}");
    let there = connect_async(url("u0")).await.unwrap();
    until("u0 is there", || green() == 1).await;
    place.redis.cli(&["DEL", "green"]);
    place.redis.cli(&["SET", "green", "somebody's own"]);
    let comes = connect_async(url("u1")).await;
    drop(there);
    place.populate(30).await;
    place.right(&[0, 1, 2], HEALING).await;
    // And it does not begin anew all the time.
    place.until_buried(3).await;
    // Another passes the gate, and then can't join it.
    let mut socket = open(port, ROOMS[0], "user=u0").await.unwrap();
    place.redis.cli(&["SET", "grey", "somebody's own"]);
    let join = r#"{"type":"join","room":"grey"}"#;
    socket.send(Message::text(join)).await.unwrap();
    loop {
        let message = timeout(PATIENCE, socket.next())
            .await
            .expect("it's refused");
        let message = message.unwrap().unwrap();
        if message.to_text().unwrap_or_default().contains("error") {
            break;
        }
    }
    drop(comes);
    let green = || place.nodes[1].get("/rooms/green/presence").json()["count"].clone();
    until("nobody is there", || green() == 0).await;
    let grey = place.nodes[1].get("/rooms/grey/presence").json();
    assert_eq!(grey["count"], 0, "{grey}");
    assert_eq!(place.redis.cli(&["TTL", "green"]), "-1");
    place.kill(0);
    drop(socket);
    place.right(&[1, 2], HEALING).await;
    place.until_buried(2).await;
    place.assert_told_well();
    place.assert_noticed_well();
}
