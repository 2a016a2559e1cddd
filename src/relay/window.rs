//! The newest part of a stream, in memory.
//!
//! Every subscriber reads from here as long as its cursor lies inside; below it, from the log. The
//! window holds all that the stream has between its floor and its head, in stream order:
//!
//! ```text
//!            floor                                  head
//!   stream ────┼──────┬──────┬────────┬──────┬──────┼── (not read yet)
//!              │ e    │ e    │ hole   │ e    │ e    │
//!   number     │ base │ +1   │ +2     │ +3   │ +4   │
//!              └──────┴──────┴────────┴──────┴──────┘
//! ```
//!
//! A hole stands for entries the tail could not read. Where a stream was deleted or lost its end,
//! IDs may start over: such a hole begins a new *lineage*, and IDs are comparable only within one.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cursor::{Cursor, SEEK};
use super::entry::{Entry, EntryId};
use super::format::GapReason;

/// What an item costs beside its fields: the entry, its lists, one encoded frame's own overhead.
const ITEM_OVERHEAD: usize = 256;

/// The first number given out: high, so that older entries put in front can count down from it.
const BASE: u64 = 1 << 40;

/// Bounds of one room's window.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// At most so many entries.
    pub entries: usize,
    /// At most so many bytes, frames included by estimate; the newest entry always stays.
    pub bytes: usize,
}

/// One step of a window.
#[derive(Debug, Clone)]
pub(super) enum Item {
    /// An entry.
    Entry(Arc<Entry>),
    /// Something is missing here.
    Hole(Hole),
    /// An entry was here and has been removed on purpose, so that nobody misses it.
    Removed(EntryId),
}

impl Item {
    /// The entry's ID, removed or not.
    fn entry_id(&self) -> Option<EntryId> {
        match self {
            Item::Entry(entry) => Some(entry.id),
            Item::Removed(id) => Some(*id),
            Item::Hole(_) => None,
        }
    }
}

/// Entries after `after`, up to and with `upto`, can't be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) after: EntryId,
    pub(super) upto: EntryId,
    pub(super) reason: GapReason,
    /// The lineage that begins here, if one does; `upto` is then its origin.
    pub(super) lineage: Option<u32>,
}

/// What the stream has below the floor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Below {
    /// Unknown: ask the log.
    Unread,
    /// Nothing any more, when it was last looked at, for this reason.
    Nothing(GapReason),
}

/// Where a cursor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// Reads on from the item of this number (perhaps the one that comes next).
    At(u64),
    /// Its next entry is below the floor; the log has it, if anybody.
    Behind,
    /// The stream has nothing at the cursor and nothing before the window: a gap up to `upto`.
    Lost { upto: EntryId, reason: GapReason },
}

/// A room's window.
#[derive(Debug)]
pub(super) struct Window {
    items: VecDeque<Item>,
    /// The number of the front item.
    base: u64,
    floor: EntryId,
    below: Below,
    head: EntryId,
    lineage: u32,
    /// The number of the first item that belongs to the lineage (right behind its hole).
    lineage_base: u64,
    /// Whether anything was dropped in front. Nothing older is put back then: numbers of dropped
    /// items are still held by cursors.
    evicted: bool,
    origin: EntryId,
    origin_reason: GapReason,
    /// The highest ID that was read of what is lost.
    lost_upto: EntryId,
    bytes: usize,
}

impl Window {
    /// A window over a stream whose head is `head` and whose newest entries are `newest`, oldest
    /// first. `whole` tells that the stream has no entry before these, and whether any were ever
    /// removed.
    pub(super) fn new(head: EntryId, newest: Vec<Entry>, whole: Option<GapReason>) -> Self {
        let mut window = Window {
            items: VecDeque::new(),
            base: BASE,
            floor: newest
                .first()
                .map_or(head, |oldest| oldest.id.predecessor()),
            below: Below::Unread,
            head,
            lineage: 0,
            lineage_base: BASE,
            evicted: false,
            origin: EntryId::ZERO,
            origin_reason: GapReason::Trimmed,
            lost_upto: EntryId::ZERO,
            bytes: 0,
        };
        for entry in newest {
            window.push_item(Item::Entry(Arc::new(entry)));
        }
        if let Some(reason) = whole {
            window.below = Below::Nothing(reason);
        }
        window
    }

    /// The last ID of the stream that was read.
    pub(super) fn head(&self) -> EntryId {
        self.head
    }

    /// All the stream has after this ID is here.
    pub(super) fn floor(&self) -> EntryId {
        self.floor
    }

    pub(super) fn lineage(&self) -> u32 {
        self.lineage
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Items in it, holes included.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The number of the oldest item.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// The number the next item gets.
    pub(super) fn end(&self) -> u64 {
        self.base + self.items.len() as u64
    }

    pub(super) fn item(&self, seq: u64) -> Option<&Item> {
        let index = seq.checked_sub(self.base)?;
        self.items.get(usize::try_from(index).ok()?)
    }

    /// Whether the current lineage has, or had, an entry with this ID here.
    pub(super) fn knows(&self, id: EntryId) -> bool {
        let before = self.seek(id).checked_sub(1).and_then(|seq| self.item(seq));
        match before {
            Some(Item::Entry(entry)) => entry.id == id,
            Some(Item::Removed(removed)) => *removed == id,
            Some(Item::Hole(_)) | None => false,
        }
    }

    /// Takes an entry out; its number stays given. False if it's not here.
    pub(super) fn remove(&mut self, id: EntryId) -> bool {
        let place = self
            .seek(id)
            .checked_sub(1)
            .and_then(|seq| seq.checked_sub(self.base))
            .and_then(|index| self.items.get_mut(usize::try_from(index).ok()?));
        match place {
            Some(item @ Item::Entry(_)) if item.entry_id() == Some(id) => {
                if let Item::Entry(entry) = std::mem::replace(item, Item::Removed(id)) {
                    self.bytes = self.bytes + ITEM_OVERHEAD - cost(&entry);
                }
                true
            }
            _ => false,
        }
    }

    /// The entry with this ID, if the current lineage has it here.
    pub(super) fn find(&self, id: EntryId) -> Option<&Arc<Entry>> {
        match self.item(self.seek(id).checked_sub(1)?)? {
            Item::Entry(entry) if entry.id == id => Some(entry),
            _ => None,
        }
    }

    /// The first entry of a stream that began anew, or went on anew, under this node's eyes, if
    /// `id` is an ID from before that which the stream does not have: it can only be from what was
    /// lost. With what became of that.
    pub(super) fn unknown_before(&self, id: EntryId) -> Option<(EntryId, GapReason)> {
        let reason = match self.below {
            _ if self.lineage > 0 => self.origin_reason,
            Below::Nothing(reason) if self.floor == EntryId::ZERO => reason,
            _ => return None,
        };
        let first = self.item(self.lineage_base)?.entry_id()?;
        // Right before an entry is where a gap told its client to go on.
        (self.origin < id && id < first.predecessor()).then_some((first, reason))
    }

    /// Where the lineage began, if another one went before it: up to there the stream is the one
    /// that it was. With what became of the rest.
    pub(super) fn origin(&self) -> Option<(EntryId, GapReason)> {
        (self.lineage > 0).then_some((self.origin, self.origin_reason))
    }

    /// Whether the stream, which lost its end, goes on here past an ID that it does not have: the ID
    /// is of the end that it lost.
    pub(super) fn is_lost_end(&self, id: EntryId) -> bool {
        if self.lineage == 0 || id <= self.origin || id <= self.floor || id > self.head {
            return false;
        }
        let seq = self.seek(id);
        let is_known = match self.item(seq - 1) {
            Some(Item::Entry(entry)) => entry.id == id,
            Some(Item::Removed(removed)) => *removed == id,
            // It may be one of those that were not read.
            Some(Item::Hole(hole)) => hole.lineage.is_none() && id <= hole.upto,
            None => false,
        };
        // Right before an entry is where a gap told its client to go on.
        let next = self.item(seq).and_then(Item::entry_id);
        !is_known && next.is_none_or(|next| next.predecessor() != id)
    }

    /// Whether an ID that can't be looked for here, as it's below the window or above it, may be of
    /// the end that the stream lost.
    pub(super) fn may_be_lost_end(&self, id: EntryId) -> bool {
        let is_outside = id < self.floor || id > self.head;
        self.lineage > 0 && is_outside && self.origin < id && id <= self.lost_upto
    }

    /// Entries of the current lineage that are here.
    pub(super) fn lineage_len(&self) -> usize {
        (self.end() - self.lineage_base.max(self.base)) as usize
    }

    /// The ID before the newest `count` entries, if that many lie here without a hole, or if the
    /// stream has no more.
    pub(super) fn before_newest(&self, count: usize) -> Option<EntryId> {
        let first = self.lineage_base.max(self.base);
        let mut seq = self.end();
        let mut found = 0;
        while found < count {
            if seq == first {
                let whole = self.below != Below::Unread || self.floor == EntryId::ZERO;
                return whole.then_some(self.floor);
            }
            match self.item(seq - 1)? {
                Item::Entry(_) => found += 1,
                Item::Removed(_) => {}
                Item::Hole(hole) => return Some(hole.upto),
            }
            seq -= 1;
        }
        match seq
            .checked_sub(1)
            .filter(|seq| *seq >= first)
            .and_then(|seq| self.item(seq))
        {
            Some(Item::Entry(entry)) => Some(entry.id),
            Some(Item::Removed(id)) => Some(*id),
            Some(Item::Hole(hole)) => Some(hole.upto),
            None => Some(self.floor),
        }
    }

    /// The ID right before the first entry after `id`, or the head if there is none yet. `None` if
    /// that entry may be below the window.
    pub(super) fn before_first_after(&self, id: EntryId) -> Option<EntryId> {
        match self.locate(&Cursor::nominal(id, self.lineage)) {
            Spot::At(seq) => Some(match self.item(seq) {
                Some(Item::Entry(entry)) => entry.id.predecessor(),
                Some(Item::Removed(removed)) => removed.predecessor(),
                Some(Item::Hole(_)) => id,
                None => self.head(),
            }),
            Spot::Behind | Spot::Lost { .. } => None,
        }
    }

    /// Where a cursor lies.
    pub(super) fn locate(&self, cursor: &Cursor) -> Spot {
        if cursor.seq != SEEK && cursor.seq >= self.base {
            return Spot::At(cursor.seq);
        }
        if cursor.lineage != self.lineage {
            // Its stream is gone, and so is the hole that said so, or it never was in the window.
            return Spot::Lost {
                upto: self.origin,
                reason: self.origin_reason,
            };
        }
        if cursor.id < self.floor {
            return match self.below {
                Below::Unread => Spot::Behind,
                Below::Nothing(reason) if cursor.exact => Spot::Lost {
                    upto: self.floor,
                    reason,
                },
                Below::Nothing(_) => Spot::At(self.lineage_base.max(self.base)),
            };
        }
        let seq = self.seek(cursor.id);
        match seq.checked_sub(1).and_then(|before| self.item(before)) {
            Some(Item::Hole(hole)) if hole.lineage.is_none() && cursor.id < hole.upto => {
                Spot::At(seq - 1)
            }
            _ => Spot::At(seq),
        }
    }

    /// Whether all that the stream ever had is here, or was told to be lost.
    pub(super) fn has_beginning(&self) -> bool {
        let never_trimmed = Below::Nothing(GapReason::Deleted);
        self.floor == EntryId::ZERO || (self.below == never_trimmed && self.lineage == 0)
    }

    /// Whether a cursor will be told a gap further up.
    pub(super) fn has_hole_after(&self, cursor: &Cursor) -> bool {
        if cursor.lineage != self.lineage {
            return true;
        }
        // Holes of earlier lineages are behind it, whatever their IDs.
        let first = self.lineage_base.max(self.base) - self.base;
        let mut items = self.items.iter().skip(first as usize);
        items.any(|item| matches!(item, Item::Hole(hole) if hole.upto > cursor.id))
    }

    /// The number of the first item after `id` in the current lineage.
    fn seek(&self, id: EntryId) -> u64 {
        let first = self.lineage_base.max(self.base);
        let skipped = (first - self.base) as usize;
        let (mut low, mut high) = (skipped, self.items.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let at_or_before = match &self.items[middle] {
                Item::Entry(entry) => entry.id <= id,
                Item::Removed(removed) => *removed <= id,
                Item::Hole(hole) => hole.after <= id,
            };
            if at_or_before {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.base + low as u64
    }

    /// Adds the stream's next entry. Its ID is above the head.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        debug_assert!(entry.id > self.head, "{} after {}", entry.id, self.head);
        self.head = entry.id;
        self.push_item(Item::Entry(entry));
    }

    /// Tells that the entries from the head to `upto` are lost; the stream goes on after `upto`.
    pub(super) fn hole(&mut self, upto: EntryId, reason: GapReason) {
        let hole = Hole {
            after: self.head,
            upto,
            reason,
            lineage: None,
        };
        self.head = upto;
        self.push_item(Item::Hole(hole));
    }

    /// Tells that the stream is not the one it was: what is new comes after `origin`.
    pub(super) fn rewind(&mut self, origin: EntryId, reason: GapReason) {
        self.lineage += 1;
        self.lost_upto = self.lost_upto.max(self.head);
        let hole = Hole {
            after: self.head,
            upto: origin,
            reason,
            lineage: Some(self.lineage),
        };
        self.push_item(Item::Hole(hole));
        self.lineage_base = self.end();
        self.head = origin;
        self.floor = origin;
        self.origin = origin;
        self.origin_reason = reason;
        self.below = if origin == EntryId::ZERO || reason == GapReason::Deleted {
            Below::Nothing(reason)
        } else {
            Below::Unread
        };
    }

    /// Puts older entries, oldest first, in front. They end at the floor. `whole` as in
    /// [`Window::new`].
    pub(super) fn prepend(&mut self, older: Vec<Entry>, whole: bool) {
        if self.evicted || self.lineage_base > self.base {
            return;
        }
        if let Some(oldest) = older.first() {
            self.floor = oldest.id.predecessor();
        }
        for entry in older.into_iter().rev() {
            self.base -= 1;
            self.lineage_base = self.lineage_base.min(self.base);
            self.bytes += cost(&entry);
            self.items.push_front(Item::Entry(Arc::new(entry)));
        }
        if whole {
            self.below = Below::Nothing(GapReason::Trimmed);
        }
    }

    /// How many older entries there is room for.
    pub(super) fn vacancy(&self, limits: &WindowLimits) -> usize {
        if self.evicted || self.lineage_base > self.base || self.below != Below::Unread {
            return 0;
        }
        let by_count = limits.entries.saturating_sub(self.items.len());
        let room = limits.bytes.saturating_sub(self.bytes);
        let by_bytes = match self.items.len() {
            0 => by_count.min(100),
            len => room / (self.bytes / len).max(1),
        };
        by_count.min(by_bytes)
    }

    /// Drops the oldest items until the limits hold.
    pub(super) fn evict(&mut self, limits: &WindowLimits) {
        while self.items.len() > 1
            && (self.items.len() > limits.entries || self.bytes > limits.bytes)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        let Some(item) = self.items.pop_front() else {
            return;
        };
        let in_lineage = self.base >= self.lineage_base;
        self.base += 1;
        self.evicted = true;
        match item {
            Item::Entry(entry) => {
                self.bytes -= cost(&entry);
                self.raise_floor(entry.id, in_lineage);
            }
            Item::Removed(id) => {
                self.bytes -= ITEM_OVERHEAD;
                self.raise_floor(id, in_lineage);
            }
            Item::Hole(hole) => {
                self.bytes -= ITEM_OVERHEAD;
                if in_lineage {
                    self.floor = hole.upto;
                    self.below = Below::Nothing(hole.reason);
                }
            }
        }
    }

    /// An entry up to here was dropped in front.
    fn raise_floor(&mut self, id: EntryId, in_lineage: bool) {
        if in_lineage {
            self.floor = id;
            self.below = Below::Unread;
        }
    }

    fn push_item(&mut self, item: Item) {
        self.bytes += match &item {
            Item::Entry(entry) => cost(entry),
            Item::Hole(_) | Item::Removed(_) => ITEM_OVERHEAD,
        };
        self.items.push_back(item);
    }
}

/// Fields, and about as much again for a frame.
fn cost(entry: &Entry) -> usize {
    ITEM_OVERHEAD + 2 * entry.size()
}
