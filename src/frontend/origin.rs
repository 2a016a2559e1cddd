//! Which web pages may use this node: the check against cross-site sockets, and CORS.
//!
//! Browsers send cookies and reach localhost from any page, and a WebSocket knows no CORS, so the
//! `Origin` header is all there is to tell a page of ours from a stranger's. Programs send none.

use std::fmt;
use std::str::FromStr;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue};

use super::ApiError;

/// Allowed origins. A request without an `Origin` header is always let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    same_host: bool,
    /// `null` and `file://`, where they are named. They say of a page only that it comes from no host: it's
    /// in a sandbox, of any site, or a file. So cookies never count from them.
    unplaced: Vec<&'static str>,
    /// `scheme://host[:port]`, in lower case.
    list: Vec<String>,
}

/// Names of headers that a preflight may ask for, and their bytes: more than any application has.
const ASKED_NAMES: usize = 64;
const ASKED_BYTES: usize = 2048;

/// So much of a header is repeated in a refusal, in characters.
const SHOWN: usize = 200;

/// Whether pages are told that their cookies may come along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentialed {
    /// Those from whose origin a cookie counts.
    Known,
    /// All that are let in: clients of SockJS send cookies whether the page wants it or not, and without
    /// this, browsers give them no answer. Where a cookie doesn't count, it is ignored.
    Allowed,
}

impl Default for Origins {
    /// Only pages that this host itself serves.
    fn default() -> Self {
        Origins {
            any: false,
            same_host: true,
            unplaced: Vec::new(),
            list: Vec::new(),
        }
    }
}

/// The text names no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no origin: write scheme and host, as in https://app.example or http://localhost:3000, or same-host, null, file://, or *"
)]
pub struct OriginError(String);

impl FromStr for Origins {
    type Err = OriginError;

    /// Reads a list with commas: origins, `same-host`, or `*` for all. An empty one is `same-host`.
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let items = text.split(',').map(str::trim);
        let mut items = items.filter(|item| !item.is_empty()).peekable();
        if items.peek().is_none() {
            return Ok(Origins::default());
        }
        let mut origins = Origins {
            any: false,
            same_host: false,
            unplaced: Vec::new(),
            list: Vec::new(),
        };
        for item in items {
            match item {
                "*" => origins.any = true,
                "same-host" => origins.same_host = true,
                "null" => origins.unplaced.push("null"),
                "file://" => origins.unplaced.push("file://"),
                _ => origins.list.push(
                    normal(item.trim_end_matches('/'))
                        .ok_or_else(|| OriginError(item.to_owned()))?,
                ),
            }
        }
        Ok(origins)
    }
}

impl fmt::Display for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.any, "*"), (self.same_host, "same-host")];
        let mut items: Vec<&str> = words.iter().filter(|w| w.0).map(|w| w.1).collect();
        items.extend(&self.unplaced);
        items.extend(self.list.iter().map(String::as_str));
        f.write_str(&items.join(","))
    }
}

impl Origins {
    /// Whether the page that made this request may.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(ORIGIN).iter();
        let Some(origin) = sent.next() else {
            return true;
        };
        if sent.next().is_some() {
            return false;
        }
        if self.any {
            return true;
        }
        if self.unplaced.iter().any(|named| origin == named) {
            return true;
        }
        let Some(origin) = origin.to_str().ok().and_then(normal) else {
            return false;
        };
        self.list.contains(&origin) || (self.same_host && is_same_host(&origin, headers))
    }

    /// Refuses a request that carries a cookie from a page that isn't known to be ours: of this host,
    /// or of an origin that is named. Without an
    /// `Origin` it comes from no page: a browser sends one with every socket and every POST, and says
    /// `Sec-Fetch-Site` of the rest.
    pub(crate) fn check_for_cookie(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let known = Origins {
            any: false,
            same_host: true,
            unplaced: Vec::new(),
            list: self.list.clone(),
        };
        let site = headers.get("sec-fetch-site");
        let is_strange = !headers.contains_key(ORIGIN)
            && site.is_some_and(|site| site != "same-origin" && site != "none");
        if known.allow(headers) && !is_strange {
            Ok(())
        } else {
            Err(refused(format!(
                "a cookie counts only from pages of this host or of an origin that --allowed-origins names: {}",
                compared(headers)
            )))
        }
    }

    /// Refuses a request from a page that is not allowed.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.allow(headers) {
            Ok(())
        } else {
            let what = match self.same_host {
                true => {
                    "the page is neither of this host nor of an origin that --allowed-origins names"
                }
                false => "the page is not of an origin that --allowed-origins names",
            };
            let how = match self.same_host {
                true => "name its origin there, or let a proxy in front pass Host on as it came",
                false => "name its origin there",
            };
            Err(refused(format!("{what}: {}; {how}", compared(headers))))
        }
    }

    /// The origin to name in `Access-Control-Allow-Origin`, if the request has one that may.
    pub(crate) fn answer<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        headers.get(ORIGIN).filter(|_| self.allow(headers))
    }

    /// Whether the page is let in, by `*` for one, but a cookie doesn't count from it.
    pub(crate) fn ignores_cookie(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(ORIGIN)
            && self.allow(headers)
            && self.check_for_cookie(headers).is_err()
    }

    /// Adds what CORS wants to a response to `request`.
    pub(crate) fn mark(
        &self,
        request: &HeaderMap,
        credentialed: Credentialed,
        response: &mut HeaderMap,
    ) {
        response.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.answer(request) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if credentialed == Credentialed::Allowed || self.check_for_cookie(request).is_ok() {
                response.insert(
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                );
            }
            response.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("retry-after, etag"),
            );
        }
    }

    /// Adds what a preflight asks for, besides [`Origins::mark`].
    pub(crate) fn mark_preflight(&self, request: &HeaderMap, response: &mut HeaderMap) {
        response.append(
            VARY,
            HeaderValue::from_static("access-control-request-headers"),
        );
        if self.answer(request).is_some() {
            for (name, value) in [
                (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
                // Ten minutes: what Chromium and WebKit take at most.
                (ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                response.insert(name, HeaderValue::from_static(value));
            }
            if let Some(names) = allowed_headers(request) {
                response.insert(ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
        }
    }
}

fn refused(message: String) -> ApiError {
    ApiError::new(403, "origin_not_allowed", message)
}

/// What was held against what.
fn compared(headers: &HeaderMap) -> String {
    let shown = |name: HeaderName| {
        let sent: Vec<String> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect();
        match sent.is_empty() {
            true => "not there".to_owned(),
            false => sent.join(", ").chars().take(SHOWN).collect(),
        }
    };
    format!(
        "its Origin is {}, the request's Host is {}",
        shown(ORIGIN),
        shown(HOST)
    )
}

/// The headers that a page wants to send: those it asked for, as an application, or what traces it, has
/// some of its own. A header gives a page nothing that a program without a browser had not.
fn allowed_headers(request: &HeaderMap) -> Option<HeaderValue> {
    let asked = request.get_all(ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let names: Vec<String> = asked
        .filter_map(|names| names.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .map(|name| name.as_str().to_owned())
        .take(ASKED_NAMES)
        .collect();
    let names = names.join(", ");
    if names.is_empty() || names.len() > ASKED_BYTES {
        return None;
    }
    HeaderValue::try_from(names).ok()
}

/// An origin in the one form that is compared: lower case, without the scheme's own port.
fn normal(origin: &str) -> Option<String> {
    let origin = origin.to_ascii_lowercase();
    let (scheme, host) = origin.split_once("://")?;
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@' | ',' | '*');
    if scheme.is_empty() || host.is_empty() || !host.chars().all(plain) {
        return None;
    }
    let host = without_port(host, scheme);
    Some(format!("{scheme}://{host}"))
}

fn without_port<'a>(host: &'a str, scheme: &str) -> &'a str {
    let port = match scheme {
        "http" | "ws" => ":80",
        "https" | "wss" => ":443",
        _ => return host,
    };
    host.strip_suffix(port).unwrap_or(host)
}

fn is_same_host(origin: &str, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let Some((scheme, origin_host)) = origin.split_once("://") else {
        return false;
    };
    without_port(&host.to_ascii_lowercase(), scheme) == origin_host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &str, origin: Option<&str>, host: &str, want: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        let origins: Origins = allowed.parse().unwrap();
        assert_eq!(origins.allow(&headers), want, "{allowed} {origin:?} {host}");
        assert_eq!(origins.answer(&headers).is_some(), want && origin.is_some());
    }

    #[test]
    fn who_may() {
        check("", None, "a.example", true);
        check("", Some("http://localhost:8080"), "localhost:8080", true);
        check("", Some("https://A.example"), "a.example", true);
        check("", Some("https://a.example:443"), "a.example", true);
        check("", Some("https://a.example"), "a.example:443", true);
        check("", Some("https://a.example"), "a.example:80", false);
        check("", Some("https://evil.example"), "a.example", false);
        check("", Some("https://a.example.evil"), "a.example", false);
        check("", Some("https://evil@a.example"), "a.example", false);
        check("", Some("null"), "null", false);
        check("", Some(""), "a.example", false);
        check("*", Some("null"), "a", true);
        check("null", Some("null"), "a", true);
        check("null", Some("file://"), "a", false);
        check("file://,same-host", Some("file://"), "a", true);
        check("file://,same-host", Some("null"), "a", false);
        let list = "https://app.example/, http://localhost:3000";
        check(list, Some("https://app.example"), "b", true);
        check(list, Some("HTTP://localhost:3000"), "b", true);
        check(list, Some("http://app.example"), "b", false);
        check(list, Some("http://b"), "b", false);
        check("same-host,https://c.d,", Some("http://b"), "b", true);
    }

    #[test]
    fn two_origins_are_none() {
        let mut headers = HeaderMap::new();
        headers.append(ORIGIN, "http://a".parse().unwrap());
        headers.append(ORIGIN, "http://b".parse().unwrap());
        assert!(!"*".parse::<Origins>().unwrap().allow(&headers));
    }

    fn from(origin: &str, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        headers.insert(ORIGIN, origin.parse().unwrap());
        headers
    }

    #[test]
    fn cookies_count_from_pages_with_a_place_of_their_own() {
        let check = |allowed: &str, origin: &str, counts: bool, left_out: bool| {
            let origins: Origins = allowed.parse().unwrap();
            let headers = from(origin, "a");
            let is_ok = origins.check_for_cookie(&headers).is_ok();
            assert_eq!(is_ok, counts, "{allowed} {origin}");
            let is_left_out = origins.ignores_cookie(&headers);
            assert_eq!(is_left_out, left_out, "{allowed} {origin}");
        };
        check("*", "http://a", true, false);
        check("*", "http://b", false, true);
        check("*,http://b", "http://b", true, false);
        // Any site can put a page into a sandbox.
        check("null", "null", false, true);
        check("file://", "file://", false, true);
        check("", "http://b", false, false);
    }

    #[test]
    fn refusals_say_what_was_compared() {
        let origins: Origins = "".parse().unwrap();
        let error = origins
            .check(&from("https://app.example", "10.0.0.7:8080"))
            .unwrap_err();
        for part in [
            "https://app.example",
            "10.0.0.7:8080",
            "--allowed-origins",
            "proxy",
        ] {
            assert!(error.message.contains(part), "{error}");
        }
        let origins: Origins = "https://b".parse().unwrap();
        let error = origins.check(&from(&"x".repeat(5_000), "a")).unwrap_err();
        assert!(
            error.message.len() < 600 && !error.message.contains("proxy"),
            "{error}"
        );
    }

    #[test]
    fn preflights_get_what_they_ask_for() {
        let check = |asked: &str, want: Option<&str>| {
            let mut headers = from("http://a", "a");
            headers.insert(ACCESS_CONTROL_REQUEST_HEADERS, asked.parse().unwrap());
            let mut answer = HeaderMap::new();
            Origins::default().mark_preflight(&headers, &mut answer);
            let got = answer.get(ACCESS_CONTROL_ALLOW_HEADERS);
            assert_eq!(got.map(|names| names.to_str().unwrap()), want, "{asked}");
        };
        check(
            "traceparent,Baggage, x-my-app",
            Some("traceparent, baggage, x-my-app"),
        );
        check("a b, x-ok, (", Some("x-ok"));
        check("", None);
        check(&"x".repeat(3_000), None);
        let mut answer = HeaderMap::new();
        Origins::default().mark_preflight(&from("http://b", "a"), &mut answer);
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_METHODS));
    }

    #[test]
    fn bad_lists() {
        for bad in [
            "app.example",
            "https://",
            "https://a/b",
            "https://*.a",
            "a,b",
        ] {
            assert!(bad.parse::<Origins>().is_err(), "{bad}");
        }
        let text = "*,same-host,null,file://,https://a";
        assert_eq!(text.parse::<Origins>().unwrap().to_string(), text);
    }
}
