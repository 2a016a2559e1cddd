//! What goes out beside the streams: asides.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Outlet, Watch};
use crate::relay::aside::{Aside, Audience};
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
}
