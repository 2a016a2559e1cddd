//! For whoever runs a node: liveness, readiness, and the metrics page.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

use crate::frontend::{ApiError, FrontendState};

mod relay;

/// What prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Adds the relay's numbers to the metrics page.
pub fn register(state: &FrontendState) {
    let collector = Box::new(relay::RelayCollector(state.people.clone()));
    state
        .metrics
        .register(|registry| registry.register_collector(collector));
}

/// `GET /health/live`: this process answers.
pub(crate) async fn live() -> Response {
    status("live")
}

/// `GET /health/ready`: this node can serve, so a balancer may send it clients.
pub(crate) async fn ready(State(state): State<Arc<FrontendState>>) -> Result<Response, ApiError> {
    if state.drain.began() {
        return Err(ApiError::draining());
    }
    match state.relay().health() {
        Ok(()) => Ok(status("ready")),
        // Whatever Redis said, to a balancer it's the same: not now.
        Err(error) => Err(ApiError::new(503, error.code(), error.to_string())),
    }
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(state): State<Arc<FrontendState>>) -> Result<Response, ApiError> {
    let text = state
        .metrics
        .text()
        .map_err(|_| ApiError::internal("the metrics could not be written"))?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn status(word: &str) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, format!("{{\"status\":\"{word}\"}}\n")).into_response()
}
