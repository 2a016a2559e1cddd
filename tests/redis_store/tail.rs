//! Tails, in each of their three ways.

use std::sync::Arc;
use std::time::Duration;

use tailcast::relay::log::{Feed, Log, LogError, TailGuard};
use tailcast::store::redis::{RedisLog, Settings, TailMode};
use tokio::time::sleep;

use crate::harness::{Collector, Server, append, store, until};

const SOON: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Block,
    Track,
    Group,
}

fn log(server: &Server, way: Way) -> Arc<RedisLog> {
    let (tail_mode, tail_connections) = match way {
        Way::Block => (TailMode::Auto, 1000),
        Way::Track => (TailMode::Auto, 0),
        Way::Group => (TailMode::Block, 0),
    };
    RedisLog::start(Settings {
        tail_mode,
        tail_connections,
        ..server.settings()
    })
    .unwrap()
}

async fn join(log: &RedisLog, name: &str) -> (Arc<Collector>, TailGuard) {
    let feed = Collector::new(name);
    let guard = log.tail(feed.clone());
    until("the room is surveyed", || async { feed.surveyed() }).await;
    (feed, guard)
}

/// Appends for ever what `rooms` shall get, with keys, so that nothing is stored twice.
async fn publish(log: &RedisLog, rooms: &[String], from: usize, to: usize) {
    let mut told = Vec::new();
    for index in from..to {
        let name = &rooms[index % rooms.len()];
        let key = format!("key {index}");
        told.push(append(log, name, &index.to_string(), Some(&key), SOON));
    }
    for told in told {
        told.await.unwrap().unwrap();
    }
}

/// Every room has its share of `0..count`, in order.
async fn complete(feeds: &[Arc<Collector>], count: usize) {
    let total = || async { feeds.iter().map(|feed| feed.count()).sum::<usize>() >= count };
    until("all is delivered", total).await;
    for (index, feed) in feeds.iter().enumerate() {
        let mine = (0..count).filter(|n| n % feeds.len() == index);
        let want: Vec<_> = mine.map(|n| n.to_string()).collect();
        assert_eq!(feed.messages(), want);
        let heard = feed.heard.lock().unwrap();
        assert!(heard.ids.is_sorted_by(|a, b| a < b));
        assert_eq!(heard.gone, 0);
    }
}

async fn delivers(way: Way) {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let log = log(&server, way);
    let rooms: Vec<_> = (0..100).map(|index| format!("room {index}")).collect();
    let (mut feeds, mut guards) = (Vec::new(), Vec::new());
    for name in &rooms {
        let feed = Collector::new(name);
        guards.push(log.tail(feed.clone()));
        feeds.push(feed);
    }
    let surveyed = || async { feeds.iter().all(|feed| feed.surveyed()) };
    until("all rooms are surveyed", surveyed).await;
    publish(&log, &rooms, 0, 1000).await;
    complete(&feeds, 1000).await;

    server
        .command(&["CLIENT", "KILL", "TYPE", "normal"])
        .await
        .unwrap();
    publish(&log, &rooms, 1000, 1500).await;
    complete(&feeds, 1500).await;

    server.kill();
    server.run().await;
    publish(&log, &rooms, 1500, 2000).await;
    complete(&feeds, 2000).await;
    until("health is good", || async { log.health().is_ok() }).await;

    // A key of another type disturbs nobody else, and its room goes on once it's gone.
    let (odd, _guard) = join(&log, "odd").await;
    store(&*log, "odd", "0").await;
    until("it comes", || async { odd.count() == 1 }).await;
    server.command(&["SET", "odd", "a string"]).await.unwrap();
    let wrong = || async {
        odd.heard
            .lock()
            .unwrap()
            .errors
            .contains(&LogError::WrongType)
    };
    until("it's told", wrong).await;
    publish(&log, &rooms, 2000, 2200).await;
    complete(&feeds, 2200).await;
    server.command(&["DEL", "odd"]).await.unwrap();
    store(&*log, "odd", "1").await;
    let gone = || async { odd.heard.lock().unwrap().gone > 0 };
    until("it's told that its cursor is gone", gone).await;
    until("it's surveyed again", || async { odd.surveyed() }).await;
    // The next one follows what was surveyed, or was part of it.
    store(&*log, "odd", "2").await;
    let last = || async {
        let heard = odd.heard.lock().unwrap();
        heard.messages.last().is_some_and(|last| last == "2")
    };
    until("it goes on", last).await;

    server.command(&["FLUSHALL"]).await.unwrap();
    let all_gone = || async {
        feeds
            .iter()
            .all(|feed| feed.heard.lock().unwrap().gone == 1)
    };
    until("every room is told", all_gone).await;
    drop(guards);
    drop(_guard);
    let clients = || async {
        let list = server.command(&["CLIENT", "LIST"]).await.unwrap();
        let redis::Value::BulkString(list) = list else {
            panic!("{list:?}");
        };
        let list = String::from_utf8(list).unwrap();
        // Appends, questions, the asker, and the shared tail if there is one.
        list.lines().count() <= if way == Way::Track { 4 } else { 3 }
    };
    until("the tails' connections are closed", clients).await;
}

#[tokio::test]
async fn blocking() {
    delivers(Way::Block).await;
}

#[tokio::test]
async fn tracking() {
    delivers(Way::Track).await;
}

#[tokio::test]
async fn groups() {
    delivers(Way::Group).await;
}

/// Connections are cut all the while: with keys, everything is stored once and in order, and every
/// tail gets it so.
#[tokio::test]
async fn cut_again_and_again() {
    let server = Server::start(&[]).await;
    for way in [Way::Block, Way::Track, Way::Group] {
        let log = log(&server, way);
        let rooms: Vec<_> = (0..10).map(|index| format!("{way:?} {index}")).collect();
        let (mut feeds, mut guards) = (Vec::new(), Vec::new());
        for name in &rooms {
            let (feed, guard) = join(&log, name).await;
            feeds.push(feed);
            guards.push(guard);
        }
        let cut = async {
            for _ in 0..20 {
                let kill = ["CLIENT", "KILL", "TYPE", "normal"];
                server.command(&kill).await.unwrap();
                sleep(Duration::from_millis(15)).await;
            }
        };
        let publish = async {
            for step in 0..40 {
                publish(&log, &rooms, step * 50, (step + 1) * 50).await;
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::join!(cut, publish);
        complete(&feeds, 2000).await;
    }
}

/// More than one read's worth, at once, before and after the room is known.
#[tokio::test]
async fn long_backlogs() {
    let server = Server::start(&[]).await;
    for way in [Way::Block, Way::Track, Way::Group] {
        let log = log(&server, way);
        let name = format!("{way:?}");
        let (feed, _guard) = join(&log, &name).await;
        publish_straight(&server, &name, 1000).await;
        until("all comes", || async { feed.count() == 1000 }).await;
        assert!(feed.heard.lock().unwrap().ids.is_sorted_by(|a, b| a < b));
        // A second tail of the same room, as when one replaces another.
        let (other, _other_guard) = join(&log, &name).await;
        publish_straight(&server, &name, 10).await;
        let both = || async { feed.count() == 1010 && other.count() == 10 };
        until("both get it", both).await;
    }
}

async fn publish_straight(server: &Server, name: &str, count: usize) {
    let script = "for i = 1, ARGV[1] do redis.call('XADD', KEYS[1], '*', 'message', i) end";
    let count = count.to_string();
    server
        .command(&["EVAL", script, "1", name, &count])
        .await
        .unwrap();
}

#[tokio::test]
async fn falls_back_to_groups_without_tracking() {
    let server = Server::start(&[]).await;
    let user = [
        "ACL",
        "SETUSER",
        "u",
        "on",
        ">p",
        "~*",
        "&*",
        "+@all",
        "-client|tracking",
    ];
    server.command(&user).await.unwrap();
    let log = RedisLog::start(Settings {
        url: format!("{}?user=u&pass=p", server.url()),
        tail_connections: 1,
        ..Settings::default()
    })
    .unwrap();
    let mut rooms = Vec::new();
    for index in 0..3 {
        rooms.push(join(&log, &format!("room {index}")).await);
    }
    for (index, (feed, _)) in rooms.iter().enumerate() {
        store(&*log, &format!("room {index}"), "x").await;
        until("it comes", || async { feed.count() == 1 }).await;
    }
}

#[tokio::test]
async fn a_hung_server_is_left() {
    let server = Server::start(&[]).await;
    let ways = [Way::Block, Way::Track, Way::Group];
    let mut rooms = Vec::new();
    for way in ways {
        let log = log(&server, way);
        let (feed, guard) = join(&log, "r").await;
        rooms.push((log, feed, guard));
    }
    server.signal("-STOP");
    for (log, feed, _) in &rooms {
        let told = || async { !feed.heard.lock().unwrap().errors.is_empty() };
        until("the feed is told", told).await;
        until("health says so", || async { log.health().is_err() }).await;
    }
    server.signal("-CONT");
    store(&*rooms[0].0, "r", "x").await;
    for (_, feed, _) in &rooms {
        until("it goes on", || async { feed.count() == 1 }).await;
    }
}

/// A burst whose answer exceeds what Redis lets a client have at a time is read in smaller parts.
async fn survives_an_output_limit(way: Way) {
    let limit = ["--client-output-buffer-limit", "normal", "2mb", "2mb", "0"];
    let server = Server::start(&limit).await;
    let log = log(&server, way);
    let mut feeds = Vec::new();
    for index in 0..5 {
        feeds.push(join(&log, &format!("room {index}")).await);
    }
    let began = tokio::time::Instant::now();
    // All at once: one room has a burst, the others a little.
    let script = "for i = 0, ARGV[1] - 1 do \
        redis.call('XADD', KEYS[1], '*', 'message', i .. ' ' .. string.rep('x', 60000)) end";
    for (number, (feed, _)) in feeds.iter().enumerate() {
        let count = if number == 0 { "60" } else { "5" };
        let name = feed.room().as_str();
        let stored = server.command(&["EVAL", script, "1", name, count]).await;
        stored.unwrap();
    }
    let all = || async {
        let counts = feeds.iter().map(|(feed, _)| feed.count());
        counts.sum::<usize>() == 60 + 4 * 5
    };
    until("all is delivered", all).await;
    println!("{way:?}: all is there after {:?}", began.elapsed());
    let messages = feeds[0].0.messages();
    let numbers = messages.iter().filter_map(|text| text.split(' ').next());
    let want: Vec<_> = (0..60).map(|index| index.to_string()).collect();
    assert!(numbers.eq(want.iter()), "in order, once");
    let errors = feeds[0].0.heard.lock().unwrap().errors.clone();
    let is_cut = |error: &LogError| matches!(error, LogError::Unavailable(_));
    assert!(
        errors.iter().any(is_cut),
        "the limit was never met: {errors:?}"
    );
    // Nothing is left that slows the room down, or makes the node unwell.
    store(&*log, "room 0", "the last").await;
    until("it goes on", || async { feeds[0].0.count() == 61 }).await;
    until("health is good", || async { log.health().is_ok() }).await;

    let (old, all) = (std::ops::Bound::Unbounded, 61);
    for newest_first in [false, true] {
        let range = tailcast::relay::log::Range {
            from: old,
            to: old,
            limit: 100_000,
            newest_first,
        };
        let page = log.range(feeds[0].0.room(), range).await.unwrap();
        assert_eq!(page.len(), all, "newest first: {newest_first}");
        let ids: Vec<_> = page.iter().map(|entry| entry.id).collect();
        let rising = ids.is_sorted_by(|a, b| (a < b) != newest_first);
        assert!(rising, "newest first: {newest_first}");
    }
}

#[tokio::test]
async fn an_output_limit_and_blocking_reads() {
    survives_an_output_limit(Way::Block).await;
}

#[tokio::test]
async fn an_output_limit_and_tracking() {
    survives_an_output_limit(Way::Track).await;
}

#[tokio::test]
async fn an_output_limit_and_groups() {
    survives_an_output_limit(Way::Group).await;
}
