//! Entries that a moderator removes: gone from every replay, and no gap.

use std::time::Instant;

use serde_json::{Value, json};

use super::{KEY, SECOND, add_node, asked, assert_within, enter, enter_raw, events, moderate};
use super::{named, post, publish, start, token};
use crate::harness::node::Node;

/// The messages that a socket replays to a last one, without a gap.
async fn replayed(node: &Node, from: &str, last: &str) -> String {
    let mut socket = enter(node, KEY, "live", &format!("&from={from}")).await;
    let mut got = Vec::new();
    while got.last().is_none_or(|message| message != last) {
        let frame = socket.frame().await;
        assert_eq!(frame["type"], "entry", "from {from}: {frame}");
        got.push(frame["fields"]["message"].as_str().unwrap().to_owned());
    }
    got.concat()
}

fn history(node: &Node) -> String {
    let page = asked(node, KEY, "GET", "/rooms/live", Value::Null);
    let entries = page["entries"].as_array().unwrap();
    let messages = entries.iter();
    let messages = messages.map(|entry| entry["fields"]["message"].as_str().unwrap());
    messages.collect()
}

#[tokio::test]
async fn a_deleted_entry_is_in_no_replay() {
    let (redis, [node, other]) = start::<2>(&[]);
    let mods = token("mod", "live=moderator");
    let mut moderator = enter(&node, &mods, "live", "").await;
    let mut sockets = [
        enter(&node, KEY, "live", "").await,
        enter(&other, KEY, "live", "").await,
    ];
    let mut raw = enter_raw(&other, KEY, "/rooms/live").await;
    let mut stream = events(&other, KEY, "/rooms/live");
    let ids: Vec<String> = ["1", "2", "3", "4", "5"]
        .into_iter()
        .map(|message| publish(&node, "live", message))
        .collect();
    for socket in &mut sockets {
        for id in &ids {
            assert_eq!(socket.frame().await["id"], *id);
        }
    }
    let mut left = "12345".to_owned();
    // One amid others, and the last.
    for at in [2, 4] {
        let id = &ids[at];
        let act = json!({"type":"moderate","act":"delete","id":id});
        let deleting = Instant::now();
        let done = moderator.ask(act.clone()).await;
        assert_eq!(done["deleted"], json!([id]), "{done}");
        let told = json!({"type":"deleted","room":"live","ids":[id]});
        for socket in &mut sockets {
            assert_eq!(socket.frame().await, told);
        }
        assert_eq!(named(&mut stream, "deleted"), told);
        assert_within("a deletion", deleting.elapsed(), SECOND);
        assert_eq!(moderator.ask(act).await["code"], "bad_request");
        left = left.replace(&(at + 1).to_string(), "");
        assert_eq!(history(&node), left);
        assert_eq!(history(&other), left);
    }
    publish(&other, "live", "6");
    let fresh = add_node(&redis, &[]);
    for node in [&node, &other, &fresh] {
        assert_eq!(replayed(node, "start", "6").await, "1246");
        assert_eq!(replayed(node, "last:5", "6").await, "1246");
        // From what is there no more as well.
        for (id, want) in ids.iter().zip(["246", "46", "46", "6", "6"]) {
            assert_eq!(replayed(node, id, "6").await, want, "{id}");
        }
        assert_eq!(history(node), "1246");
    }
    for socket in &mut sockets {
        assert_eq!(socket.frame().await["fields"]["message"], "6");
    }
    for message in ["1", "2", "3", "4", "5", "6"] {
        assert_eq!(raw.text().await, message);
    }
    assert_eq!(redis.cli(&["XLEN", "live"]), "4");
}

/// Redis tells a first entry that was deleted from one that was trimmed as little as the other way
/// round. So a node that never read it tells a gap to who resumes right there: once too often, as
/// nothing is lost.
#[tokio::test]
async fn a_deleted_first_entry() {
    let (redis, [node]) = start::<1>(&[]);
    let mut socket = enter(&node, KEY, "live", "").await;
    let ids = ["1", "2", "3"].map(|message| publish(&node, "live", message));
    moderate(&node, "live", json!({"act":"delete","id":ids[0]}));
    socket.frame_of("deleted").await;
    let fresh = add_node(&redis, &[]);
    assert_eq!(replayed(&node, "start", "3").await, "23");
    assert_eq!(replayed(&node, &ids[0], "3").await, "23");
    assert_eq!(replayed(&fresh, "start", "3").await, "23");
    let mut resumed = enter(&fresh, KEY, "live", &format!("&from={}", ids[0])).await;
    let gap = resumed.frame().await;
    assert_eq!(gap["type"], "gap", "{gap}");
    for message in ["2", "3"] {
        assert_eq!(resumed.frame().await["fields"]["message"], message);
    }
}

#[tokio::test]
async fn all_of_a_users_entries() {
    let (redis, [node, other]) = start::<2>(&[]);
    let bob = token("bob", "live=member");
    let mut watcher = enter(&other, KEY, "live", "").await;
    let mut theirs = Vec::new();
    for number in 0..6 {
        publish(&node, "live", &number.to_string());
        let path = "/rooms/live";
        let answer = asked(&other, &bob, "POST", path, json!({"message":"bob's"}));
        theirs.push(answer["id"].as_str().unwrap().to_owned());
    }
    // Somebody else's with the name in another field is theirs.
    let body = json!({"fields":{"message":"6","by":"bob"}});
    asked(
        &node,
        &token("ann", "live=member"),
        "POST",
        "/rooms/live",
        body,
    );
    let done = moderate(&node, "live", json!({"act":"delete","user":"bob"}));
    let mut deleted: Vec<String> = serde_json::from_value(done["deleted"].clone()).unwrap();
    deleted.sort();
    assert_eq!(deleted, theirs);
    // All in one event.
    let frame = watcher.frame_of("deleted").await;
    let mut told: Vec<String> = serde_json::from_value(frame["ids"].clone()).unwrap();
    told.sort();
    assert_eq!(told, theirs);
    let fresh = add_node(&redis, &[]);
    for node in [&node, &other, &fresh] {
        assert_eq!(replayed(node, "start", "6").await, "0123456");
        assert_eq!(history(node), "0123456");
    }
    // They may go on.
    assert_eq!(post(&node, &bob, "live").0, 201);
    let none = moderate(&node, "live", json!({"act":"delete","user":"nobody"}));
    assert_eq!(none["deleted"].as_array().map_or(0, Vec::len), 0, "{none}");
}

#[tokio::test]
async fn a_deleted_pin_is_no_pin() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let mut watcher = enter(&other, KEY, "live", "").await;
    let id = publish(&node, "live", "ugly");
    moderate(&node, "live", json!({"act":"pin","id":id}));
    assert_eq!(watcher.frame_of("room").await["pin"]["message"], "ugly");
    moderate(&node, "live", json!({"act":"delete","id":id}));
    assert_eq!(watcher.frame_of("room").await["pin"], Value::Null);
    // Of other entries' deletion a pin knows nothing.
    let kept = publish(&node, "live", "fine");
    let gone = publish(&node, "live", "not fine");
    moderate(&node, "live", json!({"act":"pin","id":kept}));
    assert_eq!(watcher.frame_of("room").await["pin"]["message"], "fine");
    moderate(&node, "live", json!({"act":"delete","id":gone}));
    watcher.frame_of("deleted").await;
    let mut late = enter(&node, KEY, "live", "").await;
    assert_eq!(late.frame_of("room").await["pin"]["message"], "fine");
}

#[tokio::test]
async fn who_resumes_at_a_deleted_end_is_in_at_once() {
    let (redis, [node]) = start::<1>(&[]);
    let ids = ["1", "2", "3"].map(|message| publish(&node, "live", message));
    moderate(&node, "live", json!({"act":"delete","id":ids[2]}));
    let fresh = add_node(&redis, &[]);
    // `enter` waits for `joined`.
    let mut socket = enter(&fresh, KEY, "live", &format!("&from={}", ids[2])).await;
    publish(&node, "live", "4");
    let frame = socket.frame().await;
    assert_eq!(frame["fields"]["message"], "4", "{frame}");
}
