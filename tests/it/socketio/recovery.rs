//! What a client gets back after its connection broke, and what it's told if not all.

use serde_json::json;

use super::{ask, assert_only, connect, cut, emit, got, message, moved, start, until_rooms};

const LOBBY: [&str; 4] = [
    "--query",
    "{\"roomid\":\"lobby\"}",
    "--transports",
    "websocket",
];

/// In rooms that it joined later, and by the name it gave itself.
#[test]
fn rooms_and_names_come_back() {
    let (_redis, [node]) = start::<1>(&[]);
    let (mut ann, first) = connect(&node.url(""), &LOBBY);
    ask(&mut ann, json!(["join", {"username": "Ann"}]));
    message(&ann, "join");
    ask(&mut ann, json!(["join", "two words"]));
    message(&ann, "join");
    ask(&mut ann, json!(["join", "third"]));
    message(&ann, "join");
    let (_, before) = moved(&mut ann, json!(["leave", "third"]));
    assert_eq!(before.as_object().unwrap().len(), 2, "{before}");
    let back = cut(&mut ann);
    assert_eq!(back["recovered"], true);
    assert_eq!(back["sid"], first["sid"]);
    let rooms = until_rooms(&ann);
    assert_eq!(rooms.as_object().unwrap().len(), 2, "{rooms}");
    // It said its name before, and need not again; that it went is no news to itself.
    assert_eq!(message(&ann, "join")["username"], "Ann");
    assert_eq!(message(&ann, "join")["username"], "Ann");
    emit(&mut ann, json!(["say", {"text": "here", "room": "lobby"}]));
    let said = message(&ann, "broadcast_say");
    assert_eq!(
        (&said["username"], &said["text"]),
        (&json!("Ann"), &json!("here"))
    );
}

/// Its own events are not sent to it, not even when they are replayed.
#[test]
fn own_events_stay_away() {
    let (_redis, [node]) = start::<1>(&[]);
    let (mut ann, _) = connect(&node.url(""), &LOBBY);
    ask(&mut ann, json!(["draw", 1]));
    assert_eq!(cut(&mut ann)["recovered"], true);
    until_rooms(&ann);
    node.publish("lobby", "next");
    let event = ann.event("got");
    assert_eq!(event["name"], "message", "{event}");
}

/// What is gone from the stream is told, and `recovered` is false.
#[test]
fn a_gap_is_told() {
    let (redis, [node]) = start::<1>(&["--window-entries", "4", "--linger", "0"]);
    let (mut ann, first) = connect(&node.url(""), &LOBBY);
    node.publish("lobby", "seen");
    message(&ann, "broadcast_say");
    ann.say("{\"leave\":true}");
    ann.event("disconnect");
    for number in 0..20 {
        redis.cli(&["XADD", "lobby", "*", "message", &format!("missed {number}")]);
    }
    redis.cli(&["XTRIM", "lobby", "MAXLEN", "5"]);
    ann.say("{\"open\":true}");
    let back = ann.event("connect");
    assert_eq!(back["recovered"], false);
    assert_ne!(back["sid"], first["sid"]);
    let gap = got(&ann, "tailcast:gap");
    assert_eq!(gap["args"][0]["reason"], "trimmed", "{gap}");
    for number in 15..20 {
        let text = message(&ann, "broadcast_say")["text"].clone();
        assert_eq!(text, format!("missed {number}"));
    }
    // It's told once.
    assert_eq!(cut(&mut ann)["recovered"], true);
    assert_only(&mut ann, "lobby");
}

/// What was told once is behind the client: later it lacks nothing.
#[test]
fn after_a_deletion() {
    let (redis, [node]) = start::<1>(&[]);
    node.publish("lobby", "before");
    let (mut ann, _) = connect(&node.url(""), &LOBBY);
    redis.cli(&["DEL", "lobby"]);
    let gap = got(&ann, "tailcast:gap");
    assert_eq!(gap["args"][0]["reason"], "deleted", "{gap}");
    assert_eq!(cut(&mut ann)["recovered"], true);
    node.publish("lobby", "anew");
    assert_eq!(message(&ann, "broadcast_say")["text"], "anew");
    assert_eq!(cut(&mut ann)["recovered"], true);
    assert_only(&mut ann, "lobby");
}

/// The key is the nodes' own, in Redis, and so good after all of them were restarted.
#[test]
fn all_nodes_restarted() {
    let (redis, [mut node]) = start::<1>(&[]);
    let (mut ann, _) = connect(&node.url(""), &LOBBY);
    emit(&mut ann, json!(["say", "before"]));
    message(&ann, "broadcast_say");
    node.kill9();
    redis.cli(&["XADD", "lobby", "*", "message", "meanwhile"]);
    node.restart();
    loop {
        let event = ann.json();
        if event["event"] == "connect" {
            assert_eq!(event["recovered"], true);
            break;
        }
    }
    assert_eq!(message(&ann, "broadcast_say")["text"], "meanwhile");
}
