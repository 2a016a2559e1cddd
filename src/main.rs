//! Stand-in until the settings land.
use std::sync::Arc;
use tailcast::{frontend, relay, server, store};
fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let args: Vec<String> = std::env::args().collect();
        let flag = |name: &str| {
            args.iter()
                .position(|a| a == name)
                .and_then(|i| args.get(i + 1))
                .cloned()
        };
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
        let log: Arc<dyn relay::log::Log> = match flag("--redis") {
            Some(url) => store::redis::RedisLog::start(store::redis::Settings {
                url,
                tail_mode: match flag("--tail").as_deref() {
                    Some("track") => store::redis::TailMode::Track,
                    Some("block") => store::redis::TailMode::Block,
                    _ => store::redis::TailMode::Auto,
                },
                ..Default::default()
            })?,
            None => Arc::new(store::memory::MemoryLog::new(Default::default())),
        };
        let relay = relay::hub::Relay::new(log, relay::hub::Settings::default());
        let state = frontend::FrontendState::new(
            relay,
            frontend::Settings::new(relay::entry::RoomName::parse("mystream")?),
        );
        let listener =
            tokio::net::TcpListener::bind(flag("--listen").unwrap_or("127.0.0.1:8080".into()))
                .await?;
        let settings = server::Settings {
            max_sockets: 0,
            handshake_timeout: std::time::Duration::from_secs(5),
            drain_timeout: std::time::Duration::from_secs(30),
        };
        server::raise_file_limit();
        let ended = server::Server::new(settings, state, vec![listener])
            .run(tailcast::drain::Stop::on_signals()?)
            .await;
        eprintln!("{ended:?}");
        Ok(())
    })
}
