//! Whose credentials count: those of the CONNECT, if it has any.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::request::{Connect, Secret};
use crate::auth::{AuthError, Credentials, Mode};

/// The credentials of a CONNECT; none if those of the request it came by are to count. A name alone
/// counts only where anybody is believed.
pub(super) fn credentials(connect: &Connect, mode: Mode) -> Option<Result<Credentials, AuthError>> {
    let login = connect.login.as_deref().filter(|_| mode == Mode::None);
    if connect.secret.is_none() && login.is_none() {
        return None;
    }
    let mut headers = HeaderMap::new();
    if let Some(secret) = &connect.secret {
        let (name, value) = match secret {
            Secret::Token(token) => (AUTHORIZATION.as_str(), format!("Bearer {token}")),
            Secret::Key(key) => ("x-api-key", key.to_string()),
        };
        let Ok(value) = HeaderValue::from_str(&value) else {
            return Some(Err(AuthError::Invalid(
                "the token has characters that no token has".into(),
            )));
        };
        headers.insert(name, value);
    }
    let query = login.map(query).unwrap_or_default();
    // No cookie is among these headers, whatever its name.
    Some(Ok(Credentials::of(&headers, &query, "")))
}

/// A name alone, as somebody says it.
pub(super) fn named(name: &str) -> Credentials {
    Credentials::of(&HeaderMap::new(), &query(name), "")
}

fn query(name: &str) -> String {
    format!("user={}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::stomp::frame::Version;
    use crate::frontend::stomp::request::Beats;

    fn check(secret: Option<Secret>, login: Option<&str>, mode: Mode, want: &str) {
        let connect = Connect {
            version: Version::V12,
            beats: Beats::default(),
            secret,
            login: login.map(Into::into),
            is_binary: false,
        };
        let got = match credentials(&connect, mode) {
            None => "the request's".to_owned(),
            Some(Err(error)) => error.to_string(),
            Some(Ok(credentials)) => format!("{credentials:?}"),
        };
        assert!(got.contains(want), "{got}");
    }

    #[test]
    fn whose_count() {
        let token = || Some(Secret::Token("t".into()));
        check(None, None, Mode::None, "the request's");
        check(None, Some("alice"), Mode::Jwt, "the request's");
        check(
            None,
            Some("Zoë L&user=x"),
            Mode::None,
            "user: Some(\"Zoë L&user=x\")",
        );
        check(
            token(),
            Some("alice"),
            Mode::Jwt,
            "from: Some(Bearer), user: None",
        );
        check(token(), Some("alice"), Mode::None, "user: Some(\"alice\")");
        check(Some(Secret::Key("k".into())), None, Mode::Jwt, "ApiKey");
        check(
            Some(Secret::Token("a\nb".into())),
            None,
            Mode::Jwt,
            "no token has",
        );
    }
}
