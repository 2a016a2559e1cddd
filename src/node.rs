//! A whole node: from settings to parts, and the parts put together.
//!
//! This and [`crate::server`] are the only files that know all the others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::accounts::{self, Accounts, Vault};
use crate::auth::mint::SigningKey;
use crate::auth::{self, Auth, Grants, KeySource, Secret};
use crate::config::{self, Config};
use crate::drain::Stop;
use crate::frontend::{self, FrontendState, socketio};
use crate::ops;
use crate::people::board::Board;
use crate::people::{self, People};
use crate::relay::WindowLimits;
use crate::relay::hub::{self, Relay};
use crate::relay::log::Log;
use crate::server::{self, Ended, Files, Server};
use crate::store::local::{self, LocalRedis};
use crate::store::memory::{self, MemoryLog};
use crate::store::redis::{self as redis_store, RedisLog, Retention};

mod greet;

/// The default of `--listen`, and the other address that `localhost` has.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DEFAULT_LISTEN_V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 8080);

/// Connections that may wait to be accepted. In a reconnect storm the kernel drops what exceeds it,
/// and those clients try again a second later; it lowers this to `net.core.somaxconn`.
const BACKLOG: u32 = 16 * 1024;

/// A heartbeat that is off. Timers can't take much more.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where Redis is looked for when no `--redis` says otherwise, and where one is started.
const REDIS_PORT: u16 = 6379;

/// How often Redis is asked for the nodes' secret until it answers.
const SECRET_RETRY: Duration = Duration::from_millis(500);

/// How long the look at Redis at the start may take. A node serves without it, too.
const PROBE: Duration = Duration::from_secs(2);

/// Starts a Redis of our own if no other was named and none answers. To be called on the main
/// thread, before the runtime: the child ends with the thread that started it.
pub fn own_redis(config: &Config) -> Result<Option<LocalRedis>> {
    if config.memory || config.redis_given {
        return Ok(None);
    }
    if local::is_answering(SocketAddr::from((Ipv4Addr::LOCALHOST, REDIS_PORT)))? {
        return Ok(None);
    }
    let own = LocalRedis::start(REDIS_PORT, &config.data_dir)?;
    eprintln!(
        "no Redis on 127.0.0.1:{REDIS_PORT}: started one, which keeps its data in {} and ends with tailcast",
        config.data_dir.display()
    );
    Ok(Some(own))
}

/// Runs a node until it's told to stop, and drains it.
pub async fn run(config: Config) -> Result<()> {
    let mut stop = Stop::on_signals().context("cannot listen for signals")?;
    let mut config = config;
    share_files(&mut config);
    for line in &config.unknown_variables {
        warn!("{line}");
    }
    type Parts = (Arc<dyn Log>, Arc<dyn Board>, Arc<dyn Vault>);
    let (log, board, vault): Parts = if config.memory {
        info!("rooms are in memory only: nothing is kept, and there is one node");
        let memory = Arc::new(MemoryLog::new(memory_settings(&config)));
        (memory.clone(), memory.clone(), memory)
    } else {
        look_at_redis(&config).await?;
        let redis = RedisLog::start(redis_settings(&config)).context("cannot use --redis")?;
        (redis.clone(), redis.clone(), redis)
    };
    if config.auth == auth::Mode::Cookie {
        warn_of_cookies(&config);
    }
    if config.accounts && config.jwt_secret.is_none() {
        tokio::select! {
            secret = shared_secret(&*board) => config.jwt_secret = Some(secret),
            () = stop.next() => return Ok(()),
        }
    }
    let listeners = Listeners::bind(&mut config)?;
    let config = config;
    let auth = Auth::new(auth_settings(&config)?).context("cannot check who comes in")?;
    auth.warm_up().await;
    let relay = Relay::new(log, relay_settings(&config));
    let people = People::start(relay, board, people_settings(&config));
    let state = FrontendState::new(people.clone(), auth, frontend_settings(&config)?);
    if config.accounts {
        let accounts = Accounts::new(vault, account_settings(&config)?);
        // It's set here alone.
        let _ = state.accounts.set(accounts);
    }
    ops::register(&state);

    let server = Server::new(server_settings(&config), state.clone(), listeners.main)
        .with_stomp(&state, listeners.stomp)
        .with_ops(state, listeners.ops);
    let sockets = server.max_sockets();
    info!(name = %node_name(&config), listen = ?config.listen, redis = %redis_name(&config), sockets, "serving");
    greet::greet(&config);
    let ended = server.run(stop).await;
    people.retire().await;
    match ended {
        Ended::Drained | Ended::AtOnce => Ok(()),
        Ended::TimedOut => bail!("the drain timed out; some connections were cut"),
    }
}

/// Holds the settings to the open files that the system lets this process have.
fn share_files(config: &mut Config) {
    let tails = match config.memory {
        true => 0,
        false => config.tail_connections,
    };
    let files = Files::of_this_process(tails, config.max_sockets);
    let limit = server::file_limit();
    if config.max_sockets.is_some_and(|most| most > files.sockets) {
        warn!(
            limit,
            sockets = files.sockets,
            "the limit of open files leaves fewer sockets than --max-sockets; raise it (ulimit -Hn, or LimitNOFILE=)"
        );
    }
    if files.tails < tails {
        warn!(
            limit,
            rooms = files.tails,
            "the limit of open files leaves fewer rooms a connection of their own than --tail-connections; the rest share one"
        );
    }
    config.tail_connections = files.tails;
    config.max_sockets = Some(files.sockets);
}

/// Says what `--auth cookie` means, so that nobody takes it for a check.
fn warn_of_cookies(config: &Config) {
    let cookie = &config.token_cookie;
    if config::auth::public_listeners(config).next().is_some() {
        warn!(
            %cookie, listen = ?config.listen,
            "--auth cookie checks nothing, and others can come in: WHOEVER CONNECTS IS WHOM THEIR COOKIE NAMES. \
             Let only a proxy in that sets the cookie itself and drops what clients send, or use --auth jwt"
        );
    } else {
        warn!(%cookie, "--auth cookie checks nothing: whoever connects is whom their cookie names");
    }
}

/// Where clients come in.
struct Listeners {
    main: Vec<TcpListener>,
    stomp: Vec<TcpListener>,
    ops: Vec<TcpListener>,
}

impl Listeners {
    /// Binds what the settings name, where port 0 is any that is free: it says which in the settings.
    fn bind(config: &mut Config) -> Result<Self> {
        let is_default = config.listen == [DEFAULT_LISTEN];
        let mut main = bind(&mut config.listen, "--listen")?;
        if is_default {
            // `localhost` is ::1 first to some clients (Node before 20), and not there on all machines.
            main.extend(listen(DEFAULT_LISTEN_V6).ok());
        }
        Ok(Listeners {
            main,
            stomp: bind(&mut config.stomp_listen, "--stomp-listen")?,
            ops: bind(&mut config.ops_listen, "--ops-listen")?,
        })
    }
}

fn bind(addresses: &mut [SocketAddr], setting: &str) -> Result<Vec<TcpListener>> {
    let bind = |address: &mut SocketAddr| {
        let listener = listen(*address).with_context(|| {
            format!("cannot listen on {address}; choose another with {setting}")
        })?;
        *address = listener.local_addr().unwrap_or(*address);
        Ok(listener)
    };
    addresses.iter_mut().map(bind).collect()
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // As tokio's own bind does: a restart must not wait for old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn redis_name(config: &Config) -> String {
    if config.memory {
        "none".to_owned()
    } else {
        config.redis.to_string()
    }
}

/// Looks at Redis once, so that what is wrong with it is said at the start. Only what can't pass
/// by itself ends the start.
async fn look_at_redis(config: &Config) -> Result<()> {
    let url = &config.redis;
    match timeout(PROBE, redis_store::probe(url.as_str())).await {
        Ok(Ok(probe)) => {
            if let Some(policy) = probe
                .eviction
                .as_ref()
                .filter(|policy| *policy != "noeviction")
            {
                warn!(
                    policy,
                    "Redis may evict whole rooms; set maxmemory-policy noeviction"
                );
            }
            // Who may not ask for its settings is not told.
            let persistence = probe.persistence();
            if let Some(warning) = persistence.and_then(|persistence| persistence.warning()) {
                warn!("Redis's persistence: {warning}");
            }
            if probe.role.as_deref().is_some_and(|role| role != "master") {
                warn!(%url, "this Redis is a replica and takes no writes; name its master in --redis");
            }
            Ok(())
        }
        Ok(Err(error)) if error.is_denied() => {
            bail!(
                "{url}: {error}; put user and password into --redis as redis://USER:PASSWORD@HOST:PORT"
            )
        }
        Ok(Err(error)) => {
            warn!(%url, %error, "can't use Redis yet; serving, and trying on");
            Ok(())
        }
        Err(_) => {
            warn!(%url, "Redis does not answer yet; serving, and trying on");
            Ok(())
        }
    }
}

fn memory_settings(config: &Config) -> memory::Settings {
    memory::Settings {
        keep: config
            .keep
            .map(|keep| usize::try_from(keep).unwrap_or(usize::MAX)),
        keep_for: config.keep_for,
        expire_after: config.expire_after,
        idempotency_window: config.idempotency_window,
    }
}

fn redis_settings(config: &Config) -> redis_store::Settings {
    redis_store::Settings {
        url: config.redis.as_str().to_owned(),
        key_prefix: config.key_prefix.clone(),
        keep: match (config.keep_for, config.keep) {
            (Some(age), _) => Retention::Age(age),
            (None, Some(entries)) => Retention::Entries(entries),
            (None, None) => Retention::All,
        },
        expire_after: config.expire_after,
        durability: match config.durability {
            config::Durability::Fast => redis_store::Durability::Fast,
            config::Durability::Replicated => redis_store::Durability::Replicated {
                replicas: config.replicas,
                timeout: config.replicate_timeout,
            },
        },
        tail_mode: match config.tail {
            config::TailMode::Auto => redis_store::TailMode::Auto,
            config::TailMode::Block => redis_store::TailMode::Block,
            config::TailMode::Track => redis_store::TailMode::Track,
        },
        tail_connections: config.tail_connections,
        publish_queue: config.publish_queue,
        publish_queue_bytes: config.publish_queue_bytes,
        idempotency_window: config.idempotency_window,
    }
}

fn people_settings(config: &Config) -> people::Settings {
    people::Settings {
        presence_limit: config.presence_limit,
        notices: config.notices,
        homepage_rooms: config.homepage_rooms,
        rates: config.rates.clone(),
        name: node_name(config),
        address: config
            .advertise
            .clone()
            .unwrap_or_else(|| own_address(config)),
        ..people::Settings::default()
    }
}

/// What operators call this node: as the settings say, or by its host and port.
fn node_name(config: &Config) -> String {
    if let Some(name) = &config.node_name {
        return name.clone();
    }
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    match config.listen.first() {
        Some(address) => format!("{host}:{}", address.port()),
        None => host.into_owned(),
    }
}

/// Where others reach this node, as far as it can tell.
fn own_address(config: &Config) -> String {
    let Some(address) = config.listen.first() else {
        return String::new();
    };
    if !address.ip().is_unspecified() {
        return address.to_string();
    }
    // The address that packets to far away would leave from; none is sent.
    let outward = || {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    };
    let ip = outward().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |outward| outward.ip());
    let own = SocketAddr::new(ip, address.port()).to_string();
    if !config.memory {
        warn!(address = %own, "other nodes are told to reach this one there; --advertise says otherwise");
    }
    own
}

fn relay_settings(config: &Config) -> hub::Settings {
    hub::Settings {
        window: WindowLimits {
            entries: config.window_entries,
            bytes: config.window_bytes,
        },
        window_total: config.window_total,
        linger: config.linger,
        slow_timeout: config.slow_timeout,
        max_rooms: config.max_rooms,
        max_in_flight: u32::try_from(config.max_in_flight).unwrap_or(u32::MAX),
        publish_timeout: config.publish_timeout,
        ..hub::Settings::default()
    }
}

fn frontend_settings(config: &Config) -> Result<frontend::Settings> {
    Ok(frontend::Settings {
        default_room: config.default_room.clone(),
        max_frame: config.max_frame,
        max_fields: config.max_fields,
        raw_inbox: config.raw_inbox,
        ops_apart: !config.ops_listen.is_empty(),
        frame_rate: config.frame_rate.unwrap_or(0),
        ping: config.ping.unwrap_or_default(),
        pong: config.pong,
        idle_timeout: config.idle_timeout,
        allowed_origins: config.allowed_origins.clone(),
        history_limit: config.history_limit,
        sse_heartbeat: config.sse_heartbeat.unwrap_or(NEVER),
        sockjs: frontend::sockjs::Options {
            client: config.sockjs_client.clone(),
            cookie: config.sockjs_cookie,
            ..frontend::sockjs::Options::default()
        },
        socketio: socketio::Settings {
            path: config.socketio.path.clone(),
            ping_interval: config.socketio.ping_interval,
            ping_timeout: config.socketio.ping_timeout,
            max_payload: config.socketio.max_payload,
            secret: config.jwt_secret.clone(),
            ..socketio::Settings::default()
        },
        stomp: frontend::stomp::Settings {
            aliases: config.stomp_alias.clone(),
            max_frame: config.stomp_max_frame,
        },
    })
}

/// Who may come in. Reads the file of a public key.
pub fn auth_settings(config: &Config) -> Result<auth::Settings> {
    let public_key = config.jwt_public_key.as_ref().map(|path| {
        let pem = std::fs::read(path);
        pem.with_context(|| format!("cannot read --jwt-public-key {}", path.display()))
    });
    let secret = config.jwt_secret.clone().map(KeySource::Secret);
    let jwks = config.jwks.as_ref().map(|place| {
        match place.starts_with("https://") || place.starts_with("http://") {
            true => KeySource::JwksUrl(place.clone()),
            false => KeySource::JwksFile(place.into()),
        }
    });
    Ok(auth::Settings {
        mode: config.auth,
        key: secret
            .or(public_key.transpose()?.map(KeySource::PublicKey))
            .or(jwks),
        audience: config.audience.clone(),
        issuer: config.issuer.clone(),
        token_cookie: config.token_cookie.clone(),
        api_keys: config.api_keys.clone(),
        roles: config.roles,
        default_role: config.default_role.clone(),
        anonymous_role: config.anonymous_role.clone(),
        ..auth::Settings::default()
    })
}

/// The secret that all nodes share which were given none. A node can't let anybody in without, so it
/// waits for Redis.
async fn shared_secret(board: &dyn Board) -> Secret {
    let proposed = people::made_secret();
    let mut was_told = false;
    loop {
        match board.secret(proposed.clone()).await {
            Ok(secret) => return Secret::new(secret.to_vec()),
            Err(error) if was_told => tracing::debug!(%error, "no secret yet"),
            Err(error) => {
                warn!(%error, "the nodes' secret is in Redis; serving once that answers");
                was_told = true;
            }
        }
        tokio::time::sleep(SECRET_RETRY).await;
    }
}

fn account_settings(config: &Config) -> Result<accounts::Settings> {
    let secret = config.jwt_secret.as_ref();
    let secret = secret.context("--accounts needs --jwt-secret")?;
    // Where somebody has said what tokens are good for, that holds for these, too.
    let rooms = match config.default_role.is_empty() {
        true => "*=member,@*=member".parse()?,
        false => Grants::default(),
    };
    Ok(accounts::Settings {
        key: SigningKey::from_secret(secret).context("cannot sign tokens")?,
        audience: config.audience.clone(),
        issuer: config.issuer.clone(),
        rooms,
        hosts: config.account_hosts.clone(),
        host_rooms: "*=host,@*=member".parse()?,
    })
}

fn server_settings(config: &Config) -> server::Settings {
    server::Settings {
        max_sockets: config.max_sockets.unwrap_or(0),
        handshake_timeout: config.handshake_timeout,
        keep_alive_timeout: config.keep_alive_timeout,
        max_header_size: config.max_header_size,
        max_headers: config.max_headers,
        drain_timeout: config.drain_timeout,
    }
}
