//! The relay inside an axum app of one's own: `cargo run --example embed`, then open a socket at
//! `ws://127.0.0.1:3000/live/rooms/lobby`.
//!
//! Entries are kept in memory here; give [`Relay::new`] another `Log` for Redis. Under
//! `axum::serve` a connection costs more memory than under tailcast's own `Server`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tailcast::frontend::{self, FrontendState};
use tailcast::relay::connection::Publish;
use tailcast::relay::entry::RoomName;
use tailcast::relay::hub::{Relay, Settings};
use tailcast::store::memory::{self, MemoryLog};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let log = Arc::new(MemoryLog::new(memory::Settings::default()));
    let relay = Relay::new(log.clone(), Settings::default());
    let lobby = RoomName::parse("lobby")?;
    let state =
        FrontendState::trusting(relay.clone(), log, frontend::Settings::new(lobby.clone()))?;

    let app = Router::new()
        .route(
            "/",
            get(|| async { "an app; rooms are at /live/rooms/{room}\n" }),
        )
        .nest("/live", tailcast::server::router(state.clone()));

    // The app's own code publishes through the same relay.
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        loop {
            ticks.tick().await;
            let fields = [("message".into(), "tick".into())];
            if let Err(error) = relay
                .publish(Publish::new(lobby.clone(), Box::new(fields)))
                .await
            {
                eprintln!("{error}");
            }
        }
    });

    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = tokio::signal::ctrl_c().await;
            // axum waits for its connections, and long-lived ones end only if they are told to.
            state.drain.begin(Duration::from_secs(10));
        })
        .await?;
    Ok(())
}
