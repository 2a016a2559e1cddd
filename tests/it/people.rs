//! People, end to end: the real program on several nodes and one Redis, and everybody with a token.

mod deletion;
mod fields;
mod grants;
mod identity;
mod moderation;
mod overload;
mod presence;
mod reach;

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tailcast::auth::mint::{NewToken, SigningKey};
use tailcast::auth::{Secret, UserName};

use crate::harness::clients::{Refused, Sse, SseEvent, Ws};
use crate::harness::http::Response;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// What tokens are signed with.
const SECRET: &str = "what the tokens of these tests are signed with";

/// The API key of a back end named `shop`. It may stand where a token does.
const KEY: &str = "the-key-of-a-back-end";

/// What is told when a connection brings nothing.
const NO_CREDENTIAL: &str =
    "no credential came: bring a token as Authorization: Bearer, ?token= or a token cookie";

/// A room that a client is in, or an error that has to come, within a second; and what a busy
/// machine adds.
const SECOND: Duration = Duration::from_secs(1);
const SLACK: Duration = Duration::from_millis(1_500);

/// Nodes on a Redis of their own which want tokens.
fn start<const N: usize>(arguments: &[&str]) -> (RedisServer, [Node; N]) {
    let redis = RedisServer::start();
    let nodes = std::thread::scope(|scope| {
        let starting = [(); N].map(|()| scope.spawn(|| add_node(&redis, arguments)));
        starting.map(|node| node.join().unwrap())
    });
    (redis, nodes)
}

/// One more.
fn add_node(redis: &RedisServer, arguments: &[&str]) -> Node {
    let key = format!("shop:{KEY}");
    let ours = ["--auth", "jwt", "--jwt-secret", SECRET, "--api-key", &key];
    Node::start_with(&redis.url(), &[&ours[..], arguments].concat())
}

/// A user's token for an hour, with these grants, as in `r=host,lobby-*=viewer`.
fn token(user: &str, rooms: &str) -> String {
    sign(user, rooms, SystemTime::now(), Duration::from_secs(3600))
}

/// A token that a node takes for at most so many seconds yet, and for a second less at least. Its
/// time is over already but for what clocks may be apart.
fn brief_token(user: &str, rooms: &str, seconds: u64) -> String {
    let leeway = tailcast::auth::Settings::default().leeway;
    sign(
        user,
        rooms,
        SystemTime::now() - leeway,
        Duration::from_secs(seconds),
    )
}

fn sign(user: &str, rooms: &str, now: SystemTime, ttl: Duration) -> String {
    let token = NewToken {
        user: Some(UserName::parse(user).unwrap()),
        rooms: rooms.parse().unwrap(),
        ..NewToken::default()
    };
    let key = SigningKey::from_secret(&Secret::from(SECRET)).unwrap();
    token.sign(&key, now, ttl).unwrap()
}

/// A request under a token, or an API key, with a JSON body unless that is null.
#[track_caller]
fn ask(node: &Node, token: &str, method: &str, path: &str, body: Value) -> Response {
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", &*bearer),
        ("content-type", "application/json"),
    ];
    match body {
        Value::Null => node.request(method, path, &headers[..1], ""),
        body => node.request(method, path, &headers, body.to_string()),
    }
}

/// The same, which succeeds: its answer.
#[track_caller]
fn asked(node: &Node, token: &str, method: &str, path: &str, body: Value) -> Value {
    let answer = ask(node, token, method, path, body);
    assert!(
        (200..300).contains(&answer.status),
        "{method} {path}: {answer:?}"
    );
    answer.json()
}

/// What a back end does to a room.
#[track_caller]
fn moderate(node: &Node, room: &str, act: Value) -> Value {
    asked(node, KEY, "POST", &format!("/rooms/{room}/moderation"), act)
}

/// Publishes as a back end; the ID.
#[track_caller]
fn publish(node: &Node, room: &str, message: &str) -> String {
    let body = json!({"message": message});
    let answer = asked(node, KEY, "POST", &format!("/rooms/{room}"), body);
    answer["id"].as_str().unwrap().to_owned()
}

/// Opens a WebSocket under a token.
fn try_open(
    node: &Node,
    token: &str,
    path: &str,
) -> impl Future<Output = Result<Ws, Refused>> + use<> {
    let bearer = format!("Bearer {token}");
    Ws::try_open(node, path, &[("authorization", &bearer)])
}

/// The same, which succeeds.
#[track_caller]
fn open(node: &Node, token: &str, path: &str) -> impl Future<Output = Ws> + use<> {
    let opening = try_open(node, token, path);
    async move { opening.await.expect("the handshake is accepted") }
}

/// A JSON socket that has joined a room, and nothing else; and its `joined`.
async fn enter(node: &Node, token: &str, room: &str, query: &str) -> Ws {
    let path = format!("/rooms/{room}?format=json&inbox=0{query}");
    let mut socket = open(node, token, &path).await;
    let joined = socket.frame().await;
    assert_eq!(joined["type"], "joined", "{joined}");
    socket
}

/// A raw socket that has joined a room.
async fn enter_raw(node: &Node, token: &str, path: &str) -> Ws {
    let mut socket = open(node, token, path).await;
    socket.pinged().await.expect("it has joined");
    socket
}

/// How long a thing takes to become so.
async fn time_until(what: &str, holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    crate::harness::until(what, holds).await;
    start.elapsed()
}

/// Asserts that something was done within so long, and prints how long it took.
#[track_caller]
fn assert_within(what: &str, took: Duration, limit: Duration) {
    println!("{what}: {} ms", took.as_millis());
    assert!(took < limit + SLACK, "{what} took {took:?}");
}

/// Publishes over HTTP: the status, and the code if there is one.
fn post(node: &Node, token: &str, room: &str) -> (u16, String) {
    let path = format!("/rooms/{room}");
    let answer = ask(node, token, "POST", &path, json!({"message":"posted"}));
    let code = match answer.status {
        201 => String::new(),
        _ => answer.error_code(),
    };
    (answer.status, code)
}

/// Opens server-sent events under a token.
fn events(node: &Node, token: &str, path: &str) -> Sse {
    let bearer = format!("Bearer {token}");
    Sse::open(node, path, &[("authorization", &bearer)])
}

/// The next event of this name.
fn named(events: &mut Sse, name: &str) -> Value {
    loop {
        let SseEvent { event, data, .. } = events.event();
        if event.as_deref() == Some(name) {
            return serde_json::from_str(&data.unwrap()).unwrap();
        }
    }
}
