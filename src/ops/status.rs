//! The status page: a node's numbers, drawn live. The page itself is three static files in this binary; what
//! it draws is `GET /status.json`, which whoever may read `/metrics` may read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::Uri;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::check;
use super::sampler::now_ms;
use crate::frontend::query::StatusQuery;
use crate::frontend::{ApiError, FrontendState, identify, segment_of};
use crate::metrics::COLUMNS;
use crate::people::board::NodeId;
use crate::relay::format::GapReason;

/// The page loads what this node serves, and nothing else; nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// How long a request waits for a drain. Proxies give up after 30 s, some of them.
const HELD: Duration = Duration::from_secs(25);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page's files, by name, beside the page itself.
const FILES: [(&str, &str, &str); 4] = [
    (
        "page.css",
        "text/css; charset=utf-8",
        include_str!("status/page.css"),
    ),
    ("page.js", SCRIPT, include_str!("status/page.js")),
    ("chart.js", SCRIPT, include_str!("status/chart.js")),
    ("format.js", SCRIPT, include_str!("status/format.js")),
];

/// `GET /status`: the page.
pub(crate) async fn page() -> Response {
    answer(HTML, "no-cache", include_str!("status/page.html"))
}

/// `GET /status/{file}`: what the page is made of.
pub(crate) async fn file(uri: Uri) -> Result<Response, ApiError> {
    let name = segment_of(&uri, 0)?;
    let mut files = FILES.iter();
    match files.find(|(file, ..)| *file == name) {
        Some((_, kind, text)) => Ok(answer(kind, "no-cache", *text)),
        None => Err(ApiError::new(404, "not_found", "the page has no such file")),
    }
}

/// `GET /status.json`: the numbers now, and those of the last two minutes. With `?until=drain` they come once the
/// node goes away, or after a while: from then on it takes no connection by which it could be asked.
pub(crate) async fn numbers(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    match StatusQuery::of(&parts.uri)?.until.as_deref() {
        None => {}
        Some("drain") => {
            // Both ways to end are the same to who asked.
            let _ = timeout(HELD, state.drain.beginning()).await;
        }
        Some(_) => return Err(ApiError::bad_request("until is drain, or left out")),
    }
    let now = now_ms();
    let started = state.people.started_ms();
    let mut told = json!({
        "node": {
            "name": state.people.settings().name,
            "node": state.people.own_name().to_string(),
            "address": state.people.settings().address,
            "version": env!("CARGO_PKG_VERSION"),
            "started_ms": started,
            "uptime_ms": now.saturating_sub(started),
        },
        "now_ms": now,
        "health": health(&state),
        "now": here(&state),
        "totals": totals(&state),
        "history": history(&state),
    });
    told["nodes"] = nodes(&state, &parts).await;
    Ok(answer("application/json", "no-store", format!("{told}\n")))
}

fn answer(kind: &'static str, cache: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, cache),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, body).into_response()
}

/// What `/health/ready` says.
fn health(state: &FrontendState) -> Value {
    match check(state) {
        Ok(()) => json!({"status": "ready"}),
        Err(error) => {
            let draining = state.drain.began();
            let status = if draining { "draining" } else { "unready" };
            json!({"status": status, "code": error.code, "message": error.message})
        }
    }
}

/// What goes up and down.
fn here(state: &FrontendState) -> Value {
    let stats = state.relay().stats();
    let kinds = state.metrics.sockets().into_iter();
    let kinds: Map<String, Value> = kinds
        .map(|(kind, count)| (kind.to_owned(), count.into()))
        .collect();
    json!({
        "sockets": stats.connections.value(),
        "kinds": kinds,
        "connections": state.metrics.connections.get(),
        "rooms": stats.rooms.value(),
        "users": state.people.users_here(),
        "nodes": state.people.nodes_alive(),
        "window_bytes": state.relay().window_bytes(),
    })
}

/// What only goes up, since the start.
fn totals(state: &FrontendState) -> Value {
    let stats = state.relay().stats();
    let reasons = GapReason::ALL.into_iter().zip(&stats.gaps);
    let gaps: Map<String, Value> = reasons
        .map(|(reason, count)| (reason.as_str().to_owned(), count.value().into()))
        .collect();
    json!({
        "entries": stats.entries_tailed.value(),
        "frames": stats.frames.value(),
        "frame_bytes": stats.frame_bytes.value(),
        "writes": stats.writes.value(),
        "published": stats.published.value(),
        "refused": stats.refused.value(),
        "unknown": stats.unknown.value(),
        "gaps": gaps,
        "log_reads": stats.log_reads.value(),
        "slow_closed": stats.slow_closed.value(),
        "shed": stats.shed.value(),
    })
}

/// The samples, a column each, oldest first.
fn history(state: &FrontendState) -> Value {
    let history = state.metrics.history();
    let column = |index: usize| history.iter().map(|sample| sample[index]).collect();
    let columns: Map<String, Value> = COLUMNS
        .iter()
        .enumerate()
        .map(|(index, name)| ((*name).to_owned(), column(index)))
        .collect();
    Value::Object(columns)
}

/// The nodes alive, for those whom `GET /nodes` would tell; else null.
async fn nodes(state: &FrontendState, parts: &Parts) -> Value {
    let Ok(identity) = identify::request(state, parts).await else {
        return Value::Null;
    };
    let own = state.people.own_name();
    let row = |(node, status): &(NodeId, bytes::Bytes)| {
        let mut row = json!({"node": node.to_string(), "self": *node == own});
        if let (Some(row), Ok(Value::Object(mut status))) =
            (row.as_object_mut(), serde_json::from_slice(status))
        {
            row.append(&mut status);
        }
        row
    };
    match state.people.nodes_now(&identity) {
        Ok(nodes) => nodes.iter().map(row).collect(),
        Err(_) => Value::Null,
    }
}
