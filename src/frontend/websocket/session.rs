//! The loop of one socket: reads, waits, ends.
//!
//! Ten thousand of these lie idle at a time, so what an idle one waits for is all that its future
//! holds. The ways to end need more, and are boxed when it comes to that.

use std::future::Future;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::task::{coop, yield_now};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::WebSocket;
use tracing::debug;

use super::frame::{Opcode, frame};
use super::io::{Io, websocket};
use super::watch::{Times, Verdict, Watch};
use crate::drain::DrainSlot;
use crate::frontend::{FrontendState, Socket};
use crate::metrics::{Kind, Open};
use crate::relay::close::CloseReason;
use crate::relay::outlet::Outlet;

/// For the closing bytes to go out, and again for the client to answer them. Clients that do are
/// quick; the others are gone or don't care.
const CLOSING: Duration = Duration::from_secs(1);

/// For publishes under way, when a drain closes their socket. The relay gives each one up earlier;
/// this is the bound if `--publish-timeout` is long.
const SETTLING: Duration = Duration::from_secs(10);

/// Close code of RFC 6455, 7.4.1: text that is not UTF-8.
const INVALID_DATA: u16 = 1007;
/// Close code of RFC 6455, 7.4.1: whatever else breaks the protocol.
const PROTOCOL_ERROR: u16 = 1002;
/// Stands in metrics for a socket that ended before our closing bytes were out.
const ABNORMAL: u16 = 1006;

/// A frame that carries something for us.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Inbound<'a> {
    /// Text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

/// What is spoken over a socket: the part of a front end that the loop calls. What it wants to say
/// goes through its outlet.
pub(crate) trait Dialogue: Send + 'static {
    /// The setting that bounds a message, to be named to whoever sends a larger one.
    const LIMIT: &'static str = "--max-frame";

    /// The node's front ends.
    fn state(&self) -> &Arc<FrontendState>;

    /// The way out. Whoever closes it ends the socket.
    fn outlet(&self) -> &Arc<Outlet>;

    /// Waits until the client may be listened to. Dropped and asked again at any time.
    fn ready(&mut self) -> impl Future<Output = ()> + Send;

    /// Takes one frame in.
    fn on_frame(&mut self, frame: Inbound<'_>, now: Instant);

    /// Something came, which may be a part of a frame that takes its time.
    fn on_received(&mut self, _now: Instant) {}

    /// The client is too fast, and so not read from for a moment. Whatever it has to say in time may be behind
    /// what waits.
    fn on_paused(&mut self, now: Instant) {
        self.on_received(now);
    }

    /// Looks after deadlines of its own, and says when the next one is.
    fn check(&mut self, now: Instant) -> Option<Instant>;

    /// Whether a deadline has come nearer since the last [`Dialogue::check`].
    fn reschedules(&self) -> bool {
        false
    }

    /// Says that the node drains, and that the client should come back after so many milliseconds.
    fn say_bye(&mut self, retry_ms: u64);

    /// Waits until no publish is in flight.
    fn settled(&mut self) -> impl Future<Output = ()> + Send;

    /// How often the client is pinged, and how long it may be silent.
    fn times(&self) -> Times {
        Times::from(&self.state().settings)
    }
}

struct Session<D> {
    ws: WebSocket<Io>,
    talk: D,
    watch: Watch,
    _open: Open,
}

/// How far reading got.
enum Step {
    /// One frame was taken; there may be more.
    Frame,
    /// The turn is over, though there may be more.
    Spent,
    /// Nothing more for now.
    Idle,
    /// Nothing more before then, as the client is too fast.
    Paused(Instant),
    /// It ends.
    End(End),
}

/// How a socket ends.
enum End {
    /// The closing bytes are out.
    Closed(CloseReason),
    /// Somebody closed it, and the closing bytes are on their way.
    Closing,
    /// The client closed it, or vanished.
    Gone,
    /// The client broke the rules, so that what else it sends makes no sense.
    Broken(CloseReason),
    /// This node drains; the client should come back after so many milliseconds.
    Drain(u64),
}

/// Runs a socket whose handshake is answered, to its end. What came with the handshake is
/// `read_ahead`; a message has at most `max_frame` bytes.
pub(crate) fn run<D: Dialogue>(
    socket: Socket,
    read_ahead: Bytes,
    max_frame: usize,
    kind: Kind,
    talk: D,
) -> BoxFuture<'static, ()> {
    let slot = talk.state().drain.register();
    let open = talk.state().metrics.opened(kind);
    let outlet = talk.outlet().clone();
    let frame_rate = talk.state().settings.frame_rate;
    let session = Session {
        ws: websocket(socket, outlet, read_ahead, max_frame, frame_rate),
        talk,
        watch: Watch::new(Instant::now()),
        _open: open,
    };
    Box::pin(live(session, slot))
}

/// Raw and JSON sockets: at most 1,280 bytes, as a test holds; as an `async fn` half as much again.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn holds its arguments twice"
)]
fn live<D: Dialogue>(mut session: Session<D>, slot: DrainSlot) -> impl Future<Output = ()> + Send {
    async move {
        let session = &mut session;
        let outlet = session.talk.outlet().clone();
        let mut closed = pin!(outlet.closed());
        let mut told = pin!(slot.told());
        let mut timer = pin!(sleep_until(session.next_check()));
        let end = loop {
            // No reading while the client has too much under way. What else may end it still does;
            // the timer waits, as a client is not silent that nobody listens to.
            tokio::select! {
                biased;
                () = session.talk.ready() => {}
                reason = &mut closed => break End::Closed(reason),
                retry_ms = &mut told => break End::Drain(retry_ms),
            }
            if outlet.is_closing() {
                break End::Closing;
            }
            match session.read_frame() {
                Step::Frame => {
                    coop::consume_budget().await;
                    continue;
                }
                Step::Spent => {
                    yield_now().await;
                    continue;
                }
                Step::Idle => {}
                Step::Paused(until) => {
                    // The one timer there is, as another would make every socket larger.
                    timer.as_mut().reset(until);
                    tokio::select! {
                        biased;
                        reason = &mut closed => break End::Closed(reason),
                        retry_ms = &mut told => break End::Drain(retry_ms),
                        () = &mut timer => {}
                    }
                    // It was not silent: nobody listened.
                    let now = Instant::now();
                    session.watch.on_received(now);
                    session.talk.on_paused(now);
                    timer.as_mut().reset(session.next_check());
                    continue;
                }
                Step::End(end) => break end,
            }
            if session.talk.reschedules() {
                timer.as_mut().reset(session.next_check());
            }
            tokio::select! {
                biased;
                reason = &mut closed => break End::Closed(reason),
                retry_ms = &mut told => break End::Drain(retry_ms),
                readable = session.ws.get_ref().socket.readable() => {
                    if readable.is_err() {
                        break End::Gone;
                    }
                }
                () = &mut timer => timer.as_mut().reset(session.next_check()),
            }
        };
        Box::pin(session.finish(end, closed)).await;
    }
}

impl<D: Dialogue> Session<D> {
    /// Reads one frame and does what it asks for.
    fn read_frame(&mut self) -> Step {
        let message = match self.ws.read() {
            Ok(message) => message,
            Err(error) => return self.read_error(error),
        };
        let inbound = match &message {
            Message::Text(text) => Inbound::Text(text.as_str()),
            Message::Binary(bytes) => Inbound::Binary(bytes),
            Message::Ping(_) => {
                // The pong is queued; without this it would wait for the next read.
                let _ = self.ws.flush();
                return Step::Frame;
            }
            Message::Close(_) => {
                // Sends the answer.
                let _ = self.ws.flush();
                return Step::End(End::Gone);
            }
            Message::Pong(_) | Message::Frame(_) => return Step::Frame,
        };
        let now = Instant::now();
        self.watch.on_data(now);
        self.talk.on_frame(inbound, now);
        Step::Frame
    }

    fn read_error(&mut self, error: Error) -> Step {
        let reason = match error {
            Error::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let io = self.ws.get_mut();
                let has_received = io.take_received();
                let is_spent = io.end_turn();
                if has_received {
                    let now = Instant::now();
                    self.watch.on_received(now);
                    self.talk.on_received(now);
                }
                return match self.ws.get_mut().take_pause() {
                    Some(until) => Step::Paused(until),
                    None if is_spent => Step::Spent,
                    None => Step::Idle,
                };
            }
            Error::Io(_)
            | Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                return Step::End(End::Gone);
            }
            Error::Capacity(_) => CloseReason::TooLarge(D::LIMIT),
            Error::Utf8(_) => CloseReason::Protocol(INVALID_DATA, "a text frame is UTF-8".into()),
            Error::Protocol(error) => {
                CloseReason::Protocol(PROTOCOL_ERROR, error.to_string().into())
            }
            error => CloseReason::Internal(error.to_string().into()),
        };
        Step::End(End::Broken(reason))
    }

    /// Looks after a silent client. Says when to look again.
    fn next_check(&mut self) -> Instant {
        let now = Instant::now();
        let deadline = self.talk.check(now);
        let outlet = self.talk.outlet();
        let times = self.talk.times();
        let then = match self.watch.check(now, outlet.is_blocked(), times) {
            Verdict::Wait(then) => then,
            Verdict::Ping(then) => {
                outlet.send(frame(Opcode::Ping, &[]));
                then
            }
            Verdict::Over(why) => {
                outlet.close(CloseReason::Timeout(why.into()));
                now + CLOSING
            }
        };
        match deadline {
            Some(deadline) if deadline > now => then.min(deadline),
            _ => then,
        }
    }

    async fn finish(&mut self, end: End, closed: Pin<&mut impl Future<Output = CloseReason>>) {
        let (linger, healthy) = match &end {
            End::Closed(_) | End::Closing | End::Drain(_) => (true, true),
            End::Broken(_) => (true, false),
            End::Gone => (false, false),
        };
        let reason = match end {
            End::Closed(reason) => Some(reason),
            other => {
                match other {
                    End::Gone => self.talk.outlet().close(CloseReason::Gone),
                    End::Broken(reason) => self.talk.outlet().close(reason),
                    End::Drain(retry_ms) => {
                        self.talk.say_bye(retry_ms);
                        let _ = timeout(SETTLING, self.talk.settled()).await;
                        self.talk.outlet().close(CloseReason::Drain);
                    }
                    End::Closing | End::Closed(_) => {}
                }
                timeout(CLOSING, closed).await.ok()
            }
        };
        let code = reason.as_ref().map_or(ABNORMAL, CloseReason::code);
        self.talk.state().metrics.closed(code);
        debug!(code, "socket closed");
        if linger && reason.as_ref() != Some(&CloseReason::Gone) {
            let _ = timeout(CLOSING, self.last_words(healthy)).await;
        }
        // The relay may hold the socket a little longer; the client need not wait for that.
        self.ws.get_ref().socket.shutdown(Shutdown::Both);
    }

    /// Reads until the client closed as well. To close with something unread would reset the
    /// connection, and the client might never see our close frame.
    async fn last_words(&mut self, mut healthy: bool) {
        if !healthy {
            self.ws.get_ref().socket.shutdown(Shutdown::Write);
        }
        self.ws.get_mut().end_pace();
        let mut scratch = [0; 512];
        loop {
            let read = if healthy {
                match self.ws.read() {
                    Ok(Message::Close(_)) => return,
                    Ok(_) => Ok(1),
                    Err(Error::Io(error)) => Err(error),
                    Err(_) => {
                        healthy = false;
                        Ok(1)
                    }
                }
            } else {
                self.ws.get_ref().socket.try_read(&mut scratch)
            };
            match read {
                Ok(0) => return,
                Ok(_) => coop::consume_budget().await,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if self.ws.get_mut().end_turn() {
                        yield_now().await;
                    } else if self.ws.get_ref().socket.readable().await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }
}

/// Bytes of the loop's future.
#[cfg(test)]
pub(crate) fn size_of_loop<D: Dialogue>() -> usize {
    fn size_of_output<T, F: FnOnce(Session<D>, DrainSlot) -> T, D: Dialogue>(_: F) -> usize {
        size_of::<T>()
    }
    size_of_output(live::<D>)
}
