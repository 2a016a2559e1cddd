//! Going on where one was: on another node, after a gap, from any position.

use serde_json::json;

use super::StompNode;
use crate::harness::redis_server::RedisServer;

#[test]
fn over_another_node_by_message_id() {
    let redis = RedisServer::start();
    let nodes = [(); 2].map(|()| StompNode::start(&redis.url(), &[]));
    for transport in super::TRANSPORTS {
        let room = format!("r-{transport}");
        let destination = format!("/topic/{room}");
        let mut first = nodes[0].client(transport, &[]);
        let head = first.subscribe(&destination, &[]);
        assert_eq!(head, "0-0");
        for at in 0..10 {
            nodes[1].node.publish(&room, format!("{at}"));
        }
        let mut last = String::new();
        for at in 0..5 {
            let (id, body) = first.message();
            assert_eq!(body, at.to_string());
            last = id;
        }
        drop(first);
        for at in 10..20 {
            nodes[0].node.publish(&room, format!("{at}"));
        }
        let mut second = nodes[1].client(transport, &[]);
        second.subscribe(&destination, &[("last-id", &last)]);
        for at in 5..20 {
            assert_eq!(second.message().1, at.to_string(), "{transport}");
        }
        nodes[0].node.publish(&room, "live");
        assert_eq!(second.message().1, "live");
    }
}

#[test]
fn positions() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let ids: Vec<String> = (0..5)
        .map(|at| node.node.publish("a", at.to_string()))
        .collect();
    let check = |name: &str, value: &str, want: &[&str]| {
        let mut client = node.client("ws", &[]);
        client.subscribe("/topic/a", &[(name, value)]);
        for body in want {
            assert_eq!(client.message().1, *body, "{name}:{value}");
        }
        client.say(&json!({"disconnect": true}));
        let event = client.0.json();
        assert_eq!(event["event"], "close", "{name}:{value}: {event}");
    };
    check("x-stream-offset", "first", &["0", "1", "2", "3", "4"]);
    check("x-stream-offset", "last", &["4"]);
    check("x-stream-offset", "next", &[]);
    check(
        "x-stream-offset",
        &format!("offset={}", ids[3]),
        &["3", "4"],
    );
    check(
        "x-stream-offset",
        "timestamp=1000000000",
        &["0", "1", "2", "3", "4"],
    );
    check("from", "last:2", &["3", "4"]);
    check("from", &ids[2], &["3", "4"]);
    check("last-id", &ids[4], &[]);
}

#[test]
fn a_gap_is_told_in_its_place() {
    let redis = RedisServer::start();
    let nodes = [(); 2].map(|()| StompNode::start(&redis.url(), &[]));
    let ids: Vec<String> = (0..10)
        .map(|at| nodes[0].node.publish("a", at.to_string()))
        .collect();
    redis.cli(&["XTRIM", "a", "MAXLEN", "3"]);
    for transport in ["ws", "tcp", "websocket", "eventsource"] {
        let mut client = nodes[1].client(transport, &[]);
        client.subscribe("/topic/a", &[("last-id", &ids[1])]);
        let gap = client.next("message");
        let headers = &gap["headers"];
        assert_eq!(headers["x-gap-after"], json!(ids[1]), "{gap}");
        assert_eq!(headers["x-gap-reason"], "trimmed");
        assert_eq!(headers["message-id"], json!(null));
        let body: serde_json::Value = serde_json::from_str(gap["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["type"], "gap");
        for (at, id) in ids.iter().enumerate().skip(7) {
            assert_eq!(
                client.message(),
                (id.clone(), at.to_string()),
                "{transport}"
            );
        }
    }
}
