//! [`Space`]: a client in one namespace: its session, its rooms, what it calls itself.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::notices::Notices;
use super::packet::{self, Kind};
use super::stamp::{Stamp, text_frame};
use crate::frontend::FrontendState;
use crate::frontend::carrier::Lane;
use crate::frontend::record::{self, bare};
use crate::people::session::Session;
use crate::relay::entry::RoomName;

/// How far a namespace is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The connection is the transport's, and nobody has asked for a namespace.
    Unused,
    /// Its rooms are being joined.
    Opening,
    /// The client is in.
    Open,
    /// It's over.
    Over,
}

/// One namespace of one client.
pub(super) struct Space {
    pub(super) name: Arc<str>,
    pub(super) session: Session,
    pub(super) lane: Arc<Lane<Stamp>>,
    pub(super) phase: Phase,
    /// Its rooms in the order they were joined in, but for its inbox. It speaks in the last one.
    pub(super) rooms: SmallVec<[RoomName; 1]>,
    /// Whether its room is one that it never named. The first that it names takes its place.
    pub(super) is_makeshift: bool,
    /// The name it's announced by, once it has given one.
    pub(super) username: Option<Box<str>>,
    /// When its token does.
    pub(super) expires: Option<Instant>,
}

impl Space {
    pub(super) fn new(session: Session, lane: Arc<Lane<Stamp>>) -> Self {
        Space {
            name: Arc::default(),
            session,
            lane,
            phase: Phase::Unused,
            rooms: SmallVec::new(),
            is_makeshift: false,
            username: None,
            expires: None,
        }
    }

    /// The room that it speaks in.
    pub(super) fn current(&self) -> Option<&RoomName> {
        self.rooms.iter().rev().find(|room| self.is_in(room))
    }

    /// Whether it's in a room. It may have been put out of one, or have come into one late.
    pub(super) fn is_in(&self, room: &RoomName) -> bool {
        self.lane.with(|stamp| stamp.head(room).is_some())
    }

    /// Sends an event of ours; the arguments are the inside of an array.
    pub(super) fn emit(&self, args: &[u8]) {
        self.session
            .connection()
            .outlet()
            .send(bare(record::Kind::Aside, args));
    }

    /// Says where the client stands, once all before this is out.
    pub(super) fn tell_rooms(&self) {
        self.emit(b"");
    }

    /// The client is in. What it called itself before its connection broke, it still does.
    pub(super) fn on_open(&mut self, state: &FrontendState) {
        self.phase = Phase::Open;
        if let Some(name) = self.lane.with(|stamp| stamp.place.name.clone()) {
            self.call(name);
        }
        for room in self.rooms.clone() {
            if self.is_in(&room) {
                self.greet(state, &room);
            }
        }
    }

    /// Takes the name that the client gives itself. A known user is called as they are known.
    pub(super) fn call(&mut self, name: Box<str>) {
        let identity = self.session.identity();
        let known = identity.user().map(|user| user.as_str());
        let name = identity.name().or(known).map_or(name, Box::from);
        self.lane
            .with(|stamp| stamp.place.name = Some(name.clone()));
        self.username = Some(name);
    }

    /// The name to show beside what the client says, where its user does not say it already.
    pub(super) fn shown(&self) -> Option<&str> {
        let identity = self.session.identity();
        match identity.user() {
            Some(_) => identity.name(),
            None => self.username.as_deref(),
        }
    }

    /// Tells a room that the client came, by the name it gave itself.
    pub(super) fn greet(&mut self, state: &FrontendState, room: &RoomName) {
        let Some(name) = self.username.as_deref() else {
            return;
        };
        if !self.is_noticed(state) {
            let identity = || self.session.identity().clone();
            let notices = self.lane.with(|stamp| {
                let Stamp { notices, sid, .. } = stamp;
                let new = || Notices::new(state.people.clone(), identity(), sid.clone());
                notices.get_or_insert_with(new).clone()
            });
            notices.came(room, name);
        }
    }

    /// Tells a room that the client goes, if it was told that it came.
    pub(super) fn part(&mut self, room: &RoomName) {
        if let Some(notices) = self.lane.with(|stamp| stamp.notices.clone()) {
            notices.went(room);
        }
    }

    /// Whether people's own notices tell it already.
    fn is_noticed(&self, state: &FrontendState) -> bool {
        state.people.settings().notices && self.session.identity().user().is_some()
    }

    /// Ends it without a word to the client.
    pub(super) fn end(&mut self) {
        if let Some(notices) = self.lane.with(|stamp| stamp.notices.take()) {
            notices.went_from_all();
        }
        if matches!(self.phase, Phase::Opening | Phase::Open) {
            self.phase = Phase::Over;
        }
        self.lane.with(|stamp| stamp.namespace = Arc::default());
        let rooms = self.lane.with(|stamp| std::mem::take(&mut stamp.place));
        // Those that it was in, and if it was never open, those that it came into meanwhile.
        let inbox = self
            .session
            .identity()
            .user()
            .map(|user| user.room().clone());
        let came_into = std::mem::take(&mut self.rooms).into_iter().chain(inbox);
        for room in rooms
            .rooms
            .into_iter()
            .map(|(room, _)| room)
            .chain(came_into)
        {
            self.session.leave(&room);
        }
        self.expires = None;
        // It may have been held back for rooms that are not joined any more.
        let _ = self.lane.uncork(&[]);
    }

    /// Whether the client takes it for open, as nothing was said to it.
    pub(super) fn is_unaware(&self) -> bool {
        self.phase == Phase::Open && self.lane.with(|stamp| !stamp.namespace.is_empty())
    }
}

/// Answers events of a namespace, if they ask for it.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) namespace: Arc<str>,
    /// The number of the event.
    pub(super) ack: Option<u64>,
}

impl Reply {
    /// The answer as a frame, if there is to be one.
    pub(super) fn with(&self, json: &str) -> Option<Bytes> {
        let ack = Some(self.ack?);
        let head = packet::head(Kind::Ack, false, 0, &self.namespace, ack);
        let mut out = Vec::new();
        text_frame(&[head.as_bytes(), b"[", json.as_bytes(), b"]"], &mut out);
        Some(out.into())
    }

    /// Says that it was refused: in the answer, or in an event of its own.
    pub(super) fn error(&self, error: &serde_json::Value) -> Bytes {
        let told = serde_json::json!({"error": error}).to_string();
        self.with(&told).unwrap_or_else(|| {
            let args = super::told::event("error", error.to_string().as_bytes());
            bare(record::Kind::Aside, &args)
        })
    }
}
