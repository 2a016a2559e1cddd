//! [`Here`]: who is on this node, and what of that the board doesn't know yet. No I/O and no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use super::board::{Change, NodeId, RoomChange};
use super::member::Member;
use super::roster::Delta;
use super::wire::Message;
use crate::auth::Role;
use crate::relay::entry::RoomName;

/// Users in one change at most: some tens of kilobytes, which neither Redis nor anybody who listens
/// is held up by.
const CHUNK: usize = 500;

/// The user under whose name a room's hash has the number of its last change. Nobody is called so.
pub(super) const SEQ: &str = "";

/// Everybody on this node.
#[derive(Debug, Default)]
pub(super) struct Here {
    rooms: HashMap<RoomName, Room>,
    users: HashMap<Arc<str>, User>,
    /// What the board doesn't know.
    changed_rooms: HashMap<RoomName, BTreeSet<Arc<str>>>,
    changed_users: BTreeSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Room {
    members: BTreeMap<Arc<str>, Member>,
    /// How many devices of a user have each role; of those only who has one.
    leading: BTreeMap<Arc<str>, BTreeMap<Role, u32>>,
    /// The board's number of changes.
    seq: u64,
}

/// A user's connections to this node.
#[derive(Debug, Default, PartialEq, Eq)]
struct User {
    devices: u32,
    /// How many of them are in each room.
    rooms: BTreeMap<RoomName, u32>,
}

impl Here {
    /// A user's device connects.
    pub(super) fn connect(&mut self, user: &Arc<str>) {
        self.users.entry(user.clone()).or_default().devices += 1;
        self.changed_users.insert(user.clone());
    }

    /// A user's device goes, after it has left its rooms.
    pub(super) fn disconnect(&mut self, user: &Arc<str>) {
        if let Some(here) = self.users.get_mut(user) {
            here.devices = here.devices.saturating_sub(1);
            if here.devices == 0 {
                self.users.remove(user);
            }
            self.changed_users.insert(user.clone());
        }
    }

    /// A user's device enters a room.
    pub(super) fn enter(
        &mut self,
        room: &RoomName,
        user: &Arc<str>,
        name: Option<&str>,
        role: Option<Role>,
        now_ms: u64,
    ) {
        let entered = self.rooms.entry(room.clone()).or_default();
        match entered.members.get_mut(user) {
            Some(member) => member.devices += 1,
            None => {
                let member = Member {
                    devices: 1,
                    since: now_ms,
                    name: name.map(Arc::from),
                    role: None,
                };
                entered.members.insert(user.clone(), member);
            }
        }
        entered.lead(user, None, role);
        self.changed(room, user);
        let here = self.users.entry(user.clone()).or_default();
        let devices = here.rooms.entry(room.clone()).or_default();
        *devices += 1;
        if *devices == 1 {
            self.changed_users.insert(user.clone());
        }
    }

    /// The token of a user's device says something else from now on: another name to show, or another
    /// role than it `was`.
    pub(super) fn renew(
        &mut self,
        room: &RoomName,
        user: &Arc<str>,
        name: Option<&str>,
        was: Option<Role>,
        role: Option<Role>,
    ) {
        let Some(there) = self.rooms.get_mut(room) else {
            return;
        };
        let mut is_changed = there.lead(user, was, role);
        let member = there.members.get_mut(user);
        if let (Some(member), Some(name)) = (member, name)
            && member.name.as_deref() != Some(name)
        {
            member.name = Some(Arc::from(name));
            is_changed = true;
        }
        if is_changed {
            self.changed(room, user);
        }
    }

    /// A user's device leaves a room, where it had this role to show.
    pub(super) fn leave(&mut self, room: &RoomName, user: &Arc<str>, role: Option<Role>) {
        let Some(left) = self.rooms.get_mut(room) else {
            return;
        };
        left.lead(user, role, None);
        if let Some(member) = left.members.get_mut(user) {
            member.devices -= 1;
            if member.devices == 0 {
                left.members.remove(user);
            }
        }
        self.changed(room, user);
        if let Some(here) = self.users.get_mut(user)
            && let Some(devices) = here.rooms.get_mut(room)
        {
            *devices -= 1;
            if *devices == 0 {
                here.rooms.remove(room);
                self.changed_users.insert(user.clone());
            }
        }
    }

    fn changed(&mut self, room: &RoomName, user: &Arc<str>) {
        let users = self.changed_rooms.entry(room.clone()).or_default();
        users.insert(user.clone());
    }

    /// The node goes by another name from now on, under which the board knows nothing.
    pub(super) fn begin_anew(&mut self) {
        self.changed_rooms.clear();
        for (name, room) in &mut self.rooms {
            room.seq = 0;
            let users = room.members.keys().cloned().collect();
            self.changed_rooms.insert(name.clone(), users);
        }
        self.rooms.retain(|_, room| !room.members.is_empty());
        self.changed_rooms.retain(|_, users| !users.is_empty());
        self.changed_users = self.users.keys().cloned().collect();
    }

    /// Takes what the board doesn't know, as changes of the node of this name.
    pub(super) fn take_changes(&mut self, node: &NodeId) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, users) in std::mem::take(&mut self.changed_rooms) {
            let Some(room) = self.rooms.get_mut(&name) else {
                continue;
            };
            let users: Vec<Arc<str>> = users.into_iter().collect();
            for users in users.chunks(CHUNK) {
                room.seq += 1;
                changes.push(Change::Room(room.change(&name, node, users)));
            }
            if room.members.is_empty() {
                // Who comes next begins at 1, which says as much.
                self.rooms.remove(&name);
            }
        }
        for user in std::mem::take(&mut self.changed_users) {
            let record = self.users.get(&user).map(User::record);
            changes.push(Change::User(user.to_string(), record));
        }
        changes
    }

    /// How many users are here.
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// Whether nobody is here.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && self.users.is_empty()
    }
}

impl Room {
    /// One device of a user has another role than it had. Whether that changes the one to show.
    fn lead(&mut self, user: &Arc<str>, was: Option<Role>, is: Option<Role>) -> bool {
        if was == is {
            return false;
        }
        let roles = self.leading.entry(user.clone()).or_default();
        if let Some(role) = is {
            *roles.entry(role).or_default() += 1;
        }
        if let Some(role) = was
            && let Some(devices) = roles.get_mut(&role)
        {
            *devices -= 1;
            if *devices == 0 {
                roles.remove(&role);
            }
        }
        // Roles are in order of what they count.
        let role = roles.keys().next().copied();
        if role.is_none() {
            self.leading.remove(user);
        }
        let Some(member) = self.members.get_mut(user) else {
            return false;
        };
        std::mem::replace(&mut member.role, role) != role
    }

    fn change(&self, name: &RoomName, node: &NodeId, users: &[Arc<str>]) -> RoomChange {
        let mut delta = Delta {
            seq: self.seq,
            set: Vec::new(),
            removed: Vec::new(),
        };
        for user in users {
            match self.members.get(user) {
                Some(member) => delta.set.push((user.clone(), member.clone())),
                None => delta.removed.push(user.clone()),
            }
        }
        let mut set: Vec<(String, Bytes)> = delta
            .set
            .iter()
            .map(|(user, member)| (user.to_string(), member.record()))
            .collect();
        let mut removed: Vec<String> = delta.removed.iter().map(|user| user.to_string()).collect();
        if self.members.is_empty() {
            removed.push(SEQ.to_owned());
        } else {
            set.push((SEQ.to_owned(), self.seq.to_string().into()));
        }
        RoomChange {
            room: name.clone(),
            set,
            removed,
            size: self.members.len() as u64,
            message: Message::presence(node, &delta).encode(),
        }
    }
}

impl User {
    /// As the board has it: the devices, and the rooms behind a line end each, which no room's
    /// name has.
    fn record(&self) -> Bytes {
        let mut record = self.devices.to_string();
        for room in self.rooms.keys() {
            record.push('\n');
            record.push_str(room.as_str());
        }
        record.into()
    }
}

/// Reads a user's record: devices, and the rooms.
pub(super) fn read_user(record: &[u8]) -> Option<(u32, Vec<RoomName>)> {
    let mut lines = std::str::from_utf8(record).ok()?.split('\n');
    let devices = lines.next()?.parse().ok()?;
    let rooms = lines.filter_map(|name| RoomName::parse(name).ok());
    Some((devices, rooms.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    /// Changes as one line each.
    fn lines(changes: &[Change]) -> Vec<String> {
        let mut lines: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Room(change) => {
                    let set: Vec<String> = change
                        .set
                        .iter()
                        .map(|(user, record)| {
                            format!("{user}={}", String::from_utf8_lossy(record).trim_end())
                        })
                        .collect();
                    let (room, size) = (&change.room, change.size);
                    let (set, removed) = (set.join(","), change.removed.join(","));
                    format!("{room}/{size}: +{set} -{removed}")
                }
                Change::User(user, record) => {
                    let record = record.as_deref().map(String::from_utf8_lossy);
                    format!("{user}: {record:?}")
                }
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn three_devices_are_one_member() {
        let node = NodeId::new("n");
        let mut here = Here::default();
        let (ann, lobby) = (Arc::from("ann"), room("lobby"));
        for _ in 0..3 {
            here.connect(&ann);
            here.enter(&lobby, &ann, Some("Ann"), None, 5);
        }
        assert_eq!(
            lines(&here.take_changes(&node)),
            ["ann: Some(\"3\\nlobby\")", "lobby/1: +ann=3 5 Ann,=1 -"]
        );
        assert!(here.take_changes(&node).is_empty());
        here.leave(&lobby, &ann, None);
        assert_eq!(
            lines(&here.take_changes(&node)),
            ["lobby/1: +ann=2 5 Ann,=2 -"]
        );
        for _ in 0..2 {
            here.leave(&lobby, &ann, None);
        }
        for _ in 0..3 {
            here.disconnect(&ann);
        }
        assert_eq!(
            lines(&here.take_changes(&node)),
            ["ann: None", "lobby/0: + -ann,"]
        );
        assert!(here.is_empty());
    }

    #[test]
    fn the_highest_role_of_all_devices_counts() {
        let node = NodeId::new("n");
        let mut here = Here::default();
        let (ann, lobby) = (Arc::from("ann"), room("lobby"));
        let record = |here: &mut Here| {
            let line = lines(&here.take_changes(&node))
                .join(";")
                .replace('\n', "|");
            let record = line.split_once("+ann=").map(|(_, rest)| rest.to_owned());
            record.and_then(|rest| Some(rest.split_once(",=")?.0.to_owned()))
        };
        let check = |here: &mut Here, want: Option<&str>| {
            assert_eq!(record(here).as_deref(), want);
        };
        let (host, moderator) = (Some(Role::Host), Some(Role::Moderator));
        here.connect(&ann);
        here.enter(&lobby, &ann, None, moderator, 5);
        check(&mut here, Some("1 5 |moderator"));
        here.enter(&lobby, &ann, None, host, 6);
        check(&mut here, Some("2 5 |host"));
        here.enter(&lobby, &ann, None, None, 7);
        check(&mut here, Some("3 5 |host"));
        // Another token, of which nobody sees anything.
        here.renew(&lobby, &ann, None, None, moderator);
        check(&mut here, None);
        here.leave(&lobby, &ann, host);
        check(&mut here, Some("2 5 |moderator"));
        here.renew(&lobby, &ann, Some("Ann"), moderator, None);
        check(&mut here, Some("2 5 Ann|moderator"));
        here.renew(&lobby, &ann, Some("Ann"), moderator, None);
        check(&mut here, Some("2 5 Ann"));
        here.renew(&lobby, &ann, None, None, Some(Role::Cohost));
        check(&mut here, Some("2 5 Ann|cohost"));
        here.leave(&lobby, &ann, Some(Role::Cohost));
        here.leave(&lobby, &ann, None);
        here.disconnect(&ann);
        let gone = lines(&here.take_changes(&node));
        assert_eq!(gone, ["ann: None", "lobby/0: + -ann,"]);
        assert!(here.is_empty());
    }

    #[test]
    fn a_new_life_tells_everything_again() {
        let node = NodeId::new("n");
        let mut here = Here::default();
        let lobby = room("lobby");
        for index in 0..(CHUNK + 1) {
            let user = Arc::from(format!("u{index:04}"));
            here.connect(&user);
            here.enter(&lobby, &user, None, None, 1);
        }
        let told = here.take_changes(&node);
        here.begin_anew();
        let again = here.take_changes(&node);
        assert_eq!(lines(&told), lines(&again));
        let rooms = again.iter().filter(|c| matches!(c, Change::Room(_)));
        assert_eq!(rooms.count(), 2, "in chunks");
    }

    #[test]
    fn user_records_are_read_back() {
        let mut user = User {
            devices: 2,
            ..User::default()
        };
        assert_eq!(read_user(&user.record()), Some((2, vec![])));
        user.rooms = [(room("b"), 1), (room("a c"), 2)].into();
        let read = read_user(&user.record());
        assert_eq!(read, Some((2, vec![room("a c"), room("b")])));
        assert_eq!(read_user(b"many"), None);
    }
}
