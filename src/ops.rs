//! For whoever runs a node: liveness, readiness, the metrics page, and the status page.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::frontend::{ApiError, FrontendState};
use crate::relay::log::LogError;

mod relay;
mod sampler;
pub(crate) mod status;

/// What prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Adds the relay's numbers to the metrics page, and begins to keep their history for the status page. Must be
/// called within a tokio runtime.
pub fn register(state: &FrontendState) {
    let collector = Box::new(relay::RelayCollector(state.people.clone()));
    state
        .metrics
        .register(|registry| registry.register_collector(collector));
    sampler::start(state);
}

/// `GET /health/live`: this process answers.
pub(crate) async fn live() -> Response {
    word("live")
}

/// `GET /health/ready`: this node can serve, so a balancer may send it clients.
pub(crate) async fn ready(State(state): State<Arc<FrontendState>>) -> Result<Response, ApiError> {
    check(&state)?;
    Ok(word("ready"))
}

/// Why this node can't serve now, if so.
fn check(state: &FrontendState) -> Result<(), ApiError> {
    if state.drain.began() {
        return Err(ApiError::draining());
    }
    // Whatever Redis said, to a balancer it's the same: not now.
    let unwell = |error: LogError| ApiError::new(503, error.code(), error.to_string());
    state.relay().health().map_err(unwell)
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(state): State<Arc<FrontendState>>) -> Result<Response, ApiError> {
    let text = state
        .metrics
        .text()
        .map_err(|_| ApiError::internal("the metrics could not be written"))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn word(word: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, format!("{{\"status\":\"{word}\"}}\n")).into_response()
}
