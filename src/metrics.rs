//! What a node counts, and the registry that shows it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

mod history;

pub(crate) use self::history::{COLUMNS, History, Sample};

/// A kind of long-lived connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A WebSocket that speaks `raw`.
    WsRaw,
    /// A WebSocket that speaks `json`.
    WsJson,
    /// Server-sent events.
    Sse,
    /// Socket.IO over a WebSocket.
    Socketio,
    /// Socket.IO by polling.
    SocketioPolling,
    /// STOMP over a WebSocket.
    Stomp,
    /// STOMP over bare TCP.
    StompTcp,
    /// SockJS, over any transport.
    SockJs,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CloseLabel {
    code: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: &'static str,
}

/// A node's metrics. Clones count into the same.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    sockets: Family<KindLabel, Gauge>,
    /// The same gauges: a family does not tell what it has.
    kinds: Arc<Mutex<BTreeMap<&'static str, Gauge>>>,
    history: Arc<Mutex<History>>,
    closes: Family<CloseLabel, Counter>,
    requests: Family<StatusLabel, Counter>,
    pub(crate) accept_errors: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) connections: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Metrics {
            registry: Arc::default(),
            sockets: Family::default(),
            kinds: Arc::default(),
            history: Arc::default(),
            closes: Family::default(),
            requests: Family::default(),
            accept_errors: Counter::default(),
            turned_away: Counter::default(),
            connections: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "sockets",
                "Long-lived connections open, by kind",
                metrics.sockets.clone(),
            );
            registry.register(
                "closes",
                "Long-lived connections ended, by close code",
                metrics.closes.clone(),
            );
            registry.register(
                "http_requests",
                "HTTP requests answered, by class of status",
                metrics.requests.clone(),
            );
            registry.register(
                "accept_errors",
                "Connections that could not be accepted",
                metrics.accept_errors.clone(),
            );
            registry.register(
                "turned_away",
                "Connections closed at once because there were too many",
                metrics.turned_away.clone(),
            );
            registry.register(
                "connections",
                "TCP connections open",
                metrics.connections.clone(),
            );
        });
        metrics
    }
}

impl Metrics {
    /// Adds metrics that somebody else counts, under the prefix `tailcast_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        add(registry.sub_registry_with_prefix("tailcast"));
    }

    /// All metrics, as Prometheus reads them.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn opened(&self, kind: Kind) -> Open {
        let kind = match kind {
            Kind::WsRaw => "ws_raw",
            Kind::WsJson => "ws_json",
            Kind::Sse => "sse",
            Kind::Socketio => "socketio",
            Kind::SocketioPolling => "socketio_polling",
            Kind::Stomp => "stomp",
            Kind::StompTcp => "stomp_tcp",
            Kind::SockJs => "sockjs",
        };
        let gauge = self.sockets.get_or_create_owned(&KindLabel { kind });
        gauge.inc();
        self.kinds().entry(kind).or_insert_with(|| gauge.clone());
        Open(gauge)
    }

    /// Long-lived connections open now, by kind, where there was ever one of that kind.
    pub(crate) fn sockets(&self) -> Vec<(&'static str, u64)> {
        let number = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        let kinds = self.kinds();
        let counts = kinds.iter().map(|(kind, gauge)| (*kind, number(gauge)));
        counts.collect()
    }

    fn kinds(&self) -> MutexGuard<'_, BTreeMap<&'static str, Gauge>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last two minutes.
    pub(crate) fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection that ended with a close code.
    pub(crate) fn closed(&self, code: u16) {
        let label = CloseLabel { code: code.into() };
        self.closes.get_or_create(&label).inc();
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, status: u16) {
        let status = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&StatusLabel { status }).inc();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// A connection that counts as open.
#[derive(Debug)]
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_shown() {
        let metrics = Metrics::default();
        let open = metrics.opened(Kind::Sse);
        let gone = metrics.opened(Kind::Sse);
        drop(gone);
        metrics.closed(1012);
        metrics.answered(201);
        let text = metrics.text().unwrap();
        for line in [
            "tailcast_sockets{kind=\"sse\"} 1",
            "tailcast_closes_total{code=\"1012\"} 1",
            "tailcast_http_requests_total{status=\"2xx\"} 1",
            "tailcast_turned_away_total 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert_eq!(metrics.sockets(), [("sse", 1)]);
        drop(open);
    }
}
