//! Takes a sample of a node's numbers each second, for as long as it runs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::frontend::FrontendState;
use crate::metrics::Sample;
use crate::people::People;
use crate::relay::stats::Snapshot;

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// Samples until the node's people are gone.
pub(super) fn start(state: &FrontendState) {
    let (people, metrics) = (Arc::downgrade(&state.people), state.metrics.clone());
    let mut last = Taken::now(&state.people);
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        // After a stall there is one long sample; it has its span with it.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let Some(people) = people.upgrade() else {
                return;
            };
            let now = Taken::now(&people);
            let sample = now.since(&last, &people);
            metrics.history().push(sample);
            last = now;
        }
    });
}

/// What only ever goes up, at one time.
struct Taken {
    at: Instant,
    entries: u64,
    frames: u64,
    published: u64,
    failed: u64,
    gaps: u64,
    publish_latency: Snapshot,
    tail_lag: Snapshot,
}

impl Taken {
    fn now(people: &People) -> Self {
        let stats = people.relay().stats();
        Taken {
            at: Instant::now(),
            entries: stats.entries_tailed.value(),
            frames: stats.frames.value(),
            published: stats.published.value(),
            failed: stats.refused.value() + stats.unknown.value(),
            gaps: stats.gaps.iter().map(|counter| counter.value()).sum(),
            publish_latency: stats.publish_latency.snapshot(),
            tail_lag: stats.tail_lag.snapshot(),
        }
    }

    /// A sample of what came since, in the order of the history's columns.
    fn since(&self, before: &Taken, people: &People) -> Sample {
        let stats = people.relay().stats();
        let published = self.publish_latency.since(&before.publish_latency);
        let lag = self.tail_lag.since(&before.tail_lag);
        [
            Some(millis(self.at.duration_since(before.at))),
            Some(self.entries - before.entries),
            Some(self.frames - before.frames),
            Some(self.published - before.published),
            Some(self.failed - before.failed),
            Some(self.gaps - before.gaps),
            Some(stats.connections.value()),
            Some(stats.rooms.value()),
            Some(people.users_here() as u64),
            Some(people.nodes_alive() as u64),
            published.quantile_us(0.5),
            published.quantile_us(0.99),
            lag.quantile_us(0.5),
            lag.quantile_us(0.99),
            Some(now_ms()),
        ]
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// This node's clock.
pub(super) fn now_ms() -> u64 {
    millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}
