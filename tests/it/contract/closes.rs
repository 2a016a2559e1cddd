//! The close codes, each as a client meets it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{add, raw_joined, setup, setup_with, wait_for};
use crate::harness::PATIENCE;
use crate::harness::clients::{Program, Sse, Ws};
use crate::harness::http;
use crate::harness::node::Node;

/// A WebSocket that answers nothing by itself: past its handshake, a bare connection.
fn bare(node: &Node, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "));
    stream
}

/// The next small frame: its first byte and its payload.
fn bare_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert!(head[1] < 126, "a small frame without a mask: {head:?}");
    let mut payload = vec![0; usize::from(head[1])];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

fn code(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[0], payload[1]])
}

#[tokio::test]
async fn too_large_is_1009() {
    let (redis, node) = setup_with(&["--max-frame", "1KiB"]);
    for path in ["/rooms/r", "/rooms/r?format=json"] {
        for message in [
            Message::text("x".repeat(1025)),
            Message::binary(vec![1; 1025]),
            Message::text("x".repeat(500_000)),
        ] {
            let mut socket = Ws::open(&node, path).await;
            use futures_util::SinkExt;
            // The node may close before it has taken all of it.
            let _ = socket.stream.send(message).await;
            let (code, reason) = socket.closed().await;
            assert_eq!(code, 1009, "{reason}");
            assert!(reason.contains("--max-frame"));
        }
    }
    let mut socket = raw_joined(&redis, &node, "ok").await;
    socket.send("x".repeat(1024)).await;
    assert_eq!(socket.text().await.len(), 1024);
}

#[tokio::test]
async fn broken_protocol_is_1002_and_1007() {
    let (_redis, node) = setup();
    // Unmasked; a reserved opcode; text that is not UTF-8; a fragmented ping.
    for (bytes, want) in [
        (&[0x81, 1, b'a'][..], 1002),
        (&[0x83, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
        (&[0x09, 0x80, 0, 0, 0, 0], 1002),
        (&[0xc1, 0x80, 0, 0, 0, 0], 1002),
    ] {
        let mut stream = bare(&node, "/rooms/r");
        stream.write_all(bytes).unwrap();
        let (first, payload) = bare_frame(&mut stream);
        assert_eq!((first, code(&payload)), (0x88, want), "{bytes:?}");
    }
    assert_eq!(node.get("/health/live").status, 200);
}

#[tokio::test]
async fn what_no_retry_mends_is_4400() {
    let (redis, node) = setup();
    redis.cli(&["LPUSH", "list", "x"]);
    let mut socket = Ws::open(&node, "/rooms/list").await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4400);
    assert!(reason.contains("another type than a stream"), "{reason}");
    let mut events = Sse::open(&node, "/rooms/list", &[]);
    let event = events.event();
    assert_eq!(event.event.as_deref(), Some("error"));
    assert!(event.data.unwrap().contains("\"bad_request\""));
    assert_eq!(events.block(), None);
    assert!(events.has_ended(), "the body is whole");
}

#[tokio::test]
async fn no_pong_is_4408() {
    let (_redis, node) = setup_with(&["--ping", "200ms", "--pong", "300ms"]);
    for path in ["/rooms/r", "/rooms/r?format=json"] {
        let mut stream = bare(&node, path);
        let began = Instant::now();
        let mut pinged = false;
        loop {
            match bare_frame(&mut stream) {
                (0x89, _) => pinged = true,
                (0x81, _) => {}
                (0x88, payload) => {
                    assert_eq!(code(&payload), 4408);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(pinged && began.elapsed() >= Duration::from_millis(500));
    }
    // Who answers stays.
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    let until = Instant::now() + Duration::from_millis(1_500);
    while Instant::now() < until {
        let _ = tokio::time::timeout(
            Duration::from_millis(50),
            futures_util::StreamExt::next(&mut socket.stream),
        )
        .await;
    }
    socket.assert_quiet().await;
}

#[tokio::test]
async fn silence_beyond_the_idle_timeout_is_4408() {
    let (_redis, node) = setup_with(&["--idle-timeout", "300ms"]);
    let mut socket = Ws::open(&node, "/rooms/r").await;
    assert_eq!(socket.closed().await.0, 4408);
}

#[tokio::test]
async fn a_slow_reader_is_4408_and_misses_nothing_when_it_comes_back() {
    let (redis, node) = setup_with(&["--slow-timeout", "3s", "--ping", "100ms", "--pong", "2s"]);
    let (mut slow, _) = Ws::json(&node, "r", "start").await;
    let (mut healthy, _) = Ws::json(&node, "r", "start").await;
    let message = "m".repeat(1 << 20);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut ids: Vec<String> = Vec::new();
    for _ in 0..24 {
        let id = redis::cmd("XADD")
            .arg("r")
            .arg("*")
            .arg("message")
            .arg(&message)
            .query(&mut connection)
            .unwrap();
        ids.push(id);
        // The others never wait.
        assert_eq!(healthy.frame().await["id"], *ids.last().unwrap());
    }
    wait_for("the slow one is closed", || {
        node.metric("tailcast_closes_total{code=\"4408\"}") == Some(1.0)
    });
    assert_eq!(node.metric("tailcast_slow_closed_total"), Some(1.0));
    let mut got: Vec<String> = Vec::new();
    while let Some(Message::Text(text)) = slow.next().await {
        let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
        got.push(frame["id"].as_str().unwrap().to_owned());
    }
    assert!(got.len() < ids.len(), "it was never slow");
    let from = got.last().cloned().unwrap_or_else(|| "start".to_owned());
    let (mut again, _) = Ws::json(&node, "r", &from).await;
    while got.len() < ids.len() {
        let frame = again.frame().await;
        assert_eq!(frame["type"], "entry");
        got.push(frame["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(got, ids);
}

#[tokio::test]
async fn a_gap_on_a_raw_socket_is_4409_and_its_reason_says_where_to_go_on() {
    let (redis, node) = setup();
    for seq in 1..=10 {
        redis.cli(&[
            "XADD",
            "r",
            &format!("{seq}-0"),
            "message",
            &seq.to_string(),
        ]);
    }
    redis.cli(&["XTRIM", "r", "MINID", "6"]);
    let mut socket = Ws::open(&node, "/rooms/r?from=2-0").await;
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4409);
    assert!(reason.contains("trimmed"), "{reason}");
    let (_, from) = reason.split_once("from=").unwrap();
    let mut socket = Ws::open(&node, &format!("/rooms/r?from={from}")).await;
    for want in ["6", "7", "8", "9", "10"] {
        assert_eq!(socket.text().await, want);
    }
    // Live: what the stream loses under a socket's feet.
    redis.cli(&["DEL", "r"]);
    redis.cli(&["XADD", "r", "1-0", "message", "anew"]);
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4409, "{reason}");
    let (_, from) = reason.split_once("from=").unwrap();
    let mut socket = Ws::open(&node, &format!("/rooms/r?from={from}")).await;
    assert_eq!(socket.text().await, "anew");
}

#[tokio::test]
async fn too_fast_is_4429() {
    let (redis, node) = setup_with(&["--frame-rate", "5"]);
    let mut socket = raw_joined(&redis, &node, "r").await;
    for number in 0..20 {
        use futures_util::SinkExt;
        let _ = socket.stream.send(Message::text(format!("{number}"))).await;
    }
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4429, "{reason}");
    // A JSON socket is told and lives on.
    let (mut socket, _) = Ws::json(&node, "quiet", "now").await;
    for _ in 0..7 {
        socket.send_json(json!({"type":"ping"})).await;
    }
    let mut codes = Vec::new();
    for _ in 0..7 {
        let frame = socket.frame().await;
        if frame["type"] == "error" {
            assert_eq!(frame["code"], "too_fast");
            codes.push(frame["retry_ms"].as_u64().unwrap());
        }
    }
    assert!(!codes.is_empty());
    tokio::time::sleep(Duration::from_millis(codes[0] + 200)).await;
    socket.assert_quiet().await;
}

#[tokio::test]
async fn sigterm_drains_with_bye_and_1012() {
    let (redis, mut node) = setup();
    let (mut json, _) = Ws::json(&node, "r", "now").await;
    let mut raw = raw_joined(&redis, &node, "raw").await;
    let mut events = Sse::open(&node, "/rooms/r?from=start", &[]);
    let mut tcp = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
    let first = add(&redis, "r", "before");
    assert_eq!(events.event().id, Some(first.clone()));
    // Acknowledged before it's closed, as it was taken.
    json.entry(&first, "before").await;
    node.sigterm();
    let bye = json.frame().await;
    assert_eq!(bye["type"], "bye", "{bye}");
    assert!(bye["retry_ms"].as_u64().unwrap() > 0);
    assert_eq!(json.closed().await.0, 1012);
    assert_eq!(raw.closed().await.0, 1012);
    let last = std::iter::from_fn(|| events.block()).last().unwrap();
    assert!(last.retry.is_some() && last.data.is_none(), "{last:?}");
    assert!(events.has_ended(), "the body is whole");
    let mut rest = Vec::new();
    let _ = tcp.read_to_end(&mut rest);
    assert_eq!(node.wait_exit().code(), Some(0), "{}", node.stderr());
    assert!(http::try_request(node.port(), "GET", "/", &[], b"").is_err());
    assert!(node.stderr_to_end().contains("drained"));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (_redis, mut node) = setup();
    // So many that their turns take two seconds.
    let mut sockets = Vec::new();
    for _ in 0..400 {
        sockets.push(Ws::open(&node, "/rooms/r").await);
    }
    let began = Instant::now();
    node.sigterm();
    wait_for("it drains", || node.stderr().contains("draining"));
    node.sigterm();
    assert_eq!(node.wait_exit().code(), Some(0));
    assert!(
        began.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
    assert!(node.stderr_to_end().contains("stopped at once"));
}

#[test]
fn the_package_ws_sees_code_and_reason() {
    let (_redis, node) = setup();
    let client = Program::ws(&[&node.ws_url("/rooms/r?format=json"), "--json"]);
    client.event("frame");
    node.sigterm();
    assert_eq!(client.event("frame")["json"]["type"], "bye");
    let close = client.event("close");
    assert_eq!(close["code"], 1012);
    assert!(close["reason"].as_str().unwrap().contains("reconnect"));
}
