//! What happens at awkward moments: behind an ERROR, while a client is slowed down, while Redis is
//! away, in the middle of a large message. The bytes are written by hand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::StompNode;
use super::rules::{JWT, token_for};
use crate::harness::PATIENCE;
use crate::harness::redis_server::RedisServer;

/// A client of bare TCP.
struct Bare {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Bare {
    /// Connects with these header lines.
    fn connect(node: &StompNode, headers: &str) -> Self {
        let address = node.url("tcp").replace("tcp://", "");
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bare = Bare {
            stream,
            got: Vec::new(),
        };
        bare.say(&format!(
            "CONNECT\naccept-version:1.2\nhost:a\n{headers}\n\0"
        ));
        assert!(bare.frame().starts_with("CONNECTED\n"));
        bare
    }

    fn say(&mut self, frames: &str) {
        self.stream.write_all(frames.as_bytes()).unwrap();
    }

    /// The next frame, without heart-beats before it; empty at the end.
    fn frame(&mut self) -> String {
        loop {
            let begin = self.got.iter().position(|byte| *byte != b'\n');
            self.got.drain(..begin.unwrap_or(self.got.len()));
            if let Some(end) = self.got.iter().position(|byte| *byte == 0) {
                let frame = self.got.drain(..=end).collect();
                return String::from_utf8(frame).unwrap();
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).unwrap() {
                0 => return String::new(),
                count => self.got.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// All that comes until the end, heart-beats too.
    fn rest(mut self) -> String {
        // It may be reset, as there may be something unread.
        let _ = self.stream.read_to_end(&mut self.got);
        String::from_utf8(self.got).unwrap()
    }
}

fn send(room: &str) -> String {
    format!("SEND\ndestination:/topic/{room}\n\nx\0")
}

fn subscribe(room: &str, id: &str, others: &str) -> String {
    format!("SUBSCRIBE\ndestination:/topic/{room}\nid:{id}\nreceipt:{id}\n{others}\n\0")
}

#[test]
fn nothing_behind_an_error_is_done() {
    let redis = RedisServer::start();
    let member = ["--default-role", "*=member", "--rate", "member=1/30s"];
    let node = StompNode::start(&redis.url(), &member);
    let mut client = Bare::connect(&node, "login:alice\n");
    client.say(&subscribe("c", "1", ""));
    assert!(client.frame().starts_with("RECEIPT\n"));
    // The second one is refused by the store; the subscription waits until that is known.
    let frames = [send("a"), send("a"), subscribe("c", "2", ""), send("c")].concat();
    client.say(&frames);
    let rest = client.rest();
    assert!(
        rest.contains("ERROR\n") && rest.contains("code:too_fast\n"),
        "{rest}"
    );
    assert!(!rest.contains("receipt-id:2\n"), "{rest}");
    assert_eq!(redis.entries("a").len(), 1);
    assert!(redis.entries("c").is_empty());
}

#[test]
fn subscriptions_of_one_room_are_bounded() {
    let node = StompNode::in_memory(&[]);
    let mut client = Bare::connect(&node, "");
    for at in 0..32 {
        client.say(&subscribe("a", &at.to_string(), ""));
        assert!(client.frame().contains(&format!("receipt-id:{at}\n")));
    }
    client.say(&subscribe("b", "other", ""));
    assert!(client.frame().contains("receipt-id:other\n"));
    client.say(&subscribe("a", "more", ""));
    let error = client.frame();
    assert!(error.contains("code:too_many_subscriptions\n"), "{error}");
    assert_eq!(client.frame(), "");
}

#[test]
fn a_token_ends_also_while_its_client_is_slowed_down() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[&JWT[..], &["--frame-rate", "5"]].concat());
    let token = token_for("alice", "member", "1s");
    let mut client = Bare::connect(&node, &format!("passcode:{token}\n"));
    // As many as take a minute; the token ends after some ten seconds.
    client.say(&send("a").repeat(300));
    let rest = client.rest();
    assert!(rest.contains("code:unauthenticated\n"), "{rest}");
    let stored = redis.entries("a").len();
    assert!(stored < 150, "{stored} were stored, most of them too late");
}

#[test]
fn heart_beats_go_on_while_a_client_is_slowed_down() {
    let node = StompNode::in_memory(&["--frame-rate", "5"]);
    let mut client = Bare::connect(&node, "heart-beat:1000,1000\n");
    let frames = "BEGIN\ntransaction:a\n\n\0ABORT\ntransaction:a\n\n\0".repeat(15);
    client.say(&frames);
    client.say("DISCONNECT\nreceipt:bye\n\n\0");
    let rest = client.rest();
    assert!(rest.contains("receipt-id:bye\n"), "{rest}");
    let beats = rest.bytes().take_while(|byte| *byte == b'\n').count();
    assert!(beats >= 3, "{beats}: {rest}");
}

#[test]
fn a_receipt_says_that_a_subscription_holds() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &["--publish-timeout", "1s"]);
    let mut client = Bare::connect(&node, "");
    let ack = "ACK\nid:1-1\nreceipt:acked\n\n\0";
    redis.stop();
    client.say(&[&subscribe("a", "1", ""), &subscribe("a", "2", ""), ack].concat());
    // Neither is in the room yet.
    let first = client.frame();
    redis.cont();
    assert!(first.contains("receipt-id:acked\n"), "{first}");
    let receipts = [client.frame(), client.frame()];
    for (at, receipt) in receipts.iter().enumerate() {
        assert!(
            receipt.contains(&format!("receipt-id:{}\n", at + 1)),
            "{receipt}"
        );
        assert!(receipt.contains("last-id:0-0\n"), "{receipt}");
    }
    node.node.publish("a", "hello");
    for _ in 0..2 {
        assert!(client.frame().contains("\n\nhello\0"));
    }
    // Who gives up a subscription that waits need not wait for its receipt.
    redis.stop();
    client.say(&subscribe("b", "3", ""));
    client.say("UNSUBSCRIBE\nid:3\nreceipt:4\n\n\0");
    let receipts = [client.frame(), client.frame()];
    redis.cont();
    for (receipt, name) in receipts.iter().zip(["3", "4"]) {
        assert!(
            receipt.contains(&format!("receipt-id:{name}\n")),
            "{receipt}"
        );
    }
}

/// A frame of a WebSocket client, masked with zeros.
fn masked(length: usize) -> Vec<u8> {
    let mut head = vec![0x81];
    match u16::try_from(length) {
        Ok(short @ 0..=125) => head.push(0x80 | short as u8),
        Ok(medium) => {
            head.push(0x80 | 126);
            head.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => unreachable!(),
    }
    head.extend_from_slice(&[0; 4]);
    head
}

#[test]
fn a_large_message_on_its_way_is_a_sign_of_life() {
    let node = StompNode::in_memory(&[]);
    for path in ["/stomp", "/ws/0/large/websocket"] {
        let mut stream = TcpStream::connect(("127.0.0.1", node.node.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let wrap = |frame: &str| match path {
            "/stomp" => frame.to_owned(),
            _ => serde_json::json!([frame]).to_string(),
        };
        let connect = wrap("CONNECT\naccept-version:1.2\nhost:a\nheart-beat:2000,0\n\n\0");
        stream.write_all(&masked(connect.len())).unwrap();
        stream.write_all(connect.as_bytes()).unwrap();
        // Twice the heart-beat is borne, and this takes longer.
        let body = "x".repeat(4_000);
        let message = wrap(&format!(
            "SEND\ndestination:/topic/a\nreceipt:sent\n\n{body}\0DISCONNECT\n\n\0"
        ));
        stream.write_all(&masked(message.len())).unwrap();
        let began = Instant::now();
        for piece in message.as_bytes().chunks(message.len() / 20) {
            // An error is seen by what is missing below.
            let _ = stream.write_all(piece);
            std::thread::sleep(Duration::from_millis(300));
        }
        assert!(began.elapsed() > Duration::from_secs(5));
        let mut got = Vec::new();
        let _ = stream.read_to_end(&mut got);
        let got = String::from_utf8_lossy(&got);
        assert!(got.contains("receipt-id:sent"), "{path}: {got}");
    }
}
