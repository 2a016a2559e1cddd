//! What the relay counts, on the metrics page.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::relay::hub::Relay;

/// Reads the relay's numbers when the page is asked for; the relay itself knows no Prometheus.
pub(super) struct RelayCollector(pub(super) Arc<Relay>);

impl fmt::Debug for RelayCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayCollector")
    }
}

impl Collector for RelayCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.0.stats();
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
        ];
        for (name, help, counter) in counters {
            let metric = ConstCounter::new(counter.value());
            let to = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(to)?;
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
                self.0.window_bytes() as u64,
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
