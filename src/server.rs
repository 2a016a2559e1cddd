//! The server: accepts connections, speaks HTTP on them until they leave it, and drains.
//!
//! The accept loop is our own because `axum::serve` has no deadlines: a client that connects and
//! says nothing, or drips its headers, would hold a connection for ever.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::drain::{Drain, Stop};
use crate::frontend::{FrontendState, Taken, stomp};
use crate::metrics::Metrics;

mod connection;
mod files;
mod http;
mod routes;

pub use files::{Files, file_limit};
use http::Limits;
use routes::ops_router;
pub use routes::router;

/// The least that hyper reads and writes with.
const MIN_BUFFER: usize = 16 * 1024;

/// As many headers as hyper takes without an allocation for each request.
const HEADERS_INLINE: usize = 100;

/// How much of what a refused client is still sending is read, so that it gets to read why.
const LINGER_BYTES: usize = 1024 * 1024;

/// The same, in time.
const LINGER: Duration = Duration::from_secs(1);

/// Rooms with a connection of their own where a program of other parts does not say how many; as the
/// store's default.
const DEFAULT_TAILS: usize = 64;

/// How much unsent data the kernel takes on top of what is on its way. By default a client that
/// never reads makes it take 4 MB; with this, 171 KB.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// After a failed accept. If files ran out, trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Failing accepts are logged this often, however many there are.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(10);

/// How long a client over the limit may take to its first words, by which a health check is known.
const FIRST_WORDS: Duration = Duration::from_millis(250);

/// How long a client that was turned away may take to close, and how long one waits until others have.
const FAREWELL: Duration = Duration::from_millis(300);

/// How a health check begins. It's answered though the node is full: full is not dead.
const HEALTH: &[u8; 12] = b"GET /health/";

const TOO_MANY: &str =
    r#"{"error":{"code":"too_many_sockets","message":"this node is full; see --max-sockets"}}"#;

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Most TCP connections at a time; 0 derives it from the file limit.
    pub max_sockets: usize,
    /// How long a client may take to its first byte, and from there to the end of its headers.
    pub handshake_timeout: Duration,
    /// How long a connection may rest between two requests. Clients are told whole seconds of it.
    pub keep_alive_timeout: Duration,
    /// Most bytes of a request's line and headers.
    pub max_header_size: usize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// How long a drain may take.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            max_sockets: 0,
            handshake_timeout: Duration::from_secs(5),
            // Balancers keep theirs for 60 to 75 s, and must be the first to close.
            keep_alive_timeout: Duration::from_secs(90),
            max_header_size: 16 * 1024,
            max_headers: HEADERS_INLINE,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every connection was closed in its turn.
    Drained,
    /// The drain time-out came first.
    TimedOut,
    /// A second stop signal came.
    AtOnce,
}

/// A node's server over bound listeners.
pub struct Server {
    settings: Settings,
    files: Files,
    listeners: Vec<(TcpListener, Speaks)>,
    ops: Option<Ops>,
    shared: Arc<Shared>,
}

/// What operators have apart. It goes on through a drain, which they want to see, and takes no client's place.
struct Ops {
    listeners: Vec<TcpListener>,
    shared: Arc<Shared>,
}

/// What is spoken behind a listener.
#[derive(Clone)]
enum Speaks {
    Http,
    Stomp(Arc<FrontendState>),
}

/// What every connection needs.
struct Shared {
    router: Router,
    http: http1::Builder,
    handshake_timeout: Duration,
    keep_alive_timeout: Duration,
    limits: Limits,
    drain: Drain,
    metrics: Metrics,
}

impl Server {
    /// A server for the front ends of `state`.
    pub fn new(settings: Settings, state: Arc<FrontendState>, listeners: Vec<TcpListener>) -> Self {
        Server::with_router(settings, router(state.clone()), &state, listeners)
    }

    /// A server of other routes, for the connections of `state`.
    pub fn with_router(
        settings: Settings,
        router: Router,
        state: &FrontendState,
        listeners: Vec<TcpListener>,
    ) -> Self {
        let (drain, metrics) = (state.drain.clone(), state.metrics.clone());
        Server::assemble(settings, router, drain, metrics, listeners)
    }

    fn assemble(
        mut settings: Settings,
        router: Router,
        drain: Drain,
        metrics: Metrics,
        listeners: Vec<TcpListener>,
    ) -> Self {
        let files = match settings.max_sockets {
            0 => Files::of_this_process(DEFAULT_TAILS, None),
            most => Files::of_this_process(0, Some(most)),
        };
        settings.max_sockets = files.sockets;
        let mut http = http1::Builder::new();
        // Each connection has a timer of its own, which knows when a head is due.
        http.header_read_timeout(settings.handshake_timeout)
            .max_buf_size(settings.max_header_size.max(MIN_BUFFER))
            .max_header_size(settings.max_header_size)
            .keep_alive(true);
        if settings.max_headers != HEADERS_INLINE {
            http.max_headers(settings.max_headers);
        }
        let limits = Limits {
            bytes: settings.max_header_size,
            headers: settings.max_headers,
        };
        let shared = Arc::new(Shared {
            router,
            http,
            handshake_timeout: settings.handshake_timeout,
            keep_alive_timeout: settings.keep_alive_timeout,
            limits,
            drain,
            metrics,
        });
        let http = listeners
            .into_iter()
            .map(|listener| (listener, Speaks::Http));
        Server {
            settings,
            files,
            listeners: http.collect(),
            ops: None,
            shared,
        }
    }

    /// The same, which also speaks bare STOMP behind these listeners.
    pub fn with_stomp(mut self, state: &Arc<FrontendState>, listeners: Vec<TcpListener>) -> Self {
        let stomp = listeners.into_iter();
        let stomp = stomp.map(|listener| (listener, Speaks::Stomp(state.clone())));
        self.listeners.extend(stomp);
        self
    }

    /// The same, with what is for operators behind listeners of its own.
    pub fn with_ops(mut self, state: Arc<FrontendState>, listeners: Vec<TcpListener>) -> Self {
        let shared = Arc::new(Shared {
            router: ops_router(state),
            http: self.shared.http.clone(),
            handshake_timeout: self.shared.handshake_timeout,
            keep_alive_timeout: self.shared.keep_alive_timeout,
            limits: self.shared.limits,
            drain: Drain::default(),
            metrics: self.shared.metrics.clone(),
        });
        self.ops = Some(Ops { listeners, shared });
        self
    }

    /// Most connections at a time.
    pub fn max_sockets(&self) -> usize {
        self.settings.max_sockets
    }

    /// Serves until told to stop, then drains.
    pub async fn run(self, mut stop: Stop) -> Ended {
        let places = Arc::new(Semaphore::new(self.settings.max_sockets));
        let farewells = Arc::new(Semaphore::new(self.files.turned_away));
        let mut accepting = JoinSet::new();
        for (listener, speaks) in self.listeners {
            let shared = self.shared.clone();
            accepting.spawn(accept(
                listener,
                speaks,
                shared,
                places.clone(),
                farewells.clone(),
            ));
        }
        let mut for_ops = JoinSet::new();
        if let Some(Ops { listeners, shared }) = self.ops {
            let places = Arc::new(Semaphore::new(self.files.operators));
            for listener in listeners {
                for_ops.spawn(accept(
                    listener,
                    Speaks::Http,
                    shared.clone(),
                    places.clone(),
                    farewells.clone(),
                ));
            }
        }
        stop.next().await;

        let drain = &self.shared.drain;
        let began = Instant::now();
        let deadline = began + self.settings.drain_timeout;
        info!(connections = drain.open(), timeout = ?self.settings.drain_timeout, "draining");
        drain.begin(self.settings.drain_timeout);
        // Aborted tasks drop their listeners, so balancers turn to another node at once.
        accepting.shutdown().await;
        let all = u32::try_from(self.settings.max_sockets).unwrap_or(u32::MAX);
        let gone = async {
            let _ = places.acquire_many(all).await;
            // Sessions whose clients come by requests have no connection between them, but last words
            // to say all the same.
            drain.emptied().await;
        };
        let ended = tokio::select! {
            gone = timeout_at(deadline, gone) => match gone {
                Ok(()) => Ended::Drained,
                Err(_) => Ended::TimedOut,
            },
            () = stop.next() => Ended::AtOnce,
        };
        let took = began.elapsed();
        let left = self.settings.max_sockets - places.available_permits();
        match ended {
            Ended::Drained => info!(?took, "drained"),
            Ended::TimedOut => warn!(?took, left, "drain timed out; closing what is left"),
            Ended::AtOnce => warn!(?took, left, "stopped at once; closing what is left"),
        }
        ended
    }
}

/// Accepts connections for ever.
async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    farewells: Arc<Semaphore>,
) {
    let mut logged: Option<Instant> = None;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // That one client's fault, and the next may be waiting already.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                shared.metrics.accept_errors.inc();
                if logged.is_none_or(|at| at.elapsed() >= ACCEPT_LOG_EVERY) {
                    warn!(%error, "can't accept connections; trying on");
                    logged = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match places.clone().try_acquire_owned() {
            Ok(place) => {
                tune(&stream);
                let place = Place::new(place, &shared.metrics);
                match &speaks {
                    Speaks::Http => {
                        tokio::spawn(connection::serve(shared.clone(), stream, peer, place));
                    }
                    Speaks::Stomp(state) => {
                        let taken = Taken::new(stream.into(), &[], Some(peer));
                        let running = stomp::serve(state.clone(), taken);
                        tokio::spawn(async move {
                            running.await;
                            drop(place);
                        });
                    }
                }
            }
            Err(_) if matches!(speaks, Speaks::Stomp(_)) => {
                shared.metrics.turned_away.inc();
                debug!(%peer, "turned away: too many connections");
            }
            Err(_) => match timeout(FAREWELL, farewells.clone().acquire_owned()).await {
                Ok(Ok(permit)) => {
                    tokio::spawn(turn_away(shared.clone(), stream, peer, permit));
                }
                Ok(Err(_)) | Err(_) => {
                    shared.metrics.turned_away.inc();
                    // Nobody waits for it, so it may not arrive.
                    let _ = stream.try_write(too_many().as_bytes());
                }
            },
        }
    }
}

fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Either can only fail if the client is gone already, which the first read will tell.
    let _ = socket.set_tcp_nodelay(true);
    // A peer without pings of its own would stay for ever once it vanished.
    let _ = socket.set_keepalive(true);
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(NOTSENT_LOWAT);
}

/// A connection's place among `max_sockets`, free again when dropped.
struct Place {
    _permit: OwnedSemaphorePermit,
    connections: Gauge,
}

impl Place {
    fn new(permit: OwnedSemaphorePermit, metrics: &Metrics) -> Self {
        metrics.connections.inc();
        Place {
            _permit: permit,
            connections: metrics.connections.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// What somebody is told who is one too many.
fn too_many() -> String {
    format!(
        "HTTP/1.1 503 Service Unavailable\r\n\
         content-type: application/json\r\n\
         retry-after: 5\r\n\
         connection: close\r\n\
         content-length: {}\r\n\r\n{TOO_MANY}",
        TOO_MANY.len()
    )
}

/// Answers a health check, and tells all others that there are too many. Then it waits a moment for the
/// client to close: closing with its request unread would reset the connection, and the answer with it.
async fn turn_away(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    let mut first = [0; HEALTH.len()];
    let came = timeout(FIRST_WORDS, stream.peek(&mut first)).await;
    if matches!(came, Ok(Ok(_))) && first == *HEALTH {
        return connection::serve_one(&shared, stream, peer).await;
    }
    shared.metrics.turned_away.inc();
    debug!(%peer, "turned away: too many connections");
    if stream.try_write(too_many().as_bytes()).is_err() {
        return;
    }
    linger(&mut stream, FAREWELL).await;
}

/// Ends our side, and reads for a moment what the client still sends. To close with something unread
/// would reset the connection, and what it was answered would be lost.
async fn linger(stream: &mut TcpStream, most: Duration) {
    let _ = SockRef::from(&*stream).shutdown(std::net::Shutdown::Write);
    let _ = timeout(most, async {
        let mut buffer = [0; 4096];
        let mut read = 0;
        while let Ok(count @ 1..) = stream.read(&mut buffer).await
            && read < LINGER_BYTES
        {
            read += count;
        }
    })
    .await;
}

#[cfg(test)]
mod tests;
