//! Listening: any number of channels on one connection of RESP3, one task.
//!
//! Redis confirms each channel of a SUBSCRIBE in the same stream that brings the messages; so an
//! ear is told that it listens exactly where its messages begin. One request is on the wire at a
//! time, and messages are heard meanwhile.

mod channels;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::channels::{Channels, Request};
use crate::people::board::{Ear, EarGuard};
use crate::relay::log::LogError;
use crate::store::redis::connect::{Address, Backoff, ask};
use crate::store::redis::reply;

/// A quiet connection is pinged, or one that died would look like one with nothing to say.
const PING_AFTER: Duration = Duration::from_secs(1);

/// How long an answer may take; together with the above, a dead connection is noticed within 3 s.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Most messages heard before orders and requests have their turn.
const MESSAGES: usize = 1024;

/// To the task.
enum Order {
    Listen(u64, String, Arc<dyn Ear>),
    Leave(u64, String),
}

/// All ears of one Redis.
pub(super) struct Listener {
    orders: UnboundedSender<Order>,
    next_id: AtomicU64,
    _task: AbortOnDropHandle<()>,
}

impl Listener {
    /// Starts the task, which connects when there is somebody to hear.
    pub(super) fn start(address: Address) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        Listener {
            orders,
            next_id: AtomicU64::new(0),
            _task: AbortOnDropHandle::new(tokio::spawn(run(address, receiver))),
        }
    }

    /// Listens until the guard is dropped.
    pub(super) fn listen(&self, channel: String, ear: Arc<dyn Ear>) -> EarGuard {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // The receiver lives as long as `self`.
        let _ = self.orders.send(Order::Listen(id, channel.clone(), ear));
        let orders = self.orders.clone();
        EarGuard::new(move || {
            let _ = orders.send(Order::Leave(id, channel));
        })
    }
}

async fn run(address: Address, mut orders: UnboundedReceiver<Order>) {
    let mut channels = Channels::default();
    let mut backoff = Backoff::for_connections();
    let mut said = None;
    loop {
        while channels.is_empty() {
            match orders.recv().await {
                Some(order) => channels.apply(order),
                None => return,
            }
        }
        let (sender, pushes) = mpsc::unbounded_channel();
        let error = match address.open_resp3(sender).await {
            Ok(connection) => {
                channels.connected();
                let mut line = Line {
                    connection,
                    pushes,
                    last_word: Instant::now(),
                };
                match line.stay(&mut orders, &mut channels, &mut backoff).await {
                    Some(error) => error,
                    None => return,
                }
            }
            Err(error) => reply::fault(&error),
        };
        tracing::debug!(%error, "nobody is heard; connecting again");
        // Somebody must mend it: an ACL without the channels, a server without RESP3.
        let lasting = !matches!(error, LogError::Unavailable(_) | LogError::Loading);
        if lasting && said.as_ref() != Some(&error) {
            tracing::warn!(%error, "cannot listen to what other nodes tell");
            said = Some(error);
        }
        channels.lost();
        let until = Instant::now() + backoff.wait();
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                order = orders.recv() => match order {
                    Some(order) => channels.apply(order),
                    None => return,
                },
            }
        }
    }
}

struct Line {
    connection: MultiplexedConnection,
    pushes: UnboundedReceiver<PushInfo>,
    /// When Redis last said anything.
    last_word: Instant,
}

impl Line {
    /// Listens until the connection fails; `None` if there is nobody left to give orders.
    async fn stay(
        &mut self,
        orders: &mut UnboundedReceiver<Order>,
        channels: &mut Channels,
        backoff: &mut Backoff,
    ) -> Option<LogError> {
        let mut asking: Option<BoxFuture<'static, Result<(), LogError>>> = None;
        loop {
            while let Ok(order) = orders.try_recv() {
                channels.apply(order);
            }
            if asking.is_none() {
                let request = channels
                    .next_request()
                    .or_else(|| (self.last_word.elapsed() >= PING_AFTER).then_some(Request::Ping));
                asking = request.map(|request| self.ask(request));
            }
            let busy = asking.is_some();
            let answer = async {
                match &mut asking {
                    Some(asking) => asking.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                push = self.pushes.recv() => {
                    if let Err(error) = self.hear(push, channels) {
                        return Some(error);
                    }
                }
                answer = answer => {
                    if let Err(error) = answer {
                        return Some(error);
                    }
                    backoff.reset();
                    self.last_word = Instant::now();
                    asking = None;
                }
                order = orders.recv() => channels.apply(order?),
                () = sleep_until(self.last_word + PING_AFTER), if !busy => {}
            }
        }
    }

    fn ask(&self, request: Request) -> BoxFuture<'static, Result<(), LogError>> {
        let mut connection = self.connection.clone();
        let asking = async move {
            let done = match request {
                Request::Subscribe(channels) => connection.subscribe(channels).await,
                Request::Unsubscribe(channels) => connection.unsubscribe(channels).await,
                Request::Ping => {
                    let mut pipe = Pipeline::with_capacity(1);
                    pipe.cmd("PING");
                    return ask(&mut connection, &pipe, TIMEOUT).await.map(drop);
                }
            };
            done.map_err(|error| reply::fault(&error))
        };
        async move {
            timeout(TIMEOUT, asking).await.unwrap_or_else(|_| {
                Err(LogError::Unavailable(format!(
                    "no answer within {TIMEOUT:?}"
                )))
            })
        }
        .boxed()
    }

    /// Takes a push, and what else is there.
    fn hear(&mut self, push: Option<PushInfo>, channels: &mut Channels) -> Result<(), LogError> {
        let closed = || LogError::Unavailable("the connection was closed".to_owned());
        self.last_word = Instant::now();
        let mut push = push.ok_or_else(closed)?;
        for left in (0..MESSAGES).rev() {
            match push.kind {
                PushKind::Disconnection => return Err(closed()),
                PushKind::Message => {
                    let mut data = push.data.into_iter();
                    if let (Some(Value::BulkString(channel)), Some(Value::BulkString(message))) =
                        (data.next(), data.next())
                    {
                        channels.on_message(&channel, &Bytes::from(message));
                    }
                }
                PushKind::Subscribe => {
                    if let Some(Value::BulkString(channel)) = push.data.first() {
                        channels.on_subscribed(channel);
                    }
                }
                _ => {}
            }
            if left == 0 {
                break;
            }
            match self.pushes.try_recv() {
                Ok(next) => push = next,
                Err(_) => break,
            }
        }
        Ok(())
    }
}
