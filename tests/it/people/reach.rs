//! Reaching people: echoes, what is shown and not kept, reactions, many addressees, who spoke, and
//! how often.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{KEY, ask, asked, enter, enter_raw, open, publish, start, token};
use crate::harness::clients::{Sse, Ws};
use crate::harness::node::Node;
use crate::harness::until;

fn message(frame: &Value) -> &str {
    frame["fields"]["message"].as_str().unwrap()
}

/// The messages of the next so many entries.
async fn messages(socket: &mut Ws, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let frame = socket.frame_of("entry").await;
        got.push(message(&frame).to_owned());
    }
    got
}

#[tokio::test]
async fn without_an_echo_all_but_the_sender_get_it() {
    let (_redis, [node, other]) = start::<2>(&["--rate", "member=0"]);
    let ann = token("ann", "live=member");
    let mut sender = enter(&node, &ann, "live", "").await;
    let mut others = [
        enter(&node, &ann, "live", "").await,
        enter(&node, &token("bob", "live=member"), "live", "").await,
        enter(&other, &ann, "live", "").await,
    ];
    let mut raw = enter_raw(&node, &ann, "/rooms/live").await;
    let all: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    for (number, message) in all.iter().enumerate() {
        let publish = json!({
            "type":"publish", "message":message, "echo":number % 3 == 0, "ref":number,
        });
        sender.send_json(publish).await;
    }
    let (mut acks, mut own) = (BTreeSet::new(), Vec::new());
    while acks.len() < all.len() || own.len() < all.len().div_ceil(3) {
        let frame = sender.frame().await;
        match frame["type"].as_str().unwrap() {
            "ack" => assert!(acks.insert(frame["ref"].as_u64().unwrap())),
            "entry" => own.push(message(&frame).to_owned()),
            other => panic!("{other}: {frame}"),
        }
    }
    let echoed: Vec<String> = all.iter().step_by(3).cloned().collect();
    assert_eq!(own, echoed);
    for socket in &mut others {
        assert_eq!(messages(socket, all.len()).await, all);
    }
    for want in &all {
        assert_eq!(raw.text().await, *want);
    }
    // What follows is no gap, and who comes back gets it all.
    publish(&other, "live", "end");
    assert_eq!(message(&sender.frame().await), "end");
    sender.assert_quiet().await;
    let mut again = enter(&node, &ann, "live", "&from=start").await;
    assert_eq!(messages(&mut again, all.len()).await, all);
}

#[tokio::test]
async fn what_is_ephemeral_is_shown_and_not_kept() {
    let (redis, [node, other]) = start::<2>(&[]);
    let ann = token("ann", "live=member,@*=member");
    let mut sender = enter(&node, &ann, "live", "").await;
    let mut viewers = [
        enter(&node, &token("bob", "live=viewer"), "live", "").await,
        enter(&other, &token("bob", "live=viewer"), "live", "").await,
    ];
    let mut raw = enter_raw(&other, &ann, "/rooms/live").await;
    let bearer = format!("Bearer {KEY}");
    let mut events = Sse::open(&other, "/rooms/live", &[("authorization", &bearer)]);
    events.block();
    let first = publish(&node, "live", "first");
    assert_eq!(raw.text().await, "first");
    assert_eq!(events.event().id, Some(first.clone()));
    let typing = json!({"type":"publish","fields":{"typing":"1"},"ephemeral":true,"echo":false});
    let ack = sender.ask(typing.clone()).await;
    assert_eq!(
        ack,
        json!({"type":"ack","ref":"asked","room":"live","id":null})
    );
    let shown = json!({"type":"ephemeral","room":"live","user":"ann","fields":{"typing":"1"}});
    for viewer in &mut viewers {
        assert_eq!(viewer.frame_of("ephemeral").await, shown);
    }
    let event = events.event();
    assert_eq!(
        (event.id, event.event.as_deref()),
        (None, Some("ephemeral"))
    );
    assert_eq!(
        serde_json::from_str::<Value>(&event.data.unwrap()).unwrap(),
        shown
    );
    // A back end's has no user.
    let body = json!({"message":"soon","ephemeral":true});
    let answer = asked(&other, KEY, "POST", "/rooms/live", body);
    assert_eq!(answer, json!({"room":"live","id":null}));
    let shown = json!({"type":"ephemeral","room":"live","fields":{"message":"soon"}});
    for socket in viewers.iter_mut().chain([&mut sender]) {
        assert_eq!(socket.frame_of("ephemeral").await, shown);
    }
    // To a user, on every device.
    let mut devices = Vec::new();
    for node in [&node, &other] {
        let bob = token("bob", "live=viewer");
        let mut device = open(node, &bob, "/rooms/live?format=json").await;
        for _ in 0..2 {
            assert_eq!(device.frame().await["type"], "joined");
        }
        devices.push(device);
    }
    let call = json!({"type":"publish","to":"bob","message":"ring","ephemeral":true});
    assert_eq!(sender.ask(call).await["room"], "@bob");
    for device in &mut devices {
        let shown = device.frame_of("ephemeral").await;
        assert_eq!((&shown["room"], message(&shown)), (&json!("@bob"), "ring"));
    }
    // Not stored, not shown raw, and never later.
    publish(&node, "live", "last");
    assert_eq!(raw.text().await, "last");
    assert_eq!(redis.cli(&["XLEN", "live"]), "2");
    assert_eq!(redis.cli(&["EXISTS", "@bob"]), "0");
    let mut late = enter(&other, &ann, "live", "&from=start").await;
    assert_eq!(message(&late.frame().await), "first");
    assert_eq!(message(&late.frame().await), "last");
    late.assert_quiet().await;
    assert_eq!(sender.ask(typing).await["type"], "ack");
    late.frame_of("ephemeral").await;
    sender.send_json(json!({"type":"ping"})).await;
    let is_meant = |frame: &Value| frame["type"] == "pong" || frame["type"] == "ephemeral";
    assert_eq!(sender.frame_that(is_meant).await["type"], "pong");
}

#[tokio::test]
async fn reactions_add_up_over_nodes() {
    let (redis, nodes) = start::<3>(&[]);
    let mut sockets = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let user = token(&format!("user{number}"), "live=viewer");
        sockets.push(enter(node, &user, "live", "").await);
    }
    for _ in 0..20 {
        for socket in &mut sockets {
            let heart = json!({"type":"react","reaction":"heart"});
            socket.send_json(heart).await;
        }
        sockets[1]
            .send_json(json!({"type":"react","reaction":"🎉"}))
            .await;
    }
    for (number, socket) in sockets.iter_mut().enumerate() {
        let (mut hearts, mut parties, mut total, mut frames) = (0, 0, (0, 0), 0);
        while total != (60, 20) {
            let frame = socket.frame_of("reactions").await;
            let of = |what: &str, name: &str| frame[what][name].as_u64();
            hearts += of("counts", "heart").unwrap_or(0);
            parties += of("counts", "🎉").unwrap_or(0);
            total.0 = of("totals", "heart").map_or(total.0, |told| told.max(total.0));
            total.1 = of("totals", "🎉").unwrap_or(total.1);
            frames += 1;
        }
        // The last total may overtake a count.
        while (hearts, parties) != (60, 20) {
            let frame = socket.frame_of("reactions").await;
            hearts += frame["counts"]["heart"].as_u64().unwrap_or(0);
            parties += frame["counts"]["🎉"].as_u64().unwrap_or(0);
            frames += 1;
        }
        assert!(frames < 40, "{frames} frames on node {number}");
        socket.assert_quiet().await;
    }
    for bad in [json!(""), json!("x".repeat(65)), json!("a\nb"), json!(1)] {
        let frame = json!({"type":"react","reaction":bad});
        assert_eq!(sockets[0].ask(frame).await["code"], "bad_request", "{bad}");
    }
    assert_eq!(redis.cli(&["EXISTS", "live"]), "0");
}

#[tokio::test]
async fn one_body_to_many() {
    let (redis, [node, other]) = start::<2>(&[]);
    let ann = token("ann", "a=viewer");
    let mut device = open(&other, &ann, "/rooms/a?format=json").await;
    for _ in 0..2 {
        assert_eq!(device.frame().await["type"], "joined");
    }
    let body = json!({
        "rooms":["a","tailcast:x","b"], "users":["ann","","bob"], "fields":{"k":"v"},
    });
    let results = asked(&node, KEY, "POST", "/publish", body)["results"].take();
    let results = results.as_array().unwrap();
    let names: Vec<String> = results
        .iter()
        .map(|row| {
            let named = row["room"].as_str().or(row["user"].as_str());
            let code = row["error"]["code"].as_str().unwrap_or("ok");
            assert_eq!(row["id"].is_string(), code == "ok", "{row}");
            format!("{} {code}", named.unwrap())
        })
        .collect();
    let want = [
        "a ok",
        "tailcast:x bad_room",
        "b ok",
        "ann ok",
        " bad_user",
        "bob ok",
    ];
    assert_eq!(names, want);
    for (row, key) in [(0, "a"), (2, "b"), (3, "@ann"), (5, "@bob")] {
        let stored = redis.entries(key);
        assert_eq!(stored.len(), 1, "{key}");
        assert_eq!(results[row]["id"], stored[0].0.to_string());
    }
    let mut rooms = Vec::new();
    for _ in 0..2 {
        let entry = device.frame().await;
        assert_eq!(entry["fields"], json!({"k":"v"}));
        rooms.push(entry["room"].as_str().unwrap().to_owned());
    }
    rooms.sort();
    assert_eq!(rooms, ["@ann", "a"]);
    // Under somebody's token each addressee by its own rights.
    let body = json!({"rooms":["c","d"],"users":["bob"],"message":"hi"});
    let some = token("carol", "c=member,d=viewer");
    let results = asked(&node, &some, "POST", "/publish", body)["results"].take();
    assert!(results[0]["id"].is_string(), "{results}");
    assert_eq!(results[1]["error"]["code"], "forbidden");
    assert_eq!(results[2]["error"]["code"], "forbidden");
    // The same again under one key.
    let send = || {
        let key = format!("Bearer {KEY}");
        let headers = [("authorization", &*key), ("idempotency-key", "once")];
        let body = r#"{"rooms":["e","f"],"message":"hi"}"#;
        node.request("POST", "/publish", &headers, body).json()
    };
    assert_eq!(send(), send());
    let body = json!({"rooms":["e"],"users":["ann"],"message":"hi","ephemeral":true});
    let results = asked(&node, KEY, "POST", "/publish", body);
    assert_eq!(results["results"][0], json!({"room":"e","id":null}));
    assert_eq!(device.frame().await["type"], "ephemeral");
    assert_eq!(redis.cli(&["XLEN", "e"]), "1");
    for bad in [
        json!({"message":"x"}),
        json!({"rooms":["a"]}),
        json!({"rooms":["a"],"to":1}),
    ] {
        assert_eq!(ask(&node, KEY, "POST", "/publish", bad).status, 400);
    }
}

#[tokio::test]
async fn who_spoke_is_never_the_clients_word() {
    let (_redis, [node]) = start::<1>(&["--anonymous-role", "open=member"]);
    let ann = token("ann", "live=member,open=member");
    let mut socket = enter(&node, &ann, "live", "").await;
    for fields in [
        json!({"user":"bob","message":"x"}),
        json!({"message":"x","user":"ann"}),
    ] {
        for ephemeral in [false, true] {
            let publish = json!({"type":"publish","fields":fields,"ephemeral":ephemeral});
            assert_eq!(socket.ask(publish).await["code"], "reserved_field");
            let body = json!({"fields":fields,"ephemeral":ephemeral});
            let answer = ask(&node, &ann, "POST", "/rooms/live", body);
            assert_eq!(
                (answer.status, &*answer.error_code()),
                (400, "reserved_field")
            );
        }
        let body = json!({"rooms":["live"],"fields":fields});
        let results = asked(&node, &ann, "POST", "/publish", body);
        assert_eq!(results["results"][0]["error"]["code"], "reserved_field");
    }
    let body = json!({"fields":{"user":"bob"}});
    let anonymous = node.request(
        "POST",
        "/rooms/open",
        &[("content-type", "application/json")],
        body.to_string(),
    );
    assert_eq!(&*anonymous.error_code(), "reserved_field");
    // By every way it's added, behind the client's own.
    let mut raw = enter_raw(&node, &ann, "/rooms/live").await;
    raw.send("one").await;
    let text = socket.text().await;
    assert!(text.contains(r#"{"message":"one","user":"ann"}"#), "{text}");
    assert_eq!(raw.text().await, "one");
    asked(&node, &ann, "POST", "/rooms/live", json!({"message":"two"}));
    socket
        .send_json(json!({"type":"publish","fields":{"x":"y"},"echo":true}))
        .await;
    for _ in 0..2 {
        let entry = socket.frame_of("entry").await;
        assert_eq!(entry["fields"]["user"], "ann", "{entry}");
    }
    assert_eq!(raw.text().await, "two");
    // Its message is the client's first field.
    assert_eq!(raw.text().await, "y");
    // A back end speaks for whom it likes, and for nobody otherwise.
    let body = json!({"fields":{"message":"x","user":"bob"}});
    asked(&node, KEY, "POST", "/rooms/live", body);
    assert_eq!(socket.frame_of("entry").await["fields"]["user"], "bob");
    publish(&node, "live", "x");
    assert_eq!(
        socket.frame_of("entry").await["fields"],
        json!({"message":"x"})
    );
    assert_eq!(node.request("POST", "/rooms/open", &[], "x").status, 201);
    let page = asked(&node, &ann, "GET", "/rooms/open", Value::Null);
    assert_eq!(page["entries"][0]["fields"], json!({"message":"x"}));
}

#[tokio::test]
async fn to_a_user_where_the_role_allows() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let mut devices = Vec::new();
    for node in [&node, &other] {
        let bob = token("bob", "live=viewer");
        let mut device = open(node, &bob, "/rooms/live?format=json").await;
        for _ in 0..2 {
            assert_eq!(device.frame().await["type"], "joined");
        }
        devices.push(device);
    }
    let ann = token("ann", "live=member,@b*=member");
    let mut sender = enter(&node, &ann, "live", "").await;
    let ack = sender
        .ask(json!({"type":"publish","to":"bob","message":"hi"}))
        .await;
    assert_eq!(
        (&ack["type"], &ack["room"]),
        (&json!("ack"), &json!("@bob"))
    );
    for device in &mut devices {
        let want = json!({
            "type":"entry","room":"@bob","id":ack["id"],"fields":{"message":"hi","user":"ann"},
        });
        assert_eq!(device.frame().await, want);
    }
    for (frame, code) in [
        (json!({"to":"carol"}), "forbidden"),
        (json!({"room":"@carol"}), "forbidden"),
        (json!({"to":"bob","room":"live"}), "bad_request"),
        (json!({"to":""}), "bad_request"),
        (json!({"to":1}), "bad_request"),
    ] {
        let mut frame = frame;
        frame["type"] = json!("publish");
        frame["message"] = json!("x");
        assert_eq!(sender.ask(frame.clone()).await["code"], code, "{frame}");
    }
    // The room's own roles say nothing about inboxes.
    let mut host = enter(&other, &token("boss", "*=host"), "live", "").await;
    let refused = host
        .ask(json!({"type":"publish","to":"bob","message":"x"}))
        .await;
    assert_eq!(refused["code"], "forbidden");
    for device in &mut devices {
        device.assert_quiet().await;
    }
}

/// Publishes as somebody by one of three ways; the wait in ms if it's refused for that.
async fn publishes(socket: &mut Ws, node: &Node, token: &str, number: usize) -> Option<u64> {
    let answer = match number % 3 {
        0 => socket.ask(json!({"type":"publish","message":"x"})).await,
        1 => {
            let answer = ask(node, token, "POST", "/rooms/live", json!({"message":"x"}));
            if answer.status == 201 {
                return None;
            }
            assert_eq!((answer.status, &*answer.error_code()), (429, "too_fast"));
            let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
            return Some(seconds * 1_000);
        }
        _ => {
            let body = json!({"rooms":["live"],"message":"x"});
            asked(node, token, "POST", "/publish", body)["results"][0]["error"].take()
        }
    };
    if answer["type"] == "ack" || answer.is_null() {
        return None;
    }
    assert_eq!(answer["code"], "too_fast", "{answer}");
    Some(answer["retry_ms"].as_u64().unwrap())
}

#[tokio::test]
async fn a_rate_is_exact_over_nodes() {
    let (redis, [node, other]) = start::<2>(&["--rate", "member=3/60s,cohost=1/3s"]);
    let nodes = [&node, &other];
    let ann = token("ann", "*=member");
    let mut sockets = [
        enter(&node, &ann, "live", "").await,
        enter(&other, &ann, "live", "").await,
    ];
    for number in 0..3 {
        let at = number % 2;
        let refused = publishes(&mut sockets[at], nodes[at], &ann, number).await;
        assert_eq!(refused, None, "{number}");
    }
    for number in 0..6 {
        let at = number % 2;
        let refused = publishes(&mut sockets[at], nodes[at], &ann, number).await;
        let wait = refused.expect("that was the fourth");
        assert!((1..=20_000).contains(&wait), "{number}: {wait}");
    }
    assert_eq!(redis.cli(&["XLEN", "live"]), "3");
    // By user and by room; a host has no limit, nor has a back end.
    assert_eq!(
        ask(&other, &ann, "POST", "/rooms/hall", json!({"message":"x"})).status,
        201
    );
    for (user, rooms, count) in [("bob", "live=member", 3), ("boss", "live=host", 30)] {
        let token = token(user, rooms);
        for _ in 0..count {
            let answer = ask(&node, &token, "POST", "/rooms/live", json!({"message":"x"}));
            assert_eq!(answer.status, 201, "{user}: {answer:?}");
        }
    }
    for _ in 0..10 {
        publish(&node, "live", "x");
    }
    // All at once, on both nodes.
    let carol = token("carol", "live=member");
    let stored = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let (node, carol) = (nodes[number % 2], &carol);
                let body = json!({"message":"x"});
                scope.spawn(move || ask(node, carol, "POST", "/rooms/live", body).status)
            })
            .collect();
        let statuses = threads.into_iter().map(|thread| thread.join().unwrap());
        statuses.filter(|status| *status == 201).count()
    });
    assert_eq!(stored, 3);
    // After the wait that was told, and not before it.
    let cohost = token("co", "live=cohost");
    let mut socket = enter(&other, &cohost, "live", "").await;
    let say = json!({"type":"publish","message":"x"});
    assert_eq!(socket.ask(say.clone()).await["type"], "ack");
    let first = Instant::now();
    let refused = socket.ask(say.clone()).await;
    let wait = Duration::from_millis(refused["retry_ms"].as_u64().unwrap());
    assert!(wait <= Duration::from_secs(3), "{refused}");
    tokio::time::sleep(wait).await;
    assert_eq!(socket.ask(say).await["type"], "ack");
    assert!(first.elapsed() > Duration::from_millis(2_900));
}

#[tokio::test]
async fn a_fresh_token_brings_its_own_rate() {
    let (_redis, [node]) = start::<1>(&["--rate", "member=1/60s"]);
    let mut socket = enter(&node, &token("ann", "live=member"), "live", "").await;
    let say = json!({"type":"publish","message":"x"});
    assert_eq!(socket.ask(say.clone()).await["type"], "ack");
    assert_eq!(socket.ask(say.clone()).await["code"], "too_fast");
    let auth = json!({"type":"auth","token":token("ann", "live=host")});
    assert_eq!(socket.ask(auth).await["type"], "authenticated");
    assert_eq!(socket.ask(say).await["type"], "ack");
}

#[tokio::test]
async fn a_repeat_under_a_key_is_no_second_message() {
    let (redis, [node]) = start::<1>(&["--rate", "member=1/60s"]);
    let ann = token("ann", "live=member");
    let mut socket = enter(&node, &ann, "live", "").await;
    let say = json!({"type":"publish","message":"x","key":"k"});
    let id = socket.ask(say.clone()).await["id"].clone();
    assert!(id.is_string());
    let other = json!({"type":"publish","message":"y","key":"l"});
    assert_eq!(socket.ask(other).await["code"], "too_fast");
    assert_eq!(socket.ask(say).await["id"], id);
    let bearer = format!("Bearer {ann}");
    let headers = [("authorization", &*bearer), ("idempotency-key", "k")];
    let answer = node.request("POST", "/rooms/live", &headers, "x");
    assert_eq!((answer.status, &answer.json()["id"]), (201, &id));
    assert_eq!(redis.cli(&["XLEN", "live"]), "1");
}

#[tokio::test]
async fn a_raw_socket_over_its_rate() {
    let (redis, [node]) = start::<1>(&["--rate", "member=3/60s,room=5/60s"]);
    let mut raw = enter_raw(&node, &token("ann", "live=member"), "/rooms/live").await;
    for _ in 0..4 {
        raw.send("x").await;
    }
    let (code, reason) = raw.closed().await;
    assert_eq!(code, 4429, "{reason}");
    assert!(reason.starts_with("too many messages"), "{reason}");
    until("three are stored", || redis.cli(&["XLEN", "live"]) == "3").await;
    // A room has its own, for all but who leads.
    let bob = token("bob", "live=member");
    let mut codes = Vec::new();
    for _ in 0..3 {
        let answer = ask(&node, &bob, "POST", "/rooms/live", json!({"message":"x"}));
        codes.push(answer.status);
        if answer.status == 429 {
            assert_eq!(&*answer.error_code(), "room_too_fast");
        }
    }
    assert_eq!(codes, [201, 201, 429]);
    let host = token("boss", "live=host");
    assert_eq!(
        ask(&node, &host, "POST", "/rooms/live", json!({"message":"x"})).status,
        201
    );
}

#[tokio::test]
async fn a_key_is_its_users_own() {
    let (redis, [node]) = start::<1>(&[]);
    let mut ids = BTreeSet::new();
    for user in ["ann", "bob"] {
        let mut socket = enter(&node, &token(user, "live=member"), "live", "").await;
        for _ in 0..2 {
            let frame = json!({"type":"publish","message":user,"key":"k","ref":1});
            socket.send_json(frame).await;
            let ack = socket.frame_of("ack").await;
            ids.insert(ack["id"].as_str().unwrap().to_owned());
        }
        let nul = json!({"type":"publish","message":user,"key":"ann\u{0}k","ref":1});
        socket.send_json(nul).await;
        assert_eq!(socket.frame_of("error").await["code"], "bad_request");
    }
    assert_eq!(ids.len(), 2, "{ids:?}");
    assert_eq!(redis.cli(&["XLEN", "live"]), "2");
}

#[tokio::test]
async fn what_is_shown_by_requests_has_a_pace() {
    let (_redis, [node]) = start::<1>(&[]);
    let ann = token("ann", "live=member");
    let body = || json!({"message":"look","ephemeral":true});
    let show = || ask(&node, &ann, "POST", "/rooms/live", body()).status;
    // However slow the machine, some ten of them in a second are too many.
    assert!((0..1_000).any(|_| show() == 429));
    // Back ends have none.
    assert_eq!(ask(&node, KEY, "POST", "/rooms/live", body()).status, 201);
}
