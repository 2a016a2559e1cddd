//! What the relay and its people count, on the metrics page.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use crate::people::People;
use crate::relay::format::GapReason;
use crate::relay::hub::Relay;

const GAPS: &str = "Gaps told to clients, by reason";

const CONNECTS: &str = "Connections opened to Redis, those that replace lost ones among them";

const LATENCY: &str =
    "From a publish's coming to Redis's word that it is stored; of those that were stored";

const LAG: &str = "Age of the oldest entry that a tail's read brought, when it reached this node, by Redis's clock; measured to about a millisecond";

/// Reads the numbers of the relay and its people when the page is asked for; they themselves know no
/// Prometheus.
pub(super) struct RelayCollector(pub(super) Arc<People>);

impl RelayCollector {
    fn relay(&self) -> &Relay {
        self.0.relay()
    }
}

impl fmt::Debug for RelayCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayCollector")
    }
}

impl Collector for RelayCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.relay().stats();
        let vitals = self.relay().vitals();
        let connects = ConstCounter::new(vitals.connects);
        let to =
            encoder.encode_descriptor("redis_connects", CONNECTS, None, connects.metric_type())?;
        connects.encode(to)?;
        let counters = [
            (
                "entries",
                "Entries that tails brought",
                &stats.entries_tailed,
            ),
            (
                "frames",
                "Frames written to sockets, gaps included",
                &stats.frames,
            ),
            ("frame_bytes", "Bytes of those frames", &stats.frame_bytes),
            ("writes", "Writes they took", &stats.writes),
            (
                "log_reads",
                "Reads of the log for cursors outside a window",
                &stats.log_reads,
            ),
            ("published", "Publishes stored", &stats.published),
            (
                "refused",
                "Publishes refused, not stored for certain",
                &stats.refused,
            ),
            (
                "unknown",
                "Publishes whose outcome is unknown",
                &stats.unknown,
            ),
            (
                "slow_closed",
                "Connections closed because they stopped reading",
                &stats.slow_closed,
            ),
            (
                "shed",
                "Ephemeral messages and changes of presence that sockets which were behind went without",
                &stats.shed,
            ),
        ];
        for (name, help, counter) in counters {
            let metric = ConstCounter::new(counter.value());
            let to = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(to)?;
        }
        let to = encoder.encode_descriptor("gaps", GAPS, None, MetricType::Counter)?;
        let mut family = to;
        for (reason, counter) in GapReason::ALL.into_iter().zip(&stats.gaps) {
            let label = [("reason", reason.as_str())];
            let to = family.encode_family(&label)?;
            ConstCounter::new(counter.value()).encode(to)?;
        }
        let histograms = [
            ("publish_latency", LATENCY, &stats.publish_latency),
            ("tail_lag", LAG, &stats.tail_lag),
        ];
        for (name, help, histogram) in histograms {
            let now = histogram.snapshot();
            let buckets: Vec<_> = now.buckets().collect();
            let unit = Some(&Unit::Seconds);
            let mut to = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
            to.encode_histogram::<NoLabelSet>(now.sum_seconds(), now.count(), &buckets, None)?;
        }
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let gauges = [
            (
                "relay_connections",
                "Connections the relay serves",
                stats.connections.value(),
            ),
            (
                "rooms",
                "Rooms with a tail on this node",
                stats.rooms.value(),
            ),
            (
                "window_bytes",
                "Bytes that rooms' windows hold",
                self.relay().window_bytes() as u64,
            ),
            (
                "users",
                "Users connected to this node, however many devices they have",
                self.0.users_here() as u64,
            ),
            (
                "nodes",
                "Nodes that live, this one included, as of its last beat",
                self.0.nodes_alive() as u64,
            ),
            (
                "redis_up",
                "Whether Redis answers: 1, or 0",
                u64::from(vitals.up),
            ),
            (
                "rooms_stalled",
                "Rooms that stand still, as Redis closes the connection when their next entry is read",
                vitals.stalled_rooms,
            ),
        ];
        for (name, help, number) in gauges {
            let metric = ConstGauge::new(signed(number));
            let to = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(to)?;
        }
        Ok(())
    }
}
