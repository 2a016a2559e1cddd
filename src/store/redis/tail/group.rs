//! Rooms that share blocking reads, for servers without tracking.
//!
//! One cycle over a group costs Redis about 1.2 µs per room, and a room that joins waits for the
//! running cycle to end: hence small groups and a short BLOCK.

mod cycle;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use super::{Context, Order, Room};
use crate::store::redis::connect::Backoff;
use crate::store::redis::reply;
use cycle::Members;

/// Most rooms in a group.
const GROUP: usize = 64;

struct Group {
    orders: UnboundedSender<Order>,
    rooms: usize,
    _task: AbortOnDropHandle<()>,
}

/// Puts rooms into groups, for as long as orders come.
pub(super) async fn dispatch(
    context: &Arc<Context>,
    orders: &mut UnboundedReceiver<Order>,
    rooms: Vec<(u64, Room)>,
) {
    let mut groups: HashMap<u64, Group> = HashMap::new();
    let mut homes: HashMap<u64, u64> = HashMap::new();
    let mut next_group = 0;
    let mut first = rooms.into_iter().map(|(id, room)| Order::Join(id, room));
    loop {
        let order = match first.next() {
            Some(order) => order,
            None => match orders.recv().await {
                Some(order) => order,
                None => return,
            },
        };
        match order {
            Order::Join(id, room) => {
                let roomy = groups.iter().find(|(_, group)| group.rooms < GROUP);
                let home = match roomy {
                    Some((home, _)) => *home,
                    None => {
                        next_group += 1;
                        groups.insert(next_group, Group::start(context.clone()));
                        next_group
                    }
                };
                if let Some(group) = groups.get_mut(&home) {
                    group.rooms += 1;
                    // The group's task ends only with the group.
                    let _ = group.orders.send(Order::Join(id, room));
                    homes.insert(id, home);
                }
            }
            Order::Leave(id) => {
                let Some(home) = homes.remove(&id) else {
                    continue;
                };
                if let Some(group) = groups.get_mut(&home) {
                    group.rooms -= 1;
                    let _ = group.orders.send(Order::Leave(id));
                    if group.rooms == 0 {
                        groups.remove(&home);
                    }
                }
            }
        }
    }
}

impl Group {
    fn start(context: Arc<Context>) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(context, receiver));
        Group {
            orders,
            rooms: 0,
            _task: AbortOnDropHandle::new(task),
        }
    }
}

/// Tails one group for ever.
async fn follow(context: Arc<Context>, mut orders: UnboundedReceiver<Order>) {
    let status = context.health.watch();
    let mut backoff = Backoff::for_connections();
    let mut members = Members::new(context.health.clone());
    loop {
        let error = match context.address.open().await {
            Ok(mut connection) => {
                status.up();
                members.all_alone();
                loop {
                    while let Ok(order) = orders.try_recv() {
                        members.apply(order);
                    }
                    match members.cycle(&mut connection).await {
                        Ok(None) => backoff.reset(),
                        Ok(Some(pause)) => {
                            tokio::select! {
                                () = sleep_until(Instant::now() + pause) => {}
                                order = orders.recv() => match order {
                                    Some(order) => members.apply(order),
                                    None => return,
                                },
                            }
                        }
                        Err(error) => break error,
                    }
                }
            }
            Err(error) => reply::fault(&error),
        };
        tracing::debug!(%error, "a group's tail lost its connection");
        status.down(&error);
        let until = Instant::now() + backoff.wait();
        while let Ok(order) = orders.try_recv() {
            members.apply(order);
        }
        members.on_error(&error);
        sleep_until(until).await;
    }
}
