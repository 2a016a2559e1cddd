//! The figures of a run, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// All figures. Those that were not measured are left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) mode: &'static str,
    pub(super) sockets: usize,
    pub(super) rooms: usize,
    pub(super) size: usize,
    /// Entries per second that went in while measuring.
    pub(super) entries_per_second: f64,
    pub(super) seconds: f64,
    pub(super) connect_seconds: f64,
    pub(super) deliveries: u64,
    pub(super) deliveries_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency_ms: Option<Latency>,
    pub(super) losses: Losses,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<Server>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redis_core: Option<f64>,
    /// Share of a core that this client took, to tell a slow server from a slow client.
    pub(super) client_core: f64,
    /// Threads that read the sockets; near as many cores, the client is what was measured.
    pub(super) client_threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resume: Option<Resume>,
}

/// Milliseconds from just before an entry was published until it was read.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p999: f64,
    pub(super) max: f64,
}

/// What the sockets that read did not get as they should have, in the whole run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Losses {
    pub(super) lost: u64,
    pub(super) duplicates: u64,
    pub(super) reordered: u64,
    pub(super) disconnected: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) close_codes: BTreeMap<u16, u64>,
}

impl Losses {
    /// Counts another run's.
    pub(super) fn add(&mut self, other: &Losses) {
        self.lost += other.lost;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.disconnected += other.disconnected;
        for (code, count) in &other.close_codes {
            *self.close_codes.entry(*code).or_default() += count;
        }
    }
}

/// The measured processes.
#[derive(Debug, Default, Serialize)]
pub(super) struct Server {
    pub(super) cpu_us_per_delivery: f64,
    pub(super) core: f64,
    pub(super) rss_before: u64,
    pub(super) rss_connected: u64,
    /// The most that was seen afterwards.
    pub(super) rss_max: u64,
    pub(super) rss_end: u64,
    pub(super) rss_per_socket: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rss_per_socket_after_broadcast: Option<f64>,
}

/// A reconnect storm.
#[derive(Debug, Serialize)]
pub(super) struct Resume {
    pub(super) missed: usize,
    /// From the first connect until every socket had everything.
    pub(super) seconds: f64,
    pub(super) socket_p50_ms: f64,
    pub(super) socket_p99_ms: f64,
    /// XREAD, XRANGE and XREVRANGE that Redis ran meanwhile, and what else reads streams.
    pub(super) redis_reads: u64,
    pub(super) redis_commands: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} sockets in {} room(s), {:.1} entries/s of {} B for {:.1} s; connected in {:.1} s",
            self.mode,
            self.sockets,
            self.rooms,
            self.entries_per_second,
            self.size,
            self.seconds,
            self.connect_seconds
        )?;
        writeln!(
            f,
            "  deliveries  {:.0}/s ({} in all)",
            self.deliveries_per_second, self.deliveries
        )?;
        if let Some(latency) = &self.latency_ms {
            writeln!(
                f,
                "  latency     p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, max {:.2} ms",
                latency.p50, latency.p99, latency.p999, latency.max
            )?;
        }
        let losses = &self.losses;
        write!(
            f,
            "  losses      {} lost, {} duplicates, {} reordered, {} disconnected",
            losses.lost, losses.duplicates, losses.reordered, losses.disconnected
        )?;
        for (code, count) in &losses.close_codes {
            write!(f, ", {count} closed with {code}")?;
        }
        writeln!(f)?;
        if let Some(server) = &self.server {
            writeln!(
                f,
                "  server      {:.2} us CPU per delivery, {:.1} % of a core",
                server.cpu_us_per_delivery,
                server.core * 100.0
            )?;
            write!(
                f,
                "  memory      {:.1} MiB resident, {:.1} with all connected ({:.0} B per socket)",
                mib(server.rss_before),
                mib(server.rss_connected),
                server.rss_per_socket
            )?;
            if let Some(after) = server.rss_per_socket_after_broadcast {
                write!(f, ", {after:.0} B per socket after a broadcast of 32 KB")?;
            }
            writeln!(
                f,
                ", at most {:.1}, {:.1} at the end",
                mib(server.rss_max),
                mib(server.rss_end)
            )?;
        }
        if let Some(core) = self.redis_core {
            writeln!(f, "  redis       {:.1} % of a core", core * 100.0)?;
        }
        let limit = if self.client_core > 0.9 * self.client_threads as f64 {
            "; it may be what limits, try more --threads"
        } else {
            ""
        };
        writeln!(
            f,
            "  client      {:.1} % of a core{limit}",
            self.client_core * 100.0
        )?;
        if let Some(resume) = &self.resume {
            writeln!(
                f,
                "  resume      {} entries missed: all there after {:.3} s (a socket: p50 {:.0} ms, p99 {:.0} ms)",
                resume.missed, resume.seconds, resume.socket_p50_ms, resume.socket_p99_ms
            )?;
            write!(f, "  redis reads {}", resume.redis_reads)?;
            for (name, calls) in &resume.redis_commands {
                write!(f, ", {name} {calls}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
