//! [`Batch`]: what one write takes to a socket. Built once, written to every socket whose cursor
//! stands at its start.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::cursor::{Cursor, SEEK};
use super::entry::{Entry, EntryId, RoomName};
use super::format::{Format, Gap, GapFrame, GapReason};
use super::page::Page;
use super::stats::Tally;
use super::window::{Item, Spot, Window};

/// A batch grows no more once it has so many bytes. Enough that a write's own cost is a few
/// percent of its copying; little enough that a socket that is given less at a time loses little.
const BATCH_BYTES: usize = 64 * 1024;

/// Batches that a [`Memo`] keeps.
const MEMO: usize = 4;

/// Frames for one socket, to be written in one piece.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) bytes: Bytes,
    /// One mark per frame.
    marks: Vec<Mark>,
    /// Which of the frames tell of gaps; seldom any.
    gaps: Vec<(usize, GapReason)>,
    /// Where the socket stands once all is written.
    pub(super) end: Cursor,
    /// The socket can't be told of this gap but by closing it, after the bytes.
    pub(super) close: Option<Gap>,
}

#[derive(Debug)]
struct Mark {
    /// Where in the bytes the frame ends.
    end: usize,
    frame: Bytes,
    /// Where the socket stands once the frame is written.
    cursor: Cursor,
    /// The entry that the frame is of, if it's not a gap's.
    entry: Option<EntryId>,
}

/// The part of a batch in front of an entry that a socket is not to get.
#[derive(Debug, PartialEq)]
pub(super) struct Front {
    /// Bytes in front of the entry's frame.
    pub(super) bytes: usize,
    /// Frames in front.
    pub(super) frames: usize,
    /// Where the socket stands behind the entry.
    pub(super) behind: Cursor,
    /// The entry.
    pub(super) entry: EntryId,
}

/// Batches lately built, for sockets that stand where another just stood: a few formats, a few
/// cursors.
#[derive(Default)]
pub(super) struct Memo(SmallVec<[(u8, Cursor, Arc<Batch>); MEMO]>);

impl Memo {
    /// What there is for a cursor, built by `build` unless it's known.
    pub(super) fn pending(
        &mut self,
        format: &Format,
        cursor: &Cursor,
        build: impl FnOnce() -> Pending,
    ) -> Pending {
        let mut kept = self.0.iter();
        let known = kept.find(|(slot, start, _)| *slot == format.slot && start == cursor);
        if let Some((_, _, batch)) = known {
            return Pending::Batch(batch.clone());
        }
        let pending = build();
        if let Pending::Batch(batch) = &pending {
            if self.0.len() == MEMO {
                self.0.remove(0);
            }
            self.0.push((format.slot, *cursor, batch.clone()));
        }
        pending
    }
}

/// What there is for a cursor.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    /// Nothing new.
    CaughtUp,
    /// Only the log has what comes next.
    Behind,
    /// This comes next.
    Batch(Arc<Batch>),
}

impl Batch {
    /// Frames in it.
    pub(super) fn frames(&self) -> usize {
        self.marks.len()
    }

    /// Counts the first of its frames as written.
    pub(super) fn count(&self, frames: usize, tally: &mut Tally) {
        tally.frames += frames as u64;
        for (frame, reason) in &self.gaps {
            tally.gaps[*reason as usize] += u64::from(*frame < frames);
        }
    }

    /// What is in front of the first of these entries, if one of them is here.
    pub(super) fn front(&self, entries: &[EntryId]) -> Option<Front> {
        let is_one = |mark: &Mark| mark.entry.is_some_and(|id| entries.contains(&id));
        let frames = self.marks.iter().position(is_one)?;
        let mark = self.marks.get(frames)?;
        Some(Front {
            bytes: mark.end - mark.frame.len(),
            frames,
            behind: mark.cursor,
            entry: mark.entry?,
        })
    }

    /// After `written` bytes went out, fewer than there are: the rest of the frame that was cut, and
    /// where the socket stands once that rest is written. It keeps no more alive than that frame.
    pub(super) fn cut(&self, written: usize) -> (Bytes, Cursor, usize) {
        let index = self.marks.partition_point(|mark| mark.end <= written);
        let Some(mark) = self.marks.get(index) else {
            return (Bytes::new(), self.end, self.marks.len());
        };
        let start = mark.end - mark.frame.len();
        if start == written {
            // Nothing of this frame went out: stand before it.
            let cursor = index.checked_sub(1).map(|before| self.marks[before].cursor);
            if let Some(cursor) = cursor {
                return (Bytes::new(), cursor, index);
            }
        }
        (mark.frame.slice(written - start..), mark.cursor, index + 1)
    }
}

/// Collects frames behind a cursor.
struct Builder<'a> {
    room: &'a RoomName,
    format: &'a Format,
    marks: Vec<Mark>,
    gaps: Vec<(usize, GapReason)>,
    size: usize,
    cursor: Cursor,
    close: Option<Gap>,
}

impl<'a> Builder<'a> {
    fn new(room: &'a RoomName, format: &'a Format, cursor: Cursor) -> Self {
        Builder {
            room,
            format,
            marks: Vec::new(),
            gaps: Vec::new(),
            size: 0,
            cursor,
            close: None,
        }
    }

    fn is_full(&self) -> bool {
        self.size >= BATCH_BYTES || self.close.is_some()
    }

    fn frame(&mut self, frame: Bytes, entry: Option<EntryId>) {
        self.size += frame.len();
        self.marks.push(Mark {
            end: self.size,
            frame,
            cursor: self.cursor,
            entry,
        });
    }

    fn entry(&mut self, entry: &Entry) {
        self.cursor.id = entry.id;
        self.cursor.exact = true;
        self.frame(entry.frame(self.room, self.format), Some(entry.id));
    }

    /// Moves the cursor over what is lost, and tells so.
    fn gap(&mut self, gap: Gap, to: Cursor) {
        self.cursor = to;
        match (self.format.gap)(self.room, &gap) {
            GapFrame::Frame(frame) => {
                self.gaps.push((self.marks.len(), gap.reason));
                self.frame(frame, None);
            }
            GapFrame::Close => self.close = Some(gap),
        }
    }

    fn finish(self, start: &Cursor) -> Pending {
        if self.marks.is_empty() && self.close.is_none() && self.cursor == *start {
            return Pending::CaughtUp;
        }
        let bytes = match self.marks.as_slice() {
            [] => Bytes::new(),
            [only] => only.frame.clone(),
            many => {
                let mut bytes = BytesMut::with_capacity(self.size);
                for mark in many {
                    bytes.extend_from_slice(&mark.frame);
                }
                bytes.freeze()
            }
        };
        Pending::Batch(Arc::new(Batch {
            bytes,
            marks: self.marks,
            gaps: self.gaps,
            end: self.cursor,
            close: self.close,
        }))
    }
}

/// The ID right after this one.
pub(super) fn successor(id: EntryId) -> EntryId {
    match id.seq.checked_add(1) {
        Some(seq) => EntryId::new(id.ms, seq),
        None => EntryId::new(id.ms.saturating_add(1), 0),
    }
}

/// What the window has for a cursor.
pub(super) fn from_window(
    window: &Window,
    room: &RoomName,
    format: &Format,
    start: &Cursor,
) -> Pending {
    let mut builder = Builder::new(room, format, *start);
    let mut seq = match window.locate(start) {
        Spot::Behind => return Pending::Behind,
        Spot::At(seq) => seq,
        Spot::Lost { upto, reason } => {
            let gap = Gap {
                after: start.id,
                before: successor(upto),
                reason,
            };
            builder.gap(gap, Cursor::after(upto, window.lineage()));
            if builder.is_full() {
                return builder.finish(start);
            }
            match window.locate(&builder.cursor) {
                Spot::At(seq) => seq,
                Spot::Behind | Spot::Lost { .. } => return builder.finish(start),
            }
        }
    };
    if builder.cursor.lineage != window.lineage() || builder.cursor.id <= window.head() {
        // It has its place now, and whatever is lost from here on is to be told. A client that
        // has read further on another node has no place yet.
        builder.cursor.seq = seq;
        builder.cursor.exact = true;
    }
    while let Some(item) = window.item(seq).filter(|_| !builder.is_full()) {
        seq += 1;
        builder.cursor.seq = seq;
        match item {
            Item::Entry(entry) => builder.entry(entry),
            Item::Removed(id) => builder.cursor.id = *id,
            Item::Hole(hole) => {
                let gap = Gap {
                    after: builder.cursor.id,
                    before: successor(hole.upto),
                    reason: hole.reason,
                };
                let to = Cursor {
                    id: hole.upto,
                    lineage: hole.lineage.unwrap_or(builder.cursor.lineage),
                    seq,
                    exact: true,
                };
                builder.gap(gap, to);
            }
        }
    }
    builder.finish(start)
}

/// What a page of the log has for a cursor that stands at its start or inside it.
pub(super) fn from_page(page: &Page, room: &RoomName, format: &Format, start: &Cursor) -> Pending {
    let mut builder = Builder::new(room, format, *start);
    builder.cursor.seq = SEEK;
    if let Some((upto, reason)) = page.lost.filter(|(upto, _)| start.id < *upto) {
        let gap = Gap {
            after: start.id,
            before: successor(upto),
            reason,
        };
        builder.gap(gap, Cursor::after(upto, start.lineage));
    }
    let first = page.entries.partition_point(|entry| entry.id <= start.id);
    for entry in &page.entries[first..] {
        if builder.is_full() {
            return builder.finish(start);
        }
        builder.entry(entry);
    }
    if builder.cursor.id < page.end && !builder.is_full() {
        builder.cursor = Cursor::after(page.end, builder.cursor.lineage);
        // Nothing is written for this step, so the last frame's mark has to carry it.
        if let Some(mark) = builder.marks.last_mut() {
            mark.cursor = builder.cursor;
        }
    }
    builder.finish(start)
}

#[cfg(test)]
mod tests;
