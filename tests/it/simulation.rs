//! The whole relay in a simulated world: simulated time, sockets that take what they like, streams
//! that suffer all that Redis streams do, nodes that see them late. Everything follows from one
//! number, which a failure names: `TAILCAST_SEED=123 cargo test --test it simulation` replays it,
//! and `TAILCAST_SEEDS=20000` runs that many.
//!
//! Two judges look at every run: the checker of the end-to-end tests, and [`history`], which knows
//! all that happened.
//!
//! Some losses leave no trace in a stream, and no reader could tell of them. The world leaves
//! these out, each where it would happen:
//!
//! - two entries under one ID, as when a failover's new master gives a lost ID out again;
//! - a stream deleted, begun anew and trimmed, or entries removed from it unread, before any tail
//!   looked, so that its counts are by chance what they were;
//! - entries that came and went while the tail stood on no entry, the stream being empty;
//! - an ID from an earlier life of the stream, brought by a client that was away, where the new
//!   life's IDs began lower and have since passed it;
//! - a position of `0-0`, which is the start and not a cursor.

mod history;
mod log;
mod wire;
mod world;

use log::Lie;
use world::run_alone;

/// Seeds of a usual run: a few seconds.
const SEEDS: u64 = 300;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// Runs seeds; panics with those that failed, and how.
fn check(seeds: impl Iterator<Item = u64>) -> world::Report {
    let mut total = world::Report::default();
    let mut failed = Vec::new();
    for seed in seeds {
        let report = run_alone(seed, None);
        total.entries += report.entries;
        total.delivered += report.delivered;
        total.gaps += report.gaps;
        if let Some(first) = report.faults.first() {
            let more = report.faults.len() - 1;
            failed.push(format!("TAILCAST_SEED={seed}: {first} (and {more} more)\n"));
        }
    }
    let shown = failed.iter().take(20).cloned().collect::<String>();
    assert!(failed.is_empty(), "{} seeds failed:\n{shown}", failed.len());
    total
}

#[test]
fn nothing_is_lost_in_silence() {
    if let Some(seed) = number("TAILCAST_SEED") {
        check([seed].into_iter());
        return;
    }
    let seeds = number("TAILCAST_SEEDS").unwrap_or(SEEDS);
    let world::Report {
        entries,
        delivered,
        gaps,
        ..
    } = check(0..seeds);
    println!("{seeds} seeds: {entries} entries, {delivered} delivered, {gaps} gaps told");
    // A world where nothing happens proves nothing.
    let seeds = usize::try_from(seeds).unwrap();
    assert!(entries > 20 * seeds && delivered > 20 * seeds && gaps > seeds / 4);
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 2, 3, 40, 500] {
        let [one, other] = [(); 2].map(|()| {
            let report = run_alone(seed, None);
            (report.entries, report.delivered, report.gaps)
        });
        assert_eq!(one, other, "seed {seed}");
    }
}

#[test]
fn lies_are_caught() {
    let lies = [
        (Lie::ReadDrops, 40),
        (Lie::ReadSwaps, 40),
        (Lie::RangeDrops, 20),
        (Lie::RangeDoubles, 20),
    ];
    for (lie, percent) in lies {
        let seeds = 100;
        // A lie may also break an assertion on the way.
        let caught = |seed: &u64| {
            std::panic::catch_unwind(|| !run_alone(*seed, Some(lie)).faults.is_empty())
                .unwrap_or(true)
        };
        let caught = (0..seeds).filter(caught).count();
        println!("{lie:?}: caught in {caught} of {seeds} runs");
        assert!(
            caught * 100 >= percent * seeds as usize,
            "{lie:?}: {caught}"
        );
    }
}
