//! How the open files that the system lets a process have are shared out.
//!
//! Every client is a file, and so is every connection to Redis. If clients could use up all of them, then
//! tails could not reconnect, and nobody could be told why. So each has a share, set at the start.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::debug;

/// More is beyond any machine, and the semaphore counts in 32 bits.
pub(super) const MAX_SOCKETS: usize = 10_000_000;

/// Files of the process itself: standard streams, the runtime's (4), listeners (up to 4), the connections to
/// Redis that are not a room's own (7), one more while such a connection is replaced, and a few to spare for
/// what is opened for a moment (key files, requests to other nodes).
const OWN: u64 = 28;

/// Most clients over the limit that are told so at one time.
const TURNED_AWAY: u64 = 128;

/// Most connections of operators, behind listeners of their own: some dashboards, some scrapers.
const OPERATORS: u64 = 256;

/// How many files each may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Files {
    /// Clients' connections.
    pub sockets: usize,
    /// Rooms with a connection to Redis of their own.
    pub tails: usize,
    /// Connections above `sockets` that are answered, with 503 or for their health checks.
    pub turned_away: usize,
    /// Connections behind the operators' listeners, in number.
    pub operators: usize,
}

impl Files {
    /// Shares out `limit` files, where so many tails are wanted, and perhaps so many sockets; above what fits
    /// there are fewer. A limit below what the process needs itself leaves one of each.
    pub fn share(limit: u64, tails: usize, sockets: Option<usize>) -> Files {
        let left = limit.saturating_sub(OWN);
        let turned_away = (limit / 16).clamp(2, TURNED_AWAY);
        let operators = (limit / 16).clamp(2, OPERATORS);
        let left = left.saturating_sub(turned_away + operators);
        let tails = number(left / 3).min(tails);
        let fit = number(left).saturating_sub(tails).clamp(1, MAX_SOCKETS);
        Files {
            sockets: sockets.unwrap_or(fit).min(fit),
            tails,
            turned_away: number(turned_away),
            operators: number(operators),
        }
    }

    /// The same, of what this process may have.
    pub fn of_this_process(tails: usize, sockets: Option<usize>) -> Files {
        Files::share(file_limit(), tails, sockets)
    }
}

fn number(files: u64) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// Raises the limit of open files as far as this process may, once, and says what it is then.
pub fn file_limit() -> u64 {
    static LIMIT: OnceLock<u64> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            let raised = Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            };
            if let Err(error) = setrlimit(Resource::Nofile, raised) {
                debug!(%error, "the limit of open files stays as it is");
            }
        }
        getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of this limit, with 64 tails wanted: sockets, tails, turned away, operators.
    fn check(limit: u64, wanted: Option<usize>, want: [usize; 4]) {
        let got = Files::share(limit, 64, wanted);
        let got = [got.sockets, got.tails, got.turned_away, got.operators];
        assert_eq!(got, want, "{limit}");
    }

    #[test]
    fn shares() {
        check(64, None, [19, 9, 4, 4]);
        check(1_024, None, [804, 64, 64, 64]);
        check(1_024, Some(10), [10, 64, 64, 64]);
        check(1_024, Some(2_000), [804, 64, 64, 64]);
        check(1_048_576, None, [1_048_100, 64, 128, 256]);
        check(0, None, [1, 0, 2, 2]);
        check(u64::MAX, None, [MAX_SOCKETS, 64, 128, 256]);
    }

    #[test]
    fn never_more_than_there_are() {
        for limit in 40..5_000 {
            for tails in [0, 5, 64, 1_000_000] {
                let files = Files::share(limit, tails, None);
                let used = files.sockets + files.tails + files.turned_away + files.operators;
                assert!(used as u64 + OWN <= limit, "{limit}, {tails}: {files:?}");
            }
        }
    }
}
