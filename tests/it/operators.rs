//! What operators see of a node whose surroundings fail: its log, its metrics, its health.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::{http, until};

/// How often the log says this.
fn count(node: &Node, words: &str) -> usize {
    node.stderr().matches(words).count()
}

#[tokio::test]
async fn the_log_says_once_that_redis_went_and_once_that_it_is_back() {
    let mut redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let mut sockets = Vec::new();
    for index in 0..70 {
        sockets.push(Ws::json(&node, &format!("room {index}").replace(' ', "-"), "now").await);
    }
    assert_eq!(node.metric("tailcast_redis_up"), Some(1.0));
    let connects = node.metric("tailcast_redis_connects_total").unwrap();
    redis.kill9();
    until("the log says that it's away", || {
        count(&node, "Redis is away") > 0
    })
    .await;
    until("the metric says so", || {
        node.metric("tailcast_redis_up") == Some(0.0)
    })
    .await;
    redis.restart();
    until("the log says that it's back", || {
        count(&node, "Redis answers again") > 0
    })
    .await;
    until("the metric says so", || {
        node.metric("tailcast_redis_up") == Some(1.0)
    })
    .await;
    until("all are connected", || {
        node.get("/health/ready").status == 200
    })
    .await;
    assert!(node.metric("tailcast_redis_connects_total").unwrap() > connects);
    assert_eq!(node.metric("tailcast_rooms_stalled"), Some(0.0));
    let log = node.stderr();
    let told = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains(" INFO "));
    let of_redis: Vec<_> = told.filter(|line| line.contains("Redis")).collect();
    let away = of_redis
        .iter()
        .filter(|line| line.contains("Redis is away"));
    assert_eq!(away.count(), 1, "{log}");
    assert_eq!(count(&node, "Redis answers again"), 1, "{log}");
    assert!(of_redis.len() <= 6, "no flood: {of_redis:#?}");
}

#[test]
fn a_publish_while_redis_is_away_is_refused_not_unknown() {
    let mut redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), &["--publish-timeout", "2s"]);
    redis.kill9();
    let began = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["publish", "r", "x", "--url", &node.ws_url("")])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("redis_unavailable"), "{error}");
    assert!(error.contains("it is not stored"), "{error}");
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "it waited as the node does"
    );
}

#[test]
fn the_start_says_what_a_crash_of_redis_would_lose() {
    let redis = RedisServer::start();
    redis.cli(&["CONFIG", "SET", "appendonly", "no"]);
    redis.cli(&["CONFIG", "SET", "save", "3600 1"]);
    let node = Node::start_with(&redis.url(), &["--node-name", "blue-1"]);
    let log = node.stderr();
    assert_eq!(count(&node, "snapshots only (save 3600 1)"), 1, "{log}");
    assert!(log.contains("CONFIG SET appendonly yes"), "{log}");
    assert!(log.contains("blue-1"), "{log}");
    let status = node.get("/status.json").json();
    assert_eq!(status["node"]["name"], json!("blue-1"));
    let check = Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["check", "--redis", &redis.url()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(said.contains("snapshots only (save 3600 1)"), "{said}");
}

/// More sockets than there are files, each in a room of its own, and Redis is cut off meanwhile.
#[tokio::test]
async fn few_files_are_shared_out() {
    let mut redis = RedisServer::start();
    let node = Node::start_with_files(&redis.url(), 64);
    let live = |what: &str| {
        let began = Instant::now();
        let answer = http::try_request(node.port(), "GET", "/health/live", &[], b"");
        let status = answer.map(|answer| answer.status).ok();
        assert_eq!(status, Some(200), "{what}: {}", node.stderr());
        // A busy machine is given some time more than the second that it takes.
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{what}: {:?}",
            began.elapsed()
        );
    };
    live("at first");
    let (mut sockets, mut refused) = (Vec::new(), 0);
    for index in 0..100 {
        let path = format!("/rooms/r{index}?format=json&from=now");
        match Ws::try_open(&node, &path, &[]).await {
            Ok(mut socket) => {
                assert_eq!(socket.frame().await["type"], "joined");
                sockets.push((format!("r{index}"), socket));
            }
            Err(_) => refused += 1,
        }
        if index % 10 == 9 {
            live("under way");
        }
    }
    assert!(sockets.len() >= 12, "{} sockets are in", sockets.len());
    assert!(refused >= 50, "{refused} were refused");
    // Who is one too many is told so.
    let answer = http::try_request(node.port(), "GET", "/rooms/r0", &[], b"").unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.error_code(), "too_many_sockets");
    // Some that say nothing at all.
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(("127.0.0.1", node.port())))
        .collect();
    live("beside silent ones");
    drop(silent);

    // Rooms with a connection of their own, and those that share one, live on through a restart of Redis.
    redis.kill9();
    redis.restart();
    until("the node is well", || {
        live("while Redis restarts");
        node.get("/health/ready").status == 200
    })
    .await;
    for (room, socket) in &mut sockets {
        redis.cli(&["XADD", room, "*", "message", "still here"]);
        let mut frame = socket.frame().await;
        while frame["type"] != "entry" {
            frame = socket.frame().await;
        }
        assert_eq!(frame["fields"]["message"], "still here");
    }
    drop(sockets);
    until("there is room again", || {
        node.metric("tailcast_accept_errors_total") == Some(0.0)
    })
    .await;
}
