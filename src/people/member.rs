//! [`Member`]: what is known of one user in one room on one node, and its text on the board.

use std::sync::Arc;

use bytes::Bytes;

/// A user in a room on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Connections there.
    pub devices: u32,
    /// Unix milliseconds of the first one's join.
    pub since: u64,
    /// The name to show.
    pub name: Option<Arc<str>>,
}

impl Member {
    /// As the board has it: devices, since, and what is left is the name.
    pub(super) fn record(&self) -> Bytes {
        let name = self.name.as_deref().unwrap_or_default();
        format!("{} {} {name}", self.devices, self.since).into()
    }

    /// Reads a record. None if it's no such thing.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(record).ok()?.splitn(3, ' ');
        Some(Member {
            devices: parts.next()?.parse().ok()?,
            since: parts.next()?.parse().ok()?,
            name: parts.next().filter(|name| !name.is_empty()).map(Arc::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_are_read_back(devices: u32, since: u64, name in ".{0,40}") {
            let member = Member {
                devices,
                since,
                name: Some(name).filter(|name| !name.is_empty()).map(Arc::from),
            };
            prop_assert_eq!(Member::read(&member.record()), Some(member));
        }

        #[test]
        fn anything_may_stand_on_the_board(record: Vec<u8>) {
            let _ = Member::read(&record);
        }
    }
}
