//! Why a connection is closed: one table for every protocol.

use std::borrow::Cow;

use super::format::Gap;

/// Longest reason text a WebSocket close frame can carry, in bytes (RFC 6455, 5.5: 125 less the code).
pub const CLOSE_TEXT_MAX: usize = 123;

/// Why this side closes a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed first; its own code is echoed.
    Gone,
    /// This node is draining; another one, or this one restarted, takes over.
    Drain,
    /// A rule was broken: origin, limits that are not rates.
    Policy(Cow<'static, str>),
    /// The frame or message is larger than this setting says.
    TooLarge(&'static str),
    /// Our fault.
    Internal(Cow<'static, str>),
    /// A raw socket's message was not taken; the text says whether it may be stored all the same.
    NotStored(Cow<'static, str>),
    /// The request can't be served as it is.
    BadRequest(Cow<'static, str>),
    /// Silent for too long, or it stopped reading.
    Timeout(Cow<'static, str>),
    /// A raw socket has no other way to be told of a gap.
    Gap(Gap),
    /// Sends, or publishes, faster than it may.
    TooFast(Cow<'static, str>),
    /// The token or key is bad, or has expired.
    Unauthenticated(Cow<'static, str>),
    /// The client may not be here: it came with no credential, lacks a right, or is banned.
    Forbidden(Cow<'static, str>),
    /// The client broke the WebSocket protocol; the code is RFC 6455's.
    Protocol(u16, Cow<'static, str>),
}

impl CloseReason {
    /// The WebSocket close code.
    pub fn code(&self) -> u16 {
        match self {
            CloseReason::Gone => 1000,
            CloseReason::Drain => 1012,
            CloseReason::Policy(_) => 1008,
            CloseReason::TooLarge(_) => 1009,
            CloseReason::Internal(_) => 1011,
            CloseReason::NotStored(_) => 1013,
            CloseReason::BadRequest(_) => 4400,
            CloseReason::Unauthenticated(_) => 4401,
            CloseReason::Forbidden(_) => 4403,
            CloseReason::Timeout(_) => 4408,
            CloseReason::Gap(_) => 4409,
            CloseReason::TooFast(_) => 4429,
            CloseReason::Protocol(code, _) => *code,
        }
    }

    /// A word for programs, where the protocol has no close codes; part of the client contract.
    pub fn word(&self) -> &'static str {
        match self {
            CloseReason::Gone => "gone",
            CloseReason::Drain => "drain",
            CloseReason::Policy(_) => "policy",
            CloseReason::TooLarge(_) => "too_large",
            CloseReason::Internal(_) => "internal",
            CloseReason::NotStored(_) => "not_stored",
            CloseReason::BadRequest(_) => "bad_request",
            CloseReason::Unauthenticated(_) => "unauthenticated",
            CloseReason::Forbidden(_) => "forbidden",
            CloseReason::Timeout(_) => "timeout",
            CloseReason::Gap(_) => "gap",
            CloseReason::TooFast(_) => "too_fast",
            CloseReason::Protocol(..) => "protocol",
        }
    }

    /// Whether connecting again, just as before, can help.
    pub fn reconnect(&self) -> bool {
        match self {
            CloseReason::Drain
            | CloseReason::Internal(_)
            | CloseReason::NotStored(_)
            | CloseReason::Timeout(_)
            | CloseReason::Gap(_)
            | CloseReason::TooFast(_) => true,
            CloseReason::Gone
            | CloseReason::Policy(_)
            | CloseReason::TooLarge(_)
            | CloseReason::BadRequest(_)
            | CloseReason::Unauthenticated(_)
            | CloseReason::Forbidden(_)
            | CloseReason::Protocol(..) => false,
        }
    }

    /// One line for the client, at most [`CLOSE_TEXT_MAX`] bytes.
    pub fn text(&self) -> Cow<'static, str> {
        let text: Cow<'static, str> = match self {
            CloseReason::Gone => Cow::Borrowed(""),
            CloseReason::Drain => Cow::Borrowed("this node is going away; reconnect"),
            CloseReason::TooLarge(setting) => {
                Cow::Owned(format!("larger than this server takes; see {setting}"))
            }
            CloseReason::Gap(gap) => Cow::Owned(format!(
                "gap ({}); go on with from={}",
                gap.reason.as_str(),
                gap.before.predecessor()
            )),
            CloseReason::Policy(text)
            | CloseReason::Internal(text)
            | CloseReason::NotStored(text)
            | CloseReason::BadRequest(text)
            | CloseReason::Unauthenticated(text)
            | CloseReason::Forbidden(text)
            | CloseReason::Timeout(text)
            | CloseReason::TooFast(text)
            | CloseReason::Protocol(_, text) => text.clone(),
        };
        if text.len() <= CLOSE_TEXT_MAX {
            return text;
        }
        let mut end = CLOSE_TEXT_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Cow::Owned(text[..end].to_owned())
    }
}

#[cfg(test)]
mod tests;
