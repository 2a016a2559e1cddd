//! Boards over real servers: the suite, and what only they can go through.

use std::sync::Arc;
use std::time::Duration;

use tailcast::people::board::{Board, Change, EarGuard, NodeId};
use tailcast::relay::entry::RoomName;
use tailcast::store::redis::{RedisLog, Settings};
use tokio::time::Instant;

use super::{LONG, Notes, append, beat, change, noticed, run, text, users};
use crate::harness::redis_server::RedisServer;
use crate::harness::{room, until};

fn board(server: &RedisServer, prefix: &str) -> Arc<RedisLog> {
    let settings = Settings {
        url: server.url(),
        key_prefix: prefix.to_owned(),
        ..Settings::default()
    };
    RedisLog::start(settings).unwrap()
}

#[tokio::test]
async fn redis() {
    let server = RedisServer::start();
    run(|| board(&server, "")).await;
}

#[tokio::test]
async fn redis_with_an_odd_prefix() {
    let server = RedisServer::start();
    // A room's key of nobody's.
    server.cli(&["XADD", "abc-d?:stranger", "*", "a", "b"]);
    run(|| board(&server, "a[b]*c-d?:")).await;
}

#[tokio::test]
async fn prefixes_do_not_meet() {
    let server = RedisServer::start();
    let here = room("r");
    let boards: Vec<_> = ["", "app:", "app:2:", "policy:"]
        .iter()
        .map(|prefix| board(&server, prefix))
        .collect();
    let ears: Vec<_> = boards
        .iter()
        .map(|board| Notes::listen(&**board, &here))
        .collect();
    until("all listen", || {
        ears.iter().all(|(ear, _)| ear.listening() == 1)
    })
    .await;
    for (index, board) in boards.iter().enumerate() {
        let node = NodeId::new(&format!("n{index}"));
        let seen = board.beat(&node, text("up"), LONG).await.unwrap();
        assert_eq!(seen.living, [(node.clone(), text("up"))]);
        let record = Box::new([(text("a"), text("b"))]);
        let rules = vec![("i".to_owned(), Some(index.to_string()))];
        board.act(&here, rules, record).await.unwrap();
        assert_eq!(
            board.count(&here, vec![("x".to_owned(), 1)]).await.unwrap(),
            [1]
        );
        board.whisper(&here, text(&index.to_string()));
        append(&**board, &here, None, &[], 0)
            .await
            .unwrap()
            .unwrap();
        let limits = [super::limit("u", LONG, 1)];
        append(&**board, &here, None, &limits, 0)
            .await
            .unwrap()
            .unwrap();
    }
    for (index, board) in boards.iter().enumerate() {
        let rules = board.rules(&here).await.unwrap();
        assert_eq!(rules, [("i".to_owned(), index.to_string())]);
        until("it hears", || {
            ears[index].0.messages() == [index.to_string()]
        })
        .await;
        // The empty one can't tell which rooms are others'.
        if index > 1 {
            assert_eq!(
                board.rooms(0, 100).await.unwrap().0,
                std::slice::from_ref(&here)
            );
        }
    }
}

#[tokio::test]
async fn rooms_are_streams() {
    let server = RedisServer::start();
    for name in ["string 1", "string 2"] {
        server.cli(&["SET", name, "x"]);
    }
    for name in ["room 1", "@user", "tailcast:audit", "bad\nname", "room 2"] {
        server.cli(&["XADD", name, "*", "a", "b"]);
    }
    server.cli(&["XADD", &"x".repeat(300), "*", "a", "b"]);
    let (mut rooms, cursor) = board(&server, "").rooms(0, 1000).await.unwrap();
    rooms.sort();
    assert_eq!((rooms, cursor), (vec![room("room 1"), room("room 2")], 0));
}

#[tokio::test]
async fn a_key_that_is_no_stream_is_told_nothing() {
    let server = RedisServer::start();
    let board = board(&server, "");
    let (node, odd, other) = (NodeId::new("n"), room("odd"), room("other"));
    server.cli(&["SET", "odd", "somebody's own"]);
    for (set, removed) in [(["ann"].as_slice(), [].as_slice()), (&[], &["ann"])] {
        let size = set.len() as u64;
        let changes = vec![
            change(&odd, set, removed, size),
            change(&other, set, removed, size),
        ];
        board.write(&node, changes, true).await.unwrap();
    }
    assert_eq!(noticed(&*board, &other).await, ["+ann", "-ann"]);
    assert_eq!(server.cli(&["GET", "odd"]), "somebody's own");
}

#[tokio::test]
async fn an_ear_listens_again() {
    let mut server = RedisServer::start();
    let (one, two) = (board(&server, ""), board(&server, ""));
    let here = room("r");
    let (ear, _guard) = Notes::listen(&*one, &here);
    until("it listens", || ear.listening() == 1).await;
    let killed = server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert_eq!(killed, "1");
    until("it listens again", || ear.listening() == 2).await;
    two.whisper(&here, text("a"));
    until("it hears", || ear.messages() == ["a"]).await;
    server.restart();
    until("it listens again", || ear.listening() == 3).await;
    // The first ones may be lost, until the whisperer has found out as well.
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while ear.messages().last() != Some(&text("b")) {
        assert!(Instant::now() < deadline);
        two.whisper(&here, text("b"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A server that hangs is noticed; once it goes on, it's a new connection.
    let hung = Instant::now();
    server.stop();
    tokio::time::sleep(Duration::from_millis(4500)).await;
    server.cont();
    until("it listens again", || ear.listening() == 4).await;
    assert!(hung.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn many_ears() {
    const EARS: usize = 20_000;
    let server = RedisServer::start();
    let (one, two) = (board(&server, ""), board(&server, ""));
    let rooms: Vec<_> = (0..EARS).map(|n| room(&format!("room {n}"))).collect();
    let ears: Vec<_> = rooms
        .iter()
        .map(|room| Notes::listen(&*one, room))
        .collect();
    let listening = |times| ears.iter().all(|(ear, _)| ear.listening() == times);
    until("all listen", || listening(1)).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    until("all listen again", || listening(2)).await;
    for (rooms, ears) in rooms.chunks(5000).zip(ears.chunks(5000)) {
        for room in rooms {
            two.whisper(room, text(room.as_str()));
        }
        let heard = |(room, (ear, _)): (&RoomName, &(Arc<Notes>, EarGuard))| {
            ear.messages() == [room.as_str()]
        };
        until("all hear", || rooms.iter().zip(ears).all(heard)).await;
    }
    drop(ears);
    let count = || server.cli(&["PUBSUB", "CHANNELS"]).is_empty();
    until("nobody listens", count).await;
}

#[tokio::test]
async fn a_lease_whose_answer_was_lost_is_not_kept() {
    let server = RedisServer::start();
    let (one, node) = (board(&server, ""), NodeId::new("n"));
    assert!(!beat(&*one, &node, LONG).await);
    assert!(beat(&*one, &node, LONG).await);
    // As if the lease had run out, and the next beat had been carried out unheard.
    server.cli(&["SET", "tailcast:{}node:n", "0123456789abcdefup"]);
    assert!(!beat(&*one, &node, LONG).await);
    assert!(beat(&*one, &node, LONG).await);
    // A Redis that is empty again.
    server.cli(&["FLUSHALL"]);
    server.cli(&["SCRIPT", "FLUSH"]);
    assert!(!beat(&*one, &node, LONG).await);
}

#[tokio::test]
async fn a_node_that_writes_after_its_burial_is_found() {
    let server = RedisServer::start();
    let (one, two) = (board(&server, ""), board(&server, ""));
    let (node, here) = (NodeId::new("n"), room("r"));
    let names: Vec<String> = (0..2000).map(|n| format!("{n:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for notices in [false, true] {
        // All at once, with the burial in the midst of it.
        let writing = one.write(&node, vec![change(&here, &names, &[], 2000)], notices);
        let writing = tokio::spawn(writing);
        while !writing.is_finished() {
            // It may give up on a node that writes on and on.
            let _ = two.bury(&node, notices).await;
        }
        writing.await.unwrap().unwrap();
        let changes = vec![
            change(&here, &["zoe"], &[], 1),
            Change::User("zoe".to_owned(), Some(text("x"))),
        ];
        one.write(&node, changes, notices).await.unwrap();
        let seen = two.beat(&NodeId::new("m"), text("up"), LONG).await.unwrap();
        assert_eq!(seen.dead, std::slice::from_ref(&node));
        assert!(two.bury(&node, notices).await.unwrap());
        assert!(users(&*two, &here, &node).await.is_empty());
        assert_eq!(server.cli(&["KEYS", "tailcast:{}*:n*"]), "");
    }
    let mut told = noticed(&*one, &here).await;
    assert_eq!(told.len(), 2 * 2001);
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 2 * 2001, "each joins once and leaves once");
}

#[tokio::test]
async fn survives_a_restart_and_a_killed_connection() {
    let mut server = RedisServer::start();
    let (one, node, here) = (board(&server, ""), NodeId::new("n"), room("r"));
    let write =
        |user: &'static str, size| one.write(&node, vec![change(&here, &[user], &[], size)], true);
    write("ann", 1).await.unwrap();
    server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    server.cli(&["SCRIPT", "FLUSH"]);
    write("bob", 2).await.unwrap();
    server.restart();
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while write("cy", 3).await.is_err() {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(users(&*one, &here, &node).await, ["ann", "bob", "cy"]);
    assert_eq!(noticed(&*one, &here).await, ["+ann", "+bob", "+cy"]);
}

/// Not a test: what Redis spends on 100,000 people joining one room within a minute, on three nodes
/// that write every 250 ms. Run it by its name, with `--ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_joins() {
    const NODES: usize = 3;
    const PER_TICK: usize = 139;
    let server = RedisServer::start();
    let here = room("big");
    for notices in [false, true] {
        let nodes: Vec<_> = (0..NODES)
            .map(|n| (board(&server, ""), NodeId::new(&format!("{notices}{n}"))))
            .collect();
        let _ears: Vec<_> = nodes
            .iter()
            .map(|(b, _)| Notes::listen(&**b, &here))
            .collect();
        for (board, node) in &nodes {
            beat(&**board, node, LONG).await;
        }
        server.cli(&["CONFIG", "RESETSTAT"]);
        server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "5000"]);
        server.cli(&["SLOWLOG", "RESET"]);
        let cpu = || -> f64 {
            let info = server.cli(&["INFO", "cpu"]);
            let field = |name: &str| -> f64 {
                let line = info.lines().find(|line| line.starts_with(name)).unwrap();
                line.split(':').nth(1).unwrap().trim().parse().unwrap()
            };
            field("used_cpu_sys:") + field("used_cpu_user:")
        };
        let (before, started) = (cpu(), Instant::now());
        let mut size = 0;
        let mut ticks = tokio::time::interval(Duration::from_millis(250));
        while started.elapsed() < Duration::from_secs(15) {
            ticks.tick().await;
            for (board, node) in &nodes {
                let users: Vec<_> = (size..size + PER_TICK)
                    .map(|n| format!("user{n}@{node}"))
                    .collect();
                let users: Vec<&str> = users.iter().map(String::as_str).collect();
                let mut changes = vec![change(&here, &users, &[], (size + PER_TICK) as u64)];
                changes.extend(
                    users
                        .iter()
                        .map(|u| Change::User(u.to_string(), Some(text(&"r".repeat(80))))),
                );
                board.write(node, changes, notices).await.unwrap();
            }
            size += PER_TICK;
        }
        let (spent, took) = (cpu() - before, started.elapsed().as_secs_f64());
        let joins = (size * NODES) as f64 / took;
        println!(
            "notices {notices}: {joins:.0} joins/s, {:.2} % of a core",
            100.0 * spent / took
        );
        for (board, node) in &nodes {
            board.retire(node).await.unwrap();
            let burying = Instant::now();
            assert!(board.bury(node, notices).await.unwrap());
            println!("buried {size} people in {:?}", burying.elapsed());
        }
        println!("steps over 5 ms: {}", server.cli(&["SLOWLOG", "LEN"]));
    }
}

/// Not a test: how long 100,000 ears take.
#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_ears() {
    let server = RedisServer::start();
    let one = board(&server, "");
    let started = Instant::now();
    let rooms: Vec<_> = (0..100_000).map(|n| room(&format!("room {n}"))).collect();
    let ears: Vec<_> = rooms
        .iter()
        .map(|room| Notes::listen(&*one, room))
        .collect();
    let listening = |times| ears.iter().all(|(ear, _)| ear.listening() == times);
    until("all listen", || listening(1)).await;
    println!("100,000 ears listen after {:?}", started.elapsed());
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let started = Instant::now();
    until("all listen again", || listening(2)).await;
    println!("and again after {:?}", started.elapsed());
    println!(
        "{}",
        server.cli(&["INFO", "memory"]).lines().nth(1).unwrap()
    );
}
