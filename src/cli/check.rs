//! `tailcast check`: is Redis, and is this machine, set up so that a node runs well? A line each.

use std::fmt;
use std::time::Duration;

use anyhow::{Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, RedisResult, cmd};
use rustix::process::{Resource, getrlimit};

use crate::config::Config;
use crate::server::Files;
use crate::store::redis::Persistence;

/// How long Redis may take for each answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Tracking tables below this many keys evict rooms of a busy node, which then ring for nothing.
const TRACKING_KEYS: u64 = 10_000;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug)]
struct Line(Verdict, String);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.0 {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{word}  {}", self.1)
    }
}

fn ok(text: impl Into<String>) -> Line {
    Line(Verdict::Ok, text.into())
}

fn warn(text: impl Into<String>) -> Line {
    Line(Verdict::Warn, text.into())
}

fn fail(text: impl Into<String>) -> Line {
    Line(Verdict::Fail, text.into())
}

/// Prints the lines; an error if one of them is a failure.
pub async fn run(config: &Config) -> Result<()> {
    let mut lines: Vec<Line> = Vec::new();
    let unknown = config.unknown_variables.iter();
    lines.extend(unknown.map(|line| warn(format!("environment: {line}"))));
    if config.memory {
        lines.push(warn(
            "redis: --memory runs without; nothing is kept, and there is one node only",
        ));
    } else {
        redis(config, &mut lines).await;
    }
    lines.push(files(config));
    let mut text = String::new();
    for line in &lines {
        text.push_str(&format!("{line}\n"));
    }
    std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?;
    match lines.iter().filter(|line| line.0 == Verdict::Fail).count() {
        0 => Ok(()),
        1 => bail!("one check failed"),
        several => bail!("{several} checks failed"),
    }
}

async fn redis(config: &Config, lines: &mut Vec<Line>) {
    let mut connection = match connect(config.redis.as_str()).await {
        Ok(connection) => connection,
        Err(error) => {
            lines.push(unreachable(config, &error));
            return;
        }
    };
    if let Err(error) = cmd("PING").query_async::<String>(&mut connection).await {
        lines.push(fail(format!(
            "redis: {} says {error}; {}",
            config.redis,
            mend(&error)
        )));
        return;
    }
    lines.push(ok(format!("redis: {} answers", config.redis)));
    lines.push(version(&mut connection).await);
    // Redis before 6 knows no tracking, and switching off what is off changes nothing.
    let tracking: RedisResult<String> = cmd("CLIENT")
        .arg("TRACKING")
        .arg("OFF")
        .query_async(&mut connection)
        .await;
    lines.push(match tracking {
        Ok(_) => ok("tracking: supported"),
        Err(error) => warn(format!(
            "tracking: {error}; rooms beyond --tail-connections share blocking reads, which costs Redis more; use Redis 6 or later"
        )),
    });
    let mut settings = Settings(connection);
    lines.push(persistence(&mut settings).await);
    lines.push(eviction(&mut settings).await);
    lines.push(tracking_table(&mut settings).await);
}

async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT));
    redis::Client::open(url)?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

fn unreachable(config: &Config, error: &redis::RedisError) -> Line {
    if error.kind() == redis::ErrorKind::Parse {
        return fail(format!(
            "redis: what listens at {} is no Redis, as it answers in another protocol; name a Redis with --redis URL",
            config.redis
        ));
    }
    if config.redis_given || !error.is_io_error() {
        return fail(format!("redis: {}: {error}; {}", config.redis, mend(error)));
    }
    let installed = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|directory| directory.join("redis-server").is_file())
    });
    if installed {
        warn(format!(
            "redis: nothing answers at {}; tailcast serve starts a redis-server of its own there",
            config.redis
        ))
    } else {
        fail(format!(
            "redis: nothing answers at {}, and redis-server is not installed; install it (apt install redis-server), name another with --redis URL, or run without with --memory",
            config.redis
        ))
    }
}

/// What to do about an error.
fn mend(error: &redis::RedisError) -> &'static str {
    match error.code() {
        Some("NOAUTH") => "write the password into --redis, as in redis://user:password@host",
        Some("WRONGPASS") => "user or password in --redis is wrong",
        Some("NOPERM") => "the user in --redis lacks rights; see ACL SETUSER",
        Some("LOADING") => "it still reads its data; wait",
        Some("READONLY") => "it is a replica; name its primary with --redis",
        Some("OOM") => "raise its maxmemory, or keep less with --keep",
        _ if error.kind() == redis::ErrorKind::AuthenticationFailed => {
            "user or password in --redis is wrong or missing"
        }
        _ => "start it, or name another with --redis URL",
    }
}

async fn version(connection: &mut MultiplexedConnection) -> Line {
    let hello: redis::Value = match cmd("HELLO").query_async(connection).await {
        Ok(hello) => hello,
        Err(error) => {
            return fail(format!(
                "server: HELLO is refused: {error}; use Redis 6.2 or later"
            ));
        }
    };
    let word = |name: &str| {
        let pairs = hello.as_map_iter()?;
        pairs
            .filter(|(key, _)| String::from_redis_value_ref(key).is_ok_and(|key| key == name))
            .find_map(|(_, value)| String::from_redis_value_ref(value).ok())
    };
    let server = word("server").unwrap_or_else(|| "redis".to_owned());
    let Some(version) = word("version") else {
        return warn(format!("server: {server} names no version"));
    };
    let mut numbers = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if number < (6, 2) {
        fail(format!(
            "server: {server} {version} is too old; use 6.2 or later (7.0 finds more gaps)"
        ))
    } else if server == "redis" && number < (7, 0) {
        warn(format!(
            "server: {server} {version} counts no entries ever added, so some gaps are found later; use 7.0 or later"
        ))
    } else {
        ok(format!("server: {server} {version}"))
    }
}

/// CONFIG GET, which hosted servers often refuse.
struct Settings(MultiplexedConnection);

impl Settings {
    async fn text(&mut self, name: &str) -> Result<String, Line> {
        let pairs: RedisResult<Vec<String>> = cmd("CONFIG")
            .arg("GET")
            .arg(name)
            .query_async(&mut self.0)
            .await;
        match pairs.map(|pairs| pairs.into_iter().nth(1)) {
            Ok(Some(text)) => Ok(text),
            Ok(None) => Err(warn(format!(
                "{name}: this server has no such setting; look it up in its manual"
            ))),
            Err(error) => Err(warn(format!(
                "{name}: CONFIG GET is refused ({error}); see your provider's settings"
            ))),
        }
    }
}

async fn persistence(settings: &mut Settings) -> Line {
    let append_only = match settings.text("appendonly").await {
        Ok(text) => text,
        Err(line) => return line,
    };
    let save = match settings.text("save").await {
        Ok(save) => save,
        Err(_) if append_only == "yes" => String::new(),
        Err(line) => return line,
    };
    match Persistence::of(append_only == "yes", &save).warning() {
        None => ok("persistence: append-only file"),
        Some(warning) => warn(format!("persistence: {warning}")),
    }
}

async fn eviction(settings: &mut Settings) -> Line {
    let policy = match settings.text("maxmemory-policy").await {
        Ok(text) => text,
        Err(line) => return line,
    };
    if policy == "noeviction" {
        return ok("eviction: noeviction");
    }
    let mend = "CONFIG SET maxmemory-policy noeviction, then CONFIG REWRITE";
    match settings.text("maxmemory").await {
        Ok(memory) if memory == "0" => warn(format!(
            "eviction: {policy}, though without maxmemory it does nothing yet. {mend}"
        )),
        _ => fail(format!(
            "eviction: {policy}; Redis deletes whole rooms once memory is short. {mend}"
        )),
    }
}

async fn tracking_table(settings: &mut Settings) -> Line {
    let text = match settings.text("tracking-table-max-keys").await {
        Ok(text) => text,
        Err(line) => return line,
    };
    match text.parse::<u64>() {
        Ok(0) => ok("tracking-table-max-keys: no limit"),
        Ok(keys) if keys >= TRACKING_KEYS => ok(format!("tracking-table-max-keys: {keys}")),
        _ => warn(format!(
            "tracking-table-max-keys: {text}; with more rooms than that Redis rings for nothing. CONFIG SET tracking-table-max-keys 1000000"
        )),
    }
}

fn files(config: &Config) -> Line {
    let limit = getrlimit(Resource::Nofile);
    let Some(now) = limit.current else {
        return ok("open files: no limit");
    };
    let most = limit.maximum.unwrap_or(u64::MAX);
    // A node lifts its soft limit by itself, so the hard one is what counts.
    let most = most.max(now);
    let shared = |sockets| Files::share(most, config.tail_connections, sockets);
    let mend = "raise it with ulimit -Hn, or LimitNOFILE= in the systemd unit";
    match config.max_sockets {
        Some(sockets) if sockets > shared(None).sockets => fail(format!(
            "open files: {most} are too few for --max-sockets {sockets}; {mend}"
        )),
        None if most < 4_096 => warn(format!(
            "open files: {most}, so about {} sockets; {mend}",
            shared(None).sockets
        )),
        _ => ok(format!("open files: {now}, at most {most}")),
    }
}
