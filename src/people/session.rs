//! [`Session`]: a client's connection with who it is. Everything a client asks for passes here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::fields::Mark;
use super::moderation::{Act, Done};
use super::pace::{Pace, Paces};
use super::publish::{is_immune, refusal};
use super::side::Side;
use super::wire::Message;
use super::{Refusal, Shared, audit, now_ms, told};
use crate::auth::{Identity, Right, Role};
use crate::relay::aside::Aside;
use crate::relay::connection::{
    Barred, Began, Connection, Gate, JoinError, NotJoined, Publish, Seats,
};
use crate::relay::entry::{EntryId, Fields, RoomName};
use crate::relay::outlet::Outlet;
use crate::relay::position::Position;

/// How to join a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Join {
    /// Where to begin.
    pub from: Position,
    /// Whether to be told who is here.
    pub presence: bool,
    /// Whether the connection is there for this room: put out of it, it's closed.
    pub is_home: bool,
}

/// Called once with a join's end. The frame it returns goes out before the room's first entry; the
/// asides after that.
pub type Joined = Box<dyn FnOnce(Result<Began, NotJoined>) -> Option<Bytes> + Send>;

/// Called once with a publish's end.
pub type Published = Box<dyn FnOnce(&Arc<Outlet>, Result<EntryId, Refusal>) + Send>;

/// What a client publishes.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where to.
    pub room: RoomName,
    /// What.
    pub fields: Fields,
    /// Repeats under one key are stored once.
    pub key: Option<Bytes>,
    /// Whether the client wants it back.
    pub echo: bool,
    /// The public ID of the client, if it's one of Socket.IO and does not want this back, now or
    /// replayed.
    pub socket: Option<Bytes>,
}

/// A client: its identity, its rooms.
pub struct Session {
    /// Made when it's needed, as most clients only listen.
    paces: Mutex<Option<Box<Paces>>>,
    shared: Arc<Shared>,
    identity: Identity,
    connection: Connection,
    stays: SmallVec<[Arc<Stay>; 1]>,
}

/// One session in one room. Its end takes the user out of the room's presence.
pub(super) struct Stay {
    shared: Arc<Shared>,
    side: Arc<Side>,
    number: usize,
    user: Option<Arc<str>>,
    is_immune: AtomicBool,
    is_home: bool,
    watches: bool,
    seats: Seats,
    state: Mutex<State>,
    /// When the user may publish again, as a refusal said; asking the store before would be in vain.
    rests: Mutex<Option<(Instant, Refusal)>>,
    put_out: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has not been let in yet. With the role to show.
    Outside(Option<Role>),
    /// The user counts as present, with this role.
    Inside(Option<Role>),
    /// It's over.
    Ended,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, connection: Connection, identity: Identity) -> Self {
        if let Some(user) = identity.user() {
            shared.here().connect(&Arc::from(user.as_str()));
        }
        Session {
            paces: Mutex::default(),
            shared,
            identity,
            connection,
            stays: SmallVec::new(),
        }
    }

    /// Its connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Who the client is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Takes a fresh identity, as a new token has it. It must be the same user, unless it was nobody
    /// yet; rooms that it may not follow any more, in the way it does, are left, and returned.
    pub fn renew(&mut self, identity: Identity) -> Result<Vec<RoomName>, Refusal> {
        if self.identity.is_nobody() {
            if let Some(user) = identity.user() {
                self.shared.here().connect(&Arc::from(user.as_str()));
            }
            self.identity = identity;
            return Ok(Vec::new());
        }
        let is_same = identity.user() == self.identity.user()
            && identity.is_server() == self.identity.is_server();
        if !is_same {
            return Err(Refusal::BadRequest(
                "the token is another user's; open another connection for them".to_owned(),
            ));
        }
        self.identity = identity;
        let is_lost = |stay: &&Arc<Stay>| {
            let rights = self.identity.rights(stay.side.room());
            !rights.has(Right::Subscribe) || stay.watches && !rights.has(Right::Presence)
        };
        let lost = self.stays.iter().filter(is_lost);
        let lost: Vec<RoomName> = lost.map(|stay| stay.side.room().clone()).collect();
        for room in &lost {
            self.leave(room);
        }
        for stay in &self.stays {
            stay.renew(&self.identity);
        }
        Ok(lost)
    }

    /// Takes the word of somebody who came without a name, where anybody is believed, for who they are.
    /// They count as present by that name where they are already. Anybody else stays who they are.
    pub fn introduce(&mut self, identity: Identity) {
        let is_anonymous = |who: &Identity| who.user().is_none() && !who.is_server();
        let is_believed = self.identity.expires().is_none() && identity.expires().is_none();
        let Some(user) = identity.user().filter(|_| is_believed) else {
            return;
        };
        if !is_anonymous(&self.identity) || self.identity.is_nobody() {
            return;
        }
        self.shared.here().connect(&Arc::from(user.as_str()));
        self.identity = identity;
        let named: SmallVec<[Arc<Stay>; 1]> = self
            .stays
            .iter()
            .map(|stay| {
                let state = *stay.state();
                match state {
                    State::Inside(_) => stay.renamed(self),
                    State::Outside(_) | State::Ended => stay.clone(),
                }
            })
            .collect();
        self.stays = named;
    }

    /// Begins to join a room. `joined` is called when it's done, or with why not.
    pub fn join(&mut self, room: RoomName, join: Join, joined: Joined) -> Result<(), CantJoin> {
        self.forget_put_out();
        let rights = self.identity.rights(&room);
        let needed = [
            (true, Right::Subscribe),
            (join.presence, Right::Presence),
            // An ID to resume from may be any that was ever given out.
            (join.from != Position::Now, Right::History),
        ];
        for (is_needed, right) in needed {
            if is_needed && !rights.has(right) {
                return Err(CantJoin::Refused(Refusal::NoRight(right)));
            }
        }
        let side = self.shared.side(&room);
        let stay = Stay::new(self, side, join);
        let gate = stay.gate(self.identity.clone());
        let told = Arc::downgrade(&stay);
        let joined = Box::new(move |outcome: Result<Began, NotJoined>| {
            let is_in = outcome.is_ok();
            let frame = joined(outcome);
            match told.upgrade() {
                Some(stay) if is_in => stay.on_joined(frame),
                Some(stay) => {
                    // It may have passed the gate.
                    stay.end();
                    stay.put_out.store(true, Ordering::Release);
                    frame
                }
                None => frame,
            }
        });
        self.connection
            .join(room, join.from, join.presence, Some(gate), joined)?;
        self.stays.push(stay);
        Ok(())
    }

    /// Leaves a room, or gives up joining it. False if it was not there.
    pub fn leave(&mut self, room: &RoomName) -> bool {
        self.forget_put_out();
        self.stays.retain(|stay| stay.side.room() != room);
        self.connection.seats().leave(room)
    }

    fn forget_put_out(&mut self) {
        self.stays
            .retain(|stay| !stay.put_out.load(Ordering::Acquire));
    }

    fn stay(&self, room: &RoomName) -> Option<&Arc<Stay>> {
        self.stays.iter().find(|stay| stay.side.room() == room)
    }

    fn side(&self, room: &RoomName) -> Arc<Side> {
        match self.stay(room) {
            Some(stay) => stay.side.clone(),
            None => self.shared.side(room),
        }
    }

    /// What has to be waited for before something is asked of a room; nothing, mostly.
    pub fn knows(&self, room: &RoomName) -> Option<BoxFuture<'static, ()>> {
        let side = self.side(room);
        if side.is_loaded() {
            return None;
        }
        let patience = self.shared.patience();
        // If that fails, what is asked is refused for it.
        Some(async move { drop(side.known_within(patience).await) }.boxed())
    }

    /// Publishes; stored in the order of these calls. The room must be known ([`Session::knows`]).
    pub fn publish(&self, entry: Entry, done: Published) {
        let Entry {
            room,
            fields,
            key,
            echo,
            socket,
        } = entry;
        let mark = socket.map_or(Mark::None, Mark::Socket);
        let outlet = self.connection.outlet();
        let side = self.side(&room);
        let stay = self.stay(&room).map(Arc::downgrade);
        let resting = self.stay(&room).and_then(|stay| stay.rests());
        let admitted = match resting {
            // A repeat of a key may be known already, and then it passes.
            Some(refusal) if key.is_none() => Err(refusal),
            _ => {
                let number = Some(outlet.number());
                self.shared
                    .admit(&self.identity, number, &side, fields, mark, key)
            }
        };
        let admitted = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return done(outlet, Err(refusal)),
        };
        let kinds = admitted.kinds;
        // Each inbox has a rate of its own, which does not keep anybody from writing to thousands.
        if room.owner().is_some()
            && !kinds.is_empty()
            && let Err(refusal) = self.paced(|paces| &mut paces.messages)
        {
            return done(outlet, Err(refusal));
        }
        let publish = Publish {
            echo,
            ..admitted.publish
        };
        self.connection.publish(
            publish,
            Box::new(move |outlet, outcome| {
                let outcome = outcome.map_err(|error| refusal(&kinds, error));
                if let (Err(why), Some(stay)) = (&outcome, stay.as_ref().and_then(Weak::upgrade)) {
                    stay.rest(why);
                }
                done(outlet, outcome);
            }),
        );
    }

    /// Shows something to everybody who is in the room now, on all nodes. Not stored.
    pub fn whisper(&self, entry: Entry, json: String) -> Result<(), Refusal> {
        let side = self.side(&entry.room);
        let number = self.connection.outlet().number();
        let identity = &self.identity;
        let admitted = self.shared.admit(
            identity,
            Some(number),
            &side,
            entry.fields,
            Mark::None,
            None,
        )?;
        // Nothing of it goes to the store, whose limits are for entries; whoever has none there
        // has none here.
        if !admitted.kinds.is_empty() {
            self.paced(|paces| &mut paces.messages)?;
        }
        let except = (!entry.echo).then(|| (self.shared.own().to_string(), number));
        let message = Message::Ephemeral { except, json };
        self.shared.board.whisper(&entry.room, message.encode());
        Ok(())
    }

    /// Lets one more of a kind through, or refuses it.
    fn paced(&self, of: impl FnOnce(&mut Paces) -> &mut Pace) -> Result<(), Refusal> {
        let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = of(paces.get_or_insert_default());
        pace.take(Instant::now()).map_err(Refusal::TooFast)
    }

    /// Counts a reaction.
    pub fn react(&self, room: &RoomName, reaction: &str) -> Result<(), Refusal> {
        let side = self.side(room);
        self.shared
            .may_speak(&self.identity, &side, Right::Subscribe)?;
        self.paced(|paces| &mut paces.reactions)?;
        side.reactions.add(reaction)?;
        side.stir();
        Ok(())
    }

    /// Does something to a room. The future is the caller's to run.
    pub fn moderate(
        &self,
        room: RoomName,
        act: Act,
        reason: Option<String>,
    ) -> BoxFuture<'static, Result<Done, Refusal>> {
        let (shared, identity) = (self.shared.clone(), self.identity.clone());
        async move { shared.moderate(&identity, &room, act, reason).await }.boxed()
    }

    /// Whether the client may read a room's history; waits until its rules are known.
    pub fn may_read(&self, room: &RoomName) -> BoxFuture<'static, Result<(), Refusal>> {
        let (shared, identity) = (self.shared.clone(), self.identity.clone());
        let side = self.side(room);
        async move {
            side.looked_up(shared.patience()).await?;
            shared.may_read(&identity, &side, Right::History)
        }
        .boxed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stays.clear();
        if let Some(user) = self.identity.user() {
            self.shared.here().disconnect(&Arc::from(user.as_str()));
        }
    }
}

/// A join that can't be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CantJoin {
    /// The connection can't.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The client may not.
    #[error(transparent)]
    Refused(Refusal),
}

impl CantJoin {
    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            CantJoin::Join(JoinError::AlreadyIn) => "already_in",
            CantJoin::Join(JoinError::TooMany(_)) => "too_many_rooms",
            CantJoin::Refused(refusal) => refusal.code(),
        }
    }
}

impl Stay {
    fn new(session: &Session, side: Arc<Side>, join: Join) -> Arc<Self> {
        let identity = &session.identity;
        if join.presence {
            side.watch(&session.shared);
        }
        Arc::new_cyclic(|itself: &Weak<Stay>| Stay {
            number: side.enter(itself.clone()),
            shared: session.shared.clone(),
            user: identity.user().map(|user| Arc::from(user.as_str())),
            is_immune: is_immune(identity, side.room()).into(),
            is_home: join.is_home,
            watches: join.presence,
            seats: session.connection.seats().clone(),
            state: Mutex::new(State::Outside(identity.shown_role(side.room()))),
            rests: Mutex::default(),
            put_out: AtomicBool::new(false),
            side,
        })
    }

    /// The same place in the same room, for who the session's client says it is now.
    fn renamed(&self, session: &Session) -> Arc<Self> {
        let join = Join {
            from: Position::Now,
            presence: self.watches,
            is_home: self.is_home,
        };
        let stay = Stay::new(session, self.side.clone(), join);
        stay.begin(session.identity.name());
        stay
    }

    /// What has to be passed on the way in.
    fn gate(self: &Arc<Self>, identity: Identity) -> Gate {
        let stay = Arc::downgrade(self);
        let (side, shared) = (self.side.clone(), self.shared.clone());
        async move {
            side.loaded_if_ever().await?;
            shared
                .may_read(&identity, &side, Right::Subscribe)
                .map_err(|why| Barred {
                    code: why.code(),
                    message: why.to_string(),
                })?;
            if let Some(stay) = stay.upgrade() {
                stay.begin(identity.name());
            }
            Ok(())
        }
        .boxed()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who is present here by this. In their own room nobody is: they are online, and that is said
    /// elsewhere.
    fn present(&self) -> Option<&Arc<str>> {
        let is_inbox = self.side.room().owner().is_some();
        self.user.as_ref().filter(|_| !is_inbox)
    }

    /// The user counts as present from now on.
    fn begin(&self, name: Option<&str>) {
        let mut state = self.state();
        let State::Outside(role) = *state else {
            return;
        };
        *state = State::Inside(role);
        let room = self.side.room();
        if let Some(user) = self.present() {
            self.shared.here().enter(room, user, name, role, now_ms());
        }
    }

    /// The user counts as present no more.
    pub(super) fn end(&self) {
        let was = std::mem::replace(&mut *self.state(), State::Ended);
        if let (State::Inside(role), Some(user)) = (was, self.present()) {
            self.shared.here().leave(self.side.room(), user, role);
        }
    }

    /// The seat is about to be taken: what is told of the room goes out behind the frame.
    fn on_joined(&self, frame: Option<Bytes>) -> Option<Bytes> {
        if self.watches {
            self.side.welcome();
        }
        let rules = self.side.rules();
        if rules.is_plain() {
            return frame;
        }
        let aside = self.outlet().encode(&told::rules(self.side.room(), &rules));
        match (frame, aside) {
            (Some(frame), Some(aside)) => Some([frame, aside].concat().into()),
            (frame, aside) => frame.or(aside),
        }
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn is_immune(&self) -> bool {
        self.is_immune.load(Ordering::Acquire)
    }

    /// The client has a fresh token. Against the old one no moderator's word counted, perhaps; and
    /// what it had said too much under that may be little now.
    fn renew(&self, identity: &Identity) {
        *self.rests.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let is_immune = is_immune(identity, self.side.room());
        let was_immune = self.is_immune.swap(is_immune, Ordering::AcqRel);
        if was_immune && !is_immune {
            audit::enforce(&self.side);
        }
        let role = identity.shown_role(self.side.room());
        match &mut *self.state() {
            State::Outside(known) => *known = role,
            State::Inside(known) => {
                let was = std::mem::replace(known, role);
                if let Some(user) = self.present() {
                    let (room, name) = (self.side.room(), identity.name());
                    self.shared.here().renew(room, user, name, was, role);
                }
            }
            State::Ended => {}
        }
    }

    pub(super) fn is_home(&self) -> bool {
        self.is_home
    }

    pub(super) fn outlet(&self) -> &Arc<Outlet> {
        self.seats.outlet()
    }

    /// Takes the session out of this room, and tells it so.
    pub(super) fn put_out(&self, why: &Aside) {
        self.end();
        self.put_out.store(true, Ordering::Release);
        if self.seats.leave(self.side.room()) {
            self.outlet().tell(why);
        }
    }

    /// Remembers until when publishing is in vain.
    fn rest(&self, why: &Refusal) {
        // Of the room's rate somebody else may leave something any moment.
        if let Refusal::SlowMode(retry) | Refusal::TooFast(retry) = why {
            let until = Instant::now() + *retry;
            let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
            *rests = Some((until, why.clone()));
        }
    }

    fn rests(&self) -> Option<Refusal> {
        let mut rests = self.rests.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, why) = rests.as_ref()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            *rests = None;
            return None;
        }
        match why {
            // Slow mode may have ended since, or be shorter now.
            Refusal::SlowMode(_) if self.side.rules().slow < left => None,
            Refusal::SlowMode(_) => Some(Refusal::SlowMode(left)),
            _ => Some(Refusal::TooFast(left)),
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.end();
        if self.watches {
            self.side.unwatch();
        }
        self.side.leave(self.number);
    }
}
