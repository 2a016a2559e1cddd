//! [`Client`]: the Socket.IO side of one Engine.IO session, whatever its transport: packets in, its
//! namespaces, and what has to be waited for in between.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Profile;
use super::ask::Asked;
use super::assembly::{Assembly, Whole};
use super::connect::Arrival;
use super::packet::{self, Kind};
use super::profile;
use super::space::{Phase, Space};
use super::stamp::Stamp;
use super::told::{FORMAT, event};
use crate::auth::{AuthError, Identity};
use crate::frontend::carrier::Carrier;
use crate::frontend::query::SocketioQuery;
use crate::frontend::websocket::frame::{Opcode, frame};
use crate::frontend::{ApiError, FrontendState};
use crate::relay::close::CloseReason;
use crate::relay::entry::RoomName;
use crate::relay::outlet::Outlet;

/// Most namespaces of one connection, ended ones among them. A page has two or three.
pub(super) const SPACES_MAX: usize = 16;

/// What a session's first request said.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    /// Who sent it, or why nobody knows.
    pub(super) who: Result<Identity, AuthError>,
    /// Its query string. As text, as every namespace that is connected needs it, and nobody between.
    query: Box<str>,
}

impl Hello {
    /// Checks the URL; whoever sent the request is known already.
    pub(super) fn of(uri: &Uri, who: Result<Identity, AuthError>) -> Result<Self, ApiError> {
        SocketioQuery::of(uri)?;
        Ok(Hello {
            who,
            query: uri.query().unwrap_or_default().into(),
        })
    }

    /// What its query string asks for.
    pub(super) fn query(&self) -> Result<SocketioQuery, ApiError> {
        let uri = Uri::try_from(format!("/?{}", self.query));
        SocketioQuery::of(&uri.map_err(|error| ApiError::bad_request(error.to_string()))?)
    }
}

/// What comes of something that had to be waited for before the next packet is read.
pub(super) enum Resumed {
    /// It's known who asks to come in.
    Arrived(Box<Arrival>),
    /// A namespace is open, or will never be.
    Opened(Arc<str>, bool),
    /// A room's rules are known, so that this can be done.
    Asked(Arc<str>, Box<Asked>),
    /// A room is joined.
    Joined(Arc<str>, RoomName),
    /// Nothing is left to do.
    Done,
}

/// One client.
pub(super) struct Client {
    pub(super) state: Arc<FrontendState>,
    pub(super) hello: Box<Hello>,
    /// The first one's connection is the transport's own, and so stays to the end.
    pub(super) spaces: SmallVec<[Space; 1]>,
    /// What was read last, if it has to wait.
    pub(super) pending: Option<BoxFuture<'static, Resumed>>,
    assembly: Assembly,
    /// When a namespace must be connected.
    connect_by: Option<Instant>,
    outlet: Arc<Outlet>,
}

impl Client {
    /// A client that has said hello, and goes by this carrier.
    pub(super) fn new(state: Arc<FrontendState>, carrier: &Arc<Carrier>, hello: Hello) -> Self {
        let now = Instant::now();
        let lane = carrier.lane(Stamp {
            is_main: true,
            ..Stamp::default()
        });
        let connection = state.relay().connect(lane.clone(), &FORMAT);
        let outlet = connection.outlet().clone();
        let session = state.people.session(connection, Identity::nobody());
        let connect_by = match state.profile() {
            Some(profile) if profile.is_raw() => None,
            _ => Some(now + state.settings.socketio.connect_timeout),
        };
        Client {
            state,
            hello: Box::new(hello),
            spaces: SmallVec::from_iter([Space::new(session, lane)]),
            pending: None,
            assembly: Assembly::default(),
            connect_by,
            outlet,
        }
    }

    /// The transport's way out.
    pub(super) fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    pub(super) fn close(&self, reason: CloseReason) {
        self.outlet.close(reason);
    }

    /// Waits until the client may be listened to.
    pub(super) async fn ready(&mut self) {
        while let Some(pending) = &mut self.pending {
            // Kept where it is until it's done: this future may be dropped before.
            let resumed = pending.await;
            self.pending = None;
            self.resume(resumed);
        }
        for space in &self.spaces {
            space.session.connection().ready().await;
        }
    }

    fn resume(&mut self, resumed: Resumed) {
        match resumed {
            Resumed::Arrived(arrival) => self.on_arrival(*arrival),
            Resumed::Opened(name, is_open) => self.on_opened(&name, is_open),
            Resumed::Asked(name, asked) => self.on_known(&name, *asked),
            Resumed::Joined(name, room) => self.on_joined(&name, room),
            Resumed::Done => {}
        }
    }

    /// A text message.
    pub(super) fn on_text(&mut self, text: &str) {
        if let Some(profile) = self.state.profile().filter(|profile| profile.is_raw()) {
            return self.send(&profile.echo(text));
        }
        let limit = self.state.settings.socketio.max_payload;
        match self.assembly.text(text, limit) {
            Ok(Some(whole)) => self.on_packet(whole),
            Ok(None) => {}
            Err(error) => self.close(CloseReason::BadRequest(error.to_string().into())),
        }
    }

    /// A binary message.
    pub(super) fn on_binary(&mut self, bytes: &[u8]) {
        if self.state.profile().is_some_and(|profile| profile.is_raw()) {
            return self.outlet.send(frame(Opcode::Binary, bytes));
        }
        match self.assembly.binary(bytes) {
            Ok(Some(whole)) => self.on_packet(whole),
            Ok(None) => {}
            Err(error) => self.close(CloseReason::BadRequest(error.to_string().into())),
        }
    }

    fn on_packet(&mut self, whole: Whole) {
        match whole.kind {
            Kind::Connect => self.on_connect(whole),
            Kind::Disconnect => self.on_disconnect(&whole.namespace),
            Kind::Event => self.on_event(whole),
            // We never ask.
            Kind::Ack => {}
        }
    }

    /// The place of an open namespace.
    pub(super) fn open(&self, name: &str) -> Option<usize> {
        let mut spaces = self.spaces.iter();
        spaces.position(|space| *space.name == *name && space.phase == Phase::Open)
    }

    /// Whether a namespace is open, or about to be.
    pub(super) fn is_taken(&self, name: &str) -> bool {
        let mut spaces = self.spaces.iter();
        spaces.any(|space| {
            *space.name == *name && matches!(space.phase, Phase::Open | Phase::Opening)
        })
    }

    pub(super) fn on_opened(&mut self, name: &str, is_open: bool) {
        let mut spaces = self.spaces.iter();
        let opening =
            spaces.position(|space| *space.name == *name && space.phase == Phase::Opening);
        let Some(at) = opening else { return };
        if is_open {
            self.connect_by = None;
            self.spaces[at].on_open(&self.state);
        } else {
            self.end_space(at);
        }
    }

    fn on_disconnect(&mut self, name: &str) {
        if let Some(at) = self.open(name) {
            self.end_space(at);
        }
    }

    /// Ends a namespace without a word.
    pub(super) fn end_space(&mut self, at: usize) {
        self.spaces[at].end();
        if at > 0 {
            self.spaces.remove(at);
        }
    }

    /// Looks after what has a time, and says when to look again.
    pub(super) fn check(&mut self, now: Instant) -> Option<Instant> {
        if self.connect_by.is_some_and(|at| now >= at) {
            self.connect_by = None;
            self.close(CloseReason::Timeout("no namespace was connected".into()));
        }
        self.end_closed();
        let mut next = self.connect_by;
        for space in &self.spaces {
            match space.expires {
                Some(expires) if now >= expires => {
                    let text = AuthError::Expired.to_string();
                    self.close(CloseReason::Unauthenticated(text.into()));
                }
                Some(expires) => next = Some(next.map_or(expires, |next| next.min(expires))),
                None => {}
            }
        }
        next
    }

    /// Ends namespaces whose connections have ended. The transport's own ends all.
    pub(super) fn end_closed(&mut self) {
        for at in (1..self.spaces.len()).rev() {
            let outlet = self.spaces[at].session.connection().outlet();
            // Until its last words are out it's only about to.
            if outlet.closed().now_or_never().is_none() {
                continue;
            }
            // What ends without having been told so is not to be waited for in vain.
            if self.spaces[at].is_unaware() {
                self.close(CloseReason::Timeout("stopped reading".into()));
            }
            self.end_space(at);
        }
    }

    /// Says that the node drains.
    pub(super) fn say_bye(&self, retry_ms: u64) {
        let args = event("bye", format!("{{\"retry_ms\":{retry_ms}}}").as_bytes());
        for space in self.spaces.iter().filter(|s| s.phase == Phase::Open) {
            space.emit(&args);
        }
    }

    /// Waits until no publish is in flight.
    pub(super) async fn settled(&mut self) {
        for space in &self.spaces {
            space.session.connection().settled().await;
        }
    }

    /// The carrier has changed: what waits may go out now.
    pub(super) fn nudge(&self) {
        for space in &self.spaces {
            space.session.connection().outlet().nudge();
        }
    }

    /// Sends one Engine.IO packet.
    pub(super) fn send(&self, packet: &str) {
        self.outlet.send(text(packet));
    }

    /// Says that a namespace can't be entered.
    pub(super) fn refuse(&self, namespace: &str, code: &str, message: &str) {
        let json = refusal(code, message, None);
        self.send(&packet::connect_error(namespace, &json));
    }

    /// A test profile's events.
    pub(super) fn on_profiled(&self, profile: &dyn Profile, whole: &Whole) {
        if let Some(frames) = profile::answer(profile, whole) {
            self.outlet.send(frames);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        for space in &mut self.spaces {
            space.end();
        }
    }
}

/// One Engine.IO packet as a frame.
pub(super) fn text(packet: &str) -> Bytes {
    frame(Opcode::Text, packet.as_bytes())
}

/// What a CONNECT_ERROR carries.
fn refusal(code: &str, message: &str, retry: Option<Duration>) -> String {
    let mut data = serde_json::json!({"code": code});
    if let Some(retry) = retry {
        data["retry_ms"] = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX).into();
    }
    serde_json::json!({"message": message, "data": data}).to_string()
}
