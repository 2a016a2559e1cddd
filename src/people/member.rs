//! [`Member`]: what is known of one user in one room on one node, and its text on the board.

use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Role;

/// A user in a room on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// Connections there.
    pub devices: u32,
    /// The role to show beside the name, if one of these connections has it: of several, the one that
    /// counts most.
    pub role: Option<Role>,
    /// Unix milliseconds of the first one's join.
    pub since: u64,
    /// The name to show.
    pub name: Option<Arc<str>>,
}

impl Member {
    /// As the board has it: devices, since, and what is left is the name; on a line of its own the
    /// role, which few have.
    pub(super) fn record(&self) -> Bytes {
        let name = self.name.as_deref().unwrap_or_default();
        let mut record = format!("{} {} {name}", self.devices, self.since);
        if let Some(role) = self.role {
            record.push('\n');
            record.push_str(role.as_str());
        }
        record.into()
    }

    /// Reads a record. None if it's no such thing.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        let record = std::str::from_utf8(record).ok()?;
        // No name has a line end.
        let (record, role) = record.split_once('\n').unwrap_or((record, ""));
        let mut parts = record.splitn(3, ' ');
        Some(Member {
            devices: parts.next()?.parse().ok()?,
            since: parts.next()?.parse().ok()?,
            name: parts.next().filter(|name| !name.is_empty()).map(Arc::from),
            // One that a newer node knows is none here.
            role: role.parse().ok().filter(|role: &Role| role.is_leading()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_are_read_back(devices: u32, since: u64, name in ".{0,40}", role in 0..4usize) {
            let member = Member {
                devices,
                since,
                name: Some(name).filter(|name| !name.is_empty()).map(Arc::from),
                role: Role::ALL.into_iter().filter(|role| role.is_leading()).nth(role),
            };
            prop_assert_eq!(Member::read(&member.record()), Some(member));
        }

        #[test]
        fn anything_may_stand_on_the_board(record: Vec<u8>) {
            let _ = Member::read(&record);
        }
    }

    #[test]
    fn records_of_other_versions() {
        let check = |record: &str, name: Option<&str>, role: Option<Role>| {
            let member = Member::read(record.as_bytes()).unwrap();
            assert_eq!((member.devices, member.since), (2, 7), "{record:?}");
            assert_eq!(
                (member.name.as_deref(), member.role),
                (name, role),
                "{record:?}"
            );
        };
        check("2 7 ", None, None);
        check("2 7 Ann A.", Some("Ann A."), None);
        check("2 7 \nhost", None, Some(Role::Host));
        check("2 7 Ann\nmoderator", Some("Ann"), Some(Role::Moderator));
        check("2 7 Ann\nking", Some("Ann"), None);
        check("2 7 Ann\nviewer", Some("Ann"), None);
    }
}
