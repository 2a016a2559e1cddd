//! What one socket has with the relay, whatever it speaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::limits::Limiter;
use super::{json, raw, wire};
use crate::frontend::FrontendState;
use crate::metrics::Kind;
use crate::relay::close::CloseReason;
use crate::relay::connection::Connection;
use crate::relay::entry::RoomName;
use crate::relay::format::Format;
use crate::relay::log::AppendError;
use crate::relay::position::Position;

/// What a socket speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Raw,
    Json,
}

impl Dialect {
    /// By the word of the `format=` parameter.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        match word {
            "raw" => Some(Dialect::Raw),
            "json" => Some(Dialect::Json),
            _ => None,
        }
    }

    /// By WebSocket subprotocol.
    pub(super) fn from_subprotocol(name: &str) -> Option<Self> {
        Self::from_word(name.strip_prefix("tailcast.")?)
    }

    /// Its WebSocket subprotocol.
    pub(super) fn subprotocol(self) -> &'static str {
        match self {
            Dialect::Raw => "tailcast.raw",
            Dialect::Json => "tailcast.json",
        }
    }

    /// How it's counted.
    pub(super) fn kind(self) -> Kind {
        match self {
            Dialect::Raw => Kind::WsRaw,
            Dialect::Json => Kind::WsJson,
        }
    }

    /// How the relay writes to it.
    pub(super) fn format(self) -> &'static Format {
        match self {
            Dialect::Raw => &raw::RAW,
            Dialect::Json => &wire::JSON,
        }
    }
}

/// A failed publish's code.
pub(super) fn append_code(error: &AppendError) -> &'static str {
    match error {
        AppendError::Refused(error) => error.code(),
        AppendError::TooFast { .. } => "too_fast",
        AppendError::Unknown(_) => "unknown_outcome",
        AppendError::NotReplicated(_) => "not_replicated",
    }
}

/// A frame that carries something for us.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inbound<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    /// Answered already.
    Ping,
}

/// One socket's side of the relay.
pub(super) struct Talk {
    pub(super) connection: Connection,
    pub(super) state: Arc<FrontendState>,
    /// The room of its URL.
    pub(super) room: RoomName,
    pub(super) dialect: Dialect,
    pub(super) limiter: Limiter,
    /// Held also by every page of history under way; none before the first.
    pub(super) histories: Option<Arc<()>>,
    /// Whether what the client sends is read yet.
    pub(super) listens: bool,
}

impl Talk {
    /// Waits until the client may be listened to. A raw one is not told when it has joined, and may
    /// send at once: read before its join, that message would not come back to it.
    pub(super) async fn ready(&mut self) {
        if !self.listens {
            if self.dialect == Dialect::Raw {
                // Boxed, as its timer would make every socket larger for its whole life.
                Box::pin(self.connection.joined()).await;
            }
            self.listens = true;
        }
        self.connection.ready().await;
    }

    /// Joins the room of the URL.
    pub(super) fn begin(&self, from: Position) {
        let joined = match self.dialect {
            Dialect::Raw => raw::joined(self),
            Dialect::Json => json::joined(self.room.clone()),
        };
        if let Err(error) = self.connection.join(self.room.clone(), from, false, joined) {
            self.close(CloseReason::Policy(error.to_string().into()));
        }
    }

    /// Takes one frame in.
    pub(super) fn on_frame(&mut self, inbound: Inbound<'_>, now: Instant) {
        match (
            self.limiter.take(self.state.settings.rate, now),
            self.dialect,
        ) {
            (Ok(()), Dialect::Raw) => match inbound {
                Inbound::Text(text) => raw::on_message(self, text.as_bytes()),
                Inbound::Binary(bytes) => raw::on_message(self, bytes),
                Inbound::Ping => {}
            },
            (Ok(()), Dialect::Json) => match inbound {
                Inbound::Text(text) => json::on_text(self, text),
                Inbound::Binary(_) => json::on_binary(self),
                Inbound::Ping => {}
            },
            (Err(_), Dialect::Raw) => self.close(CloseReason::TooFast),
            // A ping is no request, so there is nothing to refuse.
            (Err(_), Dialect::Json) if matches!(inbound, Inbound::Ping) => {}
            (Err(wait), Dialect::Json) => self.send(wire::too_fast(millis_up(wait))),
        }
    }

    /// Says that the end is near, to those who can hear it.
    pub(super) fn say_bye(&self, retry_ms: u64) {
        if self.dialect == Dialect::Json {
            self.send(wire::bye(retry_ms));
        }
    }

    pub(super) fn send(&self, frame: Bytes) {
        self.connection.outlet().send(frame);
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.connection.outlet().close(reason);
    }
}

/// Whole milliseconds, never too few.
fn millis_up(wait: Duration) -> u64 {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(u64::MAX)
}
