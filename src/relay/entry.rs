//! What a room holds: its name, its entries, their IDs.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use smallvec::SmallVec;

use super::format::Format;

/// Longest room name, in bytes.
pub const ROOM_NAME_MAX: usize = 256;

/// Keys that start so are tailcast's own book-keeping, never a room.
pub const RESERVED_PREFIX: &str = "tailcast:";

/// A stream entry's ID, `ms-seq`, as Redis orders them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch, by the clock of the Redis server that made the entry.
    pub ms: u64,
    /// Counts entries within one millisecond.
    pub seq: u64,
}

impl EntryId {
    /// `0-0`: before every entry. Redis never gives it to one.
    pub const ZERO: EntryId = EntryId { ms: 0, seq: 0 };
    /// The last ID there can be.
    pub const MAX: EntryId = EntryId {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// An ID from its two halves.
    pub const fn new(ms: u64, seq: u64) -> Self {
        EntryId { ms, seq }
    }

    /// The ID right before this one; `0-0` stays `0-0`.
    pub const fn predecessor(self) -> Self {
        match (self.ms, self.seq) {
            (0, 0) => Self::ZERO,
            (ms, 0) => EntryId::new(ms - 1, u64::MAX),
            (ms, seq) => EntryId::new(ms, seq - 1),
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an entry ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an entry ID: write it as milliseconds-sequence, as in 1700000000000-0")]
pub struct EntryIdError;

impl FromStr for EntryId {
    type Err = EntryIdError;

    /// Reads `ms-seq`, or `ms` alone, which means `ms-0` as it does in Redis.
    fn from_str(text: &str) -> Result<Self, EntryIdError> {
        let number = |digits: &str| {
            // u64::from_str takes a leading plus sign; Redis does not.
            if digits.starts_with('+') {
                return Err(EntryIdError);
            }
            digits.parse::<u64>().map_err(|_| EntryIdError)
        };
        match text.split_once('-') {
            Some((ms, seq)) => Ok(EntryId::new(number(ms)?, number(seq)?)),
            None => Ok(EntryId::new(number(text)?, 0)),
        }
    }
}

/// A room's name, which is its stream's key without the key prefix.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomName(Arc<str>);

/// Why a text is no room name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoomNameError {
    /// Empty.
    #[error("a room needs a name")]
    Empty,
    /// Over [`ROOM_NAME_MAX`].
    #[error("a room name has at most {ROOM_NAME_MAX} bytes")]
    TooLong,
    /// Has a control character.
    #[error("a room name has no control characters")]
    Control,
    /// Not UTF-8 once percent-decoded.
    #[error("a room name is UTF-8, percent-encoded in a URL")]
    NotUtf8,
    /// Starts with [`RESERVED_PREFIX`].
    #[error("names that start with {RESERVED_PREFIX} are kept for tailcast's own keys")]
    Reserved,
}

impl RoomName {
    /// Takes 1 to 256 bytes of UTF-8 without control characters, not starting with `tailcast:`.
    pub fn parse(text: &str) -> Result<Self, RoomNameError> {
        // An at sign alone would be nobody's inbox.
        if text.is_empty() || text == "@" {
            Err(RoomNameError::Empty)
        } else if text.len() > ROOM_NAME_MAX {
            Err(RoomNameError::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(RoomNameError::Control)
        } else if text.starts_with(RESERVED_PREFIX) {
            Err(RoomNameError::Reserved)
        } else {
            Ok(RoomName(text.into()))
        }
    }

    /// The stream of what moderators did. No client can name it.
    pub fn audit() -> Self {
        RoomName("tailcast:audit".into())
    }

    /// The room of everything sent to one user: their inbox, `@user`.
    pub fn of_user(user: &str) -> Result<Self, RoomNameError> {
        match user {
            "" => Err(RoomNameError::Empty),
            user => RoomName::parse(&format!("@{user}")),
        }
    }

    /// Whose inbox it is: what follows the `@` in front, if there is one.
    pub fn owner(&self) -> Option<&str> {
        self.0.strip_prefix('@')
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// An entry's fields in stream order; names may repeat, both halves are any bytes.
pub type Fields = Box<[(Bytes, Bytes)]>;

/// One entry of a stream, with the frames it has been encoded to so far.
pub struct Entry {
    /// Its ID.
    pub id: EntryId,
    /// Its fields.
    pub fields: Fields,
    /// Frames by [`Format::slot`]. Nearly always one or two, so a list beats a table.
    frames: Mutex<SmallVec<[(u8, Bytes); 1]>>,
}

impl Entry {
    /// An entry that nobody has encoded yet.
    pub fn new(id: EntryId, fields: impl Into<Fields>) -> Self {
        Entry {
            id,
            fields: fields.into(),
            frames: Mutex::default(),
        }
    }

    /// The field `message`, else the first one: what a raw socket shows.
    pub fn message(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.fields
            .iter()
            .find(|(name, _)| name.as_ref() == b"message")
            .or(self.fields.first())
            .map_or(&EMPTY, |(_, value)| value)
    }

    /// Its frame in one wire format; encoded on the first call, shared from then on.
    pub fn frame(&self, room: &RoomName, format: &Format) -> Bytes {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(slot, _)| *slot == format.slot) {
            return frame.clone();
        }
        let frame = (format.entry)(room, self);
        frames.push((format.slot, frame.clone()));
        frame
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        fields_size(&self.fields)
    }
}

/// Bytes of all names and values.
pub fn fields_size(fields: &[(Bytes, Bytes)]) -> usize {
    fields.iter().map(|(n, v)| n.len() + v.len()).sum()
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({} {:?})", self.id, self.fields)
    }
}

#[cfg(test)]
mod tests;
