//! Follows one stream: what to read next, and what an answer means.
//!
//! Reading after a cursor says nothing of what was removed in between, and a stream that was
//! deleted or lost its end answers like one where nothing happens. So every read comes with a
//! witness: was the cursor's own entry still there, at the time of the read or later? If it was,
//! nothing between it and the answer can have been trimmed (trimming removes the oldest first),
//! and the stream is the one it was. If it was not, a survey decides what happened:
//!
//! | the stream now | what it means |
//! |---|---|
//! | is missing | deleted |
//! | ends before the cursor | rewound: a failover, a restart, or deleted and begun with lower IDs |
//! | ends at the cursor | everything was trimmed away, after it was read: nothing lost |
//! | begins at or before the cursor | only the cursor's entry was removed: nothing lost |
//! | begins after the cursor | counted: as many removed as were read, nothing lost; more, trimmed; fewer, begun anew |

use std::sync::Arc;

use super::entry::{Entry, EntryId};
use super::format::GapReason;
use super::log::{Next, Read, StreamState, Survey};
use super::window::Window;

/// How many of the newest entries a survey brings: enough to find where a stream that lost its end
/// parted from what was read, in one read of about 35 µs of Redis time.
const SURVEY_NEWEST: usize = 100;

/// A survey that does not reach back to what is known is made ten times as deep, up to this: what a
/// stream holds by default.
const SURVEY_DEEPEST: usize = 10_000;

/// The tail's side of a room; its cursor is the window's head.
#[derive(Debug, Default)]
pub(super) struct Follower {
    opened: bool,
    survey: bool,
    /// How many times deeper than usual the survey is to be, as a power of ten.
    depth: u32,
    /// A survey just found nothing amiss though the cursor's entry is gone. One read that finds it
    /// gone again, and nothing new, is let pass: without this, read and survey would chase each
    /// other; with more, a stream that is replaced now would be noticed late.
    excused: bool,
    /// The witness was another entry under the cursor's ID.
    another: bool,
    /// Entries that came without a witness, until the survey.
    pending: Vec<Entry>,
    /// How many entries the stream had ever had when its end was the cursor, where that's known.
    added: Option<u64>,
    /// The oldest entry when it was last looked at.
    first: Option<EntryId>,
}

impl Follower {
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    pub(super) fn next(&self, window: &Window) -> Next {
        if self.survey || !self.opened {
            Next::Survey {
                newest: SURVEY_NEWEST * 10_usize.pow(self.depth),
            }
        } else {
            Next::Read {
                after: window.head(),
            }
        }
    }

    pub(super) fn on_read(&mut self, window: &mut Window, read: Read) {
        if !self.opened || read.after != window.head() {
            return;
        }
        let is_another = |found: &Entry| {
            let known = window.find(found.id);
            known.is_some_and(|known| known.fields != found.fields)
        };
        let is_another = read.cursor_entry.as_ref().is_some_and(is_another);
        self.another = is_another;
        match read.cursor_present() {
            Some(true) if !is_another => self.deliver(window, read.entries),
            None if read.entries.is_empty() => {}
            Some(false) if read.entries.is_empty() && self.excused => self.excused = false,
            Some(_) | None => {
                self.pending = read.entries;
                self.survey = true;
            }
        }
    }

    pub(super) fn on_survey(&mut self, window: &mut Window, survey: Survey) {
        self.survey = false;
        let pending = std::mem::take(&mut self.pending);
        let another = std::mem::take(&mut self.another);
        let Survey { state, newest } = survey;
        if !self.opened {
            self.opened = true;
            *window = self.open(state, newest);
            return;
        }
        let head = window.head();
        let Some(state) = state else {
            if head != EntryId::ZERO {
                self.rewind(window, EntryId::ZERO, GapReason::Deleted, Some(0));
            }
            return;
        };
        let asked = SURVEY_NEWEST * 10_usize.pow(self.depth);
        if asked < SURVEY_DEEPEST && falls_short(window, &state, &newest, asked) {
            // Many entries came since. Decided on these alone, what is known would seem new.
            (self.depth, self.survey) = (self.depth + 1, true);
            (self.pending, self.another) = (pending, another);
            return;
        }
        self.depth = 0;
        // An ID that's given out again: begun anew, perhaps in the same millisecond.
        if state.last < head || another {
            self.on_rewound(window, &state, &newest);
        } else if state.last == head {
            self.added = state.added;
            self.excused = true;
        } else {
            self.on_unwitnessed(window, &state, &newest, pending);
        }
        self.first = state.first.or(self.first);
    }

    /// The key holds something that is no stream.
    pub(super) fn on_gone(&mut self, window: &mut Window) {
        if self.opened && window.head() != EntryId::ZERO {
            self.rewind(window, EntryId::ZERO, GapReason::Deleted, Some(0));
        }
    }

    fn open(&mut self, state: Option<StreamState>, newest: Vec<Entry>) -> Window {
        let Some(state) = state else {
            self.added = Some(0);
            return Window::new(EntryId::ZERO, Vec::new(), Some(GapReason::Deleted));
        };
        let head = match (newest.last(), state.first) {
            (Some(last), _) => last.id,
            (None, Some(first)) => first.predecessor(),
            (None, None) => state.last,
        };
        let is_whole = newest.len() < SURVEY_NEWEST
            && (newest.is_empty() || newest.first().map(|oldest| oldest.id) == state.first);
        let whole = is_whole.then_some(if state.added == Some(state.len) {
            GapReason::Deleted
        } else {
            GapReason::Trimmed
        });
        self.first = state.first;
        self.added = match newest.last() {
            _ if state.last == head => state.added,
            // The first entries came between the survey's two looks; none of them is read.
            None => state.added.map(|added| added.saturating_sub(state.len)),
            Some(_) => None,
        };
        Window::new(head, newest, whole)
    }

    /// The stream goes on after the cursor, but the cursor's entry is gone, or never was.
    fn on_unwitnessed(
        &mut self,
        window: &mut Window,
        state: &StreamState,
        newest: &[Entry],
        pending: Vec<Entry>,
    ) {
        let head = window.head();
        let is_strange = |entry: &Entry| {
            entry.id > window.floor() && entry.id < head && !is_known(window, entry)
        };
        if newest.iter().any(is_strange) {
            // It lost its end, and has grown past the cursor since.
            return self.on_rewound(window, state, newest);
        }
        let then = self.added;
        let above = newest.iter().filter(|entry| entry.id > head).count();
        let removed = state.added.map(|added| added.saturating_sub(state.len));
        let begins_before = head != EntryId::ZERO && state.first.is_some_and(|first| first <= head);
        // A stream's beginning only ever moves up, and its counts too.
        let begins_lower =
            matches!((state.first, self.first), (Some(now), Some(then)) if now < then);
        let counts_lower =
            matches!((state.added, then), (Some(now), Some(then)) if now < then + above as u64);
        let removed_lower = !begins_before
            && matches!((removed, then), (Some(removed), Some(then)) if removed < then);
        let reason = if begins_lower || counts_lower || removed_lower {
            if begins_before {
                return self.on_rewound(window, state, newest);
            }
            GapReason::Deleted
        } else if pending.iter().any(|entry| is_gone(entry, state, newest)) {
            // What was read is no longer there: read again.
            return;
        } else {
            let is_next = pending.first().map(|next| next.id) == state.first;
            // Redis before 7.0 does not count. A stream that was missing until now is taken as
            // whole, or each new room would begin with a gap.
            let is_new = removed.is_none() && head == EntryId::ZERO;
            if begins_before || is_new || (is_next && removed.is_some() && removed == then) {
                return self.deliver(window, pending);
            }
            GapReason::Trimmed
        };
        // Go on where the stream begins now. The next read brings what's there, and the count
        // below lets the survey after it find nothing amiss.
        let (upto, passed) = match state.first {
            Some(first) if first > head => (first.predecessor(), removed),
            _ => (state.last, state.added),
        };
        match reason {
            // The cursors of the old stream must not be taken for positions in the new one.
            GapReason::Deleted => window.rewind(upto, reason),
            GapReason::Trimmed | GapReason::Rewound => window.hole(upto, reason),
        }
        self.added = passed;
    }

    /// The stream ends before the cursor.
    fn on_rewound(&mut self, window: &mut Window, state: &StreamState, newest: &[Entry]) {
        let floor = window.floor();
        let common = newest
            .iter()
            .rposition(|entry| entry.id == floor || is_known(window, entry));
        if let Some(index) = common {
            let lost = (newest.len() - 1 - index) as u64;
            let added = state.added.map(|added| added.saturating_sub(lost));
            self.rewind(window, newest[index].id, GapReason::Rewound, added);
        } else if self.begun_anew(window, state, newest) {
            self.rewind(window, EntryId::ZERO, GapReason::Rewound, Some(0));
        } else {
            // It ends below the window, so what it has was read before. Where that's wrong, the
            // gap covers it.
            let origin = floor.min(state.last);
            let added = state.added.filter(|_| origin == state.last);
            self.rewind(window, origin, GapReason::Rewound, added);
        }
    }

    /// Whether a stream that shares nothing with the window is a new one rather than a shorter one.
    fn begun_anew(&self, window: &Window, state: &StreamState, newest: &[Entry]) -> bool {
        let (Some(now), Some(then)) = (state.first, self.first) else {
            // Empty before or now: nothing of it can have been read in this life.
            return state.first.is_some();
        };
        if now < then {
            return true;
        }
        let never_trimmed = state.added == Some(state.len);
        if never_trimmed && now != then {
            return true;
        }
        match (state.added, self.added) {
            (Some(added), Some(read)) => {
                let above = newest
                    .iter()
                    .filter(|entry| entry.id > window.floor())
                    .count();
                added > (read + above as u64).saturating_sub(window.lineage_len() as u64)
            }
            _ => false,
        }
    }

    fn rewind(
        &mut self,
        window: &mut Window,
        origin: EntryId,
        reason: GapReason,
        added: Option<u64>,
    ) {
        window.rewind(origin, reason);
        self.added = added;
        self.first = None;
    }

    fn deliver(&mut self, window: &mut Window, entries: Vec<Entry>) {
        for entry in entries {
            if entry.id > window.head() {
                window.push(Arc::new(entry));
                self.added = self.added.map(|added| added + 1);
            }
        }
    }
}

/// Whether a survey brought only part of the stream, and none of what the window knows, though the
/// stream begins before the window's end.
fn falls_short(window: &Window, state: &StreamState, newest: &[Entry], asked: usize) -> bool {
    let begins_before = state.first.is_some_and(|first| first <= window.head());
    let is_known = |entry: &Entry| entry.id <= window.floor() || is_known(window, entry);
    newest.len() >= asked && begins_before && !newest.iter().any(is_known)
}

/// Whether this very entry was read before.
fn is_known(window: &Window, entry: &Entry) -> bool {
    window
        .find(entry.id)
        .is_some_and(|known| known.fields == entry.fields)
}

/// Whether an entry that was read is missing from a later survey that should have it.
fn is_gone(entry: &Entry, state: &StreamState, newest: &[Entry]) -> bool {
    let oldest = newest.first().map_or(state.last, |oldest| oldest.id);
    let is_held = newest
        .binary_search_by_key(&entry.id, |held| held.id)
        .is_ok();
    entry.id >= oldest && !is_held
}

#[cfg(test)]
mod tests;
