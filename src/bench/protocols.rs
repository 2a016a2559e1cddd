//! Several protocols in one go: what each costs a node, beside the first of them.
//!
//! Every figure is taken of a fresh node, as what another protocol freed is memory that this one
//! need not ask for. On a server that was named, only the first protocol's memory is told.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::measure::Bench;
use super::report::{Losses, Report};
use super::servers::{Node, Redis};
use super::{BenchArgs, Proto};

/// Memory is measured with so many times the sockets: what a node takes once, whoever comes, is
/// then a small part of each one's share.
const IDLE_FACTOR: usize = 5;

/// What each protocol costs.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// The protocol that the others are held against.
    beside: Proto,
    sockets: usize,
    idle_sockets: usize,
    rooms: usize,
    rate: f64,
    size: usize,
    seconds: f64,
    rounds: u16,
    /// Whether each figure is of a node that served nothing before.
    fresh_nodes: bool,
    protocols: Vec<Row>,
}

/// One protocol; figures are the middle ones of all rounds. What was not measured is left out.
#[derive(Debug, Serialize)]
struct Row {
    proto: Proto,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_per_idle_socket: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us_per_delivery: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saturated_deliveries_per_second: Option<f64>,
    /// Of all runs together.
    losses: Losses,
    runs: Vec<Report>,
}

/// What is measured of a protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Figure {
    Memory,
    Load,
    Saturation,
}

/// What the sockets connect to.
enum Servers<'a> {
    /// One that runs, and that all protocols share.
    Named,
    /// A node for each figure.
    Own {
        program: &'a Path,
        redis: String,
        /// Ends with this, if it was started for it.
        _started: Option<Redis>,
    },
}

/// Measures one protocol after the other. What it started ends when this future is dropped.
pub(super) async fn compare(args: BenchArgs, tailcast: Option<&Path>) -> Result<Comparison> {
    let protos = args.proto.0.clone();
    let servers = Servers::new(&args, tailcast)?;
    let fresh_nodes = matches!(servers, Servers::Own { .. });
    let mut rows: Vec<Row> = protos.iter().map(|proto| Row::new(*proto)).collect();
    for round in 0..usize::from(args.rounds) {
        // The order is turned, so that nobody always follows the same neighbour.
        for at in 0..protos.len() {
            let at = (at + round) % protos.len();
            for figure in [Figure::Memory, Figure::Load, Figure::Saturation] {
                let is_measured = match figure {
                    Figure::Memory => {
                        fresh_nodes || (at == 0 && round == 0 && !args.pid.is_empty())
                    }
                    Figure::Load => true,
                    Figure::Saturation => args.saturate,
                };
                if is_measured {
                    let proto = protos[at];
                    let report = servers.measure(&args, proto, figure).await;
                    let report = report.with_context(|| format!("{proto}, {}", figure.name()))?;
                    rows[at].runs.push(report);
                }
            }
        }
    }
    for row in &mut rows {
        row.sum_up(fresh_nodes || !args.pid.is_empty());
    }
    Ok(Comparison {
        beside: protos[0],
        sockets: args.sockets,
        idle_sockets: args.sockets * IDLE_FACTOR,
        rooms: args.rooms,
        rate: args.rate,
        size: args.size,
        seconds: args.duration,
        rounds: args.rounds,
        fresh_nodes,
        protocols: rows,
    })
}

impl<'a> Servers<'a> {
    fn new(args: &BenchArgs, tailcast: Option<&'a Path>) -> Result<Self> {
        if !args.url.is_empty() {
            return Ok(Servers::Named);
        }
        let program = tailcast.context(
            "this program starts no nodes; name a server with --url, or use `tailcast bench`",
        )?;
        let started = match &args.redis {
            Some(_) => None,
            None => Some(Redis::start()?),
        };
        let redis = match &started {
            Some(redis) => redis.url(),
            None => args.redis().to_owned(),
        };
        Ok(Servers::Own {
            program,
            redis,
            _started: started,
        })
    }

    async fn measure(&self, args: &BenchArgs, proto: Proto, figure: Figure) -> Result<Report> {
        eprintln!("{proto}: {}", figure.name());
        let mut args = args.clone();
        args.saturate = figure == Figure::Saturation;
        if figure == Figure::Memory {
            args.idle = true;
            args.sockets *= IDLE_FACTOR;
            args.stalled = 0;
        }
        let node = match self {
            Servers::Named => None,
            Servers::Own { program, redis, .. } => {
                let node = Node::start(program, redis).await?;
                args.url = vec![node.url()];
                args.pid = vec![node.pid()];
                args.redis = Some(redis.clone());
                Some(node)
            }
        };
        let bench = Bench::prepare(args, proto).await?.of_tailcast();
        let report = bench.run().await;
        drop(node);
        report
    }
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Figure::Memory => "memory",
            Figure::Load => "load",
            Figure::Saturation => "saturation",
        }
    }
}

impl Row {
    fn new(proto: Proto) -> Self {
        Row {
            proto,
            bytes_per_idle_socket: None,
            cpu_us_per_delivery: None,
            p99_ms: None,
            saturated_deliveries_per_second: None,
            losses: Losses::default(),
            runs: Vec::new(),
        }
    }

    fn sum_up(&mut self, knows_process: bool) {
        let of = |mode: &str, figure: &dyn Fn(&Report) -> Option<f64>| {
            let runs = self.runs.iter().filter(|report| report.mode == mode);
            middle(runs.filter_map(figure).collect())
        };
        let of_server = |mode, figure: fn(&super::report::Server) -> f64| {
            of(mode, &|report| report.server.as_ref().map(figure)).filter(|_| knows_process)
        };
        let memory = of_server("idle", |server| server.rss_per_socket);
        let cpu = of_server("rate", |server| server.cpu_us_per_delivery);
        let p99 = of("rate", &|report| Some(report.latency_ms.as_ref()?.p99));
        let most = of("saturate", &|report| Some(report.deliveries_per_second));
        self.bytes_per_idle_socket = memory;
        self.cpu_us_per_delivery = cpu;
        self.p99_ms = p99;
        self.saturated_deliveries_per_second = most;
        for report in &self.runs {
            self.losses.add(&report.losses);
        }
    }
}

/// The middle one, of an even number the upper of the two.
fn middle(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

impl fmt::Display for Comparison {
    /// A Markdown table that also reads well as it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sockets in {} room(s), {} entries/s of {} B for {} s, {} round(s)",
            self.sockets, self.rooms, self.rate, self.size, self.seconds, self.rounds
        )?;
        match self.fresh_nodes {
            true => writeln!(
                f,
                "memory with {} sockets; each figure of a node of its own\n",
                self.idle_sockets
            )?,
            false => writeln!(
                f,
                "all on one server: memory, with {} sockets, of the first alone, as the others reuse what it freed\n",
                self.idle_sockets
            )?,
        }
        let beside = format!("beside {}", self.beside);
        let mut table = vec![vec!["protocol".to_owned()]];
        table.extend(self.protocols.iter().map(|row| vec![row.proto.to_string()]));
        type Figure = fn(&Row) -> Option<f64>;
        type Shown = fn(f64) -> String;
        let columns: [(&str, Figure, Shown); 4] = [
            (
                "memory per idle socket",
                |row| row.bytes_per_idle_socket,
                |bytes| format!("{:.1} KB", bytes / 1e3),
            ),
            (
                "CPU per delivery",
                |row| row.cpu_us_per_delivery,
                |us| format!("{us:.2} µs"),
            ),
            ("p99", |row| row.p99_ms, |ms| format!("{ms:.1} ms")),
            (
                "saturated, deliveries/s",
                |row| row.saturated_deliveries_per_second,
                |per_second| format!("{:.2} M", per_second / 1e6),
            ),
        ];
        for (name, figure, shown) in columns {
            if self.protocols.iter().all(|row| figure(row).is_none()) {
                continue;
            }
            let first = figure(&self.protocols[0]).filter(|first| *first > 0.0);
            table[0].extend([name.to_owned(), beside.clone()]);
            for (line, row) in table[1..].iter_mut().zip(&self.protocols) {
                let none = || "-".to_owned();
                let ratio = figure(row).zip(first).map(|(own, first)| own / first);
                line.push(figure(row).map_or_else(none, shown));
                line.push(ratio.map_or_else(none, |ratio| format!("{ratio:.2}")));
            }
        }
        table[0].push("lost, doubled, reordered, cut".to_owned());
        for (line, row) in table[1..].iter_mut().zip(&self.protocols) {
            let Losses {
                lost,
                duplicates,
                reordered,
                disconnected,
                ..
            } = row.losses;
            line.push(format!("{lost}, {duplicates}, {reordered}, {disconnected}"));
        }
        write_table(f, &table)
    }
}

/// The first line is the head; the first column is flush left, the others right.
fn write_table(f: &mut fmt::Formatter<'_>, table: &[Vec<String>]) -> fmt::Result {
    let widths: Vec<usize> = (0..table[0].len())
        .map(|column| {
            let cells = table.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    for (at, line) in table.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match column {
                0 => write!(f, "| {cell:<width$} ")?,
                _ => write!(f, "| {cell:>width$} ")?,
            }
        }
        writeln!(f, "|")?;
        if at == 0 {
            for (column, width) in widths.iter().enumerate() {
                match column {
                    0 => write!(f, "| {:-<width$} ", "")?,
                    _ => write!(f, "| {:->width$}:", "")?,
                }
            }
            writeln!(f, "|")?;
        }
    }
    Ok(())
}
