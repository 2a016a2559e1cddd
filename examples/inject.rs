//! Publishes with nothing but the redis crate: a room is a stream, so XADD is all it takes.
//!
//! `cargo run --example inject -- lobby hello`; the server is `$TAILCAST_REDIS`, or the local one.

use redis::AsyncCommands;
use redis::streams::StreamMaxlen;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let room = args.next().unwrap_or_else(|| "mystream".to_owned());
    let message = args.next().unwrap_or_else(|| "hello".to_owned());
    let url = std::env::var("TAILCAST_REDIS").unwrap_or_else(|_| "redis://127.0.0.1:6379".into());

    let client = redis::Client::open(url)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    // Raw sockets show the field `message`; JSON sockets and server-sent events show all fields.
    let id: String = redis
        .xadd_maxlen(
            &room,
            StreamMaxlen::Approx(10_000),
            "*",
            &[("message", message.as_str()), ("by", "inject")],
        )
        .await?;
    println!("{room} {id}");
    Ok(())
}
