//! SockJS by its requests: what each answers, how sessions end, and who may use them. What its
//! published client gets over it is in `stomp`.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::PATIENCE;
use crate::harness::http::Response;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::until;
use crate::stomp::rules::{SECRET, token_for};

const FORM: [(&str, &str); 1] = [("content-type", "text/plain")];

fn post(node: &Node, path: &str, body: &str) -> Response {
    node.request("POST", path, &FORM, body)
}

/// STOMP's frame as one message.
fn message(frame: &str) -> String {
    json!([format!("{frame}\0")]).to_string()
}

#[test]
fn what_is_served() {
    let node = Node::in_memory(&["--sockjs-client", "/sockjs.min.js"]);
    let check = |method: &str, path: &str, status: u16| {
        let answer = node.request(method, path, &[], "");
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        answer
    };
    for path in ["/ws", "/ws/"] {
        assert_eq!(check("GET", path, 200).text(), "Welcome to SockJS!\n");
    }
    let info = check("GET", "/ws/info", 200).json();
    assert_eq!(
        (&info["websocket"], &info["cookie_needed"]),
        (&json!(true), &json!(false))
    );
    assert_ne!(
        check("GET", "/ws/info", 200).json()["entropy"],
        info["entropy"]
    );
    let iframe = check("GET", "/ws/iframe-1.2.html", 200);
    assert!(iframe.text().contains("<script src=\"/sockjs.min.js\">"));
    let tag = iframe.header("etag").unwrap();
    let again = node.request("GET", "/ws/iframe.html", &[("if-none-match", tag)], "");
    assert_eq!(again.status, 304);
    for path in [
        "/ws/a",
        "/ws//",
        "/ws/a/b",
        "/ws/a/b/jsonp",
        "/ws/a./b/xhr",
        "/ws/iframe.htm",
    ] {
        check("GET", path, 404);
    }
    check("GET", "/ws/a/b/xhr", 405);
    check("POST", "/ws/a/b/websocket", 405);
    check("GET", "/ws/a/b/websocket", 400);
    check("POST", "/ws/a/b/xhr_send", 404);
    assert_eq!(Node::in_memory(&[]).get("/ws/iframe.html").status, 404);
}

#[test]
fn a_session_by_requests() {
    let node = Node::in_memory(&[]);
    let opened = post(&node, "/ws/0/s1/xhr", "");
    assert_eq!((opened.status, opened.text().as_str()), (200, "o\n"));
    let sent = |body: &str| post(&node, "/ws/1/s1/xhr_send", body);
    for (body, want) in [
        ("", "Payload expected."),
        ("[\"a", "Broken JSON encoding."),
        ("[1]", "Broken JSON encoding."),
    ] {
        let answer = sent(body);
        assert_eq!((answer.status, answer.text().as_str()), (500, want));
    }
    assert_eq!(sent("[]").status, 204);
    assert_eq!(
        sent(&message("CONNECT\naccept-version:1.2\nhost:a\n\n")).status,
        204
    );
    let answer = post(&node, "/ws/2/s1/xhr", "").text();
    assert!(
        answer.starts_with("a[\"CONNECTED\\nversion:1.2\\n"),
        "{answer}"
    );
    // Its end is said as often as it's asked for, with the reason behind the error.
    sent(&message("NACK\nid:1-1\n\n"));
    let answer = post(&node, "/ws/2/s1/xhr", "").text();
    assert!(answer.starts_with("a[\"ERROR\\n"), "{answer}");
    for _ in 0..2 {
        let answer = post(&node, "/ws/2/s1/xhr", "").text();
        assert!(answer.starts_with("c[4400,\"there is no NACK"), "{answer}");
    }
    assert_eq!(sent("[\"x\"]").status, 404);
}

/// Opens a session and logs in; its events are read.
fn logged_in(node: &Node, path: &str, query: &str) {
    let request = |kind: &str, body: &str| post(node, &format!("{path}/{kind}{query}"), body);
    assert_eq!(request("xhr", "").text(), "o\n");
    let connect = message("CONNECT\naccept-version:1.2\nhost:a\n\n");
    assert_eq!(request("xhr_send", &connect).status, 204);
    let answer = request("xhr", "").text();
    assert!(answer.starts_with("a[\"CONNECTED\\n"), "{answer}");
}

/// A receiving request that is left open.
fn receive(node: &Node, session: &str, until: &str) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", node.port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST /ws/0/{session}/xhr_streaming HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(until) {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&buffer[..count]);
    }
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_receives_and_a_break_ends_it() {
    let node = Node::in_memory(&[]);
    let first = receive(&node, "s", "o\n");
    assert_eq!(
        post(&node, "/ws/0/s/xhr", "").text(),
        "c[2010,\"Another connection still open\"]\n"
    );
    assert_eq!(node.metric("tailcast_sockets{kind=\"sockjs\"}"), Some(1.0));
    drop(first);
    until("the session is over", || {
        let answer = post(&node, "/ws/0/s/xhr", "").text();
        answer == "c[1002,\"Connection interrupted\"]\n"
    })
    .await;
    until("it's counted no more", || {
        node.metric("tailcast_sockets{kind=\"sockjs\"}") == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_when_nobody_receives() {
    let node = Node::in_memory(&[]);
    let began = Instant::now();
    assert_eq!(post(&node, "/ws/0/left/xhr", "").text(), "o\n");
    until("the session ends", || {
        node.metric("tailcast_sockets{kind=\"sockjs\"}") == Some(0.0)
    })
    .await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(4_900), "{took:?}");
    assert_eq!(post(&node, "/ws/0/left/xhr_send", "[\"a\"]").status, 404);
    // Its name is free again once its last word was said for a while.
    until("a new one opens", || {
        post(&node, "/ws/0/left/xhr", "").text() == "o\n"
    })
    .await;
}

#[test]
fn whose_it_is() {
    let node = Node::in_memory(&["--allowed-origins", "http://app.example"]);
    let request = |user: &str, path: &str, origin: &str| {
        let headers = [("origin", origin), FORM[0]];
        node.request("POST", &format!("{path}?user={user}"), &headers, "[]")
    };
    let opened = request("alice", "/ws/0/s/xhr", "http://app.example");
    assert_eq!(opened.text(), "o\n");
    assert_eq!(
        opened.header("access-control-allow-origin"),
        Some("http://app.example")
    );
    assert_eq!(
        opened.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(
        request("alice", "/ws/0/s/xhr_send", "http://app.example").status,
        204
    );
    assert_eq!(
        request("mallory", "/ws/0/s/xhr_send", "http://app.example").status,
        404
    );
    assert_eq!(
        request("mallory", "/ws/0/s/xhr", "http://app.example").status,
        503
    );
    assert_eq!(
        request("alice", "/ws/0/s/xhr_send", "http://evil.example").status,
        403
    );
    assert_eq!(
        request("alice", "/ws/0/t/xhr", "http://evil.example").status,
        403
    );
}

#[test]
fn a_token_that_ends_between_two_polls_is_told() {
    let node = Node::in_memory(&["--auth", "jwt", "--jwt-secret", SECRET]);
    let query = format!("?token={}", token_for("alice", "member", "1s"));
    let xhr = format!("/ws/0/s/xhr{query}");
    logged_in(&node, "/ws/0/s", &query);
    let answer = post(&node, &xhr, "").text();
    assert!(answer.contains("code:unauthenticated"), "{answer}");
    // By now the requests come from nobody.
    for _ in 0..2 {
        let answer = post(&node, &xhr, "").text();
        assert!(answer.starts_with("c[4401,\""), "{answer}");
    }
    // Somebody else's session still says nothing.
    let other = format!("/ws/0/s/xhr?token={}", token_for("bob", "member", "1h"));
    assert_eq!(post(&node, &other, "").status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_slowed_down_end_when_nobody_receives() {
    let node = Node::in_memory(&["--frame-rate", "5"]);
    logged_in(&node, "/ws/0/s", "");
    // A minute and a half of them.
    let frames = "BEGIN\ntransaction:a\n\n\0ABORT\ntransaction:a\n\n\0".repeat(225);
    assert_eq!(
        post(&node, "/ws/0/s/xhr_send", &json!([frames]).to_string()).status,
        204
    );
    until("the session is over", || {
        node.metric("tailcast_sockets{kind=\"sockjs\"}") == Some(0.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_reading_is_told_so() {
    let node = Node::in_memory(&["--slow-timeout", "1s"]);
    // More than waits for a client.
    for _ in 0..4 {
        node.publish("a", "x".repeat(60_000));
    }
    logged_in(&node, "/ws/0/s", "");
    let subscribe = message("SUBSCRIBE\nid:1\ndestination:/topic/a\nfrom:start\n\n");
    assert_eq!(post(&node, "/ws/0/s/xhr_send", &subscribe).status, 204);
    until("the session is over", || {
        node.metric("tailcast_sockets{kind=\"sockjs\"}") == Some(0.0)
    })
    .await;
    let answer = post(&node, "/ws/0/s/xhr", "").text();
    assert!(answer.starts_with("a[\"MESSAGE\\n"), "{:.60}", answer);
    let answer = post(&node, "/ws/0/s/xhr", "").text();
    assert!(
        answer.starts_with("c[4408,\"stopped reading"),
        "{:.60}",
        answer
    );
}

#[test]
fn messages_of_one_request_are_bounded() {
    let node = Node::in_memory(&[]);
    logged_in(&node, "/ws/0/s", "");
    let many = |count: usize| format!("[{}\"\"]", "\"\",".repeat(count - 1));
    assert_eq!(post(&node, "/ws/0/s/xhr_send", &many(65_536)).status, 204);
    assert_eq!(post(&node, "/ws/0/s/xhr_send", &many(65_537)).status, 500);
}

#[test]
fn who_polls_is_said_to_leave_when_the_node_drains() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis.url());
    logged_in(&node, "/ws/0/s", "");
    let body = json!({"sender": "alice", "type": "JOIN"});
    let join = message(&format!(
        "SEND\ndestination:/app/chat.addUser\nreceipt:r\n\n{body}"
    ));
    assert_eq!(post(&node, "/ws/0/s/xhr_send", &join).status, 204);
    let answer = post(&node, "/ws/0/s/xhr", "").text();
    assert!(answer.contains("RECEIPT"), "{answer}");
    // No request is open.
    node.sigterm();
    assert!(node.wait_exit().success());
    let said: Vec<_> = redis.entries("public");
    assert_eq!(said.len(), 2, "{said:?}");
}
