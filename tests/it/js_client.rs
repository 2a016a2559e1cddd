//! The JavaScript client of `clients/js` against real nodes: they are killed under it, its acks are
//! lost, its stream is trimmed while it's away, and what it got is held against the stream.

mod cases;
mod package;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::clients::Program;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use tailcast::relay::entry::EntryId;

/// Starts `js-client.mjs` at these nodes, in their order.
fn start(nodes: &[&Node], arguments: &[&str]) -> Program {
    let urls: Vec<String> = nodes.iter().map(|node| node.url("")).collect();
    let mut all: Vec<&str> = urls.iter().flat_map(|url| ["--url", url]).collect();
    all.extend(arguments);
    Program::js(&all)
}

/// Waits until it's in its room.
fn joined(program: &Program) {
    loop {
        let event = program.event("room-state");
        if event["state"] == "joined" {
            return;
        }
    }
}

fn say(program: &mut Program, command: Value) {
    program.say(&command.to_string());
}

/// Its entries up to that ID, as ID and text; panics on a gap.
fn entries_to(program: &Program, last: EntryId) -> Vec<(EntryId, String)> {
    let mut got = Vec::new();
    loop {
        let event = program.json();
        assert_ne!(event["event"], "gap", "nothing was lost: {event}");
        if event["event"] == "entry" {
            let id = event["id"].as_str().unwrap().parse().unwrap();
            got.push((id, event["text"].as_str().unwrap().to_owned()));
            if id >= last {
                return got;
            }
        }
    }
}

/// What the publisher was told, by text, once it has been told of all; it publishes no more.
fn stop(program: &mut Program) -> BTreeMap<String, EntryId> {
    say(program, json!({"stop": true}));
    let mut stored = BTreeMap::new();
    let mut count = None;
    while count.is_none_or(|count| stored.len() < count) {
        let event = program.json();
        match event["event"].as_str().unwrap() {
            "stored" => {
                let id = event["id"].as_str().unwrap().parse().unwrap();
                let before = stored.insert(event["text"].as_str().unwrap().to_owned(), id);
                assert_eq!(before, None, "{event}");
            }
            "stopped" => count = event["count"].as_u64().map(|count| count as usize),
            "refused" | "error" => panic!("{event}"),
            _ => {}
        }
    }
    stored
}

fn stream(redis: &RedisServer) -> Vec<(EntryId, String)> {
    let entries = redis.entries("lobby").into_iter();
    entries
        .map(|(id, payload)| (id, String::from_utf8(payload.to_vec()).unwrap()))
        .collect()
}

/// Every publish is in the stream once, under the ID in its answer, and in the order it was made.
#[track_caller]
fn check_stored(stream: &[(EntryId, String)], stored: &BTreeMap<String, EntryId>) {
    assert_eq!(stream.len(), stored.len());
    for (number, (id, text)) in stream.iter().enumerate() {
        assert_eq!(*text, format!("p {number}"));
        assert_eq!(stored[text], *id, "{text}");
    }
}

#[tokio::test]
async fn nodes_are_killed_under_listener_and_publisher() {
    let redis = RedisServer::start();
    let mut one = Node::start(&redis.url());
    let mut two = Node::start(&redis.url());
    let listeners = [start(&[&one, &two], &[]), start(&[&two, &one], &[])];
    let mut publisher = start(&[&two, &one], &["--from", "start"]);
    listeners.iter().chain([&publisher]).for_each(joined);
    say(&mut publisher, json!({"load": 5, "name": "p"}));
    let grown = async |by: usize| {
        let want = redis.cli(&["XLEN", "lobby"]).parse::<usize>().unwrap() + by;
        let long_enough = || redis.cli(&["XLEN", "lobby"]).parse::<usize>().unwrap() >= want;
        crate::harness::until("more is stored", long_enough).await;
    };
    grown(20).await;
    for _ in 0..3 {
        one.kill9();
        grown(60).await;
        one.restart();
        grown(20).await;
        two.kill9();
        grown(60).await;
        two.restart();
        grown(20).await;
    }
    let stored = stop(&mut publisher);
    let stream = stream(&redis);
    check_stored(&stream, &stored);
    let last = stream.last().unwrap().0;
    for listener in &listeners {
        assert_eq!(entries_to(listener, last), stream);
    }
}

#[tokio::test]
async fn a_publish_whose_ack_is_lost_is_stored_once() {
    let redis = RedisServer::start();
    let (one, two) = (Node::start(&redis.url()), Node::start(&redis.url()));
    let mut publisher = start(&[&one, &two], &["--cut", "7"]);
    joined(&publisher);
    say(&mut publisher, json!({"load": 10, "name": "p"}));
    let mut cuts = 0;
    while cuts < 20 {
        let event = publisher.event("state");
        cuts += usize::from(event["state"] == "waiting");
    }
    say(&mut publisher, json!({"stop": true}));
    // What was stored while its events were passed over counts by the stream alone.
    publisher.event("stopped");
    say(&mut publisher, json!({"publish": "the last"}));
    loop {
        let event = publisher.event("stored");
        if event["text"] == "the last" {
            break;
        }
    }
    let mut stream = stream(&redis);
    assert_eq!(stream.pop().unwrap().1, "the last");
    assert!(stream.len() > 20, "{}", stream.len());
    let texts: Vec<&str> = stream.iter().map(|(_, text)| text.as_str()).collect();
    let want: Vec<String> = (0..stream.len())
        .map(|number| format!("p {number}"))
        .collect();
    assert_eq!(texts, want);
}

#[tokio::test]
async fn a_gap_is_told_in_its_place() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis.url());
    let mut listener = start(&[&node], &[]);
    joined(&listener);
    say(&mut listener, json!({"publish": "seen"}));
    let seen = listener.event("entry")["id"].as_str().unwrap().to_owned();
    node.kill9();
    for text in ["missed", "missed", "kept", "kept, too"] {
        redis.cli(&["XADD", "lobby", "*", "message", text]);
    }
    redis.cli(&["XTRIM", "lobby", "MAXLEN", "2"]);
    node.restart();
    let kept = stream(&redis);
    let next = || loop {
        let event = listener.json();
        if ["gap", "entry"].contains(&event["event"].as_str().unwrap()) {
            return event;
        }
    };
    let gap = next();
    assert_eq!(gap["after"], seen.as_str());
    assert_eq!(gap["before"], kept[0].0.to_string());
    assert_eq!(gap["reason"], "trimmed");
    for (id, text) in &kept {
        let entry = next();
        assert_eq!(entry["id"], id.to_string());
        assert_eq!(entry["text"], text.as_str());
    }
    // Once told, it's not told again by the next connection.
    node.restart();
    let id = node.publish("lobby", "after");
    let entry = next();
    assert_eq!(entry["id"], id.as_str(), "{entry}");
}

#[tokio::test]
async fn a_stream_begun_anew_is_a_gap_and_goes_on() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let listener = start(&[&node], &[]);
    joined(&listener);
    let far = "99999999999999-0";
    redis.cli(&["XADD", "lobby", far, "message", "far ahead"]);
    assert_eq!(listener.event("entry")["id"], far);
    redis.cli(&["DEL", "lobby"]);
    let id = redis.cli(&["XADD", "lobby", "*", "message", "anew"]);
    let gap = listener.event("gap");
    assert_ne!(gap["reason"], "trimmed");
    assert_eq!(listener.event("entry")["id"], id.as_str());
}

#[tokio::test]
async fn redis_away_is_waited_for() {
    let mut redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), &["--publish-timeout", "200ms"]);
    let mut publisher = start(&[&node], &[]);
    joined(&publisher);
    redis.kill9();
    say(&mut publisher, json!({"publish": "patient"}));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(!has_stored(&publisher));
    redis.restart();
    let id = publisher.event("stored")["id"].as_str().unwrap().to_owned();
    let entries = stream(&redis);
    assert_eq!(entries, [(id.parse().unwrap(), "patient".to_owned())]);
}

fn has_stored(program: &Program) -> bool {
    while program.has_lines() {
        if program.json()["event"] == "stored" {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn people_reactions_moderation_and_inbox() {
    let redis = RedisServer::start();
    let (one, two) = (Node::start(&redis.url()), Node::start(&redis.url()));
    let mut alice = start(&[&one], &["--user", "alice"]);
    let mut bob = start(&[&two], &["--user", "bob"]);
    joined(&alice);
    joined(&bob);
    loop {
        let presence = alice.event("presence");
        if presence["users"] == json!(["alice", "bob"]) {
            assert_eq!(presence["count"], 2);
            break;
        }
    }
    say(&mut bob, json!({"publish": "rude"}));
    let id = bob.event("stored")["id"].clone();
    let entry = alice.event("entry");
    assert_eq!((&entry["id"], &entry["user"]), (&id, &json!("bob")));
    say(&mut bob, json!({"react": "heart"}));
    assert_eq!(
        alice.event("reactions")["totals"],
        json!({"heart": 1}),
        "the reaction comes over nodes"
    );
    say(&mut alice, json!({"moderate": {"act": "delete", "id": id}}));
    assert_eq!(alice.event("done")["act"], "delete");
    assert_eq!(bob.event("deleted")["ids"], json!([id]));
    say(
        &mut alice,
        json!({"moderate": {"act": "pin", "message": "be kind"}}),
    );
    assert_eq!(bob.event("info")["pin"]["message"], "be kind");
    say(&mut alice, json!({"to": "bob", "text": "a word?"}));
    let word = bob.event("inbox");
    assert_eq!(
        (&word["text"], &word["user"]),
        (&json!("a word?"), &json!("alice"))
    );
    say(
        &mut alice,
        json!({"moderate": {"act": "mute", "user": "bob"}}),
    );
    while alice.event("done")["act"] != "mute" {}
    say(&mut bob, json!({"publish": "but"}));
    assert_eq!(bob.event("refused")["code"], "muted");
    say(
        &mut alice,
        json!({"moderate": {"act": "ban", "user": "bob"}}),
    );
    loop {
        let event = bob.event("room-state");
        if event["state"] == "refused" {
            assert_eq!(event["code"], "banned");
            break;
        }
    }
}

#[tokio::test]
async fn history_by_pages_and_several_rooms() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let ids: Vec<String> = (0..5)
        .map(|number| node.publish("lobby", format!("m{number}")))
        .collect();
    let mut client = start(&[&node], &["--user", "ann", "--from", "last:1"]);
    assert_eq!(client.event("entry")["id"], ids[4].as_str());
    say(
        &mut client,
        json!({"history": {"before": ids[4], "limit": 3}}),
    );
    let page = client.event("history");
    let got: Vec<&Value> = page["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| &entry["id"])
        .collect();
    assert_eq!(got, [&ids[1], &ids[2], &ids[3]]);
    assert_eq!(page["next"], ids[1].as_str());
    say(&mut client, json!({"join": "news"}));
    loop {
        let event = client.event("room-state");
        if event["room"] == "news" && event["state"] == "joined" {
            break;
        }
    }
    let id = node.publish("news", "read all about it");
    let entry = client.event("entry");
    assert_eq!((&entry["room"], &entry["id"]), (&json!("news"), &json!(id)));
}

#[tokio::test]
async fn tokens_go_in_the_first_frame() {
    let redis = RedisServer::start();
    let secret = "a secret of at least thirty-two bytes";
    let node = Node::start_with(&redis.url(), &["--auth", "jwt", "--jwt-secret", secret]);
    let token = mint(secret, "1h");
    let mut client = start(&[&node], &["--token", &token]);
    joined(&client);
    say(&mut client, json!({"publish": "in"}));
    client.event("stored");
    // What the token does not grant.
    say(&mut client, json!({"join": "elsewhere"}));
    loop {
        let event = client.event("room-state");
        if event["room"] == "elsewhere" && event["state"] == "refused" {
            assert_eq!(event["code"], "forbidden");
            break;
        }
    }
    let stranger = start(&[&node], &[]);
    loop {
        let event = stranger.event("state");
        if event["state"] == "closed" {
            assert_eq!(event["error"], "unauthenticated");
            break;
        }
    }
}

/// A token of ann's for the lobby.
fn mint(secret: &str, ttl: &str) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["token", "--jwt-secret", secret, "--ttl", ttl])
        .args(["--user", "ann", "--room", "lobby=member"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8(output.stdout).unwrap();
    token.trim().to_owned()
}

#[tokio::test]
async fn a_fresh_token_comes_before_the_old_one_ends() {
    let redis = RedisServer::start();
    let secret = "a secret of at least thirty-two bytes";
    let node = Node::start_with(&redis.url(), &["--auth", "jwt", "--jwt-secret", secret]);
    // One that is never replaced shows when the first one's time is over, for certain.
    let (short, long) = (mint(secret, "4s"), mint(secret, "1h"));
    let mut renewing = start(&[&node], &["--token", &short, "--token", &long]);
    let stale = start(&[&node], &["--token", &short]);
    joined(&renewing);
    joined(&stale);
    loop {
        let event = stale.event("state");
        assert_ne!(event["state"], "waiting", "{event}");
        if event["state"] == "closed" {
            assert_eq!(event["error"], "unauthenticated");
            break;
        }
    }
    say(&mut renewing, json!({"publish": "still here"}));
    loop {
        let event = renewing.json();
        assert_ne!(event["event"], "state", "the connection stayed: {event}");
        if event["event"] == "stored" {
            break;
        }
    }
}

#[test]
fn a_room_says_why_it_is_not_joined() {
    let redis = RedisServer::start();
    let secret = "a secret of at least thirty-two bytes";
    let node = Node::start_with(&redis.url(), &["--auth", "jwt", "--jwt-secret", secret]);
    for token in [&["--token", "spoilt"][..], &[]] {
        let mut client = start(&[&node], token);
        let want = |room: &str| {
            json!({
                "event": "not-ready", "room": room, "code": "unauthenticated",
                "name": "RefusedError", "state": "refused", "error": "unauthenticated",
            })
        };
        assert_eq!(client.event("not-ready"), want("lobby"));
        // Nor does what is joined afterwards throw.
        say(&mut client, json!({"join": "other"}));
        assert_eq!(client.event("not-ready"), want("other"));
        // After its own end there is nothing to join.
        let mut client = start(&[&node], &["--token", &mint(secret, "1h")]);
        joined(&client);
        say(&mut client, json!({"close": true}));
        say(&mut client, json!({"join": "other"}));
        assert_eq!(client.event("error")["code"], "closed");
    }
}

#[tokio::test]
async fn a_node_that_drains_loses_nothing() {
    let redis = RedisServer::start();
    let mut one = Node::start(&redis.url());
    let two = Node::start(&redis.url());
    let listener = start(&[&one, &two], &[]);
    let mut publisher = start(&[&one, &two], &[]);
    joined(&listener);
    joined(&publisher);
    say(&mut publisher, json!({"load": 5, "name": "p"}));
    let long_enough = |least: usize| {
        let redis = &redis;
        move || redis.cli(&["XLEN", "lobby"]).parse::<usize>().unwrap() >= least
    };
    crate::harness::until("it's under way", long_enough(50)).await;
    one.sigterm();
    assert!(one.wait_exit().success());
    crate::harness::until("it goes on at the other", long_enough(300)).await;
    let stored = stop(&mut publisher);
    let stream = stream(&redis);
    check_stored(&stream, &stored);
    assert_eq!(entries_to(&listener, stream.last().unwrap().0), stream);
}

#[tokio::test]
async fn a_node_that_hangs_is_left() {
    let redis = RedisServer::start();
    let (one, two) = (Node::start(&redis.url()), Node::start(&redis.url()));
    let mut client = start(&[&one, &two], &["--ping", "300"]);
    joined(&client);
    one.stop();
    let id = two.publish("lobby", "is anybody there?");
    assert_eq!(client.event("entry")["id"], id.as_str());
    say(&mut client, json!({"publish": "here"}));
    client.event("stored");
    one.cont();
    assert_eq!(redis.cli(&["XLEN", "lobby"]), "2");
}
