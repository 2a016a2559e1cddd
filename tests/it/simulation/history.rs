//! All that ever was in a room's stream, and each client's events held against it.
//!
//! The checker knows only what the streams hold at the end. Here everything that happened is
//! known, so that streams that were deleted, lost their end or had entries removed are judged as
//! sharply as the others.

use std::collections::HashSet;

use bytes::Bytes;
use tailcast::relay::entry::EntryId;

use crate::checker::Event;

/// An entry as it was added.
#[derive(Debug, Clone)]
pub(super) struct Past {
    pub(super) id: EntryId,
    pub(super) payload: Bytes,
    /// How often the stream had been deleted by then.
    pub(super) life: u32,
}

/// One room's past. IDs never repeat in it.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) entries: Vec<Past>,
    /// Not owed to anybody who missed it: removed one by one, or lost in a failover.
    pub(super) excused: HashSet<usize>,
    pub(super) life: u32,
    /// The last life, or last failover, after which IDs were lower than before: how many entries
    /// there were.
    pub(super) low_since: usize,
    pub(super) trimmed: bool,
    pub(super) lost: bool,
    pub(super) removed: bool,
    /// Deleted or rewound, and the tails had no time to look since.
    pub(super) unread: bool,
    /// How many entries the tails surely had read when they were last level.
    pub(super) level: usize,
    /// Whether they stood on an entry then.
    pub(super) stood: bool,
}

impl History {
    /// The entry's place in the past.
    pub(super) fn find(&self, id: EntryId) -> Option<usize> {
        self.entries.iter().rposition(|past| past.id == id)
    }

    /// Entries that came before a cursor, if it's certain.
    pub(super) fn before(&self, cursor: EntryId) -> Option<usize> {
        if let Some(index) = self.find(cursor) {
            return Some(index + 1);
        }
        let is_after = |past: &Past| past.life == self.life && past.id > cursor;
        match self.entries.iter().position(is_after) {
            _ if self.unread => None,
            Some(index) => Some(index),
            None => Some(self.entries.len()),
        }
    }

    /// What a client in this room was not told.
    pub(super) fn check(
        &self,
        client: &str,
        began: Option<usize>,
        events: &[Event],
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let mut at = began;
        let mut seen = HashSet::new();
        for event in events {
            let (id, payload) = match event {
                Event::Entry { id, payload } => (*id, payload),
                Event::Gap { .. } => {
                    at = None;
                    continue;
                }
                Event::Joined { .. } | Event::Reconnected { .. } => continue,
            };
            let Some(index) = self.find(id) else {
                faults.push(format!("{client}: got {id}, which never was"));
                continue;
            };
            if self.entries[index].payload != *payload {
                faults.push(format!("{client}: got {id} with another message"));
            }
            if !seen.insert(index) {
                faults.push(format!("{client}: got {id} twice"));
            }
            if let Some(at) = at {
                if index < at {
                    faults.push(format!("{client}: got {id} out of order"));
                }
                let missed = (at..index).find(|missed| !self.excused.contains(missed));
                if let Some(missed) = missed {
                    let missed = self.entries[missed].id;
                    faults.push(format!("{client}: nothing told of {missed} before {id}"));
                }
            }
            at = Some(index + 1);
        }
        faults
    }
}
