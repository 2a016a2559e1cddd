//! How connections end, frame by frame: what the node writes when a client closes in the middle of a busy room.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use serde_json::json;

use crate::harness::bare::{Bare, CLOSE, PING, PONG, TEXT, masked};
use crate::harness::node::Node;

/// Closes that the client begins, per protocol.
const CLOSES: usize = 500;

/// A room in which something is always being said, as fast as it's taken.
struct Busy {
    node: Node,
    is_over: Arc<AtomicBool>,
    publisher: Option<JoinHandle<()>>,
}

impl Busy {
    fn start() -> Self {
        let node = Node::in_memory(&["--frame-rate", "0", "--rate", "member=0"]);
        let is_over = Arc::new(AtomicBool::new(false));
        let mut socket = Bare::open(&node, "/rooms/busy");
        let mut sender = socket.sender();
        let over = is_over.clone();
        let publisher = std::thread::spawn(move || {
            let tick = masked(TEXT, b"tick");
            std::thread::scope(|scope| {
                scope.spawn(|| while socket.frame().is_some() {});
                while !over.load(Ordering::Relaxed) && sender.write_all(&tick).is_ok() {
                    // Many small batches are what falls between a close and its answer.
                    std::thread::yield_now();
                }
                let _ = sender.shutdown(std::net::Shutdown::Both);
            });
        });
        Busy {
            node,
            is_over,
            publisher: Some(publisher),
        }
    }

    /// Goes there, closes, and counts the frames behind the node's close frame.
    #[track_caller]
    fn close_once(&self, path: &str, greeting: &[String], ticks: usize) -> usize {
        let mut client = Bare::open(&self.node, path);
        for frame in greeting {
            client.send(TEXT, frame.as_bytes());
        }
        let mut seen = 0;
        while seen < ticks {
            let (_, payload) = client.some_frame();
            seen += usize::from(payload.windows(4).any(|part| part == b"tick"));
        }
        client.send(CLOSE, &1000u16.to_be_bytes());
        while let Some((first, payload)) = client.frame() {
            if first == CLOSE {
                assert_eq!(payload, 1000u16.to_be_bytes());
                let mut behind = 0;
                while client.frame().is_some() {
                    behind += 1;
                }
                return behind;
            }
        }
        panic!("the connection ended without a close frame");
    }

    #[track_caller]
    fn check(&self, path: &str, greeting: &[&str], ticks: usize) {
        let greeting: Vec<String> = greeting.iter().map(|&text| text.to_owned()).collect();
        let broken = (0..CLOSES)
            .filter(|number| {
                let path = path.replace("{number}", &number.to_string());
                self.close_once(&path, &greeting, ticks) > 0
            })
            .count();
        println!("{path}: frames behind {broken} of {CLOSES} close frames");
        assert_eq!(broken, 0, "{path}: closes with frames behind them");
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(publisher) = self.publisher.take() {
            let _ = publisher.join();
        }
    }
}

const CONNECT: &str = "CONNECT\naccept-version:1.2\nhost:a\n\n\0";
const SUBSCRIBE: &str = "SUBSCRIBE\nid:1\ndestination:/topic/busy\n\n\0";

#[test]
fn nothing_follows_a_close_frame_on_raw_sockets() {
    Busy::start().check("/rooms/busy", &[], 1);
}

#[test]
fn nothing_follows_a_close_frame_on_json_sockets() {
    Busy::start().check("/rooms/busy?format=json", &[], 1);
}

/// The namespaces of a connection are several to write to one socket.
#[test]
fn nothing_follows_a_close_frame_on_socketio() {
    let spaces = [
        "40{\"room\":\"busy\"}",
        "40/a,{\"room\":\"busy\"}",
        "40/b,{\"room\":\"busy\"}",
    ];
    let path = "/socket.io/?EIO=4&transport=websocket";
    Busy::start().check(path, &spaces, 6);
}

#[test]
fn nothing_follows_a_close_frame_on_stomp() {
    Busy::start().check("/stomp", &[CONNECT, SUBSCRIBE], 1);
}

#[test]
fn nothing_follows_a_close_frame_on_sockjs() {
    let [connect, subscribe] = [CONNECT, SUBSCRIBE].map(|frame| json!([frame]).to_string());
    let path = "/ws/0/close{number}/websocket";
    Busy::start().check(path, &[&connect, &subscribe], 1);
}

/// A ping just before a close is answered before it, and once.
#[test]
fn a_ping_before_a_close_is_answered_first() {
    let node = Node::in_memory(&[]);
    let mut client = Bare::open(&node, "/rooms/quiet");
    let close = masked(CLOSE, &1000u16.to_be_bytes());
    client
        .try_send(&[masked(PING, b"p"), close].concat())
        .unwrap();
    assert_eq!(client.frame(), Some((PONG, b"p".to_vec())));
    assert_eq!(
        client.frame(),
        Some((CLOSE, 1000u16.to_be_bytes().to_vec()))
    );
    assert_eq!(client.frame(), None);
}
