//! The same over every transport.

use std::time::Duration;

use serde_json::json;

use super::{Stomp, StompNode, TRANSPORTS};
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_over_every_transport() {
    let redis = RedisServer::start();
    let nodes = [(); 2].map(|()| StompNode::start(&redis.url(), &[]));
    let mut clients: Vec<Stomp> = Vec::new();
    for (at, transport) in TRANSPORTS.iter().enumerate() {
        let mut client = nodes[at % 2].client(transport, &[]);
        client.subscribe("/topic/room one", &[]);
        clients.push(client);
    }
    for (at, transport) in TRANSPORTS.iter().enumerate() {
        let body = format!("from {transport}: é, \u{2028}, \u{feff} and \"quotes\"");
        clients[at].publish("/topic/room one", &body);
        let ids: Vec<String> = clients
            .iter()
            .map(|client| {
                let (id, got) = client.message();
                assert_eq!(got, body);
                id
            })
            .collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
    let stored = redis.entries("room one");
    assert_eq!(stored.len(), TRANSPORTS.len());

    let kinds = ["stomp", "stomp_tcp", "sockjs"];
    for (kind, want) in kinds.iter().zip([1.0, 1.0, 4.0]) {
        let name = format!("tailcast_sockets{{kind=\"{kind}\"}}");
        let count = |node: &StompNode| node.node.metric(&name).unwrap_or(0.0);
        assert_eq!(nodes.iter().map(count).sum::<f64>(), want, "{kind}");
    }
    // Each says good-bye, and is gone at once.
    for client in &mut clients {
        client.say(&json!({"disconnect": true}));
        client.0.event("close");
    }
    until("all are gone", || {
        nodes.iter().all(|node| {
            kinds.iter().all(|kind| {
                let name = format!("tailcast_sockets{{kind=\"{kind}\"}}");
                node.node.metric(&name).unwrap_or(0.0) == 0.0
            })
        })
    })
    .await;
}

#[test]
fn bytes_and_large_messages() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let large = "0123456789abcdef".repeat(40_000);
    for transport in ["ws", "tcp", "websocket", "xhr-streaming"] {
        let mut client = node.client(transport, &["--header", "x-binary=true"]);
        client.subscribe("/topic/bytes", &[]);
        client.say(&json!({"publish": "/topic/bytes", "base64": "AAH/AA==",
                           "headers": {"content-type": "application/x", "a": "b:c\nd\\e\r"}}));
        match transport {
            // Bytes can't be said in SockJS, which carries text.
            "websocket" | "xhr-streaming" => {}
            _ => {
                let message = client.next("message");
                assert_eq!(message["base64"], "AAH/AA==", "{message}");
                assert_eq!(message["headers"]["a"], "b:c\nd\\e\r");
                assert_eq!(message["headers"]["content-type"], "application/x");
            }
        }
        if transport == "websocket" || transport == "xhr-streaming" {
            // What it sends must be text, too: this one came as something else or not at all.
            continue;
        }
        client.publish("/topic/bytes", &large);
        assert_eq!(client.message().1.len(), large.len());
    }
    let mut text = node.client("websocket", &[]);
    let mut bytes = node.client("ws", &[]);
    text.subscribe("/topic/mixed", &[]);
    bytes.subscribe("/topic/mixed", &[]);
    bytes.say(&json!({"publish": "/topic/mixed", "base64": "AAH/AA=="}));
    let message = text.next("message");
    assert_eq!(message["body"], "AAH/AA==", "{message}");
    assert_eq!(message["headers"]["content-transfer-encoding"], "base64");
    text.publish("/topic/mixed", &large);
    assert_eq!(text.message().1.len(), large.len());
}

#[test]
fn versions() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let mut newest = node.client("ws", &[]);
    newest.subscribe("/topic/v", &[]);
    for version in ["1.0", "1.1", "1.2"] {
        let mut old = node.client("ws", &["--version", version]);
        old.subscribe("/topic/v", &[]);
        newest.say(
            &json!({"publish": "/topic/v", "body": "hi", "headers": {"a": "x:y", "b": "z\r"}}),
        );
        newest.message();
        let message = old.next("message");
        // This client takes what is escaped in 1.1 as it stands.
        let want = if version == "1.1" { "x\\cy" } else { "x:y" };
        assert_eq!(message["headers"]["a"], want, "{version}: {message}");
        let has_b = message["headers"]["b"] == "z\r";
        assert_eq!(has_b, version == "1.2", "{message}");
    }
    let other = super::Program::stomp(&[&node.url("ws"), "--version", "1.3"]);
    let event = other.json();
    assert_eq!(event["event"], "close", "no subprotocol in common: {event}");
    let other = Stomp(super::Program::stomp(&[
        &node.url("tcp"),
        "--transport",
        "tcp",
        "--version",
        "1.3",
    ]));
    let headers = other.error("bad_version");
    assert_eq!(headers["version"], "1.0,1.1,1.2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heart_beats_keep_and_end_connections() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &["--ping", "0s"]);
    // Longer than both sides would bear silence, which is twice the time.
    let mut clients: Vec<Stomp> = TRANSPORTS
        .iter()
        .map(|transport| {
            let mut client = node.client(transport, &["--heartbeat", "2000"]);
            client.subscribe("/topic/beats", &[]);
            client
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(6)).await;
    clients[0].publish("/topic/beats", "still here");
    for (client, transport) in clients.iter().zip(TRANSPORTS) {
        assert_eq!(client.message().1, "still here", "{transport}");
    }
    // One that promised to beat, and doesn't.
    use std::io::{Read, Write};
    let address = node.url("tcp").replace("tcp://", "");
    let mut silent = std::net::TcpStream::connect(address).unwrap();
    silent
        .write_all(b"CONNECT\naccept-version:1.2\nhost:a\nheart-beat:1000,0\n\n\0")
        .unwrap();
    let mut told = String::new();
    silent.read_to_string(&mut told).unwrap();
    assert!(
        told.starts_with("CONNECTED\nversion:1.2\nheart-beat:10000,1000\n"),
        "{told:?}"
    );
    assert!(
        told.contains("ERROR\nmessage:no heart-beat came in time\ncode:timeout\n"),
        "{told:?}"
    );
}
