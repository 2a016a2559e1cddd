//! A room with a connection of its own: a blocking XREAD.

use std::io;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError};
use rustix::io::Errno;
use tokio::time::sleep;

use super::{COUNT, Context, Room, add, deliver, hand_over, patience};
use crate::relay::entry::EntryId;
use crate::relay::log::{LogError, Next, Read};
use crate::store::redis::connect::{Backoff, ask};
use crate::store::redis::reply;

/// How long Redis holds a read back. Each return brings a new look at the witness, so a deleted
/// or rewound stream is noticed within this.
const BLOCK: Duration = Duration::from_millis(1000);

/// How long an answer may take beyond that. A hung server does not end its own BLOCK.
const ANSWER: Duration = Duration::from_secs(2);

/// Tails a room, until there is no file left for its connection: the room then has to share one.
pub(super) async fn follow(context: &Context, room: &Room) {
    let status = context.health.watch();
    let mut backoff = Backoff::for_connections();
    loop {
        let error = match context.address.open().await {
            Ok(mut connection) => {
                status.up();
                stay(context, &mut connection, room, &mut backoff).await
            }
            Err(error) if is_out_of_files(&error) => {
                tracing::debug!(room = %room.feed.room(), %error, "the room shares a connection now");
                return;
            }
            Err(error) => reply::fault(&error),
        };
        tracing::debug!(room = %room.feed.room(), %error, "the tail lost its connection");
        status.down(&error);
        room.feed.on_error(&error);
        sleep(backoff.wait()).await;
    }
}

/// Whether this process, or the system, can open no more.
fn is_out_of_files(error: &RedisError) -> bool {
    let source = std::error::Error::source(error);
    let number = source.and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
    match number.map(Errno::from_raw_os_error) {
        Some(errno) => matches!(errno, Errno::MFILE | Errno::NFILE),
        // The redis crate may keep the text alone.
        None => error.to_string().contains("Too many open files"),
    }
}

/// Tails until the connection fails.
async fn stay(
    context: &Context,
    connection: &mut MultiplexedConnection,
    room: &Room,
    backoff: &mut Backoff,
) -> LogError {
    // The first read doesn't wait: what happened while nobody looked is told at once.
    let mut wait = false;
    loop {
        let next = room.feed.next();
        let mut pipe = Pipeline::with_capacity(2);
        let (blocking, asked) = match next {
            Next::Read { after } if wait => {
                let count = room.size(COUNT);
                add_blocking(&mut pipe, &room.key, after, count);
                (Some(after), count)
            }
            _ => (None, add(&mut pipe, room, next)),
        };
        let values = match ask(connection, &pipe, BLOCK + ANSWER).await {
            Ok(values) => values,
            Err(error) => {
                room.lost(&context.health, asked, &error);
                return error;
            }
        };
        backoff.reset();
        let mut values = values.into_iter();
        let handed = match blocking {
            None => hand_over(room, next, asked, &mut values).map(drop),
            Some(after) => hand_over_blocking(room, after, &mut values),
        };
        match handed {
            Ok(()) => wait = !matches!(next, Next::Survey { .. }),
            Err(error) => {
                room.feed.on_error(&error);
                sleep(patience(&error)).await;
                wait = false;
            }
        }
    }
}

fn add_blocking(pipe: &mut Pipeline, key: &[u8], after: EntryId, count: usize) {
    let cursor = after.to_string();
    pipe.cmd("XREAD")
        .arg("BLOCK")
        .arg(BLOCK.as_millis() as u64)
        .arg("COUNT")
        .arg(count)
        .arg("STREAMS")
        .arg(key)
        .arg(&cursor);
    if after != EntryId::ZERO {
        // Runs once the read is done: the witness.
        pipe.cmd("XRANGE").arg(key).arg(&cursor).arg(&cursor);
    }
}

fn hand_over_blocking(
    room: &Room,
    after: EntryId,
    values: &mut impl Iterator<Item = redis::Value>,
) -> Result<(), LogError> {
    room.answered();
    let entries = reply::stream(values.next().unwrap_or_default())?;
    let cursor_entry = match values.next() {
        Some(value) => reply::entries(value)?.pop(),
        None => None,
    };
    deliver(
        room.feed.as_ref(),
        Read {
            after,
            cursor_entry,
            entries,
        },
    );
    Ok(())
}
