//! The routes over a real relay and streams in memory, without sockets where none are needed.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::relay::entry::RoomName;
use crate::relay::hub::{self, Relay};
use crate::relay::log::LogError;
use crate::store::memory::{self, MemoryLog};

struct Node {
    log: MemoryLog,
    state: Arc<FrontendState>,
    app: Router,
}

fn node() -> Node {
    let log = MemoryLog::new(memory::Settings::default());
    let relay = Relay::new(Arc::new(log.clone()), hub::Settings::default());
    let mut settings = frontend::Settings::new(RoomName::parse("mystream").unwrap());
    settings.max_frame = 100;
    settings.max_fields = 4;
    let board = Arc::new(log.clone());
    let state = FrontendState::trusting(relay, board, settings).unwrap();
    let app = Router::new()
        .nest("/nested", router(state.clone()))
        .fallback_service(router(state.clone()));
    Node { log, state, app }
}

type Headers<'a> = &'a [(&'a str, &'a str)];

impl Node {
    async fn send(&self, method: &str, uri: &str, headers: Headers<'_>, body: &str) -> Response {
        let mut request = axum::http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        self.app.clone().oneshot(request).await.unwrap()
    }

    async fn json(
        &self,
        method: &str,
        uri: &str,
        headers: Headers<'_>,
        body: &str,
    ) -> (u16, Value) {
        let response = self.send(method, uri, headers, body).await;
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn publish(&self, room: &str, message: &str) -> String {
        let (status, body) = self
            .json("POST", &format!("/rooms/{room}"), &[], message)
            .await;
        assert_eq!(status, 201);
        body["id"].as_str().unwrap().to_owned()
    }

    async fn check(&self, method: &str, uri: &str, headers: Headers<'_>, status: u16, code: &str) {
        let (got, body) = self.json(method, uri, headers, "x").await;
        let error = &body["error"];
        assert_eq!(got, status, "{method} {uri}: {body}");
        assert_eq!(error["code"], code, "{method} {uri}: {body}");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
        assert_eq!(body.as_object().unwrap().len(), 1);
    }

    /// Server-sent events of a request, as one text that grows.
    async fn events(&self, uri: &str, headers: Headers<'_>) -> Events {
        let mut all = vec![("accept", "text/event-stream")];
        all.extend_from_slice(headers);
        let response = self.send("GET", uri, &all, "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events {
            body: response.into_body(),
            text: String::new(),
        }
    }
}

struct Events {
    body: Body,
    text: String,
}

impl Events {
    /// Reads until the text has `part`; false if it ends before.
    async fn has(&mut self, part: &str) -> bool {
        let read = async {
            while !self.text.contains(part) {
                match self.body.frame().await {
                    Some(frame) => {
                        let data = frame.unwrap().into_data().unwrap();
                        self.text.push_str(std::str::from_utf8(&data).unwrap());
                    }
                    None => return false,
                }
            }
            true
        };
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .unwrap_or_else(|_| panic!("no {part:?} came"))
    }
}

#[tokio::test]
async fn errors_have_one_shape() {
    let node = node();
    let evil: Headers<'_> = &[("origin", "http://evil"), ("host", "a")];
    let check = async |method, uri, headers, status, code| {
        node.check(method, uri, headers, status, code).await;
    };
    check("GET", "/nope", &[], 404, "not_found").await;
    check("GET", "/rooms/", &[], 404, "not_found").await;
    check("DELETE", "/rooms/a", &[], 405, "method_not_allowed").await;
    check("PUT", "/", &[], 405, "method_not_allowed").await;
    check("GET", "/rooms/%ff", &[], 400, "bad_room").await;
    check("GET", "/nested/rooms/tailcast%3Aa", &[], 400, "bad_room").await;
    check("GET", "/rooms/a?limit=0", &[], 400, "bad_request").await;
    check("POST", "/rooms/a", evil, 403, "origin_not_allowed").await;
    let gzip: Headers<'_> = &[("content-encoding", "gzip")];
    check("POST", "/rooms/a", gzip, 415, "unsupported_encoding").await;
    let long: Headers<'_> = &[("content-length", "101")];
    check("POST", "/rooms/a", long, 413, "too_large").await;
    let json: Headers<'_> = &[("content-type", "application/json")];
    check("POST", "/rooms/a", json, 400, "bad_json").await;
    let key: Headers<'_> = &[("idempotency-key", "")];
    check("POST", "/rooms/a", key, 400, "bad_request").await;
    let evil_socket: Headers<'_> = &[
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("origin", "http://evil"),
        ("host", "a"),
    ];
    check("GET", "/rooms/a", evil_socket, 403, "origin_not_allowed").await;
    check("GET", "/", evil_socket, 403, "origin_not_allowed").await;
    let events: Headers<'_> = &[("accept", "text/event-stream")];
    check("GET", "/rooms/a?from=soon", events, 400, "bad_request").await;
    check("GET", "/rooms/a?format=xml", events, 400, "bad_request").await;
}

#[tokio::test]
async fn what_is_published_is_history() {
    let node = node();
    let first = node.publish("a%20b", "one").await;
    let body = r#"{"fields":{"b":"2","a":"é"}}"#;
    let headers: Headers<'_> = &[
        ("content-type", "application/json"),
        ("idempotency-key", "k"),
    ];
    let (status, second) = node.json("POST", "/rooms/a%20b", headers, body).await;
    assert_eq!((status, &second["room"]), (201, &json!("a b")));
    let (_, again) = node
        .json("POST", "/nested/rooms/a%20b", headers, body)
        .await;
    assert_eq!(again, second);
    let entries = json!([
        {"id": first, "fields": {"message": "one"}},
        {"id": second["id"], "fields": {"b": "2", "a": "é"}},
    ]);
    let (status, page) = node.json("GET", "/rooms/a%20b", &[], "").await;
    assert_eq!(status, 200);
    assert_eq!(
        page,
        json!({"room": "a b", "entries": entries, "next": null})
    );
    let uri = "/rooms/a%20b?limit=1&order=desc";
    let (_, page) = node.json("GET", uri, &[], "").await;
    assert_eq!(page["entries"], json!([entries[1]]));
    assert_eq!(page["next"], second["id"]);
    let head = node.send("HEAD", "/rooms/a", &[("accept", "text/event-stream")], "");
    assert_eq!(head.await.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn events_resume() {
    let node = node();
    let first = node.publish("r", "one").await;
    let second = node.publish("r", "two").await;
    let mut all = node.events("/rooms/r?from=start&format=raw", &[]).await;
    assert!(all.has(&format!("id: {second}\ndata: two\n\n")).await);
    assert!(all.text.starts_with("retry: 2000\nevent: joined\ndata: {"));
    assert!(all.text.contains(&format!("id: {first}\ndata: one\n\n")));
    assert_eq!(all.text.matches("id: ").count(), 2);
    // The header says more than the URL, which a client repeats as it was.
    let header: Headers<'_> = &[("last-event-id", &first)];
    let mut rest = node
        .events("/rooms/r?from=start&last_event_id=0-0", header)
        .await;
    // Who begins now has an ID to resume from before the first entry.
    let mut live = node.events("/rooms/r", &[]).await;
    let joined =
        format!("event: joined\nid: {second}\ndata: {{\"room\":\"r\",\"head\":\"{second}\"}}\n\n");
    assert!(live.has(&joined).await);
    let third = node.publish("r", "three").await;
    let data = |id: &str, text: &str| {
        format!(
            "id: {id}\ndata: {{\"room\":\"r\",\"id\":\"{id}\",\"fields\":{{\"message\":\"{text}\"}}}}\n\n"
        )
    };
    for events in [&mut rest, &mut live] {
        assert!(events.has(&data(&third, "three")).await);
    }
    assert!(rest.text.contains(&data(&second, "two")));
    assert!(!rest.text.contains("one") && !live.text.contains("two"));
}

#[tokio::test]
async fn events_tell_gaps() {
    let node = node();
    let first = node.publish("r", "one").await;
    node.publish("r", "two").await;
    let third = node.publish("r", "three").await;
    node.log.trim(&RoomName::parse("r").unwrap(), 1);
    let header: Headers<'_> = &[("last-event-id", &first)];
    let mut events = node.events("/rooms/r?format=raw", header).await;
    assert!(events.has("data: three\n\n").await);
    let gap = format!(
        "event: gap\ndata: {{\"room\":\"r\",\"after\":\"{first}\",\"before\":\"{third}\",\"reason\":\"trimmed\"}}\n\nid: {third}\n"
    );
    assert!(events.text.contains(&gap), "{}", events.text);
}

#[tokio::test]
async fn a_drain_ends_events() {
    let node = node();
    let mut events = node.events("/rooms/r", &[]).await;
    assert!(events.has("id: 0-0\n").await);
    assert_eq!(node.state.drain.open(), 1);
    node.state.drain.begin(Duration::from_secs(10));
    assert!(!events.has("no such text").await);
    assert_eq!(events.text.matches("retry: ").count(), 2, "{}", events.text);
    let accept: Headers<'_> = &[("accept", "text/event-stream")];
    node.check("GET", "/rooms/r", accept, 503, "draining").await;
    node.check("GET", "/health/ready", &[], 503, "draining")
        .await;
    // Its last breath may come right after its last byte.
    while node.state.drain.open() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn trouble_with_the_log_is_told() {
    let node = node();
    assert_eq!(node.json("GET", "/health/ready", &[], "").await.0, 200);
    node.log.set_failing(Some(LogError::WrongType));
    node.check("POST", "/rooms/r", &[], 409, "wrong_type").await;
    node.check("GET", "/rooms/r", &[], 409, "wrong_type").await;
    let mut events = node.events("/rooms/r", &[]).await;
    assert!(!events.has("no such text").await);
    assert!(
        events
            .text
            .contains("event: error\ndata: {\"code\":\"bad_request\","),
        "{}",
        events.text
    );
    node.log.set_failing(Some(LogError::Full("OOM".into())));
    node.check("POST", "/rooms/r", &[], 507, "redis_full").await;
    node.check("GET", "/health/ready", &[], 503, "redis_full")
        .await;
    assert_eq!(node.json("GET", "/health/live", &[], "").await.0, 200);
}

#[tokio::test]
async fn pages_of_this_host_get_their_headers() {
    let node = node();
    let ours: Headers<'_> = &[("origin", "http://a"), ("host", "a")];
    for (method, uri) in [
        ("GET", "/rooms/r"),
        ("POST", "/rooms/r"),
        ("OPTIONS", "/rooms/r"),
    ] {
        let response = node.send(method, uri, ours, "").await;
        assert_eq!(
            response.headers()["access-control-allow-origin"],
            "http://a"
        );
        let preflight = response
            .headers()
            .contains_key("access-control-allow-methods");
        assert_eq!(preflight, method == "OPTIONS");
    }
    let mut events = vec![("accept", "text/event-stream")];
    events.extend_from_slice(ours);
    let response = node.send("GET", "/rooms/r", &events, "").await;
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "http://a"
    );
    let evil: Headers<'_> = &[("origin", "http://evil"), ("host", "a")];
    for method in ["GET", "OPTIONS"] {
        let response = node.send(method, "/rooms/r", evil, "").await;
        assert!(
            !response
                .headers()
                .contains_key("access-control-allow-origin")
        );
    }
}

/// What a path says of a parameter that it doesn't know.
#[tokio::test]
async fn unknown_parameters_are_refused_on_every_path() {
    let node = node();
    let paths = include_str!("../routes.rs");
    let paths = paths.split(".route(").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix('"')?;
        Some(rest.split('"').next().unwrap())
    });
    // Pages' files, pages, and what clients add to by themselves.
    let lenient = ["/assets/{name}", "/status", "/status/{file}"];
    let sockjs = ["/ws", "/ws/", "/ws/{*rest}"];
    let socket: Headers<'_> = &[
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let events: Headers<'_> = &[("accept", "text/event-stream")];
    let mut checked = 0;
    for path in paths {
        let uri = path.replace("{room}", "r").replace("{user}", "u");
        for method in ["GET", "POST"] {
            for headers in [&[][..], socket, events] {
                let uri = format!("{uri}?form=1");
                let response = node.send(method, &uri, headers, "{}").await;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let body = String::from_utf8_lossy(&body);
                if lenient.contains(&path) || sockjs.contains(&path) {
                    assert!(!body.contains("form"), "{method} {path}: {body}");
                    continue;
                }
                let is_refused = status == 400 && body.contains("no parameter \\\"form\\\"");
                assert!(status == 405 || is_refused, "{method} {path}: {body}");
                checked += u32::from(is_refused);
            }
        }
    }
    assert!(checked > 60, "{checked}");
    // A page is opened through links of others.
    let page: Headers<'_> = &[("accept", "text/html")];
    let response = node.send("GET", "/?room=r&utm_source=x", page, "").await;
    assert_eq!(response.status(), 200);
    for uri in ["/?room=a", "/nodes?token=x", "/rooms/r?user=x&limit=1"] {
        let response = node.send("GET", uri, &[], "").await;
        assert_ne!(response.status(), 400, "{uri}");
    }
}
