//! What one socket got, held against what was published, and the latencies of all.

/// One socket's place in its room's sequence.
#[derive(Default)]
pub(super) struct Tally {
    /// The sequence number that comes next.
    next: u64,
    /// Skipped ranges, end exclusive, that may still come late.
    missing: Vec<(u64, u64)>,
    /// Came twice.
    pub(super) duplicates: u64,
    /// Came after a later one.
    pub(super) reordered: u64,
}

impl Tally {
    /// Counts one entry.
    pub(super) fn take(&mut self, sequence: u64) {
        if sequence >= self.next {
            if sequence > self.next {
                self.missing.push((self.next, sequence));
            }
            self.next = sequence + 1;
            return;
        }
        let hole = self
            .missing
            .iter()
            .position(|(from, to)| (*from..*to).contains(&sequence));
        match hole {
            None => self.duplicates += 1,
            Some(at) => {
                let (from, to) = self.missing.swap_remove(at);
                if from < sequence {
                    self.missing.push((from, sequence));
                }
                if sequence + 1 < to {
                    self.missing.push((sequence + 1, to));
                }
                self.reordered += 1;
            }
        }
    }

    /// How many of the `published` first ones did not come.
    pub(super) fn lost(&self, published: u64) -> u64 {
        let holes: u64 = self.missing.iter().map(|(from, to)| to - from).sum();
        holes + published.saturating_sub(self.next)
    }
}

/// Sixteenths of a power of two: a value is known to 6 %, up to 18 minutes in nanoseconds.
const STEPS: usize = 16;

/// A histogram of nanoseconds.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Histogram {
            counts: vec![0; STEPS * 41],
            total: 0,
            max: 0,
        }
    }

    pub(super) fn record(&mut self, value: u64) {
        let last = self.counts.len() - 1;
        self.counts[slot(value).min(last)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    pub(super) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The value that a share of all lie at or below, in milliseconds.
    pub(super) fn quantile_ms(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return (upper(at).min(self.max)) as f64 / 1e6;
            }
        }
        self.max_ms()
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.max as f64 / 1e6
    }
}

fn slot(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let power = value.ilog2() as usize;
    (power - 3) * STEPS + (value >> (power - 4)) as usize - STEPS
}

fn upper(slot: usize) -> u64 {
    if slot < STEPS {
        return slot as u64;
    }
    let power = slot / STEPS + 3;
    let step = (slot % STEPS + STEPS + 1) as u64;
    (step << (power - 4)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_late_and_twice() {
        let mut tally = Tally::default();
        for sequence in [0, 1, 5, 3, 5, 6] {
            tally.take(sequence);
        }
        assert_eq!((tally.reordered, tally.duplicates), (1, 1));
        assert_eq!(tally.lost(7), 2);
        assert_eq!(tally.lost(9), 4);
    }

    #[test]
    fn slots_hold_their_values() {
        for value in (0..2_000).chain([1 << 20, (1 << 30) + 12_345, (1 << 40) - 1]) {
            let at = slot(value);
            assert!(upper(at) >= value, "{value}");
            assert!(at == 0 || upper(at - 1) < value, "{value}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::new();
        for ms in 1..=100u64 {
            histogram.record(ms * 1_000_000);
        }
        assert!((48.0..56.0).contains(&histogram.quantile_ms(0.5)));
        assert!((100.0 - histogram.max_ms()).abs() < 1e-9);
    }
}
