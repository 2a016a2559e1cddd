//! Pages of the log, for cursors below the window.

use std::ops::Bound;
use std::sync::Arc;

use super::cursor::Cursor;
use super::entry::{Entry, EntryId, RoomName};
use super::format::GapReason;
use super::log::{Log, LogError, Range, StreamState};

/// Part of a stream below a room's window.
#[derive(Debug)]
pub(super) struct Page {
    /// Entries after the cursor the page was asked for, oldest first.
    pub(super) entries: Vec<Arc<Entry>>,
    /// Entries up to this ID are lost, if the cursor is before it.
    pub(super) lost: Option<(EntryId, GapReason)>,
    /// The stream has nothing more up to this ID.
    pub(super) end: EntryId,
}

/// What reading a page came to.
#[derive(Debug, Clone)]
pub(super) enum PageOutcome {
    /// The page.
    Page(Arc<Page>),
    /// The stream is not what the window takes it for; its tail will find out.
    Rewound,
}

impl PageOutcome {
    /// The same without some of its entries, as if they had never been there.
    pub(super) fn without(self, is_removed: impl Fn(&EntryId) -> bool) -> Self {
        match self {
            PageOutcome::Page(page) if page.entries.iter().any(|entry| is_removed(&entry.id)) => {
                let mut entries = page.entries.clone();
                entries.retain(|entry| !is_removed(&entry.id));
                PageOutcome::Page(Arc::new(Page { entries, ..*page }))
            }
            outcome => outcome,
        }
    }
}

/// Reads up to `limit` entries after `cursor`, no further than `floor`.
pub(super) async fn read(
    log: &dyn Log,
    room: &RoomName,
    cursor: Cursor,
    floor: EntryId,
    limit: usize,
) -> Result<PageOutcome, LogError> {
    let witness = cursor.exact && cursor.id != EntryId::ZERO;
    let range = Range {
        from: if witness {
            Bound::Included(cursor.id)
        } else {
            Bound::Excluded(cursor.id)
        },
        to: Bound::Included(floor),
        limit: limit + usize::from(witness),
        newest_first: false,
    };
    let mut entries = log.range(room, range).await?;
    let is_last = entries.len() < range.limit;
    let is_witnessed = witness && entries.first().is_some_and(|first| first.id == cursor.id);
    let mut lost = None;
    if is_witnessed {
        entries.remove(0);
    } else if cursor.exact {
        // The state is read after the range, so whatever it still has was there before.
        let Some(state) = log.state(room).await? else {
            return Ok(PageOutcome::Rewound);
        };
        if state.last < cursor.id || state.last < floor {
            return Ok(PageOutcome::Rewound);
        }
        if let Some(reason) = lost_since(&state, cursor.id, floor) {
            let upto = entries
                .first()
                .map_or(floor, |first| first.id.predecessor());
            lost = Some((upto, reason));
        }
    }
    let end = match entries.last() {
        Some(last) if !is_last => last.id,
        _ => floor,
    };
    let entries = entries.into_iter().map(Arc::new).collect();
    Ok(PageOutcome::Page(Arc::new(Page { entries, lost, end })))
}

/// What became of entries right after `cursor`, which itself is not in the stream, while it's known
/// that there were some up to `floor`.
pub(super) fn lost_since(
    state: &StreamState,
    cursor: EntryId,
    floor: EntryId,
) -> Option<GapReason> {
    // Right after `id` is still no hole.
    let begins_after = |id| state.first.is_none_or(|first| first.predecessor() > id);
    // Redis before 7.0 does not count what it removed; a cursor at 0-0 has no other witness.
    let was_trimmed = state.added.is_some_and(|added| added > state.len);
    let is_lost = if cursor == EntryId::ZERO {
        was_trimmed || begins_after(floor)
    } else {
        begins_after(cursor)
    };
    is_lost.then_some(if state.added == Some(state.len) {
        GapReason::Deleted
    } else {
        GapReason::Trimmed
    })
}
