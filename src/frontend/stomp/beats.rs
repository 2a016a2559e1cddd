//! Heart-beats: what was agreed on, and what is due. Time is passed in.
//!
//! The server says what the client said, as brokers do, within bounds: so each side sends as often as
//! the other wants.

use std::time::Duration;

use tokio::time::Instant;

use super::request::Beats;

/// More often is no heart-beat but load.
const LEAST: Duration = Duration::from_secs(1);

/// Rarer is none at all; and sums with the time must fit.
const MOST: Duration = Duration::from_secs(3_600);

/// What the server offers a client that says 0, which is that it does without.
const OFFERED: Duration = Duration::from_secs(10);

/// A connection's heart-beats.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heart {
    /// How often this side sends one, and when it's due.
    sends: Option<(Duration, Instant)>,
    /// How long the client may be silent.
    patience: Option<Duration>,
    heard: Instant,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A heart-beat is to be sent.
    Beat,
    /// The client is silent for too long.
    Silence,
}

fn bounded(time: Duration) -> Duration {
    match time.is_zero() {
        true => OFFERED,
        false => time.clamp(LEAST, MOST),
    }
}

/// The header of CONNECTED.
pub(super) fn answer(client: Beats) -> String {
    let (sends, wants) = (bounded(client.wants), bounded(client.sends));
    format!("{},{}", sends.as_millis(), wants.as_millis())
}

impl Heart {
    /// Before anything is agreed on.
    pub(super) fn new(now: Instant) -> Self {
        Heart {
            sends: None,
            patience: None,
            heard: now,
        }
    }

    /// As agreed with that client.
    pub(super) fn agreed(client: Beats, now: Instant) -> Self {
        let agreed = |time: Duration| (!time.is_zero()).then(|| bounded(time));
        let sends = agreed(client.wants).map(|every| {
            // A little early, as what is sent takes its time.
            let every = every - every / 5;
            (every, now + every)
        });
        Heart {
            sends,
            // The protocol asks for a margin; clients give us twice the time as well.
            patience: agreed(client.sends).map(|every| every * 2),
            heard: now,
        }
    }

    /// Something came, a heart-beat or anything else.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        let beat = self.sends.map(|(_, at)| at);
        let silence = self.patience.map(|patience| self.heard + patience);
        beat.into_iter().chain(silence).min()
    }

    /// What is due now. A beat is taken as sent.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        if self
            .patience
            .is_some_and(|patience| now >= self.heard + patience)
        {
            return Due::Silence;
        }
        match &mut self.sends {
            Some((every, at)) if now >= *at => {
                *at = now + *every;
                Due::Beat
            }
            _ => Due::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beats(sends: u64, wants: u64) -> Beats {
        Beats {
            sends: Duration::from_millis(sends),
            wants: Duration::from_millis(wants),
        }
    }

    #[test]
    fn what_is_answered() {
        let check = |sends, wants, want: &str| assert_eq!(answer(beats(sends, wants)), want);
        check(10_000, 20_000, "20000,10000");
        check(0, 0, "10000,10000");
        check(1, 1_000, "1000,1000");
        check(u64::MAX, 0, "10000,3600000");
    }

    #[test]
    fn what_is_due() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut heart = Heart::agreed(beats(1_000, 2_000), start);
        assert_eq!(heart.next(), Some(at(1_600)));
        assert_eq!(heart.due(at(1_599)), Due::Nothing);
        assert_eq!(heart.due(at(1_600)), Due::Beat);
        assert_eq!(heart.due(at(1_700)), Due::Nothing);
        assert_eq!(heart.next(), Some(at(2_000)));
        heart.on_heard(at(1_900));
        assert_eq!(heart.due(at(2_000)), Due::Nothing);
        assert_eq!(heart.due(at(3_900)), Due::Silence);
        let mut none = Heart::agreed(beats(0, 0), start);
        assert_eq!(none.next(), None);
        assert_eq!(none.due(at(1_000_000)), Due::Nothing);
        assert_eq!(Heart::new(start).next(), None);
    }
}
