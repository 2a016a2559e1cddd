//! What the published clients see in their rooms.

use serde_json::json;

use super::{ask, assert_only, connect, emit, got, message, moved, start};

const LOBBY: [&str; 2] = ["--query", "{\"roomid\":\"lobby\"}"];

/// Both versions of the client, over each transport, see what the others say.
#[test]
fn every_client_over_every_transport() {
    let (_redis, [one, other]) = start::<2>(&[]);
    let (mut speaker, _) = connect(&one.url(""), &LOBBY);
    let kinds = [
        ("4", "websocket"),
        ("4", "polling"),
        ("4", "polling,websocket"),
        ("3", "websocket"),
        ("3", "polling"),
        ("3", "polling,websocket"),
    ];
    let mut clients = kinds.map(|(version, transports)| {
        let arguments = ["--version", version, "--transports", transports];
        connect(&other.url(""), &[&LOBBY[..], &arguments].concat()).0
    });
    let id = ask(&mut speaker, json!(["say", "hello"]));
    for client in &mut clients {
        let data = message(client, "broadcast_say");
        assert_eq!(
            data,
            json!({"username": null, "text": "hello", "id": id, "room": "lobby"})
        );
        let id = ask(client, json!(["say", {"text": "me, too"}]));
        assert!(id.as_str().unwrap().contains('-'), "{id}");
    }
    assert_eq!(
        other.metric("tailcast_sockets{kind=\"socketio_polling\"}"),
        Some(2.0)
    );
    assert_eq!(
        other.metric("tailcast_sockets{kind=\"socketio\"}"),
        Some(4.0)
    );
}

/// Any event reaches the room's other clients as itself, bytes and all.
#[test]
fn events_of_an_application() {
    let (redis, [one, other]) = start::<2>(&[]);
    let (mut ann, _) = connect(
        &one.url(""),
        &[&LOBBY[..], &["--transports", "websocket"]].concat(),
    );
    let (bob, _) = connect(
        &other.url(""),
        &[&LOBBY[..], &["--transports", "polling"]].concat(),
    );
    let drawn = json!(["draw", {"x": 1, "bytes": {"base64": "AQID"}}, [true], "text"]);
    let id = ask(&mut ann, drawn.clone());
    let event = got(&bob, "draw");
    // The last argument is where the client stands.
    let want = json!([drawn[1], drawn[2], drawn[3], id]);
    assert_eq!(event["args"], want);
    redis.cli(&["XADD", "lobby", "*", "event", "tick", "args", "[7]"]);
    assert_eq!(got(&bob, "tick")["args"][0], 7);
    // Who drew gets the rest alone.
    let event = ann.event("got");
    assert_eq!(event["name"], "tick", "{event}");
    for reserved in ["tailcast:gap", "tailcast:x"] {
        let refused = ask(&mut ann, json!([reserved, 1]));
        assert_eq!(refused["error"]["code"], "unknown_event");
    }
    assert_only(&mut ann, "lobby");
}

#[test]
fn joining_and_leaving() {
    let (redis, [node]) = start::<1>(&[]);
    let (mut ann, _) = connect(&node.url(""), &[]);
    redis.cli(&["XADD", "other", "5-1", "message", "old"]);
    // It named no room, so it was in the default one until now.
    let joined = ask(
        &mut ann,
        json!(["join", {"room": "other", "from": "start"}]),
    );
    assert_eq!(joined, json!({"room": "other", "head": "0-0"}));
    assert_eq!(message(&ann, "broadcast_say")["text"], "old");
    node.publish("mystream", "not for her");
    let id = ask(&mut ann, json!(["publish", "third", {"a": "1", "b": "2"}]));
    assert_eq!(
        redis.entries("third")[0].0.to_string(),
        id.as_str().unwrap()
    );
    assert_only(&mut ann, "other");
    ask(&mut ann, json!(["join", "third"]));
    let (left, rooms) = moved(&mut ann, json!(["leave", "other"]));
    assert_eq!(left, json!({"room": "other"}));
    assert!(rooms.get("third").is_some() && rooms.get("other").is_none());
    node.publish("other", "nor this");
    assert_only(&mut ann, "third");
    ask(&mut ann, json!(["leave"]));
    for (asked, code) in [
        (json!(["say", "x"]), "not_in"),
        (json!(["leave"]), "not_in"),
        (json!(["join", "\u{1}"]), "bad_room"),
        (json!(["join", {"room": "r", "from": "soon"}]), "bad_from"),
        (json!(["say", 5]), "bad_request"),
        (json!(["publish", "r", {}]), "bad_request"),
        (json!(["publish", "r", {"user": "root"}]), "reserved_field"),
    ] {
        let refused = ask(&mut ann, asked.clone());
        assert_eq!(refused["error"]["code"], code, "{asked}: {refused}");
    }
    emit(&mut ann, json!(["say", 5]));
    assert_eq!(
        got(&ann, "tailcast:error")["args"][0]["code"],
        "bad_request"
    );
}

/// A repeat under the same key is stored once: what the client's `retries` need.
#[test]
fn keys() {
    let (redis, [node]) = start::<1>(&[]);
    let (mut ann, _) = connect(&node.url(""), &LOBBY);
    let say = json!(["say", {"text": "once", "key": "k1"}]);
    let first = ask(&mut ann, say.clone());
    assert_eq!(ask(&mut ann, say), first);
    let publish = json!(["publish", "lobby", "once more", {"key": "k2"}]);
    let second = ask(&mut ann, publish.clone());
    assert_eq!(ask(&mut ann, publish), second);
    assert_eq!(redis.entries("lobby").len(), 2);
}

/// Each namespace has its own rooms, on one connection or several.
#[test]
fn namespaces() {
    let (_redis, [node]) = start::<1>(&[]);
    let (mut ann, _) = connect(
        &node.url(""),
        &[&LOBBY[..], &["--namespace", "/staff"]].concat(),
    );
    let (bob, _) = connect(&node.url(""), &LOBBY);
    emit(&mut ann, json!(["say", "hello"]));
    assert_eq!(message(&ann, "broadcast_say")["text"], "hello");
    // Rooms are rooms, whatever the namespace.
    assert_eq!(message(&bob, "broadcast_say")["text"], "hello");
}

#[test]
fn a_drain_sends_clients_elsewhere() {
    let (_redis, [mut one, other]) = start::<2>(&["--drain-timeout", "5s"]);
    let (ann, _) = connect(
        &one.url(""),
        &[&LOBBY[..], &["--transports", "websocket"]].concat(),
    );
    let (bob, _) = connect(
        &one.url(""),
        &[&LOBBY[..], &["--transports", "polling"]].concat(),
    );
    one.sigterm();
    // Who polls may have no request under way that could bring the word.
    got(&ann, "tailcast:bye");
    for client in [&ann, &bob] {
        let reason = client.event("disconnect")["reason"].clone();
        assert!(
            ["transport close", "transport error"].contains(&reason.as_str().unwrap()),
            "{reason}"
        );
    }
    assert!(one.wait_exit().success());
    assert_eq!(other.get("/health/ready").status, 200);
}
