//! Broadcast with wscat and redis-cli: `examples/broadcast`, its nginx.conf and all.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::clients::Program;
use crate::harness::http::{self, Response};
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// nginx with the example's configuration; only the ports are others.
struct Nginx {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Nginx {
    fn start(nodes: &[Node]) -> Self {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let mut nginx = Self::spawn(port, nodes);
            while nginx.child.try_wait().unwrap().is_none() {
                let ready = nginx.request("GET", "/health/ready", &[], "");
                if ready.is_ok_and(|answer| answer.status == 200) {
                    return nginx;
                }
                assert!(Instant::now() < deadline, "{}", nginx.log());
            }
            // Somebody else got the port in between.
            assert!(nginx.log().contains("bind()"), "{}", nginx.log());
            assert!(Instant::now() < deadline, "{}", nginx.log());
        }
    }

    fn spawn(port: u16, nodes: &[Node]) -> Self {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/broadcast/nginx.conf");
        let mut conf = fs::read_to_string(example).unwrap();
        let mut replace = |from: &str, to: u16| {
            assert_eq!(conf.matches(from).count(), 1, "{from}");
            conf = conf.replace(from, &format!("127.0.0.1:{to}"));
        };
        replace("localhost:8080", port);
        for (own, node) in (8081..).zip(nodes) {
            replace(&format!("127.0.0.1:{own}"), node.port());
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let stderr = File::create(dir.path().join("stderr")).unwrap();
        let installed = Path::new("/usr/sbin/nginx");
        let program = if installed.exists() {
            installed
        } else {
            Path::new("nginx")
        };
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"));
        let child = command
            .args(["-e", "error.log"])
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("nginx is installed: scripts/setup --tests");
        Nginx { child, port, dir }
    }

    fn log(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name));
        ["stderr", "error.log"]
            .map(|name| read(name).unwrap_or_default())
            .concat()
    }

    fn ws_url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> std::io::Result<Response> {
        http::try_request(self.port, method, path, headers, body.as_bytes())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, it would leave its workers behind.
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

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
    let nginx = Nginx::start(&nodes);

    // On all three nodes, in the default room, which nobody names.
    let mut clients: Vec<Shown> = (0..3).map(|_| Shown::ws(&nginx.ws_url(""))).collect();
    clients.extend((0..3).map(|_| Shown::wscat(&nginx.ws_url(""))));
    let news = [
        Shown::ws(&nginx.ws_url("/rooms/news")),
        Shown::ws(&nginx.ws_url("/?room=news")),
    ];
    let events = Program::sse(&[&format!("http://127.0.0.1:{}/rooms/mystream", nginx.port)]);
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
    let nginx = Nginx::start(&nodes);
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
