//! `POST /rooms/{room}` and `POST /users/{user}`: publish one entry.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use tokio::time::timeout;

use super::people::user_of;
use crate::auth::{Identity, UserName};
use crate::frontend::json::{self, FieldList};
use crate::frontend::{ApiError, FrontendState, identify, room_of};
use crate::people::Refusal;
use crate::relay::entry::{EntryId, Fields, RoomName};

/// Longest idempotency key, in bytes: room for any UUID, hash or URL.
const KEY_MAX: usize = 256;

/// A body of at most one frame takes no longer, unless somebody drips it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    message: Option<String>,
    fields: Option<FieldList>,
    #[serde(default)]
    ephemeral: bool,
}

/// Publishes into a room, and answers with the entry's ID.
pub(crate) async fn to_room(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let room = room_of(&parts.uri)?;
    one(&state, &parts, body, room).await
}

/// The same to a user, on every device of theirs.
pub(crate) async fn to_user(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let user = user_of(&parts.uri)?;
    one(&state, &parts, body, user.room().clone()).await
}

async fn one(
    state: &FrontendState,
    parts: &Parts,
    body: HttpBody,
    room: RoomName,
) -> Result<Response, ApiError> {
    let settings = &state.settings;
    settings.allowed_origins.check(&parts.headers)?;
    let identity = identify::request(state, parts).await?;
    let key = key(&parts.headers)?;
    let is_json = is_json(&parts.headers)?;
    let body = read(&parts.headers, body, settings.max_frame).await?;
    let message = if is_json {
        from_json(&body, settings.max_fields)?
    } else {
        Message::of(Box::new([(Bytes::from_static(b"message"), body)]))
    };
    let id = deliver(state, &identity, &room, &message, key).await?;
    Ok(created(&room, id))
}

/// What a body asks to be published.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) fields: Fields,
    pub(super) ephemeral: bool,
}

impl Message {
    fn of(fields: Fields) -> Self {
        Message {
            fields,
            ephemeral: false,
        }
    }
}

/// Publishes; what is ephemeral has no ID.
pub(super) async fn deliver(
    state: &FrontendState,
    identity: &Identity,
    room: &RoomName,
    message: &Message,
    key: Option<Bytes>,
) -> Result<Option<EntryId>, Refusal> {
    let fields = message.fields.clone();
    if message.ephemeral {
        let user = identity.user().map(UserName::as_str);
        let shown = json::ephemeral_json(room, user, &fields);
        state.people.whisper(identity, room, fields, shown).await?;
        return Ok(None);
    }
    let id = state.people.publish(identity, room, fields, key).await?;
    Ok(Some(id))
}

fn created(room: &RoomName, id: Option<EntryId>) -> Response {
    let mut out = b"{\"room\":".to_vec();
    json::value(&mut out, room.as_str());
    let id = id.map_or("null".to_owned(), |id| format!("\"{id}\""));
    out.extend_from_slice(format!(",\"id\":{id}}}\n").as_bytes());
    let headers = [(CONTENT_TYPE, "application/json")];
    (StatusCode::CREATED, headers, out).into_response()
}

pub(super) fn key(headers: &HeaderMap) -> Result<Option<Bytes>, ApiError> {
    match headers.get("idempotency-key").map(|key| key.as_bytes()) {
        None => Ok(None),
        Some(key) if (1..=KEY_MAX).contains(&key.len()) => Ok(Some(Bytes::copy_from_slice(key))),
        Some(_) => Err(ApiError::bad_request(format!(
            "Idempotency-Key has 1 to {KEY_MAX} bytes"
        ))),
    }
}

fn is_json(headers: &HeaderMap) -> Result<bool, ApiError> {
    if let Some(encoding) = headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        return Err(ApiError::new(
            415,
            "unsupported_encoding",
            "send the body without a Content-Encoding",
        ));
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .unwrap_or_default();
    Ok(kind.trim().eq_ignore_ascii_case("application/json"))
}

pub(super) async fn read(
    headers: &HeaderMap,
    body: HttpBody,
    most: usize,
) -> Result<Bytes, ApiError> {
    let too_large = || {
        ApiError::new(
            413,
            "too_large",
            format!("a body has at most {most} bytes; see --max-frame"),
        )
    };
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > most as u64) {
        return Err(too_large());
    }
    let body = timeout(BODY_TIMEOUT, Limited::new(body, most).collect())
        .await
        .map_err(|_| ApiError::new(408, "timeout", "the body took too long"))?;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(ApiError::bad_request("the body ended too early")),
    }
}

fn from_json(body: &[u8], max_fields: usize) -> Result<Message, ApiError> {
    let body: Body = json::read(body).map_err(|error| {
        ApiError::new(
            400,
            "bad_json",
            format!("a JSON body is {{\"message\":\"…\"}} or {{\"fields\":{{\"name\":\"value\"}}}}: {error}"),
        )
    })?;
    message(body.message, body.fields, body.ephemeral, max_fields)
}

/// A message or fields, as every JSON body has them.
pub(super) fn message(
    message: Option<String>,
    fields: Option<FieldList>,
    ephemeral: bool,
    max_fields: usize,
) -> Result<Message, ApiError> {
    let fields: Fields = match (message, fields) {
        (Some(message), None) => Box::new([(Bytes::from_static(b"message"), Bytes::from(message))]),
        (None, Some(FieldList(fields))) => {
            if !(1..=max_fields).contains(&fields.len()) {
                return Err(ApiError::bad_request(format!(
                    "fields has 1 to {max_fields} of them; see --max-fields"
                )));
            }
            fields.into()
        }
        _ => {
            return Err(ApiError::bad_request(
                "a JSON body has either message or fields",
            ));
        }
    };
    Ok(Message { fields, ephemeral })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::log::{AppendError, LogError};

    fn check_json(body: &str, want: Result<&[(&str, &str)], &str>) {
        let got = from_json(body.as_bytes(), 2);
        match want {
            Ok(pairs) => {
                let got = got.unwrap().fields;
                let got: Vec<(&[u8], &[u8])> = got.iter().map(|(n, v)| (&n[..], &v[..])).collect();
                let want: Vec<(&[u8], &[u8])> = pairs
                    .iter()
                    .map(|(n, v)| (n.as_bytes(), v.as_bytes()))
                    .collect();
                assert_eq!(got, want, "{body}");
            }
            Err(part) => {
                let error = got.unwrap_err();
                assert_eq!(error.status, 400);
                assert!(error.message.contains(part), "{body}: {error}");
            }
        }
    }

    #[test]
    fn json_bodies() {
        check_json(r#"{"message":""}"#, Ok(&[("message", "")]));
        check_json(
            r#"{"fields":{"b":"1","a":"é"}}"#,
            Ok(&[("b", "1"), ("a", "é")]),
        );
        check_json(r#"{"fields":{}}"#, Err("1 to 2"));
        check_json(r#"{"fields":{"a":"","b":"","c":""}}"#, Err("1 to 2"));
        check_json(r#"{"fields":{"a":1}}"#, Err("string"));
        check_json(r#"{"fields":["a"]}"#, Err("names and values"));
        check_json(r#"{"fields":{"a":{"base64":"aGk="}}}"#, Ok(&[("a", "hi")]));
        check_json(r#"{"message":"a","fields":{"a":"b"}}"#, Err("either"));
        check_json("{}", Err("either"));
        check_json(r#"{"mesage":"a"}"#, Err("mesage"));
        check_json("hello", Err("a JSON body is"));
        check_json("", Err("a JSON body is"));
    }

    #[test]
    fn kinds_of_body() {
        let check = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            is_json(&headers).unwrap()
        };
        assert!(check("application/json"));
        assert!(check("Application/JSON; charset=utf-8"));
        assert!(!check("text/plain"));
        assert!(!check("application/x-www-form-urlencoded"));
        assert!(!is_json(&HeaderMap::new()).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(is_json(&headers).unwrap_err().status, 415);
    }

    #[test]
    fn keys() {
        let check = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", text.parse().unwrap());
            key(&headers)
        };
        assert_eq!(check("a b").unwrap().unwrap(), "a b");
        assert!(check(&"k".repeat(256)).is_ok());
        assert!(check(&"k".repeat(257)).is_err());
        assert!(check("").is_err());
        assert_eq!(key(&HeaderMap::new()), Ok(None));
    }

    #[tokio::test]
    async fn body_limits() {
        let none = HeaderMap::new();
        let ok = read(&none, HttpBody::from("12345"), 5).await.unwrap();
        assert_eq!(ok, "12345");
        let error = read(&none, HttpBody::from("123456"), 5).await.unwrap_err();
        assert_eq!((error.status.as_u16(), error.code), (413, "too_large"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, "6".parse().unwrap());
        let error = read(&headers, HttpBody::empty(), 5).await.unwrap_err();
        assert_eq!(error.status, 413);
    }

    #[test]
    fn refusals() {
        let check = |error: AppendError, status: u16, code: &str| {
            let error = ApiError::from(&error);
            assert_eq!((error.status.as_u16(), error.code), (status, code));
            error.message
        };
        let refused = AppendError::Refused;
        assert!(check(refused(LogError::Busy), 503, "busy").starts_with("not stored"));
        check(refused(LogError::Loading), 503, "redis_loading");
        check(refused(LogError::Full("oom".into())), 507, "redis_full");
        check(refused(LogError::WrongType), 409, "wrong_type");
        check(refused(LogError::Denied("no".into())), 502, "redis_denied");
        let unknown = AppendError::Unknown(LogError::Unavailable("x".into()));
        assert!(check(unknown, 504, "unknown_outcome").contains("may or may not"));
        let lonely = AppendError::NotReplicated(EntryId::new(5, 1));
        assert!(check(lonely, 504, "not_replicated").contains("5-1"));
    }
}
