//! WebSockets, whatever is spoken over them: the handshake, frames, and the loop of one socket.
//!
//! tungstenite reads and keeps the protocol's rules. What goes out does not pass it: the relay
//! writes the frames that a `Format` makes of entries straight to the socket, and our own frames
//! join them through the connection's outlet. So an idle socket is a read buffer and one small
//! future.

use axum::http::HeaderMap;
use axum::http::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::ApiError;

pub(crate) mod frame;
mod io;
mod limits;
mod pace;
mod session;
mod watch;

pub(crate) use limits::Limiter;
#[cfg(test)]
pub(crate) use session::size_of_loop;
pub(crate) use session::{Dialogue, Inbound, run};
pub(crate) use watch::Times;

/// Base64 as in a handshake's key. The last character of 16 bytes has four bits that stand for nothing, and they
/// need not be zero: RFC 6455's own example in 4.1, `AQIDBAUGBwgJCgsMDQ4PEC==`, has one of them set.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// A client's part of a handshake, checked.
#[derive(Debug, PartialEq)]
pub(crate) struct Handshake {
    accept: String,
}

impl Handshake {
    /// Checks the headers of a request.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let asks = |name, word: &str| items(headers, name).any(|i| i.eq_ignore_ascii_case(word));
        if !asks(CONNECTION.as_str(), "upgrade") || !asks(UPGRADE.as_str(), "websocket") {
            return Err(ApiError::bad_request(
                "a WebSocket handshake has the headers Connection: Upgrade and Upgrade: websocket",
            ));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|v| v != "13") {
            return Err(ApiError::new(
                426,
                "websocket_version",
                "this server speaks WebSocket version 13",
            ));
        }
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .filter(|key| KEY.decode(key).is_ok_and(|nonce| nonce.len() == 16))
            .ok_or_else(|| ApiError::bad_request("Sec-WebSocket-Key is missing or malformed"))?;
        Ok(Handshake {
            accept: derive_accept_key(key.as_bytes()),
        })
    }

    /// The response head. The subprotocol must be one of those offered.
    pub(crate) fn head(&self, subprotocol: Option<&str>) -> Bytes {
        let mut head = format!(
            "HTTP/1.1 101 Switching Protocols\r\n\
             connection: Upgrade\r\n\
             upgrade: websocket\r\n\
             sec-websocket-accept: {}\r\n",
            self.accept
        );
        if let Some(subprotocol) = subprotocol {
            head.push_str("sec-websocket-protocol: ");
            head.push_str(subprotocol);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into()
    }
}

/// The subprotocols that a client offers, in its order.
pub(crate) fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    items(headers, SEC_WEBSOCKET_PROTOCOL.as_str())
}

/// The items of a header that is a list, over all its lines.
fn items<'a>(headers: &'a HeaderMap, name: &'static str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}
