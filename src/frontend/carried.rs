//! What is spoken over several kinds of connections: WebSockets, bare TCP, and the transports of
//! SockJS. A [`Service`] opens dialogues, and an [`Envelope`] is what a carrier puts around one of
//! their messages, so that neither has to know the other. What has to be done to the message itself
//! for that is its [`Coding`], which a service may do once for all its clients.

use std::sync::Arc;

use axum::http::HeaderMap;

use super::FrontendState;
use super::carrier::Carrier;
use super::websocket::Dialogue;
use super::websocket::frame::{Opcode, put_frame};
use crate::auth::{AuthError, Identity};

pub(crate) mod quoted;

/// What a message has to be before it's put on a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    /// Any bytes.
    Bytes,
    /// Text, as it stands between the quotes of a JSON string.
    Quoted,
}

impl Coding {
    /// Appends a part of a message. Where it must be text, what is none becomes U+FFFD.
    pub(crate) fn put(self, out: &mut Vec<u8>, part: &[u8]) {
        match self {
            Coding::Bytes => out.extend_from_slice(part),
            Coding::Quoted => quoted::put(out, &String::from_utf8_lossy(part)),
        }
    }
}

/// How messages are put on a carrier.
pub(crate) struct Envelope {
    /// What they have to be.
    pub(crate) coding: Coding,
    /// Appends one message, which is all of these parts, coded already.
    pub(crate) wrap: fn(&mut Vec<u8>, &[&[u8]]),
    /// Appends the end, by a close code and a reason; nothing, if the carrier has no words for it.
    pub(crate) close: fn(&mut Vec<u8>, u16, &str),
}

impl Envelope {
    /// Appends one message as it was before any coding.
    pub(crate) fn put(&self, out: &mut Vec<u8>, message: &[u8]) {
        if self.coding == Coding::Bytes {
            return (self.wrap)(out, &[message]);
        }
        let mut coded = Vec::with_capacity(message.len() + 16);
        self.coding.put(&mut coded, message);
        (self.wrap)(out, &[&coded]);
    }
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
    coding: Coding::Bytes,
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
};

/// Nothing is put around it.
pub(crate) static BARE: Envelope = Envelope {
    coding: Coding::Bytes,
    wrap: |out, parts| parts.iter().for_each(|part| out.extend_from_slice(part)),
    close: |_, _, _| {},
};
