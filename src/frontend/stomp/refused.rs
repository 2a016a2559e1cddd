//! [`Refused`]: why a client is told ERROR, and its connection ends.

use std::borrow::Cow;
use std::time::Duration;

use super::frame::FrameError;
use crate::auth::AuthError;
use crate::people::Refusal;
use crate::people::session::CantJoin;
use crate::relay::close::CloseReason;
use crate::relay::connection::NotJoined;
use crate::relay::log::LogError;

/// What an ERROR says, and how the connection is closed behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// A word for programs.
    pub(super) code: &'static str,
    /// A sentence for people.
    pub(super) message: String,
    /// When it makes sense to come again, if that is known.
    pub(super) retry: Option<Duration>,
    /// How the connection is closed.
    pub(super) reason: CloseReason,
}

impl Refused {
    fn new(
        code: &'static str,
        message: impl ToString,
        close: fn(Cow<'static, str>) -> CloseReason,
    ) -> Self {
        let message = message.to_string();
        Refused {
            code,
            reason: close(message.clone().into()),
            message,
            retry: None,
        }
    }

    /// The frame makes no sense.
    pub(super) fn bad(message: impl ToString) -> Self {
        Refused::new("bad_request", message, CloseReason::BadRequest)
    }

    /// There is nothing of that kind here.
    pub(super) fn unsupported(message: impl ToString) -> Self {
        Refused::new("unsupported", message, CloseReason::BadRequest)
    }

    /// One room in too many subscriptions.
    pub(super) fn many_subscriptions() -> Self {
        let text = "this connection has too many subscriptions of that room; end one";
        Refused::new("too_many_subscriptions", text, CloseReason::Policy)
    }

    /// Versions have nothing in common.
    pub(super) fn version() -> Self {
        let text = "this server speaks STOMP 1.0, 1.1 and 1.2; name one in accept-version";
        Refused::new("bad_version", text, CloseReason::BadRequest)
    }
}

impl From<FrameError> for Refused {
    fn from(error: FrameError) -> Self {
        let (code, close): (_, fn(Cow<'static, str>) -> CloseReason) = match error {
            FrameError::TooLarge(_) => {
                ("too_large", |_| CloseReason::TooLarge("--stomp-max-frame"))
            }
            // No setting says how much of these; the text does.
            FrameError::LongLine | FrameError::ManyHeaders => {
                ("too_large", |text| CloseReason::Protocol(1009, text))
            }
            _ => ("bad_frame", CloseReason::BadRequest),
        };
        Refused::new(code, error, close)
    }
}

impl From<AuthError> for Refused {
    fn from(error: AuthError) -> Self {
        match &error {
            AuthError::Missing => Refused::new(
                "unauthenticated",
                "a token is needed: send it as passcode, or as Authorization: Bearer",
                CloseReason::Forbidden,
            ),
            AuthError::Invalid(_) | AuthError::Expired => {
                Refused::new("unauthenticated", error, CloseReason::Unauthenticated)
            }
            AuthError::Unavailable(_) => {
                Refused::new("auth_unavailable", error, CloseReason::Internal)
            }
        }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let close: fn(Cow<'static, str>) -> CloseReason = match &refusal {
            Refusal::Append(_) | Refusal::Log(_) => CloseReason::NotStored,
            Refusal::SlowMode(_) | Refusal::TooFast(_) | Refusal::RoomTooFast(_) => {
                CloseReason::TooFast
            }
            Refusal::BadRequest(_) | Refusal::Reserved(_) => CloseReason::BadRequest,
            _ => CloseReason::Forbidden,
        };
        let retry = refusal.retry();
        Refused {
            retry,
            ..Refused::new(refusal.code(), refusal, close)
        }
    }
}

impl From<CantJoin> for Refused {
    fn from(error: CantJoin) -> Self {
        match error {
            CantJoin::Refused(refusal) => refusal.into(),
            CantJoin::Join(_) => Refused::new(error.code(), error, CloseReason::Policy),
        }
    }
}

impl From<&NotJoined> for Refused {
    fn from(error: &NotJoined) -> Self {
        let close: fn(Cow<'static, str>) -> CloseReason = match error {
            NotJoined::Barred(_) => CloseReason::Forbidden,
            NotJoined::Log(LogError::WrongType) => CloseReason::BadRequest,
            NotJoined::Log(_) => CloseReason::Internal,
        };
        Refused::new(error.code(), error, close)
    }
}
