//! What front ends have in common: their state and settings, the error shape, the way out of HTTP.
//!
//! A front end speaks one protocol with clients and knows only the relay.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::http::header::{ACCEPT, UPGRADE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri};
use axum::response::Response;
use percent_encoding::percent_decode_str;

use crate::accounts::Accounts;
use crate::auth::{self, Auth, AuthSetupError, Right};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::people::board::Board;
use crate::people::{self, People};
use crate::relay::entry::{RoomName, RoomNameError};
use crate::relay::hub::Relay;

pub(crate) mod carried;
pub(crate) mod carrier;
mod error;
mod forward;
pub(crate) mod identify;
pub(crate) mod json;
pub(crate) mod moderation;
pub(crate) mod origin;
pub(crate) mod query;
pub(crate) mod record;
mod socket;
pub mod socketio;
pub mod sockjs;
mod sse;
pub mod stomp;
mod takeover;
pub(crate) mod websocket;
pub(crate) mod ws;

pub use error::ApiError;
pub use origin::{OriginError, Origins};
use query::EventsQuery;
pub(crate) use query::SocketQuery;
pub(crate) use socket::Socket;
pub(crate) use takeover::{Run, Taken, Takeover};

/// Frames per second that are read from a client, unless the settings say otherwise.
///
/// Far more than people or their pages send, and enough for a back end that publishes over one socket. As nothing
/// is refused, a client that needs more is slow and loses nothing, and one that floods can't keep a core busy.
pub const FRAME_RATE: u32 = 1_000;

/// Settings of all front ends.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The room of a socket at `/` that names none.
    pub default_room: RoomName,
    /// Largest frame, and largest body of a publish, in bytes.
    pub max_frame: usize,
    /// Most fields one publish may have.
    pub max_fields: usize,
    /// Whether raw sockets are in their user's own room without asking for it.
    pub raw_inbox: bool,
    /// Whether metrics and the status page are served elsewhere.
    pub ops_apart: bool,
    /// Frames per second that are read from a client, and at once after a quiet second; 0 is no limit.
    pub frame_rate: u32,
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
    /// Those of SockJS.
    pub sockjs: sockjs::Options,
    /// Those of Socket.IO.
    pub socketio: socketio::Settings,
    /// Those of STOMP.
    pub stomp: stomp::Settings,
}

impl Settings {
    /// The defaults, with a default room.
    pub fn new(default_room: RoomName) -> Self {
        Settings {
            default_room,
            max_frame: 64 * 1024,
            max_fields: 64,
            raw_inbox: false,
            ops_apart: false,
            frame_rate: FRAME_RATE,
            ping: Duration::from_secs(25),
            pong: Duration::from_secs(10),
            idle_timeout: None,
            allowed_origins: Origins::default(),
            history_limit: 1_000,
            sse_heartbeat: Duration::from_secs(15),
            sockjs: sockjs::Options::default(),
            socketio: socketio::Settings::default(),
            stomp: stomp::Settings::default(),
        }
    }
}

/// What every front end works with.
pub struct FrontendState {
    /// The people, and the relay under them.
    pub people: Arc<People>,
    /// Tells who somebody is.
    pub auth: Arc<Auth>,
    /// The settings.
    pub settings: Settings,
    /// What is counted.
    pub metrics: Metrics,
    /// Tells when this node goes away.
    pub drain: Drain,
    /// Accounts of this server's own, if it has any.
    pub accounts: OnceLock<Arc<Accounts>>,
    /// What Socket.IO's sessions share.
    pub(crate) socketio: socketio::Sessions,
}

impl FrontendState {
    /// The state of a node's front ends.
    pub fn new(people: Arc<People>, auth: Arc<Auth>, settings: Settings) -> Arc<Self> {
        Arc::new(FrontendState {
            people,
            auth,
            settings,
            metrics: Metrics::default(),
            drain: Drain::default(),
            accounts: OnceLock::new(),
            socketio: socketio::Sessions::default(),
        })
    }

    /// The same, which believes anybody who they say they are, and lets them do everything. Must be
    /// called within a tokio runtime.
    pub fn trusting(
        relay: Arc<Relay>,
        board: Arc<dyn Board>,
        settings: Settings,
    ) -> Result<Arc<Self>, AuthSetupError> {
        let people = People::start(relay, board, people::Settings::default());
        let auth = Auth::new(auth::Settings::default())?;
        Ok(FrontendState::new(people, auth, settings))
    }

    /// The relay.
    pub fn relay(&self) -> &Arc<Relay> {
        self.people.relay()
    }
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

/// The room that a segment of a URL's path names; 0 is the last one, 1 the one before it.
///
/// A path can't carry the names `.` and `..`: every URL parser takes these segments away, percent-encoded
/// or not. Where the segment is `-`, the parameter `room` names the room, if there is one.
pub(crate) fn room_of(uri: &Uri, from_end: usize) -> Result<RoomName, ApiError> {
    if let Some(name) = query::room_beside_path(uri)? {
        return Ok(RoomName::parse(&name)?);
    }
    Ok(RoomName::parse(&segment_of(uri, from_end)?)?)
}

/// A segment of a URL's path, decoded; 0 is the last one, 1 the one before it.
pub(crate) fn segment_of(uri: &Uri, from_end: usize) -> Result<Cow<'_, str>, ApiError> {
    let segment = uri.path().rsplit('/').nth(from_end).unwrap_or_default();
    let name = percent_decode_str(segment).decode_utf8();
    Ok(name.map_err(|_| RoomNameError::NotUtf8)?)
}

/// A switch in a query string.
pub(crate) fn is_on(text: Option<&str>, name: &str) -> Result<bool, ApiError> {
    match text {
        None | Some("" | "0" | "false") => Ok(false),
        Some("1" | "true") => Ok(true),
        Some(_) => Err(ApiError::bad_request(format!("{name} is 1 or 0"))),
    }
}

/// The room of a socket at `/`.
pub(crate) fn room_at_root(name: Option<&str>, settings: &Settings) -> Result<RoomName, ApiError> {
    match name {
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
    let who = identify::socket(&state, parts).await?;
    let accepted = ws::upgrade(state, &parts.headers, &query, room, who)?;
    Ok(takeover::leave_http(parts, accepted.head, accepted.run).await)
}

/// STOMP over SockJS.
pub(crate) fn sockjs_endpoint(state: &Arc<FrontendState>) -> Arc<sockjs::Endpoint<stomp::Stomp>> {
    let service = stomp::Stomp::new(state.clone());
    sockjs::Endpoint::new(service, state.settings.sockjs.clone())
}

/// Answers a request for a WebSocket that speaks STOMP.
pub(crate) async fn stomp_socket(
    state: Arc<FrontendState>,
    parts: &mut Parts,
) -> Result<Response, ApiError> {
    check_long_lived(&state, &parts.headers)?;
    state.settings.allowed_origins.check(&parts.headers)?;
    let who = identify::socket(&state, parts).await?;
    let (head, run) = stomp::upgrade(state, &parts.headers, who)?;
    Ok(takeover::leave_http(parts, head, run).await)
}

/// Answers a request for server-sent events.
pub(crate) async fn events(
    state: Arc<FrontendState>,
    parts: &mut Parts,
    room: RoomName,
) -> Result<Response, ApiError> {
    let query = EventsQuery::of(&parts.uri)?;
    check_long_lived(&state, &parts.headers)?;
    let identity = identify::request(&state, parts).await?;
    state.people.may_now(&identity, &room, Right::Subscribe)?;
    let (head, run) = sse::accept(state, parts, &query, room, identity)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, want: Result<&str, RoomNameError>) {
        let room = room_of(&path.parse().unwrap(), 0);
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
        check("/rooms/-", Ok("-"));
        check("/rooms/-?limit=5", Ok("-"));
        check("/rooms/-?room=..", Ok(".."));
        check("/rooms/-?limit=5&room=%2E", Ok("."));
        check("/rooms/lobby?room=..", Ok("lobby"));
        check("/rooms/-?room=", Err(RoomNameError::Empty));
        check("/rooms/-?room=tailcast:x", Err(RoomNameError::Reserved));
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
}
