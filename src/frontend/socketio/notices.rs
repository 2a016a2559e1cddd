//! [`Notices`]: tells rooms that a client came, by the name it gave itself, and that it went.
//!
//! One after the other, so that nobody goes before they came. And what is left of a connection that broke
//! may end, and say that its client went, when that has long come back under the same socket ID: then it's
//! told again that the client is there.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::auth::Identity;
use crate::people::{People, fields};
use crate::relay::entry::{EntryId, RoomName};

/// One client's notices.
pub(super) struct Notices {
    people: Arc<People>,
    identity: Identity,
    sid: Box<str>,
    said: Mutex<Said>,
}

impl fmt::Debug for Notices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Notices").field(&*self.said()).finish()
    }
}

/// What is said, and what is still to be said.
#[derive(Debug, Default)]
struct Said {
    /// What it's called.
    name: Box<str>,
    /// The rooms that know of it, or are to.
    rooms: Vec<Told>,
    /// Not said yet. At most one of each room.
    waiting: VecDeque<Notice>,
    /// Whether somebody says it.
    is_busy: bool,
}

#[derive(Debug)]
struct Told {
    room: RoomName,
    /// The notice that it came, once that is stored.
    came: Option<EntryId>,
    /// The last that it went.
    went: EntryId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Notice {
    room: RoomName,
    is_coming: bool,
}

impl Said {
    fn came(&mut self, room: &RoomName) {
        if self.rooms.iter().any(|told| told.room == *room) {
            return;
        }
        self.rooms.push(Told {
            room: room.clone(),
            came: None,
            went: EntryId::ZERO,
        });
        self.say(room.clone(), true);
    }

    fn went(&mut self, room: &RoomName) {
        if let Some(at) = self.rooms.iter().position(|told| told.room == *room) {
            self.rooms.swap_remove(at);
            self.say(room.clone(), false);
        }
    }

    /// A notice takes back the one before it that nobody has heard.
    fn say(&mut self, room: RoomName, is_coming: bool) {
        match self.waiting.iter().position(|notice| notice.room == room) {
            Some(at) if self.waiting[at].is_coming != is_coming => {
                self.waiting.remove(at);
            }
            Some(_) => {}
            None => self.waiting.push_back(Notice { room, is_coming }),
        }
    }

    /// That it came is stored.
    fn on_stored(&mut self, room: &RoomName, id: EntryId) {
        if let Some(told) = self.rooms.iter_mut().find(|told| told.room == *room) {
            told.came = Some(id);
            self.repeat(room);
        }
    }

    /// The room was told that it went.
    fn on_went(&mut self, room: &str, id: EntryId) {
        if let Some(told) = self.rooms.iter_mut().find(|t| t.room.as_str() == room) {
            told.went = told.went.max(id);
            let room = told.room.clone();
            self.repeat(&room);
        }
    }

    /// Says again that it came, if it was said to have gone after that.
    fn repeat(&mut self, room: &RoomName) {
        let Some(told) = self.rooms.iter_mut().find(|told| told.room == *room) else {
            return;
        };
        if told.came.is_some_and(|came| came < told.went) {
            told.came = None;
            self.say(room.clone(), true);
        }
    }
}

impl Notices {
    pub(super) fn new(people: Arc<People>, identity: Identity, sid: Box<str>) -> Arc<Self> {
        Arc::new(Notices {
            people,
            identity,
            sid,
            said: Mutex::default(),
        })
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It came to a room, called so.
    pub(super) fn came(self: &Arc<Self>, room: &RoomName, name: &str) {
        let mut said = self.said();
        said.name = name.into();
        said.came(room);
        self.go_on(said);
    }

    /// It went from a room.
    pub(super) fn went(self: &Arc<Self>, room: &RoomName) {
        let mut said = self.said();
        said.went(room);
        self.go_on(said);
    }

    /// It went from all of them.
    pub(super) fn went_from_all(self: &Arc<Self>) {
        let mut said = self.said();
        let rooms: Vec<RoomName> = said.rooms.iter().map(|told| told.room.clone()).collect();
        for room in &rooms {
            said.went(room);
        }
        self.go_on(said);
    }

    /// A room that it's in was told that it went.
    pub(super) fn on_went(self: &Arc<Self>, room: &str, id: EntryId) {
        let mut said = self.said();
        said.on_went(room, id);
        self.go_on(said);
    }

    fn go_on(self: &Arc<Self>, mut said: MutexGuard<'_, Said>) {
        if said.is_busy || said.waiting.is_empty() {
            return;
        }
        // At the end of a process there may be nobody to do it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            said.is_busy = true;
            runtime.spawn(self.clone().say_all());
        }
    }

    async fn say_all(self: Arc<Self>) {
        while let Some((Notice { room, is_coming }, told)) = self.next() {
            match self.people.announce(&self.identity, &room, told).await {
                Ok(id) if is_coming => self.said().on_stored(&room, id),
                Ok(_) => {}
                Err(error) => tracing::debug!(%room, %error, "nobody is told who came or went"),
            }
        }
    }

    fn next(&self) -> Option<(Notice, fields::Notice)> {
        let mut said = self.said();
        let Some(notice) = said.waiting.pop_front() else {
            said.is_busy = false;
            return None;
        };
        let told = fields::Notice {
            is_coming: notice.is_coming,
            username: Bytes::copy_from_slice(said.name.as_bytes()),
            socket: Bytes::copy_from_slice(self.sid.as_bytes()),
        };
        Some((notice, told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> RoomName {
        RoomName::parse("r").unwrap()
    }

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    fn next(said: &mut Said) -> Option<bool> {
        said.waiting.pop_front().map(|notice| notice.is_coming)
    }

    #[test]
    fn what_nobody_heard_is_taken_back() {
        let mut said = Said::default();
        said.went(&room());
        assert_eq!(next(&mut said), None);
        said.came(&room());
        said.came(&room());
        said.went(&room());
        assert_eq!(next(&mut said), None);
        said.came(&room());
        assert_eq!(next(&mut said), Some(true));
        said.went(&room());
        said.came(&room());
        assert_eq!(next(&mut said), None);
        said.went(&room());
        assert_eq!((next(&mut said), next(&mut said)), (Some(false), None));
    }

    #[test]
    fn who_was_said_to_have_gone_came_again() {
        let mut said = Said::default();
        said.came(&room());
        assert_eq!(next(&mut said), Some(true));
        // Of the connection before, and before this one came.
        said.on_went("r", id(4));
        said.on_stored(&room(), id(5));
        assert_eq!(next(&mut said), None);
        said.on_went("r", id(6));
        said.on_went("r", id(7));
        assert_eq!((next(&mut said), next(&mut said)), (Some(true), None));
        // The word of it comes before that it's stored.
        said.on_went("r", id(9));
        said.on_stored(&room(), id(8));
        assert_eq!(next(&mut said), Some(true));
        said.on_stored(&room(), id(10));
        said.on_went("r", id(9));
        said.on_went("other", id(11));
        assert_eq!(next(&mut said), None);
    }
}
