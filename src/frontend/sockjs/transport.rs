//! What the requests of a session over HTTP answer.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::time::sleep;

use super::framing::{self, Messages, OPEN};
use super::path::Transport;
use super::session::{Found, Seat, owner};
use super::{Endpoint, NOT_CACHED};
use crate::auth::{AuthError, Identity};
use crate::frontend::ApiError;
use crate::frontend::carried::Service;
use crate::relay::close::CloseReason;

/// A client that gave up a request may come with the next one before the first is noticed to be gone.
const GRACE: Duration = Duration::from_millis(100);

/// How frames are written to a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A line each.
    Lines,
    /// An event each.
    Events,
}

impl Style {
    fn of(transport: Transport) -> Self {
        match transport {
            Transport::EventSource => Style::Events,
            _ => Style::Lines,
        }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Style::Lines => "application/javascript; charset=UTF-8",
            Style::Events => "text/event-stream",
        })
    }

    fn frame(self, frame: &str) -> Bytes {
        match self {
            Style::Lines => format!("{frame}\n"),
            // A frame has no line ends: they are escaped in JSON.
            Style::Events => format!("data: {frame}\r\n\r\n"),
        }
        .into()
    }

    /// What a stream begins with: enough for browsers to show what comes.
    fn prelude(self) -> Bytes {
        match self {
            Style::Lines => format!("{}\n", "h".repeat(2048)).into(),
            Style::Events => Bytes::from_static(b"\r\n"),
        }
    }

    fn response(self, body: Body) -> Response {
        let headers = [
            (CONTENT_TYPE, self.content_type()),
            (CACHE_CONTROL, NOT_CACHED),
            (
                axum::http::HeaderName::from_static("x-accel-buffering"),
                HeaderValue::from_static("no"),
            ),
        ];
        (headers, body).into_response()
    }
}

/// A streaming response, as far as it has come.
struct Streaming {
    style: Style,
    /// What is to be written before anything is fetched.
    first: Vec<Bytes>,
    /// None once nothing more is to come.
    seat: Option<Seat>,
    sent: usize,
    most: usize,
}

impl Streaming {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !self.first.is_empty() {
            let first = self.first.remove(0);
            return Some((Ok(first), self));
        }
        if self.sent >= self.most
            && let Some(seat) = self.seat.take()
        {
            seat.done();
        }
        let fetched = self.seat.as_mut()?.next().await;
        let frame = self.style.frame(&fetched.frame);
        self.sent += frame.len();
        if fetched.is_last
            && let Some(seat) = self.seat.take()
        {
            seat.done();
        }
        Some((Ok(frame), self))
    }

    fn response(self) -> Response {
        let style = self.style;
        style.response(Body::from_stream(stream::unfold(self, Streaming::next)))
    }
}

impl<S: Service> Endpoint<S> {
    /// Takes messages in.
    pub(super) async fn take(
        &self,
        name: &str,
        who: &Result<Identity, AuthError>,
        body: Body,
    ) -> Result<Response, ApiError> {
        let gone = || ApiError::new(404, "not_found", "there is no such session");
        let Found::Own(session) = self.sessions.find(name, owner(who).as_deref()) else {
            return Err(gone());
        };
        // Escaped, a message may become longer.
        let longest = self.service.max_message().saturating_mul(2);
        let body = axum::body::to_bytes(body, longest).await;
        let body =
            body.map_err(|_| ApiError::new(413, "too_large", "the messages are too large"))?;
        if body.is_empty() {
            return Ok(broken("Payload expected."));
        }
        let Some(messages) = Messages::read(&body) else {
            return Ok(broken("Broken JSON encoding."));
        };
        if !session.send(messages).await {
            return Err(gone());
        }
        let headers = [
            (
                CONTENT_TYPE,
                // Some browsers took nothing for XML.
                HeaderValue::from_static("text/plain; charset=UTF-8"),
            ),
            (CACHE_CONTROL, NOT_CACHED),
        ];
        Ok((StatusCode::NO_CONTENT, headers).into_response())
    }

    /// Gives messages out, of a session that it opens if need be.
    pub(super) async fn receive(
        &self,
        name: &str,
        transport: Transport,
        who: Result<Identity, AuthError>,
    ) -> Result<Response, ApiError> {
        let style = Style::of(transport);
        let streams = transport != Transport::Xhr;
        let mut first = Vec::new();
        if streams {
            first.push(style.prelude());
        }
        let taken = || {
            ApiError::new(
                503,
                "too_many_sessions",
                "this session can't be opened; try another",
            )
        };
        let session = match (self.sessions.find(name, owner(&who).as_deref()), &who) {
            (Found::Own(session), _) => session,
            // Whose token has ended since is told so; what the session has for its owner is not.
            (Found::Other, Err(error)) => {
                let text = error.to_string().into();
                let reason = match error {
                    AuthError::Missing => CloseReason::Forbidden(text),
                    _ => CloseReason::Unauthenticated(text),
                };
                first.push(style.frame(&framing::close(reason.code(), &reason.text())));
                return Ok(style.response(Body::from(first.concat())));
            }
            (Found::Other, Ok(_)) => return Err(taken()),
            (Found::Nothing, _) => {
                if self.service.state().drain.began() {
                    return Err(ApiError::draining());
                }
                let session = self.sessions.open(&self.service, name, who);
                first.push(style.frame(OPEN));
                session.ok_or_else(taken)?
            }
        };
        let mut seat = session.receive();
        if seat.is_err() {
            sleep(GRACE).await;
            seat = session.receive();
        }
        let seat = match seat {
            Ok(seat) => seat,
            Err(taken) if !streams => return Ok(style.response(style.frame(&taken).into())),
            Err(taken) => {
                first.push(style.frame(&taken));
                let streaming = Streaming {
                    style,
                    first,
                    seat: None,
                    sent: 0,
                    most: 0,
                };
                return Ok(streaming.response());
            }
        };
        if streams {
            let streaming = Streaming {
                style,
                first,
                seat: Some(seat),
                sent: 0,
                most: self.options.response_max,
            };
            return Ok(streaming.response());
        }
        Ok(style.response(poll(style, first, seat).await.into()))
    }
}

/// The one frame of a polling request.
async fn poll(style: Style, mut first: Vec<Bytes>, mut seat: Seat) -> Bytes {
    let frame = match first.pop() {
        Some(open) => open,
        None => style.frame(&seat.next().await.frame),
    };
    seat.done();
    frame
}

fn broken(what: &'static str) -> Response {
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        [(CONTENT_TYPE, "text/plain; charset=UTF-8")],
        what,
    )
        .into_response()
}
