//! What `tailcast check` wants to know of a Redis. Best effort: what a server won't tell is `None`.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::mpsc;

use super::ConnectError;
use super::connect::{Address, ask};
use super::reply;
use crate::relay::log::LogError;

const TIMEOUT: Duration = Duration::from_secs(2);

/// What a Redis says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// `redis`, `valkey`, …, as HELLO has it.
    pub server: Option<String>,
    /// Its version, as HELLO has it.
    pub version: Option<String>,
    /// `master` or `slave`.
    pub role: Option<String>,
    /// Whether client tracking works here.
    pub tracking: bool,
    /// `appendonly`: whether there is an append-only file.
    pub append_only: Option<bool>,
    /// `save`: when snapshots are taken; empty is never.
    pub save: Option<String>,
    /// `maxmemory-policy`.
    pub eviction: Option<String>,
    /// `tracking-table-max-keys`; 0 is unlimited.
    pub tracking_table: Option<u64>,
    /// One round trip.
    pub latency: Duration,
}

/// What of a Redis outlives its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Persistence {
    /// All but the last second, or all: an append-only file.
    Appended,
    /// What was there at the last snapshot, which are taken as this setting says.
    Snapshots(String),
    /// Nothing.
    None,
}

impl Persistence {
    /// By the values of `appendonly` and `save`.
    pub fn of(append_only: bool, save: &str) -> Self {
        match (append_only, save) {
            (true, _) => Persistence::Appended,
            (false, "") => Persistence::None,
            (false, save) => Persistence::Snapshots(save.to_owned()),
        }
    }

    /// What can be lost, and what mends it; `None` where all is well.
    pub fn warning(&self) -> Option<String> {
        const MEND: &str = "redis-cli CONFIG SET appendonly yes, then redis-cli CONFIG REWRITE";
        match self {
            Persistence::Appended => None,
            Persistence::Snapshots(save) => Some(format!(
                "snapshots only (save {save}); a crash of Redis loses all entries since the last one, acknowledged ones too. {MEND}"
            )),
            Persistence::None => Some(format!(
                "none; a restart of Redis loses every entry. {MEND}"
            )),
        }
    }
}

impl Probe {
    /// What outlives the server's end, if it tells.
    pub fn persistence(&self) -> Option<Persistence> {
        Some(Persistence::of(self.append_only?, self.save.as_deref()?))
    }
}

/// Why there is nothing to report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The URL.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl ProbeError {
    /// Whether it's a matter of user and password, which don't come right by themselves.
    pub fn is_denied(&self) -> bool {
        matches!(self, ProbeError::Log(LogError::Denied(_)))
    }
}

/// Asks a Redis about itself.
pub async fn probe(url: &str) -> Result<Probe, ProbeError> {
    let address = Address::parse(url)?;
    let (sender, _pushes) = mpsc::unbounded_channel();
    let (mut connection, resp3) = match address.open_resp3(sender).await {
        Ok(connection) => (connection, true),
        Err(_) => {
            let plain = address.open().await;
            (plain.map_err(|error| reply::fault(&error))?, false)
        }
    };
    let connection = &mut connection;
    let started = Instant::now();
    reply::check(one(connection, &["PING"]).await?)?;
    let latency = started.elapsed();
    let hello: &[&str] = if resp3 { &["HELLO", "3"] } else { &["HELLO"] };
    let hello = map(one(connection, hello).await?);
    let tracking = resp3 && one(connection, &["CLIENT", "TRACKING", "ON"]).await? == Value::Okay;
    let append_only = config(connection, "appendonly").await?;
    Ok(Probe {
        server: hello.get("server").cloned(),
        version: hello.get("version").cloned(),
        role: hello.get("role").cloned(),
        tracking,
        append_only: append_only.map(|value| value == "yes"),
        save: config(connection, "save").await?,
        eviction: config(connection, "maxmemory-policy").await?,
        tracking_table: config(connection, "tracking-table-max-keys")
            .await?
            .and_then(|value| value.parse().ok()),
        latency,
    })
}

async fn one(connection: &mut MultiplexedConnection, words: &[&str]) -> Result<Value, LogError> {
    let mut pipe = Pipeline::with_capacity(1);
    for (index, word) in words.iter().enumerate() {
        match index {
            0 => pipe.cmd(word),
            _ => pipe.arg(*word),
        };
    }
    Ok(ask(connection, &pipe, TIMEOUT)
        .await?
        .pop()
        .unwrap_or_default())
}

async fn config(
    connection: &mut MultiplexedConnection,
    name: &str,
) -> Result<Option<String>, LogError> {
    let value = one(connection, &["CONFIG", "GET", name]).await?;
    Ok(map(value).remove(name))
}

/// The texts of a map; an error reply is an empty one.
fn map(value: Value) -> HashMap<String, String> {
    let flat = match value {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(k, v)| [k, v]).collect(),
        Value::Array(flat) => flat,
        _ => Vec::new(),
    };
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    };
    flat.chunks_exact(2)
        .filter_map(|pair| Some((text(&pair[0])?, text(&pair[1])?)))
        .collect()
}
