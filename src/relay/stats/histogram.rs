//! [`Histogram`]: how often something took how long, in fixed buckets, and what quantiles follow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper ends of the buckets in microseconds, each included: two per doubling, from 0.25 ms to 12 s. So a quantile is
/// within a third of the truth, and beyond 12 s nobody asks how much. A last bucket takes the rest.
const BOUNDS_US: [u64; BOUNDS] = bounds();

const BOUNDS: usize = 32;
const BUCKETS: usize = BOUNDS + 1;

const fn bounds() -> [u64; BOUNDS] {
    let mut bounds = [0; BOUNDS];
    let mut index = 0;
    while index < BOUNDS {
        let doubling = index / 2;
        bounds[index] = if index % 2 == 0 { 250 } else { 375 } << doubling;
        index += 1;
    }
    bounds
}

/// Durations, counted by anybody, read by anybody.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            sum_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(in crate::relay) fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counts: std::array::from_fn(|bucket| self.counts[bucket].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// A histogram's counts at one time, or between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for Snapshot {
    fn default() -> Self {
        Snapshot {
            counts: [0; BUCKETS],
            sum_us: 0,
        }
    }
}

impl Snapshot {
    /// What was counted after an earlier snapshot of the same histogram.
    pub fn since(&self, earlier: &Snapshot) -> Snapshot {
        Snapshot {
            counts: std::array::from_fn(|bucket| {
                self.counts[bucket].saturating_sub(earlier.counts[bucket])
            }),
            sum_us: self.sum_us.saturating_sub(earlier.sum_us),
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in seconds.
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_micros(self.sum_us).as_secs_f64()
    }

    /// Each bucket's upper end in seconds, and how many are in it alone; the last end is `f64::INFINITY`.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let seconds = |us: &u64| Duration::from_micros(*us).as_secs_f64();
        let ends = BOUNDS_US.iter().map(seconds).chain([f64::INFINITY]);
        ends.zip(self.counts)
    }

    /// What this part of them (0 to 1) took at most, in microseconds: as if they lay evenly in each bucket.
    /// `None` if there are none. Beyond the last end nothing is known but that.
    pub fn quantile_us(&self, part: f64) -> Option<u64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (part * total as f64).clamp(1.0, total as f64);
        let mut below = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            if *count > 0 && (below + count) as f64 >= rank {
                let start = bucket.checked_sub(1).map_or(0, |before| BOUNDS_US[before]);
                let end = BOUNDS_US.get(bucket).copied().unwrap_or(start);
                let within = (rank - below as f64) / *count as f64;
                return Some(start + ((end - start) as f64 * within) as u64);
            }
            below += count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(times_us: &[u64]) -> Snapshot {
        let histogram = Histogram::default();
        for us in times_us {
            histogram.add(Duration::from_micros(*us));
        }
        histogram.snapshot()
    }

    #[test]
    fn bounds_rise() {
        assert_eq!(BOUNDS_US[..4], [250, 375, 500, 750]);
        assert_eq!(BOUNDS_US[BOUNDS - 1], 375 << 15);
        assert!(BOUNDS_US.is_sorted());
    }

    #[test]
    fn each_in_its_bucket() {
        let check = |us: u64, end: f64| {
            let snapshot = of(&[us]);
            let (found, count) = snapshot.buckets().find(|(_, count)| *count > 0).unwrap();
            assert_eq!((found, count), (end, 1), "{us}");
            assert_eq!(snapshot.sum_seconds(), us as f64 / 1e6);
        };
        check(0, 0.000_25);
        check(250, 0.000_25);
        check(251, 0.000_375);
        check(1_000, 0.001);
        check(375 << 15, 12.288);
        check((375 << 15) + 1, f64::INFINITY);
    }

    #[test]
    fn quantiles() {
        let check = |times: &[u64], part: f64, want: Option<u64>| {
            assert_eq!(of(times).quantile_us(part), want, "{times:?} {part}");
        };
        check(&[], 0.5, None);
        check(&[300], 0.5, Some(375));
        check(&[300, 300], 0.5, Some(312));
        check(&[100, 100, 100, 1_400], 0.5, Some(166));
        check(&[100, 100, 100, 1_400], 0.99, Some(1_480));
        check(&[100_000_000], 0.99, Some(375 << 15));
        check(&[100, 900], 0.0, Some(250));
    }

    #[test]
    fn near_the_truth() {
        let times: Vec<u64> = (1..=10_000).map(|n| n * 10).collect();
        let snapshot = of(&times);
        for part in [0.5, 0.9, 0.99] {
            let (want, got) = (part * 100_000.0, snapshot.quantile_us(part).unwrap() as f64);
            assert!((got / want - 1.0).abs() < 0.34, "{part}: {got} for {want}");
        }
    }

    #[test]
    fn what_came_since() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_millis(1));
        let before = histogram.snapshot();
        histogram.add(Duration::from_millis(40));
        let since = histogram.snapshot().since(&before);
        assert_eq!(since.count(), 1);
        assert_eq!(since.sum_seconds(), 0.04);
        assert!(since.quantile_us(0.5).unwrap() > 30_000);
        assert_eq!(since.since(&since), Snapshot::default());
    }
}
