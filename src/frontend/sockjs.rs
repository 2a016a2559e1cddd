//! SockJS: messages of text over WebSockets and, where those don't get through, over HTTP requests.
//! What the messages are is a `Service`'s affair.
//!
//! Reading order: `framing` and `path` are pure; `session` is a client that comes by requests, and
//! `transport` what each of those answers; `socket` is one that comes by a WebSocket.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, EXPIRES, IF_NONE_MATCH, SET_COOKIE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::future::ready;
use rand::RngCore;

use self::framing::SOCKET;
use self::path::{Path, Transport};
use self::session::Sessions;
use self::socket::Framed;
use super::carried::{Service, WEBSOCKET};
use super::carrier::Carrier;
use super::websocket::{self, Handshake};
use super::{ApiError, Run, check_long_lived, identify, takeover, wants_socket};
use crate::auth::{AuthError, Identity};
use crate::metrics::Kind;

mod echo;
mod framing;
mod path;
mod session;
mod socket;
mod transport;

pub use echo::profile;

#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    framing::fuzz(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = path::Path::parse(text);
    }
}

/// A streaming response ends after so many bytes, as browsers keep all of it (SockJS's default).
const RESPONSE_MAX: usize = 128 * 1024;

const GREETING: &str = "Welcome to SockJS!\n";

/// For what must never be cached.
const NOT_CACHED: HeaderValue =
    HeaderValue::from_static("no-store, no-cache, no-transform, must-revalidate, max-age=0");

/// A year.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=31536000");

/// How an endpoint differs from others.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether WebSockets are to be had.
    pub websocket: bool,
    /// Whether clients are to bring a cookie by which balancers find the node of their session.
    pub cookie: bool,
    /// Bytes after which a streaming response ends.
    pub response_max: usize,
    /// Where the iframe page finds the client library; empty is no such page.
    pub client: String,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            websocket: true,
            cookie: false,
            response_max: RESPONSE_MAX,
            client: String::new(),
        }
    }
}

/// SockJS at one path, for one service.
pub(crate) struct Endpoint<S> {
    service: S,
    sessions: Arc<Sessions>,
    options: Options,
}

impl<S: Service> Endpoint<S> {
    /// An endpoint without clients.
    pub(crate) fn new(service: S, options: Options) -> Arc<Self> {
        Arc::new(Endpoint {
            service,
            sessions: Arc::default(),
            options,
        })
    }

    /// Answers a request for `path`, which is what follows the endpoint's own.
    pub(crate) async fn answer(&self, path: &str, request: Request) -> Result<Response, ApiError> {
        let Some(path) = Path::parse(path) else {
            return Err(ApiError::new(404, "not_found", "SockJS has no such path"));
        };
        let allowed = match path {
            Path::Session(_, Transport::Xhr | Transport::XhrSend | Transport::XhrStreaming) => {
                Method::POST
            }
            _ => Method::GET,
        };
        let (mut parts, body) = request.into_parts();
        if parts.method != allowed {
            return Ok(not_allowed(&allowed));
        }
        match path {
            Path::Greeting => {
                Ok(([(CONTENT_TYPE, "text/plain; charset=UTF-8")], GREETING).into_response())
            }
            Path::Iframe => self.iframe(&parts.headers),
            Path::Info => Ok(self.info()),
            Path::Raw => self.socket(&mut parts, true).await,
            Path::Session(_, Transport::WebSocket) => self.socket(&mut parts, false).await,
            Path::Session(name, transport) => {
                self.service
                    .state()
                    .settings
                    .allowed_origins
                    .check(&parts.headers)?;
                let who = identify::socket(self.service.state(), &parts).await?;
                let mut response = match transport {
                    Transport::XhrSend => self.take(name, &who, body).await?,
                    _ => self.receive(name, transport, who).await?,
                };
                self.set_cookie(&parts.headers, response.headers_mut());
                Ok(response)
            }
        }
    }

    /// What a client asks for first, also to see how fast it's answered.
    fn info(&self) -> Response {
        let info = serde_json::json!({
            "websocket": self.options.websocket,
            "cookie_needed": self.options.cookie,
            "origins": ["*:*"],
            "entropy": rand::rng().next_u32(),
        });
        let headers = [
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/json; charset=UTF-8"),
            ),
            (CACHE_CONTROL, NOT_CACHED),
        ];
        (headers, info.to_string()).into_response()
    }

    /// A page that very old browsers load to get around their origin.
    fn iframe(&self, headers: &HeaderMap) -> Result<Response, ApiError> {
        let client = &self.options.client;
        if client.is_empty() {
            return Err(ApiError::new(
                404,
                "not_found",
                "this node has no iframe page; no browser of today needs it",
            ));
        }
        let page = iframe_page(client);
        let digest = ring::digest::digest(&ring::digest::SHA256, page.as_bytes());
        let tag: String = digest.as_ref()[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let tag = format!("\"{tag}\"");
        if headers
            .get(IF_NONE_MATCH)
            .is_some_and(|known| *known == *tag)
        {
            return Ok(StatusCode::NOT_MODIFIED.into_response());
        }
        let mut response = page.into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=UTF-8"),
        );
        mark_cached(headers);
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        Ok(response)
    }

    /// A WebSocket, with framing or without.
    async fn socket(&self, parts: &mut Parts, is_raw: bool) -> Result<Response, ApiError> {
        if !self.options.websocket {
            return Err(ApiError::new(
                404,
                "not_found",
                "WebSockets are disabled here",
            ));
        }
        if !wants_socket(&parts.headers) {
            return Err(ApiError::bad_request(
                "Can \"Upgrade\" only to \"WebSocket\".",
            ));
        }
        let state = self.service.state().clone();
        check_long_lived(&state, &parts.headers)?;
        state.settings.allowed_origins.check(&parts.headers)?;
        let handshake = Handshake::of(&parts.headers)?;
        let who = identify::socket(&state, parts).await?;
        let subprotocol = self.service.subprotocol(&parts.headers).filter(|_| is_raw);
        let head = handshake.head(subprotocol);
        // Escaped, a message may become longer.
        let longest = self.service.max_message().saturating_mul(2);
        let run = self.run(who, is_raw, longest);
        Ok(takeover::leave_http(parts, head, run).await)
    }

    fn run(&self, who: Result<Identity, AuthError>, is_raw: bool, longest: usize) -> Run {
        let service = self.service.clone();
        Box::new(move |taken| {
            let carrier = Carrier::over(taken.socket.wire());
            let (socket, ahead) = (taken.socket, taken.read_ahead);
            if is_raw {
                let talk = service.open(carrier, &WEBSOCKET, who);
                return websocket::run(socket, ahead, longest, Kind::SockJs, talk).boxed();
            }
            if socket::open(&socket).is_err() {
                return ready(()).boxed();
            }
            let talk = Framed::new(service.open(carrier, &SOCKET, who));
            websocket::run(socket, ahead, longest, Kind::SockJs, talk).boxed()
        })
    }

    /// The cookie by which a balancer may tell where a session is.
    fn set_cookie(&self, request: &HeaderMap, response: &mut HeaderMap) {
        if !self.options.cookie {
            return;
        }
        let sent = request.get_all(COOKIE).iter();
        let sent = sent
            .filter_map(|cookies| cookies.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .find_map(|cookie| cookie.trim().strip_prefix("JSESSIONID="));
        let cookie = format!("JSESSIONID={}; path=/", sent.unwrap_or("dummy"));
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.append(SET_COOKIE, cookie);
        }
    }
}

fn not_allowed(allowed: &Method) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(allowed) = HeaderValue::from_str(allowed.as_str()) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

fn mark_cached(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, CACHED);
    // Whoever knows Cache-Control goes by that.
    headers.insert(
        EXPIRES,
        HeaderValue::from_static("Thu, 31 Dec 2037 23:55:55 GMT"),
    );
}

/// As the protocol has it, to the letter.
fn iframe_page(client: &str) -> String {
    format!(
        r#"<!DOCTYPE html>
<html>
<head>
  <meta http-equiv="X-UA-Compatible" content="IE=edge" />
  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />
  <script src="{client}"></script>
  <script>
    document.domain = document.domain;
    SockJS.bootstrap_iframe();
  </script>
</head>
<body>
  <h2>Don't panic!</h2>
  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>
</body>
</html>"#
    )
}
