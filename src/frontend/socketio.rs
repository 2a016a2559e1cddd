//! Socket.IO: Engine.IO 4 and Socket.IO 5, which clients of versions 3 and 4 speak.
//!
//! Two protocols lie one on the other. Engine.IO carries messages by polling (`polling`), by a
//! WebSocket (`socket`), and from the one to the other (`probe`); `payload` and `heartbeat`
//! are its pure parts, `sid` its session IDs. Socket.IO has namespaces, events and acknowledgements
//! (`packet`, `assembly`). A `Client` is one session's Socket.IO side and has a
//! `Space` per namespace: `connect` is how it comes in, `ask` what it asks for, `notices` what others are told of it.
//!
//! What entries become is in `told`; a `Stamp` puts a namespace's name and an offset to it,
//! right before it goes out. `pid` and `offset` are what a client brings back after its connection
//! broke, to have all that it missed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::FrontendState;
use super::forward::Idle;

mod ask;
mod assembly;
mod client;
mod connect;
mod heartbeat;
mod notices;
mod offset;
mod packet;
mod payload;
mod pid;
mod polling;
mod probe;
mod profile;
pub(crate) mod request;
mod sid;
mod socket;
mod space;
mod stamp;
mod told;

pub use profile::Profile;

use self::pid::Signer;
use self::polling::Polled;

/// Settings of this front end.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub path: String,
    /// How often a client is pinged.
    pub ping_interval: Duration,
    /// How long it may take to answer; and how long one that polls may ask for nothing.
    pub ping_timeout: Duration,
    /// Largest message, and largest body of a request, in bytes.
    pub max_payload: usize,
    /// How long a client may take to connect a namespace.
    pub connect_timeout: Duration,
    /// What pids are signed with; nodes without it agree on a secret of their own.
    pub secret: Option<crate::auth::Secret>,
    /// What a test server does in place of rooms.
    pub profile: Option<Arc<dyn Profile>>,
}

impl Default for Settings {
    /// What the reference server has.
    fn default() -> Self {
        Settings {
            path: "/socket.io".to_owned(),
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            max_payload: 1_000_000,
            connect_timeout: Duration::from_secs(45),
            secret: None,
            profile: None,
        }
    }
}

/// What of a session's ID only its client knows.
type Key = [u8; 15];

/// Sessions of a node that are polled. One takes a few KB, and any request opens one.
const POLLED_MAX: usize = 65_536;

/// How long to wait before a Redis that does not answer is asked for the secret again.
const SECRET_RETRY: Duration = Duration::from_millis(250);

/// The sessions of a node, as far as they are polled, its key, and its ways to the others' sessions.
#[derive(Default)]
pub(crate) struct Sessions {
    ways: Arc<Idle>,
    polled: Mutex<HashMap<Key, Arc<Polled>>>,
    signer: OnceCell<Signer>,
}

impl Sessions {
    fn polled(&self) -> MutexGuard<'_, HashMap<Key, Arc<Polled>>> {
        self.polled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there can't be one more.
    fn is_full(&self) -> bool {
        self.polled().len() >= POLLED_MAX
    }

    fn add(&self, key: Key, polled: Arc<Polled>) {
        self.polled().insert(key, polled);
    }

    fn find(&self, key: &Key) -> Option<Arc<Polled>> {
        self.polled().get(key).cloned()
    }

    fn forget(&self, key: &Key) {
        // Dropped outside the lock, as it may be the last of it.
        let forgotten = self.polled().remove(key);
        drop(forgotten);
    }

    /// The key that all nodes have. Waits while Redis is away.
    async fn signer(&self, state: &FrontendState) -> Signer {
        let found = self.signer.get_or_init(|| async {
            if let Some(secret) = &state.settings.socketio.secret {
                return Signer::new(secret.expose());
            }
            loop {
                match state.people.secret().await {
                    Ok(secret) => return Signer::new(&secret),
                    Err(error) => {
                        tracing::debug!(%error, "no secret for pids yet");
                        sleep(SECRET_RETRY).await;
                    }
                }
            }
        });
        found.await.clone()
    }
}

impl FrontendState {
    fn profile(&self) -> Option<&Arc<dyn Profile>> {
        self.settings.socketio.profile.as_ref()
    }
}

/// The first packet of a session.
fn opening(settings: &Settings, sid: &str, may_upgrade: bool) -> String {
    let upgrades: &[&str] = if may_upgrade { &["websocket"] } else { &[] };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let json = serde_json::json!({
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": millis(settings.ping_interval),
        "pingTimeout": millis(settings.ping_timeout),
        "maxPayload": settings.max_payload,
    });
    format!("0{json}")
}

/// Reads whatever a client may send.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    payload::fuzz(text);
    packet::fuzz(text);
    assembly::fuzz(text);
    pid::fuzz(text);
    offset::fuzz(text);
}
