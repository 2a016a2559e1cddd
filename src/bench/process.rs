//! What the measured processes cost: CPU time and resident memory from `/proc`, and which commands
//! Redis ran.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of some processes, all threads, user and system.
pub(super) fn cpu(pids: &[u32]) -> Result<Duration> {
    pids.iter().map(|pid| cpu_of(*pid)).sum()
}

fn cpu_of(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    // The scheduler's own count is in nanoseconds, where the kernel has it; the ticks in `stat`
    // are a hundredth of a second, which a short run on an idle server hardly reaches.
    if let Some(time) = scheduled(pid) {
        return Ok(time);
    }
    // The name is in parentheses and may hold anything, so fields are counted from its end.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
}

/// Time on a core, from each thread's `schedstat`. Threads that ended are missing, so this is for
/// servers whose threads stay.
fn scheduled(pid: u32) -> Option<Duration> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        // A thread may end between being listed and being read.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        total += text.split_whitespace().next()?.parse::<u64>().ok()?;
    }
    (total > 0).then(|| Duration::from_nanos(total))
}

/// Resident bytes of some processes.
pub(super) fn resident(pids: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        total += status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|kilobytes| kilobytes.parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok(total * 1024)
}

/// Calls of every Redis command so far, by name.
pub(super) async fn command_calls(
    redis: &mut redis::aio::MultiplexedConnection,
) -> Result<BTreeMap<String, u64>> {
    let text: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(redis)
        .await
        .context("INFO commandstats")?;
    Ok(parse_calls(&text))
}

fn parse_calls(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls = rest.split(',').next()?.parse().ok()?;
            Some((name.to_owned(), calls))
        })
        .collect()
}

/// Raises the limit on open files as far as it goes.
pub(super) fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A refusal leaves the limit as it was, and connecting will tell.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_command_statistics() {
        let calls = parse_calls(
            "# Commandstats\r\ncmdstat_xread:calls=12,usec=3,x=y\r\ncmdstat_client|info:calls=1,usec=2\r\n",
        );
        assert_eq!(calls.get("xread"), Some(&12));
        assert_eq!(calls.get("client|info"), Some(&1));
    }

    #[test]
    fn measures_itself() {
        let me = [std::process::id()];
        assert!(resident(&me).is_ok_and(|bytes| bytes > 0));
        assert!(cpu(&me).is_ok());
        assert!(cpu(&[u32::MAX]).is_err());
    }
}
