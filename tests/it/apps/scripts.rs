//! The examples' `run` scripts, as their READMEs start them: an exchange, one node killed, another
//! exchange, and the end of all of it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::clients::Program;
use crate::harness::http;
use crate::stomp::Stomp;

/// A running script, on ports that nobody else has.
struct Script {
    child: Child,
    port: u16,
    nodes: [u16; 3],
    redis: u16,
    stderr: tempfile::NamedTempFile,
}

impl Script {
    /// Starts it, and waits until its nodes answer through nginx.
    fn start(name: &str, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let listeners = [(); 5].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [port, redis, one, two, three] =
            listeners.map(|listener| listener.local_addr().unwrap().port());
        let stderr = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(root.join("examples").join(name).join("run"))
            .args(arguments)
            .env("TAILCAST", env!("CARGO_BIN_EXE_tailcast"))
            .env("NODE_MODULES", root.join("tests/clients/node_modules"))
            .env("PORT", port.to_string())
            .env("NODE_PORTS", format!("{one} {two} {three}"))
            .env("REDIS_PORT", redis.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut script = Script {
            child,
            port,
            nodes: [one, two, three],
            redis,
            stderr,
        };
        script.until("it answers", |script| {
            let ended = script.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", script.said());
            http::try_request(port, "GET", "/", &[], b"").is_ok_and(|answer| answer.status < 500)
        });
        script
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).unwrap()
    }

    #[track_caller]
    fn until(&mut self, what: &str, holds: impl Fn(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            let said = self.said();
            assert!(Instant::now() < deadline, "waited until {what}: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the second node as the READMEs say, and waits until the script tells.
    fn kill_one(&mut self) {
        let address = format!("listen 127.0.0.1:{}", self.nodes[1]);
        let killed = Command::new("pkill")
            .args(["-KILL", "--parent", &self.child.id().to_string()])
            .args(["-f", &address])
            .status();
        assert!(killed.unwrap().success());
        let told = format!("the node on port {} has ended", self.nodes[1]);
        self.until("it tells of the dead node", |script| {
            script.said().contains(&told)
        });
        assert!(self.child.try_wait().unwrap().is_none(), "{}", self.said());
    }

    /// Ends it, and sees that nothing of it is left.
    fn end(mut self) {
        self.terminate();
        for port in [self.port, self.redis].into_iter().chain(self.nodes) {
            let address = (Ipv4Addr::LOCALHOST, port);
            self.until("nobody listens", |_| TcpStream::connect(address).is_err());
        }
    }

    fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.terminate();
        }
    }
}

/// Before and after a node's death.
fn check(name: &str, arguments: &[&str], exchange: impl Fn(&Script, &str)) {
    let mut script = Script::start(name, arguments);
    exchange(&script, "with three nodes");
    script.kill_one();
    exchange(&script, "with two");
    script.end();
}

#[test]
fn broadcast() {
    check("broadcast", &[], |script, text| {
        let socket = Program::ws(&[&script.url("ws", "/rooms/news")]);
        socket.event("open");
        let said = http::try_request(script.port, "POST", "/rooms/news", &[], text.as_bytes());
        assert_eq!(said.unwrap().status, 201);
        assert_eq!(socket.event("frame")["text"], text);
    });
}

/// Two on the page's server, each by a connection of their own.
fn chat(script: &Script, text: &str) {
    for path in ["/", "/chat.js", "/chat.css", "/socket.io.js"] {
        let answer = http::try_request(script.port, "GET", path, &[], b"").unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    let url = script.url("http", "");
    let connect = || {
        let client = Program::socketio(&["--url", &url, "--query", r#"{"roomid":"lobby"}"#]);
        client.event("connect");
        while client.event("got")["name"] != "tailcast:rooms" {}
        client
    };
    let (mut ann, bob) = (connect(), connect());
    ann.say(&json!({"emit": ["say", {"text": text}]}).to_string());
    loop {
        let event = bob.event("got");
        let message = &event["args"][0];
        if message["event"] == "broadcast_say" && message["data"]["text"] == text {
            return;
        }
    }
}

#[test]
fn socketio_chat() {
    check("socketio-chat", &[], chat);
}

#[test]
fn socketio_chat_with_sticky_sessions() {
    check("socketio-chat", &["ip_hash"], chat);
}

#[test]
fn stomp_chat() {
    check("stomp-chat", &[], |script, text| {
        for path in ["/", "/chat.js", "/sockjs.js", "/stomp.js"] {
            let answer = http::try_request(script.port, "GET", path, &[], b"").unwrap();
            assert_eq!(answer.status, 200, "{path}");
        }
        let url = script.url("http", "/ws");
        let connect = || Stomp::connect(&[&url, "--transport", "xhr-streaming"]);
        let (mut ann, mut bob) = (connect(), connect());
        bob.subscribe("/topic/public", &[]);
        let message = json!({"sender": "ann", "content": text, "type": "CHAT"});
        ann.publish("/app/chat.sendMessage", &message.to_string());
        let (_, body) = bob.message();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap(),
            message
        );
    });
}
