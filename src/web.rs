//! The chat page: static files of this binary, at `/` for browsers and under `/assets/`.
//!
//! Plain HTML, CSS and ES modules, as they are in `src/web` and `clients/js`, with no step between. The
//! page shows what strangers wrote, so its policy lets nothing in but its own files: no inline script or
//! style, no other host.

use std::sync::LazyLock;

use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::frontend::{ApiError, segment_of};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// One file.
struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static str,
    /// A hash of the body, so that a browser asks for nothing twice and misses no new version.
    etag: HeaderValue,
}

impl Asset {
    fn new(name: &'static str, kind: &'static str, body: &'static str) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..12]);
        Asset {
            name,
            kind,
            body,
            etag: HeaderValue::try_from(format!("\"{hash}\""))
                .unwrap_or(HeaderValue::from_static("\"\"")),
        }
    }
}

static PAGE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("index.html", HTML, include_str!("web/index.html")));

#[rustfmt::skip]
static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    vec![
        Asset::new("tailcast.js", SCRIPT, include_str!("../clients/js/tailcast.js")),
        Asset::new("app.js", SCRIPT, include_str!("web/app.js")),
        Asset::new("away.js", SCRIPT, include_str!("web/away.js")),
        Asset::new("composer.js", SCRIPT, include_str!("web/composer.js")),
        Asset::new("dialogs.js", SCRIPT, include_str!("web/dialogs.js")),
        Asset::new("dom.js", SCRIPT, include_str!("web/dom.js")),
        Asset::new("inbox.js", SCRIPT, include_str!("web/inbox.js")),
        Asset::new("messages.js", SCRIPT, include_str!("web/messages.js")),
        Asset::new("moderation.js", SCRIPT, include_str!("web/moderation.js")),
        Asset::new("outbox.js", SCRIPT, include_str!("web/outbox.js")),
        Asset::new("people.js", SCRIPT, include_str!("web/people.js")),
        Asset::new("place.js", SCRIPT, include_str!("web/place.js")),
        Asset::new("reactions.js", SCRIPT, include_str!("web/reactions.js")),
        Asset::new("rooms.js", SCRIPT, include_str!("web/rooms.js")),
        Asset::new("seen.js", SCRIPT, include_str!("web/seen.js")),
        Asset::new("session.js", SCRIPT, include_str!("web/session.js")),
        Asset::new("text.js", SCRIPT, include_str!("web/text.js")),
        Asset::new("theme.js", SCRIPT, include_str!("web/theme.js")),
        Asset::new("timeline.js", SCRIPT, include_str!("web/timeline.js")),
        Asset::new("words.js", SCRIPT, include_str!("web/words.js")),
        Asset::new("style.css", STYLE, include_str!("web/style.css")),
        Asset::new("panels.css", STYLE, include_str!("web/panels.css")),
        Asset::new("icon.svg", SVG, include_str!("web/icon.svg")),
    ]
});

/// The published client of Socket.IO, by the names that its own server has for it, where tutorials load it from.
static SOCKETIO: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let classic = include_str!("../vendor/socket.io-client/socket.io.min.js");
    let module = include_str!("../vendor/socket.io-client/socket.io.esm.min.js");
    vec![
        Asset::new("socket.io.js", SCRIPT, classic),
        Asset::new("socket.io.min.js", SCRIPT, classic),
        Asset::new("socket.io.esm.min.js", SCRIPT, module),
    ]
});

/// Whether the request is a browser's for a page; programs say they take anything.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|item| item.split(';').next())
        .any(|kind| kind.trim().eq_ignore_ascii_case("text/html"))
}

/// `GET /` of a browser.
pub(crate) fn page(headers: &HeaderMap) -> Response {
    let mut response = answer(&PAGE, headers);
    let policy = policy(headers.get(HOST));
    let own = response.headers_mut();
    own.insert(CONTENT_SECURITY_POLICY, policy);
    own.append(VARY, HeaderValue::from_static("accept"));
    response
}

/// `GET /assets/{name}`.
pub(crate) async fn asset(uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    file(&ASSETS, &uri, &headers)
}

/// `GET /socket.io/{name}`, the published client.
pub(crate) async fn socketio_client(uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    file(&SOCKETIO, &uri, &headers)
}

/// The names of the files that [`socketio_client`] has.
pub(crate) fn socketio_files() -> impl Iterator<Item = &'static str> {
    SOCKETIO.iter().map(|asset| asset.name)
}

/// The file that the last segment of a path names.
fn file(assets: &[Asset], uri: &Uri, headers: &HeaderMap) -> Result<Response, ApiError> {
    let name = segment_of(uri, 0)?;
    let asset = assets.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| ApiError::new(404, "not_found", "there is no such file"))?;
    let mut response = answer(asset, headers);
    let own = response.headers_mut();
    // An image that is opened by itself is a document, too.
    own.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    Ok(response)
}

fn answer(asset: &Asset, headers: &HeaderMap) -> Response {
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        // A proxy that compressed the body makes the tag a weak one.
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == asset.etag || tag == "*");
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => asset.body.into_response(),
    };
    let own = response.headers_mut();
    own.insert(CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    own.insert(ETAG, asset.etag.clone());
    // Kept, and asked for again: the files of one version belong together.
    own.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    own.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    own.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// What the page may load and whom it may speak to. Not every browser takes `'self'` for a WebSocket,
/// so the host is named as well.
fn policy(host: Option<&HeaderValue>) -> HeaderValue {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let host = host
        .and_then(|host| host.to_str().ok())
        .filter(|host| host.chars().all(is_plain));
    let sockets = match host {
        Some(host) => format!(" ws://{host} wss://{host}"),
        None => String::new(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{sockets}; \
         img-src 'self' data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_a_page() {
        let check = |accept: &str, want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_page(&headers), want, "{accept}");
        };
        check(
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            true,
        );
        check("TEXT/HTML;q=0.5", true);
        check("*/*", false);
        check("application/json", false);
        check("text/*", false);
        assert!(!wants_page(&HeaderMap::new()));
    }

    #[test]
    fn policies() {
        let check = |host: &str, has: &str| {
            let host = HeaderValue::from_str(host).unwrap();
            let policy = policy(Some(&host));
            assert!(policy.to_str().unwrap().contains(has), "{policy:?}");
        };
        check(
            "chat.example:8080",
            "connect-src 'self' ws://chat.example:8080 wss://chat.example:8080;",
        );
        check("[::1]:80", "ws://[::1]:80 ");
        // Nobody adds to the policy with a host of their own making.
        check("a; script-src *", "connect-src 'self';");
    }

    #[tokio::test]
    async fn files_are_asked_for_once() {
        let first = page(&HeaderMap::new());
        assert_eq!(first.status(), 200);
        let mut headers = HeaderMap::new();
        headers.insert(IF_NONE_MATCH, first.headers()[ETAG].clone());
        let again = page(&headers);
        assert_eq!(again.status(), 304);
        assert_eq!(again.headers()[ETAG], first.headers()[ETAG]);
        let other = asset(Uri::from_static("/assets/app.js"), headers)
            .await
            .unwrap();
        assert_eq!(other.status(), 200);
        let missing = asset(
            Uri::from_static("/assets/..%2FCargo.toml"),
            HeaderMap::new(),
        )
        .await;
        assert_eq!(missing.unwrap_err().status, 404);
    }

    #[test]
    fn every_module_that_is_named_is_there() {
        let names: Vec<&str> = ASSETS.iter().map(|asset| asset.name).collect();
        for asset in ASSETS.iter().chain([&*PAGE]) {
            for (prefix, end) in [("from './", '\''), ("\"assets/", '"')] {
                for (at, _) in asset.body.match_indices(prefix) {
                    let rest = &asset.body[at + prefix.len()..];
                    let name = rest.split(end).next().unwrap();
                    assert!(names.contains(&name), "{} names {name}", asset.name);
                }
            }
        }
    }
}
