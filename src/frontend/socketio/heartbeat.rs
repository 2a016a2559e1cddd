//! [`Heartbeat`]: when a session is pinged, and when it's given up. Time is passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Where a session stands between a ping and its pong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heartbeat {
    /// When the next ping is due, or the pong.
    due: Instant,
    is_pinged: bool,
}

/// What to do when it's looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Nothing until then.
    Wait(Instant),
    /// Ping, and then nothing until then.
    Ping(Instant),
    /// No pong came.
    Over,
}

impl Heartbeat {
    /// The first ping comes after a whole interval: clients take an earlier one for a fault.
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Heartbeat {
            due: now + interval,
            is_pinged: false,
        }
    }

    /// The client answered.
    pub(super) fn on_pong(&mut self, now: Instant, interval: Duration) {
        if self.is_pinged {
            *self = Heartbeat::new(now, interval);
        }
    }

    /// Its answer may be behind what is not read yet, so it has its time again.
    pub(super) fn on_unheard(&mut self, now: Instant, timeout: Duration) {
        if self.is_pinged {
            self.due = now + timeout;
        }
    }

    /// `is_blocked` says that what we send stays with us, and so does the ping.
    pub(super) fn check(&mut self, now: Instant, is_blocked: bool, timeout: Duration) -> Beat {
        if now < self.due {
            return Beat::Wait(self.due);
        }
        if self.is_pinged && !is_blocked {
            return Beat::Over;
        }
        self.due = now + timeout;
        if std::mem::replace(&mut self.is_pinged, true) {
            return Beat::Wait(self.due);
        }
        Beat::Ping(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(300);
    const TIMEOUT: Duration = Duration::from_millis(200);

    #[test]
    fn pings_and_pongs() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut beat = Heartbeat::new(start, INTERVAL);
        assert_eq!(beat.check(start, false, TIMEOUT), Beat::Wait(at(300)));
        // A pong that nobody asked for.
        beat.on_pong(at(100), INTERVAL);
        assert_eq!(beat.check(at(300), false, TIMEOUT), Beat::Ping(at(500)));
        assert_eq!(beat.check(at(499), false, TIMEOUT), Beat::Wait(at(500)));
        beat.on_pong(at(499), INTERVAL);
        assert_eq!(beat.check(at(500), false, TIMEOUT), Beat::Wait(at(799)));
        assert_eq!(beat.check(at(800), false, TIMEOUT), Beat::Ping(at(1000)));
        assert_eq!(beat.check(at(1000), true, TIMEOUT), Beat::Wait(at(1200)));
        beat.on_unheard(at(1100), TIMEOUT);
        assert_eq!(beat.check(at(1200), false, TIMEOUT), Beat::Wait(at(1300)));
        assert_eq!(beat.check(at(1300), false, TIMEOUT), Beat::Over);
    }
}
