//! Connections that break again and again, on nodes that know nothing of each other's sessions: no
//! socket loses an entry, none gets one twice, and all say that they recovered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::start;
use crate::harness::clients::{Program, Ws};
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use tailcast::relay::entry::EntryId;

const SOCKETS: usize = 10;
const CUTS: usize = 20;

/// Nothing is trimmed. And a client whose socket is cut in the middle of a probe may hang until it misses
/// a ping, which shall not take it the usual 45 s.
const KEPT: [&str; 6] = [
    "--keep",
    "0",
    "--socketio-ping-interval",
    "1s",
    "--socketio-ping-timeout",
    "5s",
];

/// Publishes on both nodes, one entry each every so often, until told to stop.
async fn publish(mut sockets: Vec<Ws>, every: Duration, stop: Arc<AtomicBool>) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Acquire) {
        for socket in &mut sockets {
            socket.send(format!("m{count}")).await;
            count += 1;
        }
        sleep(every).await;
    }
    // What was sent is read before the socket is closed.
    for mut socket in sockets {
        socket.pinged().await.unwrap();
    }
    count
}

/// How a storm goes.
struct Storm<'a> {
    arguments: &'a [&'a str],
    every: Duration,
    /// Whether every reconnect gets back what was missed.
    recovers: bool,
}

fn ids(value: &serde_json::Value) -> Vec<EntryId> {
    let ids = value.as_array().unwrap().iter();
    ids.map(|id| id.as_str().unwrap().parse().unwrap())
        .collect()
}

async fn check(
    redis: &RedisServer,
    nodes: &[&Node],
    publishers: &[&Node],
    storm: Storm<'_>,
    fault: impl FnOnce(),
) {
    let urls: Vec<String> = nodes.iter().map(|node| node.url("")).collect();
    let (sockets, cuts) = (SOCKETS.to_string(), CUTS.to_string());
    let mut arguments: Vec<&str> = urls.iter().flat_map(|url| ["--url", url]).collect();
    arguments.extend(["--sockets", &sockets, "--cuts", &cuts]);
    arguments.extend(storm.arguments);
    let mut program = Program::socketio_storm(&arguments);
    let stop = Arc::new(AtomicBool::new(false));
    let mut sockets = Vec::new();
    for node in publishers {
        sockets.push(Ws::open(node, "/rooms/storm").await);
    }
    let publishing = tokio::spawn(publish(sockets, storm.every, stop.clone()));
    tokio::task::block_in_place(|| {
        program.event("joined");
        fault();
        program.event("settled");
    });
    stop.store(true, Ordering::Release);
    let count = publishing.await.unwrap();
    assert!(count > 20, "too little was published: {count}");
    let mut stored = redis.entries("storm");
    while stored.len() < count {
        sleep(Duration::from_millis(20)).await;
        stored = redis.entries("storm");
    }
    let (last, _) = stored.last().unwrap();
    program.say(&format!("{{\"finish\":\"{last}\"}}"));
    let mut recovered = 0;
    for number in 0..SOCKETS {
        let socket = program.event("socket");
        let first: EntryId = socket["first"].as_str().unwrap().parse().unwrap();
        let got = ids(&socket["ids"]);
        let want: Vec<EntryId> = stored
            .iter()
            .map(|(id, _)| *id)
            .filter(|id| *id > first)
            .collect();
        let at = got.iter().zip(&want).take_while(|(a, b)| a == b).count();
        assert_eq!(
            got.len(),
            want.len(),
            "socket {number}: first differs at {at}: {:?}, not {:?}",
            got.get(at),
            want.get(at)
        );
        assert_eq!(at, want.len(), "socket {number}");
        assert_eq!(socket["gaps"], 0);
        let connects = socket["connects"].as_u64().unwrap();
        assert!(connects > CUTS as u64, "{connects}");
        recovered += socket["recovered"].as_u64().unwrap();
        assert!(!storm.recovers || socket["recovered"] == connects - 1);
    }
    assert!(!storm.recovers || recovered >= (SOCKETS * CUTS) as u64);
}

async fn over(arguments: &[&str]) {
    let (redis, [one, other]) = start::<2>(&KEPT);
    let storm = Storm {
        arguments,
        every: Duration::from_millis(4),
        recovers: true,
    };
    let nodes = [&one, &other];
    check(&redis, &nodes, &nodes, storm, || {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_websockets() {
    over(&["--transports", "websocket"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_polling() {
    over(&["--transports", "polling"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_upgrades() {
    over(&[]).await;
}

/// Connections that break before anything was said on them: the offset is the one of the packet
/// right behind CONNECT, or older.
#[tokio::test(flavor = "multi_thread")]
async fn twice_in_a_row() {
    let (redis, [one, other]) = start::<2>(&KEPT);
    let storm = Storm {
        arguments: &["--double"],
        every: Duration::from_millis(50),
        recovers: true,
    };
    let nodes = [&one, &other];
    check(&redis, &nodes, &nodes, storm, || {}).await;
}

/// A pid is good at the nodes that are left.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_node_dies() {
    let (redis, [one, other, mut dead]) = start::<3>(&KEPT);
    let storm = Storm {
        arguments: &["--pause", "100"],
        every: Duration::from_millis(5),
        recovers: true,
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(dead.pid()).unwrap()).unwrap();
    let kill = move || {
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    check(&redis, &[&one, &dead, &other], &[&one, &other], storm, kill).await;
    dead.kill9();
}
