//! What front ends have in common: their state and settings, the error shape, the way out of HTTP.
//!
//! A front end speaks one protocol with clients and knows only the relay.

use std::sync::Arc;
use std::time::Duration;

use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::relay::entry::{RoomName, RoomNameError};
use crate::relay::hub::Relay;
use crate::relay::log::LogError;

pub(crate) mod json;
mod origin;
mod socket;
mod sse;
mod takeover;
pub(crate) mod ws;

pub use origin::{OriginError, Origins};
pub(crate) use socket::Socket;
pub(crate) use takeover::{Run, Taken, Takeover};

/// Settings of all front ends.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The room of a socket at `/` that names none.
    pub default_room: RoomName,
    /// Largest frame, and largest body of a publish, in bytes.
    pub max_frame: usize,
    /// Most fields one publish may have.
    pub max_fields: usize,
    /// Frames a socket may send per second; 0 is no limit.
    pub rate: u32,
    /// How long a socket may be silent before it's pinged.
    pub ping: Duration,
    /// How long a ping may go unanswered.
    pub pong: Duration,
    /// How long a socket may send nothing of its own; `None` is for ever.
    pub idle_timeout: Option<Duration>,
    /// Which web pages may come in.
    pub allowed_origins: Origins,
    /// Most entries on one page of history.
    pub history_limit: usize,
    /// How often server-sent events get a comment, which keeps proxies from giving up.
    pub sse_heartbeat: Duration,
}

impl Settings {
    /// The defaults, with a default room.
    pub fn new(default_room: RoomName) -> Self {
        Settings {
            default_room,
            max_frame: 64 * 1024,
            max_fields: 64,
            rate: 100,
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            idle_timeout: None,
            allowed_origins: Origins::default(),
            history_limit: 1_000,
            sse_heartbeat: Duration::from_secs(15),
        }
    }
}

/// What every front end works with.
pub struct FrontendState {
    /// The relay.
    pub relay: Arc<Relay>,
    /// The settings.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// Tells when this node goes away.
    pub drain: Drain,
}

impl FrontendState {
    /// The state of a node's front ends.
    pub fn new(relay: Arc<Relay>, settings: Settings) -> Arc<Self> {
        Arc::new(FrontendState {
            relay,
            settings,
            metrics: Metrics::default(),
            drain: Drain::default(),
        })
    }
}

/// The query string of a socket or of server-sent events. Unknown names are left alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct SocketQuery {
    /// Where to begin.
    pub(crate) from: Option<String>,
    /// `raw` or `json`.
    pub(crate) format: Option<String>,
    /// The room, for sockets at `/`.
    pub(crate) room: Option<String>,
    /// Another name for `room`.
    pub(crate) roomid: Option<String>,
    /// Where to resume server-sent events, for clients that can't set a header.
    pub(crate) last_event_id: Option<String>,
}

impl SocketQuery {
    /// Reads a URL's query string.
    pub(crate) fn of(uri: &Uri) -> Result<Self, ApiError> {
        query(uri)
    }
}

/// Reads a URL's query string into a type of the caller's.
pub(crate) fn query<T: serde::de::DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    // What follows would put U+FFFD for what is not UTF-8, and so find another room.
    if percent_decode_str(uri.query().unwrap_or_default())
        .decode_utf8()
        .is_err()
    {
        return Err(ApiError::bad_request(
            "a query string is UTF-8, percent-encoded",
        ));
    }
    axum::extract::Query::try_from_uri(uri)
        .map(|query| query.0)
        .map_err(|error| ApiError::bad_request(error.body_text()))
}

/// Whether the request asks for a WebSocket.
pub(crate) fn wants_socket(headers: &HeaderMap) -> bool {
    list_has(headers, UPGRADE, |item| {
        item.eq_ignore_ascii_case("websocket")
    })
}

/// Whether the request asks for server-sent events.
pub(crate) fn wants_events(headers: &HeaderMap) -> bool {
    list_has(headers, ACCEPT, |item| {
        let kind = item.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("text/event-stream")
    })
}

fn list_has(headers: &HeaderMap, name: HeaderName, is: impl Fn(&str) -> bool) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| is(item.trim()))
}

/// The room that a URL's last segment names.
pub(crate) fn room_of(uri: &Uri) -> Result<RoomName, ApiError> {
    let segment = uri.path().rsplit('/').next().unwrap_or_default();
    let name = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| RoomNameError::NotUtf8)?;
    Ok(RoomName::parse(&name)?)
}

/// The room of a socket at `/`.
pub(crate) fn room_at_root(query: &SocketQuery, settings: &Settings) -> Result<RoomName, ApiError> {
    match query.room.as_deref().or(query.roomid.as_deref()) {
        Some(name) => Ok(RoomName::parse(name)?),
        None => Ok(settings.default_room.clone()),
    }
}

/// Answers a request for a WebSocket.
pub(crate) async fn socket(
    state: Arc<FrontendState>,
    parts: &mut Parts,
    query: SocketQuery,
    room: RoomName,
) -> Result<Response, ApiError> {
    check_long_lived(&state, &parts.headers)?;
    state.settings.allowed_origins.check(&parts.headers)?;
    let accepted = ws::upgrade(state, &parts.headers, &query, room)?;
    Ok(takeover::leave_http(parts, accepted.head, accepted.run).await)
}

/// Answers a request for server-sent events.
pub(crate) async fn events(
    state: Arc<FrontendState>,
    parts: &mut Parts,
    query: SocketQuery,
    room: RoomName,
) -> Result<Response, ApiError> {
    check_long_lived(&state, &parts.headers)?;
    let (head, run) = sse::accept(state, &parts.headers, &query, room)?;
    Ok(takeover::leave_http(parts, head, run).await)
}

fn check_long_lived(state: &FrontendState, headers: &HeaderMap) -> Result<(), ApiError> {
    if state.drain.began() {
        return Err(ApiError::draining());
    }
    // Whoever takes the connection over would read the body as the client's first frames.
    let has_body = headers.contains_key("transfer-encoding")
        || headers
            .get("content-length")
            .is_some_and(|length| length != "0");
    if has_body {
        return Err(ApiError::bad_request("this request can't have a body"));
    }
    Ok(())
}

/// An HTTP error. All have the shape `{"error":{"code","message"}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// A word for programs, part of the contract.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
}

impl ApiError {
    /// An error; a status that does not exist becomes 500.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            message: message.into(),
        }
    }

    /// 400: the client should ask otherwise.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(400, "bad_request", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        ApiError::new(500, "internal", message)
    }

    /// 503: this node is going away.
    pub fn draining() -> Self {
        ApiError::new(503, "draining", "this node is going away; try another")
    }
}

impl From<RoomNameError> for ApiError {
    fn from(error: RoomNameError) -> Self {
        ApiError::new(400, "bad_room", error.to_string())
    }
}

impl From<&LogError> for ApiError {
    fn from(error: &LogError) -> Self {
        let status = match error {
            LogError::Unavailable(_)
            | LogError::Busy
            | LogError::Loading
            | LogError::ReadOnly(_) => 503,
            LogError::Full(_) => 507,
            LogError::WrongType => 409,
            LogError::Denied(_) | LogError::Other(_) => 502,
        };
        ApiError::new(status, error.code(), error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455, 4.4: which version would do.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, want: Result<&str, RoomNameError>) {
        let room = room_of(&path.parse().unwrap());
        match want {
            Ok(name) => assert_eq!(room.unwrap().as_str(), name),
            Err(error) => assert_eq!(room.unwrap_err(), ApiError::from(error), "{path}"),
        }
    }

    #[test]
    fn rooms_in_paths() {
        check("/rooms/lobby?from=now", Ok("lobby"));
        check("/nested/rooms/a%2Fb%20c", Ok("a/b c"));
        check("/rooms/%C3%A9", Ok("é"));
        check("/rooms/100%25", Ok("100%"));
        check("/rooms/a+b", Ok("a+b"));
        check("/rooms/", Err(RoomNameError::Empty));
        check("/rooms/%ff", Err(RoomNameError::NotUtf8));
        check("/rooms/a%00", Err(RoomNameError::Control));
        check("/rooms/tailcast%3Ax", Err(RoomNameError::Reserved));
        check(
            &format!("/rooms/{}", "a".repeat(257)),
            Err(RoomNameError::TooLong),
        );
    }

    #[test]
    fn what_a_request_wants() {
        let mut headers = HeaderMap::new();
        assert!(!wants_socket(&headers) && !wants_events(&headers));
        headers.insert(UPGRADE, "h2c, WebSocket".parse().unwrap());
        headers.insert(
            ACCEPT,
            "text/html, text/event-stream;q=0.9".parse().unwrap(),
        );
        assert!(wants_socket(&headers) && wants_events(&headers));
        headers.insert(ACCEPT, "text/*, */*".parse().unwrap());
        assert!(!wants_events(&headers));
    }

    #[test]
    fn queries() {
        let uri = "/?roomid=a%20b&from=last:5&token=x".parse().unwrap();
        let query = SocketQuery::of(&uri).unwrap();
        assert_eq!(query.roomid.as_deref(), Some("a b"));
        assert_eq!(query.from.as_deref(), Some("last:5"));
        let twice = SocketQuery::of(&"/?room=a&room=b".parse().unwrap());
        assert_eq!(twice.unwrap_err().status, 400);
    }
}
