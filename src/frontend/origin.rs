//! Which web pages may use this node: the check against cross-site sockets, and CORS.
//!
//! Browsers send cookies and reach localhost from any page, and a WebSocket knows no CORS, so the
//! `Origin` header is all there is to tell a page of ours from a stranger's. Programs send none.

use std::fmt;
use std::str::FromStr;

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST,
    ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue};

use super::ApiError;

/// Allowed origins. A request without an `Origin` header is always let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    any: bool,
    same_host: bool,
    /// `scheme://host[:port]`, in lower case.
    list: Vec<String>,
}

impl Default for Origins {
    /// Only pages that this host itself serves.
    fn default() -> Self {
        Origins {
            any: false,
            same_host: true,
            list: Vec::new(),
        }
    }
}

/// The text names no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no origin: write scheme and host, as in https://app.example or http://localhost:3000, or same-host, or *"
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
            list: Vec::new(),
        };
        for item in items {
            match item {
                "*" => origins.any = true,
                "same-host" => origins.same_host = true,
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
            list: self.list.clone(),
        };
        let site = headers.get("sec-fetch-site");
        let is_strange = !headers.contains_key(ORIGIN)
            && site.is_some_and(|site| site != "same-origin" && site != "none");
        if known.allow(headers) && !is_strange {
            Ok(())
        } else {
            Err(ApiError::new(
                403,
                "origin_not_allowed",
                "a cookie counts only from pages whose origin is named; see --allowed-origins",
            ))
        }
    }

    /// Refuses a request from a page that is not allowed.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.allow(headers) {
            Ok(())
        } else {
            Err(ApiError::new(
                403,
                "origin_not_allowed",
                "pages of this origin may not use this node; see --allowed-origins",
            ))
        }
    }

    /// The origin to name in `Access-Control-Allow-Origin`, if the request has one that may.
    pub(crate) fn answer<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        headers.get(ORIGIN).filter(|_| self.allow(headers))
    }

    /// Adds what CORS wants to a response to `request`.
    pub(crate) fn mark(&self, request: &HeaderMap, response: &mut HeaderMap) {
        response.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = self.answer(request) {
            response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            if self.check_for_cookie(request).is_ok() {
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
        if self.answer(request).is_some() {
            for (name, value) in [
                (ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, POST"),
                (
                    ACCESS_CONTROL_ALLOW_HEADERS,
                    "authorization, x-api-key, content-type, idempotency-key, last-event-id, cache-control, if-none-match",
                ),
                // Ten minutes: what Chromium and WebKit take at most.
                (ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                response.insert(name, HeaderValue::from_static(value));
            }
        }
    }
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
        let text = "*,same-host,https://a";
        assert_eq!(text.parse::<Origins>().unwrap().to_string(), text);
    }
}
