//! Clients that stop reading. They are cursors: nobody waits for them, and they miss nothing that
//! the stream still has.

use std::time::Duration;

use tokio::time::Instant;

use super::fleet::Kind;
use super::world::{Lost, ROOM, World};
use crate::harness::PATIENCE;

const SLOW: usize = 4;
const ENTRIES: usize = 3_500;

/// Entries of 2 KiB, 7 MB in all: beyond what kernel and window hold.
fn flood(world: &World) {
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut redis = client.get_connection().unwrap();
    for hundred in 0..ENTRIES / 100 {
        let mut pipe = redis::pipe();
        for number in 0..100 {
            let text = format!("flood {}{}", hundred * 100 + number, ".".repeat(2048));
            pipe.cmd("XADD")
                .arg(ROOM)
                .arg("*")
                .arg("message")
                .arg(text)
                .ignore();
        }
        pipe.query::<()>(&mut redis).unwrap();
    }
}

/// Stalls the slow ones under a flood until all others have everything.
async fn stalled() -> World {
    let mut world = World::new(1, &["--window-entries", "50"]);
    // A flood takes its time on a machine that has other things to do.
    world.healing = PATIENCE;
    world.slow_clients(SLOW);
    world.clients(Kind::Json, 4, None);
    world.clients(Kind::Sse, 1, None);
    world.all_joined().await;
    world.reading.send_replace(false);
    let began = Instant::now();
    flood(&world);
    let head = world.redis.entries(ROOM).pop().unwrap().0;
    let is_slow = |name: &str| (0..SLOW).any(|number| name == format!("Json {number}"));
    world
        .every("that reads has it all", |client| {
            is_slow(&client.name) || client.seen().cursor == Some(head)
        })
        .await;
    eprintln!("flood over after {:?}", began.elapsed());
    for client in &world.clients[..SLOW] {
        let cursor = client.seen().cursor.unwrap();
        assert!(cursor < head, "{} was not slow", client.name);
    }
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_get_everything() {
    let world = stalled().await;
    world.reading.send_replace(true);
    world.finish(Lost::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_are_told_what_was_trimmed() {
    let mut world = stalled().await;
    world.redis.cli(&["XTRIM", ROOM, "MAXLEN", "=", "500"]);
    world.publishers();
    world.pause(0, 300).await;
    world.reading.send_replace(true);
    let first = world.redis.entries(ROOM)[0].0;
    world
        .every("is past what was trimmed", |client| {
            client.seen().cursor.is_some_and(|cursor| cursor >= first)
        })
        .await;
    for (number, client) in world.clients.iter().enumerate() {
        let want = if number < SLOW { 1 } else { 0 };
        assert_eq!(client.gaps(), (0, want), "{}", client.name);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.finish(Lost::Oldest).await;
}

/// The published clients are stopped as a whole, and may be sent away meanwhile. They came while the
/// room was empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_are_told_what_was_trimmed() {
    let mut world = World::new(1, &["--window-entries", "50"]);
    world.guests();
    world.all_joined().await;
    world.guests.as_ref().unwrap().stop();
    flood(&world);
    world.redis.cli(&["XTRIM", ROOM, "MAXLEN", "=", "100"]);
    world.publishers();
    world.until_stored(20).await;
    world.guests.as_ref().unwrap().cont();
    let first = world.redis.entries(ROOM)[0].0;
    world
        .every("is past what was trimmed", |client| {
            client.seen().cursor.is_some_and(|cursor| cursor >= first)
        })
        .await;
    for client in &world.clients {
        let (anew, trimmed) = client.gaps();
        assert!(anew == 0 && trimmed > 0, "{}", client.name);
    }
    world.finish(Lost::Oldest).await;
}
