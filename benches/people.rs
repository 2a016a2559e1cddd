//! What it adds to a publish to know who it's by, and to check tokens. Without sockets and without
//! Redis, as in `relay`; what limits cost in Redis is in `examples/publish_cost.rs`.
//!
//! `cargo bench --bench people`; at the end it prints what each way to publish takes, to the plain one.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use axum::http::HeaderMap;
use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use tailcast::auth::mint::{NewToken, SigningKey};
use tailcast::auth::{self, Auth, Credentials, Identity, KeySource, Mode, Secret, UserName};
use tailcast::people::moderation::Act;
use tailcast::people::session::{Entry, Session};
use tailcast::people::{self, People};
use tailcast::relay::connection::Publish;
use tailcast::relay::entry::{Fields, RoomName};
use tailcast::relay::format::{Format, GapFrame};
use tailcast::relay::hub::{self, Relay};
use tailcast::relay::outlet::Wire;
use tailcast::store::memory::{self, MemoryLog};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// Bytes of a message: a short chat line as JSON.
const MESSAGE: usize = 100;

/// So many at least are timed together to count in the ratios at the end.
const ENOUGH: u64 = 100;

const SECRET: &[u8] = b"a secret of at least 32 bytes, for benchmarks";
const API_KEY: &str = "a key of sixteen bytes or more";

/// Keys for tests.
macro_rules! keys {
    ($file:literal) => {
        include_bytes!(concat!("../src/auth/tests/keys/", $file))
    };
}

type Failure = Box<dyn std::error::Error>;

static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| entry.message().clone(),
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
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

fn fields() -> Fields {
    let message = Bytes::from(vec![b'x'; MESSAGE]);
    Box::new([(Bytes::from_static(b"message"), message)])
}

/// Users and rooms that take turns: a limit lets no more pass than one a millisecond, and 10,000 at
/// once.
const TURNS: usize = 1_000;

/// One node with rooms of its own, and their members.
struct Node {
    people: Arc<People>,
    rooms: Vec<RoomName>,
    members: Vec<Identity>,
    server: Identity,
    turn: Cell<usize>,
}

impl Node {
    async fn start(rates: &str) -> Result<Self, Failure> {
        let log = Arc::new(MemoryLog::new(memory::Settings {
            keep: Some(10),
            ..memory::Settings::default()
        }));
        let relay = Relay::new(log.clone(), hub::Settings::default());
        let settings = people::Settings {
            rates: rates.parse()?,
            ..people::Settings::default()
        };
        let people = People::start(relay, log, settings);
        let auth = Auth::new(auth::Settings {
            default_role: "*=member".parse()?,
            api_keys: vec![("bench".to_owned(), Secret::new(API_KEY.as_bytes()))],
            ..auth::Settings::default()
        })?;
        let (mut rooms, mut members) = (Vec::new(), Vec::new());
        for number in 0..TURNS {
            rooms.push(RoomName::parse(&format!("room-{number}"))?);
            let query = format!("user=user-{number}");
            let member = Credentials::of(&HeaderMap::new(), &query, "token");
            members.push(auth.identify(&member).await?);
        }
        let node = Node {
            people,
            rooms,
            members,
            server: auth.identify(&Credentials::token(API_KEY)).await?,
            turn: Cell::new(0),
        };
        // From here on the rules of the rooms are known.
        for _ in 0..TURNS {
            node.publish().await?;
        }
        Ok(node)
    }

    fn turn(&self) -> usize {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % TURNS);
        turn
    }

    /// As whoever's turn it is, in their room.
    async fn publish(&self) -> Result<(), Failure> {
        self.publish_as(self.turn()).await
    }

    async fn publish_as(&self, turn: usize) -> Result<(), Failure> {
        let (member, room) = (&self.members[turn], &self.rooms[turn]);
        self.people.publish(member, room, fields(), None).await?;
        Ok(())
    }

    /// The same without the people.
    async fn relay(&self) -> Result<(), Failure> {
        let publish = Publish::new(self.rooms[self.turn()].clone(), fields());
        self.people.relay().publish(publish).await?;
        Ok(())
    }

    /// The sessions of all.
    fn sessions(&self) -> Vec<Session> {
        let relay = self.people.relay();
        let connect = || relay.connect(Arc::new(NullWire), &FORMAT);
        let members = self.members.iter().cloned();
        members
            .map(|member| self.people.session(connect(), member))
            .collect()
    }
}

/// Through a socket's session.
async fn in_session(session: &Session, room: &RoomName) -> Result<(), Failure> {
    let (sender, outcome) = oneshot::channel();
    let entry = Entry {
        room: room.clone(),
        fields: fields(),
        key: None,
        echo: true,
        socket: None,
    };
    let done = Box::new(move |_: &_, outcome: Result<_, _>| {
        let _ = sender.send(outcome);
    });
    session.publish(entry, done);
    outcome.await??;
    Ok(())
}

/// The ways to publish, and to be refused.
fn publish(criterion: &mut Criterion, runtime: &Runtime) -> Result<(), Failure> {
    let start = |rates: &str| runtime.block_on(Node::start(rates));
    let free = start("")?;
    let sessions = free.sessions();
    let one = start("member=10000/10s")?;
    let two = start("member=10000/10s,room=10000/10s")?;
    let kept_back = start("")?;
    let (slow, muted) = (0, 1);
    runtime.block_on(async {
        let user = kept_back.members[muted].user();
        let user = user.ok_or("everybody here has a name")?.clone();
        let acts = [
            (slow, Act::Slow(Duration::from_secs(120))),
            (muted, Act::Mute(user, None)),
        ];
        for (turn, act) in acts {
            let room = &kept_back.rooms[turn];
            let people = &kept_back.people;
            people.moderate(&kept_back.server, room, act, None).await?;
            // Until the act is in effect here, this is let through.
            while kept_back.publish_as(turn).await.is_ok() {}
        }
        Ok::<_, Failure>(())
    })?;

    let mut group = Group::new(criterion, runtime, "publish");
    let ok = |outcome: Result<(), Failure>| assert!(outcome.is_ok(), "{outcome:?}");
    group.bench("relay alone", || free.relay(), ok);
    group.bench("user known", || free.publish(), ok);
    let in_turn = || {
        let turn = free.turn();
        in_session(&sessions[turn], &free.rooms[turn])
    };
    group.bench("in a session", in_turn, ok);
    group.bench("user's rate", || one.publish(), ok);
    // A slow mode that lets a message pass costs the same as the room's rate: a second limit.
    group.bench("user's and room's rate", || two.publish(), ok);
    // These are answered with a refusal, the first by the log and the second before it.
    let no = |outcome: Result<(), Failure>| drop(black_box(outcome));
    group.bench("refused by slow mode", || kept_back.publish_as(slow), no);
    group.bench("refused as muted", || kept_back.publish_as(muted), no);
    group.finish();
    Ok(())
}

/// What a token says, signed with this key.
fn signed(key: &SigningKey) -> Result<Credentials, Failure> {
    let token = NewToken {
        user: Some(UserName::parse("ann")?),
        rooms: "live-42=host,lobby-*=viewer".parse()?,
        ..NewToken::default()
    };
    let token = token.sign(key, SystemTime::now(), Duration::from_secs(24 * 3600))?;
    Ok(Credentials::token(&token))
}

/// Checks tokens and keys; what it takes to come in.
fn identify(criterion: &mut Criterion, runtime: &Runtime) -> Result<(), Failure> {
    let secret = Secret::new(SECRET);
    let mut ways = vec![(
        "HS256",
        KeySource::Secret(secret.clone()),
        signed(&SigningKey::from_secret(&secret)?)?,
    )];
    let pairs: [(&str, &[u8], &[u8]); 3] = [
        ("EdDSA", keys!("ed25519.pem"), keys!("ed25519.pub.pem")),
        ("ES256", keys!("p256.pem"), keys!("p256.pub.pem")),
        ("RS256", keys!("rsa.pem"), keys!("rsa.pub.pem")),
    ];
    for (name, private, public) in pairs {
        let token = signed(&SigningKey::from_pem(private)?)?;
        ways.push((name, KeySource::PublicKey(public.to_owned()), token));
    }
    ways.push((
        "API key",
        KeySource::Secret(secret),
        Credentials::token(API_KEY),
    ));
    let mut group = Group::new(criterion, runtime, "identify");
    for (name, key, credentials) in ways {
        let auth = Auth::new(auth::Settings {
            mode: Mode::Jwt,
            key: Some(key),
            api_keys: vec![("bench".to_owned(), Secret::new(API_KEY.as_bytes()))],
            ..auth::Settings::default()
        })?;
        runtime.block_on(auth.identify(&credentials))?;
        let ok = |outcome: Result<Identity, _>| assert!(outcome.is_ok(), "{outcome:?}");
        group.bench(name, || auth.identify(&credentials), ok);
    }
    group.finish();
    Ok(())
}

/// Benchmarks that are compared to their first.
struct Group<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    runtime: &'a Runtime,
    name: &'static str,
    /// The shortest time of each.
    times: Vec<(&'static str, Duration)>,
}

impl<'a> Group<'a> {
    fn new(criterion: &'a mut Criterion, runtime: &'a Runtime, name: &'static str) -> Self {
        Group {
            group: criterion.benchmark_group(name),
            runtime,
            name,
            times: Vec::new(),
        }
    }

    fn bench<F: Future>(
        &mut self,
        name: &'static str,
        step: impl Fn() -> F,
        check: impl Fn(F::Output),
    ) {
        let mut shortest = Duration::MAX;
        self.group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                self.runtime.block_on(async {
                    let began = Instant::now();
                    for _ in 0..count {
                        check(step().await);
                    }
                    let took = began.elapsed();
                    // A few would be mostly the clock.
                    if count >= ENOUGH {
                        shortest = shortest.min(took.div_f64(count as f64));
                    }
                    took
                })
            });
        });
        self.times.push((name, shortest));
    }

    /// Says how they compare. Where each ran once, as a test does, there is nothing to say.
    fn finish(self) {
        self.group.finish();
        let measured = |(_, time): &&(_, Duration)| *time < Duration::MAX;
        let mut plain = None;
        for (name, time) in self.times.iter().filter(measured) {
            let plain = *plain.get_or_insert(*time);
            let ratio = time.as_secs_f64() / plain.as_secs_f64();
            let micros = time.as_secs_f64() * 1e6;
            println!("{}: {name:24} {micros:8.2} µs {ratio:6.2}", self.name);
        }
    }
}

fn main() -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    // Sessions are dropped outside of block_on, too.
    let _inside = runtime.enter();
    let mut criterion = Criterion::default().configure_from_args();
    publish(&mut criterion, &runtime)?;
    identify(&mut criterion, &runtime)?;
    criterion.final_summary();
    Ok(())
}
