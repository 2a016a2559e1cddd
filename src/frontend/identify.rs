//! Who sends a request: its credentials, and whether they may count.

use axum::http::request::Parts;

use super::{ApiError, FrontendState};
use crate::auth::{AuthError, Credentials, Identity, Mode};

/// Who sends a request that is answered over HTTP.
pub(crate) async fn request(state: &FrontendState, parts: &Parts) -> Result<Identity, ApiError> {
    Ok(state.auth.identify(&credentials(state, parts)?).await?)
}

/// Who opens a socket. What is wrong with their credentials is said on the socket, where browsers
/// can read it, unless it passes by itself.
pub(crate) async fn socket(
    state: &FrontendState,
    parts: &Parts,
) -> Result<Result<Identity, AuthError>, ApiError> {
    match state.auth.identify(&credentials(state, parts)?).await {
        Err(error @ AuthError::Unavailable(_)) => Err(error.into()),
        who => Ok(who),
    }
}

/// The credentials of a request. A browser sends its cookies to us from any page, so that a cookie
/// counts only if the page is one of ours. From a page that `*` lets in, it's as if there were none: the
/// page can't help that it comes along.
fn credentials(state: &FrontendState, parts: &Parts) -> Result<Credentials, ApiError> {
    let cookie = &state.auth.settings().token_cookie;
    let query = parts.uri.query().unwrap_or_default();
    let credentials = Credentials::of(&parts.headers, query, cookie);
    // Where anybody is believed, a cookie of that name is somebody else's.
    if credentials.from_cookie() && state.auth.settings().mode != Mode::None {
        let origins = &state.settings.allowed_origins;
        if origins.ignores_cookie(&parts.headers) {
            return Ok(credentials.without_cookie());
        }
        origins.check_for_cookie(&parts.headers)?;
    }
    Ok(credentials)
}
