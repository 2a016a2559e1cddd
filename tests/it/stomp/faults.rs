//! Redis restarts and nodes die under clients that reconnect and resume: none misses anything, nor
//! gets anything twice.

use std::time::Duration;

use serde_json::json;

use super::{Stomp, StompNode, TRANSPORTS};
use crate::harness::redis_server::RedisServer;

/// Publishes until so many are stored; what was refused was not.
async fn publish(nodes: &[&StompNode], from: usize, to: usize) {
    let mut at = from;
    let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
    while at < to {
        let node = &nodes[at % nodes.len()].node;
        let key = format!("key-{at}");
        let headers = [("idempotency-key", key.as_str())];
        let answer = node.request("POST", "/rooms/a", &headers, at.to_string());
        if answer.status == 201 {
            at += 1;
        } else {
            assert!(tokio::time::Instant::now() < deadline, "{answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every client has all of it, in order, once.
fn check(clients: &[Stomp], from: usize, to: usize) {
    for (client, transport) in clients.iter().zip(TRANSPORTS) {
        let mut last = String::new();
        for want in from..to {
            let message = client.0.event("message");
            assert_eq!(message["headers"]["x-gap-reason"], json!(null), "{message}");
            assert_eq!(
                message["body"],
                json!(want.to_string()),
                "{transport}: {message}"
            );
            let id = message["headers"]["message-id"]
                .as_str()
                .unwrap()
                .to_owned();
            assert_ne!(id, last);
            last = id;
        }
    }
}

fn clients(of: &[&StompNode]) -> Vec<Stomp> {
    TRANSPORTS
        .iter()
        .map(|transport| {
            let urls: Vec<String> = of.iter().map(|node| node.url(transport)).collect();
            let mut arguments: Vec<&str> = urls.iter().map(String::as_str).collect();
            arguments.extend(["--transport", transport, "--reconnect", "100", "--resume"]);
            let mut client = Stomp::connect(&arguments);
            client.subscribe("/topic/a", &[]);
            client
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_killed() {
    let redis = RedisServer::start();
    let mut nodes = [(); 2].map(|()| StompNode::start(&redis.url(), &[]));
    let clients = clients(&[&nodes[0], &nodes[1]]);
    publish(&[&nodes[0], &nodes[1]], 0, 50).await;
    nodes[0].node.kill9();
    publish(&[&nodes[1]], 50, 100).await;
    check(&clients, 0, 100);
    nodes[0].node.restart();
    publish(&[&nodes[0], &nodes[1]], 100, 120).await;
    check(&clients, 100, 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_is_restarted() {
    let mut redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]);
    let clients = clients(&[&node]);
    publish(&[&node], 0, 50).await;
    redis.kill9();
    tokio::time::sleep(Duration::from_millis(300)).await;
    redis.restart();
    publish(&[&node], 50, 100).await;
    check(&clients, 0, 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_drains() {
    let redis = RedisServer::start();
    let mut nodes = [(); 2].map(|()| StompNode::start(&redis.url(), &[]));
    let clients = clients(&[&nodes[0], &nodes[1]]);
    publish(&[&nodes[0], &nodes[1]], 0, 30).await;
    nodes[0].node.sigterm();
    publish(&[&nodes[1]], 30, 60).await;
    check(&clients, 0, 60);
    let status = nodes[0].node.wait_exit();
    assert!(status.success(), "{status} {}", nodes[0].node.stderr());
}
