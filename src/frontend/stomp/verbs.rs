//! What a client that has logged in may ask for: subscriptions, and entries.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::Instant;

use super::farewell::{self, FAREWELLS_MAX};
use super::login;
use super::message::Subscribed;
use super::refused::Refused;
use super::request::{Send, Subscribe};
use super::talk::{Resumed, Talk};
use crate::auth::{Mode, Right};
use crate::frontend::websocket::Dialogue;
use crate::people::session::{Entry, Join, Joined, Published};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::position::Position;

impl Talk {
    /// Begins a subscription. The first of a room joins it; the others share its place.
    pub(super) fn subscribe(
        &mut self,
        asked: Subscribe,
        receipt: Option<Box<str>>,
    ) -> Result<(), Refused> {
        let mode = self.state.auth.settings().mode;
        let room = asked.place.room(self.session.identity().user(), mode)?;
        let (id, from) = (&asked.id, asked.from);
        let subscribed = self.voice.lane.with(|frames| {
            let receipt = receipt.as_deref();
            frames.subscribe(id, &asked.destination, &room, asked.acks, receipt)
        });
        match subscribed {
            Subscribed::First => {}
            Subscribed::Exists => {
                return Err(Refused::bad(format!(
                    "there is a subscription {id} of another destination already; take another id"
                )));
            }
            Subscribed::TooMany => return Err(Refused::many_subscriptions()),
            Subscribed::Shares | Subscribed::Waits if from != Position::Now => {
                return Err(Refused::bad(
                    "this connection is in that room already, so that another subscription of it begins now; replay it over another connection",
                ));
            }
            Subscribed::Shares => {
                if let Some(receipt) = receipt {
                    self.say(self.voice.receipt(&receipt, &[]));
                }
                return Ok(());
            }
            Subscribed::Waits => return Ok(()),
        }
        let join = Join {
            from,
            presence: false,
            // There are no words for being put out of one room, so that it ends the connection.
            is_home: true,
        };
        let joined = self.joined(room.clone());
        self.session.join(room, join, joined)?;
        self.joins = Some(Instant::now() + self.state.relay().publish_timeout());
        Ok(())
    }

    /// What a join's end does: RECEIPTs with the ID to resume from, or ERROR.
    fn joined(&self, room: RoomName) -> Joined {
        let voice = self.voice.clone();
        // Weak, as the outlet may keep the join, and so this.
        let outlet = Arc::downgrade(self.outlet());
        Box::new(move |outcome| {
            let receipts = voice.lane.with(|frames| frames.joined(&room));
            match outcome {
                Ok(began) => {
                    let head = began.head.to_string();
                    let said = receipts.iter();
                    let said = said.map(|receipt| voice.receipt(receipt, &[("last-id", &head)]));
                    let said: Vec<Bytes> = said.collect();
                    (!said.is_empty()).then(|| said.concat().into())
                }
                Err(error) => {
                    if let Some(outlet) = outlet.upgrade() {
                        let receipt = receipts.first().map(AsRef::as_ref);
                        voice.refuse(&outlet, receipt, &Refused::from(&error));
                    }
                    None
                }
            }
        })
    }

    /// Ends a subscription, and leaves its room with the last of it. One that is not there has ended
    /// already: an ERROR would end all the others of this connection with it.
    pub(super) fn unsubscribe(&mut self, id: &str) {
        let ended = self.voice.lane.with(|frames| frames.unsubscribe(id));
        let Some((room, is_last)) = ended else {
            return;
        };
        if is_last {
            self.session.leave(&room);
            // Given up before it was joined; nobody else says so.
            for receipt in self.voice.lane.with(|frames| frames.joined(&room)) {
                self.say(self.voice.receipt(&receipt, &[]));
            }
        }
    }

    /// Publishes entries, all that a transaction has or one alone, once their rooms are known.
    pub(super) fn send(
        &mut self,
        sends: Vec<Send>,
        receipt: Option<Box<str>>,
    ) -> Result<(), Refused> {
        let mode = self.state.auth.settings().mode;
        let mut waits = Vec::new();
        let mut placed = Vec::with_capacity(sends.len());
        for send in sends {
            let room = send
                .target
                .place
                .clone()
                .room(self.session.identity().user(), mode)?;
            waits.extend(self.session.knows(&room));
            placed.push((room, send));
        }
        let name = self.new_name(&placed);
        if waits.is_empty() && name.is_none() {
            self.publish(placed, receipt);
            return Ok(());
        }
        let auth = self.state.auth.clone();
        let known = async move {
            for wait in waits {
                wait.await;
            }
            match name {
                Some(name) => {
                    let identity = auth.identify(&login::named(&name)).await.ok();
                    Resumed::Named(identity, placed, receipt)
                }
                None => Resumed::Sends(placed, receipt),
            }
        };
        self.pending = Some(known.boxed());
        Ok(())
    }

    /// Who a client without a name says it is, where anybody is believed: whoever it says is there.
    fn new_name(&self, sends: &[(RoomName, Send)]) -> Option<String> {
        let identity = self.session.identity();
        let is_anonymous = identity.user().is_none() && !identity.is_server();
        let is_believed = self.state.auth.settings().mode == Mode::None;
        if !is_anonymous || !is_believed {
            return None;
        }
        let mut entering = sends.iter().filter(|(_, send)| send.target.enters);
        entering.find_map(|(_, send)| farewell::sender(send))
    }

    /// Publishes entries, or none of them if it's known already that one may not be.
    pub(super) fn publish(&mut self, sends: Vec<(RoomName, Send)>, receipt: Option<Box<str>>) {
        let identity = self.session.identity();
        let people = &self.state.people;
        let may = sends
            .iter()
            .try_for_each(|(room, _)| people.may_now(identity, room, Right::Publish));
        if let Err(refusal) = may {
            return self.refuse(receipt.as_deref(), &refusal.into());
        }
        if sends.is_empty() {
            if let Some(receipt) = receipt {
                self.say(self.voice.receipt(&receipt, &[]));
            }
            return;
        }
        let outcome = Outcome::of(sends.len(), receipt);
        for (at, (room, send)) in sends.into_iter().enumerate() {
            if send.target.enters {
                self.keep_farewell(&room, &send);
            }
            let done = self.published(at, outcome.clone());
            self.session.publish(entry(room, send), done);
        }
    }

    /// What a publish's end does: RECEIPT once all are stored, or ERROR.
    fn published(&self, at: usize, outcome: Arc<Mutex<Outcome>>) -> Published {
        let voice = self.voice.clone();
        Box::new(move |outlet, stored| {
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match stored {
                Ok(id) => {
                    if let Some((receipt, ids)) = outcome.stored(at, id) {
                        outlet.send(voice.receipt(&receipt, &[("message-id", &ids)]));
                    }
                }
                Err(refusal) => {
                    let refused = Refused::from(refusal);
                    voice.refuse(outlet, outcome.receipt.take().as_deref(), &refused);
                }
            }
        })
    }

    fn keep_farewell(&mut self, room: &RoomName, send: &Send) {
        let Some(farewell) = farewell::of(send) else {
            return;
        };
        let farewell = (room.clone(), farewell);
        if self.farewells.len() < FAREWELLS_MAX && !self.farewells.contains(&farewell) {
            self.farewells.push(farewell);
        }
    }

    /// Publishes what the client leaves behind. Nobody waits for its outcome but a drain.
    pub(super) fn depart(&mut self) {
        for (room, send) in std::mem::take(&mut self.farewells) {
            self.session.publish(entry(room, send), Box::new(|_, _| ()));
        }
    }
}

fn entry(room: RoomName, send: Send) -> Entry {
    Entry {
        room,
        fields: send.fields,
        key: send.key,
        echo: true,
        socket: None,
    }
}

/// How the publishes of one frame ended so far.
struct Outcome {
    receipt: Option<Box<str>>,
    ids: Vec<EntryId>,
    left: usize,
}

impl Outcome {
    fn of(count: usize, receipt: Option<Box<str>>) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Outcome {
            receipt,
            ids: vec![EntryId::ZERO; count],
            left: count,
        }))
    }

    /// One is stored; the receipt and all IDs, if it was the last.
    fn stored(&mut self, at: usize, id: EntryId) -> Option<(Box<str>, String)> {
        if let Some(slot) = self.ids.get_mut(at) {
            *slot = id;
        }
        self.left -= 1;
        let receipt = (self.left == 0).then(|| self.receipt.take())??;
        let ids: Vec<String> = self.ids.iter().map(EntryId::to_string).collect();
        Some((receipt, ids.join(",")))
    }
}
