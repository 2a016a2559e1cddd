//! [`Place`]: where a client stands, as the offset that goes out with every entry says it.
//!
//! A client keeps one text: the last argument of the last event. With the one room of its [`Pid`]
//! that is the entry's ID, unless the stream was begun anew with lower ones. Else it's all there is
//! to know:
//!
//! ```text
//! <mark>;<name>;<ID>[ <room>],…
//! ```
//!
//! `mark` is the beginning of the socket ID, by which an offset of an earlier connection is told from
//! one of this; `name` is what the client called itself. Rooms are in the order they were joined in;
//! one without a name is that of the same place in the [`Pid`]. Names are percent-encoded.

use std::collections::HashSet;
use std::io::Write;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use smallvec::{SmallVec, smallvec};

use super::pid::Pid;
use crate::relay::entry::{EntryId, RoomName};

/// An offset as it goes out. All of it is ASCII that JSON takes as it is.
pub(super) type Offset = SmallVec<[u8; 48]>;

/// Bytes of a socket ID that an offset repeats.
const MARK: usize = 6;

/// Longest offset that is looked at: 128 rooms of 256 bytes, each of them encoded, and their IDs.
const LENGTH_MAX: usize = 128 * (3 * 256 + 48);

/// Where a client stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// What it called itself when it joined, if it did.
    pub(super) name: Option<Box<str>>,
    /// Its rooms, and the last entry of each that it was sent.
    pub(super) rooms: SmallVec<[(RoomName, EntryId); 1]>,
}

impl Place {
    /// Where the client stood that brings this pid and, perhaps, an offset. What is wrong with the
    /// offset counts for nothing: then it's where the pid says, and is told again what it has seen.
    pub(super) fn of(pid: &Pid, offset: Option<&str>) -> Self {
        let start = || Place {
            name: None,
            rooms: pid.rooms.iter().cloned().collect(),
        };
        let Some(offset) = offset.filter(|offset| offset.len() <= LENGTH_MAX) else {
            return start();
        };
        match (offset.parse::<EntryId>(), pid.rooms.as_slice()) {
            // An offset may be one of an earlier connection, and lie before this one's beginning;
            // one of this that does is never written as a mere ID.
            (Ok(id), [(room, first)]) => Place {
                name: None,
                rooms: smallvec![(room.clone(), id.max(*first))],
            },
            (Ok(_), _) => start(),
            (Err(_), _) => read(pid, offset).unwrap_or_else(start),
        }
    }

    /// Its client has been sent this entry.
    pub(super) fn advance(&mut self, room: &str, id: EntryId) -> bool {
        let mut rooms = self.rooms.iter_mut();
        match rooms.find(|(other, _)| other.as_str() == room) {
            Some((_, at)) => {
                *at = id;
                true
            }
            None => false,
        }
    }

    /// The offset that says so, for a client with a pid of this socket ID and these rooms.
    pub(super) fn write(&self, sid: &str, first: &[(RoomName, EntryId)]) -> Offset {
        // Writing to memory does not fail.
        let mut out = Offset::new();
        if let (None, [(room, id)], [(only, began)]) = (&self.name, self.rooms.as_slice(), first)
            && room == only
            && id >= began
        {
            let _ = write!(out, "{id}");
            return out;
        }
        let name = self.name.as_deref().unwrap_or_default();
        let _ = write!(out, "{};{};", mark(sid), encode(name));
        for (at, (room, id)) in self.rooms.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let _ = write!(out, "{id}");
            if first.get(at).is_none_or(|(first, _)| first != room) {
                let _ = write!(out, " {}", encode(room.as_str()));
            }
        }
        out
    }
}

fn read(pid: &Pid, offset: &str) -> Option<Place> {
    let (of, rest) = offset.split_once(';')?;
    let (name, list) = rest.split_once(';')?;
    if of != mark(&pid.sid) {
        return None;
    }
    let mut rooms: SmallVec<[(RoomName, EntryId); 1]> = SmallVec::new();
    let mut seen = HashSet::new();
    for (at, item) in list.split(',').filter(|item| !item.is_empty()).enumerate() {
        let (id, room) = match item.split_once(' ') {
            Some((id, room)) => (id, RoomName::parse(&decode(room)?).ok()?),
            None => (item, pid.rooms.get(at)?.0.clone()),
        };
        if !seen.insert(room.clone()) {
            return None;
        }
        rooms.push((room, id.parse().ok()?));
    }
    let name = decode(name)?;
    Some(Place {
        name: (!name.is_empty()).then(|| name.into()),
        rooms,
    })
}

fn mark(sid: &str) -> &str {
    sid.get(..MARK).unwrap_or(sid)
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    let room = |name| Some((RoomName::parse(name).ok()?, EntryId::new(5, 0)));
    let pid = Pid {
        sid: "abcdefgh".to_owned(),
        namespace: "/".to_owned(),
        user: None,
        rooms: ["one", "two"].into_iter().filter_map(room).collect(),
    };
    let place = Place::of(&pid, Some(text));
    let offset = place.write(&pid.sid, &pid.rooms);
    let again = Place::of(&pid, std::str::from_utf8(&offset).ok());
    assert_eq!(again, place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn pid(rooms: &[&str]) -> Pid {
        Pid {
            sid: "abcdefgh".to_owned(),
            namespace: "/".to_owned(),
            user: None,
            rooms: rooms
                .iter()
                .map(|name| (room(name), EntryId::new(5, 0)))
                .collect(),
        }
    }

    fn check(rooms: &[&str], offset: Option<&str>, name: Option<&str>, want: &[(&str, &str)]) {
        let place = Place::of(&pid(rooms), offset);
        let got: Vec<_> = place
            .rooms
            .iter()
            .map(|(room, id)| (room.as_str().to_owned(), id.to_string()))
            .collect();
        let want: Vec<_> = want
            .iter()
            .map(|(room, id)| ((*room).to_owned(), (*id).to_owned()))
            .collect();
        assert_eq!(got, want, "{offset:?}");
        assert_eq!(place.name.as_deref(), name);
    }

    #[test]
    fn offsets() {
        check(&["a"], None, None, &[("a", "5-0")]);
        check(&["a"], Some("7-1"), None, &[("a", "7-1")]);
        // One of an earlier connection, which began before this one.
        check(&["a"], Some("3-1"), None, &[("a", "5-0")]);
        check(&["a"], Some("zzzzzz;;9-0 b"), None, &[("a", "5-0")]);
        check(&["a"], Some("nonsense"), None, &[("a", "5-0")]);
        check(
            &["a", "b"],
            Some("7-1"),
            None,
            &[("a", "5-0"), ("b", "5-0")],
        );
        check(
            &["a", "b"],
            Some("abcdef;;7-1,8-0"),
            None,
            &[("a", "7-1"), ("b", "8-0")],
        );
        check(&["a"], Some("abcdef;;"), None, &[]);
        // The stream was begun anew with lower IDs.
        check(&["a"], Some("abcdef;;3-1"), None, &[("a", "3-1")]);
        check(
            &["a"],
            Some("abcdef;J%C3%B6;7-1,9-9 b%20c"),
            Some("Jö"),
            &[("a", "7-1"), ("b c", "9-9")],
        );
        for bad in [
            "abcdef;;7-1,7-1 a",
            "abcdef;;7-1,7-1",
            "abcdef;;x a",
            "abcdef;;7-1 tailcast%3Aaudit",
            "abcdef;;7-1 %ff",
            "abcdef;%ff;7-1",
            "abcdef;7-1",
        ] {
            check(&["a"], Some(bad), None, &[("a", "5-0")]);
        }
    }

    #[test]
    fn written() {
        let place = |name: Option<&str>, rooms: &[(&str, u64)]| Place {
            name: name.map(Into::into),
            rooms: rooms
                .iter()
                .map(|(name, ms)| (room(name), EntryId::new(*ms, 0)))
                .collect(),
        };
        let check = |place: Place, first: &[&str], want: &str| {
            let offset = place.write("abcdefgh", &pid(first).rooms);
            assert_eq!(offset.as_slice(), want.as_bytes());
        };
        check(place(None, &[("a", 7)]), &["a"], "7-0");
        check(place(None, &[("b", 7)]), &["a"], "abcdef;;7-0 b");
        // Before where it began: the stream is another one.
        check(place(None, &[("a", 3)]), &["a"], "abcdef;;3-0");
        check(place(Some("x"), &[("a", 7)]), &["a"], "abcdef;x;7-0");
        check(place(None, &[]), &["a"], "abcdef;;");
        check(
            place(None, &[("a", 7), ("b", 8), ("c/d", 9)]),
            &["a", "b"],
            "abcdef;;7-0,8-0,9-0 c%2Fd",
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            first in prop::collection::btree_set("[a-z,; é]{1,5}", 0..4),
            rooms in prop::collection::btree_map("[a-z,; é]{1,5}", 1u64..99, 0..5),
            name in prop::option::of("\\PC{1,9}"),
        ) {
            let first: Vec<&str> = first.iter().map(String::as_str).collect();
            let place = Place {
                name: name.map(Into::into),
                rooms: rooms.iter().map(|(name, ms)| (room(name), EntryId::new(*ms, 3))).collect(),
            };
            let offset = place.write("abcdefgh", &pid(&first).rooms);
            let offset = std::str::from_utf8(&offset).unwrap();
            prop_assert_eq!(Place::of(&pid(&first), Some(offset)), place);
        }
    }
}
