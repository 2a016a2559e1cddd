//! Who is where, and what moderators do, over HTTP.
//!
//! - `GET /rooms`, `GET /rooms/{room}/presence`, `GET /users/{user}`, `GET /nodes`
//! - `POST /rooms/{room}/moderation`

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{Uri, request::Parts};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json as object};

use super::publish;
use crate::auth::UserName;
use crate::frontend::moderation::Asked;
use crate::frontend::{self, ApiError, FrontendState, identify, json, segment_of};
use crate::people::query::Listed;
use crate::relay::entry::RoomName;

/// Users, or rooms, in an answer if the client does not say.
const LIMIT: usize = 100;

/// The most of them.
const LIMIT_MAX: usize = 1_000;

#[derive(Debug, Default, Deserialize)]
struct Page {
    limit: Option<String>,
    cursor: Option<String>,
}

impl Page {
    fn of(uri: &Uri) -> Result<Self, ApiError> {
        frontend::query(uri)
    }

    fn limit(&self) -> Result<usize, ApiError> {
        match self.limit.as_deref().map(usize::from_str) {
            None => Ok(LIMIT),
            Some(Ok(limit @ 1..=LIMIT_MAX)) => Ok(limit),
            Some(_) => Err(ApiError::bad_request(format!(
                "limit is a number from 1 to {LIMIT_MAX}"
            ))),
        }
    }

    fn cursor(&self) -> Result<u64, ApiError> {
        let cursor = self.cursor.as_deref().map(u64::from_str).transpose();
        let cursor = cursor.map_err(|_| ApiError::bad_request("cursor is the `next` of a page"))?;
        Ok(cursor.unwrap_or(0))
    }
}

/// The user that a URL's last segment names.
pub(super) fn user_of(uri: &Uri) -> Result<UserName, ApiError> {
    UserName::parse(&segment_of(uri, 0)?)
        .map_err(|error| ApiError::new(400, "bad_user", error.to_string()))
}

/// `GET /rooms/{room}/presence`: who is in a room.
pub(crate) async fn presence(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let room = RoomName::parse(&segment_of(&parts.uri, 1)?)?;
    let limit = Page::of(&parts.uri)?.limit()?;
    let identity = identify::request(&state, &parts).await?;
    let presence = state.people.presence(&identity, &room, limit).await?;
    let mut out = Vec::new();
    json::presence(&mut out, &presence);
    out.push(b'\n');
    Ok(answer(out))
}

/// `GET /users/{user}`: whether a user is online, and where.
pub(crate) async fn user(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let user = user_of(&parts.uri)?;
    let identity = identify::request(&state, &parts).await?;
    let found = state.people.whereabouts(&identity, &user).await?;
    let rooms: Vec<&str> = found.rooms.iter().map(RoomName::as_str).collect();
    Ok(answer_json(&object!({
        "user": user.as_str(),
        "online": found.devices > 0,
        "devices": found.devices,
        "rooms": rooms,
    })))
}

/// `GET /rooms`: a page of the rooms, in no order.
pub(crate) async fn rooms(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let page = Page::of(&parts.uri)?;
    let identity = identify::request(&state, &parts).await?;
    let (limit, cursor) = (page.limit()?, page.cursor()?);
    let (rooms, next) = state.people.rooms(&identity, cursor, limit).await?;
    let row = |listed: &Listed| {
        let mut row = object!({
            "room": listed.room.as_str(),
            "count": listed.count,
            "last": listed.last.map(|id| id.to_string()),
        });
        if let Some(topic) = &listed.topic {
            row["topic"] = topic.as_str().into();
        }
        row
    };
    let rooms: Vec<Value> = rooms.iter().map(row).collect();
    let next = (next != 0).then(|| next.to_string());
    Ok(answer_json(&object!({"rooms": rooms, "next": next})))
}

/// `GET /nodes`: the nodes that live.
pub(crate) async fn nodes(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let identity = identify::request(&state, &parts).await?;
    let row = |(node, status): &(_, bytes::Bytes)| {
        let mut row = object!({"node": format!("{node}")});
        // Each says of itself what it likes; older and newer ones perhaps something else.
        if let (Some(row), Ok(Value::Object(mut status))) =
            (row.as_object_mut(), serde_json::from_slice(status))
        {
            row.append(&mut status);
        }
        row
    };
    let nodes: Vec<(crate::people::board::NodeId, bytes::Bytes)> =
        state.people.nodes(&identity).await?;
    let nodes: Vec<Value> = nodes.iter().map(row).collect();
    Ok(answer_json(&object!({"nodes": nodes})))
}

/// `POST /rooms/{room}/moderation`: does something to a room.
pub(crate) async fn moderate(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    state.settings.allowed_origins.check(&parts.headers)?;
    let room = RoomName::parse(&segment_of(&parts.uri, 1)?)?;
    let identity = identify::request(&state, &parts).await?;
    let body = publish::read(&parts.headers, body, state.settings.max_frame).await?;
    let asked: Asked = json::read(&body).map_err(|error| {
        let form = "a JSON body is as in {\"act\":\"ban\",\"user\":\"bob\",\"seconds\":600}";
        ApiError::new(400, "bad_json", format!("{form}: {error}"))
    })?;
    let act = asked.act().map_err(ApiError::bad_request)?;
    let done = state
        .people
        .moderate(&identity, &room, act, asked.reason)
        .await?;
    let mut out = b"{\"room\":".to_vec();
    json::value(&mut out, room.as_str());
    out.push(b',');
    json::done(&mut out, &done);
    out.extend_from_slice(b"}\n");
    Ok(answer(out))
}

pub(super) fn answer_json(value: &Value) -> Response {
    answer(format!("{value}\n").into_bytes())
}

pub(super) fn answer(body: Vec<u8>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (headers, body).into_response()
}
