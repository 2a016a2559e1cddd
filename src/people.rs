//! People: who is here, who may speak, and what a moderator says about it.
//!
//! Front ends don't use the relay directly: what a client asks for goes through a [`Session`], which
//! checks it against the client's identity and the room's rules, and tells the other nodes who is
//! here. What comes by single requests goes through [`People`] itself.
//!
//! Reading order: [`board`] is what nodes share; `rules`, `here` and `roster` are pure and say what is
//! known of a room; `side` is a room with all that on this node; `lease` keeps this node alive in the
//! eyes of the others, and tells them who is here; `audit` follows what moderators do anywhere; [`home`]
//! keeps the homepage; [`fields`] is what clients may not write;
//! [`session`] and [`moderation`] are what clients do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::auth::Identity;
use crate::relay::connection::Connection;
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::hub::Relay;
use crate::relay::log::LogError;

pub mod board;

mod audit;
pub mod fields;
mod here;
pub mod home;
mod lease;
mod member;
pub mod moderation;
mod nodes;
mod pace;
mod publish;
pub mod query;
mod rates;
mod reactions;
mod refusal;
mod roster;
mod rules;
pub mod session;
mod side;
mod told;
mod wire;

pub use nodes::made_secret;
pub use rates::{Rate, RateError, Rates};
pub use refusal::Refusal;
pub use roster::Present;
pub use rules::SLOW_MAX;

use self::board::{Board, NodeId};
use self::here::Here;
use self::home::Home;
use self::session::Session;
use self::side::Side;

/// Changes of who is here are told this often, and reactions.
pub const TICK: Duration = Duration::from_millis(250);

/// How this part behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// With more members than this in a room, only their number is told.
    pub presence_limit: usize,
    /// Whether joins and leaves become entries of their rooms.
    pub notices: bool,
    /// How often somebody may publish, by role.
    pub rates: Rates,
    /// How long a node lives on in the eyes of others without saying so. It says so three times in
    /// that time.
    pub lease: Duration,
    /// What operators call this node. It stays, while the name that the board knows it by may change.
    pub name: String,
    /// How this node is reached, for whoever looks at the nodes.
    pub address: String,
    /// Most rooms on the homepage; 0 is none at all.
    pub homepage_rooms: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            presence_limit: 500,
            notices: false,
            rates: Rates::default(),
            // A dead node is gone when its lease is, and a third of it later at most everybody
            // has noticed: 8 s.
            lease: Duration::from_secs(6),
            name: String::new(),
            address: String::new(),
            homepage_rooms: 200,
        }
    }
}

/// The people of a node.
pub struct People {
    shared: Arc<Shared>,
    lease: AbortOnDropHandle<()>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What the parts of it share.
struct Shared {
    relay: Arc<Relay>,
    board: Arc<dyn Board>,
    settings: Settings,
    sides: Mutex<HashMap<RoomName, Arc<Side>>>,
    /// Those that the next tick visits.
    stirred: Mutex<Vec<Arc<Side>>>,
    here: Mutex<Here>,
    home: Home,
    /// Which nodes live, as of the last beat.
    nodes: watch::Sender<Nodes>,
    /// Whether this node follows what moderators do. Before that no room's rules are read, or an
    /// act between the two would be missed. An error, if it can't.
    audits: watch::Sender<Option<Result<(), LogError>>>,
    /// The last act that has taken effect on this node.
    audited: watch::Sender<EntryId>,
    started_ms: u64,
    /// This process's name, which it keeps for life, whatever its names on the board.
    process: String,
}

/// The nodes with a lease.
#[derive(Debug, Clone)]
struct Nodes {
    /// This one's name just now.
    own: NodeId,
    /// All, this one included, with what each says of itself.
    living: Vec<(NodeId, bytes::Bytes)>,
    /// When they were asked for.
    as_of: Option<Instant>,
}

impl People {
    /// Begins to follow what moderators do, and to tell others of who is here. Must be called
    /// within a tokio runtime.
    pub fn start(relay: Arc<Relay>, board: Arc<dyn Board>, settings: Settings) -> Arc<Self> {
        let own = NodeId::random();
        let shared = Arc::new(Shared {
            relay,
            board,
            settings,
            sides: Mutex::default(),
            stirred: Mutex::default(),
            here: Mutex::default(),
            home: Home::new(),
            nodes: watch::Sender::new(Nodes {
                own,
                living: Vec::new(),
                as_of: None,
            }),
            audits: watch::Sender::new(None),
            audited: watch::Sender::new(EntryId::ZERO),
            started_ms: now_ms(),
            process: NodeId::random().to_string(),
        });
        let audit = tokio::spawn(audit::follow(shared.clone()));
        let tell = tokio::spawn(lease::tell(shared.clone()));
        let lease = tokio::spawn(lease::keep(shared.clone()));
        Arc::new(People {
            shared,
            lease: AbortOnDropHandle::new(lease),
            _tasks: [audit, tell].map(AbortOnDropHandle::new),
        })
    }

    /// The relay under it.
    pub fn relay(&self) -> &Arc<Relay> {
        &self.shared.relay
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// How many users are connected to this node.
    pub fn users_here(&self) -> usize {
        self.shared.here().users()
    }

    /// How many nodes live, as of this one's last beat.
    pub fn nodes_alive(&self) -> usize {
        self.shared.nodes.borrow().living.len()
    }

    /// This node's name just now; it takes another when it was taken for dead.
    pub fn own_name(&self) -> NodeId {
        self.shared.own()
    }

    /// When this node started, in milliseconds since the Unix epoch, by its own clock.
    pub fn started_ms(&self) -> u64 {
        self.shared.started_ms
    }

    /// A session for a client that was let in.
    pub fn session(&self, connection: Connection, identity: Identity) -> Session {
        Session::new(self.shared.clone(), connection, identity)
    }

    /// Tells the others that this node goes away, once its clients have gone: what it still holds
    /// counts for nothing any more.
    pub async fn retire(&self) {
        // Or it would take the lease again. What it was writing is buried with the rest.
        self.lease.abort();
        lease::retire(&self.shared).await;
    }
}

impl Shared {
    fn sides(&self) -> MutexGuard<'_, HashMap<RoomName, Arc<Side>>> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The side of a room, opened if need be.
    fn side(self: &Arc<Self>, room: &RoomName) -> Arc<Side> {
        let mut sides = self.sides();
        if let Some(side) = sides.get(room) {
            side.touch();
            return side.clone();
        }
        let side = Side::open(self, room.clone());
        sides.insert(room.clone(), side.clone());
        side
    }

    /// Lets go of sides that nobody has needed for a while.
    fn sweep(&self, now: Instant) {
        let mut gone = Vec::new();
        self.sides().retain(|_, side| {
            let stays = !side.is_idle(now);
            if !stays {
                gone.push(side.clone());
            }
            stays
        });
        // Outside the lock, as guards are dropped that reach into the store.
        drop(gone);
    }

    fn stirred(&self) -> MutexGuard<'_, Vec<Arc<Side>>> {
        self.stirred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sides on which somebody wants to know who is there.
    fn watched_sides(&self) -> Vec<Arc<Side>> {
        let sides = self.sides();
        sides
            .values()
            .filter(|side| side.is_watched())
            .cloned()
            .collect()
    }

    /// The names of the nodes that live.
    fn living(&self) -> Vec<NodeId> {
        let nodes = self.nodes.borrow();
        nodes.living.iter().map(|(node, _)| node.clone()).collect()
    }

    /// How long something waits for a room's rules, while Redis is away.
    fn patience(&self) -> Duration {
        self.relay.publish_timeout()
    }

    fn own(&self) -> NodeId {
        self.nodes.borrow().own.clone()
    }
}

/// The time by this node's clock, in Unix milliseconds.
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Reads whatever other nodes, or anybody with access to Redis, may have written.
#[cfg(fuzzing)]
pub(crate) fn fuzz(data: &[u8]) {
    if let Some(message) = wire::Message::decode(data) {
        assert_eq!(wire::Message::decode(&message.encode()), Some(message));
    }
    if let Some(member) = member::Member::read(data) {
        assert_eq!(member::Member::read(&member.record()), Some(member));
    }
    let _ = here::read_user(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let (name, rule) = text.split_once('\n').unwrap_or((text, ""));
        let mut rules = rules::Rules::default();
        rules.set(name, Some(rule));
        rules.set(name, None);
        assert_eq!(rules, rules::Rules::default());
    }
}
