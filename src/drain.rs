//! How a node goes away: the stop signal, and closing long-lived connections in paced steps.
//!
//! Closing ten thousand sockets at once makes ten thousand clients come back at once. So each gets
//! a turn of its own within the drain's spread, with jitter, and is told when to come back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::Rng;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Closing goes on for at most this part of the drain time-out; the rest is for what is in flight.
const SPREAD_PART: f64 = 0.8;

/// With few connections a drain is short: this long for each. 200 reconnects per second is what any
/// node takes with ease.
const STEP: Duration = Duration::from_millis(5);

/// When a client should come back, in milliseconds: soon, but not all together.
pub(crate) fn retry_ms() -> u64 {
    rand::rng().random_range(200..1_200)
}

/// Tells connections that this node goes away. Clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    began: CancellationToken,
    open: AtomicUsize,
    /// The last one ended.
    ended: Notify,
    /// Turns given out since the drain began.
    turns: AtomicUsize,
    /// Set before `began`.
    plan: std::sync::OnceLock<Plan>,
}

#[derive(Debug)]
struct Plan {
    spread: Duration,
    connections: usize,
}

impl Drain {
    /// Registers a long-lived connection; it counts until the slot is dropped.
    pub fn register(&self) -> DrainSlot {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        DrainSlot(self.0.clone())
    }

    /// Begins to drain, to be over within `timeout`. Only the first call counts.
    pub fn begin(&self, timeout: Duration) {
        let connections = self.open();
        let steps = STEP.saturating_mul(u32::try_from(connections).unwrap_or(u32::MAX));
        let spread = timeout.mul_f64(SPREAD_PART).min(steps);
        let _ = self.0.plan.set(Plan {
            spread,
            connections,
        });
        self.0.began.cancel();
    }

    /// Whether it has begun.
    pub fn began(&self) -> bool {
        self.0.began.is_cancelled()
    }

    /// Waits until it begins.
    pub async fn beginning(&self) {
        self.0.began.cancelled().await;
    }

    /// Waits until there is no long-lived connection.
    pub(crate) async fn emptied(&self) {
        loop {
            let ended = self.0.ended.notified();
            if self.open() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Long-lived connections now.
    pub fn open(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }
}

/// One long-lived connection's part in a drain.
#[derive(Debug)]
pub struct DrainSlot(Arc<Inner>);

impl DrainSlot {
    /// Waits until it's this connection's turn to close. Says after how many milliseconds its
    /// client should come back.
    pub async fn told(&self) -> u64 {
        self.0.began.cancelled().await;
        if let Some(plan) = self.0.plan.get() {
            let turn = self.0.turns.fetch_add(1, Ordering::Relaxed);
            // Boxed, because a timer would make every connection larger for its whole life.
            Box::pin(sleep(plan.delay(turn))).await;
        }
        retry_ms()
    }
}

impl Drop for DrainSlot {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

impl Plan {
    fn delay(&self, turn: usize) -> Duration {
        // Who came after the count was taken shares the last step.
        let turn = turn.min(self.connections.saturating_sub(1)) as f64;
        let jitter: f64 = rand::rng().random();
        self.spread
            .mul_f64((turn + jitter) / self.connections.max(1) as f64)
    }
}

/// What tells a node to stop: once to drain, twice to end at once.
#[derive(Debug)]
pub struct Stop(mpsc::Receiver<()>);

/// Stops a node by hand.
#[derive(Debug, Clone)]
pub struct StopTrigger(mpsc::Sender<()>);

impl StopTrigger {
    /// Stops, or if it's stopping already, at once.
    pub fn stop(&self) {
        let _ = self.0.try_send(());
    }
}

impl Stop {
    /// Stops when a trigger says so.
    pub fn by_hand() -> (StopTrigger, Stop) {
        let (sender, receiver) = mpsc::channel(2);
        (StopTrigger(sender), Stop(receiver))
    }

    /// Stops on SIGTERM and SIGINT.
    pub fn on_signals() -> io::Result<Stop> {
        let (trigger, stop) = Stop::by_hand();
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = term.recv() => trigger.stop(),
                    _ = int.recv() => trigger.stop(),
                    () = trigger.0.closed() => return,
                }
            }
        });
        Ok(stop)
    }

    /// Waits for the next one. Without triggers left, for ever.
    pub(crate) async fn next(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn connections_are_told_one_by_one() {
        let drain = Drain::default();
        let slots: Vec<DrainSlot> = (0..100).map(|_| drain.register()).collect();
        assert_eq!(drain.open(), 100);
        let began = Instant::now();
        let told = join_all(slots.iter().map(|slot| async {
            slot.told().await;
            began.elapsed()
        }));
        drain.begin(Duration::from_secs(30));
        assert!(drain.began());
        let mut times = told.await;
        times.sort();
        for (turn, time) in times.iter().enumerate() {
            // Each within its own step; timers are rounded up to the millisecond.
            let step = u64::try_from(turn).unwrap() * 5;
            let time = u64::try_from(time.as_millis()).unwrap();
            assert!((step..=step + 6).contains(&time), "{turn}: {time}");
        }
        let mut emptied = std::pin::pin!(drain.emptied());
        assert!(futures_util::poll!(&mut emptied).is_pending());
        drop(slots);
        emptied.await;
        assert_eq!(drain.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_timeout_bounds_the_spread() {
        let drain = Drain::default();
        let slots: Vec<DrainSlot> = (0..1_000).map(|_| drain.register()).collect();
        let began = Instant::now();
        drain.begin(Duration::from_secs(1));
        join_all(slots.iter().map(DrainSlot::told)).await;
        assert!(began.elapsed() <= Duration::from_millis(802));
        let late = drain.register();
        late.told().await;
        assert!(began.elapsed() <= Duration::from_millis(1_604));
    }
}
