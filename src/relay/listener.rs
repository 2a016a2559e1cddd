//! [`Listener`]: a subscriber inside this process. It's a cursor like any other.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::batch::successor;
use super::cursor::Cursor;
use super::entry::Entry;
use super::format::Gap;
use super::page::PageOutcome;
use super::registry::Membership;
use super::room::Start;

/// Entries read at a time from the log, where the window does not reach back.
const PAGE: usize = 100;

/// How long to wait before the log is asked again, when it does not answer.
const RETRY: Duration = Duration::from_millis(250);

/// What a listener gets next.
#[derive(Debug, Clone)]
pub enum Heard {
    /// The next entry.
    Entry(Arc<Entry>),
    /// Entries may have existed here that can't be had.
    Gap(Gap),
}

/// What comes next for a cursor, as the window has it.
pub(super) enum Step {
    /// This.
    Heard(Heard),
    /// Nothing yet.
    CaughtUp,
    /// Only the log knows.
    Behind,
}

/// Follows one room from within. Dropping it leaves.
pub struct Listener {
    membership: Membership,
    cursor: Cursor,
    ahead: VecDeque<Heard>,
}

impl Listener {
    pub(super) fn new(membership: Membership, start: Start) -> Self {
        Listener {
            membership,
            cursor: start.cursor,
            ahead: start.gap.map(Heard::Gap).into_iter().collect(),
        }
    }

    /// Waits for what comes next. What is waited for is not lost if the future is dropped.
    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.ahead.pop_front() {
                return heard;
            }
            let room = self.membership.room().clone();
            let mut moved = pin!(room.moved());
            moved.as_mut().enable();
            match room.step(&mut self.cursor) {
                Step::Heard(heard) => return heard,
                Step::CaughtUp => moved.await,
                Step::Behind => match room.page(self.cursor, PAGE).await {
                    Ok(PageOutcome::Page(page)) if room.lineage() == self.cursor.lineage => {
                        let lost = page.lost.filter(|(upto, _)| self.cursor.id < *upto);
                        if let Some((upto, reason)) = lost {
                            self.ahead.push_back(Heard::Gap(Gap {
                                after: self.cursor.id,
                                before: successor(upto),
                                reason,
                            }));
                        }
                        let entries = page.entries.iter().cloned();
                        self.ahead.extend(entries.map(Heard::Entry));
                        self.cursor = Cursor::after(page.end, self.cursor.lineage);
                    }
                    // Redis is away, or the stream is not what it was: look again.
                    Ok(_) | Err(_) => sleep(RETRY).await,
                },
            }
        }
    }
}
