//! Entries that a seat gets from the log, because the window does not reach back to its cursor.

use std::sync::Arc;
use std::time::Duration;

use super::Outlet;
use crate::relay::cursor::Cursor;
use crate::relay::page::{Page, PageOutcome};
use crate::relay::room::Room;

/// How long a replay that met a Redis that does not answer waits before it asks again.
const REPLAY_RETRY: Duration = Duration::from_millis(250);

/// Where a seat's next entries come from.
pub(super) enum Replay {
    /// The window.
    Window,
    /// The log; the page is on its way.
    Waiting,
    /// A page of the log.
    Page(Arc<Page>),
}

/// Reads a page for one seat and hands it over.
pub(super) async fn fetch(outlet: Arc<Outlet>, room: Arc<Room>, cursor: Cursor, limit: usize) {
    let replay = match room.page(cursor, limit).await {
        Ok(PageOutcome::Page(page)) if room.lineage() == cursor.lineage => Replay::Page(page),
        // Redis is away, or the stream is no longer what it was: look again a little later.
        Ok(_) | Err(_) => {
            tokio::time::sleep(REPLAY_RETRY).await;
            Replay::Window
        }
    };
    outlet.resume(&room, cursor, replay);
}

impl Outlet {
    /// Takes up a page, or whatever became of it.
    fn resume(self: &Arc<Self>, room: &Arc<Room>, cursor: Cursor, replay: Replay) {
        let mut out = self.out();
        let seat = out
            .seats
            .iter_mut()
            .find(|seat| Arc::ptr_eq(seat.room(), room));
        if let Some(seat) = seat.filter(|seat| seat.cursor == cursor) {
            seat.replay = replay;
            self.carry_on(&mut out);
        }
    }
}
