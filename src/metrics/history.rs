//! [`History`]: the last two minutes of a node's numbers, a sample a second, so that a page can draw at once
//! what was before it was opened.

/// Samples kept: two minutes.
pub(crate) const KEPT: usize = 120;

/// What a sample holds, in order. Those up to `gaps` are counts within its span, up to `nodes` numbers at its
/// end, and the rest microseconds: quantiles of what ended within its span, nothing if nothing did.
pub(crate) const COLUMNS: [&str; 15] = [
    "span_ms",
    "entries",
    "frames",
    "published",
    "failed",
    "gaps",
    "sockets",
    "rooms",
    "users",
    "nodes",
    "publish_p50_us",
    "publish_p99_us",
    "tail_p50_us",
    "tail_p99_us",
    "at_ms",
];

/// One second's numbers, in the order of [`COLUMNS`].
pub(crate) type Sample = [Option<u64>; COLUMNS.len()];

/// The newest samples, in memory that does not grow: 29 KB.
#[derive(Debug)]
pub(crate) struct History {
    samples: Box<[Sample; KEPT]>,
    /// Samples ever taken.
    taken: usize,
}

impl Default for History {
    fn default() -> Self {
        History {
            samples: Box::new([[None; COLUMNS.len()]; KEPT]),
            taken: 0,
        }
    }
}

impl History {
    /// Takes a sample in; the oldest makes room.
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples[self.taken % KEPT] = sample;
        self.taken += 1;
    }

    /// What there is, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sample> {
        let oldest = self.taken.saturating_sub(KEPT);
        (oldest..self.taken).map(|number| &self.samples[number % KEPT])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_in_order() {
        let mut history = History::default();
        let check = |history: &History, want: std::ops::Range<usize>| {
            let held: Vec<_> = history.iter().map(|sample| sample[0]).collect();
            let want: Vec<_> = want.map(|n| Some(n as u64)).collect();
            assert_eq!(held, want);
        };
        check(&history, 0..0);
        for (number, want) in [
            (1, 0..1),
            (KEPT, 0..KEPT),
            (KEPT + 1, 1..KEPT + 1),
            (3 * KEPT + 7, 2 * KEPT + 7..3 * KEPT + 7),
        ] {
            while history.taken < number {
                let mut sample = [None; COLUMNS.len()];
                sample[0] = Some(history.taken as u64);
                history.push(sample);
            }
            check(&history, want);
        }
    }
}
