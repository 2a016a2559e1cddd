//! What a run leaves in Redis: the rooms that it made. They are removed when it ends, also if it's stopped; a
//! room that was there before stays.

use redis::aio::MultiplexedConnection;

use super::source;
use super::{BenchArgs, Proto};

/// Keys asked for, or removed, in one command.
const BATCH: usize = 1_000;

/// The keys that a run makes.
pub(super) struct Leftovers {
    redis: Option<Box<MultiplexedConnection>>,
    keys: Vec<String>,
}

impl Leftovers {
    /// Looks which of the run's rooms are not there yet. Without a Redis that can be asked nothing is removed.
    pub(super) async fn before(args: &BenchArgs) -> Self {
        let mut keys = match *args.proto.0 {
            [Proto::Nats] => Vec::new(),
            [Proto::SocketioAdapter] => vec!["socket.io".to_owned()],
            _ if args.has_own_redis() => Vec::new(),
            _ => args.room_names(),
        };
        let mut redis = match keys.is_empty() {
            true => None,
            false => source::redis(args.redis()).await.ok(),
        };
        if let Some(redis) = &mut redis {
            let mut there = Vec::with_capacity(keys.len());
            for batch in keys.chunks(BATCH) {
                let mut pipe = redis::pipe();
                for key in batch {
                    pipe.cmd("EXISTS").arg(key);
                }
                let answer: redis::RedisResult<Vec<bool>> = pipe.query_async(redis.as_mut()).await;
                // Of what can't be asked about nothing is removed.
                there.extend(answer.unwrap_or_else(|_| vec![true; batch.len()]));
            }
            let mut there = there.into_iter();
            keys.retain(|_| there.next() == Some(false));
        }
        Leftovers { redis, keys }
    }

    /// Removes them.
    pub(super) async fn remove(self) {
        let Some(mut redis) = self.redis else {
            if let (Some(first), Some(last)) = (self.keys.first(), self.keys.last()) {
                eprintln!(
                    "the rooms {first} to {last} stay in the server's Redis: name it with --redis, and they are removed"
                );
            }
            return;
        };
        for batch in self.keys.chunks(BATCH) {
            let mut unlink = redis::cmd("UNLINK");
            let removed: redis::RedisResult<u64> =
                unlink.arg(batch).query_async(redis.as_mut()).await;
            if let Err(error) = removed {
                eprintln!("the rooms of this run stay in Redis: {error}");
                return;
            }
        }
    }
}
