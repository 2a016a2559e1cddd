//! A server for the protocol's own suites, which are in the repository of socket.io, under `docs/`: it
//! answers what it's sent, over tailcast's transports and packets, in place of rooms.
//!
//! ```text
//! cargo run --example socketio_echo               for the suite of Socket.IO
//! cargo run --example socketio_echo -- --engine   for that of Engine.IO
//! ```
//!
//! Both suites look for it on port 3000 of localhost; another may be given behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tailcast::drain::Stop;
use tailcast::frontend::socketio::{self, Profile};
use tailcast::frontend::{FrontendState, Settings};
use tailcast::relay::entry::RoomName;
use tailcast::relay::hub::{self, Relay};
use tailcast::server::{self, Server};
use tailcast::store::memory::{self, MemoryLog};
use tokio::net::TcpListener;

/// What the suites expect.
#[derive(Debug)]
struct Echo {
    is_raw: bool,
}

impl Profile for Echo {
    fn is_raw(&self) -> bool {
        self.is_raw
    }

    fn on_connect(&self, namespace: &str, auth: &str) -> Option<String> {
        ["/", "/custom"]
            .contains(&namespace)
            .then(|| format!("[\"auth\",{auth}]"))
    }

    fn on_event(&self, name: &str) -> Option<String> {
        (name == "message").then(|| "message-back".to_owned())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let is_raw = arguments.iter().any(|argument| argument == "--engine");
    let port = arguments.iter().find_map(|argument| argument.parse().ok());
    let log = Arc::new(MemoryLog::new(memory::Settings::default()));
    let relay = Relay::new(log.clone(), hub::Settings::default());
    let settings = Settings {
        socketio: socketio::Settings {
            path: if is_raw { "/engine.io" } else { "/socket.io" }.to_owned(),
            ping_interval: Duration::from_millis(300),
            ping_timeout: Duration::from_millis(200),
            connect_timeout: Duration::from_millis(1_000),
            profile: Some(Arc::new(Echo { is_raw })),
            ..socketio::Settings::default()
        },
        ..Settings::new(RoomName::parse("echo")?)
    };
    let state = FrontendState::trusting(relay, log, settings)?;
    let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(3000))).await?;
    println!("listening on {}", listener.local_addr()?);
    let settings = server::Settings {
        drain_timeout: Duration::from_secs(1),
        ..server::Settings::default()
    };
    let server = Server::new(settings, state, vec![listener]);
    server.run(Stop::on_signals()?).await;
    Ok(())
}
