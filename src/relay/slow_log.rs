//! A log whose answers take their time, for tests. Its tails don't.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::sleep;

use super::entry::{Entry, EntryId, RoomName};
use super::log::{Append, Feed, Log, LogError, Range, StreamState, TailGuard};

/// The log.
pub(super) struct SlowLog<L> {
    pub(super) log: L,
    delay: Mutex<Duration>,
    append_delay: Mutex<Duration>,
}

impl<L: Log> SlowLog<L> {
    pub(super) fn new(log: L) -> Self {
        SlowLog {
            log,
            delay: Mutex::default(),
            append_delay: Mutex::default(),
        }
    }

    /// How long answers take from now on.
    pub(super) fn set_delay(&self, delay: Duration) {
        *self.delay.lock().unwrap() = delay;
    }

    /// How long the outcomes of appends take from now on. The entries are there before that.
    pub(super) fn set_append_delay(&self, delay: Duration) {
        *self.append_delay.lock().unwrap() = delay;
    }

    fn late<T: Send + 'static>(
        &self,
        answer: BoxFuture<'static, Result<T, LogError>>,
    ) -> BoxFuture<'static, Result<T, LogError>> {
        let delay = *self.delay.lock().unwrap();
        async move {
            sleep(delay).await;
            answer.await
        }
        .boxed()
    }
}

impl<L: Log> Log for SlowLog<L> {
    fn append(&self, append: Append) {
        let delay = *self.append_delay.lock().unwrap();
        let done = append.done;
        self.log.append(Append {
            done: match delay.is_zero() {
                true => done,
                false => Box::new(move |outcome| {
                    tokio::spawn(sleep(delay).map(|()| done(outcome)));
                }),
            },
            ..append
        });
    }

    fn range(
        &self,
        room: &RoomName,
        range: Range,
    ) -> BoxFuture<'static, Result<Vec<Entry>, LogError>> {
        self.late(self.log.range(room, range))
    }

    fn state(&self, room: &RoomName) -> BoxFuture<'static, Result<Option<StreamState>, LogError>> {
        self.late(self.log.state(room))
    }

    fn remove(
        &self,
        room: &RoomName,
        ids: Vec<EntryId>,
    ) -> BoxFuture<'static, Result<u64, LogError>> {
        self.late(self.log.remove(room, ids))
    }

    fn tail(&self, feed: std::sync::Arc<dyn Feed>) -> TailGuard {
        self.log.tail(feed)
    }

    fn health(&self) -> Result<(), LogError> {
        self.log.health()
    }
}
