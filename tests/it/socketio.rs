//! Socket.IO end to end: the published clients against real nodes, and the transports as bytes.

mod chat;
mod clients;
mod ends;
mod people;
mod polling;
mod recovery;
mod served;
mod storms;

use serde_json::{Value, json};

use crate::harness::clients::Program;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// What these tests' clients send is not held up by rates.
const FREE: [&str; 4] = ["--rate", "member=0", "--frame-rate", "0"];

/// Nodes on a Redis of their own.
fn start<const N: usize>(arguments: &[&str]) -> (RedisServer, [Node; N]) {
    let redis = RedisServer::start();
    let all = [&FREE[..], arguments].concat();
    let nodes = std::thread::scope(|scope| {
        let starting = [(); N].map(|()| scope.spawn(|| Node::start_with(&redis.url(), &all)));
        starting.map(|node| node.join().unwrap())
    });
    (redis, nodes)
}

/// A client of that URL with these arguments, once it's connected and knows where it is.
fn connect(url: &str, arguments: &[&str]) -> (Program, Value) {
    let program = Program::socketio(&[&["--url", url], arguments].concat());
    let connected = program.event("connect");
    until_rooms(&program);
    (program, connected)
}

/// Waits until it's told which rooms it's in.
fn until_rooms(program: &Program) -> Value {
    got(program, "tailcast:rooms")["args"][0]["rooms"].clone()
}

/// Its next event of that name; others are passed over.
#[track_caller]
fn got(program: &Program, name: &str) -> Value {
    loop {
        let event = program.event("got");
        if event["name"] == name {
            return event;
        }
    }
}

/// The data of its next `message`, which is of that kind.
#[track_caller]
fn message(program: &Program, kind: &str) -> Value {
    let event = got(program, "message");
    assert_eq!(event["args"][0]["event"], kind, "{event}");
    event["args"][0]["data"].clone()
}

/// Emits, and waits for the answer; what else comes before it is passed over.
#[track_caller]
fn ask(program: &mut Program, emit: Value) -> Value {
    moved(program, emit).0
}

/// The same, and the rooms that it was told last before that.
#[track_caller]
fn moved(program: &mut Program, emit: Value) -> (Value, Value) {
    program.say(&json!({"emit": emit, "ref": 1}).to_string());
    let mut rooms = Value::Null;
    loop {
        let event = program.json();
        if event["event"] == "ack" {
            return (event["args"][0].clone(), rooms);
        }
        if event["name"] == "tailcast:rooms" {
            rooms = event["args"][0]["rooms"].clone();
        }
    }
}

/// Emits.
fn emit(program: &mut Program, emit: Value) {
    program.say(&json!({"emit": emit}).to_string());
}

/// Breaks its connection, and waits until it's back.
fn cut(program: &mut Program) -> Value {
    program.say("{\"cut\":true}");
    program.event("connect")
}

/// Nothing of that kind comes before what it says itself.
#[track_caller]
fn assert_only(program: &mut Program, room: &str) {
    emit(program, json!(["say", {"text": "the end", "room": room}]));
    let data = message(program, "broadcast_say");
    assert_eq!(data["text"], "the end", "{data}");
}
