//! [`Refusal`]: why somebody may not do what they asked for. One list for every protocol.

use std::time::Duration;

use super::fields::Reserved;
use crate::auth::Right;
use crate::relay::log::{AppendError, LogError};

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No role in the room gives this right.
    #[error("your role in this room lacks the right `{0}`")]
    NoRight(Right),
    /// Only back ends may.
    #[error("only a back end may: use an API key, or a token with the right `server`")]
    NotServer,
    /// A moderator keeps the user out; for how long.
    #[error("banned from this room {0}")]
    Banned(String),
    /// A moderator keeps the user silent; for how long.
    #[error("muted in this room {0}")]
    Muted(String),
    /// The act is against a host.
    #[error("nobody moderates a host")]
    Immune,
    /// A moderator closed the room.
    #[error("this room is closed")]
    Closed,
    /// Slow mode: one message in a while.
    #[error("this room is in slow mode; the next message may come in {} ms", .0.as_millis())]
    SlowMode(Duration),
    /// Beyond the user's rate.
    #[error("too many messages; the next one may come in {} ms", .0.as_millis())]
    TooFast(Duration),
    /// Beyond the room's rate.
    #[error("too many messages in this room; the next one may come in {} ms", .0.as_millis())]
    RoomTooFast(Duration),
    /// An entry has a field that clients may not set.
    #[error("{0}")]
    Reserved(Reserved),
    /// The request makes no sense.
    #[error("{0}")]
    BadRequest(String),
    /// Redis could not do it.
    #[error("{0}")]
    Log(LogError),
    /// The publish has another end than being stored.
    #[error("{0}")]
    Append(AppendError),
}

impl Refusal {
    /// A word for programs, part of the contract.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::NoRight(_) | Refusal::NotServer | Refusal::Immune => "forbidden",
            Refusal::Banned(_) => "banned",
            Refusal::Muted(_) => "muted",
            Refusal::Closed => "closed",
            Refusal::SlowMode(_) => "slow_mode",
            Refusal::TooFast(_) => "too_fast",
            Refusal::RoomTooFast(_) => "room_too_fast",
            Refusal::Reserved(_) => "reserved_field",
            Refusal::BadRequest(_) => "bad_request",
            Refusal::Log(error) => error.code(),
            Refusal::Append(error) => match error {
                AppendError::Refused(error) => error.code(),
                AppendError::TooFast { .. } => "too_fast",
                AppendError::Unknown(_) => "unknown_outcome",
                AppendError::NotReplicated(_) => "not_replicated",
            },
        }
    }

    /// When it makes sense to ask again, if that is known.
    pub fn retry(&self) -> Option<Duration> {
        match self {
            Refusal::SlowMode(retry) | Refusal::TooFast(retry) | Refusal::RoomTooFast(retry) => {
                Some(*retry)
            }
            _ => None,
        }
    }
}

impl From<Reserved> for Refusal {
    fn from(reserved: Reserved) -> Self {
        Refusal::Reserved(reserved)
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        Refusal::Log(error)
    }
}
