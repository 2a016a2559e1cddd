//! The endpoints that the SockJS protocol's own test suite expects of a server: `/echo`, `/close`,
//! `/disabled_websocket_echo` and `/cookie_needed_echo`, on tailcast's SockJS.
//!
//! `cargo run --example sockjs_echo` listens on 127.0.0.1:8081, where the suite looks for it; another
//! address may be given.

use std::sync::Arc;
use std::time::Duration;

use tailcast::drain::Stop;
use tailcast::frontend::sockjs;
use tailcast::frontend::{FrontendState, Settings};
use tailcast::relay::entry::RoomName;
use tailcast::relay::hub::Relay;
use tailcast::server::{self, Server};
use tailcast::store::memory::MemoryLog;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "127.0.0.1:8081".to_owned());
    let log = Arc::new(MemoryLog::new(Default::default()));
    let relay = Relay::new(log.clone(), Default::default());
    let settings = Settings {
        // As the suite's requests say they come from a page at `test`.
        allowed_origins: "*".parse()?,
        ..Settings::new(RoomName::parse("lobby")?)
    };
    let state = FrontendState::trusting(relay, log, settings)?;
    let listener = tokio::net::TcpListener::bind(&address).await?;
    eprintln!("SockJS echoes on http://{}", listener.local_addr()?);
    let limits = server::Settings {
        drain_timeout: Duration::from_secs(1),
        ..server::Settings::default()
    };
    let router = sockjs::profile(state.clone());
    let server = Server::with_router(limits, router, &state, vec![listener]);
    server.run(Stop::on_signals()?).await;
    Ok(())
}
