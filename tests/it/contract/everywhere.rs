//! Publishing from everywhere at once on three nodes: one order for all, and it's Redis's.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::json;
use tailcast::relay::entry::EntryId;

use super::{add, id};
use crate::checker::{self, Client, Event, Outcome, Publish, Room, Run};
use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

const EACH: usize = 150;
const LAST: &str = "the last one";

/// A JSON client to the last entry: its events.
async fn listen_json(mut socket: Ws, head: String) -> Vec<Event> {
    let mut events = vec![Event::Joined { head: id(&head) }];
    loop {
        let frame = socket.frame_of("entry").await;
        let payload = frame["fields"]["message"].as_str().unwrap().to_owned();
        let is_last = payload == LAST;
        events.push(Event::Entry {
            id: id(frame["id"].as_str().unwrap()),
            payload: payload.into(),
        });
        if is_last {
            return events;
        }
    }
}

/// A raw client to the last entry: its messages.
async fn listen_raw(mut socket: Ws) -> Vec<String> {
    let mut messages = Vec::new();
    while messages.last().is_none_or(|message| message != LAST) {
        messages.push(socket.text().await);
    }
    messages
}

fn publish(payload: String, outcome: Outcome) -> Publish {
    Publish {
        room: "r".to_owned(),
        payload: payload.into(),
        key: None,
        outcome,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_sockets_on_all_nodes_see_one_order() {
    let redis = RedisServer::start();
    let nodes: Vec<Node> = [["--tail", "auto"], ["--tail", "track"], ["--tail", "block"]]
        .iter()
        .map(|tail| Node::start_with(&redis.url(), &[&tail[..], &["--frame-rate", "0"]].concat()))
        .collect();
    let mut json = Vec::new();
    let mut raw = Vec::new();
    for node in &nodes {
        let (socket, head) = Ws::json(node, "r", "now").await;
        json.push(tokio::spawn(listen_json(socket, head)));
        let (socket, head) = Ws::json(node, "r", "start").await;
        json.push(tokio::spawn(listen_json(socket, head)));
        let socket = Ws::open(node, "/rooms/r?from=start").await;
        raw.push(tokio::spawn(listen_raw(socket)));
    }

    let mut by_raw = Ws::open(&nodes[0], "/rooms/r").await;
    let by_raw = tokio::spawn(async move {
        for number in 0..EACH {
            by_raw.send(format!("raw {number}")).await;
        }
        by_raw
    });
    let (mut by_json, _) = Ws::json(&nodes[1], "r", "now").await;
    let by_json = tokio::spawn(async move {
        for number in 0..EACH {
            let message = format!("json {number}");
            by_json
                .send_json(json!({"type":"publish","message":message,"ref":number}))
                .await;
        }
        let mut acks = Vec::new();
        while acks.len() < EACH {
            let ack = by_json.frame_of("ack").await;
            acks.push((
                ack["ref"].as_u64().unwrap(),
                id(ack["id"].as_str().unwrap()),
            ));
        }
        acks
    });
    let mut stored: Vec<(String, EntryId)> = Vec::new();
    for number in 0..EACH / 3 {
        let message = format!("post {number}");
        let answer = nodes[2].publish("r", &message);
        stored.push((message, id(&answer)));
        let message = format!("cli {number}");
        let answer = add(&redis, "r", &message);
        stored.push((message, id(&answer)));
    }
    let acks = by_json.await.unwrap();
    // Acknowledged in the order of their sending.
    assert!(acks.iter().map(|ack| ack.0).eq(0..EACH as u64));
    stored.extend(
        acks.into_iter()
            .map(|(number, id)| (format!("json {number}"), id)),
    );
    let by_raw = by_raw.await.unwrap();
    let total = EACH * 2 + EACH / 3 * 2;
    super::wait_for("all is stored", || {
        redis.cli(&["XLEN", "r"]) == total.to_string()
    });
    let last = id(&add(&redis, "r", LAST));
    drop(by_raw);

    let truth = redis.entries("r");
    let ids: HashMap<&Bytes, EntryId> = truth.iter().map(|(id, payload)| (payload, *id)).collect();
    let mut clients = Vec::new();
    let mut client = |name: String, events: Vec<Event>| {
        clients.push(Client {
            name,
            room: "r".to_owned(),
            events,
            complete_to: Some(last),
        });
    };
    for (number, events) in json.into_iter().enumerate() {
        client(format!("json {number}"), events.await.unwrap());
    }
    for (number, messages) in raw.into_iter().enumerate() {
        let entries = messages.await.unwrap().into_iter().map(|message| {
            let payload = Bytes::from(message);
            Event::Entry {
                id: ids[&payload],
                payload,
            }
        });
        let joined = Event::Joined {
            head: EntryId::ZERO,
        };
        client(
            format!("raw {number}"),
            std::iter::once(joined).chain(entries).collect(),
        );
    }
    let mut publishes: Vec<Publish> = stored
        .into_iter()
        .map(|(message, id)| publish(message, Outcome::Stored(id)))
        .collect();
    publishes.extend((0..EACH).map(|number| publish(format!("raw {number}"), Outcome::Unknown)));
    publishes.push(publish(LAST.to_owned(), Outcome::Stored(last)));
    // One socket's messages are stored in the order it sent them.
    for kind in ["raw", "json"] {
        let sent: Vec<&Bytes> = truth
            .iter()
            .map(|(_, payload)| payload)
            .filter(|payload| payload.starts_with(kind.as_bytes()))
            .collect();
        assert!(
            sent.iter()
                .enumerate()
                .all(|(number, payload)| ***payload == *format!("{kind} {number}").as_bytes())
        );
    }
    let room = Room {
        entries: truth,
        ..Room::default()
    };
    let run = Run {
        rooms: [("r".to_owned(), room)].into(),
        clients,
        publishes,
    };
    checker::assert_clean(&run, 0);
}
