//! A wire format, as far as the relay needs to know it: functions that turn an entry into bytes.

use bytes::Bytes;

use super::aside::Aside;
use super::close::CloseReason;
use super::entry::{Entry, EntryId, RoomName};

/// Why entries between two IDs can't be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Retention, or an XTRIM, removed them.
    Trimmed,
    /// The stream was deleted (DEL, FLUSHALL, expiry, eviction) and begun anew.
    Deleted,
    /// The stream ends before the cursor: a failover or a restart lost its end.
    Rewound,
}

impl GapReason {
    /// All of them, in order.
    pub const ALL: [GapReason; 3] = [GapReason::Trimmed, GapReason::Deleted, GapReason::Rewound];

    /// The word of the client contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Deleted => "deleted",
            GapReason::Rewound => "rewound",
        }
    }
}

/// Entries after `after` and before `before` may have existed and can't be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gap {
    /// The cursor: the last ID the subscriber has, or began from.
    pub after: EntryId,
    /// The entry that comes next. Lower than `after` where the stream began anew.
    pub before: EntryId,
    /// What became of them.
    pub reason: GapReason,
}

/// What a format makes of a gap.
#[derive(Debug, Clone)]
pub enum GapFrame {
    /// It can say so on the wire, and goes on.
    Frame(Bytes),
    /// It has no words for it, so the connection ends and says where to go on.
    Close,
}

/// How one kind of connection writes what the relay delivers.
///
/// Formats are few and static; each has a slot of its own, under which an entry keeps its frame.
pub struct Format {
    /// A number no other format has.
    pub slot: u8,
    /// One entry as one frame.
    pub entry: fn(&RoomName, &Entry) -> Bytes,
    /// A gap in its place between frames.
    pub gap: fn(&RoomName, &Gap) -> GapFrame,
    /// What is told beside the stream, if the protocol has words for it.
    pub aside: fn(&Aside) -> Option<Bytes>,
    /// The last bytes of a connection, empty if the protocol has none.
    pub close: fn(&CloseReason) -> Bytes,
}
