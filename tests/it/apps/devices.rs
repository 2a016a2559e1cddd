//! A user's devices across instances: `examples/devices`, as its README tells it.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::PATIENCE;
use crate::harness::clients::Program;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

const KEY: &str = "0123456789abcdef";

/// Sent until everybody is there to hear it.
const HELLO: &str = "hello?";

/// As the example's `run` starts them.
fn start(redis: &RedisServer) -> Node {
    let key = format!("app:{KEY}");
    let flags = ["--auth", "cookie", "--raw-inbox", "--api-key", &key];
    Node::start_with(&redis.url(), &flags)
}

/// A plain socket at `/`, with that cookie.
fn device(node: &Node, cookie: &str) -> Program {
    let device = Program::ws(&[&node.ws_url("/"), "--cookie", cookie]);
    device.event("open");
    device
}

/// The next message, greetings left out.
fn next(device: &Program) -> String {
    loop {
        let text = device.event("frame")["text"].clone();
        if text != HELLO {
            return text.as_str().unwrap().to_owned();
        }
    }
}

fn get(node: &Node, path: &str) -> Value {
    node.request("GET", path, &[("x-api-key", KEY)], "").json()
}

/// The example's application, a round at a time.
struct Application {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Application {
    fn start(urls: &[String]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut child = Command::new(root.join("examples/devices/application"))
            .arg("user1,user2,user3")
            .args(urls)
            .env("KEY", KEY)
            .env("EVERY", "0.2")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Application { child, lines }
    }

    /// What the next round says; the nodes come last.
    fn next(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let line = self.lines.next().unwrap().unwrap();
            let is_last = line.starts_with("nodes: ");
            told.push(line);
            if is_last {
                return told;
            }
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The addresses of the nodes that a node knows.
fn nodes(node: &Node) -> Vec<String> {
    let nodes = get(node, "/nodes");
    let rows = nodes["nodes"].as_array().unwrap().iter();
    let address = |row: &Value| row["address"].as_str().unwrap().to_owned();
    let mut nodes: Vec<String> = rows.map(address).collect();
    nodes.sort();
    nodes
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn both_devices_get_each_message_from_either_node() {
    let redis = RedisServer::start();
    let (one, mut two) = (start(&redis), start(&redis));
    let all = {
        let mut all = [&one, &two].map(|node| format!("127.0.0.1:{}", node.port()));
        all.sort();
        all
    };
    until("they know each other", || {
        nodes(&one) == all && nodes(&two) == all
    });

    let devices = [device(&one, "token=user1"), device(&two, "token=user1")];
    let other = device(&two, "a=b; token=user2");
    for (user, count) in [("user1", 2), ("user2", 1)] {
        let online = || get(&one, &format!("/users/{user}"))["devices"] == count;
        until("they are online", online);
    }

    // Online, they may not have their own room yet.
    let everybody = [
        (&devices[0], "user1"),
        (&devices[1], "user1"),
        (&other, "user2"),
    ];
    until("they hear what they are sent", || {
        for user in ["user1", "user2"] {
            let sent = one.request(
                "POST",
                &format!("/users/{user}"),
                &[("x-api-key", KEY)],
                HELLO,
            );
            assert_eq!(sent.status, 201, "{sent:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
        everybody.iter().all(|(device, _)| device.has_lines())
    });

    let urls = [one.url(""), two.url("")];
    let mut rounds = Application::start(&urls);
    for number in 1..=4 {
        let told = rounds.next();
        assert_eq!(told.len(), 4, "{told:#?}");
        let through = &urls[number % 2];
        assert!(
            told[0].starts_with("user1 (2 devices) was sent "),
            "{told:#?}"
        );
        assert!(told[0].ends_with(through.as_str()), "{told:#?}");
        assert_eq!(told[2], "user3 is offline");
        for (device, user) in everybody {
            assert_eq!(next(device), format!("message {number} to {user}"));
        }
    }

    // One instance dies; the other forgets it, and its user's devices here go on.
    two.kill9();
    let died = Instant::now();
    until("the dead node is forgotten", || nodes(&one).len() == 1);
    let took = died.elapsed();
    let in_time = Duration::from_secs(3)..Duration::from_secs(10);
    assert!(in_time.contains(&took), "{took:?}");
    until("its sockets, too", || {
        get(&one, "/users/user2")["devices"] == 0
    });
    // By turns it asks the dead one first; rounds that went on meanwhile come before.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = rounds.next();
        if told[0].contains("failed") && told.iter().any(|line| line == "user2 is offline") {
            break;
        }
        assert!(Instant::now() < deadline, "{told:#?}");
    }
    assert!(next(&devices[0]).ends_with(" to user1"));
}

#[test]
fn without_a_cookie_nobody_comes_in() {
    let redis = RedisServer::start();
    let node = start(&redis);
    for (arguments, code, reason) in [
        (
            &[][..],
            4403,
            "no credential came: bring a token as Authorization: Bearer, ?token= or a token cookie",
        ),
        (
            &["--cookie", "session=user1"],
            4403,
            "no credential came: bring a token as Authorization: Bearer, ?token= or a token cookie",
        ),
    ] {
        let url = node.ws_url("/");
        let client = Program::ws(&[&[url.as_str()], arguments].concat());
        let closed = client.event("close");
        assert_eq!(
            (&closed["code"], &closed["reason"]),
            (&code.into(), &reason.into())
        );
    }
    // Only the cookie counts, and only from pages of this host.
    let query = Program::ws(&[&node.ws_url("/?token=user1")]);
    assert_eq!(query.event("close")["code"], 4401);
    let elsewhere = [
        "--cookie",
        "token=user1",
        "--origin",
        "https://evil.example",
    ];
    let url = node.ws_url("/");
    let refused = Program::ws(&[&[url.as_str()], &elsewhere[..]].concat());
    assert_eq!(refused.event("refused")["status"], 403);
    assert_eq!(node.get("/rooms/mystream").status, 401);
    assert!(
        node.stderr().contains("--auth cookie checks nothing"),
        "{}",
        node.stderr()
    );
}

#[test]
fn a_public_address_has_to_be_meant() {
    let mut node = Node::spawn(&["--memory", "--auth", "cookie", "--listen", "0.0.0.0:0"]);
    assert!(!node.wait_exit().success());
    let said = node.stderr_to_end();
    assert!(
        said.contains("a cookie is believed whatever it says"),
        "{said}"
    );
}
