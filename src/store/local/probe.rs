//! Asks a port what it is, with nothing but a socket: no Redis yet, one, or something else.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for one connect, write or read. The port is on this machine, so it's only ever
/// waited out if a program accepts and then says nothing.
const PATIENCE: Duration = Duration::from_secs(2);

/// Most bytes read of one reply; INFO's server section has about 700.
const MAX_REPLY: usize = 16 * 1024;

/// What was found at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nobody listens.
    Nothing,
    /// A Redis that takes commands.
    Redis,
    /// A Redis that reads its data yet.
    Loading,
    /// A Redis that wants a password first.
    NeedsPassword,
    /// It accepts connections, and answers no PING.
    Silent,
    /// It answers, but not as Redis does.
    Other,
}

/// What listens at this address.
pub(super) fn probe(addr: SocketAddr) -> Found {
    let Ok(mut socket) = connect(addr) else {
        return Found::Nothing;
    };
    match ask(&mut socket, b"PING\r\n") {
        Ok(reply) if reply.starts_with(b"+PONG") => Found::Redis,
        Ok(reply) if reply.starts_with(b"-NOAUTH") => Found::NeedsPassword,
        Ok(reply) if reply.starts_with(b"-LOADING") => Found::Loading,
        // -NOPERM, -MISCONF, -DENIED and the like: a Redis that the store will have to judge.
        Ok(reply) if reply.starts_with(b"-") => Found::Redis,
        Ok(_) => Found::Other,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Found::Silent
        }
        // It hung up on us, as a server of another protocol may, or one that ends right now.
        Err(_) => match connect(addr) {
            Ok(_) => Found::Other,
            Err(_) => Found::Nothing,
        },
    }
}

/// The process that serves this address, as it says itself; None if it doesn't say.
pub(super) fn process_id(addr: SocketAddr) -> Option<u32> {
    let mut socket = connect(addr).ok()?;
    socket.write_all(b"INFO server\r\n").ok()?;
    let mut reply = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let count = socket.read(&mut chunk).ok()?;
        reply.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8_lossy(&reply);
        // A whole line only: half a number is another number.
        if let Some((_, rest)) = text.split_once("process_id:")
            && let Some((number, _)) = rest.split_once('\r')
        {
            return number.parse().ok();
        }
        if count == 0 || reply.len() > MAX_REPLY {
            return None;
        }
    }
}

fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(&addr, PATIENCE)?;
    // Where nobody listens on a port the system gives out, it may give out just that one, and the
    // socket is connected to itself.
    if socket.local_addr()? == addr {
        return Err(ErrorKind::ConnectionRefused.into());
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok(socket)
}

/// The first line of the reply, or what came of it before the other side closed.
fn ask(socket: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.write_all(request)?;
    let mut reply = Vec::new();
    let mut chunk = [0; 512];
    while !reply.contains(&b'\n') && reply.len() < MAX_REPLY {
        match socket.read(&mut chunk)? {
            0 if reply.is_empty() => return Err(ErrorKind::UnexpectedEof.into()),
            0 => break,
            count => reply.extend_from_slice(&chunk[..count]),
        }
    }
    Ok(reply)
}
