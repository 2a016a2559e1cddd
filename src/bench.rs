//! `tailcast bench`: loads a server with sockets and entries, and says what came of it.
//!
//! It measures any server that speaks one of [`Proto`], so that tailcast and its peers are driven
//! by the same client. Payloads carry a marker that is found in the byte stream whatever is around
//! it; see `marker.rs` for its layout.

mod crowd;
mod frames;
mod leftovers;
mod marker;
mod measure;
mod process;
mod progress;
mod protocols;
mod report;
mod servers;
mod socket;
mod source;
mod tally;

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Result, anyhow, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::leftovers::Leftovers;
use self::measure::Bench;

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
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

impl Proto {
    /// Those that tailcast speaks; the first one is what the others are held against.
    const TAILCAST: [Proto; 6] = [
        Proto::Raw,
        Proto::Json,
        Proto::Sse,
        Proto::Socketio,
        Proto::Stomp,
        Proto::Sockjs,
    ];
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// What is measured: one protocol, or several beside the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protos(Vec<Proto>);

/// A list of protocols that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ProtosError {
    /// A word that names none.
    #[error("`{0}` is no protocol; write some of {known}, or all", known = known())]
    Unknown(String),
    /// A protocol of another server beside others.
    #[error("`{0}` is not spoken by tailcast; measure it alone")]
    Alone(Proto),
}

impl FromStr for Protos {
    type Err = ProtosError;

    /// Names between commas, or `all` for those of tailcast. Beside others, raw is always there.
    fn from_str(text: &str) -> Result<Self, ProtosError> {
        let mut protos = Vec::new();
        for name in text.split(',') {
            let named = match name {
                "all" => Proto::TAILCAST.to_vec(),
                name => vec![
                    <Proto as ValueEnum>::from_str(name, false)
                        .map_err(|_| ProtosError::Unknown(name.to_owned()))?,
                ],
            };
            for proto in named {
                if !protos.contains(&proto) {
                    protos.push(proto);
                }
            }
        }
        if protos.len() > 1 {
            if let Some(other) = protos.iter().find(|it| !Proto::TAILCAST.contains(it)) {
                return Err(ProtosError::Alone(*other));
            }
            if !protos.contains(&Proto::Raw) {
                protos.insert(0, Proto::Raw);
            }
        }
        Ok(Protos(protos))
    }
}

/// Names of all protocols.
fn known() -> String {
    let names: Vec<String> = Proto::value_variants()
        .iter()
        .map(Proto::to_string)
        .collect();
    names.join(", ")
}

/// Which way entries go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Through {
    /// Straight into Redis with XADD.
    Redis,
    /// Through the first socket of each room.
    Sockets,
}

/// Measures a running server, or what each protocol costs.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// Server to measure, as ws://host:port. Several share the sockets evenly [default:
    /// ws://127.0.0.1:8080, and with several --proto a node of its own for each figure]
    #[arg(long, value_delimiter = ',')]
    pub url: Vec<String>,

    /// What it speaks: raw, json, sse, socketio, stomp, sockjs, or of other servers
    /// socketio-adapter or nats. Several between commas, or all that tailcast speaks with `all`,
    /// make a table: memory per idle socket (of five times as many), CPU per delivery and latency,
    /// beside the first
    #[arg(long, default_value = "raw")]
    pub proto: Protos,

    /// With several --proto, measure all so often, and take the middle ones
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: u16,

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

    /// The server's Redis [default: redis://127.0.0.1:6379, and with several --proto and no --url
    /// one started for them]
    #[arg(long)]
    pub redis: Option<String>,

    /// The NATS server's TCP address
    #[arg(long, default_value = "127.0.0.1:4222")]
    pub nats: String,

    /// Publish as fast as deliveries keep up, instead of --rate; with several --proto, as well
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

    /// Rooms are named so, with a number after it; those that were not there before are removed at the end
    #[arg(long, default_value = "bench-")]
    pub room_prefix: String,

    /// XADD keeps about so many entries per room; 0 keeps all
    #[arg(long, default_value_t = 10_000)]
    pub keep: usize,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl BenchArgs {
    /// The server's Redis.
    fn redis(&self) -> &str {
        self.redis.as_deref().unwrap_or("redis://127.0.0.1:6379")
    }

    /// The rooms of a run.
    fn room_names(&self) -> Vec<String> {
        let number = |number| format!("{}{number}", self.room_prefix);
        (0..self.rooms).map(number).collect()
    }

    /// Whether a Redis is started for the run, and ends with it.
    fn has_own_redis(&self) -> bool {
        self.proto.0.len() > 1 && self.url.is_empty() && self.redis.is_none()
    }
}

/// Measures, and prints the figures to standard output. Progress goes to standard error. `tailcast`
/// is the program to start nodes of, where several protocols are measured and no server is named;
/// that is to be done on the main thread, as they end with the thread that started them.
pub async fn run(args: BenchArgs, tailcast: Option<&Path>) -> Result<()> {
    check(&args)?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let leftovers = Leftovers::before(&args).await;
    let text = tokio::select! {
        text = measure(args, tailcast) => text,
        _ = interrupt.recv() => Err(anyhow!("stopped")),
        _ = terminate.recv() => Err(anyhow!("stopped")),
        _ = hang_up.recv() => Err(anyhow!("stopped")),
    };
    leftovers.remove().await;
    std::io::stdout().write_all(text?.as_bytes())?;
    Ok(())
}

async fn measure(mut args: BenchArgs, tailcast: Option<&Path>) -> Result<String> {
    let json = args.json;
    match *args.proto.0 {
        [proto] => {
            if args.url.is_empty() {
                args.url.push("ws://127.0.0.1:8080".to_owned());
            }
            print(&Bench::prepare(args, proto).await?.run().await?, json)
        }
        _ => print(&protocols::compare(args, tailcast).await?, json),
    }
}

fn print<T: Serialize + fmt::Display>(report: &T, json: bool) -> Result<String> {
    Ok(match json {
        true => serde_json::to_string_pretty(report)? + "\n",
        false => report.to_string(),
    })
}

/// What the flags can't say of each other by themselves.
fn check(args: &BenchArgs) -> Result<()> {
    let is_raw = args.proto.0 == [Proto::Raw];
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
    ensure!(!args.resume || is_raw, "--resume needs --proto raw");
    ensure!(
        args.through == Through::Redis || is_raw,
        "--through sockets needs --proto raw"
    );
    if args.proto.0.len() > 1 {
        ensure!(
            !args.idle && args.path.is_none(),
            "--idle and --path are for one --proto; with several, memory is measured anyway"
        );
        ensure!(
            args.pid.is_empty() || !args.url.is_empty(),
            "--pid needs --url; without, each --proto gets a node of its own"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_protocols() {
        use Proto::{Json, Nats, Raw, Sse};
        for (text, want) in [
            ("json", Some(vec![Json])),
            ("nats", Some(vec![Nats])),
            ("sse,json", Some(vec![Raw, Sse, Json])),
            ("json,raw,json", Some(vec![Json, Raw])),
            ("all", Some(Proto::TAILCAST.to_vec())),
            ("raw,nats", None),
            ("raw,", None),
            ("", None),
            ("telnet", None),
        ] {
            let got = text.parse::<Protos>().ok().map(|protos| protos.0);
            assert_eq!(got, want, "{text}");
        }
    }
}
