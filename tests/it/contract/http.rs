//! History, publishing through HTTP, names, and the shape of errors.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::http::uri::PathAndQuery;

use super::{setup, setup_with};
use crate::harness::clients::{Sse, Ws};
use crate::harness::http;

#[test]
fn history_in_both_orders_page_by_page() {
    let (redis, node) = setup_with(&["--history-limit", "50"]);
    for seq in 1..=10 {
        redis.cli(&["XADD", "r", &format!("{seq}-0"), "n", &seq.to_string()]);
    }
    let page = |query: &str| {
        let answer = node.get(&format!("/rooms/r{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let json = answer.json();
        assert_eq!(json["room"], "r");
        assert_eq!(json.as_object().unwrap().len(), 3);
        let entries = json["entries"].as_array().unwrap();
        let ids: Vec<String> = entries
            .iter()
            .map(|entry| entry["fields"]["n"].as_str().unwrap().to_owned())
            .collect();
        (ids.join(" "), json["next"].clone())
    };
    let all = "1 2 3 4 5 6 7 8 9 10".to_owned();
    assert_eq!(page(""), (all.clone(), Value::Null));
    assert_eq!(page("?limit=10"), (all, Value::Null));
    assert_eq!(page("?after=3-0&before=6-0"), ("4 5".into(), Value::Null));
    assert_eq!(
        page("?after=3&before=6&order=desc"),
        ("5 4".into(), Value::Null)
    );
    assert_eq!(page("?after=99-0"), (String::new(), Value::Null));
    for (order, bound, want) in [
        ("asc", "after", "1 2 3 4 5 6 7 8 9 10"),
        ("desc", "before", "10 9 8 7 6 5 4 3 2 1"),
    ] {
        let mut got = Vec::new();
        let mut query = format!("?limit=4&order={order}");
        loop {
            let (ids, next) = page(&query);
            got.push(ids);
            match next {
                Value::Null => break,
                next => {
                    query = format!("?limit=4&order={order}&{bound}={}", next.as_str().unwrap())
                }
            }
        }
        assert_eq!((got.len(), got.join(" ")), (3, want.to_owned()));
    }
    assert_eq!(
        node.get("/rooms/nobody").json(),
        json!({"room":"nobody","entries":[],"next":null})
    );
    for bad in [
        "limit=0",
        "limit=51",
        "limit=x",
        "order=up",
        "after=now",
        "before=x",
    ] {
        let answer = node.get(&format!("/rooms/r?{bad}"));
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (400, "bad_request"),
            "{bad}"
        );
    }
    // Where to begin, as sockets say it.
    assert_eq!(page("?from=last:2"), ("9 10".into(), Value::Null));
    assert_eq!(
        page("?from=last:3&order=desc"),
        ("10 9 8".into(), json!("8-0"))
    );
    assert_eq!(page("?from=last:3&limit=2"), ("8 9".into(), json!("9-0")));
    assert_eq!(page("?from=last:50").0, "1 2 3 4 5 6 7 8 9 10");
    assert_eq!(page("?from=start&limit=2"), ("1 2".into(), json!("2-0")));
    assert_eq!(page("?from=8-0"), ("9 10".into(), Value::Null));
    assert_eq!(page("?from=ago:1h"), (String::new(), Value::Null));
    assert_eq!(page("?from=&after=&limit=").0, "1 2 3 4 5 6 7 8 9 10");
    for bad in [
        "from=now",
        "from=last:51",
        "from=8-0&after=1-0",
        "form=last:2",
    ] {
        let answer = node.get(&format!("/rooms/r?{bad}"));
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (400, "bad_request"),
            "{bad}"
        );
    }
    let entry = &node.get("/rooms/r?limit=1").json()["entries"][0];
    assert_eq!(*entry, json!({"id":"1-0","fields":{"n":"1"}}));
}

#[test]
fn bodies() {
    let (redis, node) = setup();
    let post = |kind: &str, body: &[u8]| {
        let answer = node.request("POST", "/rooms/r", &[("content-type", kind)], body);
        assert_eq!(answer.status, 201, "{kind}: {answer:?}");
        let json = answer.json();
        assert_eq!(
            (json.as_object().unwrap().len(), &json["room"]),
            (2, &json!("r"))
        );
        let entries = redis.entries("r");
        let (id, payload) = entries.last().unwrap();
        assert_eq!(json["id"], id.to_string());
        payload.to_vec()
    };
    assert_eq!(post("application/json", br#"{"message":"hi"}"#), b"hi");
    assert_eq!(
        post("application/json; charset=utf-8", br#"{"message":""}"#),
        b""
    );
    assert_eq!(
        post("application/json", br#"{"fields":{"k":"v","l":"w"}}"#),
        b"v"
    );
    assert_eq!(
        post("text/plain", br#"{"message":"hi"}"#),
        br#"{"message":"hi"}"#
    );
    assert_eq!(
        post("application/octet-stream", &[0, 255, 10]),
        [0, 255, 10]
    );
    assert_eq!(post("application/x-www-form-urlencoded", b"a=b"), b"a=b");
    assert_eq!(post("text/plain", &[b'x'; 65_536]).len(), 65_536);
    for (kind, body, status, code) in [
        ("application/json", "hi", 400, "bad_json"),
        ("application/json", "", 400, "bad_json"),
        ("text/plain", "", 400, "bad_request"),
        ("application/x-www-form-urlencoded", "", 400, "bad_request"),
        ("application/json", r#"{"message":1}"#, 400, "bad_json"),
        ("application/json", "{}", 400, "bad_request"),
        (
            "application/json",
            r#"{"message":"a","fields":{"a":"b"}}"#,
            400,
            "bad_request",
        ),
        ("application/json", r#"{"fields":{}}"#, 400, "bad_request"),
        ("text/plain", &"x".repeat(65_537), 413, "too_large"),
    ] {
        let answer = node.request("POST", "/rooms/never", &[("content-type", kind)], body);
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (status, code),
            "{answer:?}"
        );
    }
    assert_eq!(redis.cli(&["EXISTS", "never"]), "0");
}

#[test]
fn a_chunked_body_may_not_be_larger_either() {
    let (redis, node) = setup_with(&["--max-frame", "1KiB"]);
    for (size, status) in [(1024, 201), (1025, 413)] {
        let body = format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
        let request = format!(
            "POST /rooms/r HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        );
        assert_eq!(
            http::raw(node.port(), request.as_bytes()).unwrap().status,
            status
        );
    }
    assert_eq!(redis.cli(&["XLEN", "r"]), "1");
}

#[test]
fn an_idempotency_key_stores_once() {
    let (redis, node) = setup();
    let post = |room: &str, key: &str, body: &str| {
        let answer = node.request(
            "POST",
            &format!("/rooms/{room}"),
            &[("Idempotency-Key", key)],
            body,
        );
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let first = post("r", "a", "one");
    assert_eq!(post("r", "a", "one"), first);
    assert_ne!(post("r", "b", "two"), first);
    // All at once, on two nodes.
    let other = crate::harness::node::Node::start(&redis.url());
    let ids: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                let node = [&node, &other][number % 2];
                scope.spawn(move || {
                    let answer = node.request(
                        "POST",
                        "/rooms/r",
                        &[("Idempotency-Key", "at once")],
                        "three",
                    );
                    answer.json()["id"].as_str().unwrap().to_owned()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(redis.cli(&["XLEN", "r"]), "3");
    let long = "k".repeat(257);
    let answer = node.request("POST", "/rooms/r", &[("Idempotency-Key", &*long)], "x");
    assert_eq!((answer.status, &*answer.error_code()), (400, "bad_request"));
    // Our own keys are under our own prefix, and go by themselves.
    let keys = redis.cli(&["KEYS", "*"]);
    let is_other = |key: &&str| *key != "r" && *key != "tailcast:{}nodes";
    for key in keys.lines().filter(is_other) {
        assert!(key.starts_with("tailcast:"), "{key}");
        assert_ne!(redis.cli(&["TTL", key]), "-1", "{key}");
    }
}

#[tokio::test]
async fn names_that_no_path_can_carry() {
    let (redis, node) = setup();
    for room in [".", "..", "-"] {
        let mut socket = Ws::open(&node, &format!("/rooms/-?room={room}&format=json")).await;
        assert_eq!(socket.frame().await["room"], room);
        let path = |tail: &str, query: &str| format!("/rooms/-{tail}?room={room}{query}");
        let answer = node.request("POST", &path("", "&user=ann"), &[], "x");
        assert_eq!(
            (answer.status, answer.json()["room"].as_str()),
            (201, Some(room))
        );
        assert_eq!(socket.frame_of("entry").await["room"], room);
        let page = node.get(&path("", "&limit=5")).json();
        assert_eq!(
            (&page["room"], page["entries"].as_array().unwrap().len()),
            (&json!(room), 1)
        );
        let kind = [("content-type", "application/json")];
        let act = r#"{"act":"topic","message":"dots"}"#;
        let done = node.request("POST", &path("/moderation", "&user=mod"), &kind, act);
        assert_eq!(done.json()["room"], room);
        assert_eq!(node.get(&path("/presence", "")).json()["count"], 0);
        assert_eq!(redis.cli(&["XLEN", room]), "1");
    }
    // Elsewhere the path names the room, and what would name another one is refused.
    assert_eq!(node.get("/rooms/a?room=..").status, 400);
}

#[tokio::test]
async fn names() {
    let (redis, node) = setup();
    let long = "a".repeat(256);
    for (path, key) in [
        ("a%2Fb%20c", "a/b c"),
        ("%C3%A9%F0%9F%99%82", "é🙂"),
        ("100%25", "100%"),
        ("a+b", "a+b"),
        ("a:b;c=d,e@f", "a:b;c=d,e@f"),
        (&*long, &*long),
        ("%22%5C", "\"\\"),
    ] {
        let mut socket = Ws::open(&node, &format!("/rooms/{path}?format=json")).await;
        assert_eq!(
            socket.frame().await,
            json!({"type":"joined","room":key,"head":"0-0"})
        );
        let answer = node.request("POST", &format!("/rooms/{path}"), &[], "x");
        assert_eq!(answer.json()["room"], key);
        assert_eq!(socket.frame().await["room"], key);
        assert_eq!(redis.cli(&["XLEN", key]), "1", "{key}");
        assert_eq!(node.get(&format!("/rooms/{path}")).json()["room"], key);
    }
    let long = "a".repeat(257);
    let wide = "%C3%A9".repeat(129);
    for bad in [
        "",
        "%00",
        "a%0Ab",
        "%7F",
        "%C2%85",
        "%ff",
        "tailcast:",
        "tailcast%3Ax",
        &*long,
        &*wide,
    ] {
        let path = format!("/rooms/{bad}");
        for method in ["GET", "POST"] {
            let answer = node.request(method, &path, &[], "");
            let want = if bad.is_empty() {
                (404, "not_found")
            } else {
                (400, "bad_room")
            };
            assert_eq!(
                (answer.status, &*answer.error_code()),
                want,
                "{method} {path}"
            );
        }
        if path.parse::<PathAndQuery>().is_ok() && !bad.is_empty() {
            let refused = Ws::try_open(&node, &path, &[]).await.err().unwrap();
            assert_eq!(
                (refused.status, &*refused.code),
                (400, "bad_room"),
                "{path}"
            );
            let query = Ws::try_open(&node, &format!("/?room={bad}"), &[])
                .await
                .err()
                .unwrap();
            assert_eq!(
                (query.status, &*query.code),
                (
                    400,
                    if bad == "%ff" {
                        "bad_request"
                    } else {
                        "bad_room"
                    }
                ),
                "{path}"
            );
        }
    }
}

#[test]
fn paths_methods_and_malformed_requests() {
    let (redis, node) = setup();
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/rooms/", 404, "not_found"),
        ("GET", "/rooms/a/b", 404, "not_found"),
        ("DELETE", "/rooms/a", 405, "method_not_allowed"),
        ("PUT", "/rooms/a", 405, "method_not_allowed"),
        ("POST", "/", 405, "method_not_allowed"),
        ("POST", "/health/live", 405, "method_not_allowed"),
        ("GET", "/rooms/a?limit=1&limit=2", 400, "bad_request"),
    ] {
        let answer = node.request(method, path, &[], "");
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (status, code),
            "{method} {path}"
        );
        assert_eq!(
            answer.header("allow").is_some(),
            status == 405,
            "{method} {path}: {answer:?}"
        );
    }
    redis.cli(&["XADD", "a", "*", "message", "x"]);
    for path in ["/", "/rooms/a", "/health/live", "/metrics"] {
        let (get, head) = (node.get(path), node.request("HEAD", path, &[], ""));
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"));
    }
    // Neither hangs nor upgrades.
    let accept = [("accept", "text/event-stream")];
    assert_eq!(node.request("HEAD", "/rooms/a", &accept, "").status, 200);
    assert!(node.get("/").text().contains("wscat"));
    assert_eq!(node.get("/health/live").json(), json!({"status":"live"}));
    assert_eq!(node.get("/health/ready").json(), json!({"status":"ready"}));
    let metrics = node.get("/metrics");
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(metrics.text().ends_with("# EOF\n"));
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /rooms/a HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let answer = http::raw(node.port(), request.as_bytes()).unwrap();
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (400, "bad_request"),
            "{request:?}"
        );
    }
    assert_eq!(node.get("/health/live").status, 200);
}

#[tokio::test]
async fn handshakes_that_are_none() {
    let (_redis, node) = setup();
    let good = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value, status) in [
        ("sec-websocket-version", "8", 426),
        ("sec-websocket-key", "short", 400),
        ("connection", "close", 400),
    ] {
        let mut request = "GET /rooms/r HTTP/1.1\r\nhost: a\r\n".to_owned();
        for (header, kept) in good {
            let value = if header == name { value } else { kept };
            request.push_str(&format!("{header}: {value}\r\n"));
        }
        // Answered, and the connection goes on: hence the second one, which ends it.
        request.push_str("\r\nGET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = http::raw(node.port(), request.as_bytes()).unwrap();
        assert_eq!(answer.status, status, "{name}");
        assert!(answer.header("content-type") == Some("application/json"));
    }
}

#[tokio::test]
async fn origins() {
    let (_redis, node) = setup();
    let host = format!("http://127.0.0.1:{}", node.port());
    for (origin, allowed) in [
        (&*host, true),
        ("http://evil.example", false),
        ("null", false),
        ("http://127.0.0.1:1", false),
    ] {
        let socket = Ws::try_open(&node, "/rooms/r", &[("origin", origin)]).await;
        match socket {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(refused) => assert_eq!(
                (allowed, refused.status, &*refused.code),
                (false, 403, "origin_not_allowed")
            ),
        }
        let answer = node.request("POST", "/rooms/r", &[("origin", origin)], "x");
        assert_eq!(answer.status, if allowed { 201 } else { 403 }, "{origin}");
        let answer = node.request("GET", "/rooms/r", &[("origin", origin)], "");
        let named = answer.header("access-control-allow-origin");
        assert_eq!(named, allowed.then_some(origin));
        assert!(
            answer
                .headers
                .iter()
                .any(|(name, value)| name == "vary" && value.contains("origin"))
        );
    }
    let (_redis, node) = setup_with(&[
        "--allowed-origins",
        "https://app.example,http://localhost:3000",
    ]);
    for (origin, allowed) in [
        ("https://app.example", true),
        ("HTTPS://APP.example:443", true),
        ("http://app.example", false),
        ("https://app.example.evil", false),
    ] {
        let socket = Ws::try_open(&node, "/rooms/r", &[("origin", origin)]).await;
        assert_eq!(socket.is_ok(), allowed, "{origin}");
        let ask = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        let answer = node.request("OPTIONS", "/rooms/r", &ask, "");
        assert_eq!(answer.status, 204);
        assert_eq!(
            answer.header("access-control-allow-origin").is_some(),
            allowed
        );
        assert_eq!(
            answer.header("access-control-allow-methods").is_some(),
            allowed
        );
    }
    // An EventSource brings cookies from another origin only if it's told that it may.
    let events = Sse::open(&node, "/rooms/r", &[("origin", "https://app.example")]);
    let head = events.head.to_lowercase();
    for want in [
        "access-control-allow-origin: https://app.example\r\n",
        "access-control-allow-credentials: true\r\n",
    ] {
        assert!(head.contains(want), "{head}");
    }
    assert!(
        Ws::try_open(&node, "/rooms/r", &[]).await.is_ok(),
        "programs send none"
    );
    let (_redis, node) = setup_with(&["--allowed-origins", "*"]);
    assert!(
        Ws::try_open(&node, "/rooms/r", &[("origin", "null")])
            .await
            .is_ok()
    );
}
