//! The stream itself is deleted, begun anew, set back or set ahead while people use it.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tailcast::relay::entry::EntryId;

use super::fleet::{Client, Kind};
use super::world::{Lost, ROOM, World};
use crate::checker::Event;
use crate::harness::clients::Ws;

/// Clients that stay are told each time; the others are told, too, wherever they are then.
async fn deleted(arguments: &[&str], commands: &[&[&str]]) {
    let mut world = World::new(2, arguments);
    world.crowd().await;
    world.publishers();
    for (number, command) in commands.iter().enumerate() {
        world.until_stored(100).await;
        world
            .every("has some of it", |client| {
                client.kind == Kind::Raw || client.seen().cursor > Some(EntryId::ZERO)
            })
            .await;
        world.pause(0, 50).await;
        world.redis.cli(command);
        world
            .every("was told of it", |client| client.gaps().0 > number)
            .await;
    }
    world.until_stored(100).await;
    world.finish(Lost::Anything).await;
}

const DELETIONS: &[&[&str]] = &[
    &["DEL", ROOM],
    &["FLUSHALL"],
    &["UNLINK", ROOM],
    &["FLUSHDB"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_while_blocking() {
    deleted(&["--tail", "block"], DELETIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_while_tracking() {
    deleted(&["--tail", "track"], DELETIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_with_tails_of_both_kinds() {
    deleted(&["--tail", "auto", "--tail-connections", "1"], DELETIONS).await;
}

/// Somebody saw that the stream is gone; somebody else comes back only once there is a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_while_deleted_and_begun_anew() {
    let world = World::new(1, &[]);
    let add = |text: &str| world.redis.cli(&["XADD", ROOM, "*", "message", text]);
    let (mut here, _) = Ws::json(&world.nodes[0], ROOM, "now").await;
    let known = add("known");
    assert_eq!(here.frame().await["id"], known.as_str());
    world.redis.cli(&["DEL", ROOM]);
    assert_eq!(here.frame().await["reason"], "deleted");
    let new = add("new");
    assert_eq!(here.frame().await["id"], new.as_str());
    let (mut back, _) = Ws::json(&world.nodes[0], ROOM, &known).await;
    let gap = back.frame().await;
    assert_eq!(
        (&gap["type"], &gap["reason"]),
        (&"gap".into(), &"deleted".into()),
        "{gap}"
    );
    assert_eq!(
        (&gap["after"], &gap["before"]),
        (&known.into(), &new.as_str().into())
    );
    assert_eq!(back.frame().await["id"], new.as_str());
    // Who was told of the end before lacks nothing.
    let (mut other, _) = Ws::json(&world.nodes[0], ROOM, "0-0").await;
    assert_eq!(other.frame().await["id"], new.as_str());
}

/// Who saw the room while it was empty is told what was trimmed before they came back, by a node that
/// read it all and by one that did not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_since_the_room_was_empty() {
    let mut world = World::new(1, &["--window-entries", "4"]);
    let (mut here, head) = Ws::json(&world.nodes[0], ROOM, "now").await;
    assert_eq!(head, "0-0");
    let mut ids = Vec::new();
    for number in 0..10 {
        let text = format!("missed {number}");
        ids.push(world.redis.cli(&["XADD", ROOM, "*", "message", &text]));
        assert_eq!(here.frame().await["id"], ids[number].as_str());
    }
    // Nothing is gone yet.
    let (mut back, _) = Ws::json(&world.nodes[0], ROOM, &head).await;
    assert_eq!(back.frame().await["id"], ids[0].as_str());
    world.redis.cli(&["XTRIM", ROOM, "MAXLEN", "=", "3"]);
    world.add_node();
    for node in &world.nodes {
        let (mut back, _) = Ws::json(node, ROOM, &head).await;
        let gap = back.frame().await;
        assert_eq!(gap["reason"], "trimmed", "{gap}");
        assert_eq!(gap["after"], "0-0", "{gap}");
        for id in &ids[7..] {
            assert_eq!(back.frame().await["id"], id.as_str());
        }
        // Who asks for what there is has no gap, and perhaps one more of the node's memory.
        let (mut new, _) = Ws::json(node, ROOM, "start").await;
        let first = new.frame().await;
        assert!(
            first["id"] == ids[6].as_str() || first["id"] == ids[7].as_str(),
            "{first}"
        );
    }
}

/// A stream begun anew in the very millisecond gives out the ID that everybody has last.
async fn begun_with_the_same_id(mode: &str) {
    let mut world = World::new(1, &["--tail", mode]);
    world.guests();
    world.all_joined().await;
    let (mut here, _) = Ws::json(&world.nodes[0], ROOM, "now").await;
    world.redis.cli(&["XADD", ROOM, "5-1", "message", "old"]);
    assert_eq!(here.frame().await["id"], "5-1");
    let known = Some("5-1".parse().unwrap());
    world
        .every("has it", |client| client.seen().cursor == known)
        .await;
    let script = "redis.call('del', KEYS[1]) \
        redis.call('xadd', KEYS[1], '5-1', 'message', 'new') \
        redis.call('xadd', KEYS[1], '5-2', 'message', 'newer')";
    world.redis.cli(&["EVAL", script, "1", ROOM]);
    let gap = here.frame().await;
    assert_eq!(gap["type"], "gap", "{gap}");
    loop {
        let entry = here.frame_of("entry").await;
        if entry["id"] == "5-2" {
            break;
        }
    }
    world
        .every("was told of it", |client| client.gaps().0 > 0)
        .await;
    world.finish(Lost::Anything).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_with_the_same_id_while_blocking() {
    begun_with_the_same_id("block").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_with_the_same_id_while_tracking() {
    begun_with_the_same_id("track").await;
}

fn begin_low(world: &World) {
    let script = "redis.call('del', KEYS[1]) \
        for n = 1, 20 do redis.call('xadd', KEYS[1], '5-' .. n, 'message', 'low ' .. n) end";
    world.redis.cli(&["EVAL", script, "1", ROOM]);
}

/// Deletes the stream and begins it with low IDs, at once or with a pause in between.
async fn begun_with_lower_ids(mode: &str) {
    let mut world = World::new(2, &["--tail", mode]);
    world.begin();
    world.clients(Kind::Json, 8, None);
    world.clients(Kind::Sse, 2, None);
    world.clients(Kind::Raw, 2, None);
    world.guests();
    world.all_joined().await;
    world.publishers();
    world.until_stored(100).await;
    world.stop_publishing().await;
    begin_low(&world);
    world
        .every("was told of it", |client| client.gaps().0 > 0)
        .await;
    let got = |client: &Client, ms: u64| {
        let seen = client.seen();
        let entries = seen.events.iter().filter_map(|event| match event {
            Event::Entry { id, .. } => Some(id.ms),
            _ => None,
        });
        client.kind == Kind::Raw || entries.filter(|entry| *entry == ms).count() == 20
    };
    world
        .every("got the new entries", |client| got(client, 5))
        .await;
    // The same with even lower ones, and nothing in between for a while.
    world.redis.cli(&["DEL", ROOM]);
    world.pause(0, 600).await;
    for number in 1..=20 {
        let id = format!("3-{number}");
        world
            .redis
            .cli(&["XADD", ROOM, &id, "message", &format!("lower {number}")]);
    }
    world
        .every("got the new entries again", |client| got(client, 3))
        .await;
    world.publishers();
    world.until_stored(100).await;
    world.finish(Lost::Anything).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_with_lower_ids_while_blocking() {
    begun_with_lower_ids("block").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begun_with_lower_ids_while_tracking() {
    begun_with_lower_ids("track").await;
}

/// Who comes to another node in a stream begun with lower IDs goes on in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn back_where_lower_ids_are() {
    let mut world = World::new(2, &[]);
    world.begin();
    world.clients(Kind::Json, 4, None);
    world.clients(Kind::Sse, 2, None);
    world.guests();
    world.all_joined().await;
    begin_low(&world);
    let last = Some(EntryId::new(5, 20));
    world
        .every("got the new entries", |client| client.seen().cursor == last)
        .await;
    let before: Vec<_> = world.clients.iter().map(|one| one.connections()).collect();
    world.replace_node();
    world.replace_node();
    let is_back = |client: &Client| {
        let at = world.clients.iter().position(|one| one.name == client.name);
        client.connections() > before[at.unwrap()]
    };
    world.every("is back", is_back).await;
    for client in &world.clients {
        assert_eq!(client.gaps(), (1, 0), "{} was told again", client.name);
    }
    world.finish(Lost::Anything).await;
}

/// Redis dies and comes back with an older copy of its data: what a failover to a replica that
/// lagged behind looks like.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_back_with_a_shorter_stream() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    let copy = tempfile::tempdir().unwrap();
    let data = world.redis.dir().join("appendonlydir");
    world.until_stored(150).await;
    copy_files(&data, copy.path());
    world.until_stored(150).await;
    world.redis.kill9();
    copy_files(copy.path(), &data);
    world.redis.restart();
    world
        .every("was told of it", |client| client.gaps().0 > 0)
        .await;
    world.until_stored(100).await;
    world.finish(Lost::Anything).await;
}

/// The same while nobody publishes, so that the stream ends before what everybody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_back_with_a_shorter_stream_and_no_news() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    let copy = tempfile::tempdir().unwrap();
    let data = world.redis.dir().join("appendonlydir");
    world.until_stored(150).await;
    copy_files(&data, copy.path());
    world.until_stored(50).await;
    world.stop_publishing().await;
    let head = world.redis.entries(ROOM).pop().unwrap().0;
    world
        .every("is at the end", |client| {
            client.kind == Kind::Raw || client.seen().cursor == Some(head)
        })
        .await;
    world.redis.kill9();
    copy_files(copy.path(), &data);
    world.redis.restart();
    world
        .every("was told of it", |client| client.gaps().0 > 0)
        .await;
    world.finish(Lost::Anything).await;
}

fn copy_files(from: &Path, to: &Path) {
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_set_back() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    world.until_stored(100).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ahead = (now + Duration::from_secs(3600)).as_millis();
    let id = format!("{ahead}-7");
    world
        .redis
        .cli(&["XADD", ROOM, &id, "message", "an hour ahead"]);
    world.until_stored(200).await;
    world.finish(Lost::Nothing).await;
}
