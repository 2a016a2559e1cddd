//! What the relay counts.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Open connections.
    pub connections: Counter,
    /// Rooms with a tail on this node.
    pub rooms: Counter,
}

impl Stats {
    pub(super) fn tally(&self, tally: &Tally) {
        if tally.writes > 0 {
            self.frames.add(tally.frames);
            self.frame_bytes.add(tally.frame_bytes);
            self.writes.add(tally.writes);
        }
    }
}
