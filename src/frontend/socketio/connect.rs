//! How a client comes into a namespace: who it is, which rooms, and whether it gets its state back.
//!
//! Everything is held back until all its rooms are joined. Only then it's known whether anything is
//! missing, and the answer goes out before the first entry: the same pid as the client's if nothing
//! is, else a new one.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::assembly::Whole;
use super::client::{Client, Resumed, SPACES_MAX, text};
use super::offset::Place;
use super::packet::{self, Kind, NAMESPACE_MAX};
use super::pid::{Pid, Signer};
use super::sid;
use super::space::{Phase, Space};
use super::stamp::{Stamp, text_frame};
use super::told::{FORMAT, event};
use crate::auth::{AuthError, Credentials, Identity, Right};
use crate::frontend::carrier::Lane;
use crate::frontend::query::SocketioQuery;
use crate::frontend::{is_on, json};
use crate::people::session::{CantJoin, Join};
use crate::relay::close::CloseReason;
use crate::relay::connection::Began;
use crate::relay::entry::RoomName;
use crate::relay::position::Position;

/// What a CONNECT may carry. Other members are an application's own.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ConnectAuth {
    token: Option<String>,
    room: Option<String>,
    roomid: Option<String>,
    rooms: Option<Vec<String>>,
    from: Option<String>,
    presence: Option<serde_json::Value>,
    inbox: Option<serde_json::Value>,
    pid: Option<String>,
    /// Anything, as far as we know.
    offset: Option<Box<RawValue>>,
}

/// Somebody who asks to come in, once it's known who they are.
pub(super) struct Arrival {
    namespace: Arc<str>,
    auth: ConnectAuth,
    who: Result<Identity, AuthError>,
    signer: Signer,
}

/// A room that is to be joined.
struct Wanted {
    room: RoomName,
    from: Position,
    /// Whether there is no coming in without it.
    is_needed: bool,
    is_inbox: bool,
}

/// What somebody wants who comes in.
struct Plan {
    rooms: Vec<Wanted>,
    presence: bool,
    is_makeshift: bool,
    /// The pid to be given again if nothing is missing, and what it says.
    recovering: Option<(String, Pid, Place)>,
}

type Refused = (&'static str, String);

impl Client {
    /// Somebody asks to come in.
    pub(super) fn on_connect(&mut self, whole: Whole) {
        let namespace = whole.namespace.as_str();
        self.end_closed();
        if self.is_taken(namespace) {
            return;
        }
        if !packet::is_namespace(namespace) {
            let message =
                format!("a namespace has at most {NAMESPACE_MAX} bytes, and no control characters");
            return self.refuse(namespace, "bad_namespace", &message);
        }
        if let Some(profile) = self.state.profile().cloned() {
            return self.connect_profiled(&*profile, &whole);
        }
        if self.spaces.len() >= SPACES_MAX {
            let message = format!("a connection has at most {SPACES_MAX} namespaces");
            return self.refuse(namespace, "too_many_namespaces", &message);
        }
        let json = match whole.json.as_str() {
            "" => "{}",
            json => json,
        };
        if !json.starts_with('{') {
            return self.refuse(namespace, "bad_request", "auth is an object");
        }
        let auth: ConnectAuth = match json::read(json.as_bytes()) {
            Ok(auth) => auth,
            Err(error) => {
                let message = format!("auth can't be taken: {error}");
                return self.refuse(namespace, "bad_request", &message);
            }
        };
        let (state, known) = (self.state.clone(), self.hello.who.clone());
        let namespace = namespace.into();
        self.pending = Some(Box::pin(async move {
            let who = match &auth.token {
                Some(token) => state.auth.identify(&Credentials::token(token)).await,
                None => known,
            };
            let signer = state.socketio.signer(&state).await;
            Resumed::Arrived(Box::new(Arrival {
                namespace,
                auth,
                who,
                signer,
            }))
        }));
    }

    /// A test profile has no rooms, and nothing to wait for.
    fn connect_profiled(&mut self, profile: &dyn super::Profile, whole: &Whole) {
        let auth = match whole.json.as_str() {
            "" => "{}",
            json => json,
        };
        let Some(event) = profile.on_connect(&whole.namespace, auth) else {
            let json = "{\"message\":\"Invalid namespace\"}";
            return self.send(&packet::connect_error(&whole.namespace, json));
        };
        let at = self.space_for(whole.namespace.as_str().into(), Identity::nobody());
        let json = serde_json::json!({"sid": sid::public()}).to_string();
        self.send(&packet::write(Kind::Connect, &whole.namespace, None, &json));
        self.send(&packet::write(Kind::Event, &whole.namespace, None, &event));
        self.spaces[at].phase = Phase::Opening;
        self.on_opened(&whole.namespace, true);
    }

    /// A place for a namespace: the transport's own, if nobody has it.
    fn space_for(&mut self, namespace: Arc<str>, identity: Identity) -> usize {
        if self.spaces[0].phase != Phase::Unused {
            let lane = self.spaces[0].lane.carrier().lane(Stamp::default());
            let connection = self.state.relay().connect(lane.clone(), &FORMAT);
            let session = self.state.people.session(connection, Identity::nobody());
            self.spaces.push(Space::new(session, lane));
        }
        let at = match self.spaces[0].phase {
            Phase::Unused => 0,
            _ => self.spaces.len() - 1,
        };
        let space = &mut self.spaces[at];
        space.name = namespace;
        space.expires = identity.expires();
        space.phase = Phase::Opening;
        // Nobody becomes somebody; that can't fail.
        let _ = space.session.renew(identity);
        at
    }

    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival {
            namespace,
            auth,
            who,
            signer,
        } = arrival;
        let identity = match who {
            Ok(identity) => identity,
            // No client's fault: it shall come again.
            Err(error @ AuthError::Unavailable(_)) => {
                return self.close(CloseReason::Internal(error.to_string().into()));
            }
            Err(error) => return self.refuse(&namespace, "unauthenticated", &error.to_string()),
        };
        if identity.expires().is_some_and(|at| at <= Instant::now()) {
            let message = AuthError::Expired.to_string();
            return self.refuse(&namespace, "unauthenticated", &message);
        }
        let plan = match self.plan(&namespace, &auth, &identity, &signer) {
            Ok(plan) => plan,
            Err((code, message)) => return self.refuse(&namespace, code, &message),
        };
        let at = self.space_for(namespace.clone(), identity);
        let opened = self.spaces[at].begin(plan, signer);
        self.pending = Some(Box::pin(async move {
            // Its sender goes with the joins, when the connection ends.
            let is_open = opened.await.unwrap_or(false);
            Resumed::Opened(namespace, is_open)
        }));
    }

    fn plan(
        &self,
        namespace: &str,
        auth: &ConnectAuth,
        identity: &Identity,
        signer: &Signer,
    ) -> Result<Plan, Refused> {
        let query = &self
            .hello
            .query()
            .map_err(|error| (error.code, error.message))?;
        let presence = switch(
            auth.presence.as_ref(),
            query.presence.as_deref(),
            "presence",
        )?;
        let home = &self.state.settings.default_room;
        let most = self.state.relay().settings().max_rooms;
        let recovering = recovery(namespace, auth, identity, signer, presence);
        // More than anybody can be in is nothing that we said.
        if let Some(mut plan) = recovering.filter(|plan| plan.rooms.len() <= most) {
            let is_home = matches!(plan.rooms.as_slice(), [only] if only.room == *home);
            plan.is_makeshift = is_home && named(auth, query).is_empty();
            return Ok(plan);
        }
        let from = position(auth.from.as_deref().or(query.from.as_deref()))?;
        let names = named(auth, query);
        if names.len() > most {
            let message = format!("a connection joins at most {most} rooms");
            return Err(("too_many_rooms", message));
        }
        let mut rooms = Vec::new();
        for name in &names {
            let room = RoomName::parse(name).map_err(|error| ("bad_room", error.to_string()))?;
            if rooms.iter().any(|wanted: &Wanted| wanted.room == room) {
                continue;
            }
            rooms.push(Wanted {
                room,
                from,
                is_needed: true,
                is_inbox: false,
            });
        }
        let is_makeshift = rooms.is_empty() && identity.rights(home).has(Right::Subscribe);
        if is_makeshift {
            rooms.push(Wanted {
                room: home.clone(),
                from,
                is_needed: true,
                is_inbox: false,
            });
        }
        let inbox = match inbox(auth, query)? {
            Some(from) => identity.user().map(|user| (user.room().clone(), from)),
            None => None,
        };
        if let Some((room, from)) = inbox.filter(|(room, _)| rooms.iter().all(|w| w.room != *room))
        {
            rooms.push(Wanted {
                room,
                from,
                is_needed: false,
                is_inbox: true,
            });
        }
        Ok(Plan {
            rooms,
            presence,
            is_makeshift,
            recovering: None,
        })
    }
}

/// What a client that brings a pid gets back, if it may have it.
fn recovery(
    namespace: &str,
    auth: &ConnectAuth,
    identity: &Identity,
    signer: &Signer,
    presence: bool,
) -> Option<Plan> {
    let text = auth.pid.as_deref()?;
    let pid = signer.open(text)?;
    let user = identity.user().map(|user| user.as_str());
    if pid.namespace != namespace || pid.user.as_deref() != user {
        return None;
    }
    let offset: Option<String> = auth
        .offset
        .as_ref()
        .and_then(|offset| serde_json::from_str(offset.get()).ok());
    let place = Place::of(&pid, offset.as_deref());
    // Who may not read what they have missed begins anew.
    let may = |(room, _): &(RoomName, _)| {
        let rights = identity.rights(room);
        rights.has(Right::History) || !rights.has(Right::Subscribe)
    };
    if !place.rooms.iter().all(may) {
        return None;
    }
    let rooms = place.rooms.iter().map(|(room, id)| Wanted {
        room: room.clone(),
        from: Position::After(*id),
        is_needed: pid.rooms.iter().any(|(first, _)| first == room),
        is_inbox: room.owner().is_some() && room.owner() == user,
    });
    Some(Plan {
        rooms: rooms.collect(),
        presence,
        is_makeshift: false,
        recovering: Some((text.to_owned(), pid, place)),
    })
}

/// The rooms that a client names, in its auth or else in its URL.
fn named(auth: &ConnectAuth, query: &SocketioQuery) -> Vec<String> {
    let one = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let mut names: Vec<String> = auth.rooms.clone().unwrap_or_default();
    names.extend(one(&auth.room).or_else(|| one(&auth.roomid)));
    if names.is_empty() {
        names.extend(one(&query.room).or_else(|| one(&query.roomid)));
    }
    names
}

pub(super) fn position(text: Option<&str>) -> Result<Position, Refused> {
    let from = text.map(str::parse).transpose();
    Ok(from
        .map_err(|error: crate::relay::position::PositionError| ("bad_from", error.to_string()))?
        .unwrap_or_default())
}

/// A switch in auth, or else in the URL.
fn switch(
    value: Option<&serde_json::Value>,
    query: Option<&str>,
    name: &str,
) -> Result<bool, Refused> {
    match value {
        Some(value) => Ok(matches!(value.as_bool(), Some(true)) || *value == 1 || *value == "1"),
        None => is_on(query, name).map_err(|error| (error.code, error.message)),
    }
}

/// Where a known user's own room begins, if it's to come at all.
fn inbox(auth: &ConnectAuth, query: &SocketioQuery) -> Result<Option<Position>, Refused> {
    let text = match &auth.inbox {
        Some(serde_json::Value::String(text)) => Some(text.clone()),
        Some(serde_json::Value::Bool(is_wanted)) => Some(u8::from(*is_wanted).to_string()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        _ => query.inbox.clone(),
    };
    match text.as_deref() {
        None | Some("1" | "true") => Ok(Some(Position::Now)),
        Some("" | "0" | "false") => Ok(None),
        from => position(from).map(Some),
    }
}

impl Space {
    /// Begins to join all rooms. What is received says whether the client is in.
    fn begin(&mut self, plan: Plan, signer: Signer) -> oneshot::Receiver<bool> {
        let (done, opened) = oneshot::channel();
        self.lane.cork();
        self.is_makeshift = plan.is_makeshift;
        self.rooms = plan
            .rooms
            .iter()
            .filter(|wanted| !wanted.is_inbox)
            .map(|wanted| wanted.room.clone())
            .collect();
        let user = self.session.identity().user();
        let opening = Arc::new(Opening {
            lane: self.lane.clone(),
            namespace: self.name.clone(),
            user: user.map(|user| user.as_str().to_owned()),
            signer,
            recovering: plan.recovering,
            joining: Mutex::new(Joining {
                left: plan.rooms.len(),
                rooms: Vec::new(),
                done: Some(done),
            }),
        });
        if plan.rooms.is_empty() {
            opening.finish(Vec::new(), opening.joining().done.take());
        }
        let is_of_connect = |wanted: &&Wanted| wanted.is_needed && !wanted.is_inbox;
        let is_alone = plan.rooms.iter().filter(is_of_connect).count() == 1;
        for (at, wanted) in plan.rooms.into_iter().enumerate() {
            let join = Join {
                from: wanted.from,
                presence: plan.presence && !wanted.is_inbox,
                // Put out of one of several, the client still has what it came for.
                is_home: is_alone && is_of_connect(&&wanted),
            };
            let Wanted {
                room, is_needed, ..
            } = wanted;
            let (settled, name) = (opening.clone(), room.clone());
            let joined = self.session.join(
                room.clone(),
                join,
                Box::new(move |outcome| {
                    let outcome = outcome.map_err(|error| (error.code(), error.to_string()));
                    settled.settle(at, name, is_needed, outcome);
                    None
                }),
            );
            if let Err(error) = joined {
                opening.settle(at, room, is_needed, Err(cant(&error)));
            }
        }
        opened
    }
}

fn cant(error: &CantJoin) -> Refused {
    (error.code(), error.to_string())
}

/// A namespace whose rooms are being joined.
struct Opening {
    lane: Arc<Lane<Stamp>>,
    namespace: Arc<str>,
    user: Option<String>,
    signer: Signer,
    recovering: Option<(String, Pid, Place)>,
    joining: Mutex<Joining>,
}

struct Joining {
    left: usize,
    rooms: Vec<Joined>,
    done: Option<oneshot::Sender<bool>>,
}

/// What became of one room: its place in the order, and whether there is no coming in without it.
type Joined = (usize, RoomName, bool, Result<Began, Refused>);

impl Opening {
    fn joining(&self) -> std::sync::MutexGuard<'_, Joining> {
        self.joining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One room is joined, or not. The last one opens the namespace.
    fn settle(&self, at: usize, room: RoomName, is_needed: bool, outcome: Result<Began, Refused>) {
        let mut joining = self.joining();
        joining.rooms.push((at, room, is_needed, outcome));
        joining.left -= 1;
        if joining.left == 0 {
            let mut rooms = std::mem::take(&mut joining.rooms);
            let done = joining.done.take();
            drop(joining);
            rooms.sort_by_key(|(at, ..)| *at);
            self.finish(rooms, done);
        }
    }

    fn finish(&self, rooms: Vec<Joined>, done: Option<oneshot::Sender<bool>>) {
        let refused = rooms.iter().find_map(|(_, _, is_needed, outcome)| {
            let refused = outcome.as_ref().err();
            refused.filter(|_| *is_needed)
        });
        let is_open = refused.is_none();
        let first = match refused {
            Some((code, message)) => {
                let data = serde_json::json!({"message": message, "data": {"code": code}});
                text(&packet::connect_error(&self.namespace, &data.to_string())).to_vec()
            }
            None => self.open(&rooms),
        };
        // If the socket is gone, the outlet finds it out.
        let _ = self.lane.uncork(&first);
        if let Some(done) = done {
            let _ = done.send(is_open);
        }
    }

    /// The first frames of an open namespace.
    fn open(&self, rooms: &[Joined]) -> Vec<u8> {
        let is_whole = |(_, _, _, outcome): &Joined| {
            let began = outcome.as_ref();
            began.is_ok_and(|began| began.gap.is_none() && began.is_whole)
        };
        let recovered = self.recovering.as_ref();
        let recovered = recovered.filter(|_| rooms.iter().all(is_whole));
        let began: Vec<_> = rooms
            .iter()
            .filter_map(|(_, room, _, outcome)| Some((room.clone(), outcome.as_ref().ok()?.head)))
            .collect();
        let (text, pid, name) = match recovered {
            Some((text, pid, place)) => (text.clone(), pid.clone(), place.name.clone()),
            None => {
                let pid = Pid {
                    sid: sid::public(),
                    namespace: self.namespace.to_string(),
                    user: self.user.clone(),
                    rooms: began.clone(),
                };
                (self.signer.sign(&pid), pid, None)
            }
        };
        let json = serde_json::json!({"sid": pid.sid, "pid": text}).to_string();
        let mut out = Vec::new();
        let packet = packet::write(Kind::Connect, &self.namespace, None, &json);
        text_frame(&[packet.as_bytes()], &mut out);
        self.lane.with(|stamp| {
            stamp.namespace = self.namespace.clone();
            stamp.sid = pid.sid.into();
            stamp.first = pid.rooms.into_iter().collect();
            stamp.place = Place {
                name,
                rooms: began.into_iter().collect(),
            };
            for (_, room, _, outcome) in rooms {
                if let Err((code, message)) = outcome {
                    let left = serde_json::json!({
                        "room": room.as_str(), "code": code, "message": message,
                    });
                    let args = event("left", left.to_string().as_bytes());
                    stamp.told(&args, &mut out);
                }
            }
            stamp.rooms(&mut out);
        });
        out
    }
}
