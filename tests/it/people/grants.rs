//! Grants hold on every path: each path with just the rights it takes, and with all but one of them.

use serde_json::{Value, json};

use super::{KEY, ask, asked, moderate, open, publish, start, token};
use crate::harness::clients::{Sse, Ws};
use crate::harness::http::Response;
use crate::harness::node::Node;

/// Each path, and the rights it takes.
const PATHS: &[(&str, &str)] = &[
    ("raw socket", "subscribe"),
    ("JSON socket", "subscribe"),
    ("JSON socket, presence", "subscribe+presence"),
    ("JSON join", "subscribe"),
    ("JSON join, presence", "subscribe+presence"),
    ("SSE", "subscribe"),
    ("SSE, presence", "subscribe+presence"),
    ("react", "subscribe"),
    ("in the list of rooms", "subscribe"),
    ("GET history", "history"),
    ("JSON history", "history"),
    ("POST", "publish"),
    ("POST to many", "publish"),
    ("POST, ephemeral", "publish"),
    ("raw publish", "subscribe+publish"),
    ("JSON publish", "publish"),
    ("JSON publish at home", "subscribe+publish"),
    ("JSON publish, ephemeral", "publish"),
    ("POST to a user", "publish"),
    ("POST to many users", "publish"),
    ("JSON to a user", "publish"),
    ("JSON to a user, ephemeral", "publish"),
    ("GET presence", "presence"),
    ("JSON presence", "presence"),
    ("POST mute", "moderate"),
    ("POST ban", "moderate"),
    ("POST delete", "moderate"),
    ("POST delete all", "moderate"),
    ("POST slow", "moderate"),
    ("POST open", "moderate"),
    ("JSON mute", "moderate"),
    ("JSON delete", "moderate"),
    ("JSON unban", "moderate"),
    ("POST announce", "announce"),
    ("POST pin", "announce"),
    ("JSON announce", "announce"),
    ("JSON unpin", "announce"),
];

const RIGHTS: [&str; 6] = [
    "subscribe",
    "publish",
    "history",
    "presence",
    "moderate",
    "announce",
];

const ROLES: [&str; 5] = ["host", "cohost", "moderator", "member", "viewer"];

/// Sets of rights as roles, five on a node.
struct Bundles(Vec<String>);

impl Bundles {
    /// Just what the paths take, and all but one right.
    fn new() -> Self {
        let mut bundles: Vec<String> = PATHS.iter().map(|(_, takes)| (*takes).to_owned()).collect();
        bundles.extend(RIGHTS.map(all_but));
        bundles.sort();
        bundles.dedup();
        assert!(bundles.len() <= 15, "three nodes are enough: {bundles:?}");
        Bundles(bundles)
    }

    fn on(&self, node: usize) -> impl Iterator<Item = &String> {
        self.0.iter().skip(node).step_by(3)
    }

    /// The setting `--role` of one node.
    fn setting(&self, node: usize) -> String {
        let roles = ROLES.iter().zip(self.on(node));
        let roles = roles.map(|(role, rights)| format!("{role}={rights}"));
        roles.collect::<Vec<_>>().join(",")
    }

    /// Which node has a role with these rights, and that role.
    fn find(&self, rights: &str) -> (usize, &'static str) {
        let at = self.0.iter().position(|bundle| bundle == rights).unwrap();
        (at % 3, ROLES[at / 3])
    }

    /// A role of a node that may be in a room.
    fn guest(&self, node: usize) -> &'static str {
        let at = self
            .on(node)
            .position(|rights| rights.contains("subscribe"));
        ROLES[at.expect("somebody on this node may subscribe")]
    }
}

fn all_but(right: &str) -> String {
    let others = RIGHTS.into_iter().filter(|other| *other != right);
    others.collect::<Vec<_>>().join("+")
}

/// What came of it: `ok`, or a code.
type Outcome = String;

/// The outcome of a request.
fn of_answer(answer: &Response) -> Outcome {
    if (200..300).contains(&answer.status) {
        return "ok".to_owned();
    }
    let code = answer.error_code();
    assert_eq!(answer.status == 403, code == "forbidden", "{answer:?}");
    code
}

/// The outcome of one of many addressees.
fn of_many(answer: &Response) -> Outcome {
    assert_eq!(answer.status, 200, "{answer:?}");
    let row = &answer.json()["results"][0];
    match row["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => row["id"].as_str().map_or("no ID", |_| "ok").to_owned(),
    }
}

/// The outcome of a socket that is closed where it may not be.
fn of_close((code, reason): (u16, String)) -> Outcome {
    match code {
        4403 if reason.contains("lacks the right") => "forbidden".to_owned(),
        _ => format!("{code} {reason}"),
    }
}

/// The outcome of something asked in a JSON frame.
async fn of_frame(socket: &mut Ws, frame: Value) -> Outcome {
    let answer = socket.ask(frame).await;
    match answer["type"].as_str() {
        Some("error") => answer["code"].as_str().unwrap().to_owned(),
        _ => "ok".to_owned(),
    }
}

/// A JSON socket in a room where somebody may be.
async fn hall(node: &Node, token: &str) -> Ws {
    super::enter(node, token, "hall", "").await
}

/// Joins a room from there.
async fn of_join(node: &Node, token: &str, join: Value) -> Outcome {
    let mut socket = hall(node, token).await;
    socket.send_json(join).await;
    let is_about = |frame: &Value| frame["type"] == "joined" || frame["type"] == "error";
    let frame = socket.frame_that(is_about).await;
    frame["code"].as_str().unwrap_or("ok").to_owned()
}

/// Opens a JSON socket in the room itself.
async fn of_socket(node: &Node, token: &str, path: &str) -> Outcome {
    let mut socket = open(node, token, path).await;
    match socket.pinged().await {
        Ok(()) => "ok".to_owned(),
        Err(close) => of_close(close),
    }
}

fn of_events(node: &Node, token: &str, path: &str) -> Outcome {
    let bearer = format!("Bearer {token}");
    let mut events = Sse::open(node, path, &[("authorization", &bearer)]);
    if events.head.contains(" 403 ") {
        return "forbidden".to_owned();
    }
    assert!(events.head.contains(" 200 "), "{}", events.head);
    loop {
        let block = events.block().expect("the stream goes on");
        match (block.id, block.event.as_deref(), block.data) {
            (_, Some("error"), Some(data)) if data.contains("lacks the right") => {
                return "forbidden".to_owned();
            }
            (_, Some("error"), data) => return format!("{data:?}"),
            (Some(_), ..) | (_, Some("joined"), _) => return "ok".to_owned(),
            _ => {}
        }
    }
}

/// Tries a path in the room `r`.
async fn attempt(path: &str, node: &Node, token: &str) -> Outcome {
    let at = |method, path, body| ask(node, token, method, path, body);
    let post = |act: Value| of_answer(&at("POST", "/rooms/r/moderation", act));
    let in_frame = async |frame: Value| of_frame(&mut hall(node, token).await, frame).await;
    match path {
        "raw socket" => of_socket(node, token, "/rooms/r").await,
        "JSON socket" => of_socket(node, token, "/rooms/r?format=json").await,
        "JSON socket, presence" => of_socket(node, token, "/rooms/r?format=json&presence=1").await,
        "JSON join" => of_join(node, token, json!({"type":"join","room":"r"})).await,
        "JSON join, presence" => {
            of_join(
                node,
                token,
                json!({"type":"join","room":"r","presence":true}),
            )
            .await
        }
        "SSE" => of_events(node, token, "/rooms/r"),
        "SSE, presence" => of_events(node, token, "/rooms/r?presence=1"),
        "react" => {
            let mut socket = hall(node, token).await;
            let react = json!({"type":"react","room":"r","reaction":"heart","ref":1});
            socket.send_json(react).await;
            // It has no answer but the totals, for those who are there.
            socket.send_json(json!({"type":"ping"})).await;
            let is_about = |frame: &Value| frame["type"] == "pong" || frame["type"] == "error";
            let frame = socket.frame_that(is_about).await;
            frame["code"].as_str().unwrap_or("ok").to_owned()
        }
        "in the list of rooms" => {
            let listed = asked(node, token, "GET", "/rooms?limit=1000", Value::Null);
            let rooms = listed["rooms"].as_array().unwrap();
            let is_there = rooms.iter().any(|row| row["room"] == "r");
            if is_there { "ok" } else { "forbidden" }.to_owned()
        }
        "GET history" => of_answer(&at("GET", "/rooms/r", Value::Null)),
        "JSON history" => in_frame(json!({"type":"history","room":"r"})).await,
        "POST" => of_answer(&at("POST", "/rooms/r", json!({"message":"x"}))),
        "POST, ephemeral" => {
            let body = json!({"message":"x","ephemeral":true});
            of_answer(&at("POST", "/rooms/r", body))
        }
        "POST to many" => {
            let body = json!({"rooms":["r"],"message":"x"});
            of_many(&at("POST", "/publish", body))
        }
        "raw publish" => {
            let mut socket = open(node, token, "/rooms/r").await;
            if let Err(close) = socket.pinged().await {
                return of_close(close);
            }
            socket.send("raw").await;
            match socket.next().await {
                Some(message) if message.is_text() => "ok".to_owned(),
                Some(message) => {
                    let text = message.to_string();
                    let is_meant = text.contains("lacks the right");
                    if is_meant { "forbidden" } else { "?" }.to_owned()
                }
                None => "?".to_owned(),
            }
        }
        "JSON publish" => in_frame(json!({"type":"publish","room":"r","message":"x"})).await,
        "JSON publish at home" => {
            let mut socket = open(node, token, "/rooms/r?format=json").await;
            match socket.pinged().await {
                Ok(()) => of_frame(&mut socket, json!({"type":"publish","message":"x"})).await,
                Err(close) => of_close(close),
            }
        }
        "JSON publish, ephemeral" => {
            in_frame(json!({"type":"publish","room":"r","message":"x","ephemeral":true})).await
        }
        "POST to a user" => of_answer(&at("POST", "/users/bob", json!({"message":"x"}))),
        "POST to many users" => {
            let body = json!({"users":["bob"],"message":"x"});
            of_many(&at("POST", "/publish", body))
        }
        "JSON to a user" => in_frame(json!({"type":"publish","to":"bob","message":"x"})).await,
        "JSON to a user, ephemeral" => {
            in_frame(json!({"type":"publish","to":"bob","message":"x","ephemeral":true})).await
        }
        "GET presence" => of_answer(&at("GET", "/rooms/r/presence", Value::Null)),
        "JSON presence" => in_frame(json!({"type":"presence","room":"r"})).await,
        "POST mute" => post(json!({"act":"mute","user":"victim"})),
        "POST ban" => post(json!({"act":"ban","user":"victim","seconds":9})),
        "POST delete" => post(json!({"act":"delete","id":publish(node, "r", "to be deleted")})),
        "POST delete all" => post(json!({"act":"delete","user":"victim"})),
        "POST slow" => post(json!({"act":"slow","seconds":0})),
        "POST open" => post(json!({"act":"open"})),
        "JSON mute" => {
            in_frame(json!({"type":"moderate","room":"r","act":"mute","user":"victim"})).await
        }
        "JSON delete" => {
            let id = publish(node, "r", "to be deleted");
            in_frame(json!({"type":"moderate","room":"r","act":"delete","id":id})).await
        }
        "JSON unban" => {
            in_frame(json!({"type":"moderate","room":"r","act":"unban","user":"victim"})).await
        }
        "POST announce" => post(json!({"act":"announce","message":"hear"})),
        "POST pin" => post(json!({"act":"pin","message":"look"})),
        "JSON announce" => {
            in_frame(json!({"type":"moderate","room":"r","act":"announce","message":"hear"})).await
        }
        "JSON unpin" => in_frame(json!({"type":"moderate","room":"r","act":"unpin"})).await,
        other => panic!("no path {other}"),
    }
}

#[tokio::test]
async fn every_right_on_every_path() {
    let bundles = Bundles::new();
    let redis = crate::harness::redis_server::RedisServer::start();
    let nodes = [0, 1, 2].map(|number| {
        let roles = bundles.setting(number);
        super::add_node(&redis, &["--role", &roles, "--rate", "room=0"])
    });
    publish(&nodes[0], "r", "something");
    let mut wrong = Vec::new();
    let mut check = async |path: &str, rights: &str, want: &str| {
        let (number, role) = bundles.find(rights);
        let guest = bundles.guest(number);
        let rooms = format!("r={role},@bob={role},hall={guest}");
        let token = token("ann", &rooms);
        let got = attempt(path, &nodes[number], &token).await;
        if got != want {
            wrong.push(format!("{path} with {rights}: {got}, not {want}"));
        }
    };
    for (path, takes) in PATHS {
        check(path, takes, "ok").await;
        for right in takes.split('+') {
            check(path, &all_but(right), "forbidden").await;
        }
    }
    for (path, _) in PATHS {
        let got = attempt(path, &nodes[0], KEY).await;
        if got != "ok" {
            wrong.push(format!("{path} by a back end: {got}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_replay_takes_the_right_history() {
    let (_redis, [node]) = start::<1>(&["--role", "viewer=subscribe+presence"]);
    publish(&node, "r", "before");
    publish(&node, "hall", "before");
    let ann = token("ann", "r=viewer,hall=viewer");
    let check = |path: &str, got: Outcome, want: &str| assert_eq!(got, want, "{path}");
    for (from, want) in [
        ("now", "ok"),
        ("start", "forbidden"),
        ("last:5", "forbidden"),
        ("ago:1h", "forbidden"),
        ("0-0", "forbidden"),
        ("1-1", "forbidden"),
    ] {
        for format in ["json", "raw"] {
            let path = format!("/rooms/r?format={format}&from={from}");
            check(&path, of_socket(&node, &ann, &path).await, want);
        }
        let path = format!("/rooms/r?from={from}");
        check(&path, of_events(&node, &ann, &path), want);
        let join = json!({"type":"join","room":"r","from":from});
        check(from, of_join(&node, &ann, join).await, want);
    }
}

#[tokio::test]
async fn only_its_owner_reads_an_inbox() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let id = publish(&node, "@bob", "secret");
    let readers = [
        ("bob", "hall=viewer", "ok"),
        // Not even where they may publish, or where a role says otherwise.
        ("ann", "hall=viewer", "forbidden"),
        ("ann", "*=host,@*=host", "forbidden"),
        ("ann", "hall=viewer,@bob=host", "forbidden"),
        ("@bob", "*=host,@*=host", "forbidden"),
        ("BOB", "*=host,@*=host", "forbidden"),
    ];
    for (user, rooms, want) in readers {
        let token = token(user, rooms);
        for node in [&node, &other] {
            let check = |path: &str, got: Outcome| assert_eq!(got, want, "{user} {rooms}: {path}");
            for query in ["", "?format=json", "?format=json&presence=1", "?from=start"] {
                let path = format!("/rooms/@bob{query}");
                check(&path, of_socket(node, &token, &path).await);
            }
            let mut socket = hall(node, &token).await;
            for frame in [
                json!({"type":"history","room":"@bob"}),
                json!({"type":"presence","room":"@bob"}),
            ] {
                check("frame", of_frame(&mut socket, frame).await);
            }
            let join = json!({"type":"join","room":"@bob","from":"start"});
            check("join", of_join(node, &token, join).await);
            check("SSE", of_events(node, &token, "/rooms/@bob"));
            for path in ["/rooms/@bob", "/rooms/%40bob", "/rooms/@bob/presence"] {
                check(
                    path,
                    of_answer(&ask(node, &token, "GET", path, Value::Null)),
                );
            }
            check(
                "user",
                of_answer(&ask(node, &token, "GET", "/users/bob", Value::Null)),
            );
            let path = format!("/rooms/hall?format=json&inbox={id}");
            let mut socket = open(node, &token, &path).await;
            // Their own, whoever that is.
            let joined = async |socket: &mut Ws| socket.frame_of("joined").await["room"].clone();
            let mut rooms = [joined(&mut socket).await, joined(&mut socket).await];
            rooms.sort_by_key(Value::to_string);
            assert_eq!(rooms, [json!(format!("@{user}")), json!("hall")]);
            let act = json!({"act":"delete","id":id});
            let refused = ask(node, &token, "POST", "/rooms/@bob/moderation", act);
            assert!([400, 403].contains(&refused.status), "{refused:?}");
        }
    }
    // A back end reads all; nobody moderates there.
    for (path, body) in [
        ("/rooms/@bob", Value::Null),
        ("/rooms/@bob/presence", Value::Null),
        ("/users/bob", Value::Null),
    ] {
        assert_eq!(of_answer(&ask(&node, KEY, "GET", path, body)), "ok");
    }
    assert_eq!(of_socket(&node, KEY, "/rooms/@bob").await, "ok");
    let act = json!({"act":"close"});
    let refused = ask(&node, KEY, "POST", "/rooms/@bob/moderation", act);
    assert_eq!(&*refused.error_code(), "bad_request");
    let entries = asked(&node, KEY, "GET", "/rooms/@bob", Value::Null);
    assert_eq!(entries["entries"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_back_ends_alone_may_ask() {
    let (_redis, [node]) = start::<1>(&[]);
    let host = token("ann", "*=host,@*=host");
    for path in ["/nodes", "/users/bob"] {
        let refused = ask(&node, &host, "GET", path, Value::Null);
        assert_eq!(of_answer(&refused), "forbidden", "{path}");
        assert_eq!(of_answer(&ask(&node, KEY, "GET", path, Value::Null)), "ok");
    }
    // A token may be a back end's, too.
    let server = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["token", "--server", "--jwt-secret", super::SECRET])
        .output()
        .unwrap();
    let server = String::from_utf8(server.stdout).unwrap();
    assert_eq!(
        of_answer(&ask(&node, server.trim(), "GET", "/nodes", Value::Null)),
        "ok"
    );
    moderate(&node, "r", json!({"act":"announce","message":"hello"}));
    // The audit stream is nobody's room.
    for token in [&*host, KEY] {
        let refused = ask(&node, token, "GET", "/rooms/tailcast%3Aaudit", Value::Null);
        assert_eq!(&*refused.error_code(), "bad_room");
    }
}
