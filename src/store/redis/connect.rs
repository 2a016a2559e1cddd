//! Opens connections, and waits between tries.
//!
//! Response time-outs of the redis crate are off: whoever asks brings its own deadline ([`ask`]),
//! because a blocking read, a batch of appends and a ping each need another. After a time-out the
//! connection is never used again: its answers would be for questions nobody remembers.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, RedisError, Value,
};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::timeout;

use super::reply;
use crate::relay::log::LogError;

/// How long opening a connection may take, handshake included. Two seconds are many round trips
/// anywhere, and a hung server is given up before most publish deadlines.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings name no Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The URL is wrong. It's not repeated here, as it may hold a password.
    #[error(
        "not a Redis URL ({0}); write redis://[user:password@]host[:port][/db], rediss:// for TLS, or unix:///path?db=0&user=…&pass=…"
    )]
    Url(String),
}

/// Where Redis is, and who we are there.
#[derive(Debug, Clone)]
pub(super) struct Address {
    info: ConnectionInfo,
    /// Connections opened, by all clones.
    opened: Arc<AtomicU64>,
}

impl Address {
    /// Reads a URL.
    pub(super) fn parse(url: &str) -> Result<Self, ConnectError> {
        let wrong = |error: RedisError| {
            ConnectError::Url(
                error
                    .detail()
                    .map_or_else(|| error.category().to_owned(), |detail| detail.to_owned()),
            )
        };
        let info = url.into_connection_info().map_err(wrong)?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            install_tls();
        }
        let redis = info
            .redis_settings()
            .clone()
            .set_lib_name("tailcast", env!("CARGO_PKG_VERSION"));
        let info = info
            .set_redis_settings(redis)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Client::open(info.clone()).map_err(wrong)?;
        Ok(Address {
            info,
            opened: Arc::default(),
        })
    }

    /// How many connections were opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Opens a connection that speaks RESP2.
    pub(super) async fn open(&self) -> Result<MultiplexedConnection, RedisError> {
        self.open_as(ProtocolVersion::RESP2, None).await
    }

    /// Opens a connection that speaks RESP3, and hears pushes.
    pub(super) async fn open_resp3(
        &self,
        pushes: UnboundedSender<PushInfo>,
    ) -> Result<MultiplexedConnection, RedisError> {
        self.open_as(ProtocolVersion::RESP3, Some(pushes)).await
    }

    async fn open_as(
        &self,
        protocol: ProtocolVersion,
        pushes: Option<UnboundedSender<PushInfo>>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let redis = self.info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(self.info.clone().set_redis_settings(redis))?;
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        if let Some(pushes) = pushes {
            config = config.set_push_sender(pushes);
        }
        let opening = async {
            let mut connection = client
                .get_multiplexed_async_connection_with_config(&config)
                .await?;
            // For CLIENT LIST. An error reply, from an ACL say, does not matter.
            let mut name = redis::cmd("CLIENT");
            name.arg("SETNAME").arg("tailcast");
            connection.send_packed_command(&name).await?;
            self.opened.fetch_add(1, Ordering::Relaxed);
            Ok(connection)
        };
        timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| {
            Err(RedisError::from(io::Error::new(
                io::ErrorKind::TimedOut,
                "no answer while connecting",
            )))
        })
    }
}

/// The redis crate brings rustls without a crypto provider.
fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that somebody installed one before: good as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Sends a pipeline and waits for all its answers; error replies are among them. An `Err` means
/// that the connection is of no more use.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    pipe: &Pipeline,
    within: Duration,
) -> Result<Vec<Value>, LogError> {
    let answers = timeout(within, connection.send_packed_commands(pipe, 0, pipe.len()));
    match answers.await {
        Ok(Ok(values)) if values.len() == pipe.len() => Ok(values),
        Ok(Ok(_)) => Err(LogError::Unavailable("a reply is missing".to_owned())),
        Ok(Err(error)) => Err(reply::fault(&error)),
        Err(_) => Err(LogError::Unavailable(format!(
            "no answer within {within:?}"
        ))),
    }
}

/// How long to wait before the next try: doubling, up to a limit, half of it random, so that
/// many nodes don't come back in step.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// For connections: 50 ms up to 1 s.
    pub(super) fn for_connections() -> Self {
        Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// From `first` up to `most`.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Backoff {
            first,
            most,
            tries: 0,
        }
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait, with fresh randomness.
    pub(super) fn wait(&mut self) -> Duration {
        self.wait_at(rand::random())
    }

    /// The next wait; `random` is in 0..1.
    fn wait_at(&mut self, random: f64) -> Duration {
        let full = self
            .first
            .saturating_mul(1u32 << self.tries.min(16))
            .min(self.most);
        self.tries = self.tries.saturating_add(1);
        full.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(1000));
        let waits: Vec<_> = (0..6).map(|_| backoff.wait_at(1.0)).collect();
        assert_eq!(
            waits,
            [ms(50), ms(100), ms(200), ms(400), ms(800), ms(1000)]
        );
        for _ in 0..100 {
            assert_eq!(backoff.wait_at(0.0), ms(500));
            assert!((ms(500)..=ms(1000)).contains(&backoff.wait()));
        }
        backoff.reset();
        assert_eq!(backoff.wait_at(0.0), ms(25));
    }

    #[test]
    fn urls() {
        for good in [
            "redis://127.0.0.1",
            "redis://user:secret@host:1234/5",
            "rediss://host",
            "unix:///run/redis.sock?db=2&pass=x",
        ] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost:6379", "http://host", "redis://h/notadb"] {
            let error = Address::parse(bad).unwrap_err().to_string();
            assert!(error.contains("not a Redis URL"), "{bad}: {error}");
        }
        let error = Address::parse("redis://u:secret@h/notadb").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
