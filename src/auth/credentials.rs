//! What a request brought to say who it comes from.

use std::borrow::Cow;
use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE};
use percent_encoding::percent_decode_str;

/// The header of an API key.
const API_KEY: &str = "x-api-key";

/// Where a token or key was found. The first place that has one counts, and only that one: to try
/// others after a bad one would let a page add a second try to somebody's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// `Authorization: Bearer`; also a token that came in a frame.
    Bearer,
    /// `X-API-Key`.
    ApiKey,
    /// `?token=`.
    Query,
    /// The cookie.
    Cookie,
}

/// A request's token or key, if it has one, and the name it gives itself.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    secret: Option<(Place, Box<str>)>,
    user: Option<Box<str>>,
}

impl Credentials {
    /// Reads a request's headers and its raw query: a bearer token, else an API key, else `?token=`,
    /// else the cookie of this name. What is empty counts as not there.
    pub fn of(headers: &HeaderMap, query: &str, cookie_name: &str) -> Self {
        let secret = bearer(headers)
            .map(|text| (Place::Bearer, text))
            .or_else(|| Some((Place::ApiKey, filled(headers.get(API_KEY)?.to_str().ok()?)?)))
            .or_else(|| Some((Place::Query, parameter(query, "token")?)))
            .or_else(|| Some((Place::Cookie, cookie(headers, cookie_name)?)));
        Credentials {
            secret,
            user: parameter(query, "user"),
        }
    }

    /// A token by itself, as a frame brings it.
    pub fn token(text: &str) -> Self {
        Credentials {
            secret: filled(text).map(|text| (Place::Bearer, text)),
            user: None,
        }
    }

    /// The same without what a browser sent of its own accord.
    pub fn without_cookie(self) -> Self {
        let secret = self.secret.filter(|(place, _)| *place != Place::Cookie);
        Credentials { secret, ..self }
    }

    /// Whether there is no token and no key.
    pub fn is_empty(&self) -> bool {
        self.secret.is_none()
    }

    /// Whether it's a cookie that counts, which a browser sends for any page that asks.
    pub fn from_cookie(&self) -> bool {
        matches!(self.secret, Some((Place::Cookie, _)))
    }

    /// The token or key, and where it was.
    pub(super) fn secret(&self) -> Option<(Place, &str)> {
        let secret = self.secret.as_ref();
        secret.map(|(place, text)| (*place, text.as_ref()))
    }

    /// Who `?user=` says it is.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("from", &self.secret.as_ref().map(|(place, _)| place))
            .field("user", &self.user)
            .finish()
    }
}

fn filled(text: &str) -> Option<Box<str>> {
    Some(text.trim())
        .filter(|text| !text.is_empty())
        .map(Into::into)
}

fn bearer(headers: &HeaderMap) -> Option<Box<str>> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    // Other schemes are somebody else's: a proxy's password in front of us, for one.
    sent.find_map(|header| {
        let (scheme, text) = header.to_str().ok()?.trim().split_once(' ')?;
        filled(text).filter(|_| scheme.eq_ignore_ascii_case("bearer"))
    })
}

/// The first value of a query's parameter, as forms and `URLSearchParams` write it.
fn parameter(query: &str, name: &str) -> Option<Box<str>> {
    let decoded = |text: &str| {
        let spaced = match text.contains('+') {
            true => Cow::Owned(text.replace('+', " ")),
            false => Cow::Borrowed(text),
        };
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        if decoded(key) != name {
            return None;
        }
        Some(decoded(value).into_boxed_str()).filter(|value| !value.is_empty())
    })
}

/// The first cookie of that name, without the quotes some put around it.
fn cookie(headers: &HeaderMap, name: &str) -> Option<Box<str>> {
    let sent = headers.get_all(COOKIE).iter();
    let pairs = sent
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'));
    pairs
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| key.trim() == name)
        .find_map(|(_, value)| {
            let value = value.trim();
            let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            filled(quoted.unwrap_or(value))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(headers: &[(&'static str, &str)], query: &str) -> Credentials {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        Credentials::of(&map, query, "token")
    }

    #[test]
    fn where_they_are() {
        use Place::{ApiKey, Bearer, Cookie, Query};
        let check = |headers: &[(&'static str, &str)], query: &str, want: Option<(Place, &str)>| {
            let found = credentials(headers, query);
            assert_eq!(found.secret(), want, "{headers:?} {query}");
            assert_eq!(found.is_empty(), want.is_none());
            assert_eq!(found.from_cookie(), matches!(want, Some((Cookie, _))));
        };
        check(&[], "", None);
        for scheme in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "] {
            check(&[("authorization", scheme)], "", Some((Bearer, "a.b.c")));
        }
        for other in ["Basic YTpi", "Bearer", "Bearer ", "a.b.c", "Bearera.b.c"] {
            check(&[("authorization", other)], "", None);
            let both = [("authorization", other), ("cookie", "token=x")];
            check(&both, "", Some((Cookie, "x")));
        }
        let two = [("authorization", "Basic x"), ("authorization", "Bearer y")];
        check(&two, "", Some((Bearer, "y")));

        let all = [
            ("cookie", "token=c"),
            ("x-api-key", "k"),
            ("authorization", "Bearer b"),
        ];
        check(&all, "token=q", Some((Bearer, "b")));
        check(&all[..2], "token=q", Some((ApiKey, "k")));
        check(&all[..1], "token=q", Some((Query, "q")));
        check(&all[..1], "", Some((Cookie, "c")));
        check(&[("x-api-key", " ")], "", None);

        check(&[], "room=a&token=a%2Eb.c&token=z", Some((Query, "a.b.c")));
        check(&[], "%74oken=a", Some((Query, "a")));
        for none in [
            "token",
            "token=",
            "xtoken=a",
            "tokens=a",
            "a=token=b",
            "Token=a",
        ] {
            check(&[], none, None);
        }

        for (header, want) in [
            ("token=a.b.c", Some("a.b.c")),
            ("a=1; token=x; b=2", Some("x")),
            ("a=1;token=x;b=2", Some("x")),
            (" token = x ", Some("x")),
            ("token=\"x\"", Some("x")),
            ("token=x; token=y", Some("x")),
            ("token=; token=y", Some("y")),
            ("token=a=b==", Some("a=b==")),
            ("xtoken=a", None),
            ("my token=a", None),
            ("session=token=a", None),
            ("TOKEN=a", None),
            ("token", None),
            ("", None),
        ] {
            let want = want.map(|text| (Cookie, text));
            check(&[("cookie", header)], "", want);
        }
        let several = [("cookie", "a=1"), ("cookie", "token=x")];
        check(&several, "", Some((Cookie, "x")));
    }

    #[test]
    fn another_cookie() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "token=a; sid=b".parse().unwrap());
        let found = Credentials::of(&headers, "", "sid");
        assert_eq!(found.secret(), Some((Place::Cookie, "b")));
    }

    #[test]
    fn who_it_says_it_is() {
        let check = |query: &str, want: Option<&str>| {
            assert_eq!(credentials(&[], query).user(), want, "{query}");
        };
        check("user=alice", Some("alice"));
        check("room=a&user=Zo%C3%AB+L", Some("Zoë L"));
        check("user=", None);
        check("superuser=a", None);
    }

    #[test]
    fn never_printed() {
        let found = [
            credentials(&[("authorization", "Bearer hush")], "user=alice"),
            credentials(&[("x-api-key", "hush")], ""),
            credentials(&[("cookie", "token=hush")], ""),
            credentials(&[], "token=hush"),
            Credentials::token("hush"),
        ];
        assert!(!Credentials::token("hush").is_empty() && Credentials::token(" ").is_empty());
        let printed = format!("{found:?}");
        assert!(!printed.contains("hush"), "{printed}");
        assert!(printed.contains("Cookie") && printed.contains("alice"));
    }
}
