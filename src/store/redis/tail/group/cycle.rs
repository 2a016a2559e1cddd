//! One cycle over a group: rooms that need it are read alone, the others together, and then the
//! witnesses are looked up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::time::Instant;

use super::super::{Order, Room, add, deliver, hand_over, patience};
use crate::relay::entry::{Entry, EntryId};
use crate::relay::log::{LogError, Next, Read};
use crate::store::redis::connect::ask;
use crate::store::redis::health::Health;
use crate::store::redis::reply;
use crate::store::redis::size::ReadSize;

/// How long Redis holds a read back. Short, since a room that joins waits for it.
const BLOCK: Duration = Duration::from_millis(200);

/// How long an answer may take beyond that.
const ANSWER: Duration = Duration::from_secs(2);

/// Entries per stream in one read.
const COUNT: usize = 100;

/// Quiet rooms whose witness is looked up per cycle: all of a full group every few seconds.
const QUIET: usize = 8;

/// Rooms read alone per cycle: those that are new bring whole windows.
const ALONE: usize = 16;

/// How long the answer to those may take.
const ALONE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a group in which every room is in trouble waits.
const IDLE: Duration = Duration::from_millis(100);

/// The rooms of a group.
pub(super) struct Members {
    health: Arc<Health>,
    /// Rooms read alone in the next cycle: fewer after a connection was lost under them.
    alone: ReadSize,
    members: Vec<Member>,
    /// Where the rotation of quiet rooms goes on.
    turn: usize,
    /// Where the rotation of rooms read alone goes on.
    turn_alone: usize,
}

struct Member {
    id: u64,
    room: Room,
    /// To be read alone, without waiting: it's new, was in trouble, or has more.
    alone: bool,
    /// In trouble: left out until then.
    retry_at: Option<Instant>,
}

impl Member {
    fn trouble(&mut self, error: &LogError) {
        self.room.feed.on_error(error);
        self.retry_at = Some(Instant::now() + patience(error));
        self.alone = true;
    }
}

impl Members {
    /// None yet.
    pub(super) fn new(health: Arc<Health>) -> Self {
        Members {
            health,
            alone: ReadSize::new(ALONE),
            members: Vec::new(),
            turn: 0,
            turn_alone: 0,
        }
    }

    /// A room comes or goes.
    pub(super) fn apply(&mut self, order: Order) {
        match order {
            Order::Join(id, room) => self.members.push(Member {
                id,
                room,
                alone: true,
                retry_at: None,
            }),
            Order::Leave(id) => self.members.retain(|member| member.id != id),
        }
    }

    /// On a new connection nothing is sure.
    pub(super) fn all_alone(&mut self) {
        for member in &mut self.members {
            member.alone = true;
        }
    }

    /// Tells every room.
    pub(super) fn on_error(&self, error: &LogError) {
        for member in &self.members {
            member.room.feed.on_error(error);
        }
    }

    /// One cycle; a pause if there is nothing to wait for on the connection.
    pub(super) async fn cycle(
        &mut self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Option<Duration>, LogError> {
        let now = Instant::now();
        for member in &mut self.members {
            if member.retry_at.is_some_and(|at| at <= now) {
                member.retry_at = None;
            }
        }
        self.read_alone(connection).await?;
        let hurry = (self.members.iter()).any(|member| member.alone && member.retry_at.is_none());
        // A key can stand only once in a read: a second tail of the same room is read alone.
        let mut together: HashMap<Bytes, (usize, EntryId)> = HashMap::new();
        for (index, member) in self.members.iter_mut().enumerate() {
            if member.alone {
                continue;
            }
            match member.room.feed.next() {
                Next::Read { after } if !together.contains_key(&member.room.key) => {
                    together.insert(member.room.key.clone(), (index, after));
                }
                _ => member.alone = true,
            }
        }
        if together.is_empty() {
            return Ok((!hurry).then_some(IDLE));
        }
        self.read_together(connection, &together, hurry).await?;
        Ok(None)
    }

    async fn read_alone(&mut self, connection: &mut MultiplexedConnection) -> Result<(), LogError> {
        let mut pipe = Pipeline::new();
        let mut asked = Vec::new();
        let count = self.members.len();
        let most = self.alone.of(ALONE);
        let first = self.turn_alone;
        for index in (0..count).map(|offset| (first + offset) % count) {
            let member = &self.members[index];
            if member.alone && member.retry_at.is_none() {
                let next = member.room.feed.next();
                let count = add(&mut pipe, &member.room, next);
                asked.push((index, next, count));
                self.turn_alone = index + 1;
                if asked.len() == most {
                    break;
                }
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let values = match ask(connection, &pipe, ALONE_TIMEOUT).await {
            Ok(values) => values,
            Err(error) => {
                self.alone.lost(asked.len(), Instant::now());
                // With others beside it, it's not known to be this room's entry.
                let least = if asked.len() > 1 { 2 } else { 1 };
                for (index, _, count) in asked {
                    let room = &self.members[index].room;
                    room.lost(&self.health, count.max(least), &error);
                }
                return Err(error);
            }
        };
        self.alone.answered(Instant::now());
        let mut values = values.into_iter();
        for (index, next, count) in asked {
            let replies = match next {
                Next::Survey { .. } => 2,
                Next::Read { .. } => 1,
            };
            let answer: Vec<_> = values.by_ref().take(replies).collect();
            let member = &mut self.members[index];
            match hand_over(&member.room, next, count, &mut answer.into_iter()) {
                Ok(more) => member.alone = more,
                Err(error) => member.trouble(&error),
            }
        }
        Ok(())
    }

    async fn read_together(
        &mut self,
        connection: &mut MultiplexedConnection,
        together: &HashMap<Bytes, (usize, EntryId)>,
        hurry: bool,
    ) -> Result<(), LogError> {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("XREAD");
        if !hurry {
            pipe.arg("BLOCK").arg(BLOCK.as_millis() as u64);
        }
        let rooms = together.values().map(|(index, _)| *index);
        let sizes = rooms
            .clone()
            .map(|index| self.members[index].room.size(COUNT));
        let count = sizes.min().unwrap_or(COUNT);
        pipe.arg("COUNT").arg(count).arg("STREAMS");
        for key in together.keys() {
            pipe.arg(key.as_ref());
        }
        for (_, after) in together.values() {
            pipe.arg(after.to_string());
        }
        let answer = ask(connection, &pipe, BLOCK + ANSWER).await;
        let value = match answer {
            Ok(mut values) => values.pop(),
            Err(error) => {
                self.lost_together(rooms, count, &error);
                return Err(error);
            }
        };
        let Ok(streams) = reply::streams(value.unwrap_or_default()) else {
            // One key spoils the answer for all. Read alone, each gets its own.
            for (index, _) in together.values() {
                self.members[*index].alone = true;
            }
            return Ok(());
        };
        let mut reads: Vec<(usize, EntryId, Vec<Entry>)> = Vec::new();
        let mut seen = HashSet::new();
        for (key, entries) in streams {
            if let Some((index, after)) = together.get(&key)
                && seen.insert(*index)
            {
                reads.push((*index, *after, entries));
            }
        }
        for offset in 0..self.members.len() {
            if reads.len() >= seen.len() + QUIET {
                break;
            }
            let index = (self.turn + offset) % self.members.len();
            let quiet = together.values().find(|(other, _)| *other == index);
            if let Some((_, after)) = quiet
                && !seen.contains(&index)
            {
                reads.push((index, *after, Vec::new()));
            }
        }
        self.turn = self.turn.wrapping_add(QUIET) % self.members.len().max(1);
        let rooms: Vec<usize> = reads.iter().map(|(index, ..)| *index).collect();
        let done = self.witness(connection, reads).await;
        if let Err(error) = &done {
            self.lost_together(rooms.into_iter(), count, error);
        }
        done
    }

    /// The connection was lost under what concerned all of these rooms. Read alone, on the next one,
    /// each comes out of it, however much all of them have together.
    fn lost_together(&self, rooms: impl Iterator<Item = usize>, count: usize, error: &LogError) {
        for index in rooms {
            let room = &self.members[index].room;
            room.lost(&self.health, count.max(2), error);
        }
    }

    /// Hands over reads once their witnesses are looked up. Should the connection break first,
    /// nothing was handed over, and nothing is lost.
    async fn witness(
        &mut self,
        connection: &mut MultiplexedConnection,
        reads: Vec<(usize, EntryId, Vec<Entry>)>,
    ) -> Result<(), LogError> {
        let mut pipe = Pipeline::with_capacity(reads.len());
        for (index, after, _) in &reads {
            let cursor = after.to_string();
            let key = self.members[*index].room.key.as_ref();
            pipe.cmd("XRANGE").arg(key).arg(&cursor).arg(&cursor);
        }
        let values = ask(connection, &pipe, ANSWER).await?;
        for ((index, after, entries), value) in reads.into_iter().zip(values) {
            let member = &mut self.members[index];
            let cursor_entry = match reply::entries(value) {
                Ok(mut found) => found.pop(),
                Err(error) => {
                    member.trouble(&error);
                    continue;
                }
            };
            member.room.answered();
            let read = Read {
                after,
                cursor_entry,
                entries,
            };
            member.alone = deliver(member.room.feed.as_ref(), read);
        }
        Ok(())
    }
}
