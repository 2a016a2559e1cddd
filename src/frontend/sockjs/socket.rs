//! A session over a WebSocket: whatever dialogue it carries, with SockJS's framing around it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::framing::{HEARTBEAT, Messages, OPEN};
use super::session;
use crate::frontend::websocket::frame::{Opcode, frame};
use crate::frontend::websocket::{Dialogue, Inbound};
use crate::frontend::{FrontendState, Socket};
use crate::relay::close::CloseReason;
use crate::relay::outlet::Outlet;

/// Close code of RFC 6455, 7.4.1: what came is not what it should be.
const INVALID_DATA: u16 = 1007;

/// The first frame of a session. Nothing may come before it, not even the session's end.
pub(super) fn open(socket: &Socket) -> io::Result<()> {
    let frame = frame(Opcode::Text, OPEN.as_bytes());
    match socket.wire().try_write(&frame)? {
        written if written == frame.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Takes arrays of messages in, for the dialogue under it.
pub(super) struct Framed<D> {
    under: D,
    beat: Instant,
}

impl<D: Dialogue> Framed<D> {
    /// A session for a dialogue that already speaks in arrays.
    pub(super) fn new(under: D) -> Self {
        Framed {
            under,
            beat: Instant::now() + session::HEARTBEAT,
        }
    }

    fn say(&self, text: &str) {
        let frame: Bytes = frame(Opcode::Text, text.as_bytes());
        self.outlet().send(frame);
    }
}

impl<D: Dialogue> Dialogue for Framed<D> {
    fn state(&self) -> &Arc<FrontendState> {
        self.under.state()
    }

    fn outlet(&self) -> &Arc<Outlet> {
        self.under.outlet()
    }

    async fn ready(&mut self) {
        self.under.ready().await;
    }

    fn on_frame(&mut self, inbound: Inbound<'_>, now: Instant) {
        let text = match inbound {
            Inbound::Text(text) => text.as_bytes(),
            Inbound::Binary(bytes) => bytes,
        };
        // Some clients send nothing as a sign of life.
        if text.is_empty() {
            return;
        }
        match Messages::read(text) {
            Some(Messages(messages)) => {
                for message in messages {
                    self.under.on_frame(Inbound::Text(&message), now);
                }
            }
            // Its end has no words of SockJS's own.
            None => {
                let payload = [&INVALID_DATA.to_be_bytes()[..], b"Broken JSON encoding."];
                let end = frame(Opcode::Close, &payload.concat());
                self.outlet().close_with(CloseReason::Gone, end);
            }
        }
    }

    fn on_received(&mut self, now: Instant) {
        self.under.on_received(now);
    }

    fn on_paused(&mut self, now: Instant) {
        self.under.on_paused(now);
    }

    fn check(&mut self, now: Instant) -> Option<Instant> {
        if now >= self.beat {
            self.beat = now + session::HEARTBEAT;
            self.say(HEARTBEAT);
        }
        let then = self.under.check(now);
        Some(then.map_or(self.beat, |then| then.min(self.beat)))
    }

    fn reschedules(&self) -> bool {
        self.under.reschedules()
    }

    fn say_bye(&mut self, retry_ms: u64) {
        self.under.say_bye(retry_ms);
    }

    async fn settled(&mut self) {
        self.under.settled().await;
    }
}
