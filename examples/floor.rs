//! The reference server that benchmarks hold tailcast against: how little CPU a broadcast over
//! WebSocket can cost in one thread.
//!
//! One thread waits in epoll and owns all sockets; another reads one stream with a blocking XREAD,
//! encodes each entry as one frame, and rings. Per entry and socket there is one write(2) of the
//! shared bytes and nothing else. With `--coalesce` a socket gets all that is pending in one
//! write. There are no rooms, pings, time-outs or limits, and a client that stops reading is kept
//! in memory up to [`MOST_BEHIND`].

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const LISTENER: Token = Token(usize::MAX);
const BELL: Token = Token(usize::MAX - 1);

/// A socket further behind than this is dropped.
const MOST_BEHIND: u64 = 64 << 20;

/// Frames that all sockets have are let go once there are so many bytes of them.
const LET_GO: usize = 1 << 20;

#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Redis to read from
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    redis: String,
    /// The stream
    #[arg(long, default_value = "mystream")]
    key: String,
    /// Write all that is pending in one
    #[arg(long)]
    coalesce: bool,
}

/// Frames on their way from the reader to the sockets: their bytes, and where each ends.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

struct Client {
    stream: TcpStream,
    /// Next byte to write, counted from the first frame ever.
    at: u64,
    open: bool,
    /// The kernel's buffer is full.
    blocked: bool,
}

/// All frames that some socket may still need, end to end.
struct Log {
    bytes: Vec<u8>,
    /// Position of the first byte kept.
    begin: u64,
    /// Ends of the frames, as positions; only without `--coalesce`.
    ends: Vec<u64>,
    coalesce: bool,
}

impl Log {
    fn end(&self) -> u64 {
        self.begin + self.bytes.len() as u64
    }

    /// Writes what a socket has not had yet; false if it's gone.
    fn write(&self, client: &mut Client) -> bool {
        while client.at < self.end() {
            let until = if self.coalesce {
                self.end()
            } else {
                self.ends[self.ends.partition_point(|end| *end <= client.at)]
            };
            if !self.write_until(client, until) {
                return false;
            }
            if client.blocked {
                break;
            }
        }
        true
    }

    /// One write(2).
    fn write_until(&self, client: &mut Client, until: u64) -> bool {
        let from = (client.at - self.begin) as usize;
        let to = (until - self.begin) as usize;
        match (&client.stream).write(&self.bytes[from..to]) {
            Ok(length) => {
                client.at += length as u64;
                client.blocked = length < to - from;
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                client.blocked = true;
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Appends what the reader brought, and gives it to all sockets.
    fn pass(&mut self, batch: &mut Batch, clients: &mut [Option<Client>]) {
        let old = self.end();
        self.bytes.extend_from_slice(&batch.bytes);
        if self.coalesce {
            for slot in clients.iter_mut() {
                let gone = slot
                    .as_mut()
                    .is_some_and(|client| client.open && !client.blocked && !self.write(client));
                if gone {
                    *slot = None;
                }
            }
        } else {
            self.ends
                .extend(batch.ends.iter().map(|end| old + *end as u64));
            for end in &batch.ends {
                let until = old + *end as u64;
                for slot in clients.iter_mut() {
                    let gone = slot.as_mut().is_some_and(|client| {
                        client.open && !client.blocked && !self.write_until(client, until)
                    });
                    if gone {
                        *slot = None;
                    }
                }
            }
        }
        batch.bytes.clear();
        batch.ends.clear();
        if self.bytes.len() >= LET_GO {
            self.let_go(clients);
        }
    }

    fn let_go(&mut self, clients: &mut [Option<Client>]) {
        let end = self.end();
        for slot in clients.iter_mut() {
            let behind = |client: &mut Client| client.open && end - client.at > MOST_BEHIND;
            if slot.as_mut().is_some_and(behind) {
                *slot = None;
            }
        }
        let least = clients
            .iter()
            .flatten()
            .filter(|client| client.open)
            .map(|client| client.at)
            .min()
            .unwrap_or(end);
        self.bytes.drain(..(least - self.begin) as usize);
        self.begin = least;
        self.ends
            .drain(..self.ends.partition_point(|end| *end <= least));
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(args.listen)
        .with_context(|| format!("can't listen on {}", args.listen))?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let bell = Waker::new(poll.registry(), BELL)?;
    let pending = Arc::new(Mutex::new(Batch::default()));

    let mut connection = redis::Client::open(args.redis.as_str())?.get_connection()?;
    let after = last_id(&mut connection, &args.key)?;
    let shared = pending.clone();
    let key = args.key.clone();
    thread::spawn(move || {
        if let Err(error) = read(&mut connection, &key, after, &shared, &bell) {
            eprintln!("reading {key}: {error}");
            std::process::exit(1);
        }
    });
    println!("listening on {}", listener.local_addr()?);

    let mut log = Log {
        bytes: Vec::new(),
        begin: 0,
        ends: Vec::new(),
        coalesce: args.coalesce,
    };
    let mut clients: Vec<Option<Client>> = Vec::new();
    let mut batch = Batch::default();
    let mut scratch = vec![0; 64 * 1024];
    let mut events = Events::with_capacity(1024);
    loop {
        if let Err(error) = poll.poll(&mut events, None)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
        for event in &events {
            match event.token() {
                LISTENER => accept(&poll, &listener, &mut clients, &log)?,
                BELL => {
                    std::mem::swap(
                        &mut batch,
                        &mut pending.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    log.pass(&mut batch, &mut clients);
                }
                Token(number) => {
                    let Some(slot) = clients.get_mut(number) else {
                        continue;
                    };
                    let Some(client) = slot else { continue };
                    let mut alive = true;
                    if event.is_readable() {
                        alive = hear(client, &mut scratch, log.end());
                    }
                    if alive && client.blocked && event.is_writable() {
                        client.blocked = false;
                        alive = log.write(client);
                    }
                    if !alive {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn accept(
    poll: &Poll,
    listener: &TcpListener,
    clients: &mut Vec<Option<Client>>,
    log: &Log,
) -> Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => {
                eprintln!("accept: {error}");
                return Ok(());
            }
        };
        stream.set_nodelay(true)?;
        // A free slot is only looked for where there may be one: at the end of a full table.
        let number = if clients.len() < clients.capacity() {
            clients.len()
        } else {
            clients
                .iter()
                .position(Option::is_none)
                .unwrap_or(clients.len())
        };
        // Edge-triggered for both, once, so that waiting to write costs no syscall.
        poll.registry().register(
            &mut stream,
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let client = Some(Client {
            stream,
            at: log.end(),
            open: false,
            blocked: false,
        });
        match clients.get_mut(number) {
            Some(slot) => *slot = client,
            None => clients.push(client),
        }
    }
}

/// Answers a handshake, which has to come in one piece; drops whatever comes later. False if the
/// client is gone.
fn hear(client: &mut Client, scratch: &mut [u8], end: u64) -> bool {
    loop {
        let length = match (&client.stream).read(scratch) {
            Ok(0) => return false,
            Ok(length) => length,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        if client.open {
            continue;
        }
        let request = String::from_utf8_lossy(&scratch[..length]);
        let key = request.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then(|| value.trim())
        });
        let Some(key) = key else { return false };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        if !matches!((&client.stream).write(answer.as_bytes()), Ok(n) if n == answer.len()) {
            return false;
        }
        client.open = true;
        client.at = end;
    }
}

/// The stream's last ID; never `$`, which loses what comes before the first read.
fn last_id(connection: &mut redis::Connection, key: &str) -> Result<String> {
    let newest: Vec<(String, Vec<Vec<u8>>)> = redis::cmd("XREVRANGE")
        .arg(&[key, "+", "-", "COUNT", "1"])
        .query(connection)?;
    Ok(newest
        .into_iter()
        .next()
        .map_or_else(|| "0-0".to_owned(), |(id, _)| id))
}

type Entries = Vec<(String, Vec<Vec<u8>>)>;

fn read(
    connection: &mut redis::Connection,
    key: &str,
    mut after: String,
    pending: &Mutex<Batch>,
    bell: &Waker,
) -> Result<()> {
    loop {
        let streams: Vec<(String, Entries)> = redis::cmd("XREAD")
            .arg(&["COUNT", "1000", "BLOCK", "0", "STREAMS", key, &after])
            .query(connection)?;
        let mut batch = pending.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, fields) in streams.into_iter().flat_map(|(_, entries)| entries) {
            if let [_, value, ..] = fields.as_slice() {
                encode(&mut batch.bytes, value);
                let end = batch.bytes.len();
                batch.ends.push(end);
            }
            after = id;
        }
        drop(batch);
        bell.wake()?;
    }
}

fn encode(bytes: &mut Vec<u8>, payload: &[u8]) {
    bytes.push(0x81);
    match payload.len() {
        length @ 0..126 => bytes.push(length as u8),
        length @ 126..65_536 => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(payload);
}
