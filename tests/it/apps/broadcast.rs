//! Broadcast with wscat and redis-cli: `examples/broadcast`, its nginx.conf and all.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::harness::PATIENCE;
use crate::harness::clients::Program;
use crate::harness::nginx::Nginx;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// Said until everybody is there to hear it: a raw socket is not told when it has joined.
const HELLO: &str = "hello?";

/// Greets a room until everybody has heard it.
fn greet(redis: &RedisServer, room: &str, clients: &[&Program]) {
    let deadline = Instant::now() + PATIENCE;
    while !clients.iter().all(|client| client.has_lines()) {
        redis.cli(&["XADD", room, "*", "aaa", HELLO]);
        std::thread::sleep(Duration::from_millis(50));
        assert!(
            Instant::now() < deadline,
            "somebody hears nothing in {room}"
        );
    }
}

/// A client that shows what it gets.
struct Shown {
    program: Program,
    is_wscat: bool,
}

impl Shown {
    fn wscat(url: &str) -> Self {
        let program = Program::wscat(&["-c", url]);
        Shown {
            program,
            is_wscat: true,
        }
    }

    fn ws(url: &str) -> Self {
        let program = Program::ws(&[url]);
        program.event("open");
        Shown {
            program,
            is_wscat: false,
        }
    }

    /// What comes next, greetings left out.
    fn next(&self) -> String {
        loop {
            let text = self.next_of_all();
            if text != HELLO {
                return text;
            }
        }
    }

    fn next_of_all(&self) -> String {
        match self.is_wscat {
            true => {
                let line = self.program.line();
                // Its own marks of what came, and of where to type.
                line.trim_start_matches(['<', '>', ' ']).to_owned()
            }
            false => self.program.event("frame")["text"]
                .as_str()
                .unwrap()
                .to_owned(),
        }
    }
}

/// The next entry of an event stream, greetings left out.
fn fields(events: &Program) -> Value {
    loop {
        let data = events.event("message")["data"].clone();
        let entry: Value = serde_json::from_str(data.as_str().unwrap()).unwrap();
        if entry["fields"]["aaa"] != HELLO {
            return entry["fields"].clone();
        }
    }
}

fn sockets(node: &Node) -> u64 {
    let status = node.get("/status.json").json();
    status["now"]["sockets"].as_u64().unwrap()
}

#[test]
fn three_nodes_behind_nginx() {
    let redis = RedisServer::start();
    let nodes: Vec<Node> = (0..3).map(|_| Node::start(&redis.url())).collect();
    let nginx = Nginx::start("broadcast", &nodes);

    // On all three nodes, in the default room, which nobody names.
    let mut clients: Vec<Shown> = (0..3).map(|_| Shown::ws(&nginx.ws_url(""))).collect();
    clients.extend((0..3).map(|_| Shown::wscat(&nginx.ws_url(""))));
    let news = [
        Shown::ws(&nginx.ws_url("/rooms/news")),
        Shown::ws(&nginx.ws_url("/?room=news")),
    ];
    let events = Program::sse(&[&format!("http://127.0.0.1:{}/rooms/mystream", nginx.port())]);
    events.event("open");
    let deadline = Instant::now() + PATIENCE;
    while nodes.iter().map(sockets).sum::<u64>() < 9 {
        assert!(Instant::now() < deadline, "{}", nginx.log());
    }
    for node in &nodes {
        assert!(
            sockets(node) > 1,
            "the least busy node gets the next socket"
        );
    }

    let mut all: Vec<&Program> = clients.iter().map(|client| &client.program).collect();
    all.push(&events);
    greet(&redis, "mystream", &all);
    greet(&redis, "news", &[&news[0].program, &news[1].program]);

    // As the README has it: by redis-cli, from sockets of both kinds, and by HTTP.
    redis.cli(&["XADD", "mystream", "*", "aaa", "1234"]);
    for client in &clients {
        assert_eq!(client.next(), "1234");
    }
    assert_eq!(fields(&events), json!({"aaa": "1234"}));
    let mut sent = 0;
    for number in 0..20 {
        for (index, client) in clients.iter_mut().enumerate() {
            let text = format!("{number} from {index}");
            match client.is_wscat {
                true => client.program.say(&text),
                false => client.program.send(&text),
            }
            sent += 1;
        }
        redis.cli(&[
            "XADD",
            "mystream",
            "*",
            "aaa",
            &format!("{number} from redis-cli"),
        ]);
        let path = "/rooms/mystream";
        let answer = nginx
            .request("POST", path, &[], &format!("{number} from HTTP"))
            .unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        redis.cli(&["XADD", "news", "*", "a", &number.to_string()]);
        sent += 2;
    }
    let got: Vec<Vec<String>> = clients
        .iter()
        .map(|client| (0..sent).map(|_| client.next()).collect())
        .collect();
    let truth: Vec<String> = redis
        .entries("mystream")
        .into_iter()
        .map(|(_, payload): (_, Bytes)| String::from_utf8(payload.to_vec()).unwrap())
        .filter(|text| text != HELLO && text != "1234")
        .collect();
    assert_eq!(truth.len(), sent);
    for got in got {
        assert_eq!(got, truth);
    }
    // Whoever is in another room gets that, and only that.
    for client in &news {
        for number in 0..20 {
            assert_eq!(client.next(), number.to_string());
        }
        assert!(!client.program.has_lines());
    }
    // An event stream is not held back by the proxy.
    for text in &truth {
        let fields = fields(&events);
        let mut values = fields.as_object().unwrap().values();
        assert_eq!(values.next(), Some(&json!(text)));
    }
}

#[test]
fn a_dead_node_is_gone_round() {
    let redis = RedisServer::start();
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::start(&redis.url())).collect();
    let nginx = Nginx::start("broadcast", &nodes);
    nodes[1].kill9();
    let clients: Vec<Shown> = (0..6).map(|_| Shown::ws(&nginx.ws_url(""))).collect();
    let all: Vec<&Program> = clients.iter().map(|client| &client.program).collect();
    greet(&redis, "mystream", &all);
    for number in 0..6 {
        let text = format!("still here {number}");
        let answer = nginx
            .request("POST", "/rooms/mystream", &[], &text)
            .unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        for client in &clients {
            assert_eq!(client.next(), text);
        }
    }
    assert_eq!(sockets(&nodes[0]) + sockets(&nodes[2]), 6);
}
