//! What is asked for, and what is refused.

use serde_json::{Value, json};

use super::{Program, Stomp, StompNode, TRANSPORTS};
use crate::harness::redis_server::RedisServer;

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Tokens decide, and rates hold nobody up.
pub(super) const JWT: [&str; 6] = ["--auth", "jwt", "--jwt-secret", SECRET, "--rate", ""];

fn token(user: &str, role: &str) -> String {
    token_for(user, role, "1h")
}

/// One that holds for so long.
pub(crate) fn token_for(user: &str, role: &str, time: &str) -> String {
    let role = format!("*={role}");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args([
            "token",
            "--jwt-secret",
            SECRET,
            "--user",
            user,
            "--room",
            &role,
            "--ttl",
            time,
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[test]
fn receipts_keys_and_other_fields() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let mut client = node.client("ws", &[]);
    let head = client.subscribe("/topic/a", &[]);
    assert_eq!(head, "0-0");
    let publish = json!({"publish": "/topic/a", "body": "once",
                         "headers": {"receipt": "r1", "idempotency-key": "k", "color": "red"}});
    let mut ids = Vec::new();
    for _ in 0..2 {
        client.say(&publish);
        // The receipt and the entry come in either order.
        let mut receipt = client.0.json();
        while receipt["event"] != "receipt" {
            receipt = client.0.json();
        }
        ids.push(
            receipt["headers"]["message-id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    assert_eq!(ids[0], ids[1]);
    let stored = redis.cli(&["XRANGE", "a", "-", "+"]);
    let lines: Vec<&str> = stored.split_whitespace().collect();
    assert_eq!(lines, [&ids[0], "message", "once", "color", "red"]);
    // A raw socket shows the body.
    let mut raw = Program::ws(&[&node.node.ws_url("/rooms/a?from=start")]);
    raw.event("open");
    assert_eq!(raw.event("frame")["text"], "once");
    raw.say(&json!({"close": true}).to_string());
}

#[test]
fn one_room_in_two_subscriptions() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let mut client = node.client("ws", &[]);
    client.subscribe("/topic/a", &[("id", "one")]);
    client.subscribe("/topic/a", &[("id", "two"), ("ack", "client")]);
    client.publish("/topic/a", "both");
    let got = [client.next("message"), client.next("message")];
    let of = |at: usize, name: &str| got[at]["headers"][name].clone();
    assert_eq!(
        (of(0, "subscription"), of(1, "subscription")),
        (json!("one"), json!("two"))
    );
    assert_eq!(of(0, "message-id"), of(1, "message-id"));
    assert_eq!(
        (of(0, "ack"), of(1, "ack")),
        (Value::Null, of(1, "message-id"))
    );
    let id = of(1, "ack");
    client.say(&json!({"ack": id, "headers": {"receipt": "acked"}}));
    assert_eq!(client.next("receipt")["id"], "acked");
    client.say(&json!({"unsubscribe": "one"}));
    client.publish("/topic/a", "two alone");
    assert_eq!(client.next("message")["headers"]["subscription"], "two");
    client.say(&json!({"unsubscribe": "two"}));
    client.publish("/topic/a", "nobody");
    client.subscribe("/topic/a", &[("id", "three"), ("x-stream-offset", "last")]);
    assert_eq!(client.message().1, "nobody");
    let headers = json!({"id": "four", "x-stream-offset": "first", "receipt": "x"});
    client.say(&json!({"subscribe": "/topic/a", "headers": headers}));
    let error = client.error("bad_request");
    assert_eq!(error["receipt-id"], "x");
    assert_eq!(client.next("close")["code"], 4400);
}

#[test]
fn transactions() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let mut client = node.client("tcp", &[]);
    client.subscribe("/topic/a", &[]);
    for name in ["kept", "dropped"] {
        client.say(&json!({"begin": name}));
        for at in 0..3 {
            let body = format!("{name} {at}");
            client.say(
                &json!({"publish": "/topic/a", "body": body, "headers": {"transaction": name}}),
            );
        }
    }
    client.say(&json!({"abort": "dropped"}));
    client.publish("/topic/a", "before");
    assert_eq!(client.message().1, "before");
    client.say(&json!({"commit": "kept", "receipt": "committed"}));
    let mut got = Vec::new();
    let mut ids = String::new();
    while got.len() < 3 || ids.is_empty() {
        let event = client.0.json();
        match event["event"].as_str() {
            Some("message") => got.push(event["body"].as_str().unwrap().to_owned()),
            _ => ids = event["headers"]["message-id"].as_str().unwrap().to_owned(),
        }
    }
    assert_eq!(got, ["kept 0", "kept 1", "kept 2"]);
    assert_eq!(ids.split(',').count(), 3);
    client.say(&json!({"commit": "kept", "receipt": "again"}));
    client.error("bad_request");
}

#[test]
fn refusals() {
    let redis = RedisServer::start();
    let node = StompNode::start(
        &redis.url(),
        &["--max-fields", "3", "--stomp-max-frame", "64KiB"],
    );
    let check_over = |transport: &str, command: &Value, code: &str| {
        let mut client = node.client(transport, &[]);
        client.say(command);
        let headers = client.error(code);
        assert!(!headers["message"].as_str().unwrap().is_empty());
        client.0.event("close");
    };
    for transport in TRANSPORTS {
        check_over(transport, &json!({"nack": "5-1"}), "unsupported");
    }
    let check = |command: &Value, code: &str| check_over("tcp", command, code);
    let subscribe = |destination: &str, name: &str, value: &str| json!({"subscribe": destination, "headers": {name: value}});
    let large = "x".repeat(70_000);
    let send = json!({"publish": "/topic/a", "body": large});
    for transport in TRANSPORTS {
        check_over(transport, &send, "too_large");
    }
    check(&subscribe("/queue/jobs", "ack", "client"), "unsupported");
    check(&subscribe("/topic/a", "selector", "a = 1"), "unsupported");
    check(&subscribe("/topic/a", "ack", "never"), "unsupported");
    check(&subscribe("/topic/a", "last-id", "x"), "bad_request");
    check(&subscribe("/user/queue/x", "a", "b"), "bad_request");
    check(
        &json!({"publish": "/topic/a", "headers": {"transaction": "none"}, "body": "x"}),
        "bad_request",
    );
    check(
        &json!({"publish": "/app/unheard.of", "body": "x"}),
        "bad_request",
    );
    check(
        &json!({"publish": "/topic/a", "headers": {"user": "root"}, "body": "x"}),
        "reserved_field",
    );
    assert!(redis.entries("a").is_empty());
}

#[test]
fn who_may() {
    let redis = RedisServer::start();
    let node = StompNode::start(
        &redis.url(),
        &[&JWT[..], &["--default-role", "@*=member"]].concat(),
    );
    let (alice, bob) = (token("alice", "member"), token("bob", "viewer"));
    for transport in ["ws", "tcp", "websocket", "xhr-streaming"] {
        let url = node.url(transport);
        let refused = |arguments: &[&str], code: &str| {
            let all = [&[url.as_str(), "--transport", transport], arguments].concat();
            let client = Stomp(Program::stomp(&all));
            client.error(code);
            client.0.event("close");
        };
        refused(&[], "unauthenticated");
        refused(
            &["--header", "login=alice", "--header", "passcode=guess"],
            "unauthenticated",
        );

        let passcode = format!("passcode={alice}");
        let bearer = format!("Authorization=Bearer {bob}");
        let mut one = node.client(transport, &["--header", "login=x", "--header", &passcode]);
        let mut other = node.client(transport, &["--header", &bearer]);
        one.subscribe("/topic/a", &[]);
        other.subscribe("/topic/a", &[]);
        other.subscribe("/user/queue/private", &[]);
        one.publish("/topic/a", "hello");
        let message = other.next("message");
        assert_eq!(message["headers"]["user"], "alice", "{message}");
        one.message();
        one.publish("/user/bob/queue/private", "psst");
        let message = other.next("message");
        assert_eq!(message["headers"]["destination"], "/user/queue/private");
        assert_eq!(message["body"], "psst");
        // A viewer may not speak, and nobody reads another's inbox.
        other.say(&json!({"publish": "/topic/a", "body": "hi", "headers": {"receipt": "r"}}));
        assert_eq!(other.error("forbidden")["receipt-id"], "r");
        assert_eq!(other.0.event("close")["event"], "close");
        one.say(&json!({"subscribe": "/topic/@bob", "headers": {}}));
        one.error("forbidden");
    }
    // The credentials of the request count where the CONNECT has none.
    let cookie = format!("token={alice}");
    let mut client = node.client("ws", &["--cookie", &cookie]);
    client.subscribe("/topic/a", &[]);
    client.publish("/topic/a", "by cookie");
    assert_eq!(client.next("message")["headers"]["user"], "alice");
    // A ban is told, and ends the connection.
    let mut banned = node.client("tcp", &["--header", &format!("passcode={alice}")]);
    banned.subscribe("/topic/a", &[]);
    let host = format!("Bearer {}", token("root", "host"));
    let headers = [
        ("authorization", host.as_str()),
        ("content-type", "application/json"),
    ];
    let act = json!({"act": "ban", "user": "alice"}).to_string();
    let answer = node
        .node
        .request("POST", "/rooms/a/moderation", &headers, act);
    assert_eq!(answer.status, 200, "{answer:?}");
    banned.error("forbidden");
    banned.next("close");
}

/// What is ended already, or there already, is no reason to end all else.
#[test]
fn what_is_so_already_is_no_error() {
    let node = StompNode::in_memory(&[]);
    let mut client = node.client("ws", &[]);
    client.subscribe("/topic/a", &[("id", "one"), ("ack", "client")]);
    client.subscribe("/topic/a", &[("id", "one"), ("ack", "client")]);
    for ended in ["two", "two"] {
        let headers = json!({"receipt": "ended"});
        client.say(&json!({"unsubscribe": ended, "headers": headers}));
        assert_eq!(client.next("receipt")["id"], "ended");
    }
    client.say(&json!({"abort": "never begun"}));
    client.say(&json!({"ack": "undefined"}));
    client.publish("/topic/a", "once");
    assert_eq!(client.message().1, "once");
    // And only once, as it's one subscription.
    client.publish("/topic/a", "twice");
    assert_eq!(client.message().1, "twice");
    let headers = json!({"id": "one", "receipt": "x"});
    client.say(&json!({"subscribe": "/topic/b", "headers": headers}));
    assert_eq!(client.error("bad_request")["receipt-id"], "x");
}

/// Bytes come as they are to a client that says that it can read them, else in base64.
#[test]
fn nul_bytes() {
    let node = StompNode::in_memory(&[]);
    let (body, coded) = ("\0ERROR\n\n\0", "AEVSUk9SCgoA");
    for transport in TRANSPORTS {
        for said in ["false", "true"] {
            let header = format!("x-binary={said}");
            let mut client = node.client(transport, &["--header", &header]);
            client.subscribe("/topic/a", &[]);
            node.node.publish("a", body);
            let got = client.next("message");
            let encoding = &got["headers"]["content-transfer-encoding"];
            match said {
                "true" => assert_eq!((&got["body"], encoding), (&json!(body), &Value::Null)),
                _ => assert_eq!((&got["body"], encoding), (&json!(coded), &json!("base64"))),
            }
        }
    }
}
