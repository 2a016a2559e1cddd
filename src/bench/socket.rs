//! Opens one WebSocket, by hand and with few syscalls, and logs in as its protocol wants.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use super::Proto;
use super::frames::client_frame;

/// Long enough for a server that is busy with thousands of others.
const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

/// Sockets per source address: Linux hands out 28,000 ports for each by default.
const PER_SOURCE: usize = 20_000;

/// A server to connect to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    address: SocketAddr,
    host: String,
}

impl Target {
    /// Reads `ws://host:port`.
    pub(super) async fn resolve(url: &str) -> Result<Self> {
        let host = url
            .strip_prefix("ws://")
            .with_context(|| format!("{url}: write the server as ws://host:port"))?
            .trim_end_matches('/');
        let with_port = if host.rsplit(']').next().unwrap_or(host).contains(':') {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        let address = lookup_host(&with_port)
            .await
            .with_context(|| format!("{url} has no address"))?
            .next()
            .with_context(|| format!("{url} has no address"))?;
        Ok(Target {
            address,
            host: host.to_owned(),
        })
    }

    /// The source address of the socket with this number. Only loopback has enough of them; and
    /// only many sockets need more than one.
    pub(super) fn source(&self, number: usize, of: usize) -> Option<IpAddr> {
        let sources = of.div_ceil(PER_SOURCE).min(254);
        (sources > 1 && self.address.ip().is_loopback() && self.address.is_ipv4())
            .then(|| Ipv4Addr::new(127, 0, 0, 1 + (number % sources) as u8).into())
    }
}

/// What one socket asks for.
pub(super) struct Request<'a> {
    pub(super) target: &'a Target,
    pub(super) source: Option<IpAddr>,
    pub(super) path: &'a str,
    pub(super) subprotocol: Option<&'a str>,
    pub(super) proto: Proto,
    pub(super) answers_when_joined: bool,
    pub(super) room: &'a str,
}

/// A socket that is in its room.
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    /// All frames read so far.
    pub(super) frames: Vec<u8>,
}

/// Opens a socket and waits until it's in its room, as far as its protocol says so.
pub(super) async fn open(request: &Request<'_>) -> Result<Opened> {
    timeout(OPEN_TIMEOUT, connect(request))
        .await
        .context("timed out")?
}

async fn connect(request: &Request<'_>) -> Result<Opened> {
    let target = request.target;
    let socket = if target.address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = request.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(target.address).await?;
    stream.set_nodelay(true)?;
    // Closing resets the connection, so that one run leaves no TIME_WAIT behind for the next.
    stream.set_zero_linger()?;
    let mut opened = Opened {
        stream,
        frames: Vec::new(),
    };

    let subprotocol = request.subprotocol.map_or(String::new(), |name| {
        format!("Sec-WebSocket-Protocol: {name}\r\n")
    });
    let (asks, status) = match request.proto {
        Proto::Sse => ("Accept: text/event-stream\r\n".to_owned(), 200),
        _ => (
            format!(
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{subprotocol}"
            ),
            101,
        ),
    };
    let (path, host) = (request.path, &target.host);
    let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{asks}\r\n");
    opened.stream.write_all(head.as_bytes()).await?;
    opened.wait_for(b"\r\n\r\n").await?;
    let accepted = format!("HTTP/1.1 {status}");
    if !opened.frames.starts_with(accepted.as_bytes()) {
        let answer = String::from_utf8_lossy(&opened.frames);
        let status = answer.lines().next().unwrap_or("nothing");
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or("");
        bail!("not let in at {path}: {status} {body}");
    }
    let end = memmem::find(&opened.frames, b"\r\n\r\n").map_or(0, |at| at + 4);
    opened.frames.drain(..end);

    match request.proto {
        Proto::Raw if request.answers_when_joined => {
            // The format has no word for it, and what is published before would not come.
            opened.say(9, b"j").await?;
            opened.wait_for(b"\x8a\x01j").await?;
        }
        Proto::Raw => {}
        Proto::Json => opened.wait_for(b"\"joined\"").await?,
        // The ID it was joined at.
        Proto::Sse => opened.wait_for(b"\nid: ").await?,
        Proto::Socketio => {
            opened.wait_for(b"0{").await?;
            opened.say(1, b"40").await?;
            // The offset it was joined at.
            opened.wait_for(b"42[").await?;
        }
        Proto::Stomp | Proto::Sockjs => opened.stomp(request).await?,
        Proto::SocketioAdapter => {
            opened.wait_for(b"0{").await?;
            opened.say(1, b"40").await?;
            opened.wait_for(b"40{").await?;
            let join = format!("420[\"join\",\"{}\"]", request.room);
            opened.say(1, join.as_bytes()).await?;
            opened.wait_for(b"430").await?;
        }
        Proto::Nats => {
            opened.wait_for(b"INFO ").await?;
            let login = format!(
                "CONNECT {{\"verbose\":false,\"pedantic\":false,\"protocol\":1}}\r\nSUB {} 1\r\nPING\r\n",
                request.room
            );
            opened.say(2, login.as_bytes()).await?;
            opened.wait_for(b"PONG").await?;
        }
    }
    Ok(opened)
}

impl Opened {
    async fn stomp(&mut self, request: &Request<'_>) -> Result<()> {
        let is_sockjs = request.proto == Proto::Sockjs;
        if is_sockjs {
            self.wait_for(b"o").await?;
        }
        let room = request.room;
        let frames = [
            (
                "CONNECT\naccept-version:1.2\nhost:bench\n\n\0".to_owned(),
                "CONNECTED",
            ),
            (
                format!("SUBSCRIBE\nid:sub-0\ndestination:/topic/{room}\nreceipt:r\n\n\0"),
                "RECEIPT",
            ),
        ];
        for (frame, answer) in frames {
            let frame = match is_sockjs {
                true => serde_json::to_string(&[frame])?,
                false => frame,
            };
            self.say(1, frame.as_bytes()).await?;
            self.wait_for(answer.as_bytes()).await?;
        }
        Ok(())
    }

    async fn say(&mut self, opcode: u8, payload: &[u8]) -> Result<()> {
        Ok(self
            .stream
            .write_all(&client_frame(opcode, payload))
            .await?)
    }

    async fn wait_for(&mut self, text: &[u8]) -> Result<()> {
        while memmem::find(&self.frames, text).is_none() {
            if self.stream.read_buf(&mut self.frames).await? == 0 {
                bail!(
                    "closed while waiting for {}",
                    String::from_utf8_lossy(text).trim()
                );
            }
        }
        Ok(())
    }
}
