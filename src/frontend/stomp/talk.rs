//! One client's dialogue: bytes in, frames in their order, and what each comes to.
//!
//! A frame is done before the next one is read, as far as the protocol has an order: what is sent
//! behind a SUBSCRIBE comes back by it. Publishes are only begun.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::coop;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::beats::{Due, Heart, answer};
use super::frame::{Decoder, Frame, Version};
use super::login;
use super::message::{Frames, format};
use super::refused::Refused;
use super::request::{Asked, Connect, Reading, Request, Send, Subscribe};
use super::transaction::Transactions;
use super::voice::Voice;
use crate::auth::{AuthError, Identity};
use crate::frontend::FrontendState;
use crate::frontend::carried::Envelope;
use crate::frontend::carrier::Carrier;
use crate::frontend::websocket::{Dialogue, Inbound, Limiter};
use crate::people::session::Session;
use crate::relay::close::CloseReason;
use crate::relay::connection::Connection;
use crate::relay::entry::RoomName;
use crate::relay::outlet::Outlet;

/// How long a client may take to log in (RabbitMQ's limit).
const LOGIN_TIME: Duration = Duration::from_secs(10);

/// How far the dialogue has come.
enum Phase {
    /// Nobody has logged in yet.
    Outside {
        /// Who sent the request that the connection began with.
        who: Result<Identity, AuthError>,
        until: Instant,
    },
    /// Somebody has, until their token expires.
    Inside(Option<Instant>),
    /// The client said good-bye, and waits for this receipt.
    Leaving(Option<Box<str>>),
    /// Nothing is listened to any more.
    Over,
}

/// What comes of something that has to be waited for before the next frame is read.
pub(super) enum Resumed {
    /// It's known who the client is, or why not.
    Who(Connect, Result<Identity, AuthError>),
    /// The client was too fast for this frame.
    Frame(Frame),
    /// It's known who an anonymous client says it is, and what it says now.
    Named(Option<Identity>, Vec<(RoomName, Send)>, Option<Box<str>>),
    /// These rooms' rules are known.
    Sends(Vec<(RoomName, Send)>, Option<Box<str>>),
}

/// One client.
pub(crate) struct Talk {
    pub(super) session: Session,
    pub(super) state: Arc<FrontendState>,
    pub(super) voice: Voice,
    phase: Phase,
    decoder: Decoder,
    /// What came behind a frame that has to wait.
    backlog: BytesMut,
    pub(super) pending: Option<BoxFuture<'static, Resumed>>,
    /// A subscription that waits for what was sent before it: it begins behind that.
    waits: Option<Box<(Subscribe, Option<Box<str>>)>>,
    /// Until when it's waited for the room that it joins just now.
    pub(super) joins: Option<Instant>,
    heart: Heart,
    /// Whether deadlines have changed since they were asked for.
    reschedules: bool,
    limiter: Limiter,
    pub(super) transactions: Transactions,
    /// What goes out once the client is gone.
    pub(super) farewells: Vec<(RoomName, Send)>,
}

impl Talk {
    /// Begins a dialogue over a carrier.
    pub(super) fn open(
        state: Arc<FrontendState>,
        carrier: &Arc<Carrier>,
        envelope: &'static Envelope,
        who: Result<Identity, AuthError>,
    ) -> Self {
        let lane = carrier.lane(Frames::new(envelope));
        let connection = state.relay().connect(lane.clone(), format(envelope.coding));
        let now = Instant::now();
        Talk {
            session: state.people.session(connection, Identity::nobody()),
            state,
            voice: Voice {
                lane,
                envelope,
                version: Version::V10,
            },
            phase: Phase::Outside {
                who,
                until: now + LOGIN_TIME,
            },
            decoder: Decoder::new(),
            backlog: BytesMut::new(),
            pending: None,
            waits: None,
            joins: None,
            heart: Heart::new(now),
            reschedules: false,
            limiter: Limiter::new(now),
            transactions: Transactions::default(),
            farewells: Vec::new(),
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        self.session.connection()
    }

    /// Waits until more may be read from the client, and looks after what is due meanwhile.
    async fn may_listen(&mut self) {
        loop {
            let due = self.due().map(sleep_until);
            let due = async {
                match due {
                    Some(due) => due.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.catch_up() => break,
                () = due => {
                    let now = Instant::now();
                    // It's not silent: nobody listens.
                    self.heart.on_heard(now);
                    self.tend(now);
                }
            }
        }
        self.heart.on_heard(Instant::now());
    }

    /// Goes on with what was read already, until all of it is done. May be dropped and asked again.
    async fn catch_up(&mut self) {
        loop {
            if self.outlet().is_closing() {
                self.end();
            }
            if let Some(pending) = &mut self.pending {
                // Kept where it is until it's done: this future may be dropped before.
                let resumed = pending.await;
                self.pending = None;
                self.resume(resumed);
                continue;
            }
            if self.waits.is_some() {
                self.connection().settled().await;
                self.subscribe_now();
            }
            if let Some(until) = self.joins {
                // While Redis is away a publish had better be refused than never read.
                let _ = timeout_at(until, self.connection().joined()).await;
                self.joins = None;
            }
            if let Phase::Leaving(_) = self.phase {
                self.connection().settled().await;
                self.leave();
            }
            self.connection().ready().await;
            if self.backlog.is_empty() {
                return;
            }
            self.go_on();
            coop::consume_budget().await;
        }
    }

    /// Nothing more is done: the connection ends.
    fn end(&mut self) {
        self.phase = Phase::Over;
        self.pending = None;
        self.waits = None;
        self.joins = None;
        self.backlog = BytesMut::new();
    }

    /// Whether what comes has to wait.
    fn is_busy(&self) -> bool {
        self.pending.is_some()
            || self.waits.is_some()
            || self.joins.is_some()
            || !self.backlog.is_empty()
    }

    fn on_bytes(&mut self, bytes: &[u8], now: Instant) {
        self.heart.on_heard(now);
        // Nobody else does, as long as there is always something to read.
        self.tend(now);
        let mut input = bytes;
        if !self.is_busy() {
            self.read(&mut input, now);
        }
        if !matches!(self.phase, Phase::Over) {
            self.backlog.extend_from_slice(input);
        }
    }

    /// Does the next frame of the backlog.
    fn go_on(&mut self) {
        let mut backlog = std::mem::take(&mut self.backlog);
        let mut input = &backlog[..];
        self.read(&mut input, Instant::now());
        let left = input.len();
        if left > 0 && !matches!(self.phase, Phase::Over) {
            backlog.advance(backlog.len() - left);
            self.backlog = backlog;
        }
    }

    /// Reads one frame and does what it asks for.
    fn read(&mut self, input: &mut &[u8], now: Instant) {
        // Behind an ERROR, whoever said it, nothing is done any more.
        if matches!(self.phase, Phase::Leaving(_) | Phase::Over) || self.outlet().is_closing() {
            *input = &[];
            return;
        }
        match self.decoder.decode(input) {
            Ok(None) => {}
            Ok(Some(frame)) => {
                if let Some(wait) = self.too_fast(now) {
                    // Slowed down: there is no way to refuse one frame and go on.
                    let waited = sleep(wait).map(|()| Resumed::Frame(frame));
                    self.pending = Some(waited.boxed());
                } else {
                    self.on_stomp(frame, now);
                }
            }
            Err(error) => self.refuse(None, &error.into()),
        }
    }

    fn too_fast(&mut self, now: Instant) -> Option<Duration> {
        let rate = self.state.settings.frame_rate;
        self.limiter.take(rate, now).err()
    }

    fn resume(&mut self, resumed: Resumed) {
        if self.outlet().is_closing() {
            return self.end();
        }
        let now = Instant::now();
        match resumed {
            Resumed::Who(connect, who) => self.admit(&connect, who, now),
            Resumed::Frame(frame) => match self.too_fast(now) {
                Some(wait) => {
                    let waited = sleep(wait).map(|()| Resumed::Frame(frame));
                    self.pending = Some(waited.boxed());
                }
                None => self.on_stomp(frame, now),
            },
            Resumed::Named(identity, sends, receipt) => {
                if let Some(identity) = identity {
                    self.session.introduce(identity);
                }
                self.publish(sends, receipt);
            }
            Resumed::Sends(sends, receipt) => self.publish(sends, receipt),
        }
    }

    /// Does what a frame asks for.
    fn on_stomp(&mut self, frame: Frame, now: Instant) {
        let reading = Reading {
            version: match self.phase {
                Phase::Inside(_) => Some(self.voice.version),
                _ => None,
            },
            aliases: &self.state.settings.stomp.aliases,
            max_fields: self.state.settings.max_fields,
            now_ms: now_ms(),
        };
        let receipt = frame.headers.filled("receipt").map(Box::<str>::from);
        let done = reading.read(frame).and_then(|asked| self.do_it(asked, now));
        if let Err(refused) = done {
            self.refuse(receipt.as_deref(), &refused);
        }
    }

    fn do_it(&mut self, asked: Asked, now: Instant) -> Result<(), Refused> {
        let Asked { what, receipt } = asked;
        match what {
            Request::Connect(connect) => {
                self.connect(connect, now);
                return Ok(());
            }
            Request::Disconnect => {
                self.phase = Phase::Leaving(receipt);
                return Ok(());
            }
            Request::Subscribe(subscribe) => {
                self.waits = Some(Box::new((subscribe, receipt)));
                return Ok(());
            }
            Request::Send(None, send) => return self.send(vec![send], receipt),
            Request::Commit(name) => {
                let sends = self.transactions.end(&name)?;
                return self.send(sends, receipt);
            }
            Request::Unsubscribe(id) => self.unsubscribe(&id),
            Request::Send(Some(name), send) => {
                let most = self.state.settings.stomp.max_frame;
                self.transactions.add(&name, send, most)?;
            }
            Request::Ack => {}
            Request::Begin(name) => self.transactions.begin(name)?,
            // What is not open is ended already.
            Request::Abort(name) => drop(self.transactions.end(&name)),
        }
        if let Some(receipt) = receipt {
            self.say(self.voice.receipt(&receipt, &[]));
        }
        Ok(())
    }

    fn subscribe_now(&mut self) {
        let Some((asked, receipt)) = self.waits.take().map(|waits| *waits) else {
            return;
        };
        if self.outlet().is_closing() {
            return self.end();
        }
        if let Err(refused) = self.subscribe(asked, receipt.clone()) {
            self.refuse(receipt.as_deref(), &refused);
        }
    }

    fn connect(&mut self, connect: Connect, now: Instant) {
        let Phase::Outside { who, .. } = &self.phase else {
            return;
        };
        match login::credentials(&connect, self.state.auth.settings().mode) {
            Some(Ok(credentials)) => {
                let auth = self.state.auth.clone();
                let known = async move {
                    let who = auth.identify(&credentials).await;
                    Resumed::Who(connect, who)
                };
                self.pending = Some(known.boxed());
            }
            Some(Err(error)) => self.refuse(None, &error.into()),
            None => {
                let who = who.clone();
                self.admit(&connect, who, now);
            }
        }
    }

    /// Lets the client in, or not.
    fn admit(&mut self, connect: &Connect, who: Result<Identity, AuthError>, now: Instant) {
        let identity = match who {
            Ok(identity) => identity,
            Err(error) => return self.refuse(None, &error.into()),
        };
        let version = connect.version;
        self.decoder
            .agree(version, self.state.settings.stomp.max_frame);
        self.voice.version = version;
        let is_binary = connect.is_binary;
        self.voice
            .lane
            .with(|frames| frames.agree(version, is_binary));
        self.heart = Heart::agreed(connect.beats, now);
        self.phase = Phase::Inside(identity.expires());
        self.reschedules = true;
        let (beats, session) = (answer(connect.beats), self.outlet().number().to_string());
        let mut headers = vec![
            ("version", version.as_str()),
            ("heart-beat", &beats),
            ("session", &session),
            ("server", concat!("tailcast/", env!("CARGO_PKG_VERSION"))),
        ];
        if is_binary {
            headers.push(("x-binary", "true"));
        }
        let user = identity.user();
        headers.extend(user.map(|user| ("user-name", user.as_str())));
        self.say(self.voice.connected(&headers));
        // Nobody becomes somebody; that can't fail.
        let _ = self.session.renew(identity);
    }

    /// All that was asked for before the good-bye is done.
    fn leave(&mut self) {
        if let Phase::Leaving(Some(receipt)) = std::mem::replace(&mut self.phase, Phase::Over) {
            self.say(self.voice.receipt(&receipt, &[]));
        }
        self.outlet().close(CloseReason::Protocol(1000, "".into()));
    }

    pub(super) fn refuse(&mut self, receipt: Option<&str>, refused: &Refused) {
        self.end();
        self.voice.refuse(self.outlet(), receipt, refused);
    }

    pub(super) fn say(&self, frame: bytes::Bytes) {
        self.outlet().send(frame);
    }

    /// Closes the connection if its time is over.
    fn end_if_over(&mut self, now: Instant) {
        match &self.phase {
            // Once it has come, it's ours to find out who that is.
            Phase::Outside { until, .. } if now >= *until && self.pending.is_none() => {
                self.end();
                let text = "no CONNECT came in time";
                self.outlet().close(CloseReason::Timeout(text.into()));
            }
            Phase::Inside(Some(expires)) if now >= *expires => {
                self.refuse(None, &AuthError::Expired.into());
            }
            _ => {}
        }
    }

    /// Looks after what is due.
    fn tend(&mut self, now: Instant) {
        self.end_if_over(now);
        match self.heart.due(now) {
            // What waits already is a sign of life itself.
            Due::Beat if !self.outlet().is_blocked() => self.say(self.voice.beat()),
            Due::Silence if !self.outlet().is_blocked() => {
                let text = "no heart-beat came in time";
                self.outlet().close(CloseReason::Timeout(text.into()));
            }
            // What it would answer may be with us.
            Due::Silence => self.heart.on_heard(now),
            Due::Beat | Due::Nothing => {}
        }
    }

    /// When something is due next.
    fn due(&self) -> Option<Instant> {
        let end = match &self.phase {
            Phase::Outside { until, .. } if self.pending.is_none() => Some(*until),
            Phase::Inside(expires) => *expires,
            Phase::Outside { .. } | Phase::Leaving(_) | Phase::Over => None,
        };
        end.into_iter().chain(self.heart.next()).min()
    }
}

impl Dialogue for Talk {
    const LIMIT: &'static str = "--stomp-max-frame";

    fn state(&self) -> &Arc<FrontendState> {
        &self.state
    }

    fn outlet(&self) -> &Arc<Outlet> {
        self.session.connection().outlet()
    }

    async fn ready(&mut self) {
        let is_idle = !self.is_busy() && !matches!(self.phase, Phase::Leaving(_));
        if is_idle && self.connection().ready().now_or_never().is_some() {
            return;
        }
        // Boxed, as its timers would make every connection larger for its whole life.
        Box::pin(self.may_listen()).await;
    }

    fn on_frame(&mut self, frame: Inbound<'_>, now: Instant) {
        match frame {
            Inbound::Text(text) => self.on_bytes(text.as_bytes(), now),
            Inbound::Binary(bytes) => self.on_bytes(bytes, now),
        }
    }

    fn check(&mut self, now: Instant) -> Option<Instant> {
        self.reschedules = false;
        self.tend(now);
        self.due()
    }

    fn on_received(&mut self, now: Instant) {
        self.heart.on_heard(now);
    }

    fn reschedules(&self) -> bool {
        self.reschedules
    }

    /// Only farewells: the client finds the way back by itself.
    fn say_bye(&mut self, _retry_ms: u64) {
        self.depart();
    }

    async fn settled(&mut self) {
        self.connection().settled().await;
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.depart();
    }
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
