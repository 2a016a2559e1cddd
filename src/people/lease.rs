//! The lease: this node lives as long as it says so. With the same clock it tells the board who is
//! here, and clears away what dead nodes have left.
//!
//! What this node has written stands under a name made for this life. When in doubt (the lease is
//! gone because this process or Redis stood still, or a write failed half-way) it takes a new name,
//! writes everything under that, and then buries the old one. So a user is never gone in between,
//! and a user under both names is one user.
//!
//! What clients of this node are told has a clock of its own, which goes on while the board does not
//! answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::board::{Beat, NodeId};
use super::{Nodes, Shared, TICK};
use crate::relay::log::LogError;

/// How long to wait after a board that does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Earlier names that are kept in mind, to be buried at once. Others see to the rest, when their
/// leases have run out.
const OLD_NAMES: usize = 8;

/// Where this life of the node stands.
#[derive(Default)]
struct Life {
    /// Whether the board knows all but what changes. Else it has to be told everything.
    is_told: bool,
    /// Earlier names, to be buried when it's told.
    old: Vec<NodeId>,
}

impl Life {
    /// Begins anew under another name.
    fn begin_anew(&mut self, shared: &Shared) {
        self.is_told = false;
        self.old.push(rename(shared));
        let too_many = self.old.len().saturating_sub(OLD_NAMES);
        self.old.drain(..too_many);
    }
}

/// The lease can't be kept, or what changed can't be written. That is logged once when it has lasted for a
/// while, and once when it's over; that Redis is away altogether is said by whoever keeps the streams.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    told: bool,
}

impl Trouble {
    fn met(&mut self, shared: &Shared, error: &LogError) {
        let since = *self.since.get_or_insert_with(Instant::now);
        let is_long = since.elapsed() >= shared.settings.lease / 3;
        if is_long && !self.told && shared.relay.health().is_ok() {
            self.told = true;
            tracing::warn!(
                %error,
                "this node cannot write who is here, though Redis answers; others drop its users"
            );
        }
    }

    fn over(&mut self) {
        if let Some(since) = self.since.take()
            && std::mem::take(&mut self.told)
        {
            tracing::info!(lasted = ?since.elapsed(), "this node can write who is here again");
        }
    }
}

/// Keeps the lease, for ever.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut life = Life::default();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let beat_every = shared.settings.lease / 3;
    let mut next_beat = Instant::now();
    let mut trouble = Trouble::default();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        if now >= next_beat {
            next_beat = now + beat_every;
            match beat(&shared).await {
                Ok(beat) => {
                    if !beat.kept && life.is_told {
                        tracing::warn!(
                            node = %shared.own(),
                            "this node was taken for dead, or Redis lost what it wrote; it begins anew"
                        );
                        life.begin_anew(&shared);
                        next_beat = Instant::now();
                        continue;
                    }
                    for node in beat.dead {
                        bury(&shared, node);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot renew this node's lease");
                    trouble.met(&shared, &error);
                    sleep(RETRY).await;
                    next_beat = Instant::now();
                    continue;
                }
            }
        }
        match write(&shared, life.is_told).await {
            Ok(()) => {
                trouble.over();
                life.is_told = true;
                for old in life.old.drain(..) {
                    leave_behind(&shared, old);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "cannot tell who is here; beginning anew");
                trouble.met(&shared, &error);
                life.begin_anew(&shared);
                sleep(RETRY).await;
                next_beat = Instant::now();
            }
        }
    }
}

/// Tells clients of this node what has changed, for ever.
pub(super) async fn tell(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_sweep = Instant::now();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        tick_sides(&shared, now);
        if now >= next_sweep {
            next_sweep = now + Duration::from_secs(1);
            sweep(&shared, now);
        }
    }
}

/// Renews the lease, and looks who else lives.
async fn beat(shared: &Arc<Shared>) -> Result<Beat, LogError> {
    let as_of = Instant::now();
    let own = shared.own();
    let status = json!({
        "name": shared.settings.name,
        "address": shared.settings.address,
        "process": shared.process,
        "sockets": shared.relay.stats().connections.value(),
        "rooms": shared.relay.stats().rooms.value(),
        "started": shared.started_ms,
    });
    let lease = shared.settings.lease;
    let answer = shared.board.beat(&own, status.to_string().into(), lease);
    // An answer that takes as long as the lease is of no use.
    let beat = timeout(lease, answer)
        .await
        .unwrap_or_else(|_| Err(LogError::Unavailable("no answer to a beat".to_owned())))?;
    let mut living = beat.living.clone();
    living.sort();
    shared.nodes.send_replace(Nodes {
        own,
        living,
        as_of: Some(as_of),
    });
    let ids: Vec<NodeId> = shared.living();
    for side in shared.watched_sides() {
        side.on_beat(shared, &ids, as_of);
    }
    Ok(beat)
}

/// Writes what the board doesn't know.
async fn write(shared: &Arc<Shared>, is_told: bool) -> Result<(), LogError> {
    let own = shared.own();
    let changes = {
        let mut here = shared.here();
        if !is_told {
            here.begin_anew();
        }
        here.take_changes(&own)
    };
    if changes.is_empty() {
        return Ok(());
    }
    let notices = shared.settings.notices;
    shared.board.write(&own, changes, notices).await
}

/// Takes a new name; the old one comes back.
fn rename(shared: &Shared) -> NodeId {
    let mut old = None;
    shared.nodes.send_modify(|nodes| {
        old = Some(std::mem::replace(&mut nodes.own, NodeId::random()));
    });
    old.unwrap_or_else(NodeId::random)
}

/// Gives up an earlier name of this node, and what was written under it.
fn leave_behind(shared: &Arc<Shared>, old: NodeId) {
    let shared = shared.clone();
    tokio::spawn(async move {
        // If this fails, its lease runs out.
        if shared.board.retire(&old).await.is_ok() {
            bury(&shared, old);
        }
    });
}

/// Clears away what a dead node has left. If that fails, the next beat finds it again.
fn bury(shared: &Arc<Shared>, node: NodeId) {
    let shared = shared.clone();
    tokio::spawn(async move {
        match shared.board.bury(&node, shared.settings.notices).await {
            Ok(true) => tracing::info!(%node, "cleared away what a dead node had left"),
            Ok(false) => {}
            Err(error) => tracing::debug!(%node, %error, "cannot clear away after a dead node"),
        }
    });
}

fn tick_sides(shared: &Arc<Shared>, now: Instant) {
    let stirred = std::mem::take(&mut *shared.stirred());
    for side in stirred {
        side.tick(shared, now);
    }
}

fn sweep(shared: &Arc<Shared>, now: Instant) {
    for side in shared.watched_sides() {
        if shared.relay.take_missed(side.room()) {
            side.welcome();
        }
    }
    shared.sweep(now);
}

/// Gives the lease up.
pub(super) async fn retire(shared: &Arc<Shared>) {
    let own = shared.own();
    let farewell = async {
        let changes = shared.here().take_changes(&own);
        if !changes.is_empty() {
            shared
                .board
                .write(&own, changes, shared.settings.notices)
                .await?;
        }
        shared.board.retire(&own).await?;
        shared.board.bury(&own, shared.settings.notices).await
    };
    if let Ok(Err(error)) = timeout(FAREWELL, farewell).await {
        tracing::debug!(%error, "cannot say farewell; the lease runs out by itself");
    }
}
