//! The homepage: all rooms at once from memory, on several nodes and one Redis.

use std::cmp::Reverse;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tailcast::auth::{self, Auth, Credentials};
use tailcast::people::home::{Card, Page, View};
use tailcast::people::{self, People};
use tailcast::relay::entry::{EntryId, Fields};
use tailcast::relay::hub::{self, Relay};
use tailcast::store::memory::{self, MemoryLog};

use crate::accounts;
use crate::harness::clients::{Program, Ws};
use crate::harness::http;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::{PATIENCE, room, until};

/// The homepage as it is now.
#[track_caller]
fn homepage(node: &Node) -> Value {
    let answer = node.get("/homepage_json");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// A room on it.
fn card<'a>(page: &'a Value, room: &str) -> Option<&'a Value> {
    let rooms = page["rooms"].as_array().unwrap();
    rooms.iter().find(|card| card["room"] == room)
}

/// What is said in a room, as the homepage has it.
fn said(node: &Node, room: &str) -> Vec<String> {
    let page = homepage(node);
    let Some(card) = card(&page, room) else {
        return Vec::new();
    };
    let messages = card["messages"].as_array().unwrap().iter();
    messages
        .map(|message| message["fields"]["message"].as_str().unwrap().to_owned())
        .collect()
}

/// An act of a moderator.
#[track_caller]
fn act(node: &Node, room: &str, act: Value) {
    let json = [("content-type", "application/json")];
    let path = format!("/rooms/{room}/moderation");
    let answer = node.request("POST", &path, &json, act.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn start() -> (RedisServer, Node, Node) {
    let redis = RedisServer::start();
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Node::start(&redis.url()));
        let other = Node::start(&redis.url());
        (one.join().unwrap(), other)
    });
    (redis, one, other)
}

#[tokio::test]
async fn rooms_with_their_properties_and_newest_messages() {
    let (redis, one, other) = start();
    for number in 0..12 {
        one.publish("long", format!("m{number}"));
    }
    let last = one.publish("short", "alone");
    act(
        &one,
        "short",
        json!({"act":"topic","message":"A \"topic\""}),
    );
    act(
        &one,
        "short",
        json!({"act":"property","name":"color","value":"red"}),
    );
    one.publish("@ann", "for ann only");
    // Whichever node is asked first, and whoever published.
    for node in [&one, &other] {
        let page = homepage(node);
        assert_eq!(page["truncated"], false);
        let rooms = page["rooms"].as_array().unwrap();
        assert_eq!(rooms.len(), 2, "{page}");
        let want = json!({
            "room": "short", "topic": "A \"topic\"", "properties": {"color": "red"},
            "count": 0, "last": last,
            "messages": [{"id": last, "fields": {"message": "alone"}}],
        });
        assert_eq!(rooms[0], want);
        assert_eq!(rooms[1]["room"], "long");
        assert!(rooms[1].get("topic").is_none());
        assert_eq!(rooms[1]["properties"], json!({}));
        let want: Vec<String> = (2..12).map(|number| format!("m{number}")).collect();
        assert_eq!(said(node, "long"), want);
    }
    // From then on it follows: clients of either node, and redis-cli.
    one.publish("long", "from one");
    redis.cli(&["XADD", "long", "*", "message", "from outside"]);
    one.publish("fresh", "a new room");
    for node in [&one, &other] {
        until("it is there", || {
            said(node, "long").ends_with(&["from one".into(), "from outside".into()])
        })
        .await;
        until("a room is found", || said(node, "fresh") == ["a new room"]).await;
        assert_eq!(homepage(node)["rooms"][0]["room"], "fresh");
    }
    act(&other, "short", json!({"act":"topic","message":""}));
    act(&other, "short", json!({"act":"unproperty","name":"color"}));
    until("the topic is lifted", || {
        let page = homepage(&one);
        let short = card(&page, "short").unwrap();
        short.get("topic").is_none() && short["properties"] == json!({})
    })
    .await;
    // Who is there is counted, a moment late.
    let (_socket, _) = {
        let path = "/rooms/short?format=json&user=ann";
        let mut socket = Ws::open(&other, path).await;
        let joined = socket.frame_of("joined").await;
        (socket, joined)
    };
    until("ann is counted", || {
        card(&homepage(&one), "short").unwrap()["count"] == 1
    })
    .await;
}

#[tokio::test]
async fn what_is_removed_is_gone_at_once() {
    let (redis, one, other) = start();
    let ids: Vec<String> = (0..12)
        .map(|number| one.publish("live", format!("m{number}")))
        .collect();
    for node in [&one, &other] {
        until("all is heard", || {
            said(node, "live").last().unwrap() == "m11"
        })
        .await;
    }
    let answer = one.request(
        "POST",
        "/rooms/live",
        &[("content-type", "application/json")],
        json!({"message": "now or never", "ephemeral": true}).to_string(),
    );
    assert_eq!(answer.status, 201);
    act(&one, "live", json!({"act":"delete","id":ids[11]}));
    let at_once = said(&one, "live");
    assert!(!at_once.contains(&"m11".to_owned()), "{at_once:?}");
    let want: Vec<String> = (1..11).map(|number| format!("m{number}")).collect();
    for node in [&one, &other] {
        until("older ones are back", || said(node, "live") == want).await;
    }
    // A client that goes on from there is told of no gap.
    let last = homepage(&one)["rooms"][0]["last"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(last, ids[11]);
    let path = format!("/rooms/live?format=json&from={last}");
    let mut socket = Ws::open(&other, &path).await;
    assert_eq!(socket.frame().await["type"], "joined");
    socket.assert_quiet().await;
    // A stream that begins anew.
    redis.cli(&["DEL", "live"]);
    redis.cli(&["XADD", "live", "5-1", "message", "again"]);
    for node in [&one, &other] {
        until("it began anew", || said(node, "live") == ["again"]).await;
        assert_eq!(homepage(node)["rooms"][0]["last"], "5-1");
    }
    redis.cli(&["DEL", "live"]);
    for node in [&one, &other] {
        until("the room is gone", || homepage(node)["rooms"] == json!([])).await;
    }
}

#[tokio::test]
async fn unchanged_pages_are_not_sent_again() {
    let (_redis, one, other) = start();
    one.publish("a", "hi");
    let first = one.get("/homepage_json");
    let etag = first.header("etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
    assert_eq!(first.header("cache-control"), Some("private, no-cache"));
    // The same page from any node.
    for node in [&one, &other] {
        let again = node.request("GET", "/homepage_json", &[("if-none-match", &etag)], "");
        assert_eq!((again.status, again.body.len()), (304, 0), "{again:?}");
        assert_eq!(again.header("etag"), Some(&*etag));
    }
    one.publish("a", "news");
    until("it has changed", || {
        let again = one.request("GET", "/homepage_json", &[("if-none-match", &etag)], "");
        again.status == 200 && again.header("etag") != Some(&*etag)
    })
    .await;
    assert_eq!(said(&one, "a"), ["hi", "news"]);
}

#[tokio::test]
async fn long_messages_are_cut_and_too_many_rooms_left_out() {
    let redis = RedisServer::start();
    let node = Node::start_with(&redis.url(), &["--homepage-rooms", "3"]);
    node.publish("a", "x".repeat(10_000));
    let mut rooms = ["b", "c", "d", "e"].map(|room| {
        let id: EntryId = node.publish(room, "hi").parse().unwrap();
        // Two rooms may have the same ID; then the names decide.
        (Reverse(id), room)
    });
    rooms.sort();
    let newest: Vec<&str> = rooms.iter().map(|(_, room)| *room).collect();
    let page = homepage(&node);
    let names = |page: &Value| -> Vec<String> {
        let rooms = page["rooms"].as_array().unwrap().iter();
        rooms
            .map(|card| card["room"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&page), newest[..3]);
    assert_eq!(page["truncated"], true);
    // The most active ones, also if they become so later.
    node.publish("a", "y".repeat(10_000));
    until("a is there", || {
        names(&homepage(&node)) == ["a", newest[0], newest[1]]
    })
    .await;
    let page = homepage(&node);
    let shown = &page["rooms"][0]["messages"][1];
    assert_eq!(shown["truncated"], true);
    assert!(shown["fields"]["message"].as_str().unwrap().len() < 2_100);
    let off = Node::start_with(&redis.url(), &["--homepage-rooms", "0"]);
    assert_eq!(off.get("/homepage_json").error_code(), "not_found");
}

/// Rooms whose newest IDs are the same are chosen and shown by their names.
#[tokio::test]
async fn rooms_of_one_id_are_in_the_order_of_their_names() {
    let redis = RedisServer::start();
    for room in ["d", "b", "e", "a", "c"] {
        redis.cli(&["XADD", room, "7-1", "message", "hi"]);
    }
    let node = Node::start_with(&redis.url(), &["--homepage-rooms", "3"]);
    let page = homepage(&node);
    let rooms = page["rooms"].as_array().unwrap().iter();
    let names: Vec<&str> = rooms.map(|card| card["room"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(page["truncated"], true);
}

/// Snapshot, then sockets from its positions, while somebody publishes all the time: nothing lost,
/// nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_a_socket_are_one_story() {
    let (redis, one, other) = start();
    let rooms = ["r0", "r1", "r2"];
    for room in rooms {
        one.publish(room, "first");
    }
    assert_eq!(homepage(&other)["rooms"].as_array().unwrap().len(), 3);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut publishers = Vec::new();
    for room in rooms {
        let path = format!("/rooms/{room}?format=json");
        let mut socket = Ws::open(&one, &path).await;
        let stopped = stopped.clone();
        publishers.push(tokio::spawn(async move {
            let mut number = 0;
            while !*stopped.borrow() {
                let publish = json!({"type":"publish","message":number.to_string()});
                socket.ask(publish).await;
                number += 1;
            }
            number
        }));
    }
    let mut readers = Vec::new();
    for round in 0..15 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let page = homepage(if round % 2 == 0 { &one } else { &other });
        let node = if round % 3 == 0 { &one } else { &other };
        let room = rooms[round % 3];
        let card = card(&page, room).unwrap();
        let from = card["last"].as_str().unwrap();
        let mut story: Vec<String> = Vec::new();
        for message in card["messages"].as_array().unwrap() {
            story.push(message["id"].as_str().unwrap().to_owned());
        }
        let path = format!("/?room=elsewhere{round}&format=json");
        let mut socket = Ws::open(node, &path).await;
        socket.frame_of("joined").await;
        socket
            .send_json(json!({"type":"join","room":room,"from":from}))
            .await;
        readers.push(tokio::spawn(async move {
            loop {
                let frame = socket.frame().await;
                assert_ne!(frame["type"], "gap", "{frame}");
                if frame["type"] == "entry" {
                    story.push(frame["id"].as_str().unwrap().to_owned());
                    if frame["fields"]["message"] == "the end" {
                        return (room, story);
                    }
                }
            }
        }));
    }
    stop.send_replace(true);
    for publisher in publishers {
        let published = tokio::time::timeout(PATIENCE, publisher).await.unwrap();
        assert!(published.unwrap() > 20);
    }
    for room in rooms {
        one.publish(room, "the end");
    }
    for reader in readers {
        let (room, story) = tokio::time::timeout(PATIENCE, reader)
            .await
            .unwrap()
            .unwrap();
        let all = redis.entries(room);
        let all: Vec<String> = all.iter().map(|(id, _)| id.to_string()).collect();
        let begin = all.iter().position(|id| *id == story[0]).unwrap();
        assert_eq!(story, all[begin..], "{room}");
    }
}

/// Application 5, as its page does it: register, log in, post, and see it on the homepage of another
/// node and in the published client `ws`, by the cookie alone.
#[tokio::test]
async fn a_visitor_with_an_account() {
    let (_redis, one, other) = accounts::start(&["--account-host", "boss"]);
    accounts::register(&one, "ann");
    let boss = accounts::register(&other, "boss");
    let ann = accounts::login(&other, "ann");
    let topic = json!({"act":"topic","message":"Anything goes"});
    let path = "/rooms/lobby/moderation";
    assert_eq!(accounts::post(&one, path, Some(&boss), &topic).status, 200);
    let post = |message: &str| {
        let body = json!({"message": message});
        let answer = accounts::post(&one, "/rooms/lobby", Some(&ann), &body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().to_owned()
    };
    let first = post("hello");
    for node in [&one, &other] {
        until("it is there", || said(node, "lobby") == ["hello"]).await;
        // Also for who has no account.
        let page = homepage(node);
        let card = card(&page, "lobby").unwrap();
        assert_eq!(card["topic"], "Anything goes");
        let message = json!({"id": first, "fields": {"message": "hello", "user": "ann"}});
        assert_eq!(card["messages"], json!([message]));
    }
    let url = other.ws_url(&format!("/rooms/lobby?format=json&from={first}"));
    let client = Program::ws(&[&url, "--json", "--cookie", &ann]);
    let next = || client.event("frame")["json"].clone();
    let mut frame = next();
    while frame["type"] != "room" {
        frame = next();
    }
    assert_eq!(frame["topic"], "Anything goes");
    let second = post("live");
    let mut frame = next();
    while frame["type"] != "entry" {
        frame = next();
    }
    assert_eq!(
        (&frame["id"], &frame["fields"]["user"]),
        (&json!(second), &json!("ann"))
    );
    // Who is banned sees the room no more; the others do.
    let ban = json!({"act":"ban","user":"ann"});
    assert_eq!(accounts::post(&one, path, Some(&boss), &ban).status, 200);
    let seen = |cookie: &str| {
        let headers = [("cookie", cookie)];
        let page = one.request("GET", "/homepage_json", &headers, "").json();
        card(&page, "lobby").is_some()
    };
    assert_eq!((seen(&ann), seen(&boss)), (false, true));
}

/// Everybody sees the rooms they may follow and read, and those with the same rights the same page.
#[tokio::test]
async fn each_sees_what_they_may() {
    let (_redis, one, other) = accounts::start(&[
        "--account-host",
        "boss",
        "--default-role",
        "open-*=member,news=viewer",
        "--anonymous-role",
        "news=viewer,wall=member",
        "--role",
        "member=publish+history+subscribe,cohost=subscribe",
    ]);
    let boss = accounts::register(&one, "boss");
    let ann = accounts::register(&one, "ann");
    let bob = accounts::register(&other, "bob");
    for room in ["closed", "news", "open-a", "open-b", "wall"] {
        let path = format!("/rooms/{room}");
        let said = accounts::post(&one, &path, Some(&boss), &json!({"message": "hi"}));
        assert_eq!(said.status, 201, "{said:?}");
    }
    let seen = |node: &Node, cookie: &str| -> (String, String) {
        let headers = [("cookie", cookie)];
        let answer = node.request(
            "GET",
            "/homepage_json",
            &headers[..usize::from(!cookie.is_empty())],
            "",
        );
        let page = answer.json();
        let rooms = page["rooms"].as_array().unwrap().iter();
        let mut rooms: Vec<&str> = rooms.map(|card| card["room"].as_str().unwrap()).collect();
        rooms.sort_unstable();
        (rooms.join(" "), answer.header("etag").unwrap().to_owned())
    };
    for node in [&one, &other] {
        until("all is there", || {
            seen(node, &boss).0 == "closed news open-a open-b wall"
        })
        .await;
        let anns = seen(node, &ann);
        assert_eq!(anns.0, "news open-a open-b");
        assert_eq!(seen(node, &bob), anns);
        assert_eq!(seen(node, "").0, "news wall");
        assert_ne!(seen(node, "").1, anns.1);
        let headers = [("cookie", &*boss), ("if-none-match", &*anns.1)];
        let answer = node.request("GET", "/homepage_json", &headers, "");
        assert_eq!(
            answer.status, 200,
            "somebody else's page is no page of mine"
        );
    }
    let spoilt = [("cookie", "token=spoilt")];
    let answer = one.request("GET", "/homepage_json", &spoilt, "");
    assert_eq!(answer.status, 401);
}

/// Redis goes and comes back under it.
#[tokio::test]
async fn it_outlives_its_redis() {
    let (mut redis, one, other) = start();
    one.publish("a", "before");
    for node in [&one, &other] {
        assert_eq!(said(node, "a"), ["before"]);
    }
    redis.kill9();
    // What is known is shown on.
    assert_eq!(said(&one, "a"), ["before"]);
    redis.restart();
    for node in [&one, &other] {
        node.wait_ready();
    }
    redis.cli(&["XADD", "a", "*", "message", "after"]);
    redis.cli(&["XADD", "b", "*", "message", "new"]);
    for node in [&one, &other] {
        until("it goes on", || said(node, "a") == ["before", "after"]).await;
        until("it looks on", || said(node, "b") == ["new"]).await;
    }
}

/// Nobody asks any more: after some minutes no room is followed for it.
#[tokio::test(start_paused = true)]
async fn it_ends_when_nobody_asks() {
    let log = Arc::new(MemoryLog::new(memory::Settings::default()));
    let relay = Relay::new(log.clone(), hub::Settings::default());
    let people = People::start(relay.clone(), log, people::Settings::default());
    let auth = Auth::new(auth::Settings::default()).unwrap();
    let anybody = auth.identify(&Credentials::default()).await.unwrap();
    let fields: Fields = Box::new([("message".into(), "hi".into())]);
    for name in ["a", "b", "c"] {
        let here = room(name);
        let published = people.publish(&anybody, &here, fields.clone(), None);
        published.await.unwrap();
    }
    let followed = || relay.stats().rooms.value();
    // Of the moderators.
    assert_eq!(followed(), 1);
    for _ in 0..2 {
        let snapshot = people.homepage().await.unwrap();
        let page = |cards: &[&Card], is_truncated: bool| {
            assert!(!is_truncated);
            let mut names: Vec<&str> = cards.iter().map(|card| card.room.as_str()).collect();
            names.sort_unstable();
            Page::new(names.join(" ").into(), String::new())
        };
        assert_eq!(snapshot.page(&anybody, View::Full, page).body, "a b c");
        assert_eq!(followed(), 4);
        tokio::time::sleep(Duration::from_secs(4 * 60)).await;
        assert_eq!(followed(), 4);
        people.homepage().await.unwrap();
        tokio::time::sleep(Duration::from_secs(6 * 60)).await;
        assert_eq!(followed(), 1);
    }
}

#[tokio::test]
async fn a_summary_is_small_and_compressed_once() {
    let mut redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let text = "a long story ".repeat(100);
    for number in 0..12 {
        node.publish(&format!("room{number}"), &text);
    }
    let last = node.publish("room3", "the newest");
    act(&node, "room3", json!({"act":"topic","message":"News"}));
    let path = "/homepage_json?summary=1";
    let plain = node.get(path);
    let page = plain.json();
    assert_eq!(page["redis"], "ready");
    let shown = card(&page, "room3").unwrap();
    assert_eq!(shown["topic"], "News");
    assert_eq!(shown["last"], last);
    assert_eq!(shown["recent"][1], json!({"id": last}));
    assert!(shown.get("messages").is_none());

    // The same in gzip, under another validator, which is known again.
    let gzip = [("accept-encoding", "gzip, br")];
    let packed = node.request("GET", path, &gzip, "");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_ne!(packed.header("etag"), plain.header("etag"));
    let vary = packed.header("vary").unwrap();
    assert!(vary.contains("accept-encoding"), "{vary}");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed.body[..])
        .read_to_string(&mut unpacked)
        .unwrap();
    assert_eq!(unpacked, plain.text());
    let known = packed.header("etag").unwrap().to_owned();
    let again = [("accept-encoding", "gzip"), ("if-none-match", &known)];
    let again = node.request("GET", path, &again, "");
    assert_eq!((again.status, again.body.len()), (304, 0));
    let full = node.get("/homepage_json").body.len();
    let packed = packed.body.len();
    assert!(packed * 20 < full, "{packed} of {full}");
    assert_eq!(node.get("/homepage_json?summary=yes").status, 400);

    // It says when nothing in it changes any more.
    redis.kill9();
    let redis_is = |state| node.get(path).json()["redis"] == state;
    until("Redis is away", || redis_is("away")).await;
    redis.restart();
    until("Redis is back", || redis_is("ready")).await;
}

/// `tailcast demo` on nodes that believe anybody, and on nodes with accounts.
#[tokio::test]
async fn a_demo() {
    let trusting = Node::in_memory(&[]);
    let key = "the-key-of-the-demo";
    let keyed = Node::in_memory(&["--accounts", "--api-key", &format!("demo:{key}")]);
    let demo = |node: &Node, more: &[&str]| -> (bool, String) {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
            .args(["demo", "--url", &node.url("")])
            .args(more)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (is_refused, said) = demo(&keyed, &[]);
    assert!(!is_refused && said.contains("--api-key"), "{said}");
    for (node, more) in [(&trusting, &[][..]), (&keyed, &["--api-key", key])] {
        let (is_done, told) = demo(node, more);
        assert!(is_done && told.contains("in 8 rooms"), "{told}");
        let page = homepage(node);
        assert_eq!(page["rooms"].as_array().unwrap().len(), 8);
        let card = card(&page, "lounge").unwrap();
        assert!(card["topic"].as_str().unwrap().contains("Coffee"));
        assert_eq!(card["properties"]["host"], "ada");
        let messages = card["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 10);
        assert!(
            messages
                .iter()
                .all(|message| message["fields"]["user"].is_string())
        );
        let mut stream = Ws::open(node, "/rooms/photo-walk?format=json").await;
        let pin = stream.frame_of("room").await["pin"].clone();
        assert!(pin["message"].as_str().unwrap().contains("Sunday"), "{pin}");
        // Rooms that are filled are left as they are.
        let before = node.get("/homepage_json").body;
        let (is_done, told) = demo(node, more);
        assert!(is_done && told.contains("0 messages"), "{told}");
        assert!(told.contains("have messages already: lounge,"), "{told}");
        assert_eq!(node.get("/homepage_json").body, before);
    }
}

/// Everybody is there while the demo goes on, where they are believed who they are.
#[tokio::test]
async fn a_live_demo() {
    let node = Node::in_memory(&[]);
    let mut demo = std::process::Command::new(env!("CARGO_BIN_EXE_tailcast"))
        .args(["demo", "--live", "--url", &node.url("")])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("each room has somebody in it", || {
        let page = homepage(&node);
        let rooms = page["rooms"].as_array().unwrap();
        let is_full = |card: &Value| card["count"].as_u64().unwrap() > 1;
        rooms.len() == 8 && rooms.iter().all(is_full)
    })
    .await;
    demo.kill().unwrap();
    demo.wait().unwrap();
}

/// The example, as its README starts it.
#[test]
fn the_example() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut example = std::process::Command::new(root.join("examples/homepage/run"))
        .arg("--memory")
        .env("PORT", port.to_string())
        .env("TAILCAST", env!("CARGO_BIN_EXE_tailcast"))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let get = |path: &str| http::try_request(port, "GET", path, &[], b"").ok();
    let deadline = std::time::Instant::now() + PATIENCE;
    let is_full = || {
        let page = get("/homepage_json").filter(|page| page.status == 200);
        page.is_some_and(|page| page.json()["rooms"].as_array().unwrap().len() == 8)
    };
    while !is_full() {
        assert!(std::time::Instant::now() < deadline, "it never fills");
        std::thread::sleep(Duration::from_millis(50));
    }
    // It goes on talking.
    let etag = |page: Option<http::Response>| page.unwrap().header("etag").unwrap().to_owned();
    let before = etag(get("/homepage_json"));
    while etag(get("/homepage_json")) == before {
        assert!(std::time::Instant::now() < deadline, "nobody talks");
        std::thread::sleep(Duration::from_millis(50));
    }
    let body = json!({"user": "ann", "password": "correct horse"}).to_string();
    let headers = [("content-type", "application/json")];
    let registered = http::try_request(port, "POST", "/register", &headers, body.as_bytes());
    assert_eq!(registered.unwrap().status, 201);
    // Its end is the node's, too.
    let pid = i32::try_from(example.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    example.wait().unwrap();
    while get("/health/live").is_some() {
        assert!(std::time::Instant::now() < deadline, "the node goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// How many commands Redis has got that a homepage could have sent.
fn commands(redis: &RedisServer) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = |line: &str| -> Option<u64> {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let is_ours = ![
            "ping", "info", "set", "eval", "evalsha", "get", "sadd", "smembers", "mget",
        ]
        .contains(&name);
        is_ours.then_some(())?;
        rest.split(',').next()?.parse().ok()
    };
    stats.lines().filter_map(calls).sum()
}

#[tokio::test]
async fn a_thousand_requests_cost_redis_nothing() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    for room in 0..50 {
        node.publish(&format!("room{room}"), "hi");
    }
    assert_eq!(homepage(&node)["rooms"].as_array().unwrap().len(), 50);
    // Meanwhile the node scans and counts every 5 s, and blocking reads come to their ends. That is
    // less than half a command per request, unless the machine is very busy, and then not each time.
    let is_free = (0..3).any(|_| {
        let before = commands(&redis);
        let began = std::time::Instant::now();
        for _ in 0..1_000 {
            assert_eq!(node.get("/homepage_json").status, 200);
        }
        let asked = commands(&redis) - before;
        println!("1,000 requests in {:?}: {asked} commands", began.elapsed());
        asked < 500
    });
    assert!(is_free, "a request costs Redis a command");
}
