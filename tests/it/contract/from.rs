//! Where to begin: every `from`, on raw sockets, JSON sockets and server-sent events.

use serde_json::{Value, json};

use super::{add, now_ms, setup};
use crate::harness::clients::{Sse, Ws};
use crate::harness::redis_server::RedisServer;

/// A room with entries two hours, thirty minutes and twenty seconds old; their IDs.
fn aged(redis: &RedisServer, room: &str) -> [String; 3] {
    let now = now_ms();
    [("a", 7_200_000), ("b", 1_800_000), ("c", 20_000)].map(|(message, age)| {
        let id = format!("{}-5", now - age);
        redis.cli(&["XADD", room, &id, "message", message])
    })
}

/// What each `from` brings of those.
fn cases(ids: &[String; 3]) -> Vec<(String, &'static [&'static str])> {
    let ms = |id: &String| id.split_once('-').unwrap().0.to_owned();
    vec![
        ("start".into(), &["a", "b", "c"]),
        ("0-0".into(), &["a", "b", "c"]),
        ("now".into(), &[]),
        (ids[0].clone(), &["b", "c"]),
        (ids[2].clone(), &[]),
        // `ms` alone is `ms-0`, as in Redis: before the entry with sequence 5.
        (ms(&ids[1]), &["b", "c"]),
        ("last:0".into(), &[]),
        ("last:1".into(), &["c"]),
        ("last:2".into(), &["b", "c"]),
        ("last:50".into(), &["a", "b", "c"]),
        ("ago:10s".into(), &[]),
        ("ago:1m".into(), &["c"]),
        ("ago:1h".into(), &["b", "c"]),
        ("ago:1d".into(), &["a", "b", "c"]),
    ]
}

#[tokio::test]
async fn json_sockets() {
    let (redis, node) = setup();
    // Cold, the first one opens the room; warm, its window is there already.
    for warm in [false, true] {
        let count = cases(&aged(&redis, &format!("plan {warm}"))).len();
        for index in 0..count {
            let room = format!("{warm}{index}");
            let ids = aged(&redis, &room);
            let (from, want) = cases(&ids).swap_remove(index);
            let _keeps = match warm {
                true => Some(Ws::json(&node, &room, "start").await),
                false => None,
            };
            let (mut socket, head) = Ws::json(&node, &room, &from).await;
            // The head is the place to resume from, even if nothing ever arrived.
            let (mut again, _) = Ws::json(&node, &room, &head).await;
            let live = add(&redis, &room, "live");
            for socket in [&mut socket, &mut again] {
                for message in want {
                    let frame = socket.frame().await;
                    let at = ids
                        .iter()
                        .position(|id| frame["id"] == **id)
                        .map(|at| ["a", "b", "c"][at]);
                    assert_eq!(at, Some(*message), "{room} {from} {head}: {frame}");
                    assert_eq!(frame["fields"], json!({"message": message}));
                    assert_eq!(frame["room"], *room);
                }
                socket.entry(&live, "live").await;
            }
        }
    }
}

#[tokio::test]
async fn the_last_is_what_was_acknowledged_last() {
    let (_redis, node) = setup();
    let (_keeps, _) = Ws::json(&node, "r", "now").await;
    for number in 0..100 {
        let id = node.publish("r", number.to_string());
        let (mut socket, _) = Ws::json(&node, "r", "last:1").await;
        socket.entry(&id, &number.to_string()).await;
    }
}

#[tokio::test]
async fn raw_sockets() {
    let (redis, node) = setup();
    for (index, _) in cases(&aged(&redis, "plan")).iter().enumerate() {
        let room = format!("r{index}");
        let ids = aged(&redis, &room);
        let (from, want) = cases(&ids).swap_remove(index);
        let mut socket = Ws::open(&node, &format!("/rooms/{room}?from={from}")).await;
        for message in want {
            assert_eq!(socket.text().await, *message, "{from}");
        }
        // Of what is published by the socket itself it misses nothing in any case.
        socket.send("own").await;
        assert_eq!(socket.text().await, "own", "{from}");
    }
}

#[test]
fn server_sent_events() {
    let (redis, node) = setup();
    for (index, _) in cases(&aged(&redis, "plan")).iter().enumerate() {
        let room = format!("r{index}");
        let ids = aged(&redis, &room);
        let (from, want) = cases(&ids).swap_remove(index);
        let mut events = Sse::open(&node, &format!("/rooms/{room}?from={from}"), &[]);
        assert!(events.head.contains("content-type: text/event-stream\r\n"));
        // `retry:` is a part of the first event, as some clients make one of every blank line.
        let joined = events.joined();
        assert!(joined.retry.is_some(), "{joined:?}");
        let head: Value = serde_json::from_str(&joined.data.unwrap()).unwrap();
        assert_eq!(head["room"], *room);
        if from == "start" {
            assert_eq!(joined.id, None);
        } else {
            // The ID to resume from if nothing comes.
            assert_eq!(joined.id.as_deref(), head["head"].as_str(), "{from}");
        }
        if from == "now" {
            assert_eq!(joined.id.as_deref(), Some(&*ids[2]));
        }
        for message in want {
            let event = events.event();
            let data: Value = serde_json::from_str(&event.data.unwrap()).unwrap();
            assert_eq!(data["fields"], json!({"message": message}), "{from}");
            assert_eq!(data["id"].as_str(), event.id.as_deref());
            assert_eq!(event.event, None);
        }
        // Past the join for certain where something came already.
        if !want.is_empty() || from == "now" {
            let id = add(&redis, &room, "live");
            assert_eq!(events.event().id, Some(id), "{from}");
        }
    }
}

#[test]
fn last_event_id_overrides_from() {
    let (redis, node) = setup();
    let ids = aged(&redis, "r");
    let first =
        |path: &str, headers: &[(&str, &str)]| Sse::open(&node, path, headers).event().id.unwrap();
    assert_eq!(first("/rooms/r?from=start", &[]), ids[0]);
    let header = [("last-event-id", &*ids[1])];
    assert_eq!(first("/rooms/r?from=start", &header), ids[2]);
    assert_eq!(
        first(
            &format!("/rooms/r?from=start&last_event_id={}", ids[0]),
            &[]
        ),
        ids[1]
    );
    assert_eq!(
        first(&format!("/rooms/r?last_event_id={}", ids[0]), &header),
        ids[2]
    );
    // As event-source-polyfill writes it, behind what the page wrote.
    let path = format!(
        "/rooms/r?from=start&last_event_id={}&lastEventId={}",
        ids[0], ids[1]
    );
    assert_eq!(first(&path, &[]), ids[2]);
    // Nothing yet to resume from.
    let path = "/rooms/r?from=start&last_event_id=&lastEventId=";
    assert_eq!(first(path, &[("last-event-id", "")]), ids[0]);
    let mut raw = Sse::open(&node, "/rooms/r?from=start&format=raw", &[]);
    assert_eq!(raw.event().data.as_deref(), Some("a"));
}

#[tokio::test]
async fn what_is_no_position_is_refused_before_the_upgrade() {
    let (_redis, node) = setup();
    for bad in [
        "yesterday",
        "$",
        "last:",
        "last:-1",
        "last:x",
        "last:10001",
        "ago:10",
        "ago:10w",
        "5-",
        "-",
        "1-2-3",
    ] {
        let path = format!("/rooms/r?from={bad}");
        let refused = Ws::try_open(&node, &path, &[]).await.err().unwrap();
        assert_eq!(
            (refused.status, &*refused.code),
            (400, "bad_request"),
            "{bad}"
        );
        assert!(refused.message.contains("start"), "{}", refused.message);
        let accept = [("accept", "text/event-stream")];
        let answer = node.request("GET", &path, &accept, "");
        assert_eq!(
            (answer.status, &*answer.error_code()),
            (400, "bad_request"),
            "{bad}"
        );
    }
    // An empty one is the default.
    for path in [
        "/rooms/r?from=&format=json&inbox=",
        "/?from=&room=&format=json",
    ] {
        let mut socket = Ws::open(&node, path).await;
        assert_eq!(socket.frame().await["type"], "joined", "{path}");
        let join = json!({"type":"join","room":"other","from":""});
        socket.send_json(join).await;
        assert_eq!(socket.frame().await["room"], "other");
        let history = json!({"type":"history","after":"","before":""});
        assert_eq!(socket.ask(history).await["type"], "history");
    }
    let accept = [("accept", "text/event-stream"), ("last-event-id", "x")];
    let answer = node.request("GET", "/rooms/r", &accept, "");
    assert_eq!((answer.status, &*answer.error_code()), (400, "bad_request"));
}

#[tokio::test]
async fn a_position_the_stream_does_not_know_is_told() {
    let (redis, node) = setup();
    for seq in 1..=10 {
        redis.cli(&[
            "XADD",
            "r",
            &format!("{seq}-0"),
            "message",
            &seq.to_string(),
        ]);
    }
    redis.cli(&["XTRIM", "r", "MINID", "6"]);
    let gap = |after: &str, before: &str, reason: &str| json!({"type":"gap","room":"r","after":after,"before":before,"reason":reason});
    // Trimmed past: in its place in the order, then what there is.
    let (mut socket, _) = Ws::json(&node, "r", "2-0").await;
    assert_eq!(socket.frame().await, gap("2-0", "6-0", "trimmed"));
    socket.entry("6-0", "6").await;
    // Ahead of the end: the stream was rewound, and goes on from its start.
    let (mut socket, _) = Ws::json(&node, "r", "99-0").await;
    let frame = socket.frame().await;
    assert_eq!(
        (&frame["type"], &frame["reason"]),
        (&json!("gap"), &json!("rewound"))
    );
    assert_eq!(frame["after"], "99-0");
    // In SSE.
    let mut events = Sse::open(&node, "/rooms/r", &[("last-event-id", "2-0")]);
    let event = events.event();
    assert_eq!((event.event.as_deref(), event.id), (Some("gap"), None));
    let data: Value = serde_json::from_str(&event.data.unwrap()).unwrap();
    assert_eq!(data["reason"], "trimmed");
    assert_eq!(events.event().id.as_deref(), Some("6-0"));
    drop(redis);
}
