//! Who is here: told once, right on every node, and nobody stays who has gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{KEY, SECOND, asked, assert_within, enter, open, publish, time_until, token};
use crate::harness::clients::Ws;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;
use crate::harness::until;

/// Nodes that know each other. They look who else lives every two seconds.
async fn acquainted<const N: usize>(arguments: &[&str]) -> (RedisServer, [Node; N]) {
    let (redis, nodes) = super::start::<N>(arguments);
    let known = |node: &Node| {
        let answer = asked(node, KEY, "GET", "/nodes", Value::Null);
        answer["nodes"].as_array().unwrap().len()
    };
    for node in &nodes {
        until("all nodes are known", || known(node) == N).await;
    }
    (redis, nodes)
}

/// Who is in a room, with their devices, as one node says.
fn present(node: &Node, room: &str) -> BTreeMap<String, u64> {
    let presence = asked(
        node,
        KEY,
        "GET",
        &format!("/rooms/{room}/presence"),
        Value::Null,
    );
    let users = presence["users"].as_array().unwrap();
    assert_eq!(presence["count"], users.len(), "{presence}");
    assert_eq!(presence["truncated"], false);
    let row = |row: &Value| {
        assert!(row["since"].as_u64().unwrap() > 0);
        let user = row["user"].as_str().unwrap().to_owned();
        (user, row["devices"].as_u64().unwrap())
    };
    users.iter().map(row).collect()
}

fn users(rows: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let rows = rows.iter();
    rows.map(|(user, devices)| ((*user).to_owned(), *devices))
        .collect()
}

/// What a watcher is told until somebody has joined, the last one included: joins and leaves, by
/// user. `all` replaces what was known.
async fn moves_until(socket: &mut Ws, last: &str) -> Vec<String> {
    let mut moves = Vec::new();
    loop {
        let frame = socket.frame_of("presence").await;
        assert_eq!(frame.get("all"), None, "{frame}");
        for (name, mark) in [("leave", '-'), ("join", '+')] {
            for row in frame[name].as_array().unwrap() {
                moves.push(format!("{mark}{}", row["user"].as_str().unwrap()));
            }
        }
        if moves.iter().any(|told| told[1..] == *last) {
            return moves;
        }
    }
}

/// Who is here, as a newcomer is told, until they are in it themselves.
async fn all_with(socket: &mut Ws, user: &str) -> BTreeSet<String> {
    let mut here = BTreeSet::new();
    let mut is_first = true;
    while !here.contains(user) {
        let frame = socket.frame_of("presence").await;
        assert_eq!(frame.get("all").is_some(), is_first, "{frame}");
        is_first = false;
        let named = |name: &str| {
            let rows = frame[name].as_array().unwrap().iter();
            let users = rows.map(|row| row["user"].as_str().unwrap().to_owned());
            users.collect::<Vec<_>>()
        };
        here.extend(named("join"));
        here.retain(|user| !named("leave").contains(user));
        assert_eq!(frame["count"], here.len(), "{frame}");
    }
    here
}

#[tokio::test]
async fn three_devices_are_one_user() {
    let (_redis, nodes) = acquainted::<3>(&[]).await;
    let watch = token("watch", "live=viewer");
    let mut watcher = enter(&nodes[0], &watch, "live", "&presence=1").await;
    let told = all_with(&mut watcher, "watch").await;
    assert_eq!(told, BTreeSet::from(["watch".to_owned()]));
    let ann = token("ann", "live=member");
    let mut devices = Vec::new();
    for node in &nodes {
        devices.push(enter(node, &ann, "live", "").await);
    }
    for node in &nodes {
        let want = users(&[("ann", 3), ("watch", 1)]);
        let took = time_until("all are counted", || present(node, "live") == want).await;
        assert_within("counting", took, SECOND);
    }
    // Who comes now is told of everybody, once, and of nobody's coming.
    let late = token("late", "live=viewer");
    let mut newcomer = enter(&nodes[2], &late, "live", "").await;
    newcomer
        .send_json(json!({"type":"join","room":"hall","presence":true}))
        .await;
    assert_eq!(newcomer.frame().await["code"], "forbidden");
    drop(newcomer);
    let mut newcomer = enter(&nodes[1], &late, "live", "&presence=1").await;
    let told = all_with(&mut newcomer, "late").await;
    assert!(told.contains("ann") && told.contains("watch"), "{told:?}");
    for left in [2, 1] {
        drop(devices.remove(0));
        let want = users(&[("ann", left), ("late", 1), ("watch", 1)]);
        until("a device less", || present(&nodes[0], "live") == want).await;
    }
    drop(devices);
    let gone = users(&[("late", 1), ("watch", 1)]);
    let leaving = async {
        let mut took = Duration::ZERO;
        for node in &nodes {
            took += time_until("ann has gone", || present(node, "live") == gone).await;
        }
        took
    };
    assert_within("leaving", leaving.await, SECOND);
    let _end = enter(&nodes[2], &token("end", "live=viewer"), "live", "").await;
    let told = moves_until(&mut watcher, "end").await;
    let of_ann: Vec<_> = told.iter().filter(|told| &told[1..] == "ann").collect();
    assert_eq!(of_ann, ["+ann", "-ann"], "{told:?}");
    let mut told = moves_until(&mut newcomer, "end").await;
    told.retain(|told| &told[1..] != "late");
    assert_eq!(told, ["-ann", "+end"]);
}

#[tokio::test]
async fn asked_for_in_a_frame() {
    let (_redis, [node, other]) = acquainted::<2>(&[]).await;
    let ann = token("ann", "live=member,hall=member");
    let mut socket = enter(&node, &ann, "hall", "").await;
    let _bob = enter(&other, &token("bob", "live=member"), "live", "").await;
    socket
        .send_json(json!({"type":"join","room":"live","presence":true}))
        .await;
    assert_eq!(socket.frame_of("joined").await["room"], "live");
    all_with(&mut socket, "ann").await;
    until("both are there", || present(&node, "live").len() == 2).await;
    let ask = json!({"type":"presence","room":"live"});
    let answer = socket.ask(ask).await;
    assert_eq!(answer["type"], "users", "{answer}");
    assert_eq!(answer["presence"]["count"], 2);
    assert_eq!(answer["presence"]["users"][1]["user"], "bob");
    let ask = json!({"type":"presence","room":"live","limit":1});
    let answer = socket.ask(ask).await;
    assert_eq!(answer["presence"]["count"], 2);
    assert_eq!(answer["presence"]["truncated"], true);
    assert_eq!(answer["presence"]["users"].as_array().unwrap().len(), 1);
}

/// What is told of everybody's roles, by user.
fn roles(users: &Value) -> BTreeMap<String, Value> {
    let text = |row: &Value| row["user"].as_str().unwrap().to_owned();
    let rows = users.as_array().unwrap().iter();
    rows.map(|row| (text(row), row["role"].clone())).collect()
}

#[tokio::test]
async fn roles_are_shown_on_all_nodes() {
    let (_redis, [node, other]) = acquainted::<2>(&[]).await;
    let everybody = |told: &[(&str, Value)]| -> BTreeMap<String, Value> {
        let told = told.iter().cloned();
        told.map(|(user, role)| (user.to_owned(), role)).collect()
    };
    let mut watcher = enter(&node, &token("watch", "live=viewer"), "live", "&presence=1").await;
    all_with(&mut watcher, "watch").await;
    let hanna = token("hanna", "live=host");
    let mut host = enter(&other, &hanna, "live", "").await;
    // Who comes is told with the role.
    let came = watcher.frame_of("presence").await;
    assert_eq!(came["join"], json!([{"user":"hanna","role":"host"}]));
    assert_eq!(came.get("all"), None, "{came}");
    let mut others = Vec::new();
    for (user, role) in [("co", "cohost"), ("mo", "moderator"), ("me", "member")] {
        others.push(enter(&node, &token(user, &format!("live={role}")), "live", "").await);
    }
    let rest = [
        ("co", json!("cohost")),
        ("me", Value::Null),
        ("mo", json!("moderator")),
        ("watch", Value::Null),
    ];
    let with = |role: Value| everybody(&[&rest[..], &[("hanna", role)]].concat());
    let path = "/rooms/live/presence";
    for node in [&node, &other] {
        until("all are known by their roles", || {
            roles(&asked(node, KEY, "GET", path, Value::Null)["users"]) == with(json!("host"))
        })
        .await;
    }
    let answer = watcher.ask(json!({"type":"presence","room":"live"})).await;
    assert_eq!(roles(&answer["presence"]["users"]), with(json!("host")));
    // Another device of less, on another node, takes nothing away.
    let lesser = token("hanna", "live=moderator");
    let device = enter(&node, &lesser, "live", "").await;
    let is_told = |node: &Node, role: &str, devices: u64| {
        let users = asked(node, KEY, "GET", path, Value::Null)["users"].take();
        let mut users = users.as_array().unwrap().iter();
        let hanna = users.find(|row| row["user"] == "hanna").unwrap();
        (&hanna["role"], &hanna["devices"]) == (&json!(role), &json!(devices))
    };
    for node in [&node, &other] {
        until("both count", || is_told(node, "host", 2)).await;
    }
    // A fresh token changes it, and everybody is told.
    let renewed = token("hanna", "live=cohost");
    host.send_json(json!({"type":"auth","token":renewed})).await;
    assert_eq!(host.frame_of("authenticated").await["user"], "hanna");
    let told = watcher.frame_that(|frame| frame["all"] == true).await;
    assert_eq!(roles(&told["join"]), with(json!("cohost")), "{told}");
    drop(host);
    let told = watcher.frame_that(|frame| frame["all"] == true).await;
    assert_eq!(roles(&told["join"]), with(json!("moderator")), "{told}");
    for node in [&node, &other] {
        until("one is left", || is_told(node, "moderator", 1)).await;
    }
    drop(device);
    let told = watcher.frame_of("presence").await;
    assert_eq!(told["leave"], json!([{"user":"hanna"}]), "{told}");
}

#[tokio::test]
async fn where_anybody_is_believed_no_roles_are_shown() {
    for arguments in [&[][..], &["--auth", "cookie"]] {
        let redis = RedisServer::start();
        let node = Node::start_with(&redis.url(), arguments);
        let path = "/rooms/live?format=json&inbox=0&user=ann&presence=1";
        let ann = [("cookie", "token=ann")];
        let mut socket = Ws::try_open(&node, path, &ann).await.unwrap();
        let told = socket.frame_that(|frame| frame["count"] == 1).await;
        assert_eq!(told["join"], json!([{"user":"ann"}]), "{told}");
        let answer = node.request("GET", "/rooms/live/presence", &ann, "").json();
        assert_eq!(answer["users"][0].get("role"), None, "{answer}");
    }
}

#[tokio::test]
async fn in_a_large_room_the_number_is_told() {
    let (_redis, [node, other]) = acquainted::<2>(&["--presence-limit", "3"]).await;
    let watch = token("watch", "live=viewer");
    let mut watcher = enter(&node, &watch, "live", "&presence=1").await;
    all_with(&mut watcher, "watch").await;
    let mut crowd = Vec::new();
    for number in 1..=5 {
        let user = token(&format!("user{number}"), "live=viewer");
        let node = [&node, &other][number % 2];
        crowd.push(enter(node, &user, "live", "").await);
        until("all are counted", || {
            present(node, "live").len() == number + 1
        })
        .await;
    }
    let mut named = BTreeSet::new();
    let mut count = 0;
    while count < 6 {
        let frame = watcher.frame_of("presence").await;
        count = frame["count"].as_u64().unwrap();
        let join = frame["join"].as_array().unwrap();
        assert!(count <= 3 || join.is_empty(), "{frame}");
        named.extend(join.iter().map(|row| row["user"].to_string()));
        assert_eq!(frame["leave"], json!([]));
    }
    // Up to the limit there may have been names.
    assert!(named.len() <= 2, "{named:?}");
    // Small again: everybody by name.
    crowd.truncate(1);
    let frame = watcher.frame_that(|frame| frame["all"] == true).await;
    assert_eq!(frame["count"], 2, "{frame}");
    assert_eq!(frame["join"], json!([{"user":"user1"},{"user":"watch"}]));
}

#[tokio::test]
async fn a_user_and_their_rooms() {
    let (_redis, [node, other]) = acquainted::<2>(&[]).await;
    let ann = token("ann", "live=member,hall=member");
    let seen = |node: &Node, token: &str| asked(node, token, "GET", "/users/ann", Value::Null);
    let nowhere = json!({"user":"ann","online":false,"devices":0,"rooms":[]});
    assert_eq!(seen(&node, KEY), nowhere);
    let mut socket = enter(&node, &ann, "live", "").await;
    socket.send_json(json!({"type":"join","room":"hall"})).await;
    assert_eq!(socket.frame().await["type"], "joined");
    let _raw = super::enter_raw(&other, &ann, "/rooms/live").await;
    let want = json!({"user":"ann","online":true,"devices":2,"rooms":["hall","live"]});
    for node in [&node, &other] {
        until("both devices are known", || seen(node, KEY) == want).await;
    }
    assert_eq!(seen(&node, &ann), want);
    drop(socket);
    let want = json!({"user":"ann","online":true,"devices":1,"rooms":["live"]});
    until("one device is left", || seen(&node, KEY) == want).await;
    drop(_raw);
    until("none is left", || seen(&other, KEY) == nowhere).await;
}

#[tokio::test]
async fn all_rooms_page_by_page() {
    let (_redis, [node, other]) = acquainted::<2>(&[]).await;
    let mut stored = BTreeMap::new();
    for number in 0..25 {
        let room = format!("room-{number}");
        let id = publish(&node, &room, "x");
        stored.insert(room, (0, Value::from(id)));
    }
    // One where somebody is on two nodes; and what is not listed: inboxes, and where nothing was said.
    let ann = token("ann", "*=member");
    let mut sockets = Vec::new();
    for (node, room) in [(&node, "silent"), (&node, "room-7"), (&other, "room-7")] {
        sockets.push(enter(node, &ann, room, "").await);
    }
    sockets.push(enter(&other, &token("bob", "*=member"), "room-7", "").await);
    publish(&node, "@ann", "x");
    stored.get_mut("room-7").unwrap().0 = 2;
    until("both are counted", || present(&node, "room-7").len() == 2).await;
    let listed = |node: &Node, token: &str| {
        let mut rooms = BTreeMap::new();
        let mut path = "/rooms?limit=2".to_owned();
        loop {
            let page = asked(node, token, "GET", &path, Value::Null);
            for row in page["rooms"].as_array().unwrap() {
                let room = row["room"].as_str().unwrap().to_owned();
                rooms.insert(room, (row["count"].as_u64().unwrap(), row["last"].clone()));
            }
            match page["next"].as_str() {
                Some(next) => path = format!("/rooms?limit=2&cursor={next}"),
                None => return rooms,
            }
        }
    };
    assert_eq!(listed(&node, KEY), stored);
    assert_eq!(listed(&other, KEY), stored);
    assert_eq!(listed(&node, &ann), stored);
    // Others see what they may follow.
    let bob = listed(&node, &token("bob", "room-1*=viewer"));
    assert_eq!(bob.len(), 11, "{bob:?}");
    assert!(bob.keys().all(|room| room.starts_with("room-1")));
}

#[tokio::test]
async fn the_nodes_that_live() {
    let (_redis, mut nodes) = acquainted::<3>(&[]).await;
    let ann = token("ann", "*=member");
    let _one = enter(&nodes[0], &ann, "a", "").await;
    let _two = enter(&nodes[0], &ann, "b", "").await;
    let _three = enter(&nodes[1], &ann, "a", "").await;
    let sockets = |node: &Node| {
        let rows = asked(node, KEY, "GET", "/nodes", Value::Null);
        let rows = rows["nodes"].as_array().unwrap().clone();
        let mut sockets: Vec<u64> = rows
            .iter()
            .map(|row| {
                assert!(row["node"].is_string() && row["rooms"].is_u64(), "{row}");
                row["sockets"].as_u64().unwrap()
            })
            .collect();
        sockets.sort_unstable();
        sockets
    };
    for node in &nodes {
        until("all three are there", || sockets(node) == [0, 1, 2]).await;
    }
    nodes[2].sigterm();
    assert!(nodes[2].wait_exit().success());
    until("two are left", || sockets(&nodes[0]) == [1, 2]).await;
}

#[tokio::test]
async fn comings_and_goings_as_entries() {
    let (redis, nodes) = acquainted::<3>(&["--notices"]).await;
    let ann = token("ann", "live=viewer");
    let mut watcher = enter(&nodes[0], KEY, "live", "").await;
    let mut devices = Vec::new();
    for node in &nodes {
        devices.push(enter(node, &ann, "live", "").await);
    }
    until("all devices are there", || {
        present(&nodes[0], "live") == users(&[("ann", 3)])
    })
    .await;
    for left in [2, 1] {
        drop(devices.remove(0));
        let want = users(&[("ann", left)]);
        until("a device less", || present(&nodes[0], "live") == want).await;
    }
    drop(devices);
    for event in ["join", "leave"] {
        let fields = watcher.frame_of("entry").await["fields"].take();
        assert_eq!(
            (&fields["event"], &fields["user"]),
            (&json!(event), &json!("ann"))
        );
    }
    let _bob = enter(&nodes[2], &token("bob", "live=viewer"), "live", "").await;
    let fields = watcher.frame_of("entry").await["fields"].take();
    assert_eq!(
        (&fields["event"], &fields["user"]),
        (&json!("join"), &json!("bob"))
    );
    assert_eq!(redis.cli(&["XLEN", "live"]), "3");
}

#[tokio::test]
async fn a_node_that_ends_takes_its_people_along() {
    let (_redis, mut nodes) = acquainted::<3>(&[]).await;
    let watch = token("watch", "live=viewer");
    let mut watcher = enter(&nodes[0], &watch, "live", "&presence=1").await;
    all_with(&mut watcher, "watch").await;
    let mut crowd = Vec::new();
    for number in 0..20 {
        let user = token(&format!("user{number}"), "live=viewer");
        crowd.push(enter(&nodes[2], &user, "live", "").await);
    }
    let stays = open(&nodes[1], &token("user0", "live=viewer"), "/rooms/live").await;
    until("all are there", || present(&nodes[0], "live").len() == 21).await;
    nodes[2].sigterm();
    let stopped = Instant::now();
    let want = users(&[("user0", 1), ("watch", 1)]);
    for node in &nodes[..2] {
        until("they have gone", || present(node, "live") == want).await;
    }
    assert_within(
        "leaving with a node",
        stopped.elapsed(),
        Duration::from_secs(2),
    );
    assert!(nodes[2].wait_exit().success());
    let _end = enter(&nodes[1], &token("end", "live=viewer"), "live", "").await;
    let told = moves_until(&mut watcher, "end").await;
    let left = told.iter().filter(|told| told.starts_with('-'));
    assert_eq!(left.count(), 19, "{told:?}");
    drop(stays);
}
