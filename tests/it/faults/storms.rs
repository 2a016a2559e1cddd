//! Many clients come at once, and again, and again.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::fleet::{Kind, open};
use super::publishers::Way;
use super::world::{Lost, ROOM, World};
use crate::harness::PATIENCE;
use crate::harness::redis_server::RedisServer;

/// 200 clients reconnect every few milliseconds while both nodes publish every millisecond. (A
/// well-known server with its adapter for Redis Streams loses 30 of 200 sessions here.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_that_never_stay() {
    // Nothing is trimmed, as the checker wants to see all there was.
    let mut world = World::new(2, &["--max-in-flight", "256", "--keep", "0"]);
    world.clients(Kind::Json, 200, Some(Duration::from_millis(150)));
    world.all_joined().await;
    // Unoptimized, 200 clients' worth of entries each millisecond leave no time to reconnect.
    let every = Duration::from_millis(if cfg!(debug_assertions) { 10 } else { 1 });
    world.publisher(Way::Plain, every, 100);
    world.publisher(Way::Keyed, every, 100);
    sleep(Duration::from_secs(6)).await;
    world.stop_publishing().await;
    let connections = world.clients.iter();
    let connections = connections.map(|client| client.connections());
    let (least, all) = (connections.clone().min(), connections.sum::<usize>());
    assert!(least > Some(1) && all > 800, "no storm: {least:?}, {all}");
    assert!(world.told.stored() > 300, "{} stored", world.told.stored());
    world.finish(Lost::Nothing).await;
}

/// What Redis counts as reads of entries.
fn reads(redis: &RedisServer) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let calls = ["xread", "xrange", "xrevrange"].map(|name| {
        let line = stats
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    });
    calls.iter().sum()
}

/// 1,000 clients resume at once, each 100 entries behind, in a room this node knows nothing of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_resume_at_once() {
    let world = World::new(1, &[]);
    let from = world.redis.cli(&["XADD", ROOM, "*", "message", "known"]);
    for number in 0..100 {
        let text = format!("missed {number}");
        world.redis.cli(&["XADD", ROOM, "*", "message", &text]);
    }
    let want: Vec<_> = world.redis.entries(ROOM)[1..].to_vec();
    let (before, began) = (reads(&world.redis), Instant::now());
    let port = world.nodes[0].port();
    let path = format!("/rooms/{ROOM}?format=json&from={from}");
    let mut coming = FuturesUnordered::new();
    for _ in 0..1_000 {
        coming.push(async {
            let mut socket = loop {
                match open(port, &path, None).await {
                    Some(socket) => break socket,
                    None => sleep(Duration::from_millis(20)).await,
                }
            };
            let mut got = Vec::new();
            while got.len() < 100 {
                let next = timeout(PATIENCE, socket.next()).await.unwrap();
                let Message::Text(text) = next.unwrap().unwrap() else {
                    continue;
                };
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                match frame["type"].as_str().unwrap() {
                    "joined" => {}
                    "entry" => got.push(super::fleet::id(&frame["id"])),
                    _ => panic!("{frame}"),
                }
            }
            (socket, got)
        });
    }
    // They stay, so that it's one storm.
    let mut sockets = Vec::new();
    while let Some((socket, got)) = coming.next().await {
        assert!(got.iter().eq(want.iter().map(|(id, _)| id)));
        sockets.push(socket);
    }
    let read = reads(&world.redis) - before;
    // The tail looks after its stream every now and then, and did meanwhile, too.
    let idle = reads(&world.redis);
    sleep(began.elapsed()).await;
    let by_tail = reads(&world.redis) - idle;
    eprintln!("{read} reads, {by_tail} when idle for as long");
    let read = read.saturating_sub(by_tail);
    assert!(read <= 10, "{read} reads for 1,000 clients");
}
