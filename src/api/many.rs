//! `POST /publish`: one entry into many rooms, and to many users.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json as object};

use super::people::answer;
use super::publish::{self, deliver};
use crate::auth::UserName;
use crate::frontend::json::{self, FieldList};
use crate::frontend::{ApiError, FrontendState, identify};
use crate::relay::entry::RoomName;

/// Most addressees of one request. More make several requests.
const ADDRESSEES_MAX: usize = 1_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(default)]
    rooms: Vec<String>,
    #[serde(default)]
    users: Vec<String>,
    message: Option<String>,
    fields: Option<FieldList>,
    #[serde(default)]
    ephemeral: bool,
}

/// Publishes to each of them, and answers with an ID or an error for each, in their order.
pub(crate) async fn publish_to_many(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let settings = &state.settings;
    settings.allowed_origins.check(&parts.headers)?;
    let identity = identify::request(&state, &parts).await?;
    let key = publish::key(&parts.headers)?;
    let body = publish::read(&parts.headers, body, settings.max_frame).await?;
    let body: Body = json::read(&body).map_err(|error| {
        let form =
            "a JSON body is as in {\"rooms\":[\"lobby\"],\"users\":[\"bob\"],\"message\":\"…\"}";
        ApiError::new(400, "bad_json", format!("{form}: {error}"))
    })?;
    let count = body.rooms.len() + body.users.len();
    if !(1..=ADDRESSEES_MAX).contains(&count) {
        return Err(ApiError::bad_request(format!(
            "rooms and users name 1 to {ADDRESSEES_MAX} addressees"
        )));
    }
    let rooms = body.rooms.iter().map(|name| {
        let room = RoomName::parse(name).map_err(ApiError::from);
        (object!({"room": name}), room)
    });
    let users = body.users.iter().map(|name| {
        let user = UserName::parse(name)
            .map_err(|error| ApiError::new(400, "bad_user", error.to_string()));
        (
            object!({"user": name}),
            user.map(|user| user.room().clone()),
        )
    });
    let addressees: Vec<(Value, Result<RoomName, ApiError>)> = rooms.chain(users).collect();
    let message = publish::message(
        body.message,
        body.fields,
        body.ephemeral,
        settings.max_fields,
    )?;
    let sent = addressees.into_iter().map(|(row, room)| {
        let (state, identity, message) = (&state, &identity, &message);
        let key: Option<Bytes> = key.clone();
        async move {
            let outcome = match room {
                Ok(room) => deliver(state, identity, &room, message, key)
                    .await
                    .map_err(ApiError::from),
                Err(error) => Err(error),
            };
            told(row, outcome.map(|id| id.map(|id| id.to_string())))
        }
    });
    let results = join_all(sent).await;
    Ok(answer(
        format!("{}\n", object!({"results": results})).into_bytes(),
    ))
}

fn told(mut row: Value, outcome: Result<Option<String>, ApiError>) -> Value {
    match outcome {
        Ok(id) => row["id"] = object!(id),
        Err(error) => {
            let mut told = object!({"code": error.code, "message": error.message});
            if let Some(retry) = error.retry {
                let ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX);
                told["retry_ms"] = object!(ms);
            }
            row["error"] = told;
        }
    }
    row
}
