//! [`Aside`]: what a room's subscribers are told beside the stream. It has no ID and no place in the
//! stream's order, and nobody who was away gets it later.

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use smallvec::SmallVec;

use super::format::Format;

/// Who of a room's subscribers is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// All of them.
    All,
    /// Those who asked, when they joined, to be told who is here, and know who was.
    Watchers,
    /// Those who asked and don't know yet, or went without something since. They are watchers from
    /// then on.
    Newcomers,
}

/// Something told beside the stream, encoded once for each format that has words for it.
pub struct Aside {
    /// What it is, as the client contract names it.
    pub kind: &'static str,
    /// Who is told.
    pub audience: Audience,
    /// The number of a connection that is not told.
    pub except: Option<u64>,
    /// Whether a socket that is behind goes without it. What does not shed waits, among the
    /// socket's own frames, and so must be rare.
    pub sheds: bool,
    json: Json,
    frames: Mutex<Frames>,
}

/// By the slots of their formats.
type Frames = SmallVec<[(u8, Option<Bytes>); 1]>;

type Json = LazyLock<Bytes, Box<dyn FnOnce() -> Bytes + Send>>;

impl Aside {
    /// For all subscribers, and nobody goes without it.
    pub fn new(kind: &'static str, json: impl Into<Bytes>) -> Self {
        let json = json.into();
        Aside::lazily(kind, move || json)
    }

    /// The same, whose JSON is made when the first connection gets it, if any does.
    pub fn lazily(kind: &'static str, json: impl FnOnce() -> Bytes + Send + 'static) -> Self {
        Aside {
            kind,
            json: LazyLock::new(Box::new(json)),
            audience: Audience::All,
            except: None,
            sheds: false,
            frames: Mutex::default(),
        }
    }

    /// The whole of it as one JSON object, `type` and `room` included.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Its frame in one wire format, if that has one.
    pub(super) fn frame(&self, format: &Format) -> Option<Bytes> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, frame)) = frames.iter().find(|(slot, _)| *slot == format.slot) {
            return frame.clone();
        }
        let frame = (format.aside)(self);
        frames.push((format.slot, frame.clone()));
        frame
    }
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aside({}, {:?})", self.kind, self.audience)
    }
}
