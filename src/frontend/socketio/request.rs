//! The requests under `/socket.io/`: which session they are of, and what they want of it.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};

use super::client::Hello;
use super::polling::{Polled, Rejected};
use super::sid::Sid;
use super::{Key, socket};
use crate::frontend::forward::{self, ForwardError, Hop};
use crate::frontend::query::SocketioQuery;
use crate::frontend::websocket::{Handshake, frame};
use crate::frontend::{
    ApiError, FrontendState, Run, check_long_lived, identify, takeover, wants_socket,
};
use crate::relay::close::CloseReason;

/// The version of Engine.IO that clients of Socket.IO 3 and 4 speak.
const VERSION: &str = "4";

/// A request that can't be served; the numbers are the reference server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Transport,
    UnknownSession,
    Method,
    BadRequest,
    Version,
    TooLarge,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, code, message) = match self {
            Refused::Transport => (400, 0, "Transport unknown"),
            Refused::UnknownSession => (400, 1, "Session ID unknown"),
            Refused::Method => (400, 2, "Bad handshake method"),
            Refused::BadRequest => (400, 3, "Bad request"),
            Refused::Version => (400, 5, "Unsupported protocol version"),
            Refused::TooLarge => (413, 3, "Payload too large"),
        };
        let body = format!("{{\"code\":{code},\"message\":\"{message}\"}}");
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        answer(status, "application/json", body.into())
    }
}

impl From<Rejected> for Refused {
    fn from(_: Rejected) -> Self {
        Refused::BadRequest
    }
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(body: Vec<u8>) -> Response {
    answer(StatusCode::OK, "text/plain; charset=UTF-8", body)
}

/// Any request under our path.
pub(crate) async fn handle(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let asked = SocketioQuery::of(&parts.uri)?;
    match serve(state, asked, parts, body).await {
        Ok(response) => Ok(response),
        Err(Failed::Refused(refused)) => Ok(refused.into_response()),
        Err(Failed::Api(error)) => Err(error),
        Err(Failed::Origin(error)) => {
            let message = format!("Forbidden: {error}");
            let body = serde_json::json!({"code": 4, "message": message}).to_string();
            Ok(answer(
                StatusCode::FORBIDDEN,
                "application/json",
                body.into(),
            ))
        }
    }
}

/// Either of the shapes that an error may have.
enum Failed {
    Refused(Refused),
    Api(ApiError),
    /// A page that may not come in: the reference server's number, and what was wrong.
    Origin(ApiError),
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Failed::Refused(refused)
    }
}

impl From<Rejected> for Failed {
    fn from(rejected: Rejected) -> Self {
        Failed::Refused(rejected.into())
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Failed::Api(error)
    }
}

async fn serve(
    state: Arc<FrontendState>,
    asked: SocketioQuery,
    mut parts: Parts,
    body: Body,
) -> Result<Response, Failed> {
    let origins = &state.settings.allowed_origins;
    origins.check(&parts.headers).map_err(Failed::Origin)?;
    if asked.version.as_deref() != Some(VERSION) {
        return Err(Refused::Version.into());
    }
    let is_socket = match asked.transport.as_deref() {
        Some("polling") => false,
        Some("websocket") => true,
        _ => return Err(Refused::Transport.into()),
    };
    if is_socket != wants_socket(&parts.headers) {
        return Err(Refused::BadRequest.into());
    }
    let Some(text) = asked.sid else {
        if parts.method != Method::GET {
            return Err(Refused::Method.into());
        }
        check_long_lived(&state, &parts.headers)?;
        return begin(state, &mut parts, is_socket).await;
    };
    let sid = Sid::parse(&text).ok_or(Refused::UnknownSession)?;
    if sid.node != state.people.process() {
        return pass_on(&state, sid.node, parts, body, is_socket).await;
    }
    if is_socket {
        check_long_lived(&state, &parts.headers)?;
        return Ok(take_over(state, &mut parts, &sid.secret).await?);
    }
    let polled = state.socketio.find(&sid.secret);
    let polled = polled.ok_or(Refused::UnknownSession)?;
    match parts.method {
        Method::GET => Ok(fetched(&polled).await?),
        Method::POST => Ok(bring(&state, &polled, body).await?),
        _ => Err(Refused::BadRequest.into()),
    }
}

/// Begins a session.
async fn begin(
    state: Arc<FrontendState>,
    parts: &mut Parts,
    is_socket: bool,
) -> Result<Response, Failed> {
    let who = identify::socket(&state, parts).await?;
    let hello = Hello::of(&parts.uri, who)?;
    let sid = Sid::new(state.people.process());
    if !is_socket {
        if state.socketio.is_full() {
            let message = "this node has as many polled sessions as it can; come again later";
            return Err(ApiError::new(503, "too_many_sessions", message).into());
        }
        let (_, opening) = Polled::begin(&state, hello, sid.secret, &sid.text());
        return Ok(text(opening.into()));
    }
    let head = Handshake::of(&parts.headers)?.head(None);
    let sid = sid.text();
    let run: Run = Box::new(move |taken| socket::run(state, hello, &sid, taken));
    Ok(takeover::leave_http(parts, head, run).await)
}

/// A socket that is to take over from polling. What is wrong with that is said by closing it, as
/// that is where clients look.
async fn take_over(
    state: Arc<FrontendState>,
    parts: &mut Parts,
    key: &Key,
) -> Result<Response, ApiError> {
    let head = Handshake::of(&parts.headers)?.head(None);
    let probing = state.socketio.find(key).and_then(|polled| polled.probe());
    let run: Run = match probing {
        Some(probing) => Box::new(move |taken| Box::pin(probing.run(taken))),
        None => Box::new(|taken| {
            Box::pin(async move {
                let reason = CloseReason::Policy("Session ID unknown".into());
                let _ = taken.socket.wire().try_write(&frame::close(&reason));
                taken.socket.shutdown(std::net::Shutdown::Write);
            })
        }),
    };
    Ok(takeover::leave_http(parts, head, run).await)
}

async fn fetched(polled: &Arc<Polled>) -> Result<Response, Refused> {
    Ok(text(polled.fetch().await?))
}

async fn bring(
    state: &FrontendState,
    polled: &Arc<Polled>,
    body: Body,
) -> Result<Response, Refused> {
    let limit = state.settings.socketio.max_payload;
    let body = to_bytes(body, limit).await;
    let body = body.map_err(|_| Refused::TooLarge)?;
    let body = std::str::from_utf8(&body).map_err(|_| Refused::BadRequest)?;
    polled.bring(body).await?;
    Ok(answer(StatusCode::OK, "text/html", b"ok".to_vec()))
}

/// A request of another node's session.
async fn pass_on(
    state: &Arc<FrontendState>,
    process: &str,
    mut parts: Parts,
    body: Body,
    is_socket: bool,
) -> Result<Response, Failed> {
    // It has been passed on once, and whoever did that was wrong.
    if forward::was_passed_on(&parts.headers) {
        return Err(Refused::UnknownSession.into());
    }
    let Some(address) = state.people.address_of(process).await else {
        return Err(Refused::UnknownSession.into());
    };
    let settings = &state.settings.socketio;
    let hop = Hop {
        address,
        // A fetch waits as long as a ping is away.
        patience: settings.ping_interval + settings.ping_timeout,
        max_body: settings.max_payload,
        drain: state.drain.clone(),
        idle: state.socketio.ways.clone(),
    };
    let passed = match is_socket {
        true => hop.socket(&mut parts).await,
        false => hop.request(parts, body).await,
    };
    passed.map_err(|error| {
        tracing::debug!(%error, process, "a request could not be passed on");
        let refused = match error {
            // The same as its own node says.
            ForwardError::Body(_) => Refused::TooLarge,
            _ => Refused::UnknownSession,
        };
        refused.into()
    })
}
