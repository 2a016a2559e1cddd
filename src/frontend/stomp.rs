//! STOMP 1.0, 1.1 and 1.2, over WebSockets, bare TCP, and whatever else carries messages.
//!
//! A room is a destination `/topic/ROOM`, an entry is a MESSAGE, and its ID the `message-id`. Reading
//! order: `frame` is the codec, `destination` and `request` say what a frame means, all of them pure;
//! `header` says which
//! fields of an entry can be headers, and `message` is what goes out; `talk` is one client's dialogue, and `verbs` what it may ask for.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;
use futures_util::FutureExt;

use self::frame::Version;
use self::talk::Talk;
use super::carried::{Envelope, Service, WEBSOCKET};
use super::carrier::Carrier;
use super::websocket::{self, Handshake, subprotocols};
use super::{ApiError, FrontendState, Run};
use crate::auth::{AuthError, Identity};
use crate::metrics::Kind;

mod beats;
mod destination;
mod farewell;
mod frame;
mod header;
mod login;
mod message;
mod refused;
mod request;
mod talk;
mod tcp;
mod transaction;
mod verbs;
mod voice;

pub use destination::Aliases;
pub(crate) use tcp::serve;

#[cfg(fuzzing)]
pub(crate) use frame::fuzz as fuzz_frames;

/// Settings of this front end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Destinations of applications' own.
    pub aliases: Aliases,
    /// Largest frame of a client that has logged in, in bytes.
    pub max_frame: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            aliases: Aliases::default(),
            // RabbitMQ's.
            max_frame: 4 * 1024 * 1024,
        }
    }
}

/// Opens STOMP dialogues.
#[derive(Clone)]
pub(crate) struct Stomp {
    state: Arc<FrontendState>,
}

impl Stomp {
    /// Those of a node.
    pub(crate) fn new(state: Arc<FrontendState>) -> Self {
        Stomp { state }
    }
}

impl Service for Stomp {
    type Talk = Talk;

    fn open(
        &self,
        carrier: Arc<Carrier>,
        envelope: &'static Envelope,
        who: Result<Identity, AuthError>,
    ) -> Talk {
        Talk::open(self.state.clone(), &carrier, envelope, who)
    }

    fn state(&self) -> &Arc<FrontendState> {
        &self.state
    }

    /// The newest that both know; a client that offers none says what it speaks in its CONNECT.
    fn subprotocol(&self, headers: &HeaderMap) -> Option<&'static str> {
        let ours = Version::ALL.map(Version::subprotocol);
        ours.into_iter()
            .find(|ours| subprotocols(headers).any(|theirs| theirs == *ours))
    }

    /// A little more than a frame, so that one that is too large is refused as a frame.
    fn max_message(&self) -> usize {
        let slack = frame::LOGIN_FRAME_MAX;
        self.state.settings.stomp.max_frame.saturating_add(slack)
    }
}

/// Checks a handshake for STOMP, and makes its answer and what follows.
pub(crate) fn upgrade(
    state: Arc<FrontendState>,
    headers: &HeaderMap,
    who: Result<Identity, AuthError>,
) -> Result<(Bytes, Run), ApiError> {
    let handshake = Handshake::of(headers)?;
    let service = Stomp::new(state);
    let head = handshake.head(service.subprotocol(headers));
    let run: Run = Box::new(move |taken| {
        let carrier = Carrier::over(taken.socket.wire());
        let talk = service.open(carrier, &WEBSOCKET, who);
        let (socket, ahead) = (taken.socket, taken.read_ahead);
        websocket::run(socket, ahead, service.max_message(), Kind::Stomp, talk).boxed()
    });
    Ok((head, run))
}
