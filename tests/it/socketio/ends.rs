//! What ends a namespace, a room or a session at an awkward moment, and what clients send that nobody
//! asked for, as bytes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::time::sleep;

use super::people::{HOUR, JWT, auth, ban_ann, host, token};
use super::polling::Polls;
use super::{connect, cut, got, start, until_rooms};
use crate::harness::clients::{Program, Ws};
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

const SOCKET: &str = "/socket.io/?EIO=4&transport=websocket";

/// Ann, in the lobby by one namespace and elsewhere by the transport's own.
fn ann_in_two(node: &Node) -> (Polls<'_>, String) {
    let token = token("ann", "lobby=member,other=member", HOUR);
    let mut ann = Polls::open(node);
    ann.bring(format!("40{}", auth(&token, json!({"room": "other"}))));
    ann.until("40{");
    ann.bring(format!("40/x,{}", auth(&token, json!({}))));
    ann.until("40/x,{");
    (ann, token)
}

/// Who was put out of a namespace and asks for it again gets an answer.
#[test]
fn a_namespace_asked_for_again() {
    let (_redis, [node]) = start::<1>(&JWT);
    let (mut ann, token) = ann_in_two(&node);
    ban_ann(&node);
    let closed = ann.until("42/x,[\"tailcast:closed\"");
    assert!(closed.contains("4403"), "{closed}");
    assert_eq!(ann.next(), "41/x,");
    ann.bring(format!("40/x,{}", auth(&token, json!({}))));
    ann.bring("420[\"say\",\"still here\"]");
    let refused = ann.until("44/x,");
    assert!(refused.contains("banned"), "{refused}");
    ann.until("430[\"");
}

/// What ends one namespace waits until its client fetches, however long that takes, and the others go on.
#[tokio::test]
async fn a_ban_behind_a_full_mailbox() {
    let more = ["--socketio-ping-interval", "1s"];
    let (redis, [node]) = start::<1>(&[&JWT[..], &more].concat());
    let (mut ann, _) = ann_in_two(&node);
    let delivered = || node.metric("tailcast_frames_total");
    let before = delivered();
    redis.cli(&["XADD", "lobby", "*", "message", &"x".repeat(70_000)]);
    until("it's in the mailbox", || delivered() > before).await;
    ban_ann(&node);
    // It's looked at meanwhile, when a ping is due.
    sleep(Duration::from_millis(1500)).await;
    ann.until("42/x,[\"message\"");
    ann.until("42/x,[\"tailcast:closed\",{\"code\":4403");
    assert_eq!(ann.next(), "41/x,");
    ann.bring("420[\"say\",\"still here\"]");
    ann.until("430[\"");
}

/// Of rooms that could not all be joined none is kept.
#[tokio::test]
async fn a_refused_connect_leaves_nobody_behind() {
    let (_redis, [node]) = start::<1>(&JWT);
    let ann = token("ann", "lobby=member", HOUR);
    let mut session = Polls::open(&node);
    let rooms = json!({"token": ann, "rooms": ["lobby", "closed"]});
    session.bring(format!("40{rooms}"));
    let refused = session.until("44{");
    assert!(refused.contains("\"forbidden\""), "{refused}");
    let bob = token("bob", "lobby=member", HOUR);
    session.bring(format!("40/y,{}", auth(&bob, json!({}))));
    session.until("40/y,{");
    let present = || {
        let asking = [("authorization", host())];
        let asking = asking
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        node.request("GET", "/rooms/lobby/presence", &asking, "")
            .text()
    };
    until("bob is there", || present().contains("\"bob\"")).await;
    assert!(!present().contains("\"ann\""), "{}", present());
}

/// However many rooms are named, they are not even compared if nobody can be in so many.
#[test]
fn too_many_rooms() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut session = Polls::open(&node);
    let names: Vec<String> = (0..90_000).map(|number| format!("{number:06}")).collect();
    session.bring(format!("40{}", json!({"rooms": names})));
    let refused = session.until("44{");
    assert!(refused.contains("\"too_many_rooms\""), "{refused}");
    session.bring("40{\"room\":\"r\"}");
    session.until("40{");
}

/// An offset that names more rooms than anybody can be in is none.
#[test]
fn an_offset_of_too_many_rooms() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut session = Polls::open(&node);
    session.bring("40{\"room\":\"r\"}");
    let connected = session.until("40{");
    let connected: Value = serde_json::from_str(&connected[2..]).unwrap();
    let (sid, pid) = (connected["sid"].as_str().unwrap(), &connected["pid"]);
    let rooms: Vec<String> = (0..9_000).map(|number| format!("1-1 {number}")).collect();
    let offset = format!("{};;{}", &sid[..6], rooms.join(","));
    let auth = json!({"room": "r", "pid": pid, "offset": offset});
    session.bring("41");
    session.bring(format!("40{auth}"));
    let again = session.until("40{");
    assert!(!again.contains(sid), "{again}");
    assert!(
        session
            .next()
            .starts_with("42[\"tailcast:rooms\",{\"rooms\":{\"r\":")
    );
}

/// Is in the lobby and in another room, and is put out of the lobby alone: goes on in the other, and
/// misses nothing once back.
fn put_out_of_the_lobby(connect_with: Value, join: Option<&str>) {
    let (_redis, [node]) = start::<1>(&JWT);
    let ann = token("ann", "lobby=member,other=member", HOUR);
    let auth = auth(&ann, connect_with);
    let (mut ann, first) = connect(
        &node.url(""),
        &["--auth", &auth, "--transports", "websocket"],
    );
    if let Some(room) = join {
        super::ask(&mut ann, json!(["join", room]));
    }
    ban_ann(&node);
    let left = got(&ann, "tailcast:left");
    assert_eq!(left["args"][0]["room"], "lobby", "{left}");
    assert_eq!(left["args"][0]["code"], "banned", "{left}");
    let assert_elsewhere = |ann: &Program| {
        let rooms = until_rooms(ann);
        let is_in = |room: &str| rooms.get(room).is_some();
        assert!(is_in("other") && !is_in("lobby"), "{rooms}");
    };
    assert_elsewhere(&ann);
    // It speaks where it still is.
    let said = super::ask(&mut ann, json!(["say", "here"]));
    assert!(said.is_string(), "{said}");
    let back = cut(&mut ann);
    assert_eq!(
        (&back["recovered"], &back["sid"]),
        (&json!(true), &first["sid"])
    );
    assert_elsewhere(&ann);
}

#[test]
fn put_out_of_a_room_joined_later() {
    put_out_of_the_lobby(json!({"room": "other"}), Some("lobby"));
}

#[test]
fn put_out_of_one_room_of_a_connect() {
    put_out_of_the_lobby(json!({"room": null, "rooms": ["other", "lobby"]}), None);
}

/// A misspelt option would be lost without a word. What is said is an application's own object.
#[test]
fn options_that_there_are_not() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut session = Polls::open(&node);
    session.bring("40{\"room\":\"r\"}");
    session.until("40{");
    session.bring("420[\"publish\",\"r\",{\"a\":\"1\"},{\"kee\":\"1\"}]");
    let refused = session.until("430[");
    assert!(
        refused.contains("\"bad_request\"") && refused.contains("`kee`"),
        "{refused}"
    );
    session.bring("421[\"publish\",\"r\",{\"a\":\"1\"},{\"key\":\"1\"}]");
    session.until("431[\"");
    session.bring("422[\"say\",{\"text\":\"x\",\"kee\":\"1\"}]");
    session.until("432[\"");
}

/// What is wrong with one event, or with one namespace, ends nothing else.
#[tokio::test]
async fn the_smallest_part_suffers() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut socket = Ws::open(&node, SOCKET).await;
    let long = format!("/{}", "x".repeat(2_000));
    for namespace in [&long, "/a\u{1e}b"] {
        socket.send(format!("40{namespace},")).await;
        let refused = heard(&mut socket, "44").await;
        assert!(refused.starts_with(&format!("44{namespace},")), "{refused}");
        assert!(refused.contains("\"bad_namespace\""), "{refused}");
    }
    for auth in ["[]", "{", "\"x\"", "{\"room\":\"\\ud83d\"}"] {
        socket.send(format!("40{auth}")).await;
        let refused = heard(&mut socket, "44{").await;
        assert!(refused.contains("\"bad_request\""), "{auth}: {refused}");
    }
    let named = format!("/{}", "x".repeat(128));
    for namespace in ["/чат", "/two words", &named] {
        socket
            .send(format!("40{namespace},{{\"room\":\"r\"}}"))
            .await;
        heard(&mut socket, &format!("40{namespace},{{\"sid\"")).await;
        socket.send(format!("42{namespace},7[\"say\",\"x\"]")).await;
        heard(&mut socket, &format!("43{namespace},7[\"")).await;
    }
    socket.send("40{\"room\":\"r\"}").await;
    heard(&mut socket, "40{\"sid\"").await;
    let deep = format!(
        "[\"draw\",{}{}]",
        "{\"a\":".repeat(80),
        "1".to_owned() + &"}".repeat(80)
    );
    let half = "half a surrogate pair (\\\\ud83d)";
    for (event, told) in [
        (&*deep, "at most 64 levels"),
        ("[]", "begins with its name"),
        ("[{}]", "begins with its name"),
        ("[\"connect\"]", "\"unknown_event\""),
        ("[\"draw\",NaN]", "\"bad_json\""),
        ("[\"draw\",\"\\ud83d\"]", half),
        ("[\"say\",\"\\ud83d\"]", half),
        ("[\"\\ud83d\"]", half),
        ("[\"publish\",\"r\",{\"a\":\"\\ud83d\"}]", half),
    ] {
        socket.send(format!("421{event}")).await;
        let refused = heard(&mut socket, "431[").await;
        assert!(refused.contains(told), "{event}: {refused}");
        socket.send(format!("42{event}")).await;
        let refused = heard(&mut socket, "42[\"tailcast:error\"").await;
        assert!(refused.contains(told), "{event}: {refused}");
    }
    socket.send("4511-2[\"draw\"]").await;
    for _ in 0..11 {
        let bytes = tokio_tungstenite::tungstenite::Message::binary(vec![1]);
        socket.send_message(bytes).await;
    }
    let refused = heard(&mut socket, "432[").await;
    assert!(refused.contains("at most 10 attachments"), "{refused}");
    // An event called by a number is one like any other.
    let mut other = Ws::open(&node, SOCKET).await;
    other.send("40{\"room\":\"r\"}").await;
    heard(&mut other, "tailcast:rooms").await;
    socket.send("423[42,\"x\"]").await;
    heard(&mut socket, "433[\"").await;
    heard(&mut other, "42[\"42\",\"x\",").await;
    // What is no packet ends the connection, as the protocol says.
    socket.send("42{}").await;
    assert_eq!(socket.closed().await.0, 4400);
}

/// Answers to what nobody asked mean nothing.
#[tokio::test]
async fn answers_that_nobody_asked_for() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut socket = Ws::open(&node, SOCKET).await;
    for packet in [
        "40{\"room\":\"r\"}",
        "437[]",
        "437[\"x\"]",
        "43/nowhere,1[]",
    ] {
        socket.send(packet).await;
    }
    socket
        .send("461-8[{\"_placeholder\":true,\"num\":0}]")
        .await;
    let bytes = tokio_tungstenite::tungstenite::Message::binary(vec![1, 2, 3]);
    socket.send_message(bytes).await;
    socket.send("420[\"say\",\"x\"]").await;
    while !socket.text().await.starts_with("430[\"") {}
}

/// Coming and going again is as frequent as anything else at most.
#[tokio::test]
async fn in_and_out_and_in_again() {
    let redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), &["--frame-rate", "2"]);
    let mut socket = Ws::open(&node, SOCKET).await;
    let began = Instant::now();
    for _ in 0..5 {
        socket.send("40{\"room\":\"r\"}").await;
        socket.send("41").await;
    }
    for _ in 0..5 {
        while !socket.text().await.starts_with("40{") {}
    }
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

/// Once a socket has taken over, requests are none of the session's any more, and do it no harm.
#[tokio::test]
async fn requests_behind_an_upgrade() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut session = Polls::open(&node);
    session.bring("40{\"room\":\"r\"}");
    session.until("40{");
    let mut socket = session.probed().await;
    socket.send("5").await;
    socket.send("420[\"say\",\"x\"]").await;
    while !socket.text().await.starts_with("430[\"") {}
    assert_eq!(node.get(&session.path).status, 400);
    assert_eq!(node.request("POST", &session.path, &[], "41").status, 400);
    socket.send("421[\"say\",\"y\"]").await;
    while !socket.text().await.starts_with("431[\"") {}
}

/// A probe that comes to nothing leaves the session as it was.
#[tokio::test]
async fn a_probe_that_breaks_off() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut session = Polls::open(&node);
    session.bring("40{\"room\":\"r\"}");
    session.until("40{");
    let socket = session.probed().await;
    node.publish("r", "meanwhile");
    drop(socket);
    let message = session.until("42[\"message\"");
    assert!(message.contains("meanwhile"), "{message}");
    let mut socket = session.probed().await;
    socket.send("5").await;
    node.publish("r", "by the socket");
    while !socket.text().await.contains("by the socket") {}
}

/// A node that drains says so to a client in the middle of an upgrade.
#[tokio::test]
async fn a_drain_in_the_middle_of_an_upgrade() {
    let (_redis, [node]) = start::<1>(&["--drain-timeout", "10s"]);
    let mut session = Polls::open(&node);
    session.bring("40{\"room\":\"r\"}");
    session.until("40{");
    let mut socket = session.probed().await;
    node.sigterm();
    until("it drains", || node.stderr().contains("draining")).await;
    socket.send("5").await;
    while !socket.text().await.starts_with("42[\"tailcast:bye\"") {}
    assert_eq!(socket.closed().await.0, 1012);
}

/// What is left of a connection that broke ends late, and says that its client went. That is back, and says so.
#[tokio::test]
async fn a_former_connection_ends_late() {
    let (_redis, [one, other]) = start::<2>(&[]);
    let mut bob = Ws::open(&other, SOCKET).await;
    bob.send("40{\"room\":\"r\"}").await;
    heard(&mut bob, "tailcast:rooms").await;
    let mut ann = Ws::open(&one, SOCKET).await;
    ann.send("40{\"room\":\"r\"}").await;
    let connected = heard(&mut ann, "40{").await;
    ann.send("42[\"join\",{\"username\":\"Ann\"}]").await;
    let joined = heard(&mut ann, "\"join\"").await;
    heard(&mut bob, "\"join\"").await;
    let joined: Value = serde_json::from_str(&joined[2..]).unwrap();
    let mut auth: Value = serde_json::from_str(&connected[2..]).unwrap();
    auth["offset"] = joined[2].clone();
    let mut again = Ws::open(&other, SOCKET).await;
    again.send(format!("40{auth}")).await;
    let back = heard(&mut again, "40{").await;
    assert_eq!(back, connected);
    heard(&mut bob, "\"join\"").await;
    drop(ann);
    let gone = heard(&mut bob, "\"message\"").await;
    assert!(gone.contains("\"broadcast_quit\""), "{gone}");
    let came = heard(&mut bob, "\"message\"").await;
    assert!(
        came.contains("\"join\"") && came.contains("\"Ann\""),
        "{came}"
    );
    drop(again);
    let gone = heard(&mut bob, "\"message\"").await;
    assert!(gone.contains("\"broadcast_quit\""), "{gone}");
    bob.send("42[\"say\",\"alone\"]").await;
    let said = heard(&mut bob, "\"message\"").await;
    assert!(said.contains("alone"), "{said}");
}

/// The next packet that has this in it; others are passed over.
async fn heard(socket: &mut Ws, what: &str) -> String {
    loop {
        let packet = socket.text().await;
        if packet.contains(what) {
            return packet;
        }
    }
}
