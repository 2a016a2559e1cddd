//! Who may come in, and who has to go.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tailcast::auth::mint::{NewToken, SigningKey};
use tailcast::auth::{Secret, UserName};

use super::{ask, connect, emit, got, message, polling, start, until_rooms};
use crate::harness::clients::{Program, Ws};
use crate::harness::node::Node;

const SECRET: &str = "what the tokens of these tests are signed with";
pub(super) const JWT: [&str; 4] = ["--auth", "jwt", "--jwt-secret", SECRET];

pub(super) fn token(user: &str, rooms: &str, life: Duration) -> String {
    let key = SigningKey::from_secret(&Secret::from(SECRET)).unwrap();
    let new = NewToken {
        user: Some(UserName::parse(user).unwrap()),
        rooms: rooms.parse().unwrap(),
        ..NewToken::default()
    };
    // A token holds ten seconds longer than it says.
    let grace = Duration::from_secs(10);
    new.sign(&key, SystemTime::now() - grace, life).unwrap()
}

pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn auth(token: &str, more: Value) -> String {
    let mut auth = json!({"token": token, "room": "lobby"});
    for (name, value) in more.as_object().unwrap() {
        auth[name] = value.clone();
    }
    auth.to_string()
}

#[test]
fn tokens() {
    let (_redis, [node]) = start::<1>(&JWT);
    let url = node.url("");
    let refused = |arguments: &[&str]| {
        let program = Program::socketio(&[&["--url", &url], arguments].concat());
        program.event("connect_error")["data"]["code"].clone()
    };
    assert_eq!(
        refused(&["--query", "{\"room\":\"lobby\"}"]),
        "unauthenticated"
    );
    assert_eq!(
        refused(&["--auth", &auth("nonsense", json!({}))]),
        "unauthenticated"
    );
    let stranger = token("eve", "other=member", HOUR);
    assert_eq!(
        refused(&["--auth", &auth(&stranger, json!({}))]),
        "forbidden"
    );
    assert_eq!(refused(&["--auth", "{\"rooms\":5}"]), "bad_request");
    let ann = token("ann", "lobby=member", HOUR);
    let (mut ann, _) = connect(&url, &["--auth", &auth(&ann, json!({}))]);
    emit(&mut ann, json!(["say", "hello"]));
    let said = message(&ann, "broadcast_say");
    assert_eq!(
        (&said["user"], &said["username"]),
        (&json!("ann"), &json!("ann"))
    );
    let bob = token("bob", "lobby=member,@*=member", HOUR);
    let cookie = format!("token={bob}");
    let query = ["--query", "{\"room\":\"lobby\"}"];
    let (mut bob, _) = connect(&url, &[&query[..], &["--cookie", &cookie]].concat());
    assert_eq!(
        ask(&mut bob, json!(["say", {"text": "x", "room": "closed"}]))["error"]["code"],
        "forbidden"
    );
    // Her own room is one of hers.
    ask(&mut bob, json!(["publish", "@ann", "psst"]));
    let told = message(&ann, "broadcast_say");
    assert_eq!(
        (&told["room"], &told["text"]),
        (&json!("@ann"), &json!("psst"))
    );
    assert!(until_no_more(&ann));
}

/// Nothing else is waiting to be read.
fn until_no_more(program: &Program) -> bool {
    !program.has_lines()
}

/// A pid is its user's alone.
#[test]
fn a_pid_of_somebody_else() {
    let (_redis, [node]) = start::<1>(&JWT);
    let rooms = "lobby=member";
    let cookie = format!("token={}", token("ann", rooms, HOUR));
    let query = [
        "--query",
        "{\"room\":\"lobby\"}",
        "--transports",
        "websocket",
    ];
    let (ann, _) = connect(
        &node.url(""),
        &[&query[..], &["--cookie", &cookie]].concat(),
    );
    drop(ann);
    // The client's own pid goes out with its auth; another's does if that says so.
    let mut socket = crate::harness::http::raw(
        node.port(),
        format!(
            "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
        )
        .as_bytes(),
    )
    .unwrap()
    .text();
    let sid: Value = serde_json::from_str(&socket.split_off(1)).unwrap();
    let path = format!(
        "/socket.io/?EIO=4&transport=polling&sid={}",
        sid["sid"].as_str().unwrap()
    );
    node.request("POST", &path, &[], b"40{\"room\":\"lobby\"}");
    let answer = node.get(&path).text();
    let connected = answer
        .split('\u{1e}')
        .next()
        .unwrap()
        .trim_start_matches("40");
    let connected: Value = serde_json::from_str(connected).unwrap();
    let pid = connected["pid"].as_str().unwrap();
    for (user, recovered) in [("ann", true), ("eve", false)] {
        let mine = token(user, rooms, HOUR);
        let auth = auth(&mine, json!({"pid": pid, "offset": "0-0"}));
        let program = Program::socketio(&["--url", &node.url(""), "--auth", &auth]);
        let sid = program.event("connect")["sid"].clone();
        assert_eq!(sid == connected["sid"], recovered, "{user}");
        until_rooms(&program);
    }
}

#[test]
fn a_ban_puts_out_of_the_namespace() {
    let (_redis, [node]) = start::<1>(&JWT);
    let ann = token("ann", "lobby=member", HOUR);
    let (ann, _) = connect(&node.url(""), &["--auth", &auth(&ann, json!({}))]);
    ban_ann(&node);
    let closed = got(&ann, "tailcast:closed");
    assert_eq!(closed["args"][0]["code"], 4403, "{closed}");
    assert_eq!(ann.event("disconnect")["reason"], "io server disconnect");
}

/// Credentials of somebody who may do anything in the lobby.
pub(super) fn host() -> String {
    format!("Bearer {}", token("root", "lobby=host", HOUR))
}

pub(super) fn ban_ann(node: &Node) {
    let host = host();
    let answer = node.request(
        "POST",
        "/rooms/lobby/moderation",
        &[
            ("authorization", &host),
            ("content-type", "application/json"),
        ],
        b"{\"act\":\"ban\",\"user\":\"ann\"}",
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Once a socket is probed, its client fetches no more: what ends the session goes by the socket.
#[tokio::test]
async fn a_ban_in_the_middle_of_an_upgrade() {
    let (_redis, [node]) = start::<1>(&JWT);
    let session = polling::open(&node);
    let ann = token("ann", "lobby=member", HOUR);
    let connect = format!("40{}", auth(&ann, json!({})));
    node.request("POST", &session, &[], connect);
    let answer = node.get(&session).text();
    assert!(answer.starts_with("40{\"sid\":"), "{answer}");
    let path = session.replace("=polling", "=websocket");
    let mut socket = Ws::open(&node, &path).await;
    socket.send("2probe").await;
    assert_eq!(socket.text().await, "3probe");
    ban_ann(&node);
    assert_eq!(node.get(&session).text(), "6");
    socket.send("5").await;
    loop {
        let packet = socket.text().await;
        if packet.starts_with("42[\"tailcast:closed\"") {
            break;
        }
    }
    assert_eq!(socket.text().await, "41");
    assert_eq!(socket.closed().await.0, 4403);
    assert_eq!(node.get(&session).status, 400);
}

/// A token's end is the connection's; the client comes back by itself, with another one if it has
/// one.
#[test]
fn a_token_expires() {
    let (_redis, [node]) = start::<1>(&JWT);
    // A busy machine may need longer to connect.
    let mut lives = [12, 25, 50].into_iter();
    let ann = loop {
        let life = Duration::from_secs(lives.next().expect("one lives long enough"));
        let brief = auth(&token("ann", "lobby=member", life), json!({}));
        let ann = Program::socketio(&["--url", &node.url(""), "--auth", &brief]);
        if ann.json()["event"] == "connect" {
            break ann;
        }
    };
    let reason = ann.event("disconnect")["reason"].clone();
    assert_eq!(reason, "transport close");
    assert_eq!(
        ann.event("connect_error")["data"]["code"],
        "unauthenticated"
    );
}
