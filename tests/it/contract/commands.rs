//! The commands against a running node, a node without Redis, and the key prefix.

use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{add, setup, setup_with, wait_for};
use crate::harness::clients::{Program, Ws};
use crate::harness::node::Node;

fn tailcast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailcast"));
    command.env_clear().env("HOME", "/nowhere").args(arguments);
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = tailcast(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim_end().to_owned();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn publish_and_tail() {
    let (redis, mut node) = setup();
    let url = node.ws_url("");
    let (code, first, error) = run(&["publish", "a room/ü", "hällo", "--url", &url]);
    assert_eq!((code, &*error), (Some(0), ""));
    assert_eq!(
        redis.cli(&["XRANGE", "a room/ü", &first, &first]),
        format!("{first}\nmessage\nhällo")
    );
    let tail = Program::spawn(&mut tailcast(&[
        "tail",
        "a room/ü",
        "--from",
        "start",
        "--url",
        &url,
    ]));
    assert_eq!(
        tail.json(),
        json!({"id": first, "fields": {"message": "hällo"}})
    );
    let (code, second, _) = run(&[
        "publish",
        "a room/ü",
        "--field",
        "b=1",
        "--field",
        "a=2=3",
        "--url",
        &url,
    ]);
    assert_eq!(code, Some(0));
    assert_eq!(
        tail.line(),
        format!("{{\"id\":\"{second}\",\"fields\":{{\"b\":\"1\",\"a\":\"2=3\"}}}}")
    );
    let keyed = ["publish", "r", "x", "--key", "k", "--url", &url];
    assert_eq!(run(&keyed), run(&keyed));
    // The node goes and comes back: nothing lost, nothing twice.
    node.kill9();
    let missed = add(&redis, "a room/ü", "missed");
    node.restart();
    assert_eq!(tail.json()["id"], missed);
    let live = add(&redis, "a room/ü", "live");
    assert_eq!(tail.json()["id"], live);
    redis.cli(&["SET", "string", "x"]);
    let (code, out, error) = run(&["publish", "string", "x", "--url", &url]);
    assert_eq!((code, &*out), (Some(1), ""));
    assert!(error.contains("another type than a stream"), "{error}");
    let (code, _, error) = run(&["tail", "string", "--url", &url]);
    assert_eq!(code, Some(1));
    assert!(error.contains("another type than a stream"), "{error}");
}

#[test]
fn check_and_config() {
    let (redis, _node) = setup();
    let (code, out, error) = run(&["check", "--redis", &redis.url()]);
    assert_eq!((code, &*error), (Some(0), ""), "{out}");
    for part in [
        "answers",
        "server: redis 7",
        "tracking: supported",
        "eviction",
        "persistence",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let (_, out, _) = run(&["check", "--redis", &redis.url()]);
    assert!(
        out.lines().any(|line| line.starts_with("warn")
            && line.contains("allkeys-lru")
            && line.contains("noeviction")),
        "{out}"
    );
    redis.cli(&["CONFIG", "SET", "requirepass", "secret"]);
    let (code, out, _) = run(&["check", "--redis", &redis.url()]);
    assert_eq!(code, Some(1));
    assert!(out.contains("password"), "{out}");
    let (code, out, _) = run(&["config", "--redis", &redis.url(), "--ping", "3s"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains(&redis.url()) && out.contains("# flag --ping"),
        "{out}"
    );
}

#[tokio::test]
async fn a_node_without_redis() {
    let mut node = Node::in_memory(&[]);
    let (mut socket, head) = Ws::json(&node, "r", "now").await;
    assert_eq!(head, "0-0");
    let mut raw = Ws::open(&node, "/rooms/r?from=start").await;
    let id = node.publish("r", "hi");
    socket.entry(&id, "hi").await;
    assert_eq!(raw.text().await, "hi");
    raw.send("from raw").await;
    assert_eq!(socket.frame().await["fields"]["message"], "from raw");
    assert_eq!(raw.text().await, "from raw");
    let page = node.get("/rooms/r?order=desc&limit=1").json();
    assert_eq!(page["entries"][0]["fields"]["message"], "from raw");
    let (code, id, _) = run(&["publish", "r", "cli", "--url", &node.url("")]);
    assert_eq!(code, Some(0));
    socket.entry(&id, "cli").await;
    node.sigterm();
    assert_eq!(socket.closed().await.0, 1012);
    drop(raw);
    assert_eq!(node.wait_exit().code(), Some(0));
}

#[tokio::test]
async fn the_key_prefix_stands_before_rooms_only() {
    let (redis, node) = setup_with(&["--key-prefix", "app:"]);
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    let id = node.publish("r", "one");
    socket.entry(&id, "one").await;
    assert_eq!(redis.cli(&["XLEN", "app:r"]), "1");
    assert_eq!(redis.cli(&["EXISTS", "r"]), "0");
    let id = add(&redis, "app:r", "two");
    socket.entry(&id, "two").await;
    let page = node.get("/rooms/r").json();
    assert_eq!(
        (&page["room"], page["entries"].as_array().map(Vec::len)),
        (&json!("r"), Some(2))
    );
    node.request("POST", "/rooms/r", &[("idempotency-key", "k")], "x");
    let keys = redis.cli(&["KEYS", "*"]);
    for key in keys.lines() {
        assert!(
            key.starts_with("app:") || key.starts_with("tailcast:"),
            "{key}"
        );
    }
    assert!(
        node.stderr().contains("XADD app:mystream"),
        "{}",
        node.stderr()
    );
}

#[tokio::test]
async fn retention_and_expiry() {
    let (redis, node) = setup_with(&["--keep", "100", "--expire-after", "2s"]);
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    for number in 0..400 {
        let message = format!("{number}");
        socket
            .send_json(json!({"type":"publish","message":message}))
            .await;
        if number % 50 == 49 {
            let mut acks = 0;
            while acks < 50 {
                acks += usize::from(socket.frame().await["type"] == "ack");
            }
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    }
    // MAXLEN ~ trims by whole nodes of a hundred entries.
    let len: usize = redis.cli(&["XLEN", "r"]).parse().unwrap();
    assert!((100..=200).contains(&len), "{len}");
    wait_for("the room expires", || redis.cli(&["EXISTS", "r"]) == "0");
    let id = node.publish("r", "again");
    loop {
        let frame: Value = socket.frame().await;
        if frame["type"] == "entry" && frame["id"] == *id {
            break;
        }
    }
}

#[test]
fn publish_and_tail_with_a_token() {
    let secret = "0123456789abcdef0123456789abcdef";
    let (redis, node) = setup_with(&["--auth", "jwt", "--jwt-secret", secret]);
    let url = node.ws_url("");
    let (code, token, error) = run(&[
        "token",
        "--user",
        "ann",
        "--room",
        "r=member",
        "--ttl",
        "1h",
        "--jwt-secret",
        secret,
    ]);
    assert_eq!((code, &*error), (Some(0), ""));
    let (code, id, error) = run(&["publish", "r", "x", "--url", &url, "--token", &token]);
    assert_eq!((code, &*error), (Some(0), ""));
    assert_eq!(
        redis.cli(&["XRANGE", "r", &id, &id]),
        format!("{id}\nmessage\nx\nuser\nann")
    );
    let arguments = ["tail", "r", "--from", "start", "--url", &url];
    let tail = Program::spawn(tailcast(&arguments).env("TAILCAST_TOKEN", &token));
    assert_eq!(tail.json()["id"], id);
    // Without one, and where it grants nothing, they say so and end.
    let (code, _, error) = run(&arguments);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("no credential came"), "{error}");
    let (code, _, error) = run(&["tail", "other", "--url", &url, "--token", &token]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("subscribe"), "{error}");
    let (code, _, error) = run(&["publish", "other", "x", "--url", &url, "--token", &token]);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("lacks the right"), "{error}");
}
