//! `tailcast bench`: loads a server with sockets and entries, and says what came of it.
//!
//! It measures any server that speaks one of [`Proto`], so that tailcast and its peers are driven
//! by the same client. Payloads carry a marker that is found in the byte stream whatever is around
//! it; see `marker.rs` for its layout.

mod crowd;
mod frames;
mod marker;
mod measure;
mod process;
mod report;
mod socket;
mod source;
mod tally;

use std::io::Write;

use anyhow::{Result, ensure};

use self::measure::Bench;

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Proto {
    /// Plain WebSocket, the room in the URL: tailcast, and most hand-written servers.
    Raw,
    /// JSON over WebSocket: tailcast.
    Json,
    /// Server-sent events.
    Sse,
    /// Socket.IO over WebSocket, the room in the URL: tailcast.
    Socketio,
    /// STOMP over WebSocket: tailcast.
    Stomp,
    /// STOMP over SockJS over WebSocket: tailcast.
    Sockjs,
    /// Socket.IO with its Redis Streams adapter.
    SocketioAdapter,
    /// NATS over WebSocket.
    Nats,
}

/// Which way entries go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Through {
    /// Straight into Redis with XADD.
    Redis,
    /// Through the first socket of each room.
    Sockets,
}

/// Measures a running server.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Server to measure, as ws://host:port. Several share the sockets evenly
    #[arg(long, default_value = "ws://127.0.0.1:8080", value_delimiter = ',')]
    pub url: Vec<String>,

    /// What it speaks
    #[arg(long, value_enum, default_value = "raw")]
    pub proto: Proto,

    /// Path of a socket; {room} is the room's name, {socket} its number [default: what the protocol wants]
    #[arg(long)]
    pub path: Option<String>,

    /// Sockets
    #[arg(long, default_value_t = 1_000)]
    pub sockets: usize,

    /// Rooms that the sockets share out among them
    #[arg(long, default_value_t = 1)]
    pub rooms: usize,

    /// Entries per second, in all rooms together
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,

    /// Bytes per entry, at least 37
    #[arg(long, default_value_t = 128)]
    pub size: usize,

    /// Seconds to measure
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,

    /// Seconds to run before that
    #[arg(long, default_value_t = 2.0)]
    pub warm_up: f64,

    /// Which way entries go in
    #[arg(long, value_enum, default_value = "redis")]
    pub through: Through,

    /// The server's Redis
    #[arg(long, default_value = "redis://127.0.0.1:6379")]
    pub redis: String,

    /// The NATS server's TCP address
    #[arg(long, default_value = "127.0.0.1:4222")]
    pub nats: String,

    /// Publish as fast as deliveries keep up, instead of --rate
    #[arg(long)]
    pub saturate: bool,

    /// Entries on their way at a time at most, with --saturate
    #[arg(long, default_value_t = 1_000)]
    pub window: u64,

    /// So many of the sockets never read
    #[arg(long, default_value_t = 0)]
    pub stalled: usize,

    /// Only connect: resident memory per socket, before and after one broadcast of 32 KB
    #[arg(long, requires = "pid", conflicts_with_all = ["saturate", "resume", "stalled"])]
    pub idle: bool,

    /// Cut all sockets, publish --missed entries, and let all come back where they were
    #[arg(long, conflicts_with_all = ["saturate", "stalled"])]
    pub resume: bool,

    /// Entries per room that the sockets miss, with --resume
    #[arg(long, default_value_t = 100)]
    pub missed: usize,

    /// Process to measure; several are added up
    #[arg(long, value_delimiter = ',')]
    pub pid: Vec<u32>,

    /// Process of the Redis server
    #[arg(long)]
    pub redis_pid: Option<u32>,

    /// Threads that read the sockets
    #[arg(long, default_value_t = 1)]
    pub threads: usize,

    /// Sockets that connect at a time
    #[arg(long, default_value_t = 200)]
    pub parallel: usize,

    /// Rooms are named so, with a number after it
    #[arg(long, default_value = "bench-")]
    pub room_prefix: String,

    /// XADD keeps about so many entries per room; 0 keeps all
    #[arg(long, default_value_t = 10_000)]
    pub keep: usize,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Measures, and prints the figures to standard output. Progress goes to standard error.
pub async fn run(args: BenchArgs) -> Result<()> {
    ensure!(args.sockets > 0, "--sockets is at least 1");
    ensure!(
        (1..=args.sockets).contains(&args.rooms),
        "--rooms is at least 1 and at most --sockets"
    );
    ensure!(
        args.stalled < args.sockets,
        "--stalled leaves at least one socket that reads"
    );
    ensure!(
        args.threads > 0 && args.parallel > 0 && args.window > 0,
        "--threads, --parallel and --window are at least 1"
    );
    ensure!(args.rate > 0.0, "--rate is above 0");
    ensure!(
        args.duration > 0.0 && args.warm_up >= 0.0,
        "--duration is above 0, --warm-up not below"
    );
    ensure!(
        !args.resume || args.proto == Proto::Raw,
        "--resume needs --proto raw"
    );
    ensure!(
        args.through == Through::Redis || args.proto == Proto::Raw,
        "--through sockets needs --proto raw"
    );
    let json = args.json;
    let report = Bench::prepare(args).await?.run().await?;
    let text = if json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        report.to_string()
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
