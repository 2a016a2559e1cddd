//! [`ApiError`]: what went wrong with a request, in the one shape that all of them have.

use std::time::Duration;

use axum::http::header::{
    CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::auth::AuthError;
use crate::people::Refusal;
use crate::relay::entry::RoomNameError;
use crate::relay::log::{AppendError, LogError};

/// An HTTP error. All have the shape `{"error":{"code","message"}}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// A word for programs, part of the contract.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// When to come again, if that is known.
    pub retry: Option<Duration>,
}

impl ApiError {
    /// An error; a status that does not exist becomes 500.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code,
            message: message.into(),
            retry: None,
        }
    }

    /// 400: the client should ask otherwise.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(400, "bad_request", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        ApiError::new(500, "internal", message)
    }

    /// 503: this node is going away.
    pub fn draining() -> Self {
        ApiError::new(503, "draining", "this node is going away; try another")
    }
}

impl From<RoomNameError> for ApiError {
    fn from(error: RoomNameError) -> Self {
        ApiError::new(400, "bad_room", error.to_string())
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unavailable(_) => ApiError::new(503, "auth_unavailable", error.to_string()),
            AuthError::Missing => ApiError::new(
                401,
                "unauthenticated",
                "a token is needed: send Authorization: Bearer, a token cookie, or ?token=",
            ),
            AuthError::Invalid(_) | AuthError::Expired => {
                ApiError::new(401, "unauthenticated", error.to_string())
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match &refusal {
            Refusal::NoRight(_)
            | Refusal::NotServer
            | Refusal::Immune
            | Refusal::Banned(_)
            | Refusal::Muted(_)
            | Refusal::Closed => 403,
            Refusal::SlowMode(_) | Refusal::TooFast(_) | Refusal::RoomTooFast(_) => 429,
            Refusal::Reserved(_) | Refusal::BadRequest(_) => 400,
            Refusal::Log(error) => return ApiError::from(error),
            Refusal::Append(error) => return ApiError::from(error),
        };
        ApiError {
            retry: refusal.retry(),
            ..ApiError::new(status, refusal.code(), refusal.to_string())
        }
    }
}

impl From<&AppendError> for ApiError {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::Refused(why) => ApiError {
                message: error.to_string(),
                ..ApiError::from(why)
            },
            AppendError::TooFast { retry, .. } => ApiError {
                retry: Some(*retry),
                ..ApiError::new(429, "too_fast", error.to_string())
            },
            AppendError::Unknown(why) => ApiError::new(
                504,
                "unknown_outcome",
                format!(
                    "the message may or may not have been stored ({why}); repeat with the same Idempotency-Key"
                ),
            ),
            AppendError::NotReplicated(_) => {
                ApiError::new(504, "not_replicated", error.to_string())
            }
        }
    }
}

impl From<&LogError> for ApiError {
    fn from(error: &LogError) -> Self {
        let status = match error {
            LogError::Unavailable(_)
            | LogError::Busy
            | LogError::Loading
            | LogError::ReadOnly(_) => 503,
            LogError::Full(_) => 507,
            LogError::WrongType => 409,
            LogError::Denied(_) | LogError::Other(_) => 502,
        };
        ApiError::new(status, error.code(), error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let Some(retry) = self.retry {
            // Whole seconds, never too few.
            let seconds = retry.as_millis().div_ceil(1_000).max(1);
            let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 6455, 4.4: which version would do.
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        response
    }
}
