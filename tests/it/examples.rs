//! The example that plays a whole show, as it's run from the command line. What it says and sees is
//! checked by itself; here is looked whether it tells so.

use super::harness::redis_server::RedisServer;

#[path = "../../examples/cohost.rs"]
#[allow(dead_code)]
mod cohost;

/// Lines, each of which has to be in the transcript, in this order.
const TOLD: [&str; 12] = [
    "sees who is here: alice, bob, carol, dave, erin",
    "dave    member          sees \"welcome!\" by alice",
    "is refused: your role in this room lacks the right `publish`",
    "sees slow mode: 30 s",
    "is refused: this room is in slow mode",
    "sees 3 hearts",
    "is refused: muted in this room",
    "sees the pin \"questions at 9\"",
    "dave    member's phone  sees \"your order is on its way\"",
    "is put out: 4403 banned from this room",
    "sees dave leave; 5 stay",
    "is told `bye`, and closed with 1012",
];

async fn check(redis: Option<&str>) {
    let mut out = Vec::new();
    let played = cohost::play(redis, &mut out).await;
    let out = String::from_utf8(out).unwrap();
    played.unwrap_or_else(|error| panic!("{error:#} after\n{out}"));
    let mut rest = out.as_str();
    for told in TOLD {
        let at = rest.find(told);
        let at = at.unwrap_or_else(|| panic!("no {told:?} in its place in\n{out}"));
        rest = &rest[at + told.len()..];
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_show_in_memory() {
    check(None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_show_on_two_nodes() {
    let redis = RedisServer::start();
    check(Some(&redis.url())).await;
}
