//! Publishes: straight into Redis, through sockets, or to NATS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::frames::client_frame;
use super::marker::{Marker, payload};

/// Where entries go in.
pub(super) enum Way {
    /// XADD to the room's key, pipelined.
    Redis(Box<redis::aio::MultiplexedConnection>),
    /// XADD to the stream of Socket.IO's Redis Streams adapter, as its own emitter writes it.
    SocketioAdapter(Box<redis::aio::MultiplexedConnection>),
    /// One frame through the first socket of each room.
    Sockets(BTreeMap<usize, OwnedWriteHalf>),
    /// PUB over NATS' TCP protocol.
    Nats(TcpStream),
}

/// Makes entries, in turn for each room.
pub(super) struct Source {
    pub(super) way: Way,
    rooms: Arc<[String]>,
    size: usize,
    keep: usize,
    epoch: Instant,
    turn: usize,
    /// Entries so far, by room.
    published: Vec<u64>,
}

impl Source {
    pub(super) fn new(
        way: Way,
        rooms: Arc<[String]>,
        size: usize,
        keep: usize,
        epoch: Instant,
    ) -> Self {
        let published = vec![0; rooms.len()];
        Source {
            way,
            rooms,
            size,
            keep,
            epoch,
            turn: 0,
            published,
        }
    }

    /// Entries so far, in all.
    pub(super) fn total(&self) -> u64 {
        self.published.iter().sum()
    }

    /// Entries so far in one room.
    pub(super) fn in_room(&self, room: usize) -> u64 {
        self.published[room]
    }

    /// Counts from zero again, perhaps with payloads of another size.
    pub(super) fn restart(&mut self, size: usize) {
        self.published.fill(0);
        self.size = size;
        self.turn = 0;
    }

    /// Publishes the next entries, and waits until they are taken.
    pub(super) async fn publish(&mut self, count: usize) -> Result<()> {
        let batch: Vec<(usize, Vec<u8>)> = (0..count).map(|_| self.next()).collect();
        let rooms = &self.rooms;
        match &mut self.way {
            Way::Redis(redis) => {
                let mut pipe = redis::pipe();
                for (room, payload) in &batch {
                    add(&mut pipe, &rooms[*room], self.keep)
                        .arg("message")
                        .arg(payload.as_slice())
                        .ignore();
                }
                let () = pipe.query_async(redis.as_mut()).await.context("XADD")?;
            }
            Way::SocketioAdapter(redis) => {
                let mut pipe = redis::pipe();
                for (room, payload) in &batch {
                    let text = String::from_utf8_lossy(payload);
                    let data = serde_json::json!({
                        "opts": { "rooms": [rooms[*room]], "except": [], "flags": {} },
                        "packet": { "type": 2, "data": ["message", text], "nsp": "/" },
                    });
                    add(&mut pipe, "socket.io", self.keep)
                        .arg(&["uid", "emitter", "nsp", "/", "type", "3", "data"])
                        .arg(data.to_string())
                        .ignore();
                }
                let () = pipe.query_async(redis.as_mut()).await.context("XADD")?;
            }
            Way::Sockets(sockets) => {
                for (room, payload) in &batch {
                    let socket = sockets.get_mut(room).context("a room has no socket")?;
                    socket
                        .write_all(&client_frame(1, payload))
                        .await
                        .context("publishing through a socket")?;
                }
            }
            Way::Nats(stream) => {
                let mut bytes = Vec::new();
                let mut heard = [0; 4096];
                if let Ok(length) = stream.try_read(&mut heard)
                    && memchr::memmem::find(&heard[..length], b"PING\r\n").is_some()
                {
                    bytes.extend_from_slice(b"PONG\r\n");
                }
                for (room, payload) in &batch {
                    let head = format!("PUB {} {}\r\n", rooms[*room], payload.len());
                    bytes.extend_from_slice(head.as_bytes());
                    bytes.extend_from_slice(payload);
                    bytes.extend_from_slice(b"\r\n");
                }
                stream.write_all(&bytes).await.context("PUB")?;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> (usize, Vec<u8>) {
        let room = self.turn;
        self.turn = (self.turn + 1) % self.rooms.len();
        let marker = Marker {
            sequence: self.published[room],
            sent: self.epoch.elapsed().as_nanos() as u64,
        };
        self.published[room] += 1;
        (room, payload(marker, self.size))
    }
}

fn add<'a>(pipe: &'a mut redis::Pipeline, key: &str, keep: usize) -> &'a mut redis::Pipeline {
    pipe.cmd("XADD").arg(key);
    if keep > 0 {
        pipe.arg("MAXLEN").arg("~").arg(keep);
    }
    pipe.arg("*")
}

/// Logs in over NATS' TCP protocol.
pub(super) async fn nats(address: &str) -> Result<Way> {
    let mut stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("no NATS at {address}"))?;
    stream.set_nodelay(true)?;
    stream
        .write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\n")
        .await?;
    Ok(Way::Nats(stream))
}

/// Connects to Redis.
pub(super) async fn redis(url: &str) -> Result<Box<redis::aio::MultiplexedConnection>> {
    let client = redis::Client::open(url).with_context(|| format!("{url} is no Redis URL"))?;
    // Pipelines of a saturated machine take longer than the default of half a second.
    let config = redis::AsyncConnectionConfig::new()
        .set_response_timeout(Some(std::time::Duration::from_secs(30)))
        .set_connection_timeout(Some(std::time::Duration::from_secs(5)));
    let connection = client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .with_context(|| format!("no Redis at {url}"))?;
    Ok(Box::new(connection))
}
