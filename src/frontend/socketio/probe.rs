//! A WebSocket that is to take over from polling, until it has: it probes, and then says that it's
//! the one. Its frames are small and few, and until then nothing else goes over it.

use std::io;

use bytes::Bytes;

use super::payload::{Packet, text_packet};
use crate::frontend::Socket;
use crate::frontend::websocket::frame::{Opcode, frame};

/// More than a probe and an upgrade with what a client may send right behind it, in one read.
const READ: usize = 4096;

/// The socket can't take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

/// A client's frame: its opcode, its text, and how long it was.
type Frame = (u8, Vec<u8>, usize);

/// Waits until the client says that this socket is the one; `on_probe` is called before a probe is
/// answered. What the client sent behind it comes back.
pub(super) async fn probed(
    socket: &Socket,
    read_ahead: Bytes,
    mut on_probe: impl FnMut(),
) -> Result<Bytes, Failed> {
    let mut buffer = read_ahead.to_vec();
    loop {
        while let Some((opcode, payload, length)) = next_frame(&buffer)? {
            buffer.drain(..length);
            let text = String::from_utf8(payload).map_err(|_| Failed)?;
            match (opcode, text_packet(&text)) {
                (1, Ok(Packet::Ping(text))) => {
                    on_probe();
                    let pong = frame(Opcode::Text, format!("3{text}").as_bytes());
                    // Nothing else was written, so there is room for a few bytes.
                    match socket.wire().try_write(&pong) {
                        Ok(written) if written == pong.len() => {}
                        _ => return Err(Failed),
                    }
                }
                (1, Ok(Packet::Upgrade)) => return Ok(buffer.into()),
                (1, Ok(Packet::Noop)) => {}
                _ => return Err(Failed),
            }
        }
        read(socket, &mut buffer).await?;
    }
}

async fn read(socket: &Socket, buffer: &mut Vec<u8>) -> Result<(), Failed> {
    if buffer.len() >= READ {
        return Err(Failed);
    }
    loop {
        match try_read(socket, buffer) {
            Ok(0) => return Err(Failed),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.readable().await.map_err(|_| Failed)?;
            }
            Err(_) => return Err(Failed),
        }
    }
}

/// Reads by way of the stack: in the future, the bytes would be there for as long as it waits.
fn try_read(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut bytes = [0; READ];
    let count = socket.try_read(&mut bytes)?;
    buffer.extend_from_slice(&bytes[..count]);
    Ok(count)
}

/// The first frame of some bytes, if it's whole: final, masked, and short.
fn next_frame(bytes: &[u8]) -> Result<Option<Frame>, Failed> {
    let [first, second, rest @ ..] = bytes else {
        return Ok(None);
    };
    let length = usize::from(second & 0x7f);
    if first & 0xf0 != 0x80 || second & 0x80 == 0 || length > 125 {
        return Err(Failed);
    }
    let Some((mask, rest)) = rest.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    let bytes = payload.iter().zip(mask.iter().cycle());
    let payload = bytes.map(|(byte, mask)| byte ^ mask).collect();
    Ok(Some((first & 0x0f, payload, 6 + length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: u8, text: &str) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let mut out = vec![0x80 | opcode, 0x80 | text.len() as u8];
        out.extend_from_slice(&mask);
        out.extend(text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[test]
    fn frames() {
        let bytes = masked(1, "2probe");
        assert_eq!(next_frame(&bytes), Ok(Some((1, b"2probe".to_vec(), 12))));
        for cut in 0..bytes.len() {
            assert_eq!(next_frame(&bytes[..cut]), Ok(None), "{cut}");
        }
        // Not masked, not final, too long.
        for bad in [b"\x81\x012", b"\x01\x812", b"\x81\xfe2"] {
            assert_eq!(next_frame(bad), Err(Failed));
        }
    }

    async fn check(sent: &[&str], want: Result<&[u8], Failed>, answered: usize) {
        let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
        let sent: Vec<u8> = sent.iter().flat_map(|text| masked(1, text)).collect();
        theirs.try_write(&sent).unwrap();
        let socket = Socket::from(ours);
        let mut probes = 0;
        let rest = tokio::spawn(async move {
            let rest = probed(&socket, Bytes::new(), || probes += 1).await;
            (rest, probes)
        });
        theirs.readable().await.unwrap();
        let (rest, probes) = rest.await.unwrap();
        assert_eq!(rest.as_deref(), want.as_ref().map(|rest| *rest));
        assert_eq!(probes, answered);
    }

    #[tokio::test]
    async fn probes() {
        let rest = masked(1, "4hello");
        check(&["2probe", "5", "4hello"], Ok(&rest), 1).await;
        check(&["2probe", "4hello"], Err(Failed), 1).await;
        check(&["abc"], Err(Failed), 0).await;
    }
}
