//! `tailcast bench` alone: drives a running server, which need not be tailcast.

use clap::Parser;
use tailcast::bench::{BenchArgs, run};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    bench: BenchArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Command::parse().bench, None).await
}
