//! Any number of rooms on one connection: client tracking is the doorbell.
//!
//! Redis remembers which keys this connection read, and says once when one of them changes. So a
//! read fetches and arms in one step, and the backlog of bells is bounded by the number of rooms.
//! Five rules, each a lost entry if forgotten: a room's dirty flag is cleared when the read is
//! *sent*; a read that came back full rings no bell for the rest; a bell without a key means every
//! room; a new connection knows nothing; and some changes (a slot that moved, a stream nobody
//! wrote) ring none at all, hence the sweep.

mod table;

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::{Instant, sleep_until};

use super::{Context, Order, add, hand_over};
use crate::relay::log::{LogError, Next};
use crate::store::redis::connect::{Backoff, ask};
use crate::store::redis::reply;
pub(super) use table::Table;

/// Most rooms in one pipeline. Measured: larger ones gain nothing.
const BATCH: usize = 256;

/// Rooms in the first pipeline of all. Doubled while the answers are small: rooms that are new bring
/// whole windows.
const FIRST_BATCH: usize = 32;

/// A pipeline whose answers exceed this is followed by one with half the rooms.
const BATCH_BYTES: usize = 1 << 20;

/// A quiet connection is pinged: a server with `timeout` would close it, and one that hangs would
/// look like one with nothing to say.
const PING_AFTER: Duration = Duration::from_secs(1);

/// How long an answer to a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a batch may take: 256 rooms can bring many megabytes.
const BATCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Why tracking ended.
pub(super) enum End {
    /// Nobody is left to give orders.
    Stopped,
    /// The server, a proxy or an ACL won't have it.
    Refused(LogError),
}

enum Opening {
    Refused(LogError),
    Failed(LogError),
}

/// Tails all rooms of the table, and those that join it.
pub(super) async fn follow(
    context: &Context,
    orders: &mut UnboundedReceiver<Order>,
    table: &mut Table,
) -> End {
    let status = context.health.watch();
    let mut backoff = Backoff::for_connections();
    let mut batch = FIRST_BATCH;
    loop {
        while table.is_empty() {
            match orders.recv().await {
                Some(order) => table.apply(order),
                None => return End::Stopped,
            }
        }
        let (sender, pushes) = mpsc::unbounded_channel();
        let error = match open(context, sender).await {
            Ok(connection) => {
                status.up();
                table.all_dirty();
                let mut line = Line {
                    connection,
                    pushes,
                    last_answer: Instant::now(),
                    batch,
                };
                let ended = line.stay(context, orders, table, &mut backoff).await;
                batch = line.batch;
                match ended {
                    Some(error) => error,
                    None => return End::Stopped,
                }
            }
            Err(Opening::Refused(error)) => return End::Refused(error),
            Err(Opening::Failed(error)) => error,
        };
        tracing::debug!(%error, "the shared tail lost its connection");
        status.down(&error);
        table.on_error(&error);
        let until = Instant::now() + backoff.wait();
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                order = orders.recv() => match order {
                    Some(order) => table.apply(order),
                    None => return End::Stopped,
                },
            }
        }
    }
}

async fn open(
    context: &Context,
    pushes: mpsc::UnboundedSender<PushInfo>,
) -> Result<MultiplexedConnection, Opening> {
    let mut connection =
        context
            .address
            .open_resp3(pushes)
            .await
            .map_err(|error| match hello_refused(&error) {
                true => Opening::Refused(reply::fault(&error)),
                false => Opening::Failed(reply::fault(&error)),
            })?;
    let mut pipe = Pipeline::with_capacity(1);
    pipe.cmd("CLIENT").arg("TRACKING").arg("ON");
    let answer = ask(&mut connection, &pipe, PING_TIMEOUT).await;
    match answer.map_err(Opening::Failed)?.pop() {
        Some(Value::Okay) => Ok(connection),
        Some(value) => Err(match reply::check(value) {
            Err(error @ (LogError::Loading | LogError::Unavailable(_))) => Opening::Failed(error),
            Err(error) => Opening::Refused(error),
            Ok(_) => Opening::Refused(LogError::Other("not OK to CLIENT TRACKING".to_owned())),
        }),
        None => Err(Opening::Failed(LogError::Other("no reply".to_owned()))),
    }
}

/// Whether the server does not speak RESP3 with us, as opposed to not at all.
fn hello_refused(error: &RedisError) -> bool {
    use redis::ErrorKind::{RESP3NotSupported, Server};
    match error.kind() {
        RESP3NotSupported | Server(ServerErrorKind::NoPerm) => true,
        Server(ServerErrorKind::ResponseError) => {
            !matches!(reply::fault(error), LogError::Unavailable(_))
        }
        _ => error.code() == Some("NOPROTO"),
    }
}

struct Line {
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    last_answer: Instant,
    /// Rooms in the next batch.
    batch: usize,
}

impl Line {
    /// Tails until the connection fails; `None` if there is nobody left to give orders.
    async fn stay(
        &mut self,
        context: &Context,
        orders: &mut UnboundedReceiver<Order>,
        table: &mut Table,
        backoff: &mut Backoff,
    ) -> Option<LogError> {
        loop {
            while let Ok(order) = orders.try_recv() {
                table.apply(order);
            }
            while let Ok(push) = self.pushes.try_recv() {
                if let Err(error) = hear(push, table) {
                    return Some(error);
                }
            }
            let now = Instant::now();
            table.tick(now);
            let batch = table.take_dirty(self.batch);
            if !batch.is_empty() {
                if let Err(error) = self.read(context, table, batch).await {
                    return Some(error);
                }
                backoff.reset();
                continue;
            }
            let ping_at = self.last_answer + PING_AFTER;
            if now >= ping_at {
                let mut pipe = Pipeline::with_capacity(1);
                pipe.cmd("PING");
                if let Err(error) = ask(&mut self.connection, &pipe, PING_TIMEOUT).await {
                    return Some(error);
                }
                self.last_answer = Instant::now();
                continue;
            }
            tokio::select! {
                order = orders.recv() => table.apply(order?),
                push = self.pushes.recv() => {
                    let heard = match push {
                        Some(push) => hear(push, table),
                        None => Err(closed()),
                    };
                    if let Err(error) = heard {
                        return Some(error);
                    }
                }
                () = sleep_until(table.next_tick(now).min(ping_at)) => {}
            }
        }
    }

    /// Reads some rooms: one command each, so that a key of another type, or in another slot,
    /// spoils only its own answer.
    async fn read(
        &mut self,
        context: &Context,
        table: &mut Table,
        rooms: Vec<u64>,
    ) -> Result<(), LogError> {
        let mut pipe = Pipeline::with_capacity(rooms.len());
        let mut asked: Vec<(u64, Next, usize)> = Vec::with_capacity(rooms.len());
        for id in rooms {
            if let Some(room) = table.room(id) {
                let next = room.feed.next();
                let count = add(&mut pipe, room, next);
                asked.push((id, next, count));
            }
        }
        // Should it fail for its size, then the next one, on a new connection, is smaller, and asks
        // less of each room.
        let size_before = self.batch;
        self.batch = (self.batch / 2).max(1);
        let values = match ask(&mut self.connection, &pipe, BATCH_TIMEOUT).await {
            Ok(values) => values,
            Err(error) => {
                // With others beside it, it's not known to be this room's entry.
                let least = if asked.len() > 1 { 2 } else { 1 };
                for (id, _, count) in asked {
                    if let Some(room) = table.room(id) {
                        room.lost(&context.health, count.max(least), &error);
                    }
                }
                return Err(error);
            }
        };
        self.last_answer = Instant::now();
        self.batch = match values.iter().map(size).sum::<usize>() {
            bytes if bytes > BATCH_BYTES => self.batch,
            _ => (size_before * 2).min(BATCH),
        };
        let mut values = values.into_iter();
        let mut trouble = None;
        for (id, next, count) in asked {
            // A room that left meanwhile still has its share of the answers.
            let replies = match next {
                Next::Survey { .. } => 2,
                Next::Read { .. } => 1,
            };
            let answer: Vec<Value> = values.by_ref().take(replies).collect();
            let Some(room) = table.room(id) else {
                continue;
            };
            match hand_over(room, next, count, &mut answer.into_iter()) {
                Ok(true) => table.ring(id),
                Ok(false) => {}
                // Not this room's trouble but the server's: ask for all of them less often.
                Err(error @ (LogError::Loading | LogError::ReadOnly(_))) => trouble = Some(error),
                Err(error @ LogError::Unavailable(_)) => trouble = Some(error),
                Err(error) => {
                    room.feed.on_error(&error);
                    table.retry(id, Instant::now() + super::patience(&error));
                }
            }
        }
        match trouble {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn closed() -> LogError {
    LogError::Unavailable("the connection was closed".to_owned())
}

/// Takes a push.
fn hear(push: PushInfo, table: &mut Table) -> Result<(), LogError> {
    match push.kind {
        PushKind::Invalidate => {
            for value in push.data {
                match value {
                    Value::Array(keys) => {
                        for key in keys {
                            match key {
                                Value::BulkString(key) => table.ring_key(&key),
                                _ => table.all_dirty(),
                            }
                        }
                    }
                    // FLUSHALL, or a change of role: everything.
                    _ => table.all_dirty(),
                }
            }
            Ok(())
        }
        PushKind::Disconnection => Err(closed()),
        _ => Ok(()),
    }
}

/// About how many bytes of entries an answer holds.
fn size(value: &Value) -> usize {
    match value {
        Value::BulkString(bytes) => bytes.len(),
        Value::Array(values) => values.iter().map(size).sum(),
        Value::Map(pairs) => pairs.iter().map(|(k, v)| size(k) + size(v)).sum(),
        _ => 0,
    }
}
