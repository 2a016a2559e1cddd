//! Redis is away, cut off, or takes no writes.

use std::time::Duration;

use tokio::time::sleep;

use super::world::{Lost, ROOM, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_restarted_twice() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    for _ in 0..2 {
        world.until_stored(100).await;
        world.redis.kill9();
        world.pause(200, 800).await;
        world.redis.restart();
    }
    world.until_stored(100).await;
    world.finish(Lost::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_away_for_longer_than_a_publish_waits() {
    let mut world = World::new(1, &[]);
    world.crowd().await;
    world.publishers();
    world.until_stored(50).await;
    world.redis.kill9();
    sleep(Duration::from_millis(3500)).await;
    assert!(world.told.count("redis_unavailable") > 0);
    world.redis.restart();
    world.until_stored(100).await;
    world.finish(Lost::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stopped_and_continued() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    world.until_stored(100).await;
    world.redis.stop();
    sleep(Duration::from_secs(5)).await;
    world.redis.cont();
    world.until_stored(100).await;
    world.finish(Lost::Nothing).await;
}

async fn connections_killed(arguments: &[&str]) {
    let mut world = World::new(2, arguments);
    world.crowd().await;
    world.publishers();
    for _ in 0..12 {
        world.pause(30, 300).await;
        world.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    world.until_stored(100).await;
    world.finish(Lost::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_killed_while_blocking() {
    connections_killed(&["--tail", "block"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_killed_while_tracking() {
    connections_killed(&["--tail", "track"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_full() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    world.until_stored(100).await;
    let before: Vec<_> = world
        .clients
        .iter()
        .take(8)
        .map(|client| client.connections())
        .collect();
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    sleep(Duration::from_millis(1500)).await;
    assert!(world.told.count("redis_full") > 0);
    world.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    world.until_stored(100).await;
    for (client, before) in world.clients.iter().zip(before) {
        let now = client.connections();
        assert_eq!(now, before, "{} was cut off", client.name);
    }
    world.finish(Lost::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_type_under_the_key() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    world.until_stored(100).await;
    world.redis.cli(&["SET", ROOM, "no stream"]);
    sleep(Duration::from_millis(1500)).await;
    assert!(world.told.count("wrong_type") > 0);
    world.redis.cli(&["DEL", ROOM]);
    world.until_stored(100).await;
    world
        .every("was told of it", |client| client.gaps().0 > 0)
        .await;
    world.finish(Lost::Anything).await;
}
