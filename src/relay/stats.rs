//! What the relay counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::format::GapReason;

mod histogram;

pub use self::histogram::{Histogram, Snapshot};

/// An ID further from the store's clock than this was not given out by that clock.
const LAG_MAX: Duration = Duration::from_secs(24 * 3600);

/// A number that only the relay changes and anybody reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one pass wrote; added to the counts at its end. Adding per socket would have the workers
/// fight for the numbers' cache lines.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) frames: u64,
    pub(super) frame_bytes: u64,
    pub(super) writes: u64,
    pub(super) gaps: [u64; GapReason::ALL.len()],
}

/// A node's counts since it started; the last two go up and down.
#[derive(Debug, Default)]
pub struct Stats {
    /// Entries that tails brought.
    pub entries_tailed: Counter,
    /// Frames written to sockets, entries and gaps.
    pub frames: Counter,
    /// Bytes of those frames.
    pub frame_bytes: Counter,
    /// Writes it took.
    pub writes: Counter,
    /// Reads of the log for cursors outside a window.
    pub log_reads: Counter,
    /// Publishes that were stored.
    pub published: Counter,
    /// Publishes refused for certain.
    pub refused: Counter,
    /// Publishes whose outcome is unknown.
    pub unknown: Counter,
    /// Sockets closed because they stopped reading.
    pub slow_closed: Counter,
    /// Asides that sockets went without, because they or the node were behind.
    pub shed: Counter,
    /// Gaps told to clients, by reason, in the order of [`GapReason::ALL`]. A gap that thousand clients are told
    /// counts a thousand times; one that closes a raw socket counts too.
    pub gaps: [Counter; GapReason::ALL.len()],
    /// From a publish's coming to the store's word that it's stored. Others are not in it.
    pub publish_latency: Histogram,
    /// How old the oldest new entry of a tail's read was when it reached this node: the store's clock then, less
    /// the time in the entry's ID. By one clock, then, as that is asked for its time (see
    /// [`Log::clock`](super::log::Log::clock)); up to a millisecond too long, as IDs have no more. IDs that somebody
    /// made up, a day or more off, are not in it.
    pub tail_lag: Histogram,
    /// Open connections.
    pub connections: Counter,
    /// Rooms with a tail on this node.
    pub rooms: Counter,
}

impl Stats {
    /// A client is told of a gap.
    pub(super) fn gap(&self, reason: GapReason) {
        self.gaps[reason as usize].add(1);
    }

    /// An entry of this time has come, and it's now so late, both by the store's clock.
    pub(super) fn lag(&self, born_ms: u64, now: Duration) {
        let born = Duration::from_millis(born_ms);
        let lag = now.saturating_sub(born);
        // The guess at the store's clock may be a little behind.
        if lag < LAG_MAX && born.saturating_sub(now) < LAG_MAX {
            self.tail_lag.add(lag);
        }
    }

    pub(super) fn tally(&self, tally: &Tally) {
        for (counter, count) in self.gaps.iter().zip(tally.gaps) {
            if count > 0 {
                counter.add(count);
            }
        }
        if tally.writes > 0 {
            self.frames.add(tally.frames);
            self.frame_bytes.add(tally.frame_bytes);
            self.writes.add(tally.writes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_by_the_clock_that_made_the_id() {
        let check = |born_ms: u64, now_ms: u64, want: Option<u64>| {
            let stats = Stats::default();
            stats.lag(born_ms, Duration::from_millis(now_ms));
            let lag = stats.tail_lag.snapshot();
            let sum = (lag.count() > 0).then(|| (lag.sum_seconds() * 1e3).round() as u64);
            assert_eq!(sum, want, "{born_ms} {now_ms}");
        };
        let day = 24 * 3600 * 1000;
        check(1_000, 1_003, Some(3));
        check(1_000, 61_000, Some(60_000));
        // The guess at the clock is behind.
        check(1_000, 998, Some(0));
        // Somebody made these up.
        check(1, 5 * day, None);
        check(5 * day, day, None);
    }
}
