//! One client of any protocol: its rooms, its publishes, its way out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use smallvec::SmallVec;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::entry::{EntryId, Fields, RoomName};
use super::format::Gap;
use super::hub::Relay;
use super::log::{Append, AppendDone, AppendError, Lane, Limit, LogError};
use super::outlet::Outlet;
use super::position::Position;
use super::registry::Membership;
use super::room::Start;

/// A client's connection. Dropping it leaves every room.
pub struct Connection {
    relay: Arc<Relay>,
    seats: Seats,
}

/// A connection's places in rooms, as others may hold them: to send it something, or to show it the
/// door. It keeps no connection open.
#[derive(Clone)]
pub struct Seats {
    outlet: Arc<Outlet>,
    rooms: Arc<Mutex<Rooms>>,
}

/// An entry to be published.
#[derive(Debug, Clone)]
pub struct Publish {
    /// Where to.
    pub room: RoomName,
    /// Its fields, at least one.
    pub fields: Fields,
    /// Repeats under the same key are stored once.
    pub key: Option<Bytes>,
    /// Rates that must let it pass.
    pub limits: Box<[Limit]>,
    /// Whether it waits with the others.
    pub lane: Lane,
    /// Whether the connection that publishes it gets it back like everybody.
    pub echo: bool,
}

impl Publish {
    /// An entry that nothing special is to happen with.
    pub fn new(room: RoomName, fields: Fields) -> Self {
        Publish {
            room,
            fields,
            key: None,
            limits: Box::default(),
            lane: Lane::Usual,
            echo: true,
        }
    }

    pub(super) fn append(self, deadline: Instant, done: AppendDone) -> Append {
        Append {
            room: self.room,
            fields: self.fields,
            key: self.key,
            limits: self.limits,
            lane: self.lane,
            deadline,
            done,
        }
    }
}

/// Rooms a connection is in, and those it joins, with the join's task. A handle is let go of when
/// its task is done: it would keep the task's memory.
type Rooms = SmallVec<[(RoomName, Option<AbortHandle>); 1]>;

/// Where a join begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Began {
    /// The ID to resume from even if nothing ever arrives: the room's head for a join from now on,
    /// else what the replay begins after.
    pub head: EntryId,
    /// What is missing between the position asked for and that. It's told before anything else.
    pub gap: Option<Gap>,
    /// Whether nothing is missing from there to the room's head, as far as can be seen now.
    pub is_whole: bool,
}

/// Called once when a join has its cursor, or failed. The frame it returns goes out before the
/// room's first entry.
pub type Joined = Box<dyn FnOnce(Result<Began, NotJoined>) -> Option<Bytes> + Send>;

/// What a join has to pass before anything else. It may take its time.
pub type Gate = BoxFuture<'static, Result<(), NotJoined>>;

/// A gate that stays shut: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Barred {
    /// Part of the client contract.
    pub code: &'static str,
    /// Why.
    pub message: String,
}

/// A join that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotJoined {
    /// The log could not do it.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its gate stayed shut.
    #[error(transparent)]
    Barred(#[from] Barred),
}

impl NotJoined {
    /// A word for programs, part of the client contract.
    pub fn code(&self) -> &'static str {
        match self {
            NotJoined::Log(error) => error.code(),
            NotJoined::Barred(barred) => barred.code,
        }
    }
}

/// Called once with a publish's outcome.
pub type Published = Box<dyn FnOnce(&Arc<Outlet>, Result<EntryId, AppendError>) + Send>;

/// A join that can't be begun.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Already there, or about to be.
    #[error("this socket is in that room already")]
    AlreadyIn,
    /// `--max-rooms` reached.
    #[error("a socket is in at most {0} rooms")]
    TooMany(usize),
}

impl Connection {
    pub(super) fn new(relay: Arc<Relay>, outlet: Arc<Outlet>) -> Self {
        relay.stats().connections.add(1);
        Connection {
            relay,
            seats: Seats {
                outlet,
                rooms: Arc::default(),
            },
        }
    }

    /// Its way out.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.seats.outlet
    }

    /// Its places in rooms.
    pub fn seats(&self) -> &Seats {
        &self.seats
    }

    /// Begins to join a room. While Redis is away the join waits. `watches` asks to be told who is
    /// there.
    pub fn join(
        &self,
        room: RoomName,
        from: Position,
        watches: bool,
        gate: Option<Gate>,
        joined: Joined,
    ) -> Result<(), JoinError> {
        let mut rooms = self.seats.rooms();
        if rooms.iter().any(|(name, _)| *name == room) {
            return Err(JoinError::AlreadyIn);
        }
        let limit = self.relay.settings().max_rooms;
        if rooms.len() >= limit {
            return Err(JoinError::TooMany(limit));
        }
        let membership = self.relay.registry().enter(&room);
        let room = membership.room().name().clone();
        let name = room.clone();
        let Seats {
            outlet,
            rooms: list,
        } = self.seats.clone();
        outlet.begin_join(&room);
        let task = tokio::spawn(async move {
            let start = enter(&membership, from, gate).await;
            // Held to the end, so that a leave comes either before this or after it.
            let mut rooms = list.lock().unwrap_or_else(PoisonError::into_inner);
            // Left meanwhile; and if it's joined anew, that is another task's.
            let is_own = |task: &Option<AbortHandle>| {
                let task = task.as_ref().map(AbortHandle::id);
                task == tokio::task::try_id()
            };
            let mut joining = rooms.iter_mut();
            let Some((_, task)) = joining.find(|(room, task)| *room == name && is_own(task)) else {
                return;
            };
            *task = None;
            match start {
                Ok(start) => {
                    let frame = joined(Ok(Began {
                        head: start.cursor.id,
                        gap: start.gap,
                        is_whole: start.is_whole,
                    }));
                    outlet.enter(membership, start, watches, frame);
                }
                Err(error) => {
                    rooms.retain(|(joining, _)| *joining != name);
                    outlet.leave(&name);
                    if let Some(frame) = joined(Err(error)) {
                        outlet.send(frame);
                    }
                }
            }
            drop(rooms);
            outlet.progress.notify_waiters();
        });
        rooms.push((room, Some(task.abort_handle())));
        Ok(())
    }

    /// Leaves a room, or gives up joining it. False if it was not there.
    pub fn leave(&self, room: &RoomName) -> bool {
        self.seats.leave(room)
    }

    /// Publishes; what is published to one room in one lane is stored in the order of these calls.
    pub fn publish(&self, publish: Publish, done: Published) {
        let outlet = self.outlet().clone();
        outlet.in_flight.fetch_add(1, Ordering::AcqRel);
        let hushed = (!publish.echo).then(|| publish.room.clone());
        if let Some(room) = &hushed {
            outlet.hush(room);
        }
        let watched = self.relay.watch_outcome(
            &publish.room,
            Box::new(move |outcome| {
                if let Some(room) = hushed {
                    let entry = match &outcome {
                        Ok(id) | Err(AppendError::NotReplicated(id)) => Some(*id),
                        Err(_) => None,
                    };
                    outlet.unhush(&room, entry);
                }
                done(&outlet, outcome);
                // Last, so that who waits for the outcomes finds their frames queued.
                outlet.in_flight.fetch_sub(1, Ordering::AcqRel);
                outlet.progress.notify_waiters();
            }),
        );
        let deadline = Instant::now() + self.relay.settings().publish_timeout;
        self.relay.log().append(publish.append(deadline, watched));
    }

    /// Waits while too many publishes are in flight or too many bytes wait to go out: the front
    /// end reads nothing more from its client before this returns.
    pub async fn ready(&self) {
        let limit = self.relay.settings().max_in_flight;
        self.wait(|outlet| {
            outlet.in_flight.load(Ordering::Acquire) < limit && !outlet.is_backlogged()
        })
        .await;
    }

    /// Waits until it's in the rooms it joins, but no longer than a publish may take.
    pub async fn joined(&self) {
        let limit = self.relay.settings().publish_timeout;
        let in_all = self.wait(|_| self.seats.rooms().iter().all(|(_, task)| task.is_none()));
        // While Redis is away a publish had better be refused than never read.
        let _ = timeout(limit, in_all).await;
    }

    /// Waits until no publish is in flight.
    pub async fn settled(&self) {
        self.wait(|outlet| outlet.in_flight.load(Ordering::Acquire) == 0)
            .await;
    }

    async fn wait(&self, is_met: impl Fn(&Outlet) -> bool) {
        loop {
            let progress = self.outlet().progress.notified();
            if is_met(self.outlet()) {
                return;
            }
            progress.await;
        }
    }
}

impl Seats {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection's way out.
    pub fn outlet(&self) -> &Arc<Outlet> {
        &self.outlet
    }

    /// Leaves a room, or gives up joining it. False if it was not there.
    pub fn leave(&self, room: &RoomName) -> bool {
        let mut rooms = self.rooms();
        let Some(index) = rooms.iter().position(|(name, _)| name == room) else {
            return false;
        };
        if let (_, Some(task)) = rooms.swap_remove(index) {
            task.abort();
        }
        self.outlet.leave(room);
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for (_, task) in self.seats.rooms().drain(..) {
            if let Some(task) = task {
                task.abort();
            }
        }
        self.outlet().abandon();
        self.relay.stats().connections.sub(1);
    }
}

/// Where a join begins, once its gate has let it pass.
async fn enter(
    membership: &Membership,
    from: Position,
    gate: Option<Gate>,
) -> Result<Start, NotJoined> {
    if let Some(gate) = gate {
        gate.await?;
    }
    Ok(membership.room().start(from, now_ms()).await?)
}

/// `ago:` is the one position that needs a clock. It's this node's, which may differ from Redis's.
pub(super) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
