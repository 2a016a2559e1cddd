//! How much one read may ask for.
//!
//! Redis closes a connection whose answer exceeds `client-output-buffer-limit`, and over a slow network
//! a large answer may exceed its time. Asked again the same way, such a read fails for ever. So every
//! read with a COUNT takes it from a [`ReadSize`]: a read whose connection was lost under it is tried
//! again with a quarter, down to one entry, and reads that are answered double it again.

use std::time::Duration;

use tokio::time::Instant;

/// For so long no read asks for more than half of what was too much. A backlog takes several reads,
/// and without this every third of them would cost a connection.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How many entries one read may ask for.
#[derive(Debug)]
pub(super) struct ReadSize {
    most: usize,
    now: usize,
    /// No more than this, because of a read that failed then.
    ceiling: Option<(usize, Instant)>,
}

impl ReadSize {
    /// At most so many entries, and that many at first.
    pub(super) fn new(most: usize) -> Self {
        ReadSize {
            most,
            now: most,
            ceiling: None,
        }
    }

    /// What to ask for where `wanted` entries are wanted; at least one.
    pub(super) fn of(&self, wanted: usize) -> usize {
        if self.is_whole() {
            return wanted;
        }
        wanted.min(self.now).max(1)
    }

    /// Whether nothing failed lately.
    fn is_whole(&self) -> bool {
        self.now == self.most && self.ceiling.is_none()
    }

    /// A read of so many entries lost its connection, or was not answered in time.
    pub(super) fn lost(&mut self, asked: usize, at: Instant) {
        self.ceiling = Some(((asked / 2).clamp(1, self.most), at));
        self.now = (asked / 4).clamp(1, self.most);
    }

    /// A read was answered.
    pub(super) fn answered(&mut self, at: Instant) {
        if self.is_whole() {
            return;
        }
        self.ceiling = (self.ceiling).filter(|(_, since)| at.duration_since(*since) < REMEMBERED);
        let ceiling = self.ceiling.map_or(self.most, |(ceiling, _)| ceiling);
        self.now = self.now.saturating_mul(2).min(ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn falls_to_one_and_grows_again() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut size = ReadSize::new(100);
        assert_eq!(
            (size.of(100), size.of(7), size.of(10_000)),
            (100, 7, 10_000)
        );
        let mut asked = Vec::new();
        for _ in 0..6 {
            asked.push(size.of(100));
            size.lost(size.of(100), at(0));
        }
        assert_eq!(asked, [100, 25, 6, 1, 1, 1]);
        for _ in 0..10 {
            size.answered(at(1));
        }
        assert_eq!(size.of(100), 1, "one entry was too much a second ago");
        let mut asked = Vec::new();
        for second in 100..108 {
            size.answered(at(second));
            asked.push(size.of(1_000));
        }
        assert_eq!(asked, [2, 4, 8, 16, 32, 64, 1_000, 1_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn settles_below_what_was_too_much() {
        let mut size = ReadSize::new(256);
        let (limit, mut lost) = (33, 0);
        for _ in 0..100 {
            match size.of(256) {
                asked if asked > limit => {
                    lost += 1;
                    size.lost(asked, Instant::now());
                }
                _ => size.answered(Instant::now()),
            }
        }
        assert!(lost <= 4, "{lost}");
        assert!((16..=33).contains(&size.of(256)), "{size:?}");
    }
}
