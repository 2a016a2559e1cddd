//! What nodes share besides the streams, in Redis.
//!
//! It has connections of its own: one answers questions and writes (`command`), one whispers
//! (`whisper`), and one listens (`listen`); so nobody's history waits behind everybody's presence.
//! What a node writes stands under its own name, in keys that [`Keys`] lists. Nothing here
//! expires but leases and counters: what a dead node left is removed by whoever buries it.

mod bury;
mod listen;
mod read;
mod script;
mod whisper;
mod write;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use redis::{Pipeline, Value};

use super::command::{Commands, Repeat};
use super::connect::Address;
use super::keys::Keys;
use super::{RedisLog, Retention, Settings, millis, reply};
use crate::people::board::{Answer, Beat, Board, Change, Ear, EarGuard, NodeId};
use crate::relay::entry::{EntryId, Fields, RoomName};
use crate::relay::log::LogError;

/// How long one question may take. A lease lasts several of these.
const TIMEOUT: Duration = Duration::from_secs(2);

/// About how many of the acts are kept.
const AUDIT_KEPT: u64 = 10_000;

/// A room's counters are forgotten when nobody counted for so long.
const COUNTERS_KEPT: Duration = Duration::from_secs(24 * 3600);

/// How long a lease's birth is, in hex digits.
const BIRTH: usize = 16;

/// The user under whose name a node's users have the number of its last write. Nobody is called so.
const WRITES: &str = "";

/// What a node has in Redis, if nothing was lost: a restart with an old snapshot, or a failover to a
/// replica that lags behind, may lose what was written last and leave the lease.
#[derive(Default)]
struct Life {
    /// Of its lease; see [`script::BEAT`].
    birth: Bytes,
    /// How many writes were answered.
    writes: u64,
    /// One of them found that those before are gone.
    lost: bool,
}

/// The connections, and what is to be known for using them.
pub(super) struct Connections {
    keys: Keys,
    commands: Commands,
    keep: Retention,
    expire_after: Option<Duration>,
    /// What we know to be in Redis of each node that is ours.
    lives: Mutex<HashMap<NodeId, Life>>,
    whispers: whisper::Whisperer,
    ears: listen::Listener,
}

impl Connections {
    /// Connects at the first use.
    pub(super) fn start(settings: &Settings, keys: Keys, address: &Address) -> Self {
        Connections {
            keys,
            commands: Commands::new(address.clone()),
            keep: settings.keep,
            expire_after: settings.expire_after,
            lives: Mutex::default(),
            whispers: whisper::Whisperer::start(address.clone()),
            ears: listen::Listener::start(address.clone()),
        }
    }

    /// Asks a pipeline. Scripts that the server does not have are loaded, and then it's asked
    /// again: a lone one was not executed, and several may be repeated.
    async fn ask(&self, pipe: &Pipeline, repeat: Repeat) -> Result<Vec<Value>, LogError> {
        let values = self.commands.all(pipe, TIMEOUT, repeat).await?;
        let missing =
            |value: &Value| matches!(value, Value::ServerError(e) if e.code() == "NOSCRIPT");
        let again = repeat == Repeat::Safe || pipe.len() == 1;
        if !again || !values.iter().any(missing) {
            return Ok(values);
        }
        let load = script::load();
        let loaded = self.commands.all(&load, TIMEOUT, Repeat::Safe).await?;
        reply::all_well(loaded)?;
        self.commands.all(pipe, TIMEOUT, repeat).await
    }

    /// Asks one question.
    async fn one(&self, pipe: &Pipeline) -> Result<Value, LogError> {
        let mut values = self.ask(pipe, Repeat::Safe).await?;
        reply::check(values.pop().unwrap_or(Value::Nil))
    }

    async fn beat(&self, node: &NodeId, status: &[u8], lease: Duration) -> Result<Beat, LogError> {
        let birth = format!("{:0BIRTH$x}", rand::random::<u64>());
        let mut pipe = Pipeline::with_capacity(4);
        script::BEAT
            .call(&mut pipe)
            .arg(self.keys.lease(node))
            .arg(birth)
            .arg(status)
            .arg(millis(lease).max(1));
        // After the lease: who finds the node here must not take it for dead.
        pipe.cmd("SADD").arg(self.keys.nodes()).arg(node.as_str());
        pipe.cmd("SMEMBERS").arg(self.keys.nodes());
        pipe.cmd("HGET").arg(self.keys.users(node)).arg(WRITES);
        let values = self.ask(&pipe, Repeat::Safe).await?;
        let [birth, added, nodes, writes] = replies(values)?;
        reply::check(added)?;
        let birth = reply::bytes(reply::check(birth)?)?;
        let nodes = reply::list(nodes)?
            .into_iter()
            .map(|name| Ok(NodeId::new(&reply::text(name)?)))
            .collect::<Result<Vec<_>, LogError>>()?;
        let (living, dead) = self.leases(nodes).await?;
        let found = self::writes(writes)?;
        let mut lives = self.lives();
        let life = lives.entry(node.clone()).or_default();
        let kept = !life.lost && life.birth == birth && found == Some(life.writes);
        life.birth = birth;
        Ok(Beat { kept, living, dead })
    }

    fn lives(&self) -> MutexGuard<'_, HashMap<NodeId, Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes with a lease and what each says of itself, and those without.
    async fn leases(
        &self,
        nodes: Vec<NodeId>,
    ) -> Result<(Vec<(NodeId, Bytes)>, Vec<NodeId>), LogError> {
        let (mut living, mut dead) = (Vec::new(), Vec::new());
        if nodes.is_empty() {
            return Ok((living, dead));
        }
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("MGET");
        for node in &nodes {
            pipe.arg(self.keys.lease(node));
        }
        let leases = reply::list(self.one(&pipe).await?)?;
        for (node, lease) in nodes.into_iter().zip(leases) {
            match reply::bytes_or_nil(lease)? {
                Some(lease) => living.push((node, lease.slice(BIRTH.min(lease.len())..))),
                None => dead.push(node),
            }
        }
        Ok((living, dead))
    }

    async fn retire(&self, node: &NodeId) -> Result<(), LogError> {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("DEL").arg(self.keys.lease(node));
        self.one(&pipe).await?;
        self.lives().remove(node);
        Ok(())
    }

    async fn act(
        &self,
        room: &RoomName,
        rules: &[(String, Option<String>)],
        record: &Fields,
    ) -> Result<EntryId, LogError> {
        let mut pipe = Pipeline::with_capacity(1);
        script::ACT
            .call(&mut pipe)
            .arg(self.keys.policy(room))
            .arg(self.keys.room(&RoomName::audit()).as_ref())
            .arg(AUDIT_KEPT)
            .arg(record.len());
        for (name, value) in record {
            pipe.arg(name.as_ref()).arg(value.as_ref());
        }
        for (name, value) in rules {
            match value {
                Some(value) => pipe.arg("1").arg(name).arg(value),
                None => pipe.arg("0").arg(name).arg(""),
            };
        }
        // Sent twice it would be recorded twice.
        let mut values = self.ask(&pipe, Repeat::Never).await?;
        reply::entry_id(&reply::check(values.pop().unwrap_or(Value::Nil))?)
    }

    async fn count(&self, room: &RoomName, counts: &[(String, u64)]) -> Result<Vec<u64>, LogError> {
        if counts.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.keys.reactions(room);
        let mut pipe = Pipeline::with_capacity(counts.len() + 1);
        for (name, count) in counts {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            pipe.cmd("HINCRBY").arg(&key).arg(name).arg(count);
        }
        pipe.cmd("PEXPIRE").arg(&key).arg(millis(COUNTERS_KEPT));
        let mut values = self.commands.all(&pipe, TIMEOUT, Repeat::Never).await?;
        values.truncate(counts.len());
        values.into_iter().map(reply::count).collect()
    }

    async fn secret(&self, made: &Bytes) -> Result<Bytes, LogError> {
        let key = self.keys.secret();
        let mut pipe = Pipeline::with_capacity(2);
        pipe.cmd("SET").arg(&key).arg(made.as_ref()).arg("NX");
        pipe.cmd("GET").arg(&key);
        reply::bytes(self.one(&pipe).await?)
    }
}

/// A node's number of writes; none if it makes no sense.
fn writes(value: Value) -> Result<Option<u64>, LogError> {
    let text = reply::bytes_or_nil(value)?;
    Ok(text.map_or(Some(0), |n| std::str::from_utf8(&n).ok()?.parse().ok()))
}

/// As many replies as were asked for.
fn replies<const N: usize>(values: Vec<Value>) -> Result<[Value; N], LogError> {
    <[Value; N]>::try_from(values).map_err(|_| LogError::Other("a reply is missing".to_owned()))
}

impl Board for RedisLog {
    fn whisper(&self, room: &RoomName, message: Bytes) {
        self.board.whispers.push(self.keys.live(room), message);
    }

    fn listen(&self, room: &RoomName, ear: Arc<dyn Ear>) -> EarGuard {
        self.board.ears.listen(self.keys.live(room), ear)
    }

    fn beat(&self, node: &NodeId, status: Bytes, lease: Duration) -> Answer<Beat> {
        let (board, node) = (self.board.clone(), node.clone());
        async move { board.beat(&node, &status, lease).await }.boxed()
    }

    fn retire(&self, node: &NodeId) -> Answer<()> {
        let (board, node) = (self.board.clone(), node.clone());
        async move { board.retire(&node).await }.boxed()
    }

    fn write(&self, node: &NodeId, changes: Vec<Change>, notices: bool) -> Answer<()> {
        let (board, node) = (self.board.clone(), node.clone());
        async move { board.write(&node, changes, notices).await }.boxed()
    }

    fn bury(&self, node: &NodeId, notices: bool) -> Answer<bool> {
        let (board, node) = (self.board.clone(), node.clone());
        async move { board.bury(&node, notices).await }.boxed()
    }

    fn members(&self, room: &RoomName, node: &NodeId) -> Answer<Vec<(String, Bytes)>> {
        let (board, key) = (self.board.clone(), self.keys.here(node, room));
        async move { board.members(&key).await }.boxed()
    }

    fn user(&self, user: &str, nodes: &[NodeId]) -> Answer<Vec<Option<Bytes>>> {
        let (board, user, nodes) = (self.board.clone(), user.to_owned(), nodes.to_vec());
        async move { board.user(&user, &nodes).await }.boxed()
    }

    fn sizes(&self, rooms: &[RoomName], nodes: &[NodeId]) -> Answer<Vec<Vec<u64>>> {
        let (board, rooms, nodes) = (self.board.clone(), rooms.to_vec(), nodes.to_vec());
        async move { board.sizes(&rooms, &nodes).await }.boxed()
    }

    fn rules(&self, room: &RoomName) -> Answer<Vec<(String, String)>> {
        let (board, key) = (self.board.clone(), self.keys.policy(room));
        async move { board.rules(&key).await }.boxed()
    }

    fn rule(&self, rooms: &[RoomName], name: &str) -> Answer<Vec<Option<String>>> {
        let keys = rooms.iter().map(|room| self.keys.policy(room)).collect();
        let (board, name) = (self.board.clone(), name.to_owned());
        async move { board.rule(keys, &name).await }.boxed()
    }

    fn act(
        &self,
        room: &RoomName,
        rules: Vec<(String, Option<String>)>,
        record: Fields,
    ) -> Answer<EntryId> {
        let (board, room) = (self.board.clone(), room.clone());
        async move { board.act(&room, &rules, &record).await }.boxed()
    }

    fn count(&self, room: &RoomName, counts: Vec<(String, u64)>) -> Answer<Vec<u64>> {
        let (board, room) = (self.board.clone(), room.clone());
        async move { board.count(&room, &counts).await }.boxed()
    }

    fn secret(&self, made: Bytes) -> Answer<Bytes> {
        let board = self.board.clone();
        async move { board.secret(&made).await }.boxed()
    }

    fn rooms(&self, cursor: u64, limit: usize) -> Answer<(Vec<RoomName>, u64)> {
        let board = self.board.clone();
        async move { board.rooms(cursor, limit).await }.boxed()
    }
}
