//! WebSocket connections.

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;

use super::{ApiError, FrontendState, Run, SocketQuery, Taken};
use crate::metrics::Kind;
use crate::relay::entry::RoomName;

/// A handshake that was accepted.
pub(crate) struct Accepted {
    /// The response head.
    pub(crate) head: Bytes,
    /// What runs the socket.
    pub(crate) run: Run,
}

/// Answers a handshake.
pub(crate) fn upgrade(
    _state: Arc<FrontendState>,
    _headers: &HeaderMap,
    _query: &SocketQuery,
    _room: RoomName,
) -> Result<Accepted, ApiError> {
    let _: Run = Box::new(|Taken { read_ahead, .. }| Box::pin(async { drop(read_ahead) }));
    let _ = [Kind::WsRaw, Kind::WsJson];
    Err(ApiError::new(501, "not_implemented", "no sockets yet"))
}
