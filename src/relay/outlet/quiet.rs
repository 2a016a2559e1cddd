//! [`Quiet`]: a connection's own publishes that it does not want back.
//!
//! They belong to the connection and not to its seat in the room: a publish can be stored while the
//! join of its room is still under way, and its entry is then among the first that the seat gets.

use std::sync::Arc;

use super::Outlet;
use crate::relay::entry::{EntryId, RoomName};

/// What a connection does not want back, by room. Nearly always nothing.
#[derive(Default)]
pub(super) struct Quiet(Vec<InRoom>);

/// The same of one room.
struct InRoom {
    room: RoomName,
    /// So many publishes are on their way. Their IDs are not known yet, so the room waits.
    pending: usize,
    /// Whether the connection joins the room, and has no seat in it yet.
    is_joining: bool,
    /// To be passed over.
    entries: Vec<EntryId>,
}

impl InRoom {
    fn is_needed(&self) -> bool {
        self.pending > 0 || self.is_joining || !self.entries.is_empty()
    }
}

impl Quiet {
    fn find(&mut self, room: &RoomName) -> Option<&mut InRoom> {
        self.0.iter_mut().find(|quiet| quiet.room == *room)
    }

    fn change(&mut self, room: &RoomName, change: impl FnOnce(&mut InRoom)) {
        match self.find(room) {
            Some(quiet) => change(quiet),
            None => {
                let mut quiet = InRoom {
                    room: room.clone(),
                    pending: 0,
                    is_joining: false,
                    entries: Vec::new(),
                };
                change(&mut quiet);
                // Each join comes by here; there is seldom a second room.
                self.0.reserve_exact(1);
                self.0.push(quiet);
            }
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        self.0.retain(InRoom::is_needed);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// Whether a room has to wait until it's known which of its entries are to be passed over.
    pub(super) fn waits(&mut self, room: &RoomName) -> bool {
        self.find(room).is_some_and(|quiet| quiet.pending > 0)
    }

    /// The entries of a room to be passed over, if there are any.
    pub(super) fn entries(&mut self, room: &RoomName) -> Option<&[EntryId]> {
        let quiet = self.find(room).map(|quiet| &quiet.entries[..]);
        quiet.filter(|entries| !entries.is_empty())
    }

    /// The room's seat has come to this ID: what is not above it never comes.
    pub(super) fn passed(&mut self, room: &RoomName, upto: EntryId) {
        if let Some(quiet) = self.find(room) {
            quiet.entries.retain(|entry| *entry > upto);
            self.tidy();
        }
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The connection begins to join a room.
    pub(super) fn joining(&mut self, room: &RoomName) {
        self.change(room, |quiet| quiet.is_joining = true);
    }

    /// The join has come to a seat, which begins after this ID.
    pub(super) fn seated(&mut self, room: &RoomName, after: EntryId) {
        if let Some(quiet) = self.find(room) {
            quiet.is_joining = false;
        }
        self.passed(room, after);
    }

    /// The connection has left the room, or has given up joining it. Publishes are under way all
    /// the same, and count if it comes back.
    pub(super) fn left(&mut self, room: &RoomName) {
        if let Some(quiet) = self.find(room) {
            (quiet.is_joining, quiet.entries) = (false, Vec::new());
            self.tidy();
        }
    }
}

impl Outlet {
    /// The connection begins to join a room: its publishes that are stored from now on count for
    /// the seat it will have.
    pub(in crate::relay) fn begin_join(&self, room: &RoomName) {
        let mut out = self.out();
        if out.closing.is_none() {
            out.quiet.joining(room);
        }
    }

    /// A publish begins whose entry is not to come back here. What its room has waits until
    /// [`Outlet::unhush`].
    pub(in crate::relay) fn hush(&self, room: &RoomName) {
        let mut out = self.out();
        if out.closing.is_none() {
            out.quiet.change(room, |quiet| quiet.pending += 1);
        }
    }

    /// That publish has ended, with this entry, if it's stored.
    pub(in crate::relay) fn unhush(self: &Arc<Self>, room: &RoomName, entry: Option<EntryId>) {
        let mut out = self.out();
        let cursor = out.seat_in(room).map(|seat| seat.cursor.id);
        let Some(quiet) = out.quiet.find(room) else {
            return;
        };
        quiet.pending = quiet.pending.saturating_sub(1);
        let is_to_come = |entry: &EntryId| match cursor {
            // A rewound stream's entries may be passed already.
            Some(cursor) => *entry > cursor,
            None => quiet.is_joining,
        };
        let entry = entry.filter(is_to_come);
        quiet.entries.extend(entry);
        out.quiet.tidy();
        self.carry_on(&mut out);
    }
}
