//! Sessions over HTTP: a mailbox that requests fetch from, a dialogue that other requests speak to,
//! and the names by which both find them.
//!
//! A session lives on the node that opened it. It ends 5 seconds after its last receiving request, or
//! when such a request breaks off, as what that one took may be lost.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::debug;

use super::framing::{self, MAILBOX, Messages};
use crate::auth::{AuthError, Identity};
use crate::frontend::carried::Service;
use crate::frontend::carrier::Carrier;
use crate::frontend::websocket::{Dialogue, Inbound};
use crate::metrics::Kind;
use crate::relay::close::CloseReason;

/// How long a session lives without a receiving request, and its last word after its end.
const DISCONNECT: Duration = Duration::from_secs(5);

/// A receiving request with nothing to tell is told so after this long.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(25);

/// For publishes under way, when a drain closes their session.
const SETTLING: Duration = Duration::from_secs(10);

/// For the closing bytes to get into the mailbox.
const CLOSING: Duration = Duration::from_secs(1);

/// Sessions of a node. A session takes a few KB, and any request opens one.
const SESSIONS_MAX: usize = 65_536;

/// Somebody else receives this session's messages.
pub(super) const TAKEN: (u16, &str) = (2010, "Another connection still open");

/// A receiving request broke off.
const INTERRUPTED: (u16, &str) = (1002, "Connection interrupted");

/// The session is over, and nobody said why.
const GONE: (u16, &str) = (3000, "Go away!");

/// One client's session.
pub(super) struct Session {
    carrier: Arc<Carrier>,
    /// What the client sends; its dialogue takes one request's messages at a time.
    inbox: mpsc::Sender<Vec<String>>,
    /// Whose request opened it.
    owner: Option<Box<str>>,
    state: Mutex<State>,
    interrupted: Notify,
}

struct State {
    is_received: bool,
    /// When somebody received last.
    received: Instant,
    /// The last word.
    end: Option<String>,
    /// Why it's over, for when that did not get into the mailbox.
    over: Option<CloseReason>,
}

/// What a name finds.
pub(super) enum Found {
    /// The session.
    Own(Arc<Session>),
    /// Somebody else's.
    Other,
    /// None.
    Nothing,
}

/// All sessions of an endpoint, by name.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<Box<str>, Arc<Session>>>);

/// Who a request comes from, as far as it has to be the same for each of a session.
pub(super) fn owner(who: &Result<Identity, AuthError>) -> Option<Box<str>> {
    let identity = who.as_ref().ok()?;
    match identity.user() {
        Some(user) => Some(user.as_str().into()),
        None => identity.is_server().then(|| "\0".into()),
    }
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of that name, if it's that owner's.
    pub(super) fn find(&self, name: &str, owner: Option<&str>) -> Found {
        match self.all().get(name) {
            None => Found::Nothing,
            Some(session) if session.owner.as_deref() == owner => Found::Own(session.clone()),
            Some(_) => Found::Other,
        }
    }

    /// Opens a session; none, if the name is taken or there are too many.
    pub(super) fn open<S: Service>(
        self: &Arc<Self>,
        service: &S,
        name: &str,
        who: Result<Identity, AuthError>,
    ) -> Option<Arc<Session>> {
        let (inbox, messages) = mpsc::channel(1);
        let session = Arc::new(Session {
            carrier: Carrier::mailbox(),
            inbox,
            owner: owner(&who),
            state: Mutex::new(State {
                is_received: false,
                received: Instant::now(),
                end: None,
                over: None,
            }),
            interrupted: Notify::new(),
        });
        {
            let mut all = self.all();
            if all.contains_key(name) || all.len() >= SESSIONS_MAX {
                return None;
            }
            all.insert(name.into(), session.clone());
        }
        let talk = service.open(session.carrier.clone(), &MAILBOX, who);
        let sessions = Arc::downgrade(self);
        let (task, name) = (session.clone(), Box::<str>::from(name));
        tokio::spawn(async move {
            live(&task, talk, messages).await;
            // The last word is said for a while to whoever asks.
            sleep(DISCONNECT).await;
            forget(&sessions, &name, &task);
        });
        Some(session)
    }
}

fn forget(sessions: &Weak<Sessions>, name: &str, session: &Arc<Session>) {
    if let Some(sessions) = sessions.upgrade() {
        let mut all = sessions.all();
        if all
            .get(name)
            .is_some_and(|found| Arc::ptr_eq(found, session))
        {
            all.remove(name);
        }
    }
}

/// How a session ends.
enum End {
    Closed(CloseReason),
    Gone,
    Drain(u64),
}

/// Runs a session's dialogue to its end.
async fn live<D: Dialogue>(
    session: &Session,
    mut talk: D,
    mut messages: mpsc::Receiver<Vec<String>>,
) {
    let state = talk.state().clone();
    let slot = state.drain.register();
    let _open = state.metrics.opened(Kind::SockJs);
    let outlet = talk.outlet().clone();
    let mut closed = pin!(outlet.closed());
    let mut told = pin!(slot.told());
    let mut interrupted = pin!(session.interrupted.notified());
    let mut timer = pin!(sleep_until(Instant::now() + DISCONNECT));
    let end = loop {
        // What the client says comes last, as that may never end.
        tokio::select! {
            biased;
            reason = &mut closed => break End::Closed(reason),
            retry_ms = &mut told => break End::Drain(retry_ms),
            () = &mut interrupted => break End::Gone,
            () = session.left() => break End::Gone,
            () = talk.ready() => {}
        }
        if talk.reschedules() {
            timer.as_mut().reset(next(session, &mut talk));
        }
        tokio::select! {
            biased;
            reason = &mut closed => break End::Closed(reason),
            retry_ms = &mut told => break End::Drain(retry_ms),
            () = &mut interrupted => break End::Gone,
            () = &mut timer => {
                if session.is_left(Instant::now()) {
                    break End::Gone;
                }
                timer.as_mut().reset(next(session, &mut talk));
            }
            sent = messages.recv() => {
                let now = Instant::now();
                for message in sent.unwrap_or_default() {
                    talk.on_frame(Inbound::Text(&message), now);
                }
            }
        }
    };
    // Nothing more is taken, and who waits to send is told so.
    messages.close();
    let reason = match end {
        End::Closed(reason) => Some(reason),
        End::Drain(retry_ms) => {
            talk.say_bye(retry_ms);
            let _ = timeout(SETTLING, talk.settled()).await;
            talk.outlet().close(CloseReason::Drain);
            timeout(CLOSING, closed).await.ok()
        }
        End::Gone => {
            talk.outlet().close(CloseReason::Gone);
            timeout(CLOSING, closed).await.ok()
        }
    };
    session.state().over.clone_from(&reason);
    let code = reason.as_ref().map_or(1006, CloseReason::code);
    state.metrics.closed(code);
    debug!(code, "session closed");
    session.carrier.close();
}

/// Looks after what is due, and says when to look again.
fn next<D: Dialogue>(session: &Session, talk: &mut D) -> Instant {
    let now = Instant::now();
    let left = session.left_at(now);
    talk.check(now).map_or(left, |then| then.min(left)).max(now)
}

impl Session {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it's over unless somebody receives; while somebody does, when to look again.
    fn left_at(&self, now: Instant) -> Instant {
        let state = self.state();
        match state.is_received {
            true => now + DISCONNECT,
            false => state.received + DISCONNECT,
        }
    }

    fn is_left(&self, now: Instant) -> bool {
        let state = self.state();
        !state.is_received && now >= state.received + DISCONNECT
    }

    /// Waits until nobody has received for too long.
    async fn left(&self) {
        loop {
            let now = Instant::now();
            if self.is_left(now) {
                return;
            }
            sleep_until(self.left_at(now)).await;
        }
    }

    /// Gives its dialogue what the client sent; false if it's over.
    pub(super) async fn send(&self, messages: Messages) -> bool {
        messages.0.is_empty() && !self.inbox.is_closed()
            || self.inbox.send(messages.0).await.is_ok()
    }

    /// A seat for one receiving request, or what to tell it.
    pub(super) fn receive(self: &Arc<Self>) -> Result<Seat, String> {
        let mut state = self.state();
        if state.is_received {
            return Err(framing::close(TAKEN.0, TAKEN.1));
        }
        state.is_received = true;
        drop(state);
        Ok(Seat {
            session: self.clone(),
            is_done: false,
        })
    }

    /// Why it's over, where the mailbox says nothing of it.
    fn why_over(&self) -> String {
        match &self.state().over {
            None | Some(CloseReason::Gone) => framing::close(GONE.0, GONE.1),
            Some(reason) => framing::close(reason.code(), &reason.text()),
        }
    }

    /// The last word, if all before it was fetched.
    fn last_word(&self) -> Option<String> {
        self.state().end.clone()
    }
}

/// The one request that receives a session's messages.
pub(super) struct Seat {
    session: Arc<Session>,
    is_done: bool,
}

/// A frame for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fetched {
    pub(super) frame: String,
    /// Nothing follows it.
    pub(super) is_last: bool,
}

impl Seat {
    /// Waits for the next frame.
    pub(super) async fn next(&mut self) -> Fetched {
        let last = |frame| Fetched {
            frame,
            is_last: true,
        };
        if let Some(end) = self.session.last_word() {
            return last(end);
        }
        let taken = match timeout(HEARTBEAT, self.session.carrier.take()).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(_)) => return last(self.end(self.session.why_over())),
            Err(_) => {
                return Fetched {
                    frame: framing::HEARTBEAT.to_owned(),
                    is_last: false,
                };
            }
        };
        let (array, end) = framing::fetched(&taken);
        let end = end.map(|end| self.end(end));
        match (array, end) {
            (Some(frame), _) => Fetched {
                frame,
                is_last: false,
            },
            (None, end) => last(end.unwrap_or_default()),
        }
    }

    /// Keeps the last word; the first one counts.
    fn end(&self, end: String) -> String {
        self.session.state().end.get_or_insert(end).clone()
    }

    /// The request is answered; another may come.
    pub(super) fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.session.state();
        state.is_received = false;
        state.received = Instant::now();
        if !self.is_done {
            state
                .end
                .get_or_insert_with(|| framing::close(INTERRUPTED.0, INTERRUPTED.1));
            drop(state);
            self.session.interrupted.notify_one();
        }
    }
}
