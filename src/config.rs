//! Flags, environment and a file become one validated [`Config`].
//!
//! One table (`table.rs`) names every setting; `origin.rs` finds what was said about each; `reader.rs`
//! turns the texts into typed values. All that is wrong is reported at once, a line each.

pub mod auth;
pub mod origin;
mod reader;
pub mod socketio;
pub mod table;
mod text;
mod together;
pub mod value;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use self::origin::{Found, Sources};
use self::reader::Reader;
use crate::auth::{Grants, Mode, Roles, Secret, UserName};
use crate::frontend::Origins;
use crate::frontend::stomp::Aliases;
use crate::people::Rates;
use crate::relay::entry::RoomName;

/// When a publish is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once Redis has it.
    Fast,
    /// Once its replicas have it too.
    Replicated,
}

/// How rooms are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailMode {
    /// Blocking reads while `tail_connections` lasts, client tracking beyond.
    Auto,
    /// Blocking reads only.
    Block,
    /// Client tracking only.
    Track,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object per line.
    Json,
}

/// A Redis URL; printed without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(String);

impl RedisUrl {
    /// The URL as given, password included.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&value::mask(&self.0))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The settings, checked. A field is the flag of that name; `None` is never, or no limit.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to take connections.
    pub listen: Vec<SocketAddr>,
    /// Where other nodes reach this one, if it's not what it listens on.
    pub advertise: Option<String>,
    /// What operators call this node, if it's not its host's name and port.
    pub node_name: Option<String>,
    /// The Redis server.
    pub redis: RedisUrl,
    /// Whether somebody named it; only an unnamed one may be started by tailcast.
    pub redis_given: bool,
    /// One node without Redis.
    pub memory: bool,
    /// Where a redis-server started by tailcast keeps its data.
    pub data_dir: PathBuf,
    /// Put before room names to make keys.
    pub key_prefix: String,
    /// Room of sockets that name none.
    pub default_room: RoomName,
    /// Entries kept per room; `None` with `keep_for`, too.
    pub keep: Option<u64>,
    /// How long entries are kept.
    pub keep_for: Option<Duration>,
    /// Rooms nobody published to for this long go.
    pub expire_after: Option<Duration>,
    /// When a publish is acknowledged.
    pub durability: Durability,
    /// Replicas that must have an entry.
    pub replicas: u32,
    /// How long to wait for them.
    pub replicate_timeout: Duration,
    /// How rooms are followed.
    pub tail: TailMode,
    /// Rooms with a blocking read of their own.
    pub tail_connections: usize,
    /// How long a publish waits.
    pub publish_timeout: Duration,
    /// Publishes that may wait.
    pub publish_queue: usize,
    /// Bytes of them.
    pub publish_queue_bytes: usize,
    /// How long idempotency keys are known.
    pub idempotency_window: Duration,
    /// Recent entries per room in memory.
    pub window_entries: usize,
    /// Bytes of them.
    pub window_bytes: usize,
    /// Bytes of them, all rooms together.
    pub window_total: usize,
    /// How long a room is followed without subscribers.
    pub linger: Duration,
    /// How long a write may get nowhere.
    pub slow_timeout: Option<Duration>,
    /// Largest frame or body taken in.
    pub max_frame: usize,
    /// Most fields per entry.
    pub max_fields: usize,
    /// Most rooms per socket.
    pub max_rooms: usize,
    /// Most sockets; `None` goes by the open-file limit.
    pub max_sockets: Option<usize>,
    /// Publishes on their way per socket.
    pub max_in_flight: usize,
    /// Inbound frames per second and socket.
    pub frame_rate: Option<u32>,
    /// Publishes per user, by role.
    pub rates: Rates,
    /// Users in a room whose names are told.
    pub presence_limit: usize,
    /// Most rooms on the homepage; 0 is none.
    pub homepage_rooms: usize,
    /// Whether joins and leaves become entries.
    pub notices: bool,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may rest between two requests.
    pub keep_alive_timeout: Duration,
    /// Largest request head.
    pub max_header_size: usize,
    /// Most headers of a request.
    pub max_headers: usize,
    /// How long a socket may be silent.
    pub idle_timeout: Option<Duration>,
    /// How often sockets are pinged.
    pub ping: Option<Duration>,
    /// How long an answer may take.
    pub pong: Duration,
    /// Origins that may connect.
    pub allowed_origins: Origins,
    /// Whom to believe.
    pub auth: Mode,
    /// Whether raw sockets get what is sent to their user, unasked.
    pub raw_inbox: bool,
    /// Whether people may register here.
    pub accounts: bool,
    /// Accounts that are host everywhere.
    pub account_hosts: Vec<UserName>,
    /// Whether others may come in while nobody is checked.
    pub insecure: bool,
    /// The secret of tokens.
    pub jwt_secret: Option<Secret>,
    /// The file with the public key of tokens.
    pub jwt_public_key: Option<PathBuf>,
    /// The file or address with the public keys of tokens.
    pub jwks: Option<String>,
    /// Whom tokens must be for.
    pub audience: Option<String>,
    /// Who must have made them.
    pub issuer: Option<String>,
    /// The cookie with a token.
    pub token_cookie: String,
    /// Keys of back ends, by name.
    pub api_keys: Vec<(String, Secret)>,
    /// What roles may.
    pub roles: Roles,
    /// Roles where a token names none.
    pub default_role: Grants,
    /// Roles of those without a token.
    pub anonymous_role: Grants,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// Most entries in a page of history.
    pub history_limit: usize,
    /// Heartbeat of quiet event streams.
    pub sse_heartbeat: Option<Duration>,
    /// Those of Socket.IO.
    pub socketio: socketio::Socketio,
    /// Where to take STOMP over bare TCP.
    pub stomp_listen: Vec<SocketAddr>,
    /// Where metrics and the status page are, if not with the rest.
    pub ops_listen: Vec<SocketAddr>,
    /// Largest STOMP frame.
    pub stomp_max_frame: usize,
    /// Names of STOMP destinations.
    pub stomp_alias: Aliases,
    /// Where SockJS's iframe page loads its library from; empty is no such page.
    pub sockjs_client: String,
    /// Whether SockJS sessions get a cookie.
    pub sockjs_cookie: bool,
    /// Filter of the log, as `EnvFilter` takes it.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What seems to be meant for tailcast and is not, a line each.
    pub unknown_variables: Vec<String>,
}

/// All that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigErrors(pub Vec<String>);

/// Finds and checks every setting. The second half is what `tailcast config` prints: texts in force.
pub fn load(sources: &Sources<'_>) -> Result<(Config, Vec<Found>), ConfigErrors> {
    let (mut found, errors) = sources.read();
    let home = (sources.environment)("HOME").and_then(|home| home.into_string().ok());
    let mut config = Reader {
        found: &found,
        errors,
    }
    .config(home.as_deref())?;
    config.unknown_variables = sources.unknown_variables();
    let given = |name| {
        let mut found = found.iter();
        found.any(|found| found.setting.name == name && found.given())
    };
    let implied = config.accounts && !given("auth") && !given("anonymous-role");
    for row in &mut found {
        match row.setting.name {
            "data-dir" => row.text = config.data_dir.display().to_string(),
            // The default of --keep steps back behind --keep-for.
            "keep" if config.keep.is_none() => row.text = "0".to_owned(),
            // What --accounts brings along.
            "auth" if config.auth == Mode::Jwt => row.text = "jwt".to_owned(),
            "anonymous-role" if implied => row.text = auth::READERS.to_owned(),
            _ => {}
        }
    }
    Ok((config, found))
}

impl Reader<'_> {
    fn config(mut self, home: Option<&str>) -> Result<Config, ConfigErrors> {
        let default_room = self.read("default-room", |text, _| {
            let room = RoomName::parse(text);
            room.map(Some)
                .map_err(|error| format!("is no room name: {error}; write another"))
        });
        let keep_for = self.time_or_never("keep-for");
        let keep = Some(self.number::<u64>("keep")).filter(|keep| *keep > 0);
        if keep_for.is_some() && keep.is_some() && self.given("keep") {
            self.complain("keep", "and --keep-for exclude each other; leave one out");
        }
        // A stand-in, so that the rest is checked even if the room's name is bad.
        let default_room = default_room.or_else(|| RoomName::parse("mystream").ok());
        let Some(default_room) = default_room else {
            return Err(ConfigErrors(self.errors));
        };
        let config = Config {
            listen: self.read("listen", |text, _| value::addresses(text)),
            advertise: self.read("advertise", |text, _| socketio::advertise(text)),
            node_name: self.read("node-name", |text, _| text::node_name(text)),
            redis: RedisUrl(self.read("redis", text::redis_url)),
            redis_given: self.given("redis"),
            memory: self.read("memory", |text, _| value::switch(text)),
            data_dir: self.read("data-dir", |text, _| text::directory(text, home)),
            key_prefix: self.read("key-prefix", text::key_prefix),
            default_room,
            keep: keep.filter(|_| keep_for.is_none()),
            keep_for,
            expire_after: self.time_or_never("expire-after"),
            durability: self.choice(
                "durability",
                &[
                    ("fast", Durability::Fast),
                    ("replicated", Durability::Replicated),
                ],
                Durability::Fast,
            ),
            replicas: self.number("replicas"),
            replicate_timeout: self.time("replicate-timeout"),
            tail: self.choice(
                "tail",
                &[
                    ("auto", TailMode::Auto),
                    ("block", TailMode::Block),
                    ("track", TailMode::Track),
                ],
                TailMode::Auto,
            ),
            tail_connections: self.number("tail-connections"),
            publish_timeout: self.time("publish-timeout"),
            publish_queue: self.number("publish-queue"),
            publish_queue_bytes: self.number("publish-queue-bytes"),
            idempotency_window: self.time("idempotency-window"),
            window_entries: self.number("window-entries"),
            window_bytes: self.number("window-bytes"),
            window_total: self.number("window-total"),
            linger: self.time("linger"),
            slow_timeout: self.time_or_never("slow-timeout"),
            max_frame: self.number("max-frame"),
            max_fields: self.number("max-fields"),
            max_rooms: self.number("max-rooms"),
            max_sockets: Some(self.number("max-sockets")).filter(|most| *most > 0),
            max_in_flight: self.number("max-in-flight"),
            frame_rate: Some(self.number("frame-rate")).filter(|most| *most > 0),
            rates: self.read("rate", |text, _| text::rates(text)),
            presence_limit: self.number("presence-limit"),
            homepage_rooms: self.number("homepage-rooms"),
            notices: self.read("notices", |text, _| value::switch(text)),
            handshake_timeout: self.time("handshake-timeout"),
            keep_alive_timeout: self.time("keep-alive-timeout"),
            max_header_size: self.number("max-header-size"),
            max_headers: self.number("max-headers"),
            idle_timeout: self.time_or_never("idle-timeout"),
            ping: self.time_or_never("ping"),
            pong: self.time("pong"),
            allowed_origins: self.read("allowed-origins", |text, _| text::origins(text)),
            raw_inbox: self.read("raw-inbox", |text, _| value::switch(text)),
            auth: match self.implies_jwt() {
                true => Mode::Jwt,
                false => self.choice(
                    "auth",
                    &[
                        ("none", Mode::None),
                        ("jwt", Mode::Jwt),
                        ("cookie", Mode::Cookie),
                    ],
                    Mode::None,
                ),
            },
            accounts: self.read("accounts", |text, _| value::switch(text)),
            account_hosts: self.read("account-host", |text, _| auth::users(text)),
            insecure: self.read("insecure", |text, _| value::switch(text)),
            jwt_secret: self.read("jwt-secret", |text, _| auth::secret(text)),
            jwt_public_key: self
                .read("jwt-public-key", |text, _| auth::optional(text))
                .map(PathBuf::from),
            jwks: self.read("jwks", |text, _| auth::jwks(text)),
            audience: self.read("audience", |text, _| auth::optional(text)),
            issuer: self.read("issuer", |text, _| auth::optional(text)),
            token_cookie: self.read("token-cookie", |text, _| auth::cookie_name(text)),
            api_keys: self.read("api-key", |text, _| auth::api_keys(text)),
            roles: self.read("role", |text, _| auth::roles(text)),
            default_role: self.read("default-role", |text, _| auth::grants(text)),
            anonymous_role: match self.implies_jwt() && !self.given("anonymous-role") {
                true => self.read("anonymous-role", |_, _| auth::grants(auth::READERS)),
                false => self.read("anonymous-role", |text, _| auth::grants(text)),
            },
            drain_timeout: self.time("drain-timeout"),
            history_limit: self.number("history-limit"),
            sse_heartbeat: self.time_or_never("sse-heartbeat"),
            socketio: self.socketio(),
            ops_listen: self.read("ops-listen", |text, _| match text.is_empty() {
                true => Ok(Vec::new()),
                false => value::addresses(text),
            }),
            stomp_listen: self.read("stomp-listen", |text, _| match text.is_empty() {
                true => Ok(Vec::new()),
                false => value::addresses(text),
            }),
            stomp_max_frame: self.number("stomp-max-frame"),
            stomp_alias: self.read("stomp-alias", |text, _| text.parse()),
            sockjs_client: self.read("sockjs-client", |text, _| text::sockjs_client(text)),
            sockjs_cookie: self.read("sockjs-cookie", |text, _| value::switch(text)),
            log: self.read("log", text::log_filter),
            log_format: self.choice(
                "log-format",
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                LogFormat::Text,
            ),
            unknown_variables: Vec::new(),
        };
        self.together(&config);
        if self.errors.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }
}

/// Prints settings as `tailcast config` does: TOML, each with its origin behind it.
pub fn print(found: &[Found]) -> String {
    let mut text = String::new();
    for row in found {
        text.push_str(&format!("{row}\n"));
    }
    text
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
