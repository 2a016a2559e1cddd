//! STOMP over bare TCP: the loop of one connection.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::task::coop;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::talk::Talk;
use crate::auth::Credentials;
use crate::frontend::carried::BARE;
use crate::frontend::carrier::Carrier;
use crate::frontend::websocket::{Dialogue, Inbound};
use crate::frontend::{FrontendState, Socket, Taken};
use crate::metrics::Kind;
use crate::relay::close::CloseReason;

/// What is read at a time. It's part of a connection's memory only while it reads.
const READ: usize = 4 * 1024;

/// For what is left to go out, and again for the client to close.
const CLOSING: Duration = Duration::from_secs(1);

/// For publishes under way, when a drain closes their connection.
const SETTLING: Duration = Duration::from_secs(10);

/// An idle connection has nothing due.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Runs a connection to its end.
pub(crate) fn serve(state: Arc<FrontendState>, taken: Taken) -> BoxFuture<'static, ()> {
    Box::pin(live(state, taken))
}

/// How it ends.
enum End {
    Closed(CloseReason),
    Gone,
    Drain(u64),
}

async fn live(state: Arc<FrontendState>, taken: Taken) {
    let Taken { socket, peer, .. } = taken;
    debug!(?peer, "stomp connection opened");
    let slot = state.drain.register();
    let _open = state.metrics.opened(Kind::StompTcp);
    // Nothing but the CONNECT says who it is.
    let who = state.auth.identify(&Credentials::default()).await;
    let carrier = Carrier::over(socket.wire());
    let mut talk = Talk::open(state.clone(), &carrier, &BARE, who);
    let outlet = talk.outlet().clone();
    let mut closed = pin!(outlet.closed());
    let mut told = pin!(slot.told());
    let mut timer = pin!(sleep_until(next(&mut talk)));
    let end = loop {
        // The client comes last, as it may always have something to say.
        tokio::select! {
            biased;
            reason = &mut closed => break End::Closed(reason),
            retry_ms = &mut told => break End::Drain(retry_ms),
            () = talk.ready() => {}
        }
        match read(&socket, &mut talk) {
            Ok(true) => {
                coop::consume_budget().await;
                continue;
            }
            Ok(false) => {}
            Err(_) => break End::Gone,
        }
        if talk.reschedules() {
            timer.as_mut().reset(next(&mut talk));
        }
        tokio::select! {
            biased;
            reason = &mut closed => break End::Closed(reason),
            retry_ms = &mut told => break End::Drain(retry_ms),
            readable = socket.readable() => if readable.is_err() {
                break End::Gone;
            },
            () = &mut timer => timer.as_mut().reset(next(&mut talk)),
        }
    };
    let reason = finish(&mut talk, end, closed).await;
    let code = reason.as_ref().map_or(1006, CloseReason::code);
    state.metrics.closed(code);
    debug!(?peer, code, "stomp connection closed");
    if reason != Some(CloseReason::Gone) {
        socket.shutdown(Shutdown::Write);
        let _ = timeout(CLOSING, until_end(&socket)).await;
    }
    socket.shutdown(Shutdown::Both);
}

/// Looks after what is due, and says when to look again.
fn next(talk: &mut Talk) -> Instant {
    let now = Instant::now();
    let then = talk.check(now).unwrap_or(now + NEVER);
    then.max(now)
}

/// Reads what is there; false if that is nothing.
fn read(socket: &Socket, talk: &mut Talk) -> io::Result<bool> {
    let mut buffer = [0; READ];
    match socket.try_read(&mut buffer) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            talk.on_frame(Inbound::Binary(&buffer[..count]), Instant::now());
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}

/// Ends the dialogue; with what reason, if that has gone out.
async fn finish(
    talk: &mut Talk,
    end: End,
    closed: impl Future<Output = CloseReason>,
) -> Option<CloseReason> {
    match end {
        End::Closed(reason) => return Some(reason),
        End::Gone => talk.outlet().close(CloseReason::Gone),
        End::Drain(retry_ms) => {
            talk.say_bye(retry_ms);
            let _ = timeout(SETTLING, talk.settled()).await;
            talk.outlet().close(CloseReason::Drain);
        }
    }
    timeout(CLOSING, closed).await.ok()
}

/// Reads, and forgets, until the client closed as well: to close with something unread would reset
/// the connection, and the client might never see what it was told.
async fn until_end(socket: &Socket) {
    let mut buffer = [0; 512];
    while socket.readable().await.is_ok() {
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => coop::consume_budget().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}
