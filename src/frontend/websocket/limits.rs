//! How many frames of a client are read: a generic cell rate limiter, small enough to live in every
//! connection, with the time passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Lets `rate` frames in each second, and as many in one burst after a quiet second.
///
/// It keeps one instant: when all that was let in so far would be done at exactly that rate. That
/// may lie up to one second ahead of now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limiter {
    done_at: Instant,
}

impl Limiter {
    /// A limiter that has let nothing in yet.
    pub(crate) fn new(now: Instant) -> Self {
        Limiter { done_at: now }
    }

    /// Lets one frame in, or says how long to wait first. A rate of 0 is no limit.
    pub(crate) fn take(&mut self, rate: u32, now: Instant) -> Result<(), Duration> {
        if rate == 0 {
            return Ok(());
        }
        let interval = Duration::from_secs(1) / rate;
        let done_at = self.done_at.max(now) + interval;
        // rate intervals can be a little less than a second, by rounding; so count in intervals.
        let ahead = done_at - now;
        let burst = interval * rate;
        if ahead > burst {
            return Err(ahead - burst);
        }
        self.done_at = done_at;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frames at the given milliseconds; which of them get in?
    fn check(rate: u32, at: &[u64], want: &[bool]) {
        let start = Instant::now();
        let mut limiter = Limiter::new(start);
        let got: Vec<bool> = at
            .iter()
            .map(|ms| {
                limiter
                    .take(rate, start + Duration::from_millis(*ms))
                    .is_ok()
            })
            .collect();
        assert_eq!(got, want, "rate {rate} at {at:?}");
    }

    #[test]
    fn rates() {
        check(0, &[0, 0, 0], &[true, true, true]);
        check(
            1,
            &[0, 0, 999, 1000, 1500, 2000],
            &[true, false, false, true, false, true],
        );
        check(
            2,
            &[0, 0, 0, 499, 500, 500],
            &[true, true, false, false, true, false],
        );
        // What was refused costs nothing, and rest saves up no more than one second's worth.
        check(
            2,
            &[0, 0, 0, 0, 1000, 1000, 1000],
            &[true, true, false, false, true, true, false],
        );
        check(2, &[0, 90_000, 90_000, 90_000], &[true, true, true, false]);
        check(3, &[0, 0, 0, 0, 334], &[true, true, true, false, true]);
    }

    #[test]
    fn says_how_long_to_wait() {
        let now = Instant::now();
        let mut limiter = Limiter::new(now);
        assert_eq!(limiter.take(1, now), Ok(()));
        assert_eq!(limiter.take(1, now), Err(Duration::from_secs(1)));
        let later = now + Duration::from_millis(400);
        assert_eq!(limiter.take(1, later), Err(Duration::from_millis(600)));
        assert_eq!(limiter.take(1, later + Duration::from_millis(600)), Ok(()));
    }

    #[test]
    fn is_small() {
        assert_eq!(size_of::<Limiter>(), 16);
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst(
            rate in 1u32..2000,
            steps in prop::collection::vec(0u64..5_000, 1..300),
        ) {
            let start = Instant::now();
            let mut limiter = Limiter::new(start);
            let mut micros = 0;
            let mut taken = 0u64;
            for step in steps {
                micros += step;
                let now = start + Duration::from_micros(micros);
                match limiter.take(rate, now) {
                    Ok(()) => taken += 1,
                    Err(wait) => {
                        // The wait it names is enough.
                        prop_assert!(limiter.clone().take(rate, now + wait).is_ok());
                    }
                }
                let interval = (Duration::from_secs(1) / rate).as_nanos();
                let earned = u128::from(micros) * 1000 / interval;
                prop_assert!(u128::from(taken) <= earned + u128::from(rate));
            }
        }
    }
}
