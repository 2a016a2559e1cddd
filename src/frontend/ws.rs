//! tailcast's own WebSockets: what a handshake asks for, and the two formats that a socket speaks,
//! [`raw::RAW`] and [`wire::JSON`].

use std::sync::Arc;

use axum::http::HeaderMap;
use bytes::Bytes;

use self::raw::Frames;
use self::talk::Dialect;
use super::websocket::{Handshake, subprotocols};
use super::{ApiError, FrontendState, Run, SocketQuery, is_on};
use crate::auth::{AuthError, Identity};
use crate::relay::entry::RoomName;
use crate::relay::position::{Position, PositionError};

#[cfg(fuzzing)]
pub(crate) use self::request::fuzz as fuzz_request;

mod json;
mod raw;
mod request;
mod talk;
mod wire;

/// A handshake that was accepted.
pub(crate) struct Accepted {
    /// The response head.
    pub(crate) head: Bytes,
    /// What runs the socket.
    pub(crate) run: Run,
}

/// Checks a handshake, and makes its answer and what follows.
pub(crate) fn upgrade(
    state: Arc<FrontendState>,
    headers: &HeaderMap,
    query: &SocketQuery,
    room: RoomName,
    who: Result<Identity, AuthError>,
) -> Result<Accepted, ApiError> {
    let mut answer = Answer::to(headers, query)?;
    if state.settings.raw_inbox && query.inbox.is_none() {
        answer.wish.inbox = Some(Position::Now);
    }
    let head = answer.head();
    let run: Run = Box::new(move |taken| {
        Box::pin(talk::run(
            state,
            room,
            answer.wish,
            answer.dialect,
            who,
            taken,
        ))
    });
    Ok(Accepted { head, run })
}

/// What was agreed on.
#[derive(Debug, PartialEq)]
struct Answer {
    handshake: Handshake,
    dialect: Dialect,
    subprotocol: Option<&'static str>,
    wish: Wish,
}

/// What a socket wants of its rooms.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wish {
    /// Where the room of the URL begins.
    from: Position,
    /// Whether it's told who is there.
    presence: bool,
    /// Where the user's own room begins, if it comes at all.
    inbox: Option<Position>,
    /// What kind of frames it gets, if it's raw.
    frames: Frames,
}

impl Wish {
    fn of(query: &SocketQuery, dialect: Dialect) -> Result<Self, ApiError> {
        let position = |text: &str| {
            text.parse()
                .map_err(|error: PositionError| ApiError::bad_request(error.to_string()))
        };
        let inbox = match (query.inbox.as_deref(), dialect) {
            (None, Dialect::Json) | (Some("1" | "true"), _) => Some(Position::Now),
            (None, Dialect::Raw) | (Some("" | "0" | "false"), _) => None,
            (Some(from), _) => Some(position(from)?),
        };
        let frames = match (query.frames.as_deref(), dialect) {
            (None, _) => Frames::default(),
            (Some(word), Dialect::Raw) => Frames::from_word(word)
                .ok_or_else(|| ApiError::bad_request("frames is one of: auto, text, binary"))?,
            (Some(_), Dialect::Json) => {
                return Err(ApiError::bad_request(
                    "frames is for format=raw; a JSON socket's frames are text",
                ));
            }
        };
        Ok(Wish {
            frames,
            from: query
                .from
                .as_deref()
                .map(position)
                .transpose()?
                .unwrap_or_default(),
            presence: is_on(query.presence.as_deref(), "presence")?,
            inbox,
        })
    }
}

impl Answer {
    fn to(headers: &HeaderMap, query: &SocketQuery) -> Result<Self, ApiError> {
        let handshake = Handshake::of(headers)?;
        let (dialect, subprotocol) = dialect(headers, query)?;
        let wish = Wish::of(query, dialect)?;
        Ok(Answer {
            handshake,
            dialect,
            subprotocol,
            wish,
        })
    }

    fn head(&self) -> Bytes {
        self.handshake.head(self.subprotocol)
    }
}

/// The format, and the subprotocol to confirm, which must be one of those offered.
fn dialect(
    headers: &HeaderMap,
    query: &SocketQuery,
) -> Result<(Dialect, Option<&'static str>), ApiError> {
    let offered: Vec<Dialect> = subprotocols(headers)
        .filter_map(Dialect::from_subprotocol)
        .collect();
    let dialect = match query.format.as_deref() {
        Some(word) => Dialect::from_word(word)
            .ok_or_else(|| ApiError::bad_request("format is one of: raw, json"))?,
        None => offered.first().copied().unwrap_or(Dialect::Raw),
    };
    let confirmed = offered.contains(&dialect).then(|| dialect.subprotocol());
    Ok((dialect, confirmed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};
    use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

    /// A good handshake, changed: an empty value takes the header away.
    fn answer(changes: &[(&'static str, &'static str)], query: &str) -> Result<Answer, ApiError> {
        let mut headers = HeaderMap::new();
        let good = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, _) in changes {
            headers.remove(*name);
        }
        for (name, value) in good {
            if !changes.iter().any(|(changed, _)| *changed == name) {
                headers.insert(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                );
            }
        }
        for (name, value) in changes.iter().filter(|(_, value)| !value.is_empty()) {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        Answer::to(&headers, &SocketQuery::of(&query.parse().unwrap())?)
    }

    #[test]
    fn the_sample_of_the_rfc() {
        let answer = answer(&[], "/").unwrap();
        assert_eq!(answer.wish.from, Position::Now);
        let head = String::from_utf8(answer.head().to_vec()).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(
            head.ends_with("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
            "{head}"
        );
    }

    /// Of its section 4.1, which has a bit set that stands for nothing, and that as it should be.
    #[test]
    fn the_other_sample_of_the_rfc() {
        for key in ["AQIDBAUGBwgJCgsMDQ4PEC==", "AQIDBAUGBwgJCgsMDQ4PEA=="] {
            let answer = answer(&[("sec-websocket-key", key)], "/").unwrap();
            let head = String::from_utf8(answer.head().to_vec()).unwrap();
            // Of the key as it came, whatever that stands for.
            let accept = derive_accept_key(key.as_bytes());
            assert!(head.contains(&accept), "{key}: {head}");
        }
    }

    #[test]
    fn refusals() {
        let check = |changes: &[(&'static str, &'static str)], query: &str, status: u16| {
            let error = answer(changes, query).unwrap_err();
            assert_eq!(error.status.as_u16(), status, "{changes:?} {query}");
        };
        check(&[("sec-websocket-version", "8")], "/", 426);
        check(&[("sec-websocket-version", "")], "/", 426);
        check(&[("sec-websocket-key", "")], "/", 400);
        check(&[("sec-websocket-key", "c2hvcnQ=")], "/", 400);
        check(&[("sec-websocket-key", "not base64")], "/", 400);
        // 15 and 17 bytes, and no padding.
        check(&[("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4P")], "/", 400);
        check(
            &[("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEBE=")],
            "/",
            400,
        );
        check(&[("sec-websocket-key", "AQIDBAUGBwgJCgsMDQ4PEA")], "/", 400);
        check(&[("connection", "keep-alive")], "/", 400);
        check(&[("upgrade", "h2c")], "/", 400);
        check(&[], "/?format=xml", 400);
        check(&[], "/?form=json", 400);
        check(&[], "/?from=yesterday", 400);
        check(&[], "/?frames=bytes", 400);
        check(&[], "/?format=json&frames=binary", 400);
        let text = answer(&[], "/?from=$").unwrap_err().message;
        assert_eq!(text, PositionError.to_string());
    }

    #[test]
    fn frames() {
        let check = |query: &str, want: Frames| {
            assert_eq!(answer(&[], query).unwrap().wish.frames, want, "{query}");
        };
        check("/", Frames::Auto);
        check("/?frames=auto", Frames::Auto);
        check("/?frames=text", Frames::Text);
        check("/?format=raw&frames=binary", Frames::Binary);
    }

    #[test]
    fn formats() {
        let check = |offered: &'static str, query: &str, want: (Dialect, Option<&str>)| {
            let got = answer(&[("sec-websocket-protocol", offered)], query).unwrap();
            assert_eq!((got.dialect, got.subprotocol), want, "{offered} {query}");
        };
        let (raw, json) = (Some("tailcast.raw"), Some("tailcast.json"));
        check("", "/", (Dialect::Raw, None));
        check("", "/?format=json", (Dialect::Json, None));
        check("tailcast.json", "/", (Dialect::Json, json));
        check(
            "graphql-ws, tailcast.json, tailcast.raw",
            "/",
            (Dialect::Json, json),
        );
        check("tailcast.raw,tailcast.json", "/", (Dialect::Raw, raw));
        check(
            "tailcast.raw, tailcast.json",
            "/?format=json",
            (Dialect::Json, json),
        );
        check("tailcast.raw", "/?format=json", (Dialect::Json, None));
        check("graphql-ws", "/", (Dialect::Raw, None));
    }
}
