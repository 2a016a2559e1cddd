//! What moderators do: on all nodes within a second, again on every reconnect, and on record.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{KEY, SECOND, add_node, ask, asked, assert_within, enter, enter_raw, events, moderate};
use super::{named, open, post, publish, start, token};
use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

/// The records of the audit stream.
fn audit(redis: &RedisServer) -> Vec<HashMap<String, String>> {
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let reply: Vec<(String, HashMap<String, String>)> = redis::cmd("XRANGE")
        .arg(&["tailcast:audit", "-", "+"])
        .query(&mut connection)
        .unwrap();
    let with_id = |(id, mut fields): (String, HashMap<String, String>)| {
        fields.insert("id".to_owned(), id);
        fields
    };
    reply.into_iter().map(with_id).collect()
}

/// Publishes in a frame; the ID, or the code.
async fn say(socket: &mut Ws, message: &str) -> String {
    let answer = socket
        .ask(json!({"type":"publish","message":message}))
        .await;
    let text = if answer["type"] == "ack" {
        &answer["id"]
    } else {
        &answer["code"]
    };
    text.as_str().unwrap().to_owned()
}

/// Whether somebody may come in and be heard, by every way.
async fn is_kept_out(node: &Node, token: &str, room: &str) {
    let path = format!("/rooms/{room}");
    let mut raw = open(node, token, &path).await;
    let (code, reason) = raw.pinged().await.expect_err("the ban holds");
    assert_eq!(code, 4403, "{reason}");
    assert!(reason.starts_with("banned from this room"), "{reason}");
    let mut socket = open(node, token, &format!("{path}?format=json&inbox=0")).await;
    assert_eq!(socket.closed().await.0, 4403);
    let mut hall = enter(node, token, "hall", "").await;
    hall.send_json(json!({"type":"join","room":room})).await;
    assert_eq!(hall.frame().await["code"], "banned");
    for frame in [
        json!({"type":"publish","room":room,"message":"x"}),
        json!({"type":"publish","room":room,"message":"x","ephemeral":true}),
        json!({"type":"history","room":room}),
        json!({"type":"presence","room":room}),
        json!({"type":"react","room":room,"reaction":"heart"}),
    ] {
        let answer = hall.ask(frame.clone()).await;
        assert_eq!(answer["code"], "banned", "{frame}");
    }
    assert_eq!(post(node, token, room), (403, "banned".to_owned()));
    for path in [path.clone(), format!("{path}/presence")] {
        let answer = ask(node, token, "GET", &path, Value::Null);
        assert_eq!((answer.status, &*answer.error_code()), (403, "banned"));
    }
    let many = json!({"rooms":[room],"message":"x"});
    let results = asked(node, token, "POST", "/publish", many);
    assert_eq!(results["results"][0]["error"]["code"], "banned");
    let mut events = events(node, token, &path);
    if events.head.contains(" 200 ") {
        // Its rules were not known yet; they are then.
        assert!(named(&mut events, "error").to_string().contains("banned"));
    } else {
        assert!(events.head.contains(" 403 "), "{}", events.head);
    }
}

#[tokio::test]
async fn a_banned_user_is_out_at_once_and_stays_out() {
    let (redis, nodes) = start::<3>(&[]);
    let bob = token("bob", "live=member,hall=member");
    let mut mods = enter(&nodes[0], &token("mod", "live=moderator"), "live", "").await;
    let mut raw = enter_raw(&nodes[0], &bob, "/rooms/live").await;
    let mut home = enter(&nodes[1], &bob, "live", "").await;
    let mut away = enter(&nodes[2], &bob, "hall", "").await;
    away.send_json(json!({"type":"join","room":"live"})).await;
    assert_eq!(away.frame().await["type"], "joined");
    let mut stream = events(&nodes[2], &bob, "/rooms/live");
    assert!(stream.block().is_some());
    let mut carol = enter(&nodes[1], &token("carol", "live=member"), "live", "").await;
    let users = || asked(&nodes[1], KEY, "GET", "/rooms/live/presence", Value::Null);
    until("all are there", || users()["count"] == 3).await;

    let banned = Instant::now();
    let act = json!({"type":"moderate","act":"ban","user":"bob","reason":"spam"});
    let done = mods.ask(act).await;
    assert_eq!(
        (&done["type"], &done["act"]),
        (&json!("done"), &json!("ban"))
    );
    let why = "banned from this room until a moderator lifts it";
    assert_eq!(raw.closed().await, (4403, why.to_owned()));
    let told = home.frame_of("moderated").await;
    assert_eq!(
        told,
        json!({"type":"moderated","room":"live","act":"ban","reason":"spam"})
    );
    assert_eq!(home.closed().await, (4403, why.to_owned()));
    let left = away.frame_of("left").await;
    assert_eq!(
        left,
        json!({"type":"left","room":"live","code":"banned","message":why})
    );
    assert_eq!(named(&mut stream, "error")["message"], why);
    assert_within("a ban", banned.elapsed(), SECOND);
    until("bob counts no more", || users()["count"] == 2).await;
    away.assert_quiet().await;
    for node in &nodes {
        is_kept_out(node, &bob, "live").await;
    }
    let fresh = add_node(&redis, &[]);
    is_kept_out(&fresh, &bob, "live").await;
    carol.assert_quiet().await;

    let act = json!({"type":"moderate","act":"unban","user":"bob"});
    assert_eq!(mods.ask(act).await["type"], "done");
    for node in nodes.iter().chain([&fresh]) {
        let lifted = || post(node, &bob, "live").0 == 201;
        assert_within(
            "an unban",
            super::time_until("it's lifted", lifted).await,
            SECOND,
        );
        let mut back = enter(node, &bob, "live", "").await;
        assert_eq!(back.pinged().await, Ok(()));
    }
    away.send_json(json!({"type":"join","room":"live"})).await;
    assert_eq!(away.frame_of("joined").await["room"], "live");
}

#[tokio::test]
async fn a_ban_ends_by_itself() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let bob = token("bob", "live=member,hall=member");
    let started = Instant::now();
    let done = moderate(&node, "live", json!({"act":"ban","user":"bob","seconds":2}));
    assert!(done["until"].as_u64().is_some(), "{done}");
    for node in [&node, &other] {
        until("it holds", || post(node, &bob, "live").0 == 403).await;
        let mut raw = open(node, &bob, "/rooms/live").await;
        assert_eq!(raw.closed().await.0, 4403);
    }
    for node in [&node, &other] {
        until("it has ended", || post(node, &bob, "live").0 == 201).await;
        enter(node, &bob, "live", "").await;
    }
    assert!(started.elapsed() > Duration::from_millis(1_900));
    assert_within("a ban of 2 s", started.elapsed(), Duration::from_secs(2));
}

#[tokio::test]
async fn muted_users_listen() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let bob = token("bob", "live=member");
    let mut one = enter(&node, &bob, "live", "").await;
    let mut two = enter(&other, &bob, "live", "").await;
    let mut raw = enter_raw(&other, &bob, "/rooms/live").await;
    moderate(
        &node,
        "live",
        json!({"act":"mute","user":"bob","reason":"caps"}),
    );
    for socket in [&mut one, &mut two] {
        let told = socket.frame_of("moderated").await;
        assert_eq!(
            (&told["act"], &told["reason"]),
            (&json!("mute"), &json!("caps"))
        );
        assert_eq!(say(socket, "x").await, "muted");
        for frame in [
            json!({"type":"publish","message":"x","ephemeral":true}),
            json!({"type":"react","reaction":"heart"}),
        ] {
            assert_eq!(socket.ask(frame).await["code"], "muted");
        }
    }
    let fresh = enter(&other, &bob, "live", "").await;
    assert_eq!(post(&other, &bob, "live"), (403, "muted".to_owned()));
    raw.send("x").await;
    let (code, reason) = raw.closed().await;
    assert_eq!(code, 4403, "{reason}");
    assert!(reason.starts_with("muted"), "{reason}");
    // In this room only, and nothing is kept from them.
    let elsewhere = token("bob", "hall=member");
    assert_eq!(post(&other, &elsewhere, "hall").0, 201);
    let id = publish(&node, "live", "hear this");
    for mut socket in [one, two, fresh] {
        let entry = socket.frame_of("entry").await;
        assert_eq!(entry["id"], id, "{entry}");
    }
    moderate(&other, "live", json!({"act":"unmute","user":"bob"}));
    until("it's lifted", || post(&node, &bob, "live").0 == 201).await;
    let done = moderate(
        &node,
        "live",
        json!({"act":"timeout","user":"bob","seconds":1}),
    );
    assert!(done["until"].is_u64());
    let muted = || post(&node, &bob, "live") == (403, "muted".to_owned());
    until("it holds", muted).await;
    for node in [&node, &other] {
        until("it has ended", || post(node, &bob, "live").0 == 201).await;
    }
}

#[tokio::test]
async fn a_closed_room_hears_who_leads_it() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let bob = token("bob", "live=member");
    let mut socket = enter(&other, &bob, "live", "").await;
    moderate(&node, "live", json!({"act":"close"}));
    let told = socket.frame().await;
    assert_eq!(
        (&told["type"], &told["closed"]),
        (&json!("room"), &json!(true))
    );
    assert_eq!(say(&mut socket, "x").await, "closed");
    for frame in [
        json!({"type":"publish","message":"x","ephemeral":true}),
        json!({"type":"react","reaction":"heart"}),
    ] {
        assert_eq!(socket.ask(frame).await["code"], "closed");
    }
    for node in [&node, &other] {
        assert_eq!(post(node, &bob, "live"), (403, "closed".to_owned()));
        let cohost = token("co", "live=cohost");
        assert_eq!(post(node, &cohost, "live"), (403, "closed".to_owned()));
        for (user, role) in [("host", "live=host"), ("mod", "live=moderator")] {
            assert_eq!(post(node, &token(user, role), "live").0, 201, "{role}");
        }
    }
    publish(&node, "live", "of a back end");
    let mut late = enter(&node, &bob, "live", "").await;
    assert_eq!(late.frame().await["closed"], true);
    moderate(&other, "live", json!({"act":"open"}));
    assert_eq!(late.frame_of("room").await["closed"], false);
    assert!(say(&mut late, "again").await.contains('-'));
    until("it's open", || post(&other, &bob, "live").0 == 201).await;
}

#[tokio::test]
async fn slow_mode_counts_over_all_nodes() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let (bob, mods) = (token("bob", "live=member"), token("mod", "live=moderator"));
    let mut socket = enter(&node, &bob, "live", "").await;
    let mut there = enter(&other, &bob, "live", "").await;
    moderate(&node, "live", json!({"act":"slow","seconds":3}));
    for socket in [&mut socket, &mut there] {
        assert_eq!(socket.frame().await["slow"], 3);
    }
    let first = Instant::now();
    assert!(say(&mut socket, "one").await.contains('-'));
    let refused = there.ask(json!({"type":"publish","message":"two"})).await;
    assert_eq!(refused["code"], "slow_mode", "{refused}");
    let retry = refused["retry_ms"].as_u64().unwrap();
    assert!((1..=3_000).contains(&retry), "{refused}");
    assert_eq!(say(&mut socket, "two").await, "slow_mode");
    let answer = ask(
        &other,
        &bob,
        "POST",
        "/rooms/live",
        json!({"message":"two"}),
    );
    assert_eq!((answer.status, &*answer.error_code()), (429, "slow_mode"));
    let after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&after));
    // Each for themselves, and who moderates is free.
    assert_eq!(post(&other, &token("carol", "live=member"), "live").0, 201);
    for _ in 0..3 {
        assert_eq!(post(&other, &mods, "live").0, 201);
        publish(&node, "live", "of a back end");
    }
    tokio::time::sleep(Duration::from_millis(retry)).await;
    assert!(say(&mut there, "two").await.contains('-'));
    assert!(first.elapsed() >= Duration::from_secs(3));
    assert_eq!(say(&mut socket, "three").await, "slow_mode");
    moderate(&other, "live", json!({"act":"slow","seconds":0}));
    assert_eq!(
        socket.frame_that(|frame| frame["type"] == "room").await["slow"],
        0
    );
    assert!(say(&mut socket, "three").await.contains('-'));
    for bad in [121, 1_000_000] {
        let act = json!({"act":"slow","seconds":bad});
        let answer = ask(&node, KEY, "POST", "/rooms/live/moderation", act);
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_request"));
    }
}

#[tokio::test]
async fn a_shorter_slow_mode_counts_at_once() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let bob = token("bob", "live=member");
    let mut socket = enter(&node, &bob, "live", "").await;
    moderate(&node, "live", json!({"act":"slow","seconds":120}));
    assert_eq!(socket.frame_of("room").await["slow"], 120);
    assert!(say(&mut socket, "one").await.contains('-'));
    assert_eq!(say(&mut socket, "two").await, "slow_mode");
    // That was a slip.
    moderate(&other, "live", json!({"act":"slow","seconds":1}));
    assert_eq!(socket.frame_of("room").await["slow"], 1);
    tokio::time::sleep(SECOND).await;
    assert!(say(&mut socket, "two").await.contains('-'));
    assert_eq!(say(&mut socket, "three").await, "slow_mode");
}

#[tokio::test]
async fn pins_and_announcements() {
    let (redis, [node, other]) = start::<2>(&[]);
    let cohost = token("co", "live=cohost");
    let mut host = enter(&node, &cohost, "live", "").await;
    let mut viewer = enter(&other, &token("vi", "live=viewer"), "live", "").await;
    let mut stream = events(&other, KEY, "/rooms/live");
    stream.block();
    let id = say(&mut host, "look at this").await;
    assert_eq!(viewer.frame().await["id"], id);
    let act = json!({"type":"moderate","act":"pin","id":id});
    assert_eq!(host.ask(act).await["type"], "done");
    let told = viewer.frame().await;
    assert_eq!(
        (&told["type"], &told["announcement"]),
        (&json!("room"), &Value::Null)
    );
    let pin = &told["pin"];
    assert_eq!(
        (&pin["id"], &pin["message"]),
        (&json!(id), &json!("look at this"))
    );
    assert_eq!((&pin["user"], &pin["by"]), (&json!("co"), &json!("co")));
    assert_eq!(named(&mut stream, "room"), told);
    moderate(
        &other,
        "live",
        json!({"act":"announce","message":"at eight"}),
    );
    let both = viewer.frame().await;
    assert_eq!(both["pin"], *pin);
    assert_eq!(both["announcement"]["message"], "at eight");
    assert_eq!(both["announcement"]["by"], "shop");
    // On joining, right behind `joined` and before the first entry.
    let fresh = add_node(&redis, &[]);
    for node in [&node, &other, &fresh] {
        let mut late = enter(node, &cohost, "live", "&from=start").await;
        assert_eq!(late.frame().await, both);
        assert_eq!(late.frame().await["id"], id);
    }
    // The pin goes with its entry.
    moderate(&node, "live", json!({"act":"delete","id":id}));
    assert_eq!(viewer.frame().await["type"], "deleted");
    assert_eq!(viewer.frame().await["pin"], Value::Null);
    let late = enter(&other, &cohost, "live", "").await.frame().await;
    assert_eq!(late["pin"], Value::Null);
    let missing = ask(
        &node,
        KEY,
        "POST",
        "/rooms/live/moderation",
        json!({"act":"pin","id":id}),
    );
    assert_eq!(
        (missing.status, &*missing.error_code()),
        (400, "bad_request")
    );
    moderate(&node, "live", json!({"act":"pin","message":"again"}));
    assert_eq!(viewer.frame().await["pin"]["message"], "again");
    moderate(&node, "live", json!({"act":"unpin"}));
    assert_eq!(viewer.frame().await["pin"], Value::Null);
    moderate(&node, "live", json!({"act":"unannounce"}));
    assert_eq!(viewer.frame().await["announcement"], Value::Null);
    let mut late = enter(&other, &cohost, "live", "").await;
    late.assert_quiet().await;
}

#[tokio::test]
async fn topics_and_properties() {
    let (redis, [node, other]) = start::<2>(&[]);
    // Who may announce may, and who may moderate.
    let mut cohost = enter(&node, &token("co", "live=cohost"), "live", "").await;
    let mut moderator = enter(&other, &token("mo", "live=moderator"), "live", "").await;
    let member = token("me", "live=member");
    let mut viewer = enter(&other, &member, "live", "").await;
    let mut stream = events(&other, KEY, "/rooms/live");
    stream.block();
    let act = json!({"type":"moderate","act":"topic","message":"Café & friends"});
    let done = cohost.ask(act).await;
    assert_eq!(
        (&done["type"], &done["act"]),
        (&json!("done"), &json!("topic"))
    );
    let told = viewer.frame().await;
    let want = json!({
        "type": "room", "room": "live", "closed": false, "slow": 0, "pin": null,
        "announcement": null, "topic": "Café & friends", "properties": {},
    });
    assert_eq!(told, want);
    assert_eq!(named(&mut stream, "room"), want);
    let act = json!({"type":"moderate","act":"property","name":"color","value":"red"});
    assert_eq!(moderator.ask(act).await["type"], "done");
    assert_eq!(viewer.frame().await["properties"], json!({"color": "red"}));
    // Whoever comes is told, also by a node that was not there.
    let fresh = add_node(&redis, &[]);
    for node in [&node, &fresh] {
        let mut late = enter(node, &member, "live", "").await;
        let told = late.frame().await;
        assert_eq!(told["topic"], "Café & friends");
        assert_eq!(told["properties"], json!({"color": "red"}));
    }
    publish(&node, "live", "x");
    let listed = asked(&node, KEY, "GET", "/rooms", Value::Null);
    assert_eq!(listed["rooms"][0]["topic"], "Café & friends");
    viewer.frame_of("entry").await;

    let refused = |token: &str, act: Value, want: &str| {
        let answer = ask(&node, token, "POST", "/rooms/live/moderation", act.clone());
        assert_eq!(answer.error_code(), want, "{act}");
    };
    refused(
        &member,
        json!({"act":"topic","message":"mine"}),
        "forbidden",
    );
    refused(
        &member,
        json!({"act":"unproperty","name":"color"}),
        "forbidden",
    );
    let long = "x".repeat(201);
    refused(KEY, json!({"act":"topic","message":long}), "bad_request");
    for name in ["", "Color", "a b", "é", &"n".repeat(65)] {
        let act = json!({"act":"property","name":name,"value":"v"});
        refused(KEY, act, "bad_request");
    }
    let long = "x".repeat(1_001);
    let act = json!({"act":"property","name":"a","value":long});
    refused(KEY, act, "bad_request");
    for number in 1..32 {
        let name = format!("p{number}");
        moderate(
            &node,
            "live",
            json!({"act":"property","name":name,"value":""}),
        );
        viewer.frame_of("room").await;
    }
    let more = json!({"act":"property","name":"one-more","value":"v"});
    refused(KEY, more.clone(), "bad_request");
    moderate(
        &node,
        "live",
        json!({"act":"property","name":"color","value":"blue"}),
    );
    assert_eq!(viewer.frame().await["properties"]["color"], "blue");
    moderate(&node, "live", json!({"act":"unproperty","name":"p1"}));
    viewer.frame_of("room").await;
    moderate(&node, "live", more);
    let told = viewer.frame().await;
    assert_eq!(told["properties"].as_object().unwrap().len(), 32);
    let record = redis.cli(&["XREVRANGE", "tailcast:audit", "+", "-", "COUNT", "1"]);
    for part in ["property", "property:one-more", "shop"] {
        assert!(record.contains(part), "{record}");
    }
    moderate(&node, "live", json!({"act":"topic","message":""}));
    assert_eq!(viewer.frame().await["topic"], Value::Null);
}

#[tokio::test]
async fn each_act_is_on_record() {
    let (redis, [node]) = start::<1>(&[]);
    let mut host = enter(&node, &token("boss", "live=host"), "live", "").await;
    let id = publish(&node, "live", "x");
    let acts = [
        json!({"act":"mute","user":"bob","reason":"why not"}),
        json!({"act":"timeout","user":"bob","seconds":9}),
        json!({"act":"unmute","user":"bob"}),
        json!({"act":"ban","user":"bob","seconds":9}),
        json!({"act":"unban","user":"bob"}),
        json!({"act":"pin","id":id}),
        json!({"act":"unpin"}),
        json!({"act":"delete","id":id}),
        json!({"act":"delete","user":"bob"}),
        json!({"act":"close"}),
        json!({"act":"open"}),
        json!({"act":"slow","seconds":5}),
        json!({"act":"announce","message":"m"}),
        json!({"act":"unannounce"}),
    ];
    let mut dones = Vec::new();
    for (number, act) in acts.iter().enumerate() {
        dones.push(match number % 2 {
            0 => (moderate(&node, "live", act.clone()), "shop"),
            _ => {
                let mut act = act.clone();
                act["type"] = json!("moderate");
                (host.ask(act).await, "boss")
            }
        });
    }
    // What was refused is none.
    let viewer = token("vi", "live=viewer");
    let path = "/rooms/live/moderation";
    assert_eq!(
        ask(&node, &viewer, "POST", path, json!({"act":"close"})).status,
        403
    );
    assert_eq!(
        ask(&node, KEY, "POST", path, json!({"act":"kick"})).status,
        400
    );
    let records = audit(&redis);
    assert_eq!(records.len(), acts.len(), "{records:?}");
    for ((record, act), (done, by)) in records.iter().zip(&acts).zip(&dones) {
        assert_eq!(record["room"], "live");
        assert_eq!(record["by"], *by);
        assert_eq!(
            (&done["act"], &done["audit"]),
            (&act["act"], &json!(record["id"])),
            "{done}"
        );
        for name in ["act", "user", "reason"] {
            let in_record = record.get(name).map(String::as_str);
            assert_eq!(in_record, act[name].as_str(), "{name} of {act}");
        }
        assert_eq!(
            record.contains_key("until"),
            done["until"].is_u64(),
            "{act}"
        );
    }
}

#[tokio::test]
async fn a_host_by_token_is_immune() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let host = token("boss", "live=host,hall=member");
    let mut socket = enter(&other, &host, "live", "").await;
    for act in ["ban", "mute"] {
        moderate(&node, "live", json!({"act":act,"user":"boss"}));
    }
    assert!(say(&mut socket, "still here").await.contains('-'));
    for node in [&node, &other] {
        assert_eq!(post(node, &host, "live").0, 201);
        enter(node, &host, "live", "").await;
    }
    // By that token; as a member the same user is banned.
    let member = token("boss", "live=member");
    assert_eq!(post(&node, &member, "live"), (403, "banned".to_owned()));
}

#[tokio::test]
async fn a_fresh_token_ends_immunity() {
    let (_redis, [node]) = start::<1>(&[]);
    let host = token("boss", "live=host");
    let mut socket = enter(&node, &host, "live", "").await;
    let mut already = enter(&node, &token("eve", "live=host"), "live", "").await;
    moderate(&node, "live", json!({"act":"ban","user":"eve"}));
    let auth = |user| json!({"type":"auth","token":token(user, "live=member")});
    already.send_json(auth("eve")).await;
    assert_eq!(already.closed().await.0, 4403);
    assert_eq!(socket.ask(auth("boss")).await["type"], "authenticated");
    moderate(&node, "live", json!({"act":"ban","user":"boss"}));
    assert_eq!(socket.closed().await.0, 4403);
}

#[tokio::test]
async fn who_is_silenced_does_not_moderate() {
    let (_redis, [node]) = start::<1>(&[]);
    let mods = token("mod", "live=moderator");
    let host = token("host", "live=host");
    let _there = enter(&node, &host, "live", "").await;
    let act = |body: Value| ask(&node, &mods, "POST", "/rooms/live/moderation", body);
    // Nobody moderates a host, nor with a word too few or too many.
    let refused = act(json!({"act":"ban","user":"host"}));
    assert_eq!((refused.status, &*refused.error_code()), (403, "forbidden"));
    let misspelt = act(json!({"act":"ban","user":"bob","second":60}));
    assert_eq!(
        (misspelt.status, &*misspelt.error_code()),
        (400, "bad_json")
    );
    moderate(&node, "live", json!({"act":"timeout","user":"mod"}));
    let refused = act(json!({"act":"unmute","user":"mod"}));
    assert_eq!((refused.status, &*refused.error_code()), (403, "muted"));
    moderate(&node, "live", json!({"act":"unmute","user":"mod"}));
    assert_eq!(act(json!({"act":"close"})).status, 200);
    // It's closed, and open to who moderates.
    assert_eq!(act(json!({"act":"open"})).status, 200);
}
