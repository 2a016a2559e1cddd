//! Redis's clock, as far as it can be told from here: entry IDs are made by it, and nodes' clocks differ.
//!
//! The health probe asks for Redis's TIME once a second. The answer was made at some time between question and
//! answer; taken for the middle, it's wrong by at most half of the round trip. Of the last answers the one with
//! the shortest round trip is believed, as NTP does. This node's own side is the clock that nobody sets.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Answers remembered. Clocks drift apart by less than a millisecond in so many seconds.
const KEPT: usize = 16;

/// What is known of Redis's clock.
pub(super) struct Clock {
    began: Instant,
    samples: Mutex<VecDeque<Sample>>,
}

/// One answer.
#[derive(Debug, Clone, Copy)]
struct Sample {
    round_trip: Duration,
    /// Redis's time since the epoch when this node's clock began.
    epoch: Duration,
}

impl Sample {
    fn error(&self) -> Duration {
        self.round_trip / 2
    }
}

impl Clock {
    pub(super) fn new() -> Self {
        Clock {
            began: Instant::now(),
            samples: Mutex::default(),
        }
    }

    /// Asked at one time and answered at another, Redis said this.
    pub(super) fn answered(&self, asked: Instant, answered: Instant, said: Duration) {
        let round_trip = answered.duration_since(asked);
        let since = asked.duration_since(self.began) + round_trip / 2;
        let new = Sample {
            round_trip,
            epoch: said.saturating_sub(since),
        };
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        // Both can't be right: the clock was set, or it's another server's. A millisecond is for drift.
        let contradicts = |old: &Sample| {
            let allowed = old.error() + new.error() + Duration::from_millis(1);
            old.epoch.abs_diff(new.epoch) > allowed
        };
        if samples.iter().any(contradicts) {
            samples.clear();
        }
        samples.truncate(KEPT - 1);
        samples.push_front(new);
    }

    /// Redis's time since the epoch now.
    pub(super) fn now(&self) -> Option<Duration> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<Duration> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let best = samples.iter().min_by_key(|sample| sample.round_trip)?;
        Some(best.epoch.saturating_add(now.duration_since(self.began)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as (asked, answered, said) in ms, and what time it is at 1,000 ms.
    fn check(answers: &[(u64, u64, u64)], want: Option<u64>) {
        let clock = Clock::new();
        let at = |ms| clock.began + Duration::from_millis(ms);
        for (asked, answered, said) in answers {
            clock.answered(at(*asked), at(*answered), Duration::from_millis(*said));
        }
        let now = clock.at(at(1_000));
        assert_eq!(now, want.map(Duration::from_millis), "{answers:?}");
    }

    #[test]
    fn the_best_answer_counts() {
        check(&[], None);
        check(&[(0, 2, 5_001)], Some(6_000));
        // The slow one was answered at its end, not in its middle.
        check(&[(0, 2, 5_001), (10, 50, 5_050)], Some(6_000));
        check(&[(10, 50, 5_050), (100, 102, 5_101)], Some(6_000));
    }

    #[test]
    fn a_clock_that_was_set() {
        check(&[(0, 2, 5_001), (10, 50, 9_030)], Some(10_000));
        check(&[(0, 2, 5_001), (10, 50, 1_030)], Some(2_000));
    }

    #[test]
    fn old_answers_are_forgotten() {
        let mut answers = vec![(0, 0, 5_000)];
        answers.extend((1..=KEPT as u64).map(|n| (n * 10, n * 10 + 2, 5_001 + n * 10 + 1)));
        check(&answers, Some(6_001));
    }
}
