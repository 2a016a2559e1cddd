//! Where a subscriber begins: from a position to a cursor.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Opened, PageKey, Room};
use crate::relay::batch;
use crate::relay::cursor::Cursor;
use crate::relay::entry::EntryId;
use crate::relay::format::{Gap, GapReason};
use crate::relay::log::{LogError, Range};
use crate::relay::page::{self, PageOutcome};
use crate::relay::position::Position;
use crate::relay::window::{Spot, Window};

/// How long a join that met a Redis that does not answer waits before it asks again.
const START_RETRY: Duration = Duration::from_millis(250);

/// Where a join begins.
#[derive(Debug, Clone, Copy)]
pub(in crate::relay) struct Start {
    /// Its ID is what to resume from if nothing ever arrives.
    pub(in crate::relay) cursor: Cursor,
    /// The position asked for is unknown to the stream; to be told before anything else.
    pub(in crate::relay) gap: Option<Gap>,
    /// Whether, as far as can be seen now, no gap will be told of what is there already.
    pub(in crate::relay) is_whole: bool,
}

impl Start {
    /// Goes on after `upto`, with a gap told first.
    fn behind_gap(cursor: Cursor, upto: EntryId, reason: GapReason) -> Self {
        Start {
            cursor: Cursor::after(upto, cursor.lineage),
            gap: Some(Gap {
                after: cursor.id,
                before: batch::successor(upto),
                reason,
            }),
            is_whole: false,
        }
    }
}

impl Room {
    /// Where to begin for a client that joins now. Waits until the room's tail has a cursor, and
    /// for as long as the log fails in a way that may pass by itself.
    pub(in crate::relay) async fn start(
        &self,
        from: Position,
        now_ms: u64,
    ) -> Result<Start, LogError> {
        loop {
            match self.try_start(from, now_ms).await {
                Err(error) if error.passes() => sleep(START_RETRY).await,
                outcome => return outcome,
            }
        }
    }

    async fn try_start(&self, from: Position, now_ms: u64) -> Result<Start, LogError> {
        self.wait_open().await?;
        match from {
            Position::Now => {
                Ok(self.start_at(|window| Cursor::after(window.head(), window.lineage())))
            }
            Position::Start => Ok(self.start_nominal(EntryId::ZERO)),
            Position::Ago(age) => {
                let since =
                    now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                self.start_since(EntryId::new(since, 0).predecessor()).await
            }
            Position::Last(count) => self.start_last(count).await,
            Position::After(EntryId::ZERO) => self.start_after_nothing().await,
            Position::After(id) => self.start_after(id).await,
        }
    }

    fn start_at(&self, cursor: impl FnOnce(&Window) -> Cursor) -> Start {
        Start {
            cursor: cursor(&self.state().window),
            gap: None,
            is_whole: true,
        }
    }

    fn start_nominal(&self, id: EntryId) -> Start {
        self.start_at(|window| Cursor::nominal(id, window.lineage()))
    }

    /// Resumes where a client stands that came into an empty room. No entry has that ID, so only the
    /// stream's own count tells whether any are gone.
    async fn start_after_nothing(&self) -> Result<Start, LogError> {
        let (cursor, is_there) = {
            let window = &self.state().window;
            let cursor = Cursor::after(EntryId::ZERO, window.lineage());
            (cursor, window.has_beginning())
        };
        if !is_there && let Some((upto, reason)) = self.lost_after(cursor).await? {
            return Ok(Start::behind_gap(cursor, upto, reason));
        }
        let window = &self.state().window;
        let cursor = Cursor::nominal(EntryId::ZERO, window.lineage());
        Ok(Start {
            cursor,
            gap: None,
            is_whole: !window.has_hole_after(&cursor),
        })
    }

    /// Waits until the tail has brought what this node was told is stored, as the newest entries
    /// would otherwise be those before.
    async fn wait_stored(&self) {
        let stored = self.state().stored;
        let is_level = timeout(START_RETRY, async {
            loop {
                let moved = self.moved();
                if self.state().window.head() >= stored {
                    return;
                }
                moved.await;
            }
        });
        if is_level.await.is_err() {
            // Redis is away, or the stream is another one: nobody else need wait for it.
            self.state().stored = EntryId::ZERO;
        }
    }

    async fn start_last(&self, count: usize) -> Result<Start, LogError> {
        self.wait_stored().await;
        let in_window = |room: &Room| {
            let state = room.state();
            let id = state.window.before_newest(count)?;
            Some(Start {
                cursor: Cursor::nominal(id, state.window.lineage()),
                gap: None,
                is_whole: true,
            })
        };
        if let Some(start) = in_window(self) {
            return Ok(start);
        }
        if count <= self.shared.limits.entries {
            self.fetch_older().await?;
            if let Some(start) = in_window(self) {
                return Ok(start);
            }
        }
        let head = self.state().window.head();
        let range = Range {
            from: Bound::Unbounded,
            to: Bound::Included(head),
            limit: count,
            newest_first: true,
        };
        self.shared.stats.log_reads.add(1);
        let oldest = self.shared.log.range(&self.name, range).await?.pop();
        Ok(self.start_nominal(oldest.map_or(head, |entry| entry.id.predecessor())))
    }

    /// Begins after an ID that need not be an entry's. The client is told the ID right before the
    /// first entry it gets: if it resumed at one that the stream doesn't know, it would be told a gap.
    async fn start_since(&self, since: EntryId) -> Result<Start, LogError> {
        let in_window = |room: &Room| {
            let state = room.state();
            let id = state.window.before_first_after(since)?;
            Some(Start {
                cursor: Cursor::nominal(id, state.window.lineage()),
                gap: None,
                is_whole: true,
            })
        };
        if let Some(start) = in_window(self) {
            return Ok(start);
        }
        self.fetch_older().await?;
        if let Some(start) = in_window(self) {
            return Ok(start);
        }
        let range = Range {
            from: Bound::Excluded(since),
            to: Bound::Unbounded,
            limit: 1,
            newest_first: false,
        };
        self.shared.stats.log_reads.add(1);
        let first = self.shared.log.range(&self.name, range).await?.pop();
        Ok(self.start_nominal(first.map_or(since, |entry| entry.id.predecessor())))
    }

    /// Resumes after an ID that a client has.
    async fn start_after(&self, id: EntryId) -> Result<Start, LogError> {
        let mut is_filled = false;
        loop {
            let (cursor, head, spot, unknown, is_known) = {
                let window = &self.state().window;
                let cursor = Cursor::after(id, window.lineage());
                let is_known = id == window.floor() || id == window.head() || window.knows(id);
                let unknown = window.unknown_before(id);
                (
                    cursor,
                    window.head(),
                    window.locate(&cursor),
                    unknown,
                    is_known,
                )
            };
            if let Some((before, reason)) = unknown {
                return Ok(Start::behind_gap(cursor, before.predecessor(), reason));
            }
            if let Some((origin, reason)) = self.lost_end(id).await? {
                return Ok(Start::behind_gap(cursor, origin, reason));
            }
            if id <= head {
                if spot == Spot::Behind && !is_filled {
                    // The usual case of a reconnect storm: a little below the window, and room in
                    // it.
                    is_filled = true;
                    self.fetch_older().await?;
                    continue;
                }
                let is_inside = matches!(spot, Spot::At(_));
                if is_inside
                    && !is_known
                    && let Some((upto, reason)) = self.lost_after(cursor).await?
                {
                    return Ok(Start::behind_gap(cursor, upto, reason));
                }
                // What is lost below the window is told when it's read, and what is lost in it in
                // its place; but who comes back wants to know before.
                let is_whole = match spot {
                    Spot::At(_) => !self.state().window.has_hole_after(&cursor),
                    Spot::Lost { .. } => false,
                    Spot::Behind => {
                        self.lost_after(cursor).await?.is_none()
                            && !self.state().window.has_hole_after(&cursor)
                    }
                };
                return Ok(Start {
                    cursor,
                    gap: None,
                    is_whole,
                });
            }
            // Another node may have read further than this one; only the stream itself knows.
            self.shared.stats.log_reads.add(1);
            match self.shared.log.state(&self.name).await? {
                None => {
                    let head = self.state().window.head();
                    return Ok(Start::behind_gap(cursor, head, GapReason::Deleted));
                }
                Some(state) if state.last < id => {
                    let (head, origin) = {
                        let window = &self.state().window;
                        (window.head(), window.origin())
                    };
                    if state.last < head {
                        // The tail has yet to find that out, and from where on the stream is another.
                        let _ = timeout(START_RETRY, self.moved()).await;
                        continue;
                    }
                    // What follows is what live sockets got. A node that has not seen the stream lose
                    // its end can't know where that was: all there is may be new.
                    let (upto, reason) = origin.unwrap_or_else(|| {
                        let first = state.first.map_or(state.last, EntryId::predecessor);
                        (first, GapReason::Rewound)
                    });
                    return Ok(Start::behind_gap(cursor, upto, reason));
                }
                // Whether it's still the stream that this node follows shows once its tail is as far;
                // a cursor set before might be told of a loss from before its time.
                Some(_) if self.has_between(head, id).await? => {
                    let _ = timeout(START_RETRY, self.moved()).await;
                    continue;
                }
                // The ID may well be from before this stream was begun. If there is an entry to come
                // to, the tail will, and tells what became of the others.
                Some(state)
                    if state.first.is_some() && page::lost_since(&state, id, head).is_some() =>
                {
                    let _ = timeout(START_RETRY, self.moved()).await;
                    continue;
                }
                // Nothing is left up to there: its entry was removed, and perhaps others.
                Some(_) if self.state().window.head() == head => {
                    return Ok(Start {
                        cursor,
                        gap: None,
                        is_whole: true,
                    });
                }
                Some(_) => {}
            }
        }
    }

    /// Where the stream lost its end, and why, if this ID is of that end. The stream may have grown
    /// past it since.
    async fn lost_end(&self, id: EntryId) -> Result<Option<(EntryId, GapReason)>, LogError> {
        let (origin, is_lost, may_be_lost) = {
            let window = &self.state().window;
            let (is_lost, may_be_lost) = (window.is_lost_end(id), window.may_be_lost_end(id));
            (window.origin(), is_lost, may_be_lost)
        };
        // Right before an entry is as good as an entry.
        let known = (id.predecessor(), batch::successor(id));
        if is_lost || (may_be_lost && !self.has_between(known.0, known.1).await?) {
            return Ok(origin);
        }
        Ok(None)
    }

    /// What became of entries right after an ID inside the window that is none of its entries:
    /// removed one by one since, or from before a deletion. One read for all who stand there.
    async fn lost_after(&self, cursor: Cursor) -> Result<Option<(EntryId, GapReason)>, LogError> {
        let outcome = self
            .single_flight(
                PageKey::Unknown(cursor.id, cursor.lineage),
                async move |room: Arc<Room>| {
                    let head = room.state().window.head();
                    page::read(room.shared.log.as_ref(), &room.name, cursor, head, 1).await
                },
            )
            .await?;
        Ok(match outcome {
            PageOutcome::Page(page) => page.lost.filter(|(upto, _)| cursor.id < *upto),
            PageOutcome::Rewound => None,
        })
    }

    /// Whether the stream has entries after `head` up to `id`.
    async fn has_between(&self, head: EntryId, id: EntryId) -> Result<bool, LogError> {
        let range = Range {
            from: Bound::Excluded(head),
            to: Bound::Included(id),
            limit: 1,
            newest_first: false,
        };
        self.shared.stats.log_reads.add(1);
        let found = self.shared.log.range(&self.name, range).await?;
        Ok(!found.is_empty())
    }

    /// Waits until the tail has its cursor. Errors that pass by themselves are waited out.
    async fn wait_open(&self) -> Result<(), LogError> {
        let mut opened = self.opened.subscribe();
        let outcome = opened
            .wait_for(|opened| match opened {
                Opened::Waiting => false,
                Opened::Failed(error) => !error.passes(),
                Opened::Open => true,
            })
            .await;
        match outcome.as_deref() {
            Ok(Opened::Failed(error)) => Err(error.clone()),
            Ok(_) => Ok(()),
            Err(_) => Err(LogError::Unavailable("the room was closed".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests;
