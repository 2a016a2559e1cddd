//! `POST /register`, `/login` and `/logout`: accounts of this server's own, where they are on.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json as object;

use super::publish::read;
use crate::accounts::{AccountError, Accounts, SESSION, Session};
use crate::auth::{Secret, UserName};
use crate::frontend::{ApiError, FrontendState, query};

/// Most bytes of a body: name and password, however they are escaped.
const BODY_MAX: usize = 8 * 1024;

/// Who comes, with what. Never printed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user: String,
    password: String,
    name: Option<String>,
}

/// The same as a form has it, before it's known what lacks.
#[derive(Deserialize)]
struct Form {
    user: Option<String>,
    password: Option<String>,
    name: Option<String>,
}

/// Makes an account, and logs in.
pub(crate) async fn register(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (accounts, parts, asked) = asked(&state, request).await?;
    let user = user(&asked)?;
    let (peer, password) = (peer(&parts), Secret::from(asked.password.as_str()));
    let session = accounts.register(peer, user, password, asked.name).await?;
    tracing::info!(user = %session.user, "registered");
    Ok(welcome(&state, &parts, StatusCode::CREATED, &session))
}

/// Checks a password, and logs in.
pub(crate) async fn login(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (accounts, parts, asked) = asked(&state, request).await?;
    let user = user(&asked)?;
    let (peer, password) = (peer(&parts), Secret::from(asked.password.as_str()));
    let session = accounts.login(peer, user, password).await?;
    Ok(welcome(&state, &parts, StatusCode::OK, &session))
}

/// Takes the cookie away. The token that was in it holds until it expires, for who has a copy.
pub(crate) async fn logout(
    State(state): State<Arc<FrontendState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, _) = request.into_parts();
    accounts(&state)?;
    let origins = &state.settings.allowed_origins;
    origins.check_for_cookie(&parts.headers)?;
    let cookie = farewell(&state, &parts.headers);
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response())
}

fn accounts(state: &FrontendState) -> Result<&Arc<Accounts>, ApiError> {
    let off = "this server has no accounts of its own; see --accounts";
    let accounts = state.accounts.get();
    accounts.ok_or_else(|| ApiError::new(404, "not_found", off))
}

/// What a request brings. A page that isn't ours may not log its visitors in as somebody else.
async fn asked(
    state: &FrontendState,
    request: Request,
) -> Result<(Arc<Accounts>, Parts, Asked), ApiError> {
    let (parts, body) = request.into_parts();
    let accounts = accounts(state)?.clone();
    let origins = &state.settings.allowed_origins;
    origins.check_for_cookie(&parts.headers)?;
    let kind = parts.headers.get(CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let kind = kind.to_ascii_lowercase();
    let body = read(&parts.headers, body, BODY_MAX).await?;
    let asked = parse(&kind, &body)?;
    Ok((accounts, parts, asked))
}

fn parse(kind: &str, body: &[u8]) -> Result<Asked, ApiError> {
    // Its own words for what is wrong could quote the password.
    let bad = || {
        let form = "a body is as in {\"user\":\"alice\",\"password\":\"…\",\"name\":\"Alice\"}; name may be left out";
        ApiError::new(400, "bad_json", form)
    };
    match kind {
        "application/json" => serde_json::from_slice(body).map_err(|_| bad()),
        "application/x-www-form-urlencoded" => form(body),
        _ => Err(ApiError::new(
            415,
            "unsupported_type",
            "send Content-Type: application/json, or a form",
        )),
    }
}

/// Reads a form; what is wrong with one is said without quoting it.
fn form(body: &[u8]) -> Result<Asked, ApiError> {
    let bad = |what: &str| {
        let form = "a form is as in user=alice&password=…&name=Alice, percent-encoded; name may be left out";
        ApiError::bad_request(format!("{what}: {form}"))
    };
    let unread = || bad("the form can't be read");
    let body = std::str::from_utf8(body).map_err(|_| unread())?;
    let uri: Uri = format!("/?{body}").parse().map_err(|_| unread())?;
    let form: Form = query::form(&uri).map_err(|_| unread())?;
    Ok(Asked {
        user: form.user.ok_or_else(|| bad("the form has no user"))?,
        password: form
            .password
            .ok_or_else(|| bad("the form has no password"))?,
        name: form.name,
    })
}

fn user(asked: &Asked) -> Result<UserName, ApiError> {
    UserName::parse(&asked.user).map_err(|error| ApiError::new(400, "bad_user", error.to_string()))
}

/// Where a request comes from. A proxy nearby says for whom it asks, in the last address it has
/// written; from elsewhere anybody could write anything.
fn peer(parts: &Parts) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|peer| peer.0.ip().to_canonical());
    let is_near = peer.is_none_or(|peer| match peer {
        IpAddr::V4(peer) => peer.is_loopback() || peer.is_private(),
        IpAddr::V6(peer) => peer.is_loopback() || peer.is_unique_local(),
    });
    let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
    let forwarded = forwarded.and_then(|value| value.to_str().ok());
    let client = forwarded.and_then(|list| list.rsplit(',').next()?.trim().parse().ok());
    client.filter(|_| is_near).or(peer)
}

fn welcome(
    state: &FrontendState,
    parts: &Parts,
    status: StatusCode,
    session: &Session,
) -> Response {
    let mut body = object!({"user": session.user.as_str()});
    if let Some(name) = &session.name {
        body["name"] = name.as_str().into();
    }
    body["expires_in"] = SESSION.as_secs().into();
    let cookie = cookie(state, &parts.headers, &session.token, SESSION.as_secs());
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (SET_COOKIE, cookie),
    ];
    (status, headers, format!("{body}\n")).into_response()
}

/// A cookie that ends the one there is.
pub(super) fn farewell(state: &FrontendState, headers: &HeaderMap) -> HeaderValue {
    cookie(state, headers, "", 0)
}

/// The cookie with a token: for this host alone, kept from scripts, and not sent along by strangers'
/// pages but when somebody follows a link. Without TLS a browser would not take a `Secure` one.
fn cookie(state: &FrontendState, headers: &HeaderMap, token: &str, seconds: u64) -> HeaderValue {
    let name = &state.auth.settings().token_cookie;
    let secure = if is_https(headers) { "; Secure" } else { "" };
    let text = format!("{name}={token}; HttpOnly; SameSite=Lax; Path=/; Max-Age={seconds}{secure}");
    let mut cookie = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    cookie.set_sensitive(true);
    cookie
}

/// Whether the client speaks TLS, with a proxy before us, as the proxy says it or the page does.
fn is_https(headers: &HeaderMap) -> bool {
    let origin = headers.get(ORIGIN).map(HeaderValue::as_bytes);
    if origin.is_some_and(|origin| origin.starts_with(b"https://")) {
        return true;
    }
    let proto = headers.get("x-forwarded-proto");
    let proto = proto.and_then(|proto| proto.to_str().ok());
    let proto = proto.and_then(|list| list.split(',').next());
    proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            AccountError::Taken => (409, "user_taken"),
            AccountError::Wrong => (401, "wrong_password"),
            AccountError::Password => (400, "bad_password"),
            AccountError::UserName => (400, "bad_user"),
            AccountError::Name => (400, "bad_name"),
            AccountError::TooOften(_) => (429, "too_many_attempts"),
            AccountError::Busy => (503, "busy"),
            AccountError::Log(error) => return ApiError::from(error),
            AccountError::Internal(_) => (500, "internal"),
        };
        let retry = match &error {
            AccountError::TooOften(retry) => Some(*retry),
            _ => None,
        };
        ApiError {
            retry,
            ..ApiError::new(status, code, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let json = "application/json";
        let form = "application/x-www-form-urlencoded";
        let check = |kind: &str, body: &str, want: Result<(&str, &str, Option<&str>), u16>| {
            let got = parse(kind, body.as_bytes());
            match (got, want) {
                (Ok(got), Ok((user, password, name))) => {
                    assert_eq!((&*got.user, &*got.password), (user, password), "{body}");
                    assert_eq!(got.name.as_deref(), name, "{body}");
                }
                (Err(error), Err(status)) => {
                    assert_eq!(error.status, status, "{body}");
                    assert!(!error.message.contains("hush"), "{error}");
                }
                (got, _) => panic!("{body}: {}", got.is_ok()),
            }
        };
        check(
            json,
            r#"{"user":"a","password":"hush","nmae":"hush"}"#,
            Err(400),
        );
        check(
            json,
            r#"{"user":"a","password":"hush"}"#,
            Ok(("a", "hush", None)),
        );
        check(
            json,
            r#"{"user":"a","password":"hush","name":"A"}"#,
            Ok(("a", "hush", Some("A"))),
        );
        check(
            form,
            "user=a%40b&password=hush+%26+%C3%BC%26&name=A+B",
            Ok(("a@b", "hush & ü&", Some("A B"))),
        );
        check(json, r#"{"user":"a","password":["hush"]}"#, Err(400));
        check(json, "hush", Err(400));
        check(form, "user=a", Err(400));
        check(form, "user=a&password=hush&password=hush", Err(400));
        check(form, "user=a&password=hush b", Err(400));
        check("text/plain", r#"{"user":"a","password":"hush"}"#, Err(415));
        check("", "", Err(415));
    }

    #[test]
    fn tls() {
        let check = |name: &'static str, value: &str, want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(is_https(&headers), want, "{name}: {value}");
        };
        check("x-forwarded-proto", "https", true);
        check("x-forwarded-proto", "HTTPS, http", true);
        check("x-forwarded-proto", "http", false);
        check("origin", "https://a.example", true);
        check("origin", "http://a.example", false);
        check("host", "a.example", false);
    }

    #[test]
    fn peers() {
        let check = |peer_address: &str, forwarded: &[&str], want: &str| {
            let (mut parts, ()) = axum::http::Request::new(()).into_parts();
            let address: IpAddr = peer_address.parse().unwrap();
            let address = SocketAddr::from((address, 1));
            parts.extensions.insert(ConnectInfo(address));
            for value in forwarded {
                parts
                    .headers
                    .append("x-forwarded-for", value.parse().unwrap());
            }
            let want: IpAddr = want.parse().unwrap();
            assert_eq!(peer(&parts), Some(want), "{peer_address} {forwarded:?}");
        };
        check("192.0.2.1", &[], "192.0.2.1");
        check("192.0.2.1", &["198.51.100.7"], "192.0.2.1");
        check("127.0.0.1", &["198.51.100.7"], "198.51.100.7");
        check("10.1.2.3", &["forged, 198.51.100.7"], "198.51.100.7");
        check("10.1.2.3", &["1.1.1.1", "198.51.100.7"], "198.51.100.7");
        check("::1", &["2001:db8::7"], "2001:db8::7");
        check("::1", &["unknown"], "::1");
        check("::ffff:192.0.2.1", &["1.1.1.1"], "192.0.2.1");
    }
}
