//! What one socket has with the relay, whatever it speaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;
use tracing::debug;

use super::request::{Ref, Request};
use super::{Wish, json, raw, wire};
use crate::auth::{AuthError, Identity};
use crate::frontend::websocket::{self, Dialogue, Inbound};
use crate::frontend::{FrontendState, Taken};
use crate::metrics::Kind;
use crate::people::Refusal;
use crate::people::session::{CantJoin, Join, Session};
use crate::relay::close::CloseReason;
use crate::relay::connection::Connection;
use crate::relay::entry::RoomName;
use crate::relay::outlet::Outlet;

/// How long a socket without a credential may take to send a token. Twice what a page needs that has
/// to fetch one first.
const AUTH_TIME: Duration = Duration::from_secs(10);

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
}

/// What comes of something that has to be waited for before the next frame is read.
pub(super) enum Resumed {
    /// It's known who the client is, or why not.
    Who(Ref, Result<Identity, AuthError>),
    /// A room's rules are known, so that this can be done.
    Request(Ref, Request),
    /// The same for a raw frame.
    Message(Bytes),
}

/// One socket's side of the relay.
pub(super) struct Talk {
    pub(super) session: Session,
    pub(super) state: Arc<FrontendState>,
    /// The room of its URL.
    pub(super) room: RoomName,
    pub(super) wish: Wish,
    pub(super) dialect: Dialect,
    /// Held also by every answer under way that is worked on aside; none before the first.
    pub(super) asides: Option<Arc<()>>,
    /// The frame that was read last, if it has to wait.
    pub(super) pending: Option<BoxFuture<'static, Resumed>>,
    /// Whether what the client sends is read yet.
    pub(super) listens: bool,
    /// When its token expires, or when it must have sent one.
    pub(super) deadline: Option<Instant>,
}

/// Runs a socket whose handshake is answered, to its end.
pub(super) fn run(
    state: Arc<FrontendState>,
    room: RoomName,
    wish: Wish,
    dialect: Dialect,
    who: Result<Identity, AuthError>,
    taken: Taken,
) -> BoxFuture<'static, ()> {
    let Taken {
        socket,
        read_ahead,
        peer,
    } = taken;
    debug!(?peer, %room, ?dialect, "socket opened");
    let format = match dialect {
        Dialect::Raw => wish.frames.format(),
        Dialect::Json => &wire::JSON,
    };
    let connection = state.relay().connect(socket.wire(), format);
    let now = Instant::now();
    let max_frame = state.settings.max_frame;
    let mut talk = Talk {
        session: state.people.session(connection, Identity::nobody()),
        state,
        room,
        wish,
        dialect,
        asides: None,
        pending: None,
        listens: false,
        deadline: None,
    };
    talk.admit(who, now);
    websocket::run(socket, read_ahead, max_frame, dialect.kind(), talk)
}

impl Dialogue for Talk {
    fn state(&self) -> &Arc<FrontendState> {
        &self.state
    }

    fn outlet(&self) -> &Arc<Outlet> {
        self.connection().outlet()
    }

    async fn ready(&mut self) {
        self.may_listen().await;
    }

    fn on_frame(&mut self, frame: Inbound<'_>, _now: Instant) {
        self.take_in(frame);
    }

    fn check(&mut self, now: Instant) -> Option<Instant> {
        self.close_if_over(now);
        self.deadline
    }

    /// To those who can hear it.
    fn say_bye(&mut self, retry_ms: u64) {
        if self.dialect == Dialect::Json {
            self.send(wire::bye(retry_ms));
        }
    }

    async fn settled(&mut self) {
        self.connection().settled().await;
    }
}

impl Talk {
    pub(super) fn connection(&self) -> &Connection {
        self.session.connection()
    }

    /// Whether it's not known yet who the client is.
    pub(super) fn is_outside(&self) -> bool {
        self.session.identity().is_nobody()
    }

    /// Waits until the client may be listened to. A raw one is not told when it has joined, and may
    /// send at once: read before its join, that message would not come back to it.
    async fn may_listen(&mut self) {
        while let Some(pending) = &mut self.pending {
            // Kept where it is until it's done: this future may be dropped before.
            let resumed = pending.await;
            self.pending = None;
            self.resume(resumed);
        }
        if !self.listens {
            if self.dialect == Dialect::Raw {
                // Boxed, as its timer would make every socket larger for its whole life.
                Box::pin(self.connection().joined()).await;
            }
            self.listens = true;
        }
        self.connection().ready().await;
    }

    fn resume(&mut self, resumed: Resumed) {
        let now = Instant::now();
        match resumed {
            Resumed::Who(reference, who) if self.is_outside() => {
                let is_in = who.is_ok();
                self.admit(who, now);
                if is_in {
                    self.send(wire::authenticated(&reference, self.session.identity()));
                }
            }
            Resumed::Who(reference, who) => json::renew(self, reference, who),
            Resumed::Request(reference, request) => json::on_request(self, reference, request),
            Resumed::Message(message) => raw::on_message(self, message),
        }
    }

    /// Lets the client in, or not.
    pub(super) fn admit(&mut self, who: Result<Identity, AuthError>, now: Instant) {
        match who {
            Ok(identity) => {
                self.deadline = identity.expires();
                // Nobody becomes somebody; that can't fail.
                let _ = self.session.renew(identity);
                self.begin();
            }
            // It may yet say who it is, in its first frame.
            Err(AuthError::Missing) if self.dialect == Dialect::Json => {
                self.deadline = Some(now + AUTH_TIME);
            }
            Err(error @ AuthError::Missing) => {
                self.close(CloseReason::Forbidden(error.to_string().into()));
            }
            // The token may be good: the client shall come back with it.
            Err(error @ AuthError::Unavailable(_)) => {
                self.close(CloseReason::Internal(error.to_string().into()));
            }
            Err(error) => self.close(CloseReason::Unauthenticated(error.to_string().into())),
        }
    }

    /// Closes the socket if its time is over.
    fn close_if_over(&mut self, now: Instant) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        self.deadline = None;
        let reason = match self.is_outside() {
            true => CloseReason::Forbidden(AuthError::Missing.to_string().into()),
            false => CloseReason::Unauthenticated(AuthError::Expired.to_string().into()),
        };
        self.close(reason);
    }

    /// Joins the room of the URL, and the user's own.
    fn begin(&mut self) {
        let join = Join {
            from: self.wish.from,
            presence: self.wish.presence,
            is_home: true,
        };
        let joined = match self.dialect {
            Dialect::Raw => raw::joined(self),
            Dialect::Json => json::joined_home(self),
        };
        if let Err(error) = self.session.join(self.room.clone(), join, joined) {
            let text = error.to_string().into();
            return self.close(match error {
                CantJoin::Refused(_) => CloseReason::Forbidden(text),
                CantJoin::Join(_) => CloseReason::Policy(text),
            });
        }
        let user = self.session.identity().user();
        let inbox = user.map(|user| user.room().clone());
        if let (Some(room), Some(from)) = (inbox.filter(|room| *room != self.room), self.wish.inbox)
        {
            let join = Join {
                from,
                presence: false,
                is_home: false,
            };
            let joined = match self.dialect {
                Dialect::Raw => raw::joined(self),
                Dialect::Json => json::joined(room.clone()),
            };
            // It fails only if a socket may be in one room alone.
            let _ = self.session.join(room, join, joined);
        }
    }

    /// Takes one frame in.
    fn take_in(&mut self, inbound: Inbound<'_>) {
        match (self.dialect, inbound) {
            (Dialect::Raw, Inbound::Text(text)) => self.on_raw(text.as_bytes()),
            (Dialect::Raw, Inbound::Binary(bytes)) => self.on_raw(bytes),
            (Dialect::Json, Inbound::Text(text)) => json::on_text(self, text),
            (Dialect::Json, Inbound::Binary(_)) => json::on_binary(self),
        }
    }

    fn on_raw(&mut self, message: &[u8]) {
        // A copy, so that the entry doesn't keep the read buffer, nor the read buffer grow.
        let message = Bytes::copy_from_slice(message);
        match self.session.knows(&self.room) {
            None => raw::on_message(self, message),
            Some(known) => {
                self.pending = Some(Box::pin(async move {
                    known.await;
                    Resumed::Message(message)
                }));
            }
        }
    }

    pub(super) fn refuse(&self, reference: &Ref, room: Option<&RoomName>, refusal: &Refusal) {
        self.send(wire::refused(reference, room, refusal));
    }

    pub(super) fn send(&self, frame: Bytes) {
        self.connection().outlet().send(frame);
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.connection().outlet().close(reason);
    }
}

#[cfg(test)]
mod tests;
