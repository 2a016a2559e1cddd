//! `GET /me`: who a page's visitor is, and what they may do in a room.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::request::Parts;
use axum::response::Response;
use serde_json::{Value, json as object};

use super::people::answer_json;
use crate::auth::{Credentials, Identity, Mode, UserName};
use crate::frontend::query::MeQuery;
use crate::frontend::{ApiError, FrontendState, identify};
use crate::people::query::Hold;
use crate::relay::entry::RoomName;

/// Answers who asks. Whoever brings nothing, or nothing that counts, is nobody, and is told so.
pub(crate) async fn me(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    let query = MeQuery::of(&parts.uri)?;
    let room = query.room.as_deref().map(RoomName::parse).transpose()?;
    let mut is_spent = false;
    let identity = match identify::request(&state, &parts).await {
        Err(error) if error.status.is_server_error() => return Err(error),
        Err(_) => {
            // Or a page would bring it along for ever, and be refused everywhere.
            is_spent = state.accounts.get().is_some() && has_cookie(&state, &parts);
            Identity::nobody()
        }
        Ok(identity) => identity,
    };
    let mut me = object!({"user": identity.user().map(UserName::as_str)});
    if let Some(name) = identity.name() {
        me["name"] = name.into();
    }
    me["auth"] = match state.auth.settings().mode {
        Mode::None => "none".into(),
        Mode::Jwt => "jwt".into(),
        Mode::Cookie => "cookie".into(),
    };
    me["accounts"] = state.accounts.get().is_some().into();
    me["default_room"] = state.settings.default_room.as_str().into();
    if let Some(room) = &room {
        let rights = identity.rights(room);
        let words: Vec<Value> = rights.iter().map(|right| right.as_str().into()).collect();
        me["role"] = identity.role(room).map(|role| role.as_str()).into();
        me["rights"] = words.into();
        // Without its rules, a room still has rights: a page that asks again is told the rest.
        if let Ok(standing) = state.people.standing(&identity, room).await {
            for (name, hold) in [("banned", standing.banned), ("muted", standing.muted)] {
                if let Some(hold) = hold {
                    me[name] = told(&hold);
                }
            }
        }
    }
    let mut answer = answer_json(&me);
    if is_spent {
        let farewell = super::accounts::farewell(&state, &parts.headers);
        answer.headers_mut().insert(SET_COOKIE, farewell);
    }
    Ok(answer)
}

/// A ban or a mute, as its user is told.
fn told(hold: &Hold) -> Value {
    let mut told = object!({});
    if let Some(until) = hold.until {
        told["until"] = until.into();
    }
    if let Some(reason) = &hold.reason {
        told["reason"] = reason.as_str().into();
    }
    told
}

/// Whether a page of ours brings a token in its cookie.
fn has_cookie(state: &FrontendState, parts: &Parts) -> bool {
    let query = parts.uri.query().unwrap_or_default();
    let name = &state.auth.settings().token_cookie;
    let origins = &state.settings.allowed_origins;
    Credentials::of(&parts.headers, query, name).from_cookie()
        && origins.check_for_cookie(&parts.headers).is_ok()
}
