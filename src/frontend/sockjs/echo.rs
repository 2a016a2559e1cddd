//! A service that says what it's told, and the endpoints with it that the protocol's own test suite
//! expects of a server.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

use super::{Endpoint, Options, mark_cached};
use crate::auth::{AuthError, Identity};
use crate::frontend::FrontendState;
use crate::frontend::carried::{Envelope, Service};
use crate::frontend::carrier::{Carrier, Finish};
use crate::frontend::record::{self, Kind, Record};
use crate::frontend::websocket::{Dialogue, Inbound};
use crate::relay::close::CloseReason;
use crate::relay::connection::Connection;
use crate::relay::format::{Format, GapFrame};
use crate::relay::outlet::Outlet;

/// Nobody here is in a room, so that only ends are written.
static ECHO: Format = Format {
    slot: 9,
    entry: |_, _| Default::default(),
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
    close: |reason| {
        let code = reason.code().to_be_bytes();
        let text = reason.text();
        match reason {
            CloseReason::Gone => Default::default(),
            _ => record::bare(Kind::Close, &[&code, text.as_bytes()].concat()),
        }
    },
};

struct Ends(&'static Envelope);

impl Finish for Ends {
    fn finish(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        if let (Kind::Close, Some((code, text))) = (record.kind, record.body.split_first_chunk()) {
            let text = String::from_utf8_lossy(text);
            (self.0.close)(out, u16::from_be_bytes(*code), &text);
        }
    }
}

#[derive(Clone)]
struct Echo {
    state: Arc<FrontendState>,
    /// Whether it ends a session as soon as that is open.
    closes: bool,
}

struct Talk {
    state: Arc<FrontendState>,
    connection: Connection,
    envelope: &'static Envelope,
}

impl Service for Echo {
    type Talk = Talk;

    fn open(
        &self,
        carrier: Arc<Carrier>,
        envelope: &'static Envelope,
        _who: Result<Identity, AuthError>,
    ) -> Talk {
        let lane = carrier.lane(Ends(envelope));
        let mut talk = Talk {
            state: self.state.clone(),
            connection: self.state.relay().connect(lane, &ECHO),
            envelope,
        };
        if self.closes {
            talk.end();
        }
        talk
    }

    fn state(&self) -> &Arc<FrontendState> {
        &self.state
    }

    fn max_message(&self) -> usize {
        1024 * 1024
    }
}

impl Talk {
    fn end(&mut self) {
        let reason = CloseReason::Protocol(3000, "Go away!".into());
        self.connection.outlet().close(reason);
    }
}

impl Dialogue for Talk {
    fn state(&self) -> &Arc<FrontendState> {
        &self.state
    }

    fn outlet(&self) -> &Arc<Outlet> {
        self.connection.outlet()
    }

    async fn ready(&mut self) {
        self.connection.ready().await;
    }

    fn on_frame(&mut self, frame: Inbound<'_>, _now: Instant) {
        let bytes = match frame {
            Inbound::Text(text) => text.as_bytes(),
            Inbound::Binary(bytes) => bytes,
        };
        let mut out = Vec::new();
        self.envelope.put(&mut out, bytes);
        self.outlet().send(record::bare(Kind::Own, &out));
    }

    fn check(&mut self, _now: Instant) -> Option<Instant> {
        None
    }

    fn say_bye(&mut self, _retry_ms: u64) {}

    async fn settled(&mut self) {}
}

/// The endpoints of the protocol's test suite: `/echo`, `/close`, `/disabled_websocket_echo` and
/// `/cookie_needed_echo`, for pages of any origin.
pub fn profile(state: Arc<FrontendState>) -> Router {
    let options = Options {
        // What the suite counts on.
        response_max: 4096,
        client: "/sockjs.min.js".to_owned(),
        ..Options::default()
    };
    let endpoint = |closes: bool, options: Options| {
        let state = state.clone();
        Endpoint::new(Echo { state, closes }, options)
    };
    let endpoints = [
        ("/echo", endpoint(false, options.clone())),
        ("/close", endpoint(true, options.clone())),
        (
            "/disabled_websocket_echo",
            endpoint(
                false,
                Options {
                    websocket: false,
                    ..options.clone()
                },
            ),
        ),
        (
            "/cookie_needed_echo",
            endpoint(
                false,
                Options {
                    cookie: true,
                    ..options
                },
            ),
        ),
    ];
    Router::new()
        .fallback(serve)
        .with_state(Arc::new(endpoints))
}

type Endpoints = [(&'static str, Arc<Endpoint<Echo>>); 4];

async fn serve(State(endpoints): State<Arc<Endpoints>>, request: Request) -> Response {
    let asked = request.headers().clone();
    let path = request.uri().path().to_owned();
    let found = endpoints.iter().find_map(|(base, endpoint)| {
        let rest = path.strip_prefix(base)?;
        (rest.is_empty() || rest.starts_with('/')).then_some((rest, endpoint))
    });
    let Some((rest, endpoint)) = found else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let mut response = match request.method() {
        &Method::OPTIONS => {
            let mut response = StatusCode::NO_CONTENT.into_response();
            mark_preflight(&asked, response.headers_mut());
            response
        }
        _ => endpoint.answer(rest, request).await.into_response(),
    };
    mark(&asked, response.headers_mut());
    response
}

/// Lets any page in, as only a test may.
fn mark(asked: &HeaderMap, headers: &mut HeaderMap) {
    if let Some(origin) = asked.get(ORIGIN) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let yes = HeaderValue::from_static("true");
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
    }
}

fn mark_preflight(asked: &HeaderMap, headers: &mut HeaderMap) {
    mark_cached(headers);
    let methods = HeaderValue::from_static("OPTIONS, GET, POST");
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("31536000"));
    let names = asked.get(ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(names) = names.filter(|names| !names.is_empty()) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
}
