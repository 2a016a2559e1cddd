//! One TCP connection, from its first byte until it ends or leaves HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONNECTION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::debug;

use super::http::{HttpStream, refusal};
use super::{LINGER, Place, Shared, linger};
use crate::frontend::{Taken, Takeover};

/// How long one request of a client without a place may take.
const ONE_REQUEST: Duration = Duration::from_secs(2);

/// Serves one connection.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, place: Place) {
    // hyper's header deadline starts at the first byte, so that one needs its own.
    tokio::select! {
        readable = timeout(shared.handshake_timeout, stream.readable()) => {
            if !matches!(readable, Ok(Ok(()))) {
                return debug!(%peer, "no request came");
            }
        }
        () = shared.drain.beginning() => return,
    }

    let takeover = Takeover::default();
    let service = service_fn(|request: Request<Incoming>| {
        let rests = rests_after(&request);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(takeover.clone());
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = shared.router.clone().oneshot(request);
        let shared = &shared;
        async move {
            let mut answer = answer.await?;
            if rests && !shared.drain.began() {
                announce_rest(answer.headers_mut(), shared.keep_alive_timeout);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let (stream, timer) = HttpStream::new(
        stream,
        shared.limits,
        shared.keep_alive_timeout,
        shared.handshake_timeout,
    );
    let mut builder = shared.http.clone();
    builder.timer(timer.clone());
    let mut http = builder.serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    let taking = loop {
        tokio::select! {
            taking = takeover.taken() => break taking,
            ended = &mut http => {
                let mut stream = http.into_parts().io.into_inner().into_inner();
                // A resting connection ends without a word, as no request is lost by it.
                let (mut was_refused, mut is_late) = (false, false);
                if let Err(error) = ended {
                    debug!(%peer, %error, "connection failed");
                    was_refused = error.is_parse();
                    is_late = error.is_timeout() && timer.in_head();
                }
                if is_late {
                    let answer = refusal(408, &shared.limits);
                    let _ = stream.try_write(answer.as_bytes());
                }
                if was_refused || is_late || has_unread(&stream) {
                    linger(&mut stream, LINGER).await;
                }
                return;
            }
            () = shared.drain.beginning(), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut http).graceful_shutdown();
            }
        }
    };

    // A client that sent this request before it read the answers to earlier ones, so many that they
    // don't fit the kernel's buffer, loses their rest here. Browsers and libraries don't pipeline.
    let parts = http.into_parts();
    let mut stream = parts.io.into_inner().into_inner();
    let written = timeout(shared.handshake_timeout, stream.write_all(&taking.head)).await;
    if !matches!(written, Ok(Ok(()))) {
        return debug!(%peer, "gone before it was answered");
    }
    // hyper's read left this task's waker with the socket, and a waker keeps its task's memory, all
    // that HTTP needed: 1.4 KB for as long as the socket lives. Any other waker takes its place.
    let _ = stream.poll_read_ready(&mut Context::from_waker(Waker::noop()));
    let taken = Taken::new(stream.into(), &parts.read_buf, Some(peer));
    let running = (taking.run)(taken);
    // A fresh task: this one keeps the size that HTTP needed.
    tokio::spawn(async move {
        running.await;
        drop(place);
    });
}

/// Whether the connection rests once this request is answered, as far as the client says.
fn rests_after(request: &Request<Incoming>) -> bool {
    let says = |word: &str| {
        let said = request.headers().get_all(CONNECTION).iter();
        said.filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    match request.version() {
        Version::HTTP_10 => says("keep-alive") && !says("close"),
        _ => !says("close"),
    }
}

/// Tells clients how long the connection may rest, so that those who heed it close first.
fn announce_rest(headers: &mut HeaderMap, timeout: Duration) {
    if headers.contains_key(CONNECTION) || timeout < Duration::from_secs(1) {
        return;
    }
    if let Ok(value) = HeaderValue::try_from(format!("timeout={}", timeout.as_secs())) {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(HeaderName::from_static("keep-alive"), value);
    }
}

/// Whether the client sent something that was not read: a body too large, for one.
fn has_unread(stream: &tokio::net::TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 1]), Ok(1))
}

/// Answers one request, of a client that has no place here, and closes.
pub(super) async fn serve_one(shared: &Shared, stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Takeover::default());
        request.extensions_mut().insert(ConnectInfo(peer));
        shared.router.clone().oneshot(request)
    });
    let (stream, timer) = HttpStream::new(
        stream,
        shared.limits,
        shared.keep_alive_timeout,
        shared.handshake_timeout,
    );
    let mut http = shared.http.clone();
    http.timer(timer).keep_alive(false);
    let answering = http.serve_connection(TokioIo::new(stream), service);
    if !matches!(timeout(ONE_REQUEST, answering).await, Ok(Ok(()))) {
        debug!(%peer, "gone before it was answered");
    }
}
