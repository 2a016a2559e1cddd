//! When to ping a silent client, and when to give it up. Time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::frontend::Settings;

/// Where no time-out is set, the timer still needs a time.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// The settings that matter here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Silence before a ping; zero is never.
    pub(crate) ping: Duration,
    /// Silence after it before the end.
    pub(crate) pong: Duration,
    /// How long a client may send no data.
    pub(crate) idle: Option<Duration>,
}

impl From<&Settings> for Times {
    fn from(settings: &Settings) -> Self {
        Times {
            ping: settings.ping,
            pong: settings.pong,
            idle: settings.idle_timeout,
        }
    }
}

/// What to do when the timer went off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, until then.
    Wait(Instant),
    /// Ping, and then nothing until then.
    Ping(Instant),
    /// Close, and say why.
    Over(&'static str),
}

/// What is known of a client's silence.
#[derive(Debug)]
pub(crate) struct Watch {
    /// When anything came last.
    received: Instant,
    /// When data came last.
    data: Instant,
    /// Since when a ping is unanswered.
    pinged: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Self {
        Watch {
            received: now,
            data: now,
            pinged: None,
        }
    }

    /// Anything came: the client lives.
    pub(crate) fn on_received(&mut self, now: Instant) {
        self.received = now;
        self.pinged = None;
    }

    /// A data frame came.
    pub(crate) fn on_data(&mut self, now: Instant) {
        self.data = now;
    }

    /// `blocked` says that what we send stays with us. Then a ping may not even have left, and the
    /// slow time-out is what counts.
    pub(crate) fn check(&mut self, now: Instant, blocked: bool, times: Times) -> Verdict {
        let idle_at = self.data + times.idle.unwrap_or(NEVER);
        if times.idle.is_some() && now >= idle_at {
            return Verdict::Over("nothing was sent for too long");
        }
        let idle_at = idle_at.max(now);
        match self.pinged {
            Some(_) if blocked => {
                self.pinged = Some(now);
                Verdict::Wait(idle_at.min(now + times.pong))
            }
            Some(at) if now >= at + times.pong => Verdict::Over("no answer to a ping"),
            Some(at) => Verdict::Wait(idle_at.min(at + times.pong)),
            None if times.ping.is_zero() => Verdict::Wait(idle_at.min(now + NEVER)),
            None if now >= self.received + times.ping => {
                self.pinged = Some(now);
                Verdict::Ping(idle_at.min(now + times.pong))
            }
            None => Verdict::Wait(idle_at.min(self.received + times.ping)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    enum Event {
        /// The timer goes off, and this is the verdict.
        Timer(&'static str),
        Blocked(&'static str),
        Received,
        Data,
    }
    use Event::{Blocked, Data, Received, Timer};

    fn check(idle: Option<u64>, events: &[(u64, Event)]) {
        let times = Times {
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            idle: idle.map(Duration::from_secs),
        };
        let start = Instant::now();
        let mut watch = Watch::new(start);
        for (at, event) in events {
            let now = start + Duration::from_secs(*at);
            let (want, blocked) = match event {
                Timer(want) => (want, false),
                Blocked(want) => (want, true),
                Received => {
                    watch.on_received(now);
                    continue;
                }
                Data => {
                    watch.on_received(now);
                    watch.on_data(now);
                    continue;
                }
            };
            let after = |then: Instant| then.duration_since(start).as_secs();
            let got = match watch.check(now, blocked, times) {
                Verdict::Wait(then) => format!("wait {}", after(then)),
                Verdict::Ping(then) => format!("ping {}", after(then)),
                Verdict::Over(why) => why.to_owned(),
            };
            assert_eq!(got, *want, "at {at}");
        }
    }

    #[test]
    fn silence() {
        const DEAD: &str = "no answer to a ping";
        check(
            None,
            &[
                (0, Timer("wait 25")),
                (25, Timer("ping 35")),
                (35, Timer(DEAD)),
            ],
        );
        check(
            None,
            &[
                (10, Received),
                (25, Timer("wait 35")),
                (35, Timer("ping 45")),
                (45, Timer(DEAD)),
            ],
        );
        check(
            None,
            &[
                (25, Timer("ping 35")),
                (26, Received),
                (35, Timer("wait 51")),
                (51, Timer("ping 61")),
            ],
        );
        // Ours to deliver: the client can't answer what it has not got.
        check(
            None,
            &[
                (25, Timer("ping 35")),
                (35, Blocked("wait 45")),
                (45, Blocked("wait 55")),
                (50, Timer("wait 55")),
                (55, Timer(DEAD)),
            ],
        );
        let idle = "nothing was sent for too long";
        check(
            Some(30),
            &[(25, Timer("ping 30")), (26, Received), (30, Timer(idle))],
        );
        check(
            Some(30),
            &[(20, Data), (25, Timer("wait 45")), (45, Timer("ping 50"))],
        );
    }
}
