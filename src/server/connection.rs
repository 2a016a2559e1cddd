//! One TCP connection, from its first byte until it ends or leaves HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::ServiceExt;
use tracing::debug;

use super::{Place, Shared};
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
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(takeover.clone());
        request.extensions_mut().insert(ConnectInfo(peer));
        shared.router.clone().oneshot(request)
    });
    let mut http = shared.http.serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    let taking = loop {
        tokio::select! {
            taking = takeover.taken() => break taking,
            ended = &mut http => {
                if let Err(error) = ended {
                    debug!(%peer, %error, "connection failed");
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
    let mut stream = parts.io.into_inner();
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

/// Answers one request, of a client that has no place here, and closes.
pub(super) async fn serve_one(shared: &Shared, stream: TcpStream, peer: SocketAddr) {
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Takeover::default());
        request.extensions_mut().insert(ConnectInfo(peer));
        shared.router.clone().oneshot(request)
    });
    let mut http = shared.http.clone();
    http.keep_alive(false);
    let answering = http.serve_connection(TokioIo::new(stream), service);
    if !matches!(timeout(ONE_REQUEST, answering).await, Ok(Ok(()))) {
        debug!(%peer, "gone before it was answered");
    }
}
