//! The contract with clients, line by line: the real program, a real Redis, published clients.

mod closes;
mod commands;
mod events;
mod everywhere;
mod from;
mod http;
mod json;
mod limits;
mod raw;
mod readme;
mod refusing;

use std::time::{Duration, Instant, SystemTime};

use tailcast::relay::entry::EntryId;

use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// A node on a Redis of its own.
fn setup() -> (RedisServer, Node) {
    setup_with(&[])
}

/// The same with arguments for the node.
fn setup_with(arguments: &[&str]) -> (RedisServer, Node) {
    let redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), arguments);
    (redis, node)
}

/// Opens a raw socket that has joined for certain: nothing tells, so entries are added until one
/// arrives. The sequence of the IDs then in the stream is the test's own business.
async fn raw_joined(redis: &RedisServer, node: &Node, room: &str) -> Ws {
    let mut socket = Ws::open(node, &format!("/rooms/{room}?from=start")).await;
    redis.cli(&["XADD", room, "*", "message", "joined?"]);
    assert_eq!(socket.text().await, "joined?");
    socket
}

/// Adds one entry; its ID.
fn add(redis: &RedisServer, key: &str, message: &str) -> String {
    redis.cli(&["XADD", key, "*", "message", message])
}

/// Milliseconds since the epoch.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_millis()).unwrap()
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn id(text: &str) -> EntryId {
    text.parse().unwrap()
}
