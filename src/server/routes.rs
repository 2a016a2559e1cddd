//! Which request goes where.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};

use crate::api;
use crate::frontend::origin::Credentialed;
use crate::frontend::query::{self, RootQuery};
use crate::frontend::{
    self, ApiError, FrontendState, SocketQuery, room_at_root, room_of, wants_events, wants_socket,
};
use crate::ops;
use crate::web;

const WELCOME: &str = "\
This is tailcast: every room is a Redis stream, and whoever is in it gets every entry, in order.

  wscat -c ws://HOST/rooms/lobby                            a socket in the room `lobby`
  curl -N -H 'Accept: text/event-stream' HOST/rooms/lobby   the same as server-sent events
  curl -d 'hello' HOST/rooms/lobby                          publish
  curl HOST/rooms/lobby                                     a page of its history

?from=start, last:50, ago:10m or an entry ID says where to begin. See also /status, /metrics.
";

/// Lets these handlers refuse whatever parameter they are sent. Each route has this, or reads one of the
/// types in [`query`], or says why it does neither.
fn plain(methods: MethodRouter<Arc<FrontendState>>) -> MethodRouter<Arc<FrontendState>> {
    methods.route_layer(from_fn(
        async |request: Request, next: Next| match query::check_none(request.uri()) {
            Ok(()) => next.run(request).await,
            Err(error) => error.into_response(),
        },
    ))
}

/// All of tailcast's routes, for this server or for mounting in an axum app of one's own.
pub fn router(state: Arc<FrontendState>) -> Router {
    Router::new()
        .route("/", get(root))
        // A file, which a page may ask for with its version behind a question mark.
        .route("/assets/{name}", get(web::asset))
        .route("/rooms", get(api::people::rooms))
        .route(
            "/rooms/{room}",
            plain(post(api::publish::to_room)).get(room),
        )
        .route("/rooms/{room}/presence", get(api::people::presence))
        .route(
            "/rooms/{room}/moderation",
            plain(post(api::people::moderate)),
        )
        .route(
            "/users/{user}",
            plain(get(api::people::user).post(api::publish::to_user)),
        )
        .route("/publish", plain(post(api::many::publish_to_many)))
        .route("/nodes", plain(get(api::people::nodes)))
        .route("/me", get(api::me::me))
        .route("/register", plain(post(api::accounts::register)))
        .route("/login", plain(post(api::accounts::login)))
        .route("/logout", plain(post(api::accounts::logout)))
        .route("/homepage_json", get(api::home::homepage))
        .route("/stomp", plain(get(stomp)))
        .route("/stomp/websocket", plain(get(stomp)))
        .route("/health/live", plain(get(ops::live)))
        .route("/health/ready", plain(get(ops::ready)))
        .merge(match state.settings.ops_apart {
            true => Router::new(),
            false => for_operators(),
        })
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(
            (state.clone(), Credentialed::Known),
            around,
        ))
        .merge(for_libraries(&state))
        .with_state(state)
}

/// What answers the clients of SockJS and Socket.IO, which bring cookies unasked.
fn for_libraries(state: &Arc<FrontendState>) -> Router<Arc<FrontendState>> {
    socketio(state)
        .merge(sockjs(state))
        .layer(from_fn_with_state(
            (state.clone(), Credentialed::Allowed),
            around,
        ))
}

/// The routes behind `--ops-listen`.
pub(super) fn ops_router(state: Arc<FrontendState>) -> Router {
    for_operators()
        .route("/health/live", plain(get(ops::live)))
        .route("/health/ready", plain(get(ops::ready)))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(
            (state.clone(), Credentialed::Known),
            around,
        ))
        .with_state(state)
}

fn for_operators() -> Router<Arc<FrontendState>> {
    Router::new()
        .route("/metrics", plain(get(ops::metrics)))
        // A page and its files.
        .route("/status", get(ops::status::page))
        .route("/status/{file}", get(ops::status::file))
        .route("/status.json", get(ops::status::numbers))
}

/// Socket.IO, whose query string is the application's as well, with a slash at its path's end and without.
fn socketio(state: &FrontendState) -> Router<Arc<FrontendState>> {
    let path = state.settings.socketio.path.trim_end_matches('/');
    let sessions = Router::new()
        .route(
            &format!("{path}/"),
            any(frontend::socketio::request::handle),
        )
        .route(path, any(frontend::socketio::request::handle));
    web::socketio_files().fold(sessions, |router, name| {
        router.route(&format!("{path}/{name}"), get(web::socketio_client))
    })
}

async fn root(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    if parts.method == Method::GET && wants_socket(&parts.headers) {
        let (name, query) = RootQuery::of(&parts.uri)?.split();
        let room = room_at_root(name.as_deref(), &state.settings)?;
        return frontend::socket(state, &mut parts, query, room).await;
    }
    // Others add to links what tells them who follows them, and the page reads its URL by itself.
    if web::wants_page(&parts.headers) {
        return Ok(web::page(&parts.headers));
    }
    // What a client that isn't asking for a socket yet meant to ask it with.
    RootQuery::of(&parts.uri)?;
    let host = parts
        .headers
        .get("host")
        .and_then(|host| host.to_str().ok());
    Ok(WELCOME
        .replace("HOST", host.unwrap_or("localhost:8080"))
        .into_response())
}

async fn room(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    let room = room_of(&parts.uri, 0)?;
    // The same route answers HEAD, which wants no connection of any kind.
    if parts.method == Method::GET {
        if wants_socket(&parts.headers) {
            let query = SocketQuery::of(&parts.uri)?;
            return frontend::socket(state, &mut parts, query, room).await;
        }
        if wants_events(&parts.headers) {
            return frontend::events(state, &mut parts, room).await;
        }
    }
    api::history::page(&state, &room, &parts).await
}

async fn stomp(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    if parts.method != Method::GET || !wants_socket(&parts.headers) {
        return Err(ApiError::new(
            426,
            "websocket_needed",
            "STOMP is spoken here over a WebSocket: ws://HOST/stomp, subprotocol v12.stomp",
        ));
    }
    frontend::stomp_socket(state, &mut parts).await
}

/// STOMP over SockJS, whose clients add a time to some requests, where the well-known tutorials look for it.
fn sockjs(state: &Arc<FrontendState>) -> Router<Arc<FrontendState>> {
    let endpoint = frontend::sockjs_endpoint(state);
    let answer = any(move |request: Request| {
        let endpoint = endpoint.clone();
        async move {
            let path = request.uri().path().to_owned();
            let rest = path.strip_prefix("/ws").unwrap_or_default();
            endpoint.answer(rest, request).await
        }
    });
    Router::new()
        .route("/ws", answer.clone())
        .route("/ws/", answer.clone())
        .route("/ws/{*rest}", answer)
}

async fn not_found() -> ApiError {
    ApiError::new(
        404,
        "not_found",
        "nothing is here; rooms are at /rooms/{room}, with the name percent-encoded",
    )
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(405, "method_not_allowed", "this method has no meaning here")
}

/// What all requests have in common: CORS and counting. A request whose connection is taken over
/// never comes back here.
async fn around(
    State((state, credentialed)): State<(Arc<FrontendState>, Credentialed)>,
    request: Request,
    next: Next,
) -> Response {
    let origins = &state.settings.allowed_origins;
    let mut asked = HeaderMap::new();
    for name in [
        "origin",
        "host",
        "sec-fetch-site",
        "access-control-request-headers",
    ] {
        for value in request.headers().get_all(name) {
            asked.append(name, value.clone());
        }
    }
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        origins.mark_preflight(&asked, response.headers_mut());
        response
    } else {
        next.run(request).await
    };
    origins.mark(&asked, credentialed, response.headers_mut());
    state.metrics.answered(response.status().as_u16());
    response
}

#[cfg(test)]
mod tests;
