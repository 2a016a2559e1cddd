//! Whispers: one queue, one task, one connection. They are sent as the queue stands, and never
//! twice; what can't be sent now is lost, as it's worth nothing later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::store::redis::connect::{Address, Backoff, ask};
use crate::store::redis::reply;

/// Most whispers that wait, and most bytes of them.
const QUEUE: usize = 10_000;
const QUEUE_BYTES: usize = 16 << 20;

/// Most whispers in one pipeline, and about how many bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// An idle connection is pinged so often, to have a fresh one ready if it died.
const IDLE_PING: Duration = Duration::from_secs(1);

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Takes whispers.
pub(super) struct Whisperer {
    queue: Arc<Queue>,
    _worker: AbortOnDropHandle<()>,
}

impl Whisperer {
    /// Starts the task, which connects at the first whisper.
    pub(super) fn start(address: Address) -> Self {
        let queue = Arc::new(Queue::default());
        let worker = tokio::spawn(run(queue.clone(), address));
        Whisperer {
            queue,
            _worker: AbortOnDropHandle::new(worker),
        }
    }

    /// Queues a message, or loses it if too many wait.
    pub(super) fn push(&self, channel: String, message: Bytes) {
        self.queue.push(channel, message);
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    pushed: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(String, Bytes)>,
    bytes: usize,
    /// Lost since the last word about it.
    lost: usize,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, channel: String, message: Bytes) {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + channel.len() + message.len();
        if waiting.messages.len() >= QUEUE || bytes > QUEUE_BYTES {
            waiting.lost += 1;
            return;
        }
        waiting.bytes = bytes;
        waiting.messages.push_back((channel, message));
        drop(waiting);
        self.pushed.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.lock().messages.is_empty()
    }

    fn take_batch(&self) -> Pipeline {
        let mut pipe = Pipeline::new();
        let mut bytes = 0;
        let mut waiting = self.lock();
        while pipe.len() < BATCH
            && bytes < BATCH_BYTES
            && let Some((channel, message)) = waiting.messages.pop_front()
        {
            bytes += channel.len() + message.len();
            pipe.cmd("PUBLISH").arg(channel).arg(message.as_ref());
        }
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        pipe
    }

    /// Loses everything that waits.
    fn clear(&self) {
        let mut waiting = self.lock();
        waiting.lost += waiting.messages.len();
        waiting.messages.clear();
        waiting.bytes = 0;
    }

    fn lose(&self, count: usize) {
        self.lock().lost += count;
    }

    fn report(&self) {
        let lost = std::mem::take(&mut self.lock().lost);
        if lost > 0 {
            tracing::debug!(lost, "whispers were lost");
        }
    }
}

async fn run(queue: Arc<Queue>, address: Address) {
    let mut backoff = Backoff::for_connections();
    let mut open: Option<MultiplexedConnection> = None;
    loop {
        let Some(connection) = &mut open else {
            if queue.is_empty() {
                queue.pushed.notified().await;
                continue;
            }
            match address.open().await {
                Ok(connection) => open = Some(connection),
                Err(error) => {
                    let error = reply::fault(&error);
                    tracing::debug!(%error, "cannot connect to whisper");
                    queue.clear();
                    queue.report();
                    sleep(backoff.wait()).await;
                    // While waiting it was away as well.
                    queue.clear();
                }
            }
            continue;
        };
        if queue.is_empty() && timeout(IDLE_PING, queue.pushed.notified()).await.is_err() {
            let mut pipe = Pipeline::with_capacity(1);
            pipe.cmd("PING");
            if ask(connection, &pipe, TIMEOUT).await.is_err() {
                open = None;
            }
            continue;
        }
        let pipe = queue.take_batch();
        if pipe.is_empty() {
            continue;
        }
        match ask(connection, &pipe, TIMEOUT).await {
            Ok(values) => {
                let refused = values.into_iter().map(reply::check);
                let refused: Vec<_> = refused.filter_map(Result::err).collect();
                match refused.last() {
                    None => backoff.reset(),
                    Some(error) => {
                        queue.lose(refused.len());
                        tracing::debug!(%error, "whispers are refused");
                    }
                }
            }
            Err(error) => {
                queue.lose(pipe.len());
                tracing::debug!(%error, "lost the connection with whispers on it");
                open = None;
            }
        }
        queue.report();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_bounded() {
        let queue = Queue::default();
        for _ in 0..QUEUE + 5 {
            queue.push("c".to_owned(), Bytes::from_static(b"m"));
        }
        assert_eq!(queue.lock().lost, 5);
        assert_eq!(queue.take_batch().len(), BATCH);
        queue.clear();
        assert_eq!(queue.lock().bytes, 0);
        let large = Bytes::from(vec![0; QUEUE_BYTES / 2]);
        for _ in 0..3 {
            queue.push("c".to_owned(), large.clone());
        }
        assert_eq!(queue.lock().messages.len(), 1);
        assert_eq!(queue.take_batch().len(), 1);
        assert!(queue.is_empty() && queue.lock().bytes == 0);
    }
}
