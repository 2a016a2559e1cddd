//! An Engine.IO session over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::client::{Client, Hello};
use super::heartbeat::{Beat, Heartbeat};
use super::payload::{Packet, text_packet};
use super::{Settings, opening};
use crate::frontend::carrier::Carrier;
use crate::frontend::websocket::{self, Dialogue, Inbound, Times};
use crate::frontend::{FrontendState, Socket, Taken};
use crate::metrics::Kind;
use crate::relay::close::CloseReason;
use crate::relay::outlet::Outlet;

/// What is spoken over the socket.
pub(super) struct Talk {
    client: Client,
    heartbeat: Heartbeat,
}

/// Runs a session that begins with a WebSocket, to its end. As all that an idle socket keeps is what
/// comes back, this is no `async fn`, which would keep its arguments as well.
pub(super) fn run(
    state: Arc<FrontendState>,
    hello: Hello,
    sid: &str,
    taken: Taken,
) -> BoxFuture<'static, ()> {
    let carrier = Carrier::over(taken.socket.wire());
    let client = Client::new(state, &carrier, hello);
    client.send(&opening(&client.state.settings.socketio, sid, false));
    go_on(client, taken.socket, taken.read_ahead)
}

/// Goes on over a WebSocket with a client that may have begun otherwise.
pub(super) fn go_on(client: Client, socket: Socket, read_ahead: Bytes) -> BoxFuture<'static, ()> {
    let settings = &client.state.settings.socketio;
    let (interval, max_payload) = (settings.ping_interval, settings.max_payload);
    let talk = Talk {
        client,
        heartbeat: Heartbeat::new(Instant::now(), interval),
    };
    websocket::run(socket, read_ahead, max_payload, Kind::Socketio, talk)
}

impl Talk {
    fn settings(&self) -> &Settings {
        &self.client.state.settings.socketio
    }
}

impl Dialogue for Talk {
    const LIMIT: &'static str = "--socketio-max-payload";

    fn state(&self) -> &Arc<FrontendState> {
        &self.client.state
    }

    fn outlet(&self) -> &Arc<Outlet> {
        self.client.outlet()
    }

    async fn ready(&mut self) {
        self.client.ready().await;
    }

    fn on_frame(&mut self, inbound: Inbound<'_>, now: Instant) {
        let text = match inbound {
            Inbound::Text(text) => text,
            Inbound::Binary(bytes) => return self.client.on_binary(bytes),
        };
        match text_packet(text) {
            Ok(Packet::Text(text)) => self.client.on_text(text),
            Ok(Packet::Pong) => {
                let interval = self.settings().ping_interval;
                self.heartbeat.on_pong(now, interval);
            }
            Ok(Packet::Ping(text)) => self.client.send(&format!("3{text}")),
            Ok(Packet::Close) => self.client.close(CloseReason::Gone),
            Ok(Packet::Upgrade | Packet::Noop | Packet::Binary(_)) => {}
            Err(error) => {
                let text = error.to_string().into();
                self.client.close(CloseReason::BadRequest(text));
            }
        }
    }

    fn on_paused(&mut self, now: Instant) {
        let timeout = self.settings().ping_timeout;
        self.heartbeat.on_unheard(now, timeout);
    }

    fn check(&mut self, now: Instant) -> Option<Instant> {
        let timeout = self.settings().ping_timeout;
        let is_blocked = self.client.outlet().is_blocked();
        let then = match self.heartbeat.check(now, is_blocked, timeout) {
            Beat::Wait(then) => then,
            Beat::Ping(then) => {
                self.client.send("2");
                then
            }
            Beat::Over => {
                let text = "no answer to a ping".into();
                self.client.close(CloseReason::Timeout(text));
                now + timeout
            }
        };
        let next = self.client.check(now);
        Some(next.map_or(then, |next| next.min(then)))
    }

    fn say_bye(&mut self, retry_ms: u64) {
        self.client.say_bye(retry_ms);
    }

    async fn settled(&mut self) {
        self.client.settled().await;
    }

    /// The protocol has pings of its own.
    fn times(&self) -> Times {
        Times {
            ping: Duration::ZERO,
            pong: self.settings().ping_timeout,
            idle: self.client.state.settings.idle_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::carrier::Lane;
    use crate::frontend::socketio::stamp::Stamp;

    #[test]
    fn idle_sockets_are_small() {
        let sizes = [
            websocket::size_of_loop::<Talk>(),
            size_of::<Hello>(),
            size_of::<Lane<Stamp>>(),
            size_of::<Carrier>(),
        ];
        assert!(sizes.iter().sum::<usize>() <= 1_728, "{sizes:?} bytes");
    }
}
