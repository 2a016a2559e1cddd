//! A Redis that refuses: every message says what is wrong, and nothing stalls once it's mended.

use serde_json::json;

use super::{raw_joined, setup};
use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

#[tokio::test]
async fn another_type_under_a_rooms_key() {
    let (redis, node) = setup();
    redis.cli(&["SET", "r", "x"]);
    let (mut socket, _) = Ws::json(&node, "other", "now").await;
    socket.send_json(json!({"type":"join","room":"r"})).await;
    let error = socket.frame().await;
    assert_eq!(
        (&error["code"], &error["room"]),
        (&json!("wrong_type"), &json!("r"))
    );
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .contains("rename or delete it")
    );
    let answer = node.request("POST", "/rooms/r", &[], "x");
    assert_eq!((answer.status, &*answer.error_code()), (409, "wrong_type"));
    assert!(answer.text().contains("not stored"), "{}", answer.text());
    let answer = node.request("POST", "/rooms/r", &[("idempotency-key", "k")], "x");
    assert_eq!((answer.status, &*answer.error_code()), (409, "wrong_type"));
    let answer = node.get("/rooms/r");
    assert_eq!((answer.status, &*answer.error_code()), (409, "wrong_type"));
    // The rest of the node is none the worse.
    assert_eq!(node.get("/health/ready").status, 200);
    assert_eq!(node.metric("tailcast_refused_total"), Some(2.0));
    // The room's tail looks again by itself, and until then says what it saw last.
    redis.cli(&["DEL", "r"]);
    loop {
        socket.send_json(json!({"type":"join","room":"r"})).await;
        let frame = socket.frame().await;
        if frame["type"] == "joined" {
            break;
        }
        assert_eq!(frame["code"], "wrong_type");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let id = node.publish("r", "well");
    socket.entry(&id, "well").await;
}

#[tokio::test]
async fn another_type_under_a_live_rooms_key() {
    let (redis, node) = setup();
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    let id = node.publish("r", "one");
    socket.entry(&id, "one").await;
    redis.cli(&["SET", "r", "x"]);
    let answer = node.request("POST", "/rooms/r", &[], "x");
    assert_eq!((answer.status, &*answer.error_code()), (409, "wrong_type"));
    socket.assert_quiet().await;
    redis.cli(&["DEL", "r"]);
    let id = node.publish("r", "two");
    // The stream is another one: a gap may be told, then it goes on.
    let entry = socket.frame_of("entry").await;
    assert_eq!(entry["id"], *id);
    assert_eq!(node.get("/health/ready").status, 200);
}

#[tokio::test]
async fn a_password() {
    let redis = RedisServer::start();
    redis.cli(&["CONFIG", "SET", "requirepass", "secret"]);
    for url in [redis.url(), redis.url().replace("://", "://:wrong@")] {
        let mut node = Node::spawn(&["--redis", &url]);
        assert_eq!(node.wait_exit().code(), Some(1));
        let stderr = node.stderr_to_end();
        assert!(
            stderr.contains("password") && stderr.contains("--redis"),
            "{stderr}"
        );
        assert!(
            !stderr.contains("wrong@") && !stderr.contains("panicked"),
            "{stderr}"
        );
    }
    let node = Node::start(&redis.url().replace("://", "://:secret@"));
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    let id = node.publish("r", "hi");
    socket.entry(&id, "hi").await;
    assert!(!node.stderr().contains("secret"), "{}", node.stderr());
}

#[tokio::test]
async fn a_read_only_replica() {
    let redis = RedisServer::start();
    redis.cli(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]);
    redis.cli(&["XADD", "r", "1-0", "message", "one"]);
    let replica = RedisServer::start();
    replica.cli(&["REPLICAOF", "127.0.0.1", &redis.port().to_string()]);
    super::wait_for("it's in sync", || replica.cli(&["EXISTS", "r"]) == "1");
    // A replica may become the master, so publishes wait for that as long as for a Redis away.
    let node = Node::start_with(&replica.url(), &["--publish-timeout", "300ms"]);
    assert!(node.stderr().contains("replica"), "{}", node.stderr());
    // Reading works.
    let (mut socket, _) = Ws::json(&node, "r", "start").await;
    socket.entry("1-0", "one").await;
    let id = redis.cli(&["XADD", "r", "*", "message", "two"]);
    socket.entry(&id, "two").await;
    let answer = node.request("POST", "/rooms/r", &[], "x");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (503, "redis_read_only")
    );
    assert!(answer.text().contains("not stored"), "{}", answer.text());
    socket
        .send_json(json!({"type":"publish","message":"x","ref":1}))
        .await;
    let error = socket.frame().await;
    assert_eq!(
        (&error["code"], &error["ref"]),
        (&json!("redis_read_only"), &json!(1))
    );
    let mut raw = Ws::open(&node, "/rooms/r").await;
    raw.send("x").await;
    let (code, reason) = raw.closed().await;
    assert_eq!(code, 1013);
    assert!(
        reason.contains("not stored") && reason.contains("takes no writes"),
        "{reason}"
    );
    // It becomes the master: the same node goes on, once it has looked again.
    replica.cli(&["REPLICAOF", "NO", "ONE"]);
    until("the node publishes again", || {
        node.request("POST", "/rooms/r", &[], "three").status == 201
    })
    .await;
    let id = replica.entries("r").last().expect("an entry").0.to_string();
    socket.entry(&id, "three").await;
}

#[tokio::test]
async fn out_of_memory() {
    let (redis, node) = setup();
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    let mut raw = raw_joined(&redis, &node, "raw").await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    for headers in [&[][..], &[("idempotency-key", "k")]] {
        let answer = node.request("POST", "/rooms/r", headers, "x");
        assert_eq!((answer.status, &*answer.error_code()), (507, "redis_full"));
        assert!(answer.text().contains("not stored"), "{}", answer.text());
    }
    socket
        .send_json(json!({"type":"publish","message":"x","ref":"a"}))
        .await;
    let error = socket.frame().await;
    assert_eq!(
        (&error["code"], &error["ref"]),
        (&json!("redis_full"), &json!("a"))
    );
    raw.send("x").await;
    let (code, reason) = raw.closed().await;
    assert_eq!(code, 1013);
    assert!(
        reason.contains("not stored") && reason.contains("full"),
        "{reason}"
    );
    assert_eq!(node.metric("tailcast_refused_total"), Some(4.0));
    // New sockets join all the same: reading needs no memory of Redis.
    let (mut reader, _) = Ws::json(&node, "raw", "start").await;
    assert_eq!(reader.frame().await["fields"]["message"], "joined?");
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let answer = node.request("POST", "/rooms/r", &[("idempotency-key", "k")], "well");
    assert_eq!(answer.status, 201);
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    socket.entry(&id, "well").await;
}

#[tokio::test]
async fn away_and_back() {
    let mut redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), &["--publish-timeout", "500ms"]);
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    let id = node.publish("r", "one");
    socket.entry(&id, "one").await;
    redis.kill9();
    super::wait_for("it's told", || node.get("/health/ready").status == 503);
    assert_eq!(node.get("/health/ready").error_code(), "redis_unavailable");
    assert_eq!(node.get("/health/live").status, 200);
    let answer = node.request("POST", "/rooms/r", &[], "lost");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (503, "redis_unavailable")
    );
    assert!(answer.text().contains("not stored"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    redis.restart();
    node.wait_ready();
    let id = node.publish("r", "two");
    socket.entry(&id, "two").await;
}
