//! What is asked by single requests: publishes and history under somebody's identity, and who is
//! where.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::timeout;

use super::board::NodeId;
use super::fields::{Mark, Notice};
use super::here::read_user;
use super::publish::{is_immune, refusal};
use super::roster::Present;
pub use super::rules::Hold;
use super::wire::Message;
use super::{People, Refusal, Shared, now_ms};
use crate::auth::{Identity, Right, UserName};
use crate::relay::entry::{EntryId, Fields, RoomName};
use crate::relay::hub::{HistoryPage, HistoryQuery};
use crate::relay::log::LogError;

/// Users whose names are compared to count a room's people, where they are on several nodes. Above,
/// its roster is kept.
const COMPARED_MAX: u64 = 1_000;

/// Who is in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// How many users.
    pub count: usize,
    /// Those of them that come first by name.
    pub users: Vec<Present>,
}

/// Where a user is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// Connections, over all nodes.
    pub devices: u32,
    /// The rooms they are in, by name.
    pub rooms: BTreeSet<RoomName>,
}

/// What moderators have done to a user in a room, as it still holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// They may not be there.
    pub banned: Option<Hold>,
    /// They may not publish.
    pub muted: Option<Hold>,
}

/// A room in a list of rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub room: RoomName,
    /// How many users are in it.
    pub count: usize,
    /// Its newest entry.
    pub last: Option<EntryId>,
    /// What it's about.
    pub topic: Option<String>,
}

impl People {
    /// Publishes one entry. Waits for its outcome.
    pub async fn publish(
        &self,
        identity: &Identity,
        room: &RoomName,
        fields: Fields,
        key: Option<Bytes>,
    ) -> Result<EntryId, Refusal> {
        self.store(identity, room, fields, Mark::None, key).await
    }

    /// Tells a room that somebody came or left. Waits for its outcome.
    pub async fn announce(
        &self,
        identity: &Identity,
        room: &RoomName,
        notice: Notice,
    ) -> Result<EntryId, Refusal> {
        let fields = Fields::default();
        self.store(identity, room, fields, Mark::Notice(notice), None)
            .await
    }

    async fn store(
        &self,
        identity: &Identity,
        room: &RoomName,
        fields: Fields,
        mark: Mark,
        key: Option<Bytes>,
    ) -> Result<EntryId, Refusal> {
        let side = self.shared.side(room);
        side.known_within(self.shared.patience()).await?;
        let admitted = self
            .shared
            .admit(identity, None, &side, fields, mark, key)?;
        let outcome = self.shared.relay.publish(admitted.publish).await;
        outcome.map_err(|error| refusal(&admitted.kinds, error))
    }

    /// Shows something to everybody who is in the room now, on all nodes. Not stored.
    pub async fn whisper(
        &self,
        identity: &Identity,
        room: &RoomName,
        fields: Fields,
        json: String,
    ) -> Result<(), Refusal> {
        let side = self.shared.side(room);
        side.known_within(self.shared.patience()).await?;
        let admitted = self
            .shared
            .admit(identity, None, &side, fields, Mark::None, None)?;
        if !admitted.kinds.is_empty() {
            side.take_pace().map_err(Refusal::TooFast)?;
        }
        let message = Message::Ephemeral { except: None, json };
        self.shared.board.whisper(room, message.encode());
        Ok(())
    }

    /// Reads a page of history.
    pub async fn history(
        &self,
        identity: &Identity,
        room: &RoomName,
        query: HistoryQuery,
    ) -> Result<HistoryPage, Refusal> {
        let side = self.shared.side(room);
        side.looked_up(self.shared.patience()).await?;
        self.shared.may_read(identity, &side, Right::History)?;
        Ok(self.shared.relay.history(room, query).await?)
    }

    /// Whether somebody may do this in a room, and be there at all; waits until that is known.
    pub async fn may(
        &self,
        identity: &Identity,
        room: &RoomName,
        right: Right,
    ) -> Result<(), Refusal> {
        let side = self.shared.side(room);
        side.looked_up(self.shared.patience()).await?;
        self.shared.may_read(identity, &side, right)
    }

    /// The same, as far as it's known without waiting.
    pub fn may_now(
        &self,
        identity: &Identity,
        room: &RoomName,
        right: Right,
    ) -> Result<(), Refusal> {
        let side = self.shared.side(room);
        self.shared.may_read(identity, &side, right)
    }

    /// What holds against somebody in a room; waits until that is known.
    pub async fn standing(
        &self,
        identity: &Identity,
        room: &RoomName,
    ) -> Result<Standing, Refusal> {
        let Some(user) = identity.user().filter(|_| !is_immune(identity, room)) else {
            return Ok(Standing::default());
        };
        let side = self.shared.side(room);
        side.looked_up(self.shared.patience()).await?;
        let (rules, now) = (side.rules(), now_ms());
        Ok(Standing {
            banned: rules.ban_of(user.as_str(), now),
            muted: rules.mute_of(user.as_str(), now),
        })
    }

    /// Who is in a room: everybody's number, and some by name.
    pub async fn presence(
        &self,
        identity: &Identity,
        room: &RoomName,
        limit: usize,
    ) -> Result<Presence, Refusal> {
        self.may(identity, room, Right::Presence).await?;
        let side = self.shared.side(room);
        let (users, count) = self
            .shared
            .in_time(side.present(&self.shared, limit))
            .await?;
        Ok(Presence { count, users })
    }

    /// Where a user is. Only they themselves, and back ends, may ask.
    pub async fn whereabouts(
        &self,
        identity: &Identity,
        user: &UserName,
    ) -> Result<Whereabouts, Refusal> {
        let is_self = identity.user() == Some(user);
        if !is_self && !identity.is_server() && !self.trusts_everybody(identity) {
            return Err(Refusal::NotServer);
        }
        let nodes = self.shared.nodes_known().await?;
        let records = self.shared.board.user(user.as_str(), &nodes).await?;
        let mut found = Whereabouts::default();
        for (devices, rooms) in records
            .iter()
            .flatten()
            .filter_map(|record| read_user(record))
        {
            found.devices += devices;
            found.rooms.extend(rooms);
        }
        Ok(found)
    }

    /// A page of the rooms that this identity may follow, and where the next page begins; 0 at the
    /// end.
    pub async fn rooms(
        &self,
        identity: &Identity,
        cursor: u64,
        limit: usize,
    ) -> Result<(Vec<Listed>, u64), Refusal> {
        let (mut rooms, next) = self.shared.board.rooms(cursor, limit).await?;
        rooms.retain(|room| identity.rights(room).has(Right::Subscribe));
        let newest = HistoryQuery {
            after: None,
            before: None,
            limit: 1,
            newest_first: true,
        };
        let newest = rooms
            .iter()
            .map(|room| self.shared.relay.history(room, newest));
        let topics = self.shared.board.rule(&rooms, "topic");
        let (counts, newest, topics) =
            tokio::join!(self.shared.counts(&rooms), join_all(newest), topics);
        let (counts, topics) = (counts?, topics?);
        let mut listed = Vec::with_capacity(rooms.len());
        let rows = rooms.into_iter().zip(counts).zip(newest).zip(topics);
        for (((room, count), newest), topic) in rows {
            listed.push(Listed {
                last: newest?.entries.first().map(|entry| entry.id),
                room,
                count,
                topic,
            });
        }
        Ok((listed, next))
    }

    /// The nodes that live, and what each says of itself as JSON. Only back ends may ask.
    pub async fn nodes(&self, identity: &Identity) -> Result<Vec<(NodeId, Bytes)>, Refusal> {
        let known = self.nodes_now(identity)?;
        if !known.is_empty() {
            return Ok(known);
        }
        self.shared.nodes_known().await?;
        self.nodes_now(identity)
    }

    /// The same, without waiting: none if this node has not asked yet.
    pub fn nodes_now(&self, identity: &Identity) -> Result<Vec<(NodeId, Bytes)>, Refusal> {
        if !identity.is_server() && !self.trusts_everybody(identity) {
            return Err(Refusal::NotServer);
        }
        Ok(self.shared.nodes.borrow().living.clone())
    }

    /// Whether this identity has all rights where nobody is checked at all.
    fn trusts_everybody(&self, identity: &Identity) -> bool {
        identity.expires().is_none() && identity.rights(&RoomName::audit()).has(Right::Moderate)
    }
}

impl Shared {
    /// How many users are in each of these rooms.
    pub(super) async fn counts(
        self: &Arc<Self>,
        rooms: &[RoomName],
    ) -> Result<Vec<usize>, Refusal> {
        let nodes = self.nodes_known().await?;
        let sizes = self.board.sizes(rooms, &nodes).await?;
        let mut counts = Vec::with_capacity(rooms.len());
        for (room, sizes) in rooms.iter().zip(sizes) {
            let total: u64 = sizes.iter().sum();
            let on_several = sizes.iter().filter(|size| **size > 0).count() > 1;
            counts.push(if !on_several {
                usize::try_from(total).unwrap_or(usize::MAX)
            } else if total <= COMPARED_MAX {
                let mut users = std::collections::HashSet::new();
                for (node, _) in nodes.iter().zip(&sizes).filter(|(_, size)| **size > 0) {
                    let members = self.board.members(room, node).await?;
                    users.extend(members.into_iter().map(|(user, _)| user));
                }
                users.remove(super::here::SEQ);
                users.len()
            } else {
                let side = self.side(room);
                self.in_time(side.present(self, 0)).await?.1
            });
        }
        Ok(counts)
    }

    /// Waits until it's known which nodes live.
    async fn nodes_known(&self) -> Result<Vec<NodeId>, Refusal> {
        let mut nodes = self.nodes.subscribe();
        let known = nodes.wait_for(|nodes| nodes.as_of.is_some());
        // The sender lives as long as this.
        let _ = self.in_time(known).await?;
        Ok(self.living())
    }

    /// What can't be known while Redis is away is waited for as long as a publish is.
    async fn in_time<T>(&self, known: impl Future<Output = T>) -> Result<T, Refusal> {
        timeout(self.patience(), known).await.map_err(|_| {
            let unknown = || LogError::Unavailable("who is where is not known yet".to_owned());
            let health = self.relay.health();
            Refusal::Log(health.err().unwrap_or_else(unknown))
        })
    }
}
