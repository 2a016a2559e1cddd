//! The stream that tungstenite sees: reads from the socket, writes into the connection's outlet.
//!
//! So tungstenite keeps the protocol's rules (masking, UTF-8, fragments, pongs, the close
//! handshake) while everything that goes out shares one queue, and no write buffer per socket grows.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use super::frame::{OPCODE, Opcode};
use super::pace::Pace;
use crate::frontend::record::frame_length;
use crate::frontend::socket::Socket;
use crate::relay::close::CloseReason;
use crate::relay::outlet::Outlet;

/// The read buffer of one socket, allocated as long as it lives. Most frames in are smaller; a
/// larger one grows the buffer.
const READ_BUFFER: usize = 512;

/// Bytes read at most before other connections get their turn, however fast a client sends.
const READ_TURN: usize = 64 * 1024;

/// The socket one way, the outlet the other.
pub(crate) struct Io {
    pub(crate) socket: Socket,
    outlet: Arc<Outlet>,
    /// What came with the handshake, or is held back.
    read_ahead: Bytes,
    pace: Pace,
    /// What may still be read in this turn.
    budget: usize,
    /// Whether anything came since last asked.
    received: bool,
}

/// A server's WebSocket on a socket whose handshake is done. A message has at most `max_frame` bytes; frames are
/// read no faster than `frame_rate` per second, 0 being no limit.
pub(crate) fn websocket(
    socket: Socket,
    outlet: Arc<Outlet>,
    read_ahead: Bytes,
    max_frame: usize,
    frame_rate: u32,
) -> WebSocket<Io> {
    let io = Io {
        socket,
        outlet,
        read_ahead,
        pace: Pace::new(frame_rate, Instant::now()),
        budget: READ_TURN,
        received: false,
    };
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Whole frames at once, as the outlet wants them.
        .write_buffer_size(0)
        .max_message_size(Some(max_frame))
        .max_frame_size(Some(max_frame));
    WebSocket::from_raw_socket(io, Role::Server, Some(config))
}

impl Io {
    /// Ends a turn: whether it ended for lack of budget, so that there may be more to read.
    pub(crate) fn end_turn(&mut self) -> bool {
        let spent = self.budget == 0;
        self.budget = READ_TURN;
        spent
    }

    /// When reading may go on, if it was the pace that ended it.
    pub(crate) fn take_pause(&mut self) -> Option<Instant> {
        self.pace.take_pause(Instant::now())
    }

    /// From now on nothing that comes is held back, for whoever reads it only to forget it.
    pub(crate) fn end_pace(&mut self) {
        self.pace.end();
    }

    /// Whether anything came since this was asked last, complete or not.
    pub(crate) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }
}

impl Read for Io {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.budget);
        if most == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let buffer = &mut buffer[..most];
        let count = if self.read_ahead.is_empty() {
            let came = self.socket.try_read(buffer)?;
            self.received |= came > 0;
            let count = self.pace.admit(&buffer[..came], Instant::now);
            self.read_ahead = Bytes::copy_from_slice(&buffer[count..came]);
            if came > 0 && count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            count
        } else {
            let came = self.read_ahead.len().min(most);
            let count = self.pace.admit(&self.read_ahead[..came], Instant::now);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.received = true;
            self.read_ahead.copy_to_slice(&mut buffer[..count]);
            if self.read_ahead.is_empty() {
                // An emptied slice would keep its allocation.
                self.read_ahead = Bytes::new();
            }
            count
        };
        self.budget -= count;
        Ok(count)
    }
}

impl Write for Io {
    /// Takes one or more whole frames: pongs, and the answer to a close frame. That answer is the
    /// connection's last frame, so the outlet closes with it (RFC 6455, 5.5.1).
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        let mut rest = frames;
        while let Some(first) = rest.first() {
            let length = frame_length(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
            let (frame, behind) = rest
                .split_at_checked(length)
                .ok_or(io::ErrorKind::InvalidInput)?;
            let bytes = Bytes::copy_from_slice(frame);
            match first & OPCODE {
                code if code == Opcode::Close as u8 => {
                    self.outlet.close_with(CloseReason::Gone, bytes);
                }
                _ => self.outlet.send(bytes),
            }
            rest = behind;
        }
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
