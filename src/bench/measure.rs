//! The runs themselves: under load, idle, and a reconnect storm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::sleep;

use super::crowd::{Common, Crowd, Plan, Sight};
use super::process::{command_calls, cpu, raise_file_limit, resident};
use super::progress::Progress;
use super::report::{Latency, Losses, Report, Resume, Server};
use super::socket::Target;
use super::source::{self, Source, Way};
use super::tally::Histogram;
use super::{BenchArgs, Proto, Through};

/// Entries published at a time at most; more are the next batch's.
const BATCH: u64 = 1_000;

/// A saturated server is kept supplied for this long ahead, and no longer: a slow one would need
/// many seconds for what a fast one needs to be busy at all.
const AHEAD: Duration = Duration::from_millis(500);

/// At least so many entries are on their way to a saturated server.
const LEAST_AHEAD: u64 = 50;

/// A run is over once nothing was delivered for this long.
const QUIET: Duration = Duration::from_secs(5);

/// The broadcast after which idle memory is measured again.
const BIG: usize = 32 * 1024;

/// Memory settles before it's measured: allocators and collectors give back late.
const SETTLE: Duration = Duration::from_secs(2);

/// Entries per room before the cut of a reconnect storm, so that every socket has an ID.
const BEFORE_CUT: usize = 10;

/// Long enough for a server's tail to read what was published while nobody was there.
const TAIL_REST: Duration = Duration::from_millis(500);

/// Redis commands that read a stream.
const READS: [&str; 4] = ["xread", "xreadgroup", "xrange", "xrevrange"];

/// One run, ready to begin.
pub(super) struct Bench {
    args: BenchArgs,
    common: Common,
    rooms: Arc<[String]>,
}

/// CPU times and deliveries at one moment.
struct Moment {
    at: Instant,
    delivered: u64,
    entries: u64,
    server: Duration,
    redis: Duration,
    client: Duration,
}

impl Bench {
    pub(super) async fn prepare(args: BenchArgs, proto: Proto) -> Result<Self> {
        raise_file_limit();
        let mut targets = Vec::new();
        for url in &args.url {
            targets.push(Target::resolve(url).await?);
        }
        let rooms: Arc<[String]> = args.room_names().into();
        let common = Common {
            targets,
            rooms: rooms.clone(),
            proto,
            subprotocol: match proto {
                Proto::Raw if args.resume => Some("tailcast.json"),
                Proto::Json => Some("tailcast.json"),
                Proto::Stomp => Some("v12.stomp"),
                _ => None,
            },
            answers_when_joined: false,
            resumes: args.resume,
            epoch: Instant::now(),
            parallel: args.parallel,
            sockets: args.sockets,
        };
        Ok(Bench {
            args,
            common,
            rooms,
        })
    }

    /// The server is tailcast, which listens to a raw socket once it's in its room. Others may never
    /// answer a ping.
    pub(super) fn of_tailcast(mut self) -> Self {
        self.common.answers_when_joined = true;
        self
    }

    pub(super) async fn run(self) -> Result<Report> {
        if self.args.resume {
            self.resume().await
        } else {
            self.load().await
        }
    }

    /// Connects, publishes, measures; or, idle, connects and broadcasts once.
    async fn load(self) -> Result<Report> {
        let Bench {
            args,
            common,
            rooms,
        } = self;
        let common = Arc::new(common);
        let mut report = Report {
            mode: match (args.idle, args.saturate) {
                (true, _) => "idle",
                (_, true) => "saturate",
                _ => "rate",
            },
            sockets: args.sockets,
            rooms: args.rooms,
            size: args.size,
            client_threads: args.threads,
            ..Report::default()
        };
        let mut server = Server {
            rss_before: resident(&args.pid)?,
            ..Server::default()
        };

        let began = Instant::now();
        let mut crowd = Crowd::open(
            common.clone(),
            &plans(&args, common.proto, &rooms, None),
            args.threads,
        )?;
        let writers = connect(&mut crowd, args.sockets).await?;
        report.connect_seconds = began.elapsed().as_secs_f64();
        let way = way(&args, common.proto, writers).await?;
        let mut source = Source::new(way, rooms, args.size, args.keep, common.epoch);

        if args.idle {
            sleep(SETTLE).await;
        }
        server.rss_connected = resident(&args.pid)?;
        server.rss_max = server.rss_connected;
        let per_socket =
            |bytes: u64| bytes.saturating_sub(server.rss_before) as f64 / args.sockets as f64;
        server.rss_per_socket = per_socket(server.rss_connected);

        let (first, last) = if args.idle {
            source.restart(BIG);
            report.size = BIG;
            let first = Moment::now(&args, &crowd, &source)?;
            source.publish(args.rooms).await?;
            settle(&args, &crowd, &source).await;
            let last = Moment::now(&args, &crowd, &source)?;
            sleep(SETTLE).await;
            server.rss_per_socket_after_broadcast = Some(per_socket(resident(&args.pid)?));
            (first, last)
        } else {
            let moments = publish(&args, &crowd, &mut source, common.epoch, &mut server).await?;
            settle(&args, &crowd, &source).await;
            moments
        };
        server.rss_end = resident(&args.pid)?;
        server.rss_max = server.rss_max.max(server.rss_end);

        let seconds = (last.at - first.at).as_secs_f64();
        let deliveries = last.delivered - first.delivered;
        let server_cpu = last.server.saturating_sub(first.server).as_secs_f64();
        server.cpu_us_per_delivery = server_cpu * 1e6 / (deliveries.max(1)) as f64;
        server.core = server_cpu / seconds;
        report.seconds = seconds;
        report.entries_per_second = (last.entries - first.entries) as f64 / seconds;
        report.deliveries = deliveries;
        report.deliveries_per_second = deliveries as f64 / seconds;
        report.client_core = last.client.saturating_sub(first.client).as_secs_f64() / seconds;
        report.redis_core = args
            .redis_pid
            .map(|_| last.redis.saturating_sub(first.redis).as_secs_f64() / seconds);
        report.server = (!args.pid.is_empty()).then_some(server);

        let disconnected = crowd.live.disconnected();
        let sights = crowd.cut().await?;
        report.losses = losses(&sights, &source, disconnected);
        let mut latency = Histogram::new();
        for sight in &sights {
            latency.merge(&sight.latency);
        }
        report.latency_ms = (!args.idle).then(|| Latency {
            p50: latency.quantile_ms(0.5),
            p99: latency.quantile_ms(0.99),
            p999: latency.quantile_ms(0.999),
            max: latency.max_ms(),
        });
        Ok(report)
    }

    /// Cuts all sockets, publishes, and times how they catch up.
    async fn resume(self) -> Result<Report> {
        let Bench {
            args,
            common,
            rooms,
        } = self;
        let common = Arc::new(common);
        let mut redis = source::redis(args.redis()).await?;
        let rss_before = resident(&args.pid)?;

        let mut crowd = Crowd::open(
            common.clone(),
            &plans(&args, common.proto, &rooms, None),
            args.threads,
        )?;
        connect(&mut crowd, args.sockets).await?;
        let way = Way::Redis(source::redis(args.redis()).await?);
        let mut source = Source::new(way, rooms.clone(), args.size, args.keep, common.epoch);
        source.publish(BEFORE_CUT * args.rooms).await?;
        settle(&args, &crowd, &source).await;
        let rss_connected = resident(&args.pid)?;
        let mut ids = vec![None; args.sockets];
        for (thread, sight) in crowd.cut().await?.into_iter().enumerate() {
            for (slot, seen) in sight.sockets.into_iter().enumerate() {
                ids[slot * args.threads + thread] = seen.last_id;
            }
        }
        let ids: Vec<String> = ids.into_iter().collect::<Option<_>>().context(
            "a socket got no entry ID before the cut; does the server speak tailcast.json?",
        )?;

        source.restart(args.size);
        for _ in 0..args.missed {
            source.publish(args.rooms).await?;
        }
        // The server's tail may still be reading these; that is no part of the storm.
        sleep(TAIL_REST).await;
        let before = command_calls(&mut redis).await?;
        let first = Moment::now_without(&args, &source)?;
        let storm = common.epoch.elapsed();
        let mut crowd = Crowd::open(
            common.clone(),
            &plans(&args, common.proto, &rooms, Some(&ids)),
            args.threads,
        )?;
        connect(&mut crowd, args.sockets).await?;
        let connect_seconds = first.at.elapsed().as_secs_f64();
        settle(&args, &crowd, &source).await;
        let last = Moment::now(&args, &crowd, &source)?;
        let rss_end = resident(&args.pid)?;
        let after = command_calls(&mut redis).await?;

        let disconnected = crowd.live.disconnected();
        let sights = crowd.cut().await?;
        let storm = storm.as_nanos() as u64;
        let mut times = Histogram::new();
        for seen in sights.iter().flat_map(|sight| &sight.sockets) {
            times.record(seen.last_at.saturating_sub(storm));
        }
        let redis_commands: BTreeMap<String, u64> = after
            .into_iter()
            .map(|(name, calls)| {
                let earlier = before.get(&name).copied().unwrap_or(0);
                (name, calls.saturating_sub(earlier))
            })
            .filter(|(name, calls)| *calls > 0 && name != "info")
            .collect();
        let seconds = times.max_ms() / 1e3;
        let server_cpu = last.server.saturating_sub(first.server).as_secs_f64();
        Ok(Report {
            mode: "resume",
            sockets: args.sockets,
            rooms: args.rooms,
            size: args.size,
            seconds,
            connect_seconds,
            deliveries: last.delivered,
            deliveries_per_second: last.delivered as f64 / seconds,
            losses: losses(&sights, &source, disconnected),
            server: (!args.pid.is_empty()).then(|| Server {
                cpu_us_per_delivery: server_cpu * 1e6 / last.delivered.max(1) as f64,
                core: server_cpu / seconds,
                rss_before,
                rss_connected,
                rss_max: rss_connected.max(rss_end),
                rss_end,
                rss_per_socket: rss_connected.saturating_sub(rss_before) as f64
                    / args.sockets as f64,
                rss_per_socket_after_broadcast: None,
            }),
            client_core: last.client.saturating_sub(first.client).as_secs_f64() / seconds,
            client_threads: args.threads,
            resume: Some(Resume {
                missed: args.missed,
                seconds,
                socket_p50_ms: times.quantile_ms(0.5),
                socket_p99_ms: times.quantile_ms(0.99),
                redis_reads: READS
                    .iter()
                    .filter_map(|name| redis_commands.get(*name))
                    .sum(),
                redis_commands,
            }),
            ..Report::default()
        })
    }
}

impl Moment {
    fn now(args: &BenchArgs, crowd: &Crowd, source: &Source) -> Result<Self> {
        let mut moment = Self::now_without(args, source)?;
        moment.delivered = crowd.live.delivered();
        Ok(moment)
    }

    fn now_without(args: &BenchArgs, source: &Source) -> Result<Self> {
        Ok(Moment {
            at: Instant::now(),
            delivered: 0,
            entries: source.total(),
            server: cpu(&args.pid)?,
            redis: cpu(args.redis_pid.as_slice())?,
            client: cpu(&[std::process::id()])?,
        })
    }
}

/// What each socket does. Rooms take turns, and so do servers, in steps of whole rounds of rooms,
/// so that every server has sockets in every room.
fn plans(args: &BenchArgs, proto: Proto, rooms: &[String], ids: Option<&[String]>) -> Vec<Plan> {
    let template = args.path.as_deref().unwrap_or(match proto {
        Proto::Raw | Proto::Json | Proto::Sse => "/rooms/{room}",
        Proto::Socketio => "/socket.io/?EIO=4&transport=websocket&roomid={room}",
        Proto::Stomp => "/stomp",
        Proto::Sockjs => "/ws/000/bench{socket}/websocket",
        Proto::SocketioAdapter => "/socket.io/?EIO=4&transport=websocket",
        Proto::Nats => "/",
    });
    (0..args.sockets)
        .map(|number| {
            let room = number % rooms.len();
            let mut path = template
                .replace("{room}", &rooms[room])
                .replace("{socket}", &number.to_string());
            if let Some(ids) = ids {
                path.push(if path.contains('?') { '&' } else { '?' });
                path.push_str("from=");
                path.push_str(&ids[number]);
            }
            Plan {
                room,
                path,
                target: number / rooms.len() % args.url.len(),
                // The last ones, so that the first socket of a room, which may publish, reads.
                stalled: number >= args.sockets - args.stalled,
                writes: args.through == Through::Sockets && number < rooms.len(),
            }
        })
        .collect()
}

async fn way(
    args: &BenchArgs,
    proto: Proto,
    writers: BTreeMap<usize, OwnedWriteHalf>,
) -> Result<Way> {
    Ok(match (proto, args.through) {
        (Proto::Nats, _) => source::nats(&args.nats).await?,
        (_, Through::Sockets) => Way::Sockets(writers),
        (Proto::SocketioAdapter, _) => Way::SocketioAdapter(source::redis(args.redis()).await?),
        _ => Way::Redis(source::redis(args.redis()).await?),
    })
}

async fn connect(crowd: &mut Crowd, sockets: usize) -> Result<BTreeMap<usize, OwnedWriteHalf>> {
    let mut progress = Progress::begin("connecting", sockets as u64, &format!("{sockets} sockets"));
    crowd
        .opened(|count| progress.at(count as u64, || format!("{count} of {sockets} sockets")))
        .await
}

/// Publishes for as long as the run takes; returns the measured part's two ends.
async fn publish(
    args: &BenchArgs,
    crowd: &Crowd,
    source: &mut Source,
    epoch: Instant,
    server: &mut Server,
) -> Result<(Moment, Moment)> {
    let warm_up = Duration::from_secs_f64(args.warm_up);
    let end = warm_up + Duration::from_secs_f64(args.duration);
    // How many sockets that read one entry reaches, on average.
    let reach = (args.sockets - args.stalled) as f64 / args.rooms as f64;
    let mut progress = Progress::begin(
        "measuring",
        end.as_millis() as u64,
        &format!("for {} s", end.as_secs_f64()),
    );
    let began = Instant::now();
    let mut first = None;
    let mut shown = (Instant::now(), crowd.live.delivered());
    // Entries that arrived everywhere, per second, just now.
    let mut pace = 0.0;
    loop {
        let elapsed = began.elapsed();
        if elapsed >= warm_up && first.is_none() {
            first = Some(Moment::now(args, crowd, source)?);
            let now = epoch.elapsed().as_nanos() as u64;
            crowd.live.measure_from.store(now, Relaxed);
        }
        if elapsed >= end {
            break;
        }
        let due = if args.saturate {
            let arrived = (crowd.live.delivered() as f64 / reach) as u64;
            let ahead = (pace * AHEAD.as_secs_f64()) as u64;
            arrived + ahead.max(LEAST_AHEAD).min(args.window)
        } else {
            (elapsed.as_secs_f64() * args.rate) as u64
        };
        let count = due.saturating_sub(source.total()).min(BATCH);
        if count > 0 {
            source.publish(count as usize).await?;
        }
        let since = shown.0.elapsed();
        if since > Duration::from_millis(100) {
            let delivered = crowd.live.delivered();
            let rate = (delivered - shown.1) as f64 / since.as_secs_f64();
            let told = || format!("{rate:.0} deliveries/s");
            progress.at(elapsed.as_millis() as u64, told);
            server.rss_max = server.rss_max.max(resident(&args.pid)?);
            shown = (Instant::now(), delivered);
            pace = rate / reach;
        }
        // Every wake-up costs a core the server could use, so slow rates sleep until an entry is
        // due. Timers are no finer than a millisecond.
        let next = if args.saturate {
            Duration::from_millis(1)
        } else {
            let due = (source.total() + 1) as f64 / args.rate;
            Duration::from_secs_f64(due).saturating_sub(elapsed)
        };
        sleep(next.clamp(Duration::from_millis(1), Duration::from_millis(100))).await;
    }
    let last = Moment::now(args, crowd, source)?;
    crowd
        .live
        .measure_until
        .store(epoch.elapsed().as_nanos() as u64, Relaxed);
    drop(progress);
    match first {
        Some(first) => Ok((first, last)),
        None => bail!("the run ended before its warm-up"),
    }
}

/// Waits until all that was published has come, or nothing comes any more.
async fn settle(args: &BenchArgs, crowd: &Crowd, source: &Source) {
    let expected: u64 = (0..args.sockets - args.stalled)
        .map(|number| source.in_room(number % args.rooms))
        .sum();
    let mut last = (Instant::now(), crowd.live.delivered());
    while last.1 < expected && last.0.elapsed() < QUIET {
        sleep(Duration::from_millis(2)).await;
        let delivered = crowd.live.delivered();
        if delivered != last.1 {
            last = (Instant::now(), delivered);
        }
    }
}

fn losses(sights: &[Sight], source: &Source, disconnected: u64) -> Losses {
    let mut losses = Losses {
        disconnected,
        ..Losses::default()
    };
    for sight in sights {
        for (code, count) in &sight.closes {
            *losses.close_codes.entry(*code).or_default() += count;
        }
        for seen in sight.sockets.iter().filter(|seen| !seen.stalled) {
            losses.lost += seen.tally.lost(source.in_room(seen.room));
            losses.duplicates += seen.tally.duplicates;
            losses.reordered += seen.tally.reordered;
        }
    }
    losses
}
