//! [`Pace`]: how often something may be shown without being stored. That costs the store little, and
//! everybody in the room gets each of them, so it's the nodes that bound it, each for itself.

use std::time::Duration;

use tokio::time::Instant;

/// Ten at once, and ten a second: enough for typing and cursors. (The generic cell rate algorithm,
/// ITU-T I.371.)
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When all that was let through would be done at exactly that rate.
    done_at: Option<Instant>,
}

impl Pace {
    const INTERVAL: Duration = Duration::from_millis(100);
    const BURST: u32 = 10;

    /// Lets one through, or says how long to wait.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let done_at = self.done_at.map_or(now, |done_at| done_at.max(now)) + Self::INTERVAL;
        let ahead = done_at - now;
        let most = Self::INTERVAL * Self::BURST;
        if ahead > most {
            return Err(ahead - most);
        }
        self.done_at = Some(done_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ephemeral_pace() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let at = |ms| start + Duration::from_millis(ms);
        for _ in 0..10 {
            assert_eq!(pace.take(at(0)), Ok(()));
        }
        assert_eq!(pace.take(at(0)), Err(Duration::from_millis(100)));
        assert_eq!(pace.take(at(99)), Err(Duration::from_millis(1)));
        assert_eq!(pace.take(at(100)), Ok(()));
        assert!(pace.take(at(100)).is_err());
        assert_eq!(pace.take(at(60_000)), Ok(()));
    }
}
