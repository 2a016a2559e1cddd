//! How a request leaves HTTP and becomes a long-lived connection.
//!
//! hyper's own way (an upgrade, or a streaming body) keeps its buffers and state for as long as the
//! connection lives: 4 to 20 KB each. So a handler that wants the connection asks for it through the
//! [`Takeover`] in its request's extensions and never answers. The connection's loop, which sees
//! this, takes the socket back from hyper, drops hyper's state, writes the response head itself, and
//! goes on in a fresh task that is as small as what it runs.
//!
//! Under a server that isn't ours there is no `Takeover`. Then a WebSocket goes through hyper's
//! upgrade, and server-sent events through a body that reads from a pair of Unix sockets.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_util::io::ReaderStream;
use tracing::debug;

use super::{ApiError, Socket};

/// Runs a connection that left HTTP, to its end.
pub(crate) type Run = Box<dyn FnOnce(Taken) -> BoxFuture<'static, ()> + Send>;

/// A connection that left HTTP.
pub(crate) struct Taken {
    /// Its socket.
    pub(crate) socket: Socket,
    /// What the client sent behind its request, mostly nothing.
    pub(crate) read_ahead: Bytes,
    /// The client's address, if it's known.
    pub(crate) peer: Option<SocketAddr>,
}

impl Taken {
    /// Copies `read_ahead`, because what hyper hands back keeps its whole read buffer alive.
    pub(crate) fn new(socket: Socket, read_ahead: &[u8], peer: Option<SocketAddr>) -> Self {
        let read_ahead = if read_ahead.is_empty() {
            Bytes::new()
        } else {
            Bytes::copy_from_slice(read_ahead)
        };
        Taken {
            socket,
            read_ahead,
            peer,
        }
    }
}

/// What a handler left for its connection's loop.
pub(crate) struct Taking {
    /// The response head, blank line included.
    pub(crate) head: Bytes,
    /// What to do with the socket then.
    pub(crate) run: Run,
}

/// A request extension: the way to take its connection over. One per connection.
#[derive(Clone, Default)]
pub(crate) struct Takeover(Arc<Slot>);

#[derive(Default)]
struct Slot {
    taking: Mutex<Option<Taking>>,
    filled: Notify,
}

impl Takeover {
    /// Takes the connection over. The future that called this is dropped where it waits.
    pub(crate) async fn take(&self, head: Bytes, run: Run) -> Infallible {
        *self.slot() = Some(Taking { head, run });
        self.0.filled.notify_one();
        pending().await
    }

    /// Waits until a handler takes the connection over.
    pub(crate) async fn taken(&self) -> Taking {
        loop {
            if let Some(taking) = self.slot().take() {
                return taking;
            }
            self.0.filled.notified().await;
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Taking>> {
        self.0.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Takeover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Takeover")
    }
}

/// How a client finds the end of a body that is written past hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each frame is a chunk, and [`LAST_CHUNK`] is the end.
    Chunked,
    /// The body ends with the connection: for clients of HTTP/1.0, which know no chunks, and under a
    /// server that isn't ours, which makes the chunks itself.
    ToTheEnd,
}

/// The end of a body in chunks.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Framing {
    /// What suits this request.
    pub(crate) fn of(parts: &Parts) -> Self {
        let is_ours = parts.extensions.get::<Takeover>().is_some();
        match is_ours && parts.version >= Version::HTTP_11 {
            true => Framing::Chunked,
            false => Framing::ToTheEnd,
        }
    }

    /// A part of the body.
    pub(crate) fn frame(self, bytes: &[u8]) -> Bytes {
        match self {
            Framing::Chunked => chunk(bytes),
            Framing::ToTheEnd => Bytes::copy_from_slice(bytes),
        }
    }
}

/// One chunk of a body. There is none of no bytes, as that would be the last one.
pub(crate) fn chunk(bytes: &[u8]) -> Bytes {
    if bytes.is_empty() {
        return Bytes::new();
    }
    let mut out = Vec::with_capacity(bytes.len() + 16);
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// Makes a long-lived connection of a request: by takeover, or as this server allows.
pub(crate) async fn leave_http(parts: &mut Parts, head: Bytes, run: Run) -> Response {
    if let Some(takeover) = parts.extensions.remove::<Takeover>() {
        match takeover.take(head, run).await {}
    }
    let Some(mut response) = response_of(&head) else {
        return ApiError::internal("a response head went wrong").into_response();
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            return ApiError::internal("this server can't upgrade connections").into_response();
        };
        tokio::spawn(run_upgraded(upgrade, run));
        return response;
    }
    match UnixStream::pair() {
        Ok((ours, theirs)) => {
            tokio::spawn(run(Taken::new(ours.into(), &[], None)));
            // Whose connection it is decides when it closes.
            response.headers_mut().remove(CONNECTION);
            *response.body_mut() = Body::from_stream(ReaderStream::new(theirs));
            response
        }
        Err(error) => {
            debug!(%error, "no socket pair");
            ApiError::internal("too many open files on this node").into_response()
        }
    }
}

async fn run_upgraded(upgrade: OnUpgrade, run: Run) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "upgrade failed"),
    };
    match upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => {
            let stream = parts.io.into_inner();
            let peer = stream.peer_addr().ok();
            let taken = Taken::new(stream.into(), &parts.read_buf, peer);
            drop(parts.read_buf);
            // A task of its own: this one has been as large as the upgrade needed.
            tokio::spawn(run(taken));
        }
        // Not a plain TCP socket (TLS, perhaps): copy between it and one of ours.
        Err(upgraded) => {
            let (ours, mut theirs) = match UnixStream::pair() {
                Ok(pair) => pair,
                Err(error) => return debug!(%error, "no socket pair"),
            };
            tokio::spawn(run(Taken::new(ours.into(), &[], None)));
            let copied: io::Result<_> =
                tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut theirs).await;
            if let Err(error) = copied {
                debug!(%error, "bridge ended");
            }
        }
    }
}

/// Reads a response head that we wrote.
fn response_of(head: &[u8]) -> Option<Response> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse::<u16>().ok()?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).ok()?;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        response.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(value.trim()).ok()?,
        );
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::Request;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn chunks() {
        assert_eq!(chunk(b"data: x\n\n"), "9\r\ndata: x\n\n\r\n");
        assert_eq!(chunk(&[b'x'; 4096])[..6], *b"1000\r\n");
        assert_eq!(chunk(b""), "");
        let framing = |version: Version, is_ours: bool| {
            let mut request = axum::http::Request::builder().version(version);
            if is_ours {
                request = request.extension(Takeover::default());
            }
            Framing::of(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(framing(Version::HTTP_11, true), Framing::Chunked);
        assert_eq!(framing(Version::HTTP_10, true), Framing::ToTheEnd);
        assert_eq!(framing(Version::HTTP_11, false), Framing::ToTheEnd);
    }

    #[test]
    fn heads_are_read_back() {
        let head =
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nvary: a\r\nvary: b\r\n\r\n";
        let response = response_of(head).unwrap();
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers().get_all("vary").iter().count(), 2);
        assert!(response_of(b"nonsense").is_none());
        assert!(response_of(b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n").is_none());
    }

    /// Under `axum::serve`, where nothing can be taken over.
    async fn elsewhere(head: &'static str, text: &'static str) -> String {
        let handler = move |request: Request| async move {
            let (mut parts, _) = request.into_parts();
            let run: Run = Box::new(move |taken| {
                Box::pin(async move {
                    let socket = taken.socket;
                    assert_eq!(
                        socket.wire().try_write(text.as_bytes()).unwrap(),
                        text.len()
                    );
                    // Until the client has it and ends.
                    socket.readable().await.unwrap();
                })
            });
            leave_http(&mut parts, Bytes::from_static(head.as_bytes()), run).await
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let app = Router::new().route("/", get(handler));
        let server = tokio::spawn(async move { axum::serve(listener, app).await });
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        while !answer.contains(text) {
            let mut buffer = [0; 256];
            let count = client.read(&mut buffer).await.unwrap();
            assert!(count > 0, "ended after {answer:?}");
            answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        drop(client);
        server.abort();
        answer
    }

    #[tokio::test]
    async fn under_another_server() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
        let answer = elsewhere(head, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 101 ") && answer.ends_with("\r\n\r\nhello"));
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let answer = elsewhere(head, "data: x\n\n").await;
        assert!(
            answer.contains("content-type: text/event-stream\r\n"),
            "{answer}"
        );
        assert!(
            answer.contains("transfer-encoding: chunked\r\n"),
            "{answer}"
        );
    }
}
