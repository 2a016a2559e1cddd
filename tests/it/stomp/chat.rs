//! The chat room of the well-known tutorial (`examples/stomp-chat`), with its own clients over three
//! nodes: who comes and goes, what they say, who is there, private messages, and what comes from
//! outside.

use serde_json::{Value, json};

use super::{Stomp, StompNode};
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

const PUBLIC: &str = "/topic/public";

fn say(client: &mut Stomp, destination: &str, message: &Value) {
    client.publish(destination, &message.to_string());
}

/// The next message's body, and the room's destination that it came by.
fn hear(client: &Stomp) -> (Value, String) {
    let message = client.next("message");
    let body = serde_json::from_str(message["body"].as_str().unwrap()).unwrap();
    let destination = message["headers"]["destination"].as_str().unwrap();
    (body, destination.to_owned())
}

fn online(node: &StompNode) -> (u64, Vec<String>) {
    let answer = node.node.get("/rooms/public/presence").json();
    let users = answer["users"].as_array().unwrap();
    let names = users
        .iter()
        .map(|user| user["user"].as_str().unwrap().to_owned());
    (answer["count"].as_u64().unwrap(), names.collect())
}

async fn until_online(nodes: &[StompNode], want: &[&str]) {
    until("all nodes say who is there", || {
        nodes.iter().all(|node| {
            online(node)
                == (
                    want.len() as u64,
                    want.iter().map(|&name| name.to_owned()).collect(),
                )
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tutorial_on_three_nodes() {
    let redis = RedisServer::start();
    let mut nodes: Vec<StompNode> = (0..3)
        .map(|_| StompNode::start(&redis.url(), &[]))
        .collect();
    let people = [
        ("alice", "xhr-streaming"),
        ("bob", "websocket"),
        ("carol", "xhr-polling"),
    ];
    let mut clients: Vec<Stomp> = Vec::new();
    for (node, (name, transport)) in nodes.iter().zip(people) {
        let mut client = node.client(transport, &[]);
        client.subscribe(PUBLIC, &[]);
        let join = json!({"sender": name, "type": "JOIN"});
        say(&mut client, "/app/chat.addUser", &join);
        clients.push(client);
        for client in &clients {
            assert_eq!(hear(client), (join.clone(), PUBLIC.to_owned()));
        }
    }
    until_online(&nodes, &["alice", "bob", "carol"]).await;

    for at in 0..3 {
        let message = json!({"sender": people[at].0, "content": "hi", "type": "CHAT"});
        say(&mut clients[at], "/app/chat.sendMessage", &message);
        for client in &clients {
            assert_eq!(hear(client).0, message);
        }
    }

    // To one user, wherever they are, and to a group.
    clients[1].subscribe("/user/queue/private", &[]);
    clients[1].subscribe("/topic/group-7", &[]);
    clients[2].subscribe("/topic/group-7", &[]);
    let secret = json!({"sender": "alice", "content": "psst", "type": "CHAT"});
    say(&mut clients[0], "/user/bob/queue/private", &secret);
    assert_eq!(
        hear(&clients[1]),
        (secret.clone(), "/user/queue/private".to_owned())
    );
    say(&mut clients[0], "/topic/group-7", &secret);
    for client in &clients[1..] {
        assert_eq!(hear(client), (secret.clone(), "/topic/group-7".to_owned()));
    }

    // From outside, to all and to one.
    let news = json!({"sender": "news", "content": "extra", "type": "CHAT"});
    nodes[2].node.publish("public", news.to_string());
    for client in &clients {
        assert_eq!(hear(client).0, news);
    }
    let answer = nodes[0]
        .node
        .request("POST", "/users/bob", &[], news.to_string());
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(hear(&clients[1]), (news, "/user/queue/private".to_owned()));

    // Who goes, however they do, is said to have left: by a good-bye, and without.
    let leave = |name: &str| json!({"sender": name, "type": "LEAVE"});
    clients[0].say(&json!({"disconnect": true}));
    for client in &clients[1..] {
        assert_eq!(hear(client).0, leave("alice"));
    }
    until_online(&nodes, &["bob", "carol"]).await;
    drop(clients.remove(1));
    assert_eq!(hear(&clients[1]).0, leave("bob"));
    until_online(&nodes, &["carol"]).await;

    // A node that dies says nothing; presence finds out.
    nodes[2].node.kill9();
    nodes.pop();
    until_online(&nodes, &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_who_leaves() {
    let redis = RedisServer::start();
    let mut nodes = [(); 2].map(|()| StompNode::start(&redis.url(), &[]));
    let mut stays = nodes[1].client("ws", &[]);
    stays.subscribe(PUBLIC, &[]);
    let mut going = Vec::new();
    for (name, transport) in [
        ("dave", "websocket"),
        ("erin", "xhr-streaming"),
        ("frank", "tcp"),
    ] {
        let mut goes = nodes[0].client(transport, &[]);
        goes.subscribe(PUBLIC, &[]);
        say(
            &mut goes,
            "/app/chat.addUser",
            &json!({"sender": name, "type": "JOIN"}),
        );
        assert_eq!(hear(&stays).0["sender"], name);
        going.push(goes);
    }
    nodes[0].node.sigterm();
    let mut left: Vec<String> = (0..3)
        .map(|_| {
            let (said, _) = hear(&stays);
            assert_eq!(said["type"], "LEAVE");
            said["sender"].as_str().unwrap().to_owned()
        })
        .collect();
    left.sort();
    assert_eq!(left, ["dave", "erin", "frank"]);
    assert!(nodes[0].node.wait_exit().success());
}
