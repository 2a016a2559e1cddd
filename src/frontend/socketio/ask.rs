//! What a client's events ask for: to join, leave, say, publish; any other event goes to its room.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::json as object;
use tokio::time::timeout;

use super::assembly::Whole;
use super::client::{Client, Resumed};
use super::connect::position;
use super::packet::Args;
use super::space::Reply;
use super::told::OWN;
use crate::frontend::json::FieldList;
use crate::frontend::record::{self, bare};
use crate::people::Refusal;
use crate::people::fields::{ARGS, ATTACHMENT, EVENT, USERNAME};
use crate::people::session::{Entry, Join};
use crate::relay::entry::{Fields, RoomName};

/// Longest name of an event, and of a client, in bytes.
const NAME_MAX: usize = 256;

/// Longest idempotency key, as elsewhere.
const KEY_MAX: usize = 256;

/// How long events wait for a join before them, while Redis is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// An entry to be published once its room's rules are known, and where its outcome goes.
pub(super) struct Asked {
    entry: Entry,
    reply: Reply,
}

/// Why not: a code for programs and a sentence for people.
type Refused = (&'static str, String);

/// The argument of `join`: a room, or this. Other members are an application's own.
#[derive(Debug, Default, Deserialize)]
struct JoinArg {
    room: Option<String>,
    roomid: Option<String>,
    username: Option<String>,
    from: Option<String>,
    #[serde(default)]
    presence: bool,
}

/// The argument of `say`: a text, or this. Other members are an application's own.
#[derive(Debug, Default, Deserialize)]
struct SayArg {
    text: Option<String>,
    message: Option<String>,
    room: Option<String>,
    key: Option<String>,
}

/// The options of `publish`. A misspelt one would be lost without a word.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct PublishArg {
    key: Option<String>,
}

impl Client {
    pub(super) fn on_event(&mut self, whole: Whole) {
        let Some(at) = self.open(&whole.namespace) else {
            return;
        };
        if let Some(profile) = self.state.profile().cloned() {
            return self.on_profiled(&*profile, &whole);
        }
        let reply = Reply {
            namespace: whole.namespace.as_str().into(),
            ack: whole.ack,
        };
        let read = || match whole.spoilt {
            Some(why) => Err(bad(why)),
            None => Args::of(&whole.json)
                .and_then(|args| Ok((args.name()?, args)))
                .map_err(|unfit| (unfit.code(), unfit.to_string())),
        };
        let (name, args) = match read() {
            Ok(read) => read,
            Err((code, message)) => {
                let error = object!({"code": code, "message": message});
                return self.send_error(at, &reply, &error);
            }
        };
        let asked = match name.as_str() {
            "join" => self.on_join(at, &args, &reply).map(|()| None),
            "leave" => self.on_leave(at, &args, &reply).map(|()| None),
            "tailcast:count" => {
                self.on_count(at, &reply);
                Ok(None)
            }
            "say" => self.said(at, &args).map(Some),
            "publish" => published(&args, self.state.settings.max_fields).map(Some),
            name if name.starts_with(OWN) => {
                Err(("unknown_event", format!("events called {OWN}… are ours")))
            }
            name => self.emitted(at, name, &args, &whole).map(Some),
        };
        match asked {
            Ok(None) => {}
            Ok(Some(entry)) => self.publish(at, Asked { entry, reply }),
            Err((code, message)) => {
                let error = object!({"code": code, "message": message, "event": name});
                self.send_error(at, &reply, &error);
            }
        }
    }

    fn send_error(&self, at: usize, reply: &Reply, error: &serde_json::Value) {
        self.answer(at, reply.error(error));
    }

    fn answer(&self, at: usize, frame: Bytes) {
        self.spaces[at].session.connection().outlet().send(frame);
    }

    fn on_join(&mut self, at: usize, args: &Args<'_>, reply: &Reply) -> Result<(), Refused> {
        let arg = match args.raw(1) {
            None => JoinArg::default(),
            Some(_) => match args.read::<String>(1) {
                Some(room) => JoinArg {
                    room: Some(room),
                    ..JoinArg::default()
                },
                None => args
                    .read(1)
                    .ok_or_else(|| bad("join takes a room, or {room, username, from, presence}"))?,
            },
        };
        let named = arg.room.or(arg.roomid);
        let named = named.map(|name| RoomName::parse(&name)).transpose();
        let named = named.map_err(|error| ("bad_room", error.to_string()))?;
        let username = arg.username.filter(|name| !name.is_empty());
        if username.as_ref().is_some_and(|name| name.len() > NAME_MAX) {
            return Err(bad(&format!("a username has at most {NAME_MAX} bytes")));
        }
        let from = position(arg.from.as_deref())?;
        let space = &mut self.spaces[at];
        let room = named
            .or_else(|| space.current().cloned())
            .ok_or_else(|| bad("name a room"))?;
        if let Some(name) = username {
            space.call(name.into());
        }
        if let Some(head) = space.lane.with(|stamp| stamp.head(&room)) {
            // It's there already; from now on that is where it speaks.
            space.rooms.retain(|other| *other != room);
            space.rooms.push(room.clone());
            let told = object!({"room": room.as_str(), "head": head.to_string()});
            space.tell_rooms();
            space.greet(&self.state, &room);
            if let Some(answer) = reply.with(&told.to_string()) {
                self.answer(at, answer);
            }
            return Ok(());
        }
        let join = Join {
            from,
            presence: arg.presence,
            is_home: false,
        };
        self.join(at, room, join, reply.clone())
    }

    fn join(&mut self, at: usize, room: RoomName, join: Join, reply: Reply) -> Result<(), Refused> {
        let space = &mut self.spaces[at];
        let (done, joined) = tokio::sync::oneshot::channel();
        let (lane, name) = (space.lane.clone(), room.clone());
        let answered = Box::new(move |outcome: Result<_, _>| match outcome {
            Ok(crate::relay::connection::Began { head, .. }) => {
                lane.with(|stamp| stamp.enter(name.clone(), head));
                let told = object!({"room": name.as_str(), "head": head.to_string()});
                let _ = done.send(());
                // Where the client stands goes first: once it has its answer, it's to come back
                // here, too.
                let rooms = bare(record::Kind::Aside, b"");
                let answer = reply.with(&told.to_string()).unwrap_or_default();
                Some([rooms, answer].concat().into())
            }
            Err(error) => {
                let error: crate::relay::connection::NotJoined = error;
                let told = object!({
                    "code": error.code(), "message": error.to_string(), "room": name.as_str(),
                });
                Some(reply.error(&told))
            }
        });
        let begun = space.session.join(room.clone(), join, answered);
        begun.map_err(|error| (error.code(), error.to_string()))?;
        let namespace = space.name.clone();
        // What the client sends next may be meant for that room.
        self.pending = Some(Box::pin(async move {
            match timeout(PATIENCE, joined).await {
                Ok(Ok(())) => Resumed::Joined(namespace, room),
                _ => Resumed::Done,
            }
        }));
        Ok(())
    }

    /// A join is done.
    pub(super) fn on_joined(&mut self, namespace: &str, room: RoomName) {
        let Some(at) = self.open(namespace) else {
            return;
        };
        let space = &mut self.spaces[at];
        if std::mem::take(&mut space.is_makeshift)
            && let Some(home) = space.rooms.first().cloned()
        {
            self.leave(at, &home);
            self.spaces[at].tell_rooms();
        }
        let space = &mut self.spaces[at];
        space.rooms.retain(|other| *other != room);
        space.rooms.push(room.clone());
        space.greet(&self.state, &room);
    }

    fn leave(&mut self, at: usize, room: &RoomName) {
        let space = &mut self.spaces[at];
        space.part(room);
        space.session.leave(room);
        space.rooms.retain(|other| other != room);
        space.lane.with(|stamp| stamp.leave(room));
    }

    fn on_leave(&mut self, at: usize, args: &Args<'_>, reply: &Reply) -> Result<(), Refused> {
        let named = match args.raw(1) {
            None => None,
            Some(_) => Some(
                args.read::<String>(1)
                    .or_else(|| args.read::<JoinArg>(1)?.room)
                    .ok_or_else(|| bad("leave takes a room"))?,
            ),
        };
        let named = named.map(|name| RoomName::parse(&name)).transpose();
        let named = named.map_err(|error| ("bad_room", error.to_string()))?;
        let room = named
            .or_else(|| self.spaces[at].current().cloned())
            .ok_or(("not_in", "this socket is in no room".to_owned()))?;
        if !self.spaces[at].is_in(&room) {
            return Err(("not_in", "this socket is not in that room".to_owned()));
        }
        self.leave(at, &room);
        self.spaces[at].tell_rooms();
        let told = object!({"room": room.as_str()});
        if let Some(answer) = reply.with(&told.to_string()) {
            self.answer(at, answer);
        }
        Ok(())
    }

    /// How many connections there are, on how many nodes.
    fn on_count(&self, at: usize, reply: &Reply) {
        let (nodes, connections) = self.state.people.crowd();
        let told = object!({"connections": connections, "nodes": nodes});
        if let Some(answer) = reply.with(&told.to_string()) {
            self.answer(at, answer);
        }
    }

    fn speaks_in(&self, at: usize) -> Result<RoomName, Refused> {
        let room = self.spaces[at].current().cloned();
        room.ok_or(("not_in", "this socket is in no room; join one".to_owned()))
    }

    fn said(&self, at: usize, args: &Args<'_>) -> Result<Entry, Refused> {
        let said = match args.read::<String>(1) {
            Some(text) => SayArg {
                text: Some(text),
                ..SayArg::default()
            },
            None => args
                .read(1)
                .ok_or_else(|| bad("say takes a text, or {text, room, key}"))?,
        };
        let text = said.text.or(said.message);
        let text = text.ok_or_else(|| bad("say takes a text, or {text, room, key}"))?;
        let room = match said.room {
            Some(room) => RoomName::parse(&room).map_err(|e| ("bad_room", e.to_string()))?,
            None => self.speaks_in(at)?,
        };
        let mut fields = vec![(Bytes::from_static(b"message"), Bytes::from(text))];
        if let Some(name) = self.spaces[at].shown() {
            let name = Bytes::copy_from_slice(name.as_bytes());
            fields.push((Bytes::from_static(USERNAME), name));
        }
        Ok(Entry {
            room,
            fields: fields.into(),
            key: key(said.key)?,
            echo: true,
            socket: None,
        })
    }

    /// Any event: its room's other clients get it as it is.
    fn emitted(
        &self,
        at: usize,
        name: &str,
        args: &Args<'_>,
        whole: &Whole,
    ) -> Result<Entry, Refused> {
        if name.len() > NAME_MAX {
            return Err(bad(&format!(
                "an event's name has at most {NAME_MAX} bytes"
            )));
        }
        let rest = args.rest();
        if !super::packet::placeholders_fit(&rest, whole.attachments.len()) {
            return Err(bad("the event and its attachments don't fit together"));
        }
        let sid = self.spaces[at].lane.with(|stamp| stamp.sid.clone());
        let mut fields = vec![
            (
                Bytes::from_static(EVENT),
                Bytes::copy_from_slice(name.as_bytes()),
            ),
            (Bytes::from_static(ARGS), Bytes::from(rest)),
        ];
        for attachment in &whole.attachments {
            fields.push((Bytes::from_static(ATTACHMENT), attachment.clone()));
        }
        Ok(Entry {
            room: self.speaks_in(at)?,
            fields: fields.into(),
            key: None,
            // The client's own lane leaves it out, also when it's replayed.
            echo: true,
            socket: Some(Bytes::copy_from_slice(sid.as_bytes())),
        })
    }

    fn publish(&mut self, at: usize, asked: Asked) {
        let space = &self.spaces[at];
        let Some(known) = space.session.knows(&asked.entry.room) else {
            return self.publish_now(at, asked);
        };
        let (namespace, asked) = (space.name.clone(), Box::new(asked));
        self.pending = Some(Box::pin(async move {
            known.await;
            Resumed::Asked(namespace, asked)
        }));
    }

    /// The rules of its room are known.
    pub(super) fn on_known(&mut self, namespace: &str, asked: Asked) {
        if let Some(at) = self.open(namespace) {
            self.publish_now(at, asked);
        }
    }

    fn publish_now(&self, at: usize, asked: Asked) {
        let Asked { entry, reply } = asked;
        let room = entry.room.clone();
        self.spaces[at].session.publish(
            entry,
            Box::new(move |outlet, outcome| match outcome {
                Ok(id) => {
                    if let Some(answer) = reply.with(&format!("\"{id}\"")) {
                        outlet.send(answer);
                    }
                }
                Err(refusal) => {
                    let mut error = error_of(&refusal);
                    error["room"] = room.as_str().into();
                    outlet.send(reply.error(&error));
                }
            }),
        );
    }
}

/// `publish`: a room, fields or a text, and options.
fn published(args: &Args<'_>, max_fields: usize) -> Result<Entry, Refused> {
    const FORM: &str = "publish takes a room, fields or a text, and perhaps {key}";
    let room: String = args.read(1).ok_or_else(|| bad(FORM))?;
    let room = RoomName::parse(&room).map_err(|error| ("bad_room", error.to_string()))?;
    let fields: Fields = match args.read::<String>(2) {
        Some(text) => Box::new([(Bytes::from_static(b"message"), Bytes::from(text))]),
        None => {
            let FieldList(fields) = args.read(2).ok_or_else(|| bad(FORM))?;
            if fields.is_empty() {
                return Err(bad("an entry has at least one field"));
            }
            if fields.len() > max_fields {
                let message = format!("an entry has at most {max_fields} fields");
                return Err(("too_many_fields", message));
            }
            fields.into()
        }
    };
    let options = match args.raw(3) {
        // What has no value becomes null on its way.
        None | Some("null") => PublishArg::default(),
        Some(json) => serde_json::from_str(json)
            .map_err(|error| bad(&format!("publish's options can't be taken: {error}")))?,
    };
    Ok(Entry {
        room,
        fields,
        key: key(options.key)?,
        echo: true,
        socket: None,
    })
}

fn key(key: Option<String>) -> Result<Option<Bytes>, Refused> {
    match key {
        Some(key) if !(1..=KEY_MAX).contains(&key.len()) => {
            Err(bad(&format!("`key` has 1 to {KEY_MAX} bytes")))
        }
        key => Ok(key.map(Bytes::from)),
    }
}

fn bad(message: &str) -> Refused {
    ("bad_request", message.to_owned())
}

/// A refusal as clients get it.
fn error_of(refusal: &Refusal) -> serde_json::Value {
    let mut error = object!({"code": refusal.code(), "message": refusal.to_string()});
    if let Some(retry) = refusal.retry() {
        let millis = retry.as_nanos().div_ceil(1_000_000);
        error["retry_ms"] = u64::try_from(millis).unwrap_or(u64::MAX).into();
    }
    error
}
