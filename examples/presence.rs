//! What presence costs: many members of one room who come within a minute, stay, and go, on a few
//! nodes with a Redis of their own. Nothing is published.
//!
//! `cargo run --release --example presence` takes about four minutes;
//! `-- --members 2000 --seconds 3 --steady 3` is a quick look. The nodes are in this process, each with
//! one thread of its own, and clients have no sockets; Redis is a process as everywhere. On each node
//! one client asks to be told who is here. At the end one node dies without a word.

mod measured;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use axum::http::HeaderMap;
use bytes::Bytes;
use clap::Parser;
use serde_json::{Value, json};
use tailcast::auth::{self, Auth, Credentials, Identity};
use tailcast::people::session::{Join, Session};
use tailcast::people::{self, People};
use tailcast::relay::entry::RoomName;
use tailcast::relay::format::{Format, GapFrame};
use tailcast::relay::hub::{self, Relay};
use tailcast::relay::log::Log;
use tailcast::relay::outlet::Wire;
use tailcast::relay::position::Position;
use tailcast::store::redis::{RedisLog, Settings};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use self::measured::{OwnRedis, cpu, load};

/// Between two lots of members that come or go. A second has many of these, so that members are
/// spread as evenly as people are.
const STEP: Duration = Duration::from_millis(10);

/// Between two looks at how many a node counts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long counts may take to be right before that is an error.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Parser)]
struct Args {
    /// How many users come
    #[arg(long, default_value_t = 100_000)]
    members: usize,
    /// Within how many seconds they come, and go
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many seconds they stay
    #[arg(long, default_value_t = 60)]
    steady: u64,
    /// How many nodes they are on
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Let each be in their own room, too, as a JSON socket of a known user is
    #[arg(long)]
    inbox: bool,
}

/// What members get is counted for nothing.
static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| entry.message().clone(),
    gap: |_, _| GapFrame::Close,
    aside: |aside| Some(aside.json().clone()),
    close: |_| Bytes::new(),
};

/// A socket that takes everything.
struct NullWire;

impl Wire for NullWire {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a node's clients do next.
enum Order {
    /// Members of these numbers come, evenly within the time.
    Come(Vec<usize>, Duration),
    /// All go, evenly within the time.
    Go(Duration),
}

/// A node with a thread of its own.
struct Node {
    name: String,
    runtime: Runtime,
    people: Arc<People>,
    asker: Identity,
    room: RoomName,
    orders: mpsc::UnboundedSender<Order>,
    /// Answers each order when it's done.
    done: mpsc::UnboundedReceiver<()>,
}

impl Node {
    fn start(number: usize, redis: &str, room: &RoomName, inbox: bool) -> Result<Self> {
        let name = format!("node-{number}");
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name.clone())
            .enable_all()
            .build()?;
        let (orders, mut ordered) = mpsc::unbounded_channel();
        let (finished, done) = mpsc::unbounded_channel();
        let (people, asker) = runtime.block_on(async {
            let log = RedisLog::start(Settings {
                url: redis.to_owned(),
                ..Settings::default()
            })?;
            while log.health().is_err() {
                sleep(STEP).await;
            }
            let settings = hub::Settings {
                workers: 1,
                ..hub::Settings::default()
            };
            let relay = Relay::new(log.clone(), settings);
            let people = People::start(relay, log, people::Settings::default());
            let auth = Auth::new(auth::Settings::default())?;
            let asker = auth.identify(&Credentials::default()).await?;
            let clients = Clients {
                people: people.clone(),
                auth,
                room: room.clone(),
                inbox,
            };
            tokio::spawn(async move {
                // Nobody in particular, who asks to be told who is here, and stays.
                let _watcher = clients.enter(Credentials::default(), true).await;
                let mut sessions = Vec::new();
                while let Some(order) = ordered.recv().await {
                    match order {
                        Order::Come(members, within) => {
                            clients.come(&mut sessions, &members, within).await;
                        }
                        Order::Go(within) => go(&mut sessions, within).await,
                    }
                    let _ = finished.send(());
                }
            });
            anyhow::Ok((people, asker))
        })?;
        Ok(Node {
            name,
            runtime,
            people,
            asker,
            room: room.clone(),
            orders,
            done,
        })
    }

    fn count(&self) -> Result<usize> {
        let presence = self.people.presence(&self.asker, &self.room, 0);
        let found = self
            .runtime
            .block_on(async { timeout(PATIENCE, presence).await })?;
        Ok(found?.count)
    }

    fn order(&self, order: Order) -> Result<()> {
        ensure!(self.orders.send(order).is_ok(), "{} is gone", self.name);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        ensure!(self.done.blocking_recv().is_some(), "{} is gone", self.name);
        Ok(())
    }

    fn cpu(&self) -> Result<Spent> {
        Ok(Spent::now(cpu("/proc/self/task", &self.name)?))
    }

    /// Ends it as a crash would: nothing more is written or said.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// What it takes to be a client of a node.
struct Clients {
    people: Arc<People>,
    auth: Arc<Auth>,
    room: RoomName,
    inbox: bool,
}

impl Clients {
    /// One client comes in.
    async fn enter(&self, credentials: Credentials, presence: bool) -> Result<Session> {
        let identity = self.auth.identify(&credentials).await?;
        let inbox = identity.user().filter(|_| self.inbox);
        let inbox = inbox.map(|user| user.room().clone());
        let connection = self.people.relay().connect(Arc::new(NullWire), &FORMAT);
        let mut session = self.people.session(connection, identity);
        let mut rooms = vec![(self.room.clone(), presence)];
        rooms.extend(inbox.map(|room| (room, false)));
        for (room, presence) in rooms {
            let join = Join {
                from: Position::Now,
                presence,
                is_home: room == self.room,
            };
            session.join(room, join, Box::new(|_| None))?;
        }
        Ok(session)
    }

    async fn come(&self, sessions: &mut Vec<Session>, members: &[usize], within: Duration) {
        let mut pace = Pace::new(members.len(), within);
        let mut came = 0;
        while let Some(due) = pace.due().await {
            for member in &members[came..due] {
                let query = format!("user=user-{member}");
                let credentials = Credentials::of(&HeaderMap::new(), &query, "token");
                match self.enter(credentials, false).await {
                    Ok(session) => sessions.push(session),
                    Err(error) => eprintln!("member {member} does not get in: {error}"),
                }
            }
            came = due;
        }
    }
}

async fn go(sessions: &mut Vec<Session>, within: Duration) {
    let all = sessions.len();
    let mut pace = Pace::new(all, within);
    while let Some(due) = pace.due().await {
        sessions.truncate(all - due);
    }
}

/// Spreads many things evenly over some time.
struct Pace {
    all: usize,
    within: Duration,
    began: tokio::time::Instant,
    steps: Interval,
    done: usize,
}

impl Pace {
    fn new(all: usize, within: Duration) -> Self {
        let mut steps = interval(STEP);
        steps.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Pace {
            all,
            within,
            began: tokio::time::Instant::now(),
            steps,
            done: 0,
        }
    }

    /// How many are due at the next step; none once all were.
    async fn due(&mut self) -> Option<usize> {
        if self.done == self.all {
            return None;
        }
        self.steps.tick().await;
        let share = self.began.elapsed().as_secs_f64() / self.within.as_secs_f64();
        // Rounding down is what is meant; the last step has them all.
        self.done = ((self.all as f64 * share) as usize).min(self.all);
        Some(self.done)
    }
}

/// What one part of the run cost.
struct Phase {
    name: &'static str,
    seconds: f64,
    redis_percent: f64,
    /// Of the node that took most.
    node_percent: f64,
    commands: u64,
    /// From the end of the part, or from a node's death, until every node's count was right.
    exact: Duration,
}

/// How many members every node counts after a part of the run.
enum Counts {
    /// So many, which is to be waited for.
    Become(usize),
    /// It has been waited for.
    WereRightAfter(Duration),
}

/// CPU time and the time by the clock, both since `start`.
#[derive(Clone, Copy)]
struct Spent {
    cpu: Duration,
    at: Instant,
}

impl Spent {
    fn now(cpu: Duration) -> Self {
        Spent {
            cpu,
            at: Instant::now(),
        }
    }

    /// How much of one core went since an earlier look, in percent.
    fn percent_since(self, before: Spent) -> f64 {
        let time = self.at.duration_since(before.at).as_secs_f64();
        100.0 * (self.cpu.saturating_sub(before.cpu)).as_secs_f64() / time.max(1e-9)
    }
}

/// The nodes and their Redis.
struct World {
    redis: OwnRedis,
    asking: redis::Connection,
    nodes: Vec<Node>,
    phases: Vec<Phase>,
}

impl World {
    /// Measures what `run` does.
    fn phase(
        &mut self,
        name: &'static str,
        run: impl FnOnce(&mut Self) -> Result<Counts>,
    ) -> Result<()> {
        eprintln!("{name} …");
        let commands = self.info("total_commands_processed")?;
        let before = Spent::now(self.redis.cpu()?);
        let nodes = self.nodes.iter().map(Node::cpu).collect::<Result<Vec<_>>>();
        let nodes = nodes?;
        let counts = run(self)?;
        let after = Spent::now(self.redis.cpu()?);
        let mut node_percent: f64 = 0.0;
        for (node, before) in self.nodes.iter().zip(nodes) {
            node_percent = node_percent.max(node.cpu()?.percent_since(before));
        }
        let exact = match counts {
            Counts::Become(expected) => self.exact(expected)?,
            Counts::WereRightAfter(time) => time,
        };
        let commands = self.info("total_commands_processed")? - commands;
        self.phases.push(Phase {
            name,
            seconds: after.at.duration_since(before.at).as_secs_f64(),
            redis_percent: after.percent_since(before),
            node_percent,
            commands,
            exact,
        });
        Ok(())
    }

    /// Waits until every node counts so many, and says how long that took.
    fn exact(&self, expected: usize) -> Result<Duration> {
        let began = Instant::now();
        for node in &self.nodes {
            loop {
                let count = node.count()?;
                if count == expected {
                    break;
                }
                ensure!(
                    began.elapsed() < PATIENCE,
                    "{} counts {count} instead of {expected}",
                    node.name
                );
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(began.elapsed())
    }

    /// A number that Redis tells of itself.
    fn info(&mut self, name: &str) -> Result<u64> {
        let info: String = redis::cmd("INFO").query(&mut self.asking)?;
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|value| value.trim().parse().ok())
            .with_context(|| format!("Redis tells no {name}"))
    }

    fn wait_for_nodes(&mut self) -> Result<()> {
        self.nodes.iter_mut().try_for_each(Node::wait)
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.nodes > 0 && args.members >= args.nodes && args.seconds > 0);
    let room = RoomName::parse("arena")?;
    let redis = OwnRedis::start()?;
    let load_before = load();
    let nodes = (0..args.nodes)
        .map(|number| Node::start(number, &redis.url(), &room, args.inbox))
        .collect::<Result<Vec<_>>>()?;
    let mut world = World {
        asking: redis::Client::open(redis.url())?.get_connection()?,
        redis,
        nodes,
        phases: Vec::new(),
    };
    let within = Duration::from_secs(args.seconds);
    let steady = Duration::from_secs(args.steady);

    world.exact(0)?;
    world.phase("nobody yet", |_| {
        thread::sleep(steady.min(Duration::from_secs(5)));
        Ok(Counts::Become(0))
    })?;
    let memory = world.info("used_memory")?;
    world.phase("coming", |world| {
        for (number, node) in world.nodes.iter().enumerate() {
            let members = (number..args.members).step_by(args.nodes).collect();
            node.order(Order::Come(members, within))?;
        }
        world.wait_for_nodes()?;
        Ok(Counts::Become(args.members))
    })?;
    // What is written of the last ones may be on its way yet.
    thread::sleep(Duration::from_secs(1));
    let memory = world.info("used_memory")?.saturating_sub(memory);
    world.phase("staying", |_| {
        thread::sleep(steady);
        Ok(Counts::Become(args.members))
    })?;
    let mut left = args.members;
    if world.nodes.len() > 1
        && let Some(node) = world.nodes.pop()
    {
        left -= (world.nodes.len()..args.members)
            .step_by(args.nodes)
            .count();
        world.phase("one node dies", |world| {
            node.kill();
            let died = Instant::now();
            let gone = world.exact(left)?;
            // Others clear away what it has left.
            thread::sleep(Duration::from_secs(10).saturating_sub(died.elapsed()));
            Ok(Counts::WereRightAfter(gone))
        })?;
    }
    let share = left as f64 / args.members as f64;
    world.phase("going", |world| {
        for node in &world.nodes {
            node.order(Order::Go(within.mul_f64(share)))?;
        }
        world.wait_for_nodes()?;
        Ok(Counts::Become(0))
    })?;
    report(&args, &world, memory, &load_before);
    Ok(())
}

fn report(args: &Args, world: &World, memory: u64, load_before: &str) {
    let per_member = memory as f64 / args.members as f64;
    println!(
        "{} members of one room, coming within {} s, on {} nodes{}; load {load_before} before, {} after",
        args.members,
        args.seconds,
        args.nodes,
        if args.inbox {
            ", each in their own room too"
        } else {
            ""
        },
        load()
    );
    println!();
    println!(
        "| | s | Redis, % of a core | busiest node, % of a core | Redis commands/s | counts exact after |"
    );
    println!("|---|---|---|---|---|---|");
    let mut phases = Vec::new();
    for phase in &world.phases {
        let commands = phase.commands as f64 / phase.seconds;
        let exact = u64::try_from(phase.exact.as_millis()).unwrap_or(u64::MAX);
        println!(
            "| {} | {:.1} | {:.1} | {:.1} | {commands:.0} | {exact} ms |",
            phase.name, phase.seconds, phase.redis_percent, phase.node_percent
        );
        phases.push(json!({
            "phase": phase.name,
            "seconds": rounded(phase.seconds),
            "redis_percent": rounded(phase.redis_percent),
            "node_percent": rounded(phase.node_percent),
            "commands_per_second": rounded(commands),
            "exact_ms": exact,
        }));
    }
    println!();
    println!("Redis keeps {per_member:.0} bytes per member.");
    println!(
        "{}",
        json!({
            "members": args.members, "within": args.seconds, "nodes": args.nodes,
            "inbox": args.inbox, "redis_bytes_per_member": rounded(per_member),
            "load": [load_before, load()], "phases": phases,
        })
    );
}

fn rounded(number: f64) -> Value {
    json!((number * 10.0).round() / 10.0)
}
