//! The transports as bytes, and requests that reach another node than their session's.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::Value;

use super::start;
use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::{PATIENCE, until};

const OPEN: &str = "/socket.io/?EIO=4&transport=polling";

/// Opens a session, and answers its path.
pub(super) fn open(node: &Node) -> String {
    let answer = node.get(OPEN);
    assert_eq!(answer.status, 200);
    let opening: Value = serde_json::from_str(&answer.text()[1..]).unwrap();
    format!("{OPEN}&sid={}", opening["sid"].as_str().unwrap())
}

/// A client that polls, packet by packet.
pub(super) struct Polls<'a> {
    node: &'a Node,
    /// Where its session is.
    pub(super) path: String,
    packets: VecDeque<String>,
}

impl<'a> Polls<'a> {
    pub(super) fn open(node: &'a Node) -> Self {
        Polls {
            node,
            path: open(node),
            packets: VecDeque::new(),
        }
    }

    /// Brings a payload, which is taken.
    #[track_caller]
    pub(super) fn bring(&self, body: impl AsRef<[u8]>) {
        let answer = self.node.request("POST", &self.path, &[], body);
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }

    /// The next packet.
    #[track_caller]
    pub(super) fn next(&mut self) -> String {
        loop {
            if let Some(packet) = self.packets.pop_front() {
                return packet;
            }
            let answer = self.node.get(&self.path);
            assert_eq!(answer.status, 200, "{}", answer.text());
            let packets = answer.text();
            self.packets = packets.split('\u{1e}').map(str::to_owned).collect();
        }
    }

    /// The next packet that begins like this; others are passed over.
    #[track_caller]
    pub(super) fn until(&mut self, beginning: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = self.next();
            if packet.starts_with(beginning) {
                return packet;
            }
            assert!(Instant::now() < deadline, "no {beginning}, but {packet}");
        }
    }

    /// A socket that is to take over, probed.
    pub(super) async fn probed(&self) -> Ws {
        let path = self.path.replace("=polling", "=websocket");
        let mut socket = Ws::open(self.node, &path).await;
        socket.send("2probe").await;
        assert_eq!(socket.text().await, "3probe");
        socket
    }
}

/// Any node serves any session.
#[test]
fn requests_are_passed_on() {
    let (_redis, [one, other, third]) = start::<3>(&[]);
    let session = open(&one);
    let brought = other.request("POST", &session, &[], b"40{\"room\":\"r\"}");
    assert_eq!((brought.status, brought.text().as_str()), (200, "ok"));
    let answer = third.get(&session).text();
    assert!(answer.starts_with("40{\"sid\":"), "{answer}");
    other.request("POST", &session, &[], "42[\"say\",\"é\"]".as_bytes());
    let answer = other.get(&session).text();
    assert!(answer.contains("\"text\":\"é\""), "{answer}");
    // Once, and no further.
    let marked = [("x-tailcast-passed-on", "1")];
    let answer = other.request("GET", &session, &marked, b"");
    assert_eq!((answer.status, unknown(&answer.text())), (400, true));
}

fn unknown(body: &str) -> bool {
    body == "{\"code\":1,\"message\":\"Session ID unknown\"}"
}

#[test]
fn sessions_that_are_no_more() {
    let (_redis, [one, mut other]) = start::<2>(&[]);
    let session = open(&other);
    assert_eq!(one.request("POST", &session, &[], b"40").status, 200);
    other.kill9();
    for sid in ["", "nonsense", "AAAAAAAAAAAAAAAAAAAA.0123456789abcdef"] {
        let answer = one.get(&format!("{OPEN}&sid={sid}"));
        assert!(unknown(&answer.text()), "{sid}: {}", answer.text());
    }
    let answer = one.get(&session);
    assert_eq!((answer.status, unknown(&answer.text())), (400, true));
    for (path, code) in [
        ("/socket.io/?transport=polling", 5),
        ("/socket.io/?EIO=3&transport=polling", 5),
        ("/socket.io/?EIO=4", 0),
        ("/socket.io/?EIO=4&transport=carrier-pigeon", 0),
        ("/socket.io/?EIO=4&transport=websocket", 3),
    ] {
        let answer = one.get(path);
        assert_eq!(answer.json()["code"], code, "{path}");
    }
}

/// Pages of other origins are let in by the same rules as everywhere.
#[test]
fn origins() {
    let (_redis, [node]) = start::<1>(&["--allowed-origins", "https://app.example"]);
    let from = |origin: &str| node.request("GET", OPEN, &[("origin", origin)], b"");
    let answer = from("https://app.example");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    assert_eq!(
        answer.header("access-control-allow-credentials"),
        Some("true")
    );
    let answer = from("https://evil.example");
    assert_eq!(
        (answer.status, answer.json()["code"].as_u64()),
        (403, Some(4))
    );
    let asked = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let answer = node.request("OPTIONS", OPEN, &asked, b"");
    assert_eq!(answer.status, 204);
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
}

/// What a client does not fetch waits for it, as entries in the stream and not in memory.
#[test]
fn a_slow_fetcher_gets_all_of_it() {
    // On a busy machine the publishes alone may take longer than a client may usually be silent.
    let (_redis, [node]) = start::<1>(&["--socketio-ping-timeout", "200s"]);
    let session = open(&node);
    node.request("POST", &session, &[], b"40{\"room\":\"r\"}");
    let long = "x".repeat(1_000);
    for number in 0..500 {
        node.publish("r", format!("{number} {long}"));
    }
    let mut got = Vec::new();
    while got.len() < 500 {
        let answer = node.get(&session);
        let payload = answer.text();
        assert_eq!(answer.status, 200, "{payload}");
        assert!(payload.len() < 200_000, "{}", payload.len());
        for packet in payload.split('\u{1e}') {
            if let Some((_, rest)) = packet.split_once("\"text\":\"") {
                got.push(rest.split(' ').next().unwrap().parse::<usize>().unwrap());
            }
        }
    }
    assert_eq!(got, (0..500).collect::<Vec<_>>());
}

/// Clients in Python read sixteen packets of a payload, and lose it if there are more.
#[test]
fn a_payload_has_sixteen_packets_at_most() {
    let (_redis, [node]) = start::<1>(&["--socketio-ping-timeout", "200s"]);
    let session = open(&node);
    node.request("POST", &session, &[], b"40{\"room\":\"r\"}");
    for number in 0..200 {
        node.publish("r", number.to_string());
    }
    let mut got = Vec::new();
    let mut most = 0;
    while got.len() < 200 {
        let answer = node.get(&session);
        let payload = answer.text();
        assert_eq!(answer.status, 200, "{payload}");
        most = most.max(payload.split('\u{1e}').count());
        for packet in payload.split('\u{1e}') {
            if let Some((_, rest)) = packet.split_once("\"text\":\"") {
                let (number, _) = rest.split_once('"').unwrap();
                got.push(number.parse::<usize>().unwrap());
            }
        }
    }
    assert_eq!(most, 16);
    assert_eq!(got, (0..200).collect::<Vec<_>>());
}

/// A client that asks for nothing any more is gone.
#[tokio::test]
async fn silence_ends_a_session() {
    let arguments = [
        "--socketio-ping-interval",
        "5s",
        "--socketio-ping-timeout",
        "300ms",
    ];
    let (_redis, [node]) = start::<1>(&arguments);
    let session = open(&node);
    let open = "tailcast_sockets{kind=\"socketio_polling\"}";
    until("it's closed", || node.metric(open) == Some(0.0)).await;
    assert_eq!(node.get(&session).status, 400);
}

/// Whichever node a body comes to.
#[test]
fn bodies_have_a_limit() {
    let (_redis, [one, other]) = start::<2>(&["--socketio-max-payload", "1KiB"]);
    let session = open(&one);
    for (node, name) in [(&one, "its own"), (&other, "another")] {
        let answer = node.request("POST", &session, &[], [b'4'; 1025]);
        let told = (answer.status, answer.text());
        let large = "{\"code\":3,\"message\":\"Payload too large\"}";
        assert_eq!(told, (413, large.to_owned()), "{name}");
    }
    // The session has come to no harm.
    let brought = other.request("POST", &session, &[], "40{\"room\":\"r\"}");
    assert_eq!(brought.status, 200);
}
