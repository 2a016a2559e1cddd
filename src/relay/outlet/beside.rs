//! What goes out beside the streams, and what of a stream does not: asides, and a connection's own
//! publishes that it doesn't want back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Outlet, Watch};
use crate::relay::aside::{Aside, Audience};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::room::Room;

impl Outlet {
    /// An aside as this connection would get it.
    pub fn encode(&self, aside: &Aside) -> Option<Bytes> {
        aside.frame(self.format)
    }

    /// Tells this connection alone something beside any stream.
    pub fn tell(self: &Arc<Self>, aside: &Aside) {
        if let Some(frame) = aside.frame(self.format) {
            self.send(frame);
        }
    }

    /// A room is told something beside its stream.
    pub(in crate::relay) fn tell_in(self: &Arc<Self>, room: &Arc<Room>, aside: &Aside) {
        if aside.except == Some(self.number) {
            return;
        }
        let mut out = self.out();
        if out.closing.is_some() {
            return;
        }
        let goes_without = aside.sheds && out.draining;
        let mut seats = out.seats.iter_mut();
        let Some(seat) = seats.find(|seat| Arc::ptr_eq(seat.room(), room)) else {
            return;
        };
        match aside.audience {
            Audience::All => {}
            Audience::Watchers if seat.watch != Watch::Aware => return,
            Audience::Newcomers if seat.watch != Watch::Unaware => return,
            Audience::Watchers if goes_without => {
                seat.watch = Watch::Unaware;
                room.missed.store(true, Ordering::Release);
            }
            Audience::Newcomers if goes_without => room.missed.store(true, Ordering::Release),
            Audience::Newcomers => seat.watch = Watch::Aware,
            Audience::Watchers => {}
        }
        if goes_without {
            self.stats.shed.add(1);
            return;
        }
        let Some(frame) = aside.frame(self.format) else {
            return;
        };
        out.push_own(frame);
        self.carry_on(&mut out);
    }

    /// A publish begins whose entry is not to come back here. What its room has waits until
    /// [`Outlet::unhush`].
    pub(in crate::relay) fn hush(&self, room: &RoomName) {
        if let Some(seat) = self.out().seat_in(room) {
            seat.quiet.get_or_insert_default().pending += 1;
        }
    }

    /// That publish has ended, with this entry, if it's stored.
    pub(in crate::relay) fn unhush(self: &Arc<Self>, room: &RoomName, entry: Option<EntryId>) {
        let mut out = self.out();
        let Some(seat) = out.seat_in(room) else {
            return;
        };
        let id = seat.cursor.id;
        if let Some(quiet) = &mut seat.quiet {
            quiet.pending = quiet.pending.saturating_sub(1);
            // A rewound stream's entries may be passed already.
            quiet.entries.extend(entry.filter(|entry| *entry > id));
            if quiet.pending == 0 && quiet.entries.is_empty() {
                seat.quiet = None;
            }
        }
        self.carry_on(&mut out);
    }
}
