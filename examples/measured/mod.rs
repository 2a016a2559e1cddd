//! What the examples that measure have in common: a Redis of their own, and what processes and
//! threads cost, from `/proc`.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use tailcast::store::local::LocalRedis;
use tempfile::TempDir;

/// A Redis on a port of the system's choosing, with an append-only file, as it's run in earnest.
pub(crate) struct OwnRedis {
    server: LocalRedis,
    _dir: TempDir,
}

impl OwnRedis {
    /// Starts one. To be called on the main thread: it ends with the thread that started it.
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // Somebody else may get the port in between, and then this fails; that is rare.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let server = LocalRedis::start(port, dir.path())?;
        Ok(OwnRedis { server, _dir: dir })
    }

    pub(crate) fn url(&self) -> String {
        self.server.url()
    }

    /// CPU time so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu(&format!("/proc/{}/task", self.server.pid()), "")
    }
}

/// User and system time of those threads in a directory of them whose names begin so. By the
/// scheduler's count in nanoseconds: the ticks of `stat` are a hundredth of a second.
pub(crate) fn cpu(tasks: &str, name: &str) -> Result<Duration> {
    let mut nanos: u64 = 0;
    for task in fs::read_dir(tasks).context("there is no /proc to read")? {
        let task = task?.path();
        let is_meant =
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.starts_with(name));
        // A thread may end between being listed and being read.
        let Ok(text) = fs::read_to_string(task.join("schedstat")) else {
            continue;
        };
        if is_meant {
            let time = text.split_whitespace().next();
            nanos += time.and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// How busy the machine is besides, for whoever reads the figures.
pub(crate) fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace()
        .next()
        .unwrap_or("unknown")
        .to_owned()
}
