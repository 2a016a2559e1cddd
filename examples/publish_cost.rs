//! What limits and keys add to a publish where they are kept: in Redis. Publishes so many entries
//! each way, in turns, to a Redis of its own; nobody is in the room.
//!
//! `cargo run --release --example publish_cost`; `-- --publishes 2000 --rounds 1` is a quick look. What
//! a node adds itself is measured by `cargo bench --bench people`.

mod measured;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use clap::Parser;
use futures_util::{StreamExt, stream};
use serde_json::json;
use tailcast::relay::connection::Publish;
use tailcast::relay::entry::RoomName;
use tailcast::relay::hub::{self, Relay};
use tailcast::relay::log::{AppendError, Limit};
use tailcast::store::redis::{RedisLog, Settings};
use tokio::runtime::Builder;

use self::measured::{OwnRedis, load};

/// Users whose limits are in use. Each is one small key in Redis.
const USERS: usize = 1_000;

#[derive(Parser)]
struct Args {
    /// Publishes of each kind and round
    #[arg(long, default_value_t = 50_000)]
    publishes: usize,
    /// How many rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Publishes under way at a time: 1 shows how long each takes, many how many there can be
    #[arg(long, default_value_t = 64)]
    in_flight: usize,
}

/// How to publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Plain,
    OneLimit,
    TwoLimits,
    Refused,
    Key,
    KeyAgain,
    KeyAndLimit,
}

impl Way {
    const ALL: [(Way, &'static str); 7] = [
        (Way::Plain, "plain"),
        (Way::OneLimit, "one limit"),
        (Way::TwoLimits, "two limits"),
        (Way::Refused, "refused by a limit"),
        (Way::Key, "idempotency key"),
        (Way::KeyAgain, "a key's repeat"),
        (Way::KeyAndLimit, "key and one limit"),
    ];

    fn publish(self, room: &RoomName, round: usize, number: usize) -> Publish {
        // As loose as they get. Each user publishes too little here to be refused.
        let user = |kind: &str| Limit {
            name: format!("{kind}:user-{}", number % USERS).into(),
            interval: Duration::from_millis(1),
            burst: 10_000,
        };
        let limits = match self {
            Way::Plain | Way::Key | Way::KeyAgain => Vec::new(),
            Way::OneLimit | Way::KeyAndLimit => vec![user("user")],
            Way::TwoLimits => vec![user("slow"), user("user")],
            Way::Refused => vec![Limit {
                name: "spent".into(),
                interval: Duration::from_secs(3_600),
                burst: 1,
            }],
        };
        let key = match self {
            Way::Key | Way::KeyAndLimit => Some(format!("{self:?}-{round}-{number}").into()),
            Way::KeyAgain => Some("the same".into()),
            _ => None,
        };
        Publish {
            limits: limits.into(),
            key,
            ..Publish::new(room.clone(), fields())
        }
    }
}

/// What so many publishes of one kind took.
#[derive(Default, Clone, Copy)]
struct Cost {
    publishes: usize,
    time: Duration,
    redis: Duration,
}

impl Cost {
    fn micros(&self, of: Duration) -> f64 {
        of.as_secs_f64() * 1e6 / self.publishes.max(1) as f64
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.publishes > 0 && args.rounds > 0 && args.in_flight > 0);
    let redis = OwnRedis::start()?;
    let load_before = load();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut costs = [Cost::default(); Way::ALL.len()];
    runtime.block_on(async {
        let log = RedisLog::start(Settings {
            url: redis.url(),
            ..Settings::default()
        })?;
        let relay = Relay::new(log, hub::Settings::default());
        let room = RoomName::parse("room")?;
        // Connects, loads scripts, and spends the limit that refuses.
        for (way, _) in Way::ALL {
            let _ = relay.publish(way.publish(&room, usize::MAX, 0)).await;
        }
        for round in 0..args.rounds {
            for ((way, _), cost) in Way::ALL.into_iter().zip(&mut costs) {
                let (cpu, began) = (redis.cpu()?, Instant::now());
                publish(&relay, &room, way, round, &args).await?;
                cost.time += began.elapsed();
                cost.redis += redis.cpu()?.saturating_sub(cpu);
                cost.publishes += args.publishes;
            }
        }
        anyhow::Ok(())
    })?;
    report(&args, &costs, &load_before);
    Ok(())
}

/// Publishes all of a round.
async fn publish(
    relay: &Arc<Relay>,
    room: &RoomName,
    way: Way,
    round: usize,
    args: &Args,
) -> Result<()> {
    let mut outcomes = stream::iter(0..args.publishes)
        .map(|number| relay.publish(way.publish(room, round, number)))
        .buffer_unordered(args.in_flight);
    while let Some(outcome) = outcomes.next().await {
        match (way, outcome) {
            (Way::Refused, Err(AppendError::TooFast { .. })) => {}
            (Way::Refused, outcome) => ensure!(outcome.is_err(), "the limit let one pass"),
            (_, outcome) => {
                outcome?;
            }
        }
    }
    Ok(())
}

/// A short chat line.
fn fields() -> Box<[(Bytes, Bytes)]> {
    let message = Bytes::from(vec![b'x'; 100]);
    Box::new([(Bytes::from_static(b"message"), message)])
}

fn report(args: &Args, costs: &[Cost], load_before: &str) {
    println!(
        "{} publishes of each kind in {} rounds, {} under way at a time; load {load_before} before, {} after",
        args.publishes * args.rounds,
        args.rounds,
        args.in_flight,
        load()
    );
    println!();
    println!("| | publishes/s | µs each | Redis µs each | Redis, to plain |");
    println!("|---|---|---|---|---|");
    let plain = costs.first().map_or(1.0, |cost| cost.micros(cost.redis));
    let mut ways = Vec::new();
    for ((_, name), cost) in Way::ALL.iter().zip(costs) {
        let (time, redis) = (cost.micros(cost.time), cost.micros(cost.redis));
        let ratio = redis / plain.max(1e-9);
        println!(
            "| {name} | {:.0} | {time:.1} | {redis:.1} | {ratio:.2} |",
            1e6 / time
        );
        let hundredths = |number: f64| (number * 100.0).round() / 100.0;
        ways.push(json!({
            "way": name, "micros": hundredths(time), "redis_micros": hundredths(redis),
            "redis_ratio": hundredths(ratio),
        }));
    }
    println!();
    println!(
        "{}",
        json!({
            "publishes": args.publishes, "rounds": args.rounds, "in_flight": args.in_flight,
            "load": [load_before, load()], "ways": ways,
        })
    );
}
