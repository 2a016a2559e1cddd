//! [`Cursor`]: how far one subscriber has come in one room.

use super::entry::EntryId;

/// The sequence number of a cursor that has to be looked up by its ID.
pub(super) const SEEK: u64 = u64::MAX;

/// How far a subscriber has come: all that a slow, late or live subscriber differs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    /// The last ID it has, or begins after.
    pub(super) id: EntryId,
    /// Which life of the stream that ID belongs to; see [`super::window`].
    pub(super) lineage: u32,
    /// The window's number for the item it reads next, or [`SEEK`].
    pub(super) seq: u64,
    /// Whether the client has all there was up to `id`, so that whatever is missing after it is to
    /// be told. Not so for a cursor made from a time, say, until it has found its place.
    pub(super) exact: bool,
}

impl Cursor {
    /// A cursor that stands on an entry.
    pub(super) fn after(id: EntryId, lineage: u32) -> Self {
        Cursor {
            id,
            lineage,
            seq: SEEK,
            exact: true,
        }
    }

    /// A cursor that stands between entries.
    pub(super) fn nominal(id: EntryId, lineage: u32) -> Self {
        Cursor {
            exact: false,
            ..Cursor::after(id, lineage)
        }
    }
}
