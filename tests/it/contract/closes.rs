//! The close codes, each as a client meets it.

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{add, raw_joined, setup, setup_with, wait_for};
use crate::harness::bare::{Bare, CLOSE, PING, TEXT, code, masked};
use crate::harness::clients::{Program, Sse, Ws};
use crate::harness::http;

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
        let mut client = Bare::open(&node, "/rooms/r");
        client.try_send(bytes).unwrap();
        let (first, payload) = client.some_frame();
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
        let mut client = Bare::open(&node, path);
        let began = Instant::now();
        let mut pinged = false;
        loop {
            match client.some_frame() {
                (PING, _) => pinged = true,
                (TEXT, _) => {}
                (CLOSE, payload) => {
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

/// Frames over `--frame-rate` wait. Whatever is answered is answered in time, and each publish has its outcome.
#[tokio::test]
async fn frames_over_the_rate_wait_and_none_is_lost() {
    let (redis, node) = setup_with(&["--frame-rate", "20"]);
    let mut raw = raw_joined(&redis, &node, "r").await;
    let (mut json, _) = Ws::json(&node, "j", "now").await;
    let began = Instant::now();
    for number in 0..60 {
        raw.send(number.to_string()).await;
        json.send_json(json!({"type":"publish","message":"x","ref":number}))
            .await;
    }
    for number in 0..60 {
        assert_eq!(raw.text().await, number.to_string());
    }
    let mut acked = 0;
    while acked < 60 {
        let frame = json.frame().await;
        assert_ne!(frame["type"], "error", "{frame}");
        if frame["type"] == "ack" {
            assert_eq!(frame["ref"], acked);
            acked += 1;
        }
    }
    // 20 at once, and 40 in two seconds.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_900), "{took:?}");
}

/// As fast as it can, by default: what awaits its acknowledgements gets them all.
#[tokio::test]
async fn a_busy_publisher_gets_every_acknowledgement() {
    let (_redis, node) = setup();
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    for number in 0..1_500 {
        socket
            .send_json(json!({"type":"publish","message":"x","ref":number,"echo":false}))
            .await;
    }
    for number in 0..1_500 {
        let frame = socket.frame_of("ack").await;
        assert_eq!(frame["ref"], number);
    }
}

/// Empty fragments would else be free, and never end.
#[tokio::test]
async fn empty_fragments_count() {
    let (_redis, node) = setup_with(&["--frame-rate", "1000"]);
    let mut client = Bare::open(&node, "/rooms/r?from=start");
    let began = Instant::now();
    let fragments = masked(0x00, b"").repeat(2_500);
    let message = [masked(0x01, b"a"), fragments, masked(0x80, b"b")].concat();
    client.try_send(&message).unwrap();
    assert_eq!(client.frame(), Some((TEXT, b"ab".to_vec())));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_400), "{took:?}");
}

#[tokio::test]
async fn publishes_over_a_roles_rate_are_4429() {
    let (_redis, node) = setup_with(&[
        "--auth",
        "cookie",
        "--default-role",
        "*=member",
        "--rate",
        "member=2/60s",
    ]);
    let cookie = [("cookie", "token=ann")];
    let mut socket = Ws::try_open(&node, "/rooms/r", &cookie).await.unwrap();
    for _ in 0..3 {
        socket.send("x").await;
    }
    let (code, reason) = socket.closed().await;
    assert_eq!(code, 4429, "{reason}");
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
