//! [`Pace`]: how often something may be shown without being stored. That costs the store little, and
//! everybody in the room gets each of them, so it's the nodes that bound it, each for itself.

use std::time::Duration;

use tokio::time::Instant;

/// So many at once, and one every so often. (The generic cell rate algorithm, ITU-T I.371.)
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    burst: u32,
    /// When all that was let through would be done at exactly that rate.
    done_at: Option<Instant>,
}

/// What one connection is paced in.
#[derive(Debug)]
pub(super) struct Paces {
    /// Of what it shows without storing it, and of what it sends to other users.
    pub(super) messages: Pace,
    /// Of its reactions.
    pub(super) reactions: Pace,
}

impl Default for Paces {
    fn default() -> Self {
        Paces {
            messages: Pace::of_messages(),
            reactions: Pace::of_reactions(),
        }
    }
}

impl Pace {
    /// Of what everybody in a room gets: ten a second, enough for typing and cursors.
    pub(super) fn of_messages() -> Self {
        Pace {
            interval: Duration::from_millis(100),
            burst: 10,
            done_at: None,
        }
    }

    /// Of reactions, which are told as numbers: as fast as fingers tap.
    pub(super) fn of_reactions() -> Self {
        Pace {
            interval: Duration::from_millis(50),
            burst: 40,
            done_at: None,
        }
    }

    /// Lets one through, or says how long to wait.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let done_at = self.done_at.map_or(now, |done_at| done_at.max(now)) + self.interval;
        let ahead = done_at - now;
        let most = self.interval * self.burst;
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
        let mut pace = Pace::of_messages();
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
