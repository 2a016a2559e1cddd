//! `examples/socketio-chat`: its clients through its nginx, on three nodes, with sticky sessions and
//! without, and its page in a real Chromium.

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use super::{ask, connect, emit, message, start};
use crate::harness::PATIENCE;
use crate::harness::clients::Program;
use crate::harness::http;
use crate::harness::node::Node;

/// A running nginx, with the example's own settings.
struct Nginx {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Nginx {
    fn start(nodes: &[&Node], sticky: &str) -> Self {
        let servers = nodes.iter().map(|node| server(node, ""));
        Self::before(&servers.collect::<String>(), sticky)
    }

    /// One that sends everybody to the same node, as long as that lives.
    fn preferring(at: usize, nodes: &[&Node]) -> Self {
        let servers = nodes.iter().enumerate().map(|(number, node)| {
            let role = if number == at { "" } else { "backup" };
            server(node, role)
        });
        Self::before(&servers.collect::<String>(), "")
    }

    fn before(servers: &str, sticky: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let example = root.join("examples/socketio-chat");
        let conf = fs::read_to_string(example.join("nginx.conf")).unwrap();
        // Started by root, nginx reads them as somebody else.
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let pages = dir.path().join("pages");
        fs::create_dir(&pages).unwrap();
        for name in ["index.html", "chat.css", "chat.js"] {
            fs::copy(example.join(name), pages.join(name)).unwrap();
        }
        let client = "tests/clients/node_modules/socket.io-client/dist/socket.io.min.js";
        fs::copy(root.join(client), pages.join("socket.io.js")).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let conf = conf
            .replace("# STICKY", sticky)
            .replace("# NODES", servers)
            .replace("LISTEN", &format!("127.0.0.1:{port}"))
            .replace("PAGES", pages.to_str().unwrap());
        fs::create_dir(dir.path().join("tmp")).unwrap();
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx is installed: scripts/setup --tests");
        let nginx = Nginx {
            child,
            port,
            _dir: dir,
        };
        let deadline = Instant::now() + PATIENCE;
        while http::try_request(port, "GET", "/", &[], b"").is_err() {
            assert!(Instant::now() < deadline, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        nginx
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it only if it's told in its own way.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn server(node: &Node, role: &str) -> String {
    let port = node.port();
    format!("server 127.0.0.1:{port} max_fails=0 {role};\n")
}

fn check(sticky: &str) {
    let (_redis, [one, other, mut third]) = start::<3>(&[]);
    let nginx = Nginx::start(&[&one, &other, &third], sticky);
    let page = http::try_request(nginx.port, "GET", "/", &[], b"").unwrap();
    assert!(page.text().contains("chat.js"), "{}", page.text());

    let room = ["--query", "{\"roomid\":\"kitchen\"}"];
    let transports = ["polling", "polling,websocket", "websocket", "polling"];
    let mut people = transports.map(|transports| {
        connect(
            &nginx.url(),
            &[&room[..], &["--transports", transports]].concat(),
        )
        .0
    });
    let elsewhere = ["--query", "{\"roomid\":\"cellar\"}"];
    let (mut stranger, _) = connect(&nginx.url(), &elsewhere);
    for (number, person) in people.iter_mut().enumerate() {
        emit(
            person,
            json!(["join", {"username": format!("guest{number}")}]),
        );
    }
    for person in &people {
        let mut joined: Vec<String> = (0..people.len())
            .map(|_| {
                message(person, "join")["username"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        joined.sort();
        assert_eq!(joined, ["guest0", "guest1", "guest2", "guest3"]);
    }
    emit(&mut people[0], json!(["say", {"text": "hello"}]));
    for person in &people {
        let said = message(person, "broadcast_say");
        assert_eq!(
            (&said["username"], &said["text"]),
            (&json!("guest0"), &json!("hello"))
        );
    }
    // All of them, over all processes, as of the last beat.
    let deadline = Instant::now() + PATIENCE;
    while ask(&mut people[1], json!(["tailcast:count"])) != json!({"connections": 5, "nodes": 3}) {
        assert!(Instant::now() < deadline, "they are never counted");
        std::thread::sleep(Duration::from_millis(50));
    }
    people[3].say("{\"leave\":true}");
    for person in &people[..3] {
        assert_eq!(message(person, "broadcast_quit")["username"], "guest3");
    }

    // A node dies: whoever was there comes back elsewhere, and has what was said meanwhile.
    third.kill9();
    one.publish("kitchen", "still here?");
    for person in &people[..3] {
        loop {
            let event = super::got(person, "message");
            let said = &event["args"][0];
            // Those who were there tell that they came, again.
            if said["event"] == "broadcast_say" {
                assert_eq!(said["data"]["text"], "still here?");
                break;
            }
        }
    }
    // Nothing of all that was heard next door.
    emit(&mut stranger, json!(["say", "alone"]));
    assert_eq!(message(&stranger, "broadcast_say")["text"], "alone");
}

#[test]
fn without_sticky_sessions() {
    check("");
}

#[test]
fn with_sticky_sessions() {
    check("ip_hash;");
}

#[test]
fn its_page_in_a_browser() {
    let (_redis, mut nodes) = start::<3>(&[]);
    let [one, other, third] = &nodes;
    let all = [one, other, third];
    let balancers = [0, 1, 2].map(|at| Nginx::preferring(at, &all));
    let urls = balancers.iter().map(Nginx::url);
    let urls: Vec<String> = urls.chain(all.map(|node| node.url(""))).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let mut program = Program::node("socketio-chat/page.mjs", &urls);
    loop {
        let event = program.json();
        let number = event["node"].as_u64();
        match event["event"].as_str().unwrap() {
            "step" => continue,
            "passed" => return,
            "kill" => nodes[number.unwrap() as usize].kill9(),
            "restart" => nodes[number.unwrap() as usize].restart(),
            _ => panic!("{event}"),
        }
        program.say("{}");
    }
}
