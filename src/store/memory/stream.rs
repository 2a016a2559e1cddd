//! One stream as Redis keeps it: entries in ID order, the last ID ever given, a count of all that
//! were added. Pure data; the time is passed in.

use std::collections::VecDeque;
use std::ops::Bound;

use crate::relay::entry::{Entry, EntryId, Fields};
use crate::relay::log::{LogError, Range, StreamState};

/// A stream's entries and what it remembers of those that are gone.
#[derive(Default)]
pub(super) struct Stream {
    entries: VecDeque<(EntryId, Fields)>,
    last: EntryId,
    added: u64,
    /// Unix milliseconds; the stream is gone from then on.
    pub(super) expires: Option<u64>,
}

impl Stream {
    /// The ID that `XADD *` would give now: the clock's, or right after the last one if the clock
    /// stands still or went back.
    pub(super) fn next_id(&self, now: u64) -> Result<EntryId, LogError> {
        if now > self.last.ms {
            return Ok(EntryId::new(now, 0));
        }
        let EntryId { ms, seq } = self.last;
        match seq.checked_add(1) {
            Some(seq) => Ok(EntryId::new(ms, seq)),
            None => ms
                .checked_add(1)
                .map(|ms| EntryId::new(ms, 0))
                .ok_or_else(|| {
                    LogError::Other(
                    "ERR The stream has exhausted the last possible ID, unable to add more items"
                        .into(),
                )
                }),
        }
    }

    /// Adds an entry under an ID past the last one.
    pub(super) fn add(&mut self, id: EntryId, fields: Fields) -> Result<(), LogError> {
        let refused = if id == EntryId::ZERO {
            "ERR The ID specified in XADD must be greater than 0-0"
        } else if id <= self.last {
            "ERR The ID specified in XADD is equal or smaller than the target stream top item"
        } else {
            self.entries.push_back((id, fields));
            self.last = id;
            self.added += 1;
            return Ok(());
        };
        Err(LogError::Other(refused.into()))
    }

    /// Drops the oldest entries until at most `keep` are left.
    pub(super) fn trim(&mut self, keep: usize) {
        let excess = self.entries.len().saturating_sub(keep);
        self.entries.drain(..excess);
    }

    /// Drops entries with IDs below `least`.
    pub(super) fn trim_below(&mut self, least: EntryId) {
        let excess = self.position(least);
        self.entries.drain(..excess);
    }

    /// Removes one entry; false if it is not there.
    pub(super) fn remove(&mut self, id: EntryId) -> bool {
        match self.entries.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.entries.remove(at).is_some(),
            Err(_) => false,
        }
    }

    /// Forgets what came after `to`, which becomes the last ID.
    pub(super) fn rewind(&mut self, to: EntryId) {
        let kept = self.entries.partition_point(|(id, _)| *id <= to);
        self.added -= (self.entries.len() - kept) as u64;
        self.entries.truncate(kept);
        self.last = to;
    }

    /// Whether nobody wrote to it for too long.
    pub(super) fn expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// What XINFO STREAM says.
    pub(super) fn state(&self) -> StreamState {
        StreamState {
            first: self.entries.front().map(|(id, _)| *id),
            last: self.last,
            len: self.entries.len() as u64,
            added: Some(self.added),
        }
    }

    /// Whether anything follows `after`.
    pub(super) fn has_after(&self, after: EntryId) -> bool {
        self.entries.back().is_some_and(|(id, _)| *id > after)
    }

    /// The newest so many entries, oldest first.
    pub(super) fn newest(&self, count: usize) -> Vec<Entry> {
        let skipped = self.entries.len().saturating_sub(count);
        self.entries.range(skipped..).map(entry).collect()
    }

    /// Part of the stream, in the order asked for.
    pub(super) fn range(&self, range: Range) -> Vec<Entry> {
        let start = match range.from {
            Bound::Unbounded => 0,
            Bound::Included(id) => self.position(id),
            Bound::Excluded(id) => self.entries.partition_point(|(other, _)| *other <= id),
        };
        let end = match range.to {
            Bound::Unbounded => self.entries.len(),
            Bound::Included(id) => self.entries.partition_point(|(other, _)| *other <= id),
            Bound::Excluded(id) => self.position(id),
        };
        if start >= end {
            return Vec::new();
        }
        let part = self.entries.range(start..end);
        if range.newest_first {
            part.rev().take(range.limit).map(entry).collect()
        } else {
            part.take(range.limit).map(entry).collect()
        }
    }

    /// Where the first entry at or past `id` is.
    fn position(&self, id: EntryId) -> usize {
        self.entries.partition_point(|(other, _)| *other < id)
    }
}

fn entry((id, fields): &(EntryId, Fields)) -> Entry {
    Entry::new(*id, fields.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(stream: &mut Stream, now: u64) -> EntryId {
        let id = stream.next_id(now).unwrap();
        stream.add(id, Box::default()).unwrap();
        id
    }

    #[test]
    fn ids_never_go_back() {
        let mut stream = Stream::default();
        let mut check = |now, ms, seq| assert_eq!(add(&mut stream, now), EntryId::new(ms, seq));
        check(0, 0, 1);
        check(5, 5, 0);
        check(5, 5, 1);
        check(3, 5, 2);
        check(6, 6, 0);
        let mut stream = Stream::default();
        stream
            .add(EntryId::new(7, u64::MAX), Box::default())
            .unwrap();
        assert_eq!(add(&mut stream, 1), EntryId::new(8, 0));
        stream.add(EntryId::MAX, Box::default()).unwrap();
        assert!(stream.next_id(9).is_err());
    }

    #[test]
    fn explicit_ids_only_rise() {
        let mut stream = Stream::default();
        assert!(stream.add(EntryId::ZERO, Box::default()).is_err());
        stream.add(EntryId::new(5, 5), Box::default()).unwrap();
        assert!(stream.add(EntryId::new(5, 5), Box::default()).is_err());
        assert!(stream.add(EntryId::new(5, 4), Box::default()).is_err());
    }

    #[test]
    fn the_last_id_outlives_its_entry() {
        let mut stream = Stream::default();
        for now in 1..=5 {
            add(&mut stream, now);
        }
        assert!(stream.remove(EntryId::new(5, 0)));
        assert!(!stream.remove(EntryId::new(5, 0)));
        stream.trim(1);
        let want = StreamState {
            first: Some(EntryId::new(4, 0)),
            last: EntryId::new(5, 0),
            len: 1,
            added: Some(5),
        };
        assert_eq!(stream.state(), want);
        stream.trim_below(EntryId::new(9, 0));
        assert_eq!(
            (stream.state().first, stream.state().last),
            (None, want.last)
        );
    }

    #[test]
    fn a_rewind_loses_the_end() {
        let mut stream = Stream::default();
        for now in 1..=5 {
            add(&mut stream, now);
        }
        stream.rewind(EntryId::new(3, 0));
        let state = stream.state();
        assert_eq!(
            (state.last, state.len, state.added),
            (EntryId::new(3, 0), 3, Some(3))
        );
        assert!(!stream.has_after(EntryId::new(3, 0)));
        assert_eq!(add(&mut stream, 2), EntryId::new(3, 1));
    }
}
