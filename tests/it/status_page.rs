//! The status page in a real browser: what operators see of what happens to a node.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::interval;

use crate::harness::PATIENCE;
use crate::harness::clients::{Program, Ws};
use crate::harness::http;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// The page in a browser of its own, whose files go with it.
struct Page {
    program: Program,
    _dir: TempDir,
}

impl Page {
    fn open(node: &Node) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        let mut command = Command::new("node");
        command.current_dir(clients).env("TMPDIR", dir.path());
        let program = Program::spawn(command.args(["status/page.mjs", &node.url("/status")]));
        Page { program, _dir: dir }
    }

    /// Waits until the page shows what is meant.
    #[track_caller]
    fn until(&self, what: &str, is_meant: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.program.json();
            assert_ne!(shown["event"], "trouble", "{shown}");
            if shown["event"] == "shown" && is_meant(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "not {what}, but {shown}");
        }
    }

    #[track_caller]
    fn until_state(&self, state: &str) -> Value {
        self.until(state, |shown| shown["state"] == state)
    }

    /// Sends a command, and waits for its answer.
    fn ask(&mut self, command: Value, answer: &str) -> Value {
        self.program.say(&command.to_string());
        self.program.event(answer)
    }
}

fn tile(shown: &Value, id: &str) -> String {
    shown["tiles"][id].as_str().unwrap_or_default().to_owned()
}

fn chart(shown: &Value, id: &str, line: usize) -> String {
    let text = shown["charts"][id]["values"][line].as_str();
    text.unwrap_or_default().to_owned()
}

/// A chart's number, without its unit.
fn number(text: &str) -> Option<f64> {
    text.split(' ').next()?.replace(',', "").parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_drawn() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let other = Node::start(&redis.url());
    let mut page = Page::open(&node);
    page.until_state("ready");

    let (mut alice, _) = Ws::json(&node, "lobby&user=alice", "now").await;
    let bob = Ws::json(&node, "lobby&user=bob", "now").await;
    let raw = Ws::open(&node, "/rooms/lobby").await;
    page.until("three sockets", |shown| {
        tile(shown, "sockets").starts_with("3\n") && chart(shown, "chart-sockets", 0) == "3"
    });

    // Twenty a second, for as long as the page takes to say so.
    let publishing = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_millis(50));
        let mut sent = 0_u64;
        while sent < 200 {
            ticks.tick().await;
            alice
                .send_json(json!({"type": "publish", "message": "hi"}))
                .await;
            sent += 1;
        }
        (alice, sent)
    });
    let is_near_20 = |text: String| number(&text).is_some_and(|rate| (17.0..=23.0).contains(&rate));
    let shown = page.until("twenty entries a second", |shown| {
        is_near_20(chart(shown, "chart-entries", 0)) && is_near_20(chart(shown, "chart-entries", 1))
    });
    for id in ["chart-publish", "chart-tail"] {
        for line in 0..2 {
            let text = chart(&shown, id, line);
            let us = number(&text).is_some_and(|took| took > 0.0 && took < 5_000.0);
            assert!(us && text.ends_with("ms"), "{id} {text}");
        }
    }
    let words = shown["charts"]["chart-entries"]["words"].as_str().unwrap();
    assert!(words.starts_with("from Redis: now "), "{words}");
    assert!(
        words.contains("in the last two minutes from 0 to "),
        "{words}"
    );
    let both = |shown: &Value| {
        shown["nodes"]
            .as_array()
            .is_some_and(|rows| rows.len() == 2)
    };
    page.until("two nodes", both);

    // The samples leave nothing out, and the tiles say what the node says.
    let (alice, sent) = publishing.await.unwrap();
    page.until("all of it", |shown| chart(shown, "chart-entries", 0) == "0");
    let status = node.get("/status.json");
    assert_eq!(status.header("cache-control"), Some("no-store"));
    let status = status.json();
    let entries = status["history"]["entries"].as_array().unwrap();
    let total: u64 = entries.iter().filter_map(Value::as_u64).sum();
    assert_eq!(
        (total, &status["totals"]["published"]),
        (sent, &json!(sent))
    );
    assert_eq!(status["now"]["kinds"], json!({"ws_json": 2, "ws_raw": 1}));
    let published = node.metric("tailcast_publish_latency_seconds_count");
    assert_eq!(published, Some(sent as f64));
    let buckets = "tailcast_publish_latency_seconds_bucket{le=\"+Inf\"}";
    assert_eq!(node.metric(buckets), published);
    assert!(node.metric("tailcast_tail_lag_seconds_count").unwrap() > 0.0);

    // A moment chosen by key is the same one everywhere.
    let moment = page.ask(json!({"key": "Home", "on": "chart-entries"}), "moment");
    let when = moment["when"].as_array().unwrap();
    assert!(when.iter().all(|text| *text == when[0]), "{moment}");
    assert!(when[0].as_str().unwrap().ends_with(" s ago"), "{moment}");

    for size in [[1280, 800], [390, 844]] {
        for scheme in ["light", "dark"] {
            let size = page.ask(json!({"size": size, "scheme": scheme}), "size");
            assert_eq!(size["overflow"], false);
        }
    }
    // Nobody looks: nothing is asked.
    page.ask(json!({"hidden": true}), "hidden");
    page.ask(json!({"polls": true}), "polls");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(page.ask(json!({"polls": true}), "polls")["count"], 0);
    page.ask(json!({"hidden": false}), "hidden");
    drop((alice, bob, raw));
    page.until("nobody", |shown| tile(shown, "sockets").starts_with("0\n"));
    drop(other);
    assert_eq!(page.program.finish(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_said() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis.url());
    let mut page = Page::open(&node);
    page.until("no gap", |shown| tile(shown, "gaps").starts_with("0\n"));

    // A client comes back to a stream that has lost what it missed.
    let first = redis.cli(&["XADD", "lobby", "*", "message", "1"]);
    for message in ["2", "3"] {
        redis.cli(&["XADD", "lobby", "*", "message", message]);
    }
    redis.cli(&["XTRIM", "lobby", "MAXLEN", "1"]);
    let mut socket = Ws::open(&node, &format!("/rooms/lobby?format=json&from={first}")).await;
    assert_eq!(socket.frame_of("gap").await["reason"], "trimmed");
    let shown = page.until("a gap", |shown| tile(shown, "gaps").starts_with("1\n"));
    assert_eq!(tile(&shown, "gaps"), "1\n1 trimmed");
    let told = |reason: &str| node.metric(&format!("tailcast_gaps_total{{reason=\"{reason}\"}}"));
    assert_eq!((told("trimmed"), told("deleted")), (Some(1.0), Some(0.0)));
    // A raw socket can't be told but by closing it; that counts as well.
    let mut raw = Ws::open(&node, &format!("/rooms/lobby?from={first}")).await;
    assert_eq!(raw.closed().await.0, 4409);
    assert_eq!(told("trimmed"), Some(2.0));

    // An entry that comes late is seen to, by Redis's clock: nothing else knows that this node stood still.
    let lag = || node.metric("tailcast_tail_lag_seconds_sum").unwrap();
    let before = lag();
    node.stop();
    redis.cli(&["XADD", "lobby", "*", "message", "4"]);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    node.cont();
    assert_eq!(socket.frame_of("entry").await["fields"]["message"], "3");
    assert_eq!(socket.frame_of("entry").await["fields"]["message"], "4");
    let late = lag() - before;
    assert!((1.4..10.0).contains(&late), "{late}");
    let is_late = |text: &str| text.ends_with(" s") && !text.ends_with("ms");
    page.until("a late entry", |shown| {
        is_late(&chart(shown, "chart-tail", 1))
    });

    redis.stop();
    let shown = page.until_state("unready");
    assert_eq!(shown["text"], "Redis is away");
    let notice = shown["notice"].as_str().unwrap();
    assert!(notice.contains("Redis does not answer"), "{notice}");
    redis.cont();
    assert_eq!(page.until_state("ready")["notice"], "");

    node.kill9();
    let shown = page.until_state("unreachable");
    let notice = shown["notice"].as_str().unwrap();
    assert!(notice.contains("does not answer"), "{notice}");
    assert!(tile(&shown, "gaps").starts_with("2\n"), "{shown}");
    node.restart();
    page.until_state("ready");

    // Its sockets are given time, so it drains for a while; the page is told before it can't be.
    let _socket = Ws::open(&node, "/rooms/lobby").await;
    page.until("a socket", |shown| {
        tile(shown, "sockets").starts_with("1\n")
    });
    node.sigterm();
    assert_eq!(page.until_state("draining")["text"], "Draining");
    node.restart();
    page.until_state("ready");
    assert_eq!(page.program.finish(), Some(0));
}

#[test]
fn the_page_trusts_nobody_else() {
    let node = Node::in_memory(&[]);
    for (path, kind) in [
        ("/status", "text/html; charset=utf-8"),
        ("/status/page.css", "text/css; charset=utf-8"),
        ("/status/page.js", "text/javascript; charset=utf-8"),
        ("/status.json", "application/json"),
    ] {
        let answer = node.get(path);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (200, Some(kind))
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "connect-src 'self'",
            "img-src 'self' data:",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(
                policy.split("; ").any(|word| word == part),
                "{part}: {policy}"
            );
        }
    }
    let missing = node.get("/status/page.rs");
    assert_eq!(
        (missing.status, missing.error_code().as_str()),
        (404, "not_found")
    );
}

#[test]
fn operators_may_have_a_port_of_their_own() {
    let redis = RedisServer::start();
    let arguments = ["--ops-listen", "127.0.0.1:0", "--publish-timeout", "30s"];
    let mut node = Node::start_with(&redis.url(), &arguments);
    let port = node.said_port("tells operators on http://").unwrap();
    let get = |path: &str| http::try_request(port, "GET", path, &[], b"").unwrap();
    for path in ["/metrics", "/status", "/status/page.js", "/status.json"] {
        assert_eq!(
            (node.get(path).status, get(path).status),
            (404, 200),
            "{path}"
        );
    }
    assert_eq!(
        (
            node.get("/health/ready").status,
            get("/health/ready").status
        ),
        (200, 200)
    );
    assert_eq!(get("/rooms/lobby").status, 404);

    // There a drain is seen from its beginning to its end.
    let held = std::thread::spawn(move || {
        http::try_request(port, "GET", "/status.json?until=drain", &[], b"")
    });
    let mut socket = Program::ws(&[&node.ws_url("/rooms/lobby?format=json")]);
    socket.event("open");
    let sockets = || get("/status.json").json()["now"]["sockets"].clone();
    let deadline = Instant::now() + PATIENCE;
    while sockets() != 1 {
        assert!(Instant::now() < deadline);
    }
    // A publish under way, for which the drain waits.
    redis.stop();
    for frame in [
        json!({"type": "publish", "message": "hi"}),
        json!({"type": "ping"}),
    ] {
        socket.say(&json!({"send": frame.to_string()}).to_string());
    }
    while !socket.line().contains("pong") {}
    let status = || get("/status.json").json()["health"]["status"].clone();
    assert_eq!(status(), "ready");
    node.sigterm();
    let told = held.join().unwrap().unwrap().json();
    assert_eq!(told["health"]["status"], "draining");
    assert_eq!(status(), "draining");
    assert!(http::try_request(node.port(), "GET", "/", &[], b"").is_err());
    redis.cont();
    assert!(node.wait_exit().success());
    assert!(http::try_request(port, "GET", "/status", &[], b"").is_err());
}

#[test]
fn nodes_are_told_to_those_who_may_know() {
    let redis = RedisServer::start();
    let secret = "0123456789abcdef0123456789abcdef";
    let arguments = [
        "--auth",
        "jwt",
        "--jwt-secret",
        secret,
        "--api-key",
        "ops:0123456789abcdef",
    ];
    let node = Node::start_with(&redis.url(), &arguments);
    assert_eq!(node.get("/status.json").json()["nodes"], Value::Null);
    let bad = [("authorization", "Bearer no.such.token")];
    assert_eq!(
        node.request("GET", "/status.json", &bad, "").json()["nodes"],
        Value::Null
    );
    let key = [("x-api-key", "0123456789abcdef")];
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = node.request("GET", "/status.json", &key, "").json();
        if status["nodes"][0]["self"] == true {
            assert_eq!(status["nodes"][0]["node"], status["node"]["node"]);
            assert_eq!(status["nodes"][0]["name"], status["node"]["name"]);
            return;
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
