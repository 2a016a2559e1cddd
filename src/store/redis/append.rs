//! Appends: one queue, one task, one connection.
//!
//! The task sends whatever is queued as one pipeline, waits for its replies, and sends what has
//! come since: batches grow with the load by themselves, and the order of the calls is the order
//! in the stream (`batch` says how). Each append has one of four ends:
//!
//! - Redis answered with an ID: stored.
//! - Redis answered with an error: not stored. If that passes (LOADING, READONLY), it's sent again
//!   until its deadline.
//! - It never went out: not stored.
//! - It went out and no answer came: unknown; with an idempotency key it's sent again, which is
//!   safe, until its deadline.

mod batch;
mod queue;
mod script;

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use redis::Pipeline;
use redis::aio::MultiplexedConnection;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::connect::{Address, Backoff, ask};
use super::health::Health;
use super::keys::Keys;
use super::spell::Spell;
use super::{Settings, reply};
use crate::relay::log::{Append, AppendError, LogError};
use batch::{Batch, Plan};
use queue::{Pending, Queue};

/// How often deadlines are looked at while something is awaited. An append is told within this of
/// its deadline.
const TICK: Duration = Duration::from_millis(25);

/// A connection that was silent for so long is pinged before appends go out on it. If it has died
/// meanwhile, the ping finds out, and nothing is in doubt.
const SILENCE: Duration = Duration::from_millis(250);

/// An idle connection is pinged so often, to have a fresh one ready if it died.
const IDLE_PING: Duration = Duration::from_secs(1);

/// Trouble that passes within this is not worth a line in the log.
const SHORT: Duration = Duration::from_millis(500);

/// How long a ping or a SCRIPT LOAD may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Takes appends.
pub(super) struct Publisher {
    queue: Arc<Queue>,
    _worker: AbortOnDropHandle<()>,
}

impl Publisher {
    /// Starts the task.
    pub(super) fn start(
        settings: &Settings,
        keys: Keys,
        address: Address,
        health: Arc<Health>,
    ) -> Self {
        let queue = Arc::new(Queue::new(
            settings.publish_queue,
            settings.publish_queue_bytes,
        ));
        let worker = Worker {
            queue: queue.clone(),
            address,
            health,
            trouble: Spell::default(),
            plan: Plan::new(settings, keys),
            connection: None,
            script_loaded: false,
            script_error: None,
            last_answer: Instant::now(),
            again: VecDeque::new(),
            sent: Vec::new(),
            backoff: Backoff::for_connections(),
            error: LogError::Unavailable("not connected yet".to_owned()),
        };
        Publisher {
            queue,
            _worker: AbortOnDropHandle::new(tokio::spawn(worker.run())),
        }
    }

    /// Queues an append, or refuses it if too many wait.
    pub(super) fn append(&self, append: Append) {
        self.queue.push(append);
    }
}

struct Worker {
    queue: Arc<Queue>,
    address: Address,
    health: Arc<Health>,
    /// Nothing can be appended, though the server answers.
    trouble: Spell,
    plan: Plan,
    connection: Option<MultiplexedConnection>,
    script_loaded: bool,
    /// Why the script could not be loaded, if so.
    script_error: Option<LogError>,
    last_answer: Instant,
    /// To be sent again, before anything in the queue.
    again: VecDeque<Pending>,
    /// Sent, and not answered yet.
    sent: Vec<Pending>,
    backoff: Backoff,
    /// Why nothing goes out just now.
    error: LogError,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let Some(mut connection) = self.connection.take() else {
                self.connect().await;
                continue;
            };
            if self.again.is_empty() && self.queue.is_empty() {
                let queue = self.queue.clone();
                tokio::select! {
                    () = queue.pushed() => self.connection = Some(connection),
                    () = sleep(IDLE_PING) => {
                        if self.ping(&mut connection).await {
                            self.connection = Some(connection);
                        }
                    }
                }
                continue;
            }
            if self.last_answer.elapsed() > SILENCE && !self.ping(&mut connection).await {
                continue;
            }
            if !self.script_loaded && !self.load_script(&mut connection).await {
                continue;
            }
            if self.send(&mut connection).await {
                self.connection = Some(connection);
            }
        }
    }

    async fn connect(&mut self) {
        let address = self.address.clone();
        match self.meanwhile(address.open()).await {
            Ok(connection) => {
                self.connection = Some(connection);
                self.script_loaded = false;
                self.plan.forget_expiries();
                self.last_answer = Instant::now();
            }
            Err(error) => {
                self.error = reply::fault(&error);
                self.warn();
                self.pause().await;
            }
        }
    }

    /// Logs why nothing goes out, once for each time that lasts. That the server is away is said
    /// elsewhere.
    fn warn(&mut self) {
        let error = &self.error;
        tracing::debug!(%error, waiting = self.again.len(), "appends wait");
        if self.health.is_up() && self.trouble.met(Instant::now(), SHORT) {
            tracing::warn!(%error, "publishes wait: Redis answers, and takes none");
        }
    }

    fn well(&mut self) {
        self.backoff.reset();
        if let Some(lasted) = self.trouble.over(Instant::now()) {
            tracing::info!(?lasted, "Redis takes publishes again");
        }
    }

    async fn pause(&mut self) {
        let wait = self.backoff.wait();
        self.meanwhile(sleep(wait)).await;
    }

    /// Waits for `future`, telling appends whose deadline passes meanwhile.
    async fn meanwhile<F: Future>(&mut self, future: F) -> F::Output {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                output = &mut future => return output,
                () = sleep(TICK) => self.expire(Instant::now()),
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        for pending in &mut self.sent {
            if pending.deadline <= now {
                pending.give_up(&LogError::Unavailable("no answer in time".to_owned()));
            }
        }
        // With these the last word was an error, and there is no time for another.
        let soon = now + self.plan.margin();
        self.again.retain_mut(|pending| {
            let late = pending.deadline <= soon;
            if late {
                pending.give_up(&self.error);
            }
            !late
        });
        for mut pending in self.queue.take_expired(now) {
            pending.give_up(&self.error);
        }
    }

    /// Whether the connection lives.
    async fn ping(&mut self, connection: &mut MultiplexedConnection) -> bool {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("PING");
        // An error reply is an answer; if appends get it too, each is told.
        match self.meanwhile(ask(connection, &pipe, PING_TIMEOUT)).await {
            Ok(_) => {
                self.last_answer = Instant::now();
                true
            }
            Err(error) => {
                self.error = error;
                false
            }
        }
    }

    /// Loads the script once per connection, and again when the server has forgotten it.
    async fn load_script(&mut self, connection: &mut MultiplexedConnection) -> bool {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("SCRIPT").arg("LOAD").arg(script::TEXT);
        match self.meanwhile(ask(connection, &pipe, PING_TIMEOUT)).await {
            Ok(values) => {
                // An error reply concerns only appends that need it: it waits for one.
                self.script_error = values.into_iter().find_map(|v| reply::check(v).err());
                self.script_loaded = true;
                true
            }
            Err(error) => {
                self.error = error;
                false
            }
        }
    }

    /// Sends one batch and settles it. Whether the connection is still good.
    async fn send(&mut self, connection: &mut MultiplexedConnection) -> bool {
        let now = Instant::now();
        self.expire(now);
        self.queue.take_batch(&mut self.again, &mut self.sent);
        let Some(latest) = self.sent.iter().map(|pending| pending.deadline).max() else {
            return true;
        };
        let batch = self.plan.batch(&self.sent, now);
        for pending in &mut self.sent {
            pending.out = true;
        }
        let answers = connection.send_packed_commands(&batch.pipe, 0, batch.pipe.len());
        let answers = self.meanwhile(timeout_at(latest, answers)).await;
        let error = match answers {
            Ok(Ok(values)) if values.len() == batch.pipe.len() => {
                self.last_answer = Instant::now();
                return self.settle(&batch, values).await;
            }
            Ok(Ok(_)) => LogError::Unavailable("a reply is missing".to_owned()),
            Ok(Err(error)) => reply::fault(&error),
            Err(_) => LogError::Unavailable("no answer in time".to_owned()),
        };
        tracing::warn!(%error, appends = self.sent.len(), "lost the connection with appends on it");
        self.error = error;
        let now = Instant::now();
        // Backwards to the front: they keep their order, and precede what waited already.
        for mut pending in self.sent.drain(..).rev() {
            pending.out = false;
            pending.in_doubt = true;
            if pending.key.is_some() && pending.deadline > now {
                self.again.push_front(pending);
            } else {
                pending.give_up(&self.error);
            }
        }
        false
    }

    async fn settle(&mut self, batch: &Batch, values: Vec<redis::Value>) -> bool {
        let settled = batch.settle(&mut self.plan, values, self.sent.drain(..));
        for (mut pending, outcome) in settled.done {
            pending.finish(outcome);
        }
        self.script_loaded &= !settled.no_script;
        for pending in settled.again.into_iter().rev() {
            self.again.push_front(pending);
        }
        let script_error = self.script_error.clone().filter(|_| settled.no_script);
        match settled.error.or(script_error) {
            None => {
                self.well();
                true
            }
            Some(error) => {
                // READONLY: a failover made this server a replica; ask the address anew.
                let stay = !matches!(error, LogError::ReadOnly(_));
                self.error = error;
                self.warn();
                self.pause().await;
                stay
            }
        }
    }
}

impl Pending {
    /// Its deadline passed, or it can't be tried again.
    fn give_up(&mut self, error: &LogError) {
        let outcome = match self.out || self.in_doubt {
            true => AppendError::Unknown(error.clone()),
            false => AppendError::Refused(error.clone()),
        };
        self.finish(Err(outcome));
    }
}
