//! The connection for questions: ranges, states, pings. It reconnects when asked, and while Redis
//! is away it fails at once rather than let each question try for itself.

use std::ops::Bound;
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Pipeline;
use redis::Value;
use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::connect::{Address, Backoff, ask};
use super::reply;
use super::size::ReadSize;
use crate::relay::entry::{Entry, EntryId};
use crate::relay::log::{LogError, Range, StreamState};

/// How long a question may take, reconnecting included.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time between two tries to connect. Until the next one every question is answered with
/// the last error, so it's short.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

/// How long one try at a range may take. Two of them, the second a quarter of the first, fit in.
const ONE_TRY: Duration = Duration::from_secs(3);

/// The command connection.
pub(super) struct Commands {
    /// How many entries a range may bring in one answer.
    size: StdMutex<ReadSize>,
    address: Address,
    /// Held across connecting, so that one connects and the others wait for it.
    line: Mutex<Line>,
}

/// Whether a question may go out again after the connection broke under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Asked twice it does no harm.
    Safe,
    /// It would count twice.
    Never,
}

struct Line {
    connection: Option<MultiplexedConnection>,
    /// Counts connections, so that a late failure discards only the one it was on.
    serial: u64,
    retry_at: Instant,
    backoff: Backoff,
    error: LogError,
}

impl Commands {
    /// Connects at the first question.
    pub(super) fn new(address: Address) -> Self {
        Commands {
            size: StdMutex::new(ReadSize::new(usize::MAX)),
            address,
            line: Mutex::new(Line {
                connection: None,
                serial: 0,
                retry_at: Instant::now(),
                backoff: Backoff::new(Duration::from_millis(50), LONGEST_WAIT),
                error: LogError::Unavailable("not connected yet".to_owned()),
            }),
        }
    }

    /// Entries of a range.
    pub(super) async fn range(&self, key: &[u8], range: Range) -> Result<Vec<Entry>, LogError> {
        // Redis calls these two invalid; they are only empty.
        if range.limit == 0
            || range.from == Bound::Excluded(EntryId::MAX)
            || range.to == Bound::Excluded(EntryId::ZERO)
        {
            return Ok(Vec::new());
        }
        let pages = self.pages(key, range);
        timeout(TIMEOUT, pages)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    /// Reads a range, in pages if it was too much for one answer.
    async fn pages(&self, key: &[u8], mut range: Range) -> Result<Vec<Entry>, LogError> {
        // Beyond this Redis reads no number.
        let mut left = range.limit.min(i64::MAX as usize);
        let mut got: Vec<Entry> = Vec::new();
        // What broke under a read of one entry may be another's fault, once.
        let mut tries = 2;
        loop {
            let asked = self.size().of(left);
            let (from, to) = (bound(range.from, "-"), bound(range.to, "+"));
            let mut pipe = Pipeline::with_capacity(1);
            if range.newest_first {
                pipe.cmd("XREVRANGE").arg(key).arg(to).arg(from);
            } else {
                pipe.cmd("XRANGE").arg(key).arg(from).arg(to);
            }
            pipe.arg("COUNT").arg(asked);
            let value = match self.try_once(&pipe, ONE_TRY).await {
                Ok(mut values) => values.pop().unwrap_or_default(),
                Err(failed) if failed.again && tries > 0 => {
                    self.size().lost(asked, Instant::now());
                    if asked == 1 {
                        tries -= 1;
                    }
                    continue;
                }
                Err(failed) => return Err(failed.error),
            };
            self.size().answered(Instant::now());
            let page = reply::entries(value)?;
            let (count, last) = (page.len(), page.last().map(|entry| entry.id));
            got.extend(page);
            left = left.saturating_sub(count);
            match last {
                Some(last) if count == asked && left > 0 => {
                    let end = match range.newest_first {
                        true => &mut range.to,
                        false => &mut range.from,
                    };
                    *end = Bound::Excluded(last);
                    if last == EntryId::MAX || last == EntryId::ZERO {
                        return Ok(got);
                    }
                }
                _ => return Ok(got),
            }
        }
    }

    fn size(&self) -> MutexGuard<'_, ReadSize> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream says of itself.
    pub(super) async fn state(&self, key: &[u8]) -> Result<Option<StreamState>, LogError> {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("XINFO").arg("STREAM").arg(key);
        reply::stream_state(self.one(&pipe).await?)
    }

    /// Removes entries; says how many of them were there.
    pub(super) async fn remove(&self, key: &[u8], ids: &[EntryId]) -> Result<u64, LogError> {
        if ids.is_empty() {
            return Ok(0);
        }
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("XDEL").arg(key);
        for id in ids {
            pipe.arg(id.to_string());
        }
        // Asked twice it does no harm, but the count is then what was left for the second time.
        reply::count(self.one(&pipe).await?)
    }

    /// Whether Redis answers, and what time it is there; `within` does not count connecting.
    pub(super) async fn ping(&self, within: Duration) -> Result<Pong, LogError> {
        let mut pipe = Pipeline::with_capacity(2);
        pipe.cmd("PING").cmd("TIME");
        let asked = self.try_timed(&pipe, within).await;
        let (values, asked) = asked.map_err(|failed| failed.error)?;
        let answered = Instant::now();
        let mut values = values.into_iter();
        values
            .next()
            .map_or(Ok(()), |pong| reply::check(pong).map(drop))?;
        // Who may not ask for the time goes without.
        let time = values.next().and_then(|time| reply::time(time).ok());
        Ok(Pong {
            asked,
            answered,
            time,
        })
    }

    /// Asks one question; twice if the connection broke under it, as it only reads.
    async fn one(&self, pipe: &Pipeline) -> Result<Value, LogError> {
        let values = self.all(pipe, TIMEOUT, Repeat::Safe).await?;
        values
            .into_iter()
            .next_back()
            .ok_or_else(|| LogError::Other("no reply".to_owned()))
    }

    /// Asks a pipeline of questions, and answers all replies, error replies among them. Each try
    /// may take so long, not counting connecting.
    pub(super) async fn all(
        &self,
        pipe: &Pipeline,
        within: Duration,
        repeat: Repeat,
    ) -> Result<Vec<Value>, LogError> {
        let asked = async {
            match self.try_once(pipe, within).await {
                Err(failed) if failed.again && repeat == Repeat::Safe => {
                    self.try_once(pipe, within).await.map_err(|f| f.error)
                }
                answer => answer.map_err(|f| f.error),
            }
        };
        timeout(TIMEOUT, asked)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn try_once(&self, pipe: &Pipeline, within: Duration) -> Result<Vec<Value>, Failed> {
        Ok(self.try_timed(pipe, within).await?.0)
    }

    /// The replies, and when the questions went out: connecting comes before that.
    async fn try_timed(
        &self,
        pipe: &Pipeline,
        within: Duration,
    ) -> Result<(Vec<Value>, Instant), Failed> {
        let (serial, mut connection) = self.connection().await?;
        let asked = Instant::now();
        match ask(&mut connection, pipe, within).await {
            Ok(values) => Ok((values, asked)),
            Err(error) => {
                let mut line = self.line.lock().await;
                if line.serial == serial {
                    line.connection = None;
                }
                Err(Failed { error, again: true })
            }
        }
    }

    async fn connection(&self) -> Result<(u64, MultiplexedConnection), Failed> {
        let mut line = self.line.lock().await;
        if let Some(connection) = &line.connection {
            return Ok((line.serial, connection.clone()));
        }
        if Instant::now() < line.retry_at {
            return Err(Failed {
                error: line.error.clone(),
                again: false,
            });
        }
        match self.address.open().await {
            Ok(connection) => {
                line.serial += 1;
                line.backoff.reset();
                line.connection = Some(connection.clone());
                Ok((line.serial, connection))
            }
            Err(error) => {
                line.error = reply::fault(&error);
                line.retry_at = Instant::now() + line.backoff.wait();
                Err(Failed {
                    error: line.error.clone(),
                    again: false,
                })
            }
        }
    }
}

fn late() -> LogError {
    LogError::Unavailable(format!("no answer within {TIMEOUT:?}"))
}

/// An answer to a ping.
pub(super) struct Pong {
    /// When it went out.
    pub(super) asked: Instant,
    /// When the answer was there.
    pub(super) answered: Instant,
    /// What time it was there, since the Unix epoch.
    pub(super) time: Option<Duration>,
}

struct Failed {
    error: LogError,
    again: bool,
}

fn bound(bound: Bound<EntryId>, open: &str) -> String {
    match bound {
        Bound::Included(id) => id.to_string(),
        Bound::Excluded(id) => format!("({id}"),
        Bound::Unbounded => open.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let id = EntryId::new(5, 1);
        assert_eq!(bound(Bound::Included(id), "-"), "5-1");
        assert_eq!(bound(Bound::Excluded(id), "-"), "(5-1");
        assert_eq!(bound(Bound::Unbounded, "+"), "+");
    }
}
