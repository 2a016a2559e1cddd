//! The first conversation, with the programs a user types.

use std::process::Command;

use serde_json::{Value, json};

use super::{add, setup, wait_for};
use crate::harness::clients::{Program, Ws};

/// Each line that a wscat prints, its prompt taken off.
fn said(wscat: &Program) -> String {
    wscat.line().trim_start_matches("> ").to_owned()
}

#[test]
fn two_wscats_redis_cli_curl_and_a_late_joiner() {
    let (redis, node) = setup();
    let mut alice = Program::wscat(&["-c", &node.ws_url("")]);
    let mut bob = Program::wscat(&["-c", &node.ws_url("/rooms/mystream")]);
    let sockets = "tailcast_sockets{kind=\"ws_raw\"}";
    wait_for("both are here", || node.metric(sockets) == Some(2.0));
    // A raw socket is not told when it has joined; a person is slower than that.
    wait_for("both have joined", || {
        add(&redis, "mystream", "hello?");
        std::thread::sleep(std::time::Duration::from_millis(50));
        alice.has_lines() && bob.has_lines()
    });
    redis.cli(&["XADD", "mystream", "*", "aaa", "1234"]);
    alice.say("from alice");
    for wscat in [&alice, &bob] {
        let mut line = said(wscat);
        while line == "hello?" {
            line = said(wscat);
        }
        assert_eq!(line, "1234");
        assert_eq!(said(wscat), "from alice");
    }
    bob.say("from bob");
    assert_eq!(
        (said(&alice), said(&bob)),
        ("from bob".into(), "from bob".into())
    );

    let curl = Command::new("curl")
        .args(["-sS", "-d", "from curl", &node.url("/rooms/mystream")])
        .output()
        .unwrap();
    let answer: Value = serde_json::from_slice(&curl.stdout).unwrap();
    assert_eq!(answer["room"], "mystream");
    assert_eq!(
        (said(&alice), said(&bob)),
        ("from curl".into(), "from curl".into())
    );

    let late = Program::wscat(&["-c", &node.ws_url("/?room=mystream&from=last:4")]);
    for line in ["1234", "from alice", "from bob", "from curl"] {
        assert_eq!(said(&late), line);
    }
}

#[tokio::test]
async fn a_message_sent_at_once_comes_back_to_its_sender() {
    let (redis, node) = setup();
    for round in 0..20 {
        let room = format!("r{round}");
        let mut socket = Ws::open(&node, &format!("/rooms/{room}")).await;
        socket.send("mine").await;
        wait_for("it's stored", || redis.cli(&["XLEN", &room]) == "1");
        // If the join came after it, this is what would arrive first.
        add(&redis, &room, "next");
        assert_eq!(socket.text().await, "mine", "round {round}");
    }
}

#[test]
fn eventsource_resumes_where_its_connection_broke() {
    let (redis, mut node) = setup();
    add(&redis, "news", "before");
    let sse = Program::sse(&[&node.url("/rooms/news?from=start")]);
    let expect = |want: &str, id: &str| {
        let event = sse.event("message");
        let data: Value = serde_json::from_str(event["data"].as_str().unwrap()).unwrap();
        assert_eq!(data["fields"], json!({"message": want}));
        assert_eq!(
            (data["room"].as_str(), &data["id"]),
            (Some("news"), &event["id"])
        );
        assert!(id.is_empty() || event["id"] == id, "{event}");
    };
    expect("before", "");
    let id = add(&redis, "news", "one");
    expect("one", &id);
    node.kill9();
    let id = add(&redis, "news", "missed");
    node.restart();
    // By Last-Event-ID, though the URL still says from=start.
    expect("missed", &id);
    let id = add(&redis, "news", "live");
    expect("live", &id);

    let resumed = Program::sse(&[&node.url("/rooms/news"), "--last-event-id", &id]);
    resumed.event("open");
    let id = add(&redis, "news", "on");
    let event = resumed.event("message");
    assert_eq!(event["id"], id);
}

#[test]
fn the_package_ws_speaks_both_formats() {
    let (redis, node) = setup();
    let mut json = Program::ws(&[
        &node.ws_url("/rooms/r"),
        "--json",
        "--subprotocol",
        "tailcast.json",
    ]);
    assert_eq!(json.event("open")["subprotocol"], "tailcast.json");
    assert_eq!(
        json.event("frame")["json"],
        json!({"type":"joined","room":"r","head":"0-0"})
    );
    let mut raw = Program::ws(&[&node.ws_url("/rooms/r?from=start")]);
    raw.event("open");
    json.send(r#"{"type":"publish","message":"hi","ref":1}"#);
    assert_eq!(raw.event("frame")["text"], "hi");
    let mut kinds = [
        json.event("frame")["json"]["type"].clone(),
        json.event("frame")["json"]["type"].clone(),
    ];
    kinds.sort_by_key(Value::to_string);
    assert_eq!(kinds, ["ack", "entry"]);
    raw.say(&json!({"sendBinary": "/w=="}).to_string());
    assert_eq!(raw.event("frame")["base64"], "/w==");
    assert_eq!(
        json.event("frame")["json"]["fields"],
        json!({"message": {"base64": "/w=="}})
    );
    raw.say(r#"{"close":true}"#);
    assert_eq!(raw.event("close")["code"], 1005);
    drop(redis);
}
