//! Passes a request on to the node that has its session: behind a balancer that knows nothing of
//! sessions, any node may get it.
//!
//! The address is one that a living node has said of itself, never a client's word. A request is
//! passed on once: the header that says so ends it at the next node, wherever that thinks it belongs.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE};
use axum::http::request::Parts;
use axum::http::{self, HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{Run, Taken, takeover};
use crate::drain::{Drain, DrainSlot};

mod idle;

pub(crate) use idle::Idle;

/// Says that a request was passed on.
static PASSED_ON: HeaderName = HeaderName::from_static("x-tailcast-passed-on");

/// How long a connection to another node may take: they are near, or they are gone.
const CONNECT: Duration = Duration::from_secs(2);

/// Headers that are between two neighbours.
const HOP_BY_HOP: [HeaderName; 4] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Why a request did not get through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    /// The node takes no connection.
    #[error("the node at {0} can't be reached: {1}")]
    Unreachable(String, std::io::Error),
    /// It took too long.
    #[error("the node at {0} did not answer in time")]
    TooSlow(String),
    /// It said something that is no answer.
    #[error("the node did not answer: {0}")]
    Http(#[from] hyper::Error),
    /// The client's body is too large, or broke off: the other node was not asked.
    #[error("the body could not be read: {0}")]
    Body(axum::Error),
    /// What it answered is too large, or broke off.
    #[error("the node's answer could not be read: {0}")]
    Answer(axum::Error),
    /// The request can't be written.
    #[error("the request can't be written: {0}")]
    Request(#[from] axum::http::Error),
    /// This node goes away.
    #[error("this node drains")]
    Draining,
    /// It did not make a WebSocket of it.
    #[error("the node answered with {0} where a WebSocket was to begin")]
    NoSocket(StatusCode),
}

/// Whether a request was passed on already.
pub(crate) fn was_passed_on(headers: &HeaderMap) -> bool {
    headers.contains_key(&PASSED_ON)
}

/// One way to another node.
pub(crate) struct Hop {
    /// Its address, as it says itself.
    pub(crate) address: String,
    /// How long an answer may take.
    pub(crate) patience: Duration,
    /// Most bytes of a body.
    pub(crate) max_body: usize,
    /// Tells when this node goes away.
    pub(crate) drain: Drain,
    /// Connections that may be used again.
    pub(crate) idle: Arc<Idle>,
}

/// Most bytes of an answer: what waits for a client is 64 KiB and one write of the relay's.
const ANSWER_MAX: usize = 16 << 20;

/// A connection to another node. Dropped, it's closed.
struct Way {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

impl Hop {
    /// Passes a request on. Dropped before it's answered, it's dropped at the other node as well.
    pub(crate) async fn request(self, parts: Parts, body: Body) -> Result<Response, ForwardError> {
        let body = to_bytes(body, self.max_body).await;
        let body = body.map_err(ForwardError::Body)?;
        let mut request = self.rewritten(&parts, body)?;
        for name in &HOP_BY_HOP {
            request.headers_mut().remove(name);
        }
        let slot = self.drain.register();
        let answer = tokio::select! {
            answer = timeout(self.patience, self.send(request)) => answer,
            _ = slot.told() => return Err(ForwardError::Draining),
        };
        let (answer, way) = answer.map_err(|_| self.too_slow())??;
        let (mut head, body) = answer.into_parts();
        let body = timeout(self.patience, to_bytes(Body::new(body), ANSWER_MAX));
        let body = body.await.map_err(|_| self.too_slow())?;
        let body = body.map_err(ForwardError::Answer)?;
        self.idle.keep(self.address, way);
        for name in &HOP_BY_HOP {
            head.headers.remove(name);
        }
        // Whether a page may read it is said by the node that it asked.
        let is_cors = |name: &HeaderName| name.as_str().starts_with("access-control-");
        let cors: Vec<HeaderName> = head
            .headers
            .keys()
            .filter(|n| is_cors(n))
            .cloned()
            .collect();
        for name in cors {
            head.headers.remove(name);
        }
        Ok(Response::from_parts(head, Body::from(body)))
    }

    /// Passes a WebSocket on: its handshake, and then all bytes of it, both ways.
    pub(crate) async fn socket(self, parts: &mut Parts) -> Result<Response, ForwardError> {
        let Way {
            mut sender,
            _driver: driver,
        } = self.connect().await?;
        let request = self.rewritten(parts, Bytes::new())?;
        let answer = timeout(self.patience, sender.send_request(request));
        let answer = answer.await.map_err(|_| self.too_slow())??;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(ForwardError::NoSocket(answer.status()));
        }
        let head = head_of(&answer);
        let slot = self.drain.register();
        let run: Run = Box::new(move |taken| {
            Box::pin(async move {
                if let Ok(upgraded) = hyper::upgrade::on(answer).await {
                    tunnel(taken, TokioIo::new(upgraded), slot).await;
                }
                drop(driver);
            })
        });
        Ok(takeover::leave_http(parts, head, run).await)
    }

    /// Sends a request over a connection that rests, or else a new one.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(http::Response<Incoming>, Way), ForwardError> {
        while let Some(mut way) = self.idle.take(&self.address) {
            match way.sender.try_send_request(request).await {
                Ok(answer) => return Ok((answer, way)),
                // Nothing of it was sent: the connection had just ended. All else may have been done.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut way = self.connect().await?;
        let answer = way.sender.send_request(request).await?;
        Ok((answer, way))
    }

    async fn connect(&self) -> Result<Way, ForwardError> {
        let stream = timeout(CONNECT, TcpStream::connect(&self.address)).await;
        let stream = stream
            .map_err(|_| self.too_slow())?
            .map_err(|error| ForwardError::Unreachable(self.address.clone(), error))?;
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to another node failed");
            }
        });
        Ok(Way {
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    fn too_slow(&self) -> ForwardError {
        ForwardError::TooSlow(self.address.clone())
    }

    /// The same request, for that node, marked.
    fn rewritten(&self, parts: &Parts, body: Bytes) -> Result<Request<Full<Bytes>>, ForwardError> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let uri: Uri = path.parse().map_err(axum::http::Error::from)?;
        let mut request = Request::builder().method(parts.method.clone()).uri(uri);
        if let Some(headers) = request.headers_mut() {
            *headers = parts.headers.clone();
            // The other node compares it with the origin, as this one did.
            if !headers.contains_key(HOST) {
                headers.insert(HOST, HeaderValue::from_static("tailcast"));
            }
            headers.remove("content-length");
            headers.insert(PASSED_ON.clone(), HeaderValue::from_static("1"));
        }
        Ok(request.body(Full::new(body))?)
    }
}

/// The head of a response, as it's to go out again.
fn head_of<B>(response: &axum::http::Response<B>) -> Bytes {
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    for (name, value) in response.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// Copies both ways until one side ends, or this node does.
async fn tunnel(taken: Taken, mut other: impl AsyncRead + AsyncWrite + Unpin, slot: DrainSlot) {
    let Taken {
        socket, read_ahead, ..
    } = taken;
    let Some(mut client) = socket.into_stream() else {
        return;
    };
    let copied = async {
        other.write_all(&read_ahead).await?;
        copy_bidirectional(&mut client, &mut other).await
    };
    tokio::select! {
        copied = copied => if let Err(error) = copied {
            tracing::debug!(%error, "a tunnel ended");
        },
        _ = slot.told() => {}
    }
}
