//! Who somebody is: tokens from every place, origins, expiry, and what is refused.

use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{KEY, NO_CREDENTIAL, SECRET, SLACK, add_node, ask, asked, assert_within, brief_token};
use super::{enter, enter_raw, open, publish, sign, start, token, try_open};
use crate::harness::clients::{Program, Sse, Ws};
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// A page's origin that is allowed.
const PAGE: &str = "https://app.example";

fn tailcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .env_clear()
        .args(arguments)
        .output()
        .unwrap()
}

/// What the program makes for somebody.
fn printed_token(arguments: &[&str]) -> String {
    let output = tailcast(&[&["token", "--jwt-secret", SECRET], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The next entry of a room that a client from npm has got.
fn next_entry(device: &Program, room: &str) -> (String, String) {
    loop {
        let frame = device.event("frame")["json"].take();
        if frame["type"] == "entry" && frame["room"] == room {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            return (text(&frame["id"]), text(&frame["fields"]["message"]));
        }
    }
}

#[test]
fn a_user_is_reached_on_both_devices() {
    let (_redis, nodes) = start::<2>(&["--allowed-origins", PAGE]);
    let token = printed_token(&["--user", "user1", "--room", "lobby=viewer", "--ttl", "1h"]);
    let cookie = format!("token={token}");
    let devices = nodes.each_ref().map(|node| {
        let url = node.ws_url("/rooms/lobby?format=json");
        let arguments = [&*url, "--json", "--cookie", &cookie, "--origin", PAGE];
        let device = Program::ws(&arguments);
        assert_eq!(device.json()["event"], "open");
        let mut rooms: Vec<Value> = (0..2)
            .map(|_| {
                let frame = device.event("frame")["json"].take();
                assert_eq!(frame["type"], "joined", "{frame}");
                frame["room"].clone()
            })
            .collect();
        rooms.sort_by_key(Value::to_string);
        assert_eq!(rooms, [json!("@user1"), json!("lobby")]);
        device
    });
    let sent: Vec<(String, String)> = (0..10)
        .map(|number| {
            let message = format!("message {number}");
            let node = &nodes[number % 2];
            let headers = [("x-api-key", KEY)];
            let answer = node.request("POST", "/users/user1", &headers, &message);
            assert_eq!(answer.status, 201, "{answer:?}");
            let answer = answer.json();
            assert_eq!(answer["room"], "@user1");
            (answer["id"].as_str().unwrap().to_owned(), message)
        })
        .collect();
    for device in &devices {
        let got: Vec<_> = (0..10).map(|_| next_entry(device, "@user1")).collect();
        assert_eq!(got, sent);
    }
    // Once: what comes next is what is sent next.
    let last = publish(&nodes[0], "@user1", "last");
    for device in &devices {
        assert_eq!(
            next_entry(device, "@user1"),
            (last.clone(), "last".to_owned())
        );
    }
    for node in &nodes {
        let page = asked(node, &token, "GET", "/rooms/@user1?limit=10", Value::Null);
        let ids: Vec<&str> = page["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["id"].as_str().unwrap())
            .collect();
        let want: Vec<&str> = sent.iter().map(|(id, _)| &**id).collect();
        assert_eq!(ids, want);
    }
}

#[tokio::test]
async fn an_inbox_is_resumed_and_comes_raw_if_asked_for() {
    let (_redis, [node, other]) = start::<2>(&[]);
    let ann = token("ann", "lobby=viewer");
    let first = publish(&node, "@ann", "first");
    publish(&other, "@ann", "second");
    let path = format!("/rooms/lobby?format=json&inbox={first}");
    let mut socket = open(&node, &ann, &path).await;
    let entry = socket.frame_of("entry").await;
    assert_eq!(
        (&entry["room"], &entry["fields"]["message"]),
        (&json!("@ann"), &json!("second"))
    );
    let mut raw = enter_raw(&other, &ann, "/rooms/lobby?inbox=1").await;
    let mut without = enter_raw(&other, &ann, "/rooms/lobby").await;
    // Nothing tells a raw socket that its second room is joined.
    let deadline = Instant::now() + crate::harness::PATIENCE;
    loop {
        publish(&node, "@ann", "to ann");
        let next = tokio::time::timeout(Duration::from_millis(100), raw.text()).await;
        match next {
            Ok(text) => break assert_eq!(text, "to ann"),
            Err(_) => assert!(Instant::now() < deadline, "an inbox stays silent"),
        }
    }
    publish(&node, "lobby", "to all");
    assert_eq!(without.text().await, "to all");
}

#[tokio::test]
async fn a_cookie_counts_from_allowed_pages_only() {
    let (redis, [node]) = start::<1>(&["--allowed-origins", PAGE]);
    let ann = token("ann", "lobby=member");
    let cookie = format!("a=b; token={ann}");
    let bearer = format!("Bearer {ann}");
    let post = |node: &Node, headers: &[(&str, &str)]| {
        node.request("POST", "/rooms/lobby", headers, "x").status
    };
    let url = node.ws_url("/rooms/lobby");
    for origin in ["https://evil.example", "null", "http://app.example"] {
        let cookie_option = format!("token={ann}");
        let page = Program::ws(&[&url, "--cookie", &cookie_option, "--origin", origin]);
        let refused = page.json();
        assert_eq!(
            (&refused["event"], &refused["status"]),
            (&json!("refused"), &json!(403)),
            "{refused}"
        );
        let headers = [("cookie", &*cookie), ("origin", origin)];
        assert_eq!(post(&node, &headers), 403, "{origin}");
        let history = node.request("GET", "/rooms/lobby", &headers, "");
        assert_eq!(history.status, 403, "{origin}");
        let events = Sse::open(&node, "/rooms/lobby", &headers);
        assert!(events.head.contains(" 403 "), "{}", events.head);
    }
    // A browser sends no Origin with some requests, but says that they come from elsewhere.
    let strange = [("cookie", &*cookie), ("sec-fetch-site", "cross-site")];
    let answer = node.request("GET", "/rooms/lobby", &strange, "");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (403, "origin_not_allowed")
    );
    for headers in [&[("cookie", &*cookie), ("origin", PAGE)][..], &strange[..1]] {
        assert_eq!(post(&node, headers), 201, "{headers:?}");
    }
    // With any page let in, a cookie would let any page speak for who looks at it.
    let anywhere = add_node(&redis, &["--allowed-origins", "*"]);
    for origin in [PAGE, "https://evil.example"] {
        let from = ("origin", origin);
        let headers = [("cookie", &*cookie), from];
        // It's as if there were none.
        let socket = Ws::try_open(&anywhere, "/rooms/lobby", &headers).await;
        let mut socket = socket.expect("any page may come in");
        assert_eq!(socket.closed().await, (4403, NO_CREDENTIAL.to_owned()));
        assert_eq!(post(&anywhere, &headers), 401);
        let me = anywhere.request("GET", "/me", &headers, "").json();
        assert_eq!(me["user"], Value::Null);
        // Clients of SockJS can't leave cookies out, and browsers ask for this then.
        for path in ["/ws/info", "/socket.io/?EIO=4&transport=polling"] {
            let answer = anywhere.request("GET", path, &headers, "");
            assert_eq!(answer.status, 200, "{path}");
            let allows = |name: &str| answer.header(name).unwrap_or_default().to_owned();
            assert_eq!(allows("access-control-allow-origin"), origin);
            assert_eq!(allows("access-control-allow-credentials"), "true");
        }
        let answer = anywhere.request("GET", "/me", &headers, "");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let headers = [("authorization", &*bearer), from];
        let mut socket = Ws::try_open(&anywhere, "/rooms/lobby", &headers)
            .await
            .expect("a page can't send another's token");
        assert_eq!(socket.pinged().await, Ok(()));
        assert_eq!(post(&anywhere, &headers), 201);
        let path = format!("/rooms/lobby?token={ann}");
        let mut socket = Ws::try_open(&anywhere, &path, &[from]).await.unwrap();
        assert_eq!(socket.pinged().await, Ok(()));
    }
}

#[tokio::test]
async fn without_a_good_token() {
    let (_redis, [node]) = start::<1>(&[]);
    let missing = (4403, NO_CREDENTIAL.to_owned());
    let mut raw = Ws::open(&node, "/rooms/r").await;
    assert_eq!(raw.closed().await, missing);
    for first in [
        Message::text(r#"{"type":"ping"}"#),
        Message::text(r#"{"type":"publish","message":"x"}"#),
        Message::text(r#"{"type":"join","room":"s"}"#),
        Message::text(r#"{"type":"auth"}"#),
        Message::text("nonsense"),
        Message::binary(&b"{}"[..]),
    ] {
        let mut socket = Ws::open(&node, "/rooms/r?format=json&user=ann").await;
        socket.send_message(first.clone()).await;
        match socket.next().await {
            Some(Message::Close(Some(frame))) => {
                assert_eq!(
                    (u16::from(frame.code), frame.reason.as_str()),
                    (4403, NO_CREDENTIAL)
                );
            }
            other => panic!("{first}: {other:?}"),
        }
    }

    let past = SystemTime::now() - Duration::from_secs(3600);
    let expired = sign("ann", "r=host", past, Duration::from_secs(60));
    let good = token("ann", "r=host");
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{unsigned}.{}", expired.rsplit_once('.').unwrap().1);
    for (bad, why) in [
        (&*expired, "the token has expired"),
        (&*forged, "the token is refused"),
        ("nonsense", "the token is refused"),
        (unsigned, "the token is refused"),
    ] {
        for format in ["raw", "json"] {
            let path = format!("/rooms/r?format={format}");
            let mut socket = open(&node, bad, &path).await;
            let (code, reason) = socket.closed().await;
            assert_eq!(code, 4401, "{bad}: {reason}");
            assert!(reason.starts_with(why), "{reason}");
        }
        let mut socket = Ws::open(&node, "/rooms/r?format=json").await;
        socket.send_json(json!({"type":"auth","token":bad})).await;
        assert_eq!(socket.closed().await.0, 4401, "{bad}");
    }
    for (method, path) in [
        ("GET", "/rooms/r"),
        ("POST", "/rooms/r"),
        ("POST", "/users/ann"),
        ("GET", "/users/ann"),
        ("GET", "/rooms"),
        ("GET", "/nodes"),
        ("GET", "/rooms/r/presence"),
        ("POST", "/rooms/r/moderation"),
        ("POST", "/publish"),
    ] {
        let bearer = format!("Bearer {expired}");
        for headers in [
            &[][..],
            &[("authorization", &*bearer)],
            &[("x-api-key", KEY)],
        ] {
            let wrong_key = [("x-api-key", "the-key-of-somebody-else")];
            let is_key = headers
                .first()
                .is_some_and(|(name, _)| *name == "x-api-key");
            let headers = if is_key { &wrong_key[..] } else { headers };
            let answer = node.request(method, path, headers, "");
            assert_eq!(answer.status, 401, "{method} {path}: {answer:?}");
            assert_eq!(answer.error_code(), "unauthenticated");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    let events = Sse::open(&node, "/rooms/r", &[]);
    assert!(events.head.starts_with("HTTP/1.1 401 "), "{}", events.head);
}

#[tokio::test]
async fn the_first_frame_may_say_who_it_is() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut socket = Ws::open(&node, "/rooms/r?format=json&inbox=0").await;
    let mut silent = Ws::open(&node, "/rooms/r?format=json").await;
    let opened = Instant::now();
    let auth = json!({"type":"auth","token":token("ann", "r=member"),"ref":1});
    socket.send_json(auth).await;
    assert_eq!(
        socket.frame().await,
        json!({"type":"authenticated","ref":1,"user":"ann"})
    );
    assert_eq!(socket.frame().await["type"], "joined");
    let publish = json!({"type":"publish","message":"hi","echo":false});
    let ack = socket.ask(publish).await;
    assert_eq!(ack["type"], "ack", "{ack}");
    let mut server = Ws::open(&node, "/rooms/r?format=json").await;
    server.send_json(json!({"type":"auth","token":KEY})).await;
    let want = json!({"type":"authenticated","user":null});
    assert_eq!(server.frame().await, want);
    // Whoever says nothing is not kept.
    assert_eq!(silent.closed().await, (4403, NO_CREDENTIAL.to_owned()));
    assert!(opened.elapsed() > Duration::from_secs(9));
    assert_within("silence", opened.elapsed(), Duration::from_secs(10));
    socket.assert_quiet().await;
}

#[tokio::test]
async fn a_token_expires_while_connected() {
    let (_redis, [node]) = start::<1>(&[]);
    let brief = brief_token("ann", "r=member", 2);
    let mut raw = enter_raw(&node, &brief, "/rooms/r").await;
    let mut socket = enter(&node, &brief, "r", "").await;
    let mut stays = enter(&node, &brief, "r", "").await;
    let bearer = format!("Bearer {brief}");
    let mut events = Sse::open(&node, "/rooms/r", &[("authorization", &bearer)]);
    let opened = Instant::now();

    // What does not count leaves everything as it was.
    let bad = stays.ask(json!({"type":"auth","token":"nonsense"})).await;
    assert_eq!(bad["code"], "unauthenticated", "{bad}");
    let others = json!({"type":"auth","token":token("bob", "r=host")});
    assert_eq!(stays.ask(others).await["type"], "error");
    let fresh = json!({"type":"auth","token":token("ann", "r=member")});
    assert_eq!(
        stays.ask(fresh).await,
        json!({"type":"authenticated","ref":"asked","user":"ann"})
    );

    let over = (4401, "the token has expired".to_owned());
    assert_eq!(raw.closed().await, over);
    assert_eq!(socket.closed().await, over);
    let last = std::iter::from_fn(|| events.block()).last().unwrap();
    assert_eq!(last.event.as_deref(), Some("error"));
    assert!(last.data.unwrap().contains("unauthenticated"));
    assert!(events.has_ended(), "the body is whole");
    assert_within("expiry", opened.elapsed(), Duration::from_secs(2));
    assert_eq!(
        ask(&node, &brief, "GET", "/rooms/r", Value::Null).status,
        401
    );
    // The other one's time was counted anew.
    tokio::time::sleep(SLACK).await;
    stays.assert_quiet().await;
}

#[tokio::test]
async fn a_fresh_token_may_take_a_room_away() {
    let (_redis, [node]) = start::<1>(&[]);
    let mut socket = enter(&node, &token("ann", "r=member,s=member"), "r", "").await;
    let join = json!({"type":"join","room":"s"});
    socket.send_json(join.clone()).await;
    assert_eq!(socket.frame_of("joined").await["room"], "s");
    let fresh = token("ann", "r=viewer,t=member");
    let auth = json!({"type":"auth","token":fresh});
    assert_eq!(socket.ask(auth).await["type"], "authenticated");
    assert_eq!(socket.frame().await, json!({"type":"left","room":"s"}));
    publish(&node, "s", "not for ann");
    let users = || asked(&node, KEY, "GET", "/rooms/s/presence", Value::Null)["count"].clone();
    crate::harness::until("ann has left", || users() == 0).await;
    // And what was publishing is so no more.
    let refused = socket.ask(json!({"type":"publish","message":"x"})).await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    socket.send_json(join).await;
    assert_eq!(socket.frame().await["code"], "forbidden");
    socket.assert_quiet().await;
}

#[tokio::test]
async fn a_fresh_token_may_take_the_sight_of_others_away() {
    let (_redis, [node]) = start::<1>(&["--role", "member=subscribe+publish"]);
    let viewer = token("ann", "r=viewer,s=viewer");
    let mut socket = enter(&node, &viewer, "r", "&presence=1").await;
    socket.frame_of("presence").await;
    socket.send_json(json!({"type":"join","room":"s"})).await;
    socket.frame_of("joined").await;
    let auth = json!({"type":"auth","token":token("ann", "r=member,s=member")});
    assert_eq!(socket.ask(auth).await["type"], "authenticated");
    assert_eq!(socket.frame().await, json!({"type":"left","room":"r"}));
    publish(&node, "s", "seen");
    assert_eq!(socket.frame().await["fields"]["message"], "seen");
    socket
        .send_json(json!({"type":"join","room":"r","presence":true}))
        .await;
    assert_eq!(socket.frame().await["code"], "forbidden");
    socket.send_json(json!({"type":"join","room":"r"})).await;
    assert_eq!(socket.frame().await["type"], "joined");
}

#[tokio::test]
async fn tokens_and_keys_are_never_logged() {
    let (_redis, [node]) = start::<1>(&["--log", "trace"]);
    let ann = token("ann", "r=host");
    let forged = format!("{ann}x");
    for token in [&ann, &forged] {
        for format in ["raw", "json"] {
            let path = format!("/rooms/r?format={format}&token={token}");
            let _ = Ws::open(&node, &path).await.pinged().await;
        }
        Sse::open(&node, &format!("/rooms/r?token={token}"), &[]);
        for path in ["/rooms/r", "/rooms/r/presence", "/nothing"] {
            node.get(&format!("{path}?token={token}"));
        }
        node.request("POST", &format!("/rooms/r?token={token}"), &[], "x");
        let cookie = format!("token={token}");
        node.request("GET", "/rooms/r", &[("cookie", &cookie)], "");
        ask(&node, token, "GET", "/rooms/r", Value::Null);
        let mut socket = Ws::open(&node, "/rooms/r?format=json").await;
        socket.send_json(json!({"type":"auth","token":token})).await;
        let _ = socket.next().await;
        // Where a token does not belong.
        let _ = try_open(&node, &ann, &format!("/rooms/r?format={token}")).await;
    }
    ask(&node, KEY, "GET", "/rooms", Value::Null);
    drop(node.get("/health/live"));
    let logged = node.stderr();
    assert!(logged.len() > 1_000, "a trace is long: {logged}");
    let signature = ann.rsplit_once('.').unwrap().1;
    for secret in [&*ann, signature, KEY, SECRET] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

#[tokio::test]
async fn who_comes_without_a_token_may_have_a_role() {
    let (_redis, [node]) = start::<1>(&["--anonymous-role", "lobby=viewer"]);
    // `?user=` is believed where nobody is checked only.
    let mut socket = Ws::open(&node, "/rooms/lobby?format=json&presence=1&user=ann").await;
    assert_eq!(socket.frame().await["type"], "joined");
    let refused = socket.ask(json!({"type":"publish","message":"x"})).await;
    assert_eq!(refused["code"], "forbidden", "{refused}");
    publish(&node, "lobby", "hello");
    assert_eq!(socket.frame_of("entry").await["fields"]["message"], "hello");
    let presence = asked(&node, KEY, "GET", "/rooms/lobby/presence", Value::Null);
    assert_eq!(presence["users"], json!([]));
    assert_eq!(node.get("/rooms/lobby").status, 200);
    assert_eq!(node.get("/rooms/other").status, 403);
    for room in ["other", "@ann"] {
        let mut raw = Ws::open(&node, &format!("/rooms/{room}?user=ann")).await;
        assert_eq!(raw.closed().await.0, 4403, "{room}");
    }
    // A bad token is no lack of one.
    let mut socket = open(&node, "nonsense", "/rooms/lobby").await;
    assert_eq!(socket.closed().await.0, 4401);
}

#[test]
fn nobody_is_unchecked_in_public_by_accident() {
    for listen in ["0.0.0.0:0", "[::]:0", "127.0.0.1:0,0.0.0.0:0"] {
        let refused = tailcast(&["--memory", "--listen", listen]);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{listen}: {stderr}");
        assert!(
            stderr.contains("--insecure") && stderr.contains("--auth jwt"),
            "{stderr}"
        );
        // The settings alone, so that no test listens where others can come in.
        for (arguments, allowed) in [
            (&[][..], false),
            (&["--insecure"], true),
            (&["--auth", "jwt", "--jwt-secret", SECRET], true),
        ] {
            let config =
                tailcast(&[&["config", "--memory", "--listen", listen], arguments].concat());
            assert_eq!(config.status.success(), allowed, "{config:?}");
            let printed = String::from_utf8(config.stdout).unwrap();
            assert!(!printed.contains(SECRET), "{printed}");
        }
    }
}

#[tokio::test]
async fn where_nobody_is_checked() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let mut bob = Ws::open(&node, "/rooms/live?format=json&user=bob").await;
    for _ in 0..2 {
        assert_eq!(bob.frame().await["type"], "joined");
    }
    let answer = node.request("POST", "/rooms/live?user=ann", &[], "hi");
    assert_eq!(answer.status, 201, "{answer:?}");
    let want = json!({"message":"hi","user":"ann"});
    assert_eq!(bob.frame().await["fields"], want);
    let answer = node.request("POST", "/users/bob?user=ann", &[], "psst");
    assert_eq!(answer.json()["room"], "@bob");
    assert_eq!(bob.frame().await["room"], "@bob");
    for (user, status) in [("?user=bob", 200), ("?user=ann", 403), ("", 403)] {
        let answer = node.get(&format!("/rooms/@bob{user}"));
        assert_eq!(answer.status, status, "{user}");
    }
    let bad = node.get("/rooms/live?user=%00");
    assert_eq!((bad.status, &*bad.error_code()), (401, "unauthenticated"));
    // Everybody is a host; that makes nobody immune.
    let headers = [("content-type", "application/json")];
    let ban = r#"{"act":"ban","user":"bob"}"#;
    let done = node.request("POST", "/rooms/live/moderation?user=ann", &headers, ban);
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(bob.closed().await.0, 4403);
    let refused = node.request("POST", "/rooms/live?user=bob", &[], "x");
    assert_eq!((refused.status, &*refused.error_code()), (403, "banned"));
}
