//! Trouble that is logged once when it begins and once when it's over, however often it's met
//! in between.

use std::time::Duration;

use tokio::time::Instant;

/// One kind of trouble.
#[derive(Debug, Default)]
pub(super) struct Spell {
    since: Option<Instant>,
    told: bool,
}

impl Spell {
    /// It's met. Whether it has lasted for `patience` and is to be told now, for the first time.
    pub(super) fn met(&mut self, now: Instant, patience: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let tell = !self.told && now.duration_since(since) >= patience;
        self.told |= tell;
        tell
    }

    /// It's not there. How long it lasted, if that's to be told.
    pub(super) fn over(&mut self, now: Instant) -> Option<Duration> {
        let Spell { since, told } = std::mem::take(self);
        since
            .filter(|_| told)
            .map(|since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn is_told_once_and_over_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let patience = Duration::from_millis(500);
        let mut spell = Spell::default();
        assert_eq!(spell.over(at(0)), None);
        assert!(!spell.met(at(0), patience));
        assert_eq!(spell.over(at(100)), None, "too short to be told");
        assert!(!spell.met(at(200), patience));
        assert!(spell.met(at(700), patience));
        assert!(!spell.met(at(800), patience));
        assert_eq!(spell.over(at(900)), Some(Duration::from_millis(700)));
        assert_eq!(spell.over(at(900)), None);
    }
}
