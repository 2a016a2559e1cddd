//! Whether Redis answers and the tails are connected: one small shared state that costs nothing
//! to ask.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::clock::Clock;
use super::command::Commands;
use super::spell::Spell;
use crate::relay::log::LogError;

/// How often Redis is pinged.
const PING_EVERY: Duration = Duration::from_secs(1);

/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that was lost and is replaced at once is not worth a line in the log.
const SHORT: Duration = Duration::from_millis(500);

/// For how long trouble is not yet worth a word: a reconnect after a restart fits in.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is known of Redis.
pub(super) struct Health {
    state: Mutex<State>,
    clock: Clock,
    /// Rooms whose next entry can't be read.
    stalled: AtomicU64,
}

struct State {
    last_good: Option<Instant>,
    error: LogError,
    /// Tail connections that are down: since when, and why.
    tails: HashMap<u64, (Instant, LogError)>,
    next_tail: u64,
    was_up: bool,
    /// The server does not answer.
    away: Spell,
    /// The server answers, and tails have no connection.
    cut: Spell,
}

impl Health {
    /// Nothing known yet.
    pub(super) fn new() -> Self {
        Health {
            clock: Clock::new(),
            stalled: AtomicU64::new(0),
            state: Mutex::new(State {
                last_good: None,
                error: LogError::Unavailable("not connected yet".to_owned()),
                tails: HashMap::new(),
                next_tail: 0,
                was_up: false,
                away: Spell::default(),
                cut: Spell::default(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Redis's time since the Unix epoch, as far as it's known.
    pub(super) fn clock(&self) -> Option<Duration> {
        self.clock.now()
    }

    /// Counts a room as one that stands still until the guard is dropped.
    pub(super) fn stalled(self: &Arc<Self>) -> Stalled {
        self.stalled.fetch_add(1, Ordering::Relaxed);
        Stalled(self.clone())
    }

    /// How many rooms stand still.
    pub(super) fn stalled_rooms(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Why Redis can't be relied on just now, if so.
    pub(super) fn check(&self) -> Result<(), LogError> {
        self.check_at(Instant::now())
    }

    fn check_at(&self, now: Instant) -> Result<(), LogError> {
        let state = self.lock();
        // A ping goes out PING_EVERY after the last one was answered.
        let fresh = |good: Instant| now.duration_since(good) <= PATIENCE;
        if !state.last_good.is_some_and(fresh) {
            return Err(state.error.clone());
        }
        let long_down = state
            .tails
            .values()
            .find(|(since, _)| now.duration_since(*since) > PATIENCE);
        match long_down {
            Some((_, error)) => Err(error.clone()),
            None => Ok(()),
        }
    }

    fn pinged(&self, now: Instant, answer: Result<(), LogError>) {
        let mut state = self.lock();
        match answer {
            Ok(()) => {
                state.last_good = Some(now);
                state.error = LogError::Unavailable("it stopped answering".to_owned());
            }
            Err(error) => {
                // A clear word counts at once, silence only after a while.
                if !matches!(error, LogError::Unavailable(_)) {
                    state.last_good = None;
                }
                state.error = error;
            }
        }
    }

    /// Whether the server answers.
    pub(super) fn is_up(&self) -> bool {
        let now = Instant::now();
        let last_good = self.lock().last_good;
        last_good.is_some_and(|good| now.duration_since(good) <= PATIENCE)
    }

    /// Logs what has changed since the last ping: one line for the server, and one for all tails.
    fn report(&self, now: Instant, answer: Result<(), &LogError>) {
        let state = &mut *self.lock();
        if let Err(error) = answer {
            // At the start, whoever starts the node says so.
            if state.away.met(now, SHORT) && state.was_up {
                tracing::warn!(
                    %error,
                    "Redis is away; clients stay connected, publishes wait for it and are then refused"
                );
            }
            return;
        }
        if let Some(away) = state.away.over(now)
            && state.was_up
        {
            tracing::info!(?away, "Redis answers again");
        }
        state.was_up = true;
        let down = state.tails.values();
        let long = |(since, _): &&(Instant, LogError)| now.duration_since(*since) > PATIENCE;
        match down.clone().find(long) {
            Some((_, error)) => {
                let connections = down.count();
                if state.cut.met(now, Duration::ZERO) {
                    tracing::warn!(
                        connections, %error,
                        "tails have no connection, though Redis answers; their rooms get nothing new"
                    );
                }
            }
            None if state.tails.is_empty() => {
                if let Some(lasted) = state.cut.over(now) {
                    tracing::info!(?lasted, "all tails are connected again");
                }
            }
            None => {}
        }
    }

    /// A place for one tail connection to say how it is.
    pub(super) fn watch(self: &Arc<Self>) -> Watched {
        let mut state = self.lock();
        state.next_tail += 1;
        Watched {
            id: state.next_tail,
            health: self.clone(),
        }
    }
}

/// A room that stands still.
pub(super) struct Stalled(Arc<Health>);

impl Drop for Stalled {
    fn drop(&mut self) {
        self.0.stalled.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One tail connection's say; dropped with it.
pub(super) struct Watched {
    id: u64,
    health: Arc<Health>,
}

impl Watched {
    /// It's connected.
    pub(super) fn up(&self) {
        self.health.lock().tails.remove(&self.id);
    }

    /// It's not.
    pub(super) fn down(&self, error: &LogError) {
        let mut state = self.health.lock();
        let entry = state.tails.entry(self.id);
        entry
            .or_insert_with(|| (Instant::now(), error.clone()))
            .1
            .clone_from(error);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.up();
    }
}

/// Pings for ever.
pub(super) async fn ping_forever(health: Arc<Health>, commands: Arc<Commands>) {
    loop {
        let answer = commands.ping(PING_TIMEOUT).await;
        let pause = match &answer {
            Ok(_) => PING_EVERY,
            Err(_) => PING_EVERY / 5,
        };
        if let Ok(pong) = &answer
            && let Some(time) = pong.time
        {
            health.clock.answered(pong.asked, pong.answered, time);
        }
        let now = Instant::now();
        health.report(now, answer.as_ref().map(drop));
        health.pinged(now, answer.map(drop));
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_bad_with_time_or_a_clear_word() {
        let health = Arc::new(Health::new());
        let gone = LogError::Unavailable("gone".to_owned());
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(health.check_at(at(0)).is_err());
        health.pinged(at(0), Ok(()));
        assert_eq!(health.check_at(at(1000)), Ok(()));
        health.pinged(at(1000), Err(gone.clone()));
        assert_eq!(health.check_at(at(1100)), Ok(()));
        assert_eq!(health.check_at(at(2100)), Err(gone.clone()));
        health.pinged(at(2200), Ok(()));
        health.pinged(at(2300), Err(LogError::Loading));
        assert_eq!(health.check_at(at(2300)), Err(LogError::Loading));

        health.pinged(at(4000), Ok(()));
        let tail = health.watch();
        tail.down(&gone);
        assert_eq!(health.check_at(at(1000)), Ok(()));
        assert_eq!(health.check_at(at(5000)), Err(gone.clone()));
        drop(tail);
        assert_eq!(health.check_at(at(5000)), Ok(()));
    }
}
