//! Nodes die and freeze; their clients go on at another.

use std::time::Duration;

use tokio::time::sleep;

use super::fleet::Kind;
use super::world::{Lost, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed() {
    let mut world = World::new(3, &[]);
    world.crowd().await;
    world.clients(Kind::Json, 10, None);
    world.all_joined().await;
    world.publishers();
    for _ in 0..2 {
        world.until_stored(100).await;
        let mut node = world.nodes.remove(0);
        node.kill9();
        world.pause(100, 500).await;
        world.ports.lock().unwrap().remove(0);
        world.add_node();
    }
    world.until_stored(100).await;
    world.finish(Lost::Nothing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stopped_and_continued() {
    let mut world = World::new(2, &[]);
    world.crowd().await;
    world.publishers();
    world.until_stored(100).await;
    world.nodes[0].stop();
    sleep(Duration::from_secs(3)).await;
    world.nodes[0].cont();
    // What went to it then took as long as it was stopped.
    *world.told.slowest.lock().unwrap() = Duration::ZERO;
    world.until_stored(100).await;
    sleep(Duration::from_millis(500)).await;
    *world.told.slowest.lock().unwrap() = Duration::ZERO;
    world.until_stored(50).await;
    world.finish(Lost::Nothing).await;
}
