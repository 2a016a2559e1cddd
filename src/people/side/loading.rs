//! A room's rules on this node: read once, waited for, and read again where an act may have been
//! missed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{RETRY, Side};
use crate::people::rules::Rules;
use crate::people::{Shared, audit};
use crate::relay::log::LogError;

/// Whether a room's rules are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loaded {
    /// Being read for the first time.
    Waiting,
    /// Could not be read yet.
    Failed(LogError),
    /// Known.
    Known,
}

impl Side {
    /// Whether its rules are known.
    pub(in crate::people) fn is_loaded(&self) -> bool {
        *self.loaded.borrow() == Loaded::Known
    }

    /// Waits until its rules are known, however long that takes.
    pub(in crate::people) async fn loaded(&self) {
        // The sender lives as long as this.
        let mut loaded = self.loaded.subscribe();
        let _ = loaded.wait_for(|loaded| *loaded == Loaded::Known).await;
    }

    /// The same, unless they can't be read for a reason that does not pass by itself.
    pub(in crate::people) async fn loaded_if_ever(&self) -> Result<(), LogError> {
        let mut loaded = self.loaded.subscribe();
        let is_over = |loaded: &Loaded| match loaded {
            Loaded::Waiting => false,
            Loaded::Failed(error) => !error.passes(),
            Loaded::Known => true,
        };
        let _ = loaded.wait_for(is_over).await;
        self.known()
    }

    /// Waits until its rules are known, but no longer than this.
    pub(in crate::people) async fn known_within(&self, limit: Duration) -> Result<(), LogError> {
        if !self.is_loaded() {
            let _ = timeout(limit, self.loaded()).await;
        }
        self.known()
    }

    /// The same, but does not wait for a log that is known to be away.
    pub(in crate::people) async fn looked_up(&self, limit: Duration) -> Result<(), LogError> {
        let is_away = self
            .shared
            .upgrade()
            .is_some_and(|shared| shared.relay.health().is_err());
        if !is_away && !self.is_loaded() {
            let mut loaded = self.loaded.subscribe();
            let looked_up = loaded.wait_for(|loaded| *loaded != Loaded::Waiting);
            let _ = timeout(limit, looked_up).await;
        }
        self.known()
    }

    /// Whether its rules are known, and if not, why.
    pub(in crate::people) fn known(&self) -> Result<(), LogError> {
        let why = match &*self.loaded.borrow() {
            Loaded::Known => return Ok(()),
            Loaded::Failed(error) => error.clone(),
            Loaded::Waiting => {
                LogError::Unavailable("the room's rules are not read yet".to_owned())
            }
        };
        // What is wrong with the log now says more than what was when they were last asked for.
        let health = self.shared.upgrade().map(|shared| shared.relay.health());
        Err(health.and_then(Result::err).unwrap_or(why))
    }

    /// Its rules can't be read just now; those it has stay.
    fn cannot_load(&self, error: LogError) {
        self.loaded.send_if_modified(|loaded| {
            let is_new = *loaded != Loaded::Known;
            if is_new {
                *loaded = Loaded::Failed(error);
            }
            is_new
        });
    }

    /// Its rules may have changed without this node's being told: reads them again.
    pub(in crate::people) fn reload(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.room.owner().is_none() {
            tokio::spawn(load(Arc::downgrade(self), shared.clone()));
        }
    }
}

/// Reads a room's rules, however long that takes.
pub(super) async fn load(side: Weak<Side>, shared: Arc<Shared>) {
    let mut audits = shared.audits.subscribe();
    loop {
        // An act between the reading and the following would be missed.
        let follows = audits.wait_for(|follows| follows.is_some()).await;
        let follows = follows.ok().and_then(|follows| (*follows).clone());
        if let Some(Err(error)) = follows {
            match side.upgrade() {
                Some(side) => side.cannot_load(error),
                None => return,
            }
            let _ = audits.changed().await;
            continue;
        }
        let Some(room) = side.upgrade().map(|side| side.room.clone()) else {
            return;
        };
        match shared.board.rules(&room).await {
            Ok(rules) => {
                if let Some(side) = side.upgrade() {
                    *side.rules() = Rules::read(rules);
                    side.loaded.send_replace(Loaded::Known);
                    audit::enforce(&side);
                }
                return;
            }
            Err(error) => {
                tracing::debug!(%room, %error, "cannot read a room's rules");
                if let Some(side) = side.upgrade() {
                    side.cannot_load(error);
                }
                sleep(RETRY).await;
            }
        }
    }
}
