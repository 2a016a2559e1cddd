//! The generic cell rate algorithm (ITU-T I.371), as every store keeps it: of a rate one number is
//! remembered, the time when it will be full again, in microseconds by the store's clock.

use crate::relay::log::Limit;

/// A rate between one a millisecond and one in a day, whatever it says: so that a script's numbers
/// hold it exactly.
const INTERVAL_MAX_US: u64 = 24 * 3600 * 1_000_000;

/// Most at once, for the same reason.
const BURST_MAX: u32 = 10_000;

/// What one append costs, in microseconds, and how many may come at once.
pub(super) fn terms(limit: &Limit) -> (u64, u32) {
    let interval = u64::try_from(limit.interval.as_micros()).unwrap_or(u64::MAX);
    (
        interval.clamp(1000, INTERVAL_MAX_US),
        limit.burst.clamp(1, BURST_MAX),
    )
}

/// Whether one more may pass now: when the rate is full again then, or how long to wait. `full` is
/// when it's full as things stand. The Redis store has the same in Lua, `append/script.rs`.
pub(super) fn pass(full: Option<u64>, now: u64, limit: &Limit) -> Result<u64, u64> {
    let (interval, burst) = terms(limit);
    let most = interval * u64::from(burst);
    // Later than that is from a clock that went back, or from a rate that was slower.
    let full = full.unwrap_or(0).clamp(now, now.saturating_add(most));
    let after = full.saturating_add(interval);
    match after.saturating_sub(now).checked_sub(most) {
        None | Some(0) => Ok(after),
        Some(excess) => Err(excess),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn limit(interval_ms: u64, burst: u32) -> Limit {
        Limit {
            name: Bytes::new(),
            interval: Duration::from_millis(interval_ms),
            burst,
        }
    }

    #[test]
    fn bursts_and_refills() {
        let limit = limit(10, 3);
        let start = 1_000_000;
        let mut full = None;
        let mut check = |now: u64, want: Result<(), u64>| {
            let got = pass(full, start + now, &limit);
            full = got.ok().or(full);
            assert_eq!(got.map(drop), want, "at {now}");
        };
        check(0, Ok(()));
        check(0, Ok(()));
        check(0, Ok(()));
        check(0, Err(10_000));
        check(4_000, Err(6_000));
        check(10_000, Ok(()));
        check(10_001, Err(9_999));
        check(35_000, Ok(()));
        check(35_000, Ok(()));
        check(35_000, Err(5_000));
        // Long after, it's the burst again and no more.
        for _ in 0..3 {
            check(9_000_000, Ok(()));
        }
        check(9_000_000, Err(10_000));
    }

    #[test]
    fn odd_terms_and_clocks() {
        let odd = limit(0, 0);
        assert_eq!(terms(&odd), (1000, 1));
        let endless = Limit {
            interval: Duration::MAX,
            burst: u32::MAX,
            ..odd
        };
        assert_eq!(terms(&endless), (INTERVAL_MAX_US, BURST_MAX));
        assert!(pass(Some(u64::MAX), u64::MAX, &endless).is_ok());
        // A clock that went back an hour does not lock anybody out for one.
        let limit = limit(1000, 5);
        assert_eq!(pass(Some(3_600_000_000), 0, &limit), Err(1_000_000));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_what_it_says_suffices(
            interval in 1u64..50,
            burst in 1u32..8,
            steps in prop::collection::vec(0u64..60_000, 1..200),
        ) {
            let limit = limit(interval, burst);
            let (mut now, mut full, mut passed) = (5_000_000, None, Vec::new());
            for step in steps {
                now += step;
                match pass(full, now, &limit) {
                    Ok(after) => {
                        full = Some(after);
                        passed.push(now);
                    }
                    Err(wait) => {
                        prop_assert!(wait > 0 && wait <= interval * 1000);
                        prop_assert!(pass(full, now + wait, &limit).is_ok());
                        prop_assert!(pass(full, now + wait - 1, &limit).is_err());
                    }
                }
            }
            // In any stretch: a burst, and one for each interval in it.
            for (index, first) in passed.iter().enumerate() {
                for (count, last) in passed[index..].iter().enumerate() {
                    let most = u64::from(burst) + (last - first) / (interval * 1000);
                    prop_assert!((count as u64) < most);
                }
            }
        }
    }
}
