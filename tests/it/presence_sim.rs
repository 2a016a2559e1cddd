//! Presence under faults, simulated: several nodes on one board in one process whose time is
//! paused. People come, go and move, with several devices; nodes die without a word, stand still
//! and come back; the board fails, answers late, forgets; whispers are lost; watchers read slowly.
//!
//! When all that is over, every node knows who is in each room, every watcher was told a story
//! without a contradiction that ends in the truth, and so does each room's stream, if notices are
//! on. A failure says its seed; `TAILCAST_SEED` runs that one, `TAILCAST_SEEDS` so many. What
//! happens to whom and when comes from the seed; the names of nodes, and with them the order of what
//! happens at the same moment, do not.

mod far;
mod watcher;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tailcast::relay::aside::{Aside, Audience};
use tailcast::relay::hub::{self, Relay};
use tailcast::relay::position::Position;
use tailcast::store::memory::{self, MemoryLog};

use crate::harness::{room, until};

/// Runs one seed on a runtime of its own.
fn run_alone(seed: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let limit = Duration::from_secs(3_600);
    runtime
        .block_on(async { tokio::time::timeout(limit, world::run(seed)).await })
        .unwrap_or_else(|_| panic!("seed {seed} does not come to an end"));
}

/// Seeds from the environment (`TAILCAST_SEED`, or `TAILCAST_SEEDS` of them), else so many.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse().unwrap());
    match number("TAILCAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TAILCAST_SEEDS").unwrap_or(usual),
    }
}

#[test]
fn everybody_knows_who_is_here() {
    let wrong: Vec<u64> = seeds(100)
        .filter(|seed| std::panic::catch_unwind(|| run_alone(*seed)).is_err())
        .collect();
    assert!(wrong.is_empty(), "seeds {wrong:?} failed");
}

/// However much else is shown at once.
#[tokio::test]
async fn who_comes_and_goes_is_not_shed_before_the_sockets() {
    let log = Arc::new(MemoryLog::new(memory::Settings::default()));
    let relay = Relay::new(log, hub::Settings::default());
    let socket = Arc::new(watcher::Socket::default());
    let connection = relay.connect(socket.clone(), &watcher::ASIDES);
    let room = room("room");
    let joined = Box::new(|_| Some("{\"type\":\"joined\"}\n".into()));
    let begun = connection.join(room.clone(), Position::Now, true, None, joined);
    begun.unwrap();
    connection.joined().await;
    let told = |kind: &'static str, audience| {
        let mut aside = Aside::new(kind, format!("{{\"type\":{kind:?}}}"));
        aside.sheds = true;
        aside.audience = audience;
        relay.tell(&room, Arc::new(aside));
    };
    told("all", Audience::Newcomers);
    for _ in 0..200 {
        told("ephemeral", Audience::All);
    }
    told("moves", Audience::Watchers);
    let mut heard = Vec::new();
    until("it's told of moves", || {
        let lines = socket.lines();
        heard.extend(lines.iter().map(|line| line["type"].clone()));
        heard.iter().any(|kind| kind == "moves")
    })
    .await;
}
