//! An Engine.IO session over HTTP requests: one that fetches what there is, one at a time that brings
//! something, and the socket that may take over from them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::task::coop;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::client::{Client, Hello};
use super::heartbeat::{Beat, Heartbeat};
use super::payload::{self, CLOSE, NOOP, Packet};
use super::probe::probed;
use super::{Key, opening, socket};
use crate::frontend::carrier::{Carrier, Over};
use crate::frontend::websocket::Limiter;
use crate::frontend::{FrontendState, Taken};
use crate::metrics::Kind;
use crate::relay::close::CloseReason;
use crate::relay::outlet::Outlet;

/// How long the last words of a session wait to be fetched.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long publishes under way are waited for when the node drains.
const SETTLING: Duration = Duration::from_secs(10);

/// While a request has the client, its deadlines wait so long.
const BUSY: Duration = Duration::from_millis(500);

/// How long a fetch waits whose client is about to change over to a socket; the reference server's.
const PROBED: Duration = Duration::from_millis(100);

/// A session that is polled.
pub(super) struct Polled {
    key: Key,
    state: Arc<FrontendState>,
    carrier: Arc<Carrier>,
    outlet: Arc<Outlet>,
    /// Gone once a socket took over, or at the end.
    client: AsyncMutex<Option<Client>>,
    inner: Mutex<Inner>,
    /// Lets a pending fetch go, with nothing.
    release: Notify,
    /// The last words were fetched, or a socket took over.
    left: Notify,
}

struct Inner {
    is_fetching: bool,
    is_bringing: bool,
    /// A socket tries to take over.
    is_probing: bool,
    /// It does so in earnest: the client waits for its fetch to end.
    is_probed: bool,
    /// The next fetch is the last, and gets nothing but that.
    closes: bool,
    /// A socket took over. What ends the session is said by that from now on.
    has_moved: bool,
    /// When a request came or ended last.
    last: Instant,
    heartbeat: Heartbeat,
    limiter: Limiter,
}

/// The request makes no sense for this session, and the session is over with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rejected;

impl Polled {
    /// Begins a session; what its first response says comes with it.
    pub(super) fn begin(
        state: &Arc<FrontendState>,
        hello: Hello,
        key: Key,
        sid: &str,
    ) -> (Arc<Self>, String) {
        let carrier = Carrier::mailbox();
        let client = Client::new(state.clone(), &carrier, hello);
        let now = Instant::now();
        let settings = &state.settings.socketio;
        let polled = Arc::new(Polled {
            key,
            state: state.clone(),
            carrier,
            outlet: client.outlet().clone(),
            client: AsyncMutex::new(Some(client)),
            inner: Mutex::new(Inner {
                is_fetching: false,
                is_bringing: false,
                is_probing: false,
                is_probed: false,
                closes: false,
                has_moved: false,
                last: now,
                heartbeat: Heartbeat::new(now, settings.ping_interval),
                limiter: Limiter::new(now),
            }),
            release: Notify::new(),
            left: Notify::new(),
        });
        state.socketio.add(key, polled.clone());
        tokio::spawn(polled.clone().watch());
        (polled, opening(settings, sid, true))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_moved(&self) -> bool {
        self.inner().has_moved
    }

    fn reject(&self, why: &'static str) -> Rejected {
        self.give_up(CloseReason::Protocol(1002, why.into()));
        Rejected
    }

    /// Ends the session at once, unless a socket has it: whoever asks for it again gets nothing.
    fn give_up(&self, reason: CloseReason) {
        let inner = self.inner();
        if !inner.has_moved {
            self.state.socketio.forget(&self.key);
            self.outlet.close(reason);
            // What does not get into a full mailbox would be waited for in vain.
            self.carrier.close();
        }
    }

    /// Waits for what there is for the client, and takes it.
    pub(super) async fn fetch(self: &Arc<Self>) -> Result<Vec<u8>, Rejected> {
        let mut turn = Turn::fetching(self)?;
        // Asked for before the look, so that no probe comes unseen between.
        let released = self.release.notified();
        let is_probed = self.inner().is_probed;
        let taken = if is_probed {
            // The client is about to change over, and waits for this to end. What it would get with
            // it, it would lose if it closed in the same moment; the socket brings that, too.
            self.changing_over().await
        } else {
            tokio::select! {
                biased;
                taken = self.carrier.take_part(payload::beginning) => taken.map(Some),
                () = released => Ok(None),
            }
        };
        turn.is_done = true;
        drop(turn);
        let (payload, closes) = match taken {
            Ok(Some(frames)) => payload::from_frames(&frames),
            // Who has changed over does not ask like this any more.
            Err(Over::Moved) => return Err(Rejected),
            Ok(None) | Err(Over::Closed) => (Vec::new(), false),
        };
        let mut inner = self.inner();
        let closes = std::mem::replace(&mut inner.closes, closes) || closes;
        drop(inner);
        if !payload.is_empty() {
            return Ok(payload);
        }
        // The socket may take over even now, and then has the last words.
        if self.outlet.is_closing() && !is_probed {
            self.state.socketio.forget(&self.key);
            self.left.notify_one();
        }
        Ok(if closes { CLOSE } else { NOOP }.into())
    }

    /// Waits a little for a socket that was probed to take over: the word for it may be on its way.
    async fn changing_over(&self) -> Result<Option<Bytes>, Over> {
        let released = self.release.notified();
        if !self.has_moved() {
            let _ = timeout(PROBED, released).await;
        }
        match self.has_moved() {
            true => Err(Over::Moved),
            false => Ok(None),
        }
    }

    /// Takes in what the client brings.
    pub(super) async fn bring(self: &Arc<Self>, body: &str) -> Result<(), Rejected> {
        let mut turn = Turn::bringing(self)?;
        let brought = tokio::select! {
            biased;
            brought = self.take_in(body) => brought,
            // Whatever it's waiting for is for nothing.
            _ = self.outlet.closed() => Ok(()),
        };
        turn.is_done = true;
        brought
    }

    async fn take_in(&self, body: &str) -> Result<(), Rejected> {
        let mut client = self.client.lock().await;
        let client = client.as_mut().ok_or(Rejected)?;
        for packet in payload::packets(body) {
            // A body may hold half a million packets.
            coop::consume_budget().await;
            self.pace(client).await;
            client.ready().await;
            if self.outlet.is_closing() {
                return Ok(());
            }
            match packet {
                Ok(Packet::Text(text)) => client.on_text(text),
                Ok(Packet::Binary(bytes)) => client.on_binary(&bytes),
                Ok(Packet::Pong) => {
                    let now = Instant::now();
                    let interval = self.state.settings.socketio.ping_interval;
                    self.inner().heartbeat.on_pong(now, interval);
                }
                // A request that fetches may be on its way still, and gets an answer.
                Ok(Packet::Close) => client.close(CloseReason::Gone),
                Ok(Packet::Ping(_) | Packet::Upgrade | Packet::Noop) => {}
                Err(_) => return Err(self.reject("not a packet")),
            }
        }
        // What this asked for may have to be waited for, which nobody would do before the next
        // request.
        client.ready().await;
        Ok(())
    }

    /// Waits until one more packet may be read, and looks after the client meanwhile.
    async fn pace(&self, client: &mut Client) {
        let rate = self.state.settings.frame_rate;
        loop {
            let now = Instant::now();
            let taken = self.inner().limiter.take(rate, now);
            let Err(wait) = taken else { return };
            client.check(now);
            sleep(wait).await;
        }
    }

    /// Lets a socket try to take over; none if another one does.
    pub(super) fn probe(self: &Arc<Self>) -> Option<Probing> {
        let mut inner = self.inner();
        if std::mem::replace(&mut inner.is_probing, true) {
            return None;
        }
        inner.last = Instant::now();
        drop(inner);
        Some(Probing(self.clone()))
    }

    fn on_probe(&self) {
        self.inner().is_probed = true;
        self.release.notify_waiters();
    }

    /// Looks after the session until it ends or moves.
    async fn watch(self: Arc<Self>) {
        let slot = self.state.drain.register();
        let open = self.state.metrics.opened(Kind::SocketioPolling);
        let told = slot.told();
        tokio::pin!(told);
        let reason = loop {
            let next = self.check(Instant::now());
            tokio::select! {
                biased;
                reason = self.outlet.closed() => break reason,
                () = self.left.notified() => {
                    if self.has_moved() {
                        return;
                    }
                }
                retry_ms = &mut told => break self.drain(retry_ms).await,
                () = sleep_until(next) => {}
            }
        };
        drop(open);
        {
            let inner = self.inner();
            if inner.has_moved {
                return;
            }
            self.carrier.close();
        }
        // A node that drains takes no connections: only a socket that is there already can still come
        // for the last words.
        let is_reachable = reason != CloseReason::Drain || self.inner().is_probed;
        if is_reachable && self.state.socketio.find(&self.key).is_some() {
            let _ = timeout(FAREWELL, self.left.notified()).await;
        }
        if self.has_moved() {
            return;
        }
        self.state.metrics.closed(reason.code());
        self.state.socketio.forget(&self.key);
        drop(self.client.lock().await.take());
    }

    async fn drain(&self, retry_ms: u64) -> CloseReason {
        let settled = async {
            if let Some(client) = &mut *self.client.lock().await {
                client.say_bye(retry_ms);
                client.settled().await;
            }
        };
        let _ = timeout(SETTLING, settled).await;
        // A socket that took over meanwhile has a turn of its own.
        let inner = self.inner();
        if !inner.has_moved {
            self.outlet.close(CloseReason::Drain);
        }
        CloseReason::Drain
    }

    /// Acts on what has a time, and says when to look again.
    fn check(&self, now: Instant) -> Instant {
        let settings = &self.state.settings.socketio;
        let mut inner = self.inner();
        let silent_at = inner.last + settings.ping_timeout;
        let is_busy = inner.is_fetching || inner.is_bringing;
        // Its answer may be behind what is read just now, no faster than that may be.
        let is_unheard = inner.is_bringing;
        let beat = inner
            .heartbeat
            .check(now, is_unheard, settings.ping_timeout);
        drop(inner);
        let mut next = match beat {
            Beat::Wait(then) => then,
            Beat::Ping(then) => {
                self.outlet.send(super::client::text("2"));
                then
            }
            Beat::Over => {
                self.give_up(CloseReason::Timeout("no answer to a ping".into()));
                now + BUSY
            }
        };
        if is_busy {
            next = next.min(now + settings.ping_timeout);
        } else if now >= silent_at {
            let why = "nothing was asked for too long";
            self.give_up(CloseReason::Timeout(why.into()));
        } else {
            next = next.min(silent_at);
        }
        match self.client.try_lock() {
            Ok(mut client) => {
                let then = client.as_mut().and_then(|client| client.check(now));
                then.map_or(next, |then| next.min(then.max(now)))
            }
            Err(_) => next.min(now + BUSY),
        }
    }
}

/// One request's turn. Dropped before it's done, its client is gone, and what it took with it.
struct Turn {
    polled: Arc<Polled>,
    is_fetch: bool,
    is_done: bool,
}

impl Turn {
    fn fetching(polled: &Arc<Polled>) -> Result<Self, Rejected> {
        let mut inner = polled.inner();
        if std::mem::replace(&mut inner.is_fetching, true) {
            drop(inner);
            return Err(polled.reject("two requests fetched at a time"));
        }
        Ok(Turn::new(polled, inner, true))
    }

    fn bringing(polled: &Arc<Polled>) -> Result<Self, Rejected> {
        let mut inner = polled.inner();
        if std::mem::replace(&mut inner.is_bringing, true) {
            drop(inner);
            return Err(polled.reject("two requests brought something at a time"));
        }
        Ok(Turn::new(polled, inner, false))
    }

    fn new(polled: &Arc<Polled>, mut inner: MutexGuard<'_, Inner>, is_fetch: bool) -> Self {
        inner.last = Instant::now();
        drop(inner);
        Turn {
            polled: polled.clone(),
            is_fetch,
            is_done: false,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.polled.inner();
        match self.is_fetch {
            true => inner.is_fetching = false,
            false => inner.is_bringing = false,
        }
        inner.last = Instant::now();
        drop(inner);
        if !self.is_done {
            self.polled.give_up(CloseReason::Gone);
        }
    }
}

/// A socket that tries to take over. Dropped before it did, polling goes on.
pub(super) struct Probing(Arc<Polled>);

impl Probing {
    /// Waits until the socket takes over, and runs it. Boxed, as what a probe needs is let go of then.
    pub(super) async fn run(self, taken: Taken) {
        let talking = Box::pin(self.take_over(taken)).await;
        if let Some(talking) = talking {
            talking.await;
        }
    }

    /// What runs the socket, once it has taken over.
    async fn take_over(self, taken: Taken) -> Option<BoxFuture<'static, ()>> {
        let polled = self.0.clone();
        let Taken {
            socket, read_ahead, ..
        } = taken;
        let limit = polled.state.settings.socketio.ping_timeout;
        let probed = probed(&socket, read_ahead, || polled.on_probe());
        let rest = match timeout(limit, probed).await {
            // A session that is closing is known until its last words are fetched, or go by here.
            Ok(Ok(rest)) if polled.state.socketio.find(&polled.key).is_some() => rest,
            _ => {
                drop(self);
                socket.shutdown(std::net::Shutdown::Both);
                return None;
            }
        };
        // A request that still brings something is before whatever comes by the socket.
        let Some(client) = polled.client.lock().await.take() else {
            socket.shutdown(std::net::Shutdown::Both);
            return None;
        };
        {
            // As one with the look at it: nobody else ends the session, or closes the carrier, from now on.
            let mut inner = polled.inner();
            inner.has_moved = true;
            polled.state.socketio.forget(&polled.key);
            polled.carrier.move_to(socket.wire());
        }
        polled.left.notify_one();
        polled.release.notify_waiters();
        client.nudge();
        // An outlet that has ended does not write on what was left.
        if polled.outlet.closed().now_or_never().is_some() {
            let _ = timeout(limit, polled.carrier.flushed()).await;
        }
        Some(socket::go_on(client, socket, rest))
    }
}

impl Drop for Probing {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        (inner.is_probing, inner.is_probed) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_output<A, B, T>(_: impl FnOnce(A, B) -> T) -> usize {
        size_of::<T>()
    }

    /// What is around the loop of a socket that has taken over, for as long as that lives.
    #[test]
    fn a_probe_leaves_little_behind() {
        let future = size_of_output(Probing::run);
        assert!(future <= 192, "{future} bytes");
    }
}
