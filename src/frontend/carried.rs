//! What is spoken over several kinds of connections: WebSockets, bare TCP, and the transports of
//! SockJS. A [`Service`] opens dialogues, and an [`Envelope`] is what a carrier puts around one of
//! their messages, so that neither has to know the other.

use std::sync::Arc;

use axum::http::HeaderMap;

use super::FrontendState;
use super::carrier::Carrier;
use super::websocket::Dialogue;
use super::websocket::frame::{Opcode, put_frame};
use crate::auth::{AuthError, Identity};

/// How messages are put on a carrier.
pub(crate) struct Envelope {
    /// Appends one message, which is all of these parts.
    pub(crate) wrap: fn(&mut Vec<u8>, &[&[u8]]),
    /// Appends the end, by a close code and a reason; nothing, if the carrier has no words for it.
    pub(crate) close: fn(&mut Vec<u8>, u16, &str),
    /// Whether messages must be UTF-8.
    pub(crate) text_only: bool,
}

/// Opens dialogues for whoever comes.
pub(crate) trait Service: Clone + Send + Sync + 'static {
    /// One client's.
    type Talk: Dialogue;

    /// Begins one. `who` sent the request that it began with.
    fn open(
        &self,
        carrier: Arc<Carrier>,
        envelope: &'static Envelope,
        who: Result<Identity, AuthError>,
    ) -> Self::Talk;

    /// The node's front ends.
    fn state(&self) -> &Arc<FrontendState>;

    /// The WebSocket subprotocol to confirm to a client, if it offers one that is spoken.
    fn subprotocol(&self, _headers: &HeaderMap) -> Option<&'static str> {
        None
    }

    /// Most bytes of a message in.
    fn max_message(&self) -> usize;
}

/// A WebSocket message is a message: text if it's UTF-8, so that a browser gets a string.
pub(crate) static WEBSOCKET: Envelope = Envelope {
    wrap: |out, parts| {
        let is_text = parts.iter().all(|part| std::str::from_utf8(part).is_ok());
        let opcode = if is_text {
            Opcode::Text
        } else {
            Opcode::Binary
        };
        put_frame(out, opcode, parts);
    },
    close: |out, code, text| {
        put_frame(out, Opcode::Close, &[&code.to_be_bytes(), text.as_bytes()]);
    },
    text_only: false,
};

/// Nothing is put around it.
pub(crate) static BARE: Envelope = Envelope {
    wrap: |out, parts| parts.iter().for_each(|part| out.extend_from_slice(part)),
    close: |_, _, _| {},
    text_only: false,
};
