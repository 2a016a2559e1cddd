//! Who is in a room, over all nodes, while somebody wants to know: the roster is read, held against
//! who lives, and told.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::reading::{members, read};
use super::{LINGER, Side, lock};
use crate::people::board::NodeId;
use crate::people::roster::{Present, Roster, Ticket};
use crate::people::{Shared, TICK, told};
use crate::relay::aside::Audience;

/// In a large room the number of its people changes all the time, and telling it costs a frame for
/// each of them. So it's told less often the more there are, but this often at least.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// Who is here, if somebody wants to know.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) roster: Option<Roster>,
    /// Sessions that are told.
    watchers: usize,
    /// When a node was last heard. It's not taken for dead by an older look at who lives.
    pub(super) heard: HashMap<NodeId, Instant>,
    /// The number told last, and whether it came without names.
    told: (usize, bool),
    next_count: Option<Instant>,
}

impl Side {
    /// One more session is to be told who is here.
    pub(in crate::people) fn watch(self: &Arc<Self>, shared: &Arc<Shared>) {
        lock(&self.watch).watchers += 1;
        self.open_roster(shared);
    }

    /// One less.
    pub(in crate::people) fn unwatch(&self) {
        lock(&self.watch).watchers -= 1;
        self.touch();
    }

    /// A watcher takes its seat about now.
    pub(in crate::people) fn welcome(self: &Arc<Self>) {
        // Two ticks: the first may come before the seat is taken.
        self.newcomers.store(2, Ordering::Release);
        self.stir();
    }

    pub(in crate::people) fn open_roster(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut watch = lock(&self.watch);
        if watch.roster.is_none() {
            watch.roster = Some(Roster::default());
            drop(watch);
            self.reread(shared);
        }
    }

    /// Everybody here, at most so many, and how many there are. Waits until it's known.
    pub(in crate::people) async fn present(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        limit: usize,
    ) -> (Vec<Present>, usize) {
        self.open_roster(shared);
        let mut settled = self.settled.subscribe();
        let mut nodes = shared.nodes.subscribe();
        loop {
            settled.mark_unchanged();
            nodes.mark_unchanged();
            let are_nodes_known = shared.nodes.borrow().as_of.is_some();
            {
                let watch = lock(&self.watch);
                if let Some(roster) = watch.roster.as_ref()
                    && are_nodes_known
                    && roster.is_settled()
                {
                    return (roster.present(limit), roster.count());
                }
            }
            tokio::select! {
                _ = settled.changed() => {}
                _ = nodes.changed() => {}
            }
            self.open_roster(shared);
        }
    }

    /// Reads the people of every node anew: of those that live, and of those that were heard since
    /// it was asked which do.
    pub(in crate::people) fn reread(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut nodes: BTreeSet<NodeId> = shared.living().into_iter().collect();
        {
            let watch = lock(&self.watch);
            nodes.extend(watch.roster.iter().flat_map(Roster::nodes).cloned());
        }
        for node in nodes {
            self.read(shared, &node);
        }
    }

    pub(in crate::people) fn read(self: &Arc<Self>, shared: &Arc<Shared>, node: &NodeId) {
        let mut watch = lock(&self.watch);
        if let Some(roster) = watch.roster.as_mut() {
            let ticket = roster.begin_reading(node);
            let reading = read(Arc::downgrade(self), shared.clone(), node.clone(), ticket);
            tokio::spawn(reading);
        }
    }

    pub(in crate::people) fn awaits(&self, node: &NodeId, ticket: &Ticket) -> bool {
        let watch = lock(&self.watch);
        let mut roster = watch.roster.iter();
        roster.any(|roster| roster.awaits(node, ticket))
    }

    /// A node's people were read. Returns the ticket for reading them once more, if that's needed.
    pub(in crate::people) fn end_reading(
        self: &Arc<Self>,
        node: &NodeId,
        ticket: &Ticket,
        records: Vec<(String, Bytes)>,
    ) -> Option<Ticket> {
        let again = {
            let mut watch = lock(&self.watch);
            let roster = watch.roster.as_mut()?;
            let (members, upto) = members(records);
            roster.end_reading(node, ticket, members, upto)
        };
        if again.is_none() {
            self.settled.send_replace(());
            self.stir();
        }
        again
    }

    /// Holds the roster against who lives: nodes it doesn't know are read, dead ones dropped.
    pub(in crate::people) fn on_beat(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        living: &[NodeId],
        as_of: Instant,
    ) {
        let mut unknown = Vec::new();
        {
            let mut watch = lock(&self.watch);
            let watch = &mut *watch;
            let Some(roster) = &mut watch.roster else {
                return;
            };
            if watch.watchers == 0 && now_idle(&self.touched) {
                // Nobody has asked for a while.
                watch.roster = None;
                watch.heard.clear();
                return;
            }
            let dead: Vec<NodeId> = roster
                .nodes()
                .filter(|node| !living.contains(node))
                .filter(|node| watch.heard.get(node).is_none_or(|heard| *heard < as_of))
                .cloned()
                .collect();
            for node in &dead {
                roster.drop_node(node);
                watch.heard.remove(node);
            }
            if !dead.is_empty() {
                self.settled.send_replace(());
                self.stir();
            }
            let known = |node: &&NodeId| roster.nodes().any(|other| other == *node);
            unknown.extend(living.iter().filter(|node| !known(node)).cloned());
        }
        for node in unknown {
            self.read(shared, &node);
        }
    }

    /// Whether somebody wants to know who is here.
    pub(in crate::people) fn is_watched(&self) -> bool {
        lock(&self.watch).roster.is_some()
    }

    /// Tells what has changed since the last tick.
    pub(in crate::people) fn tick(self: &Arc<Self>, shared: &Arc<Shared>, now: Instant) {
        self.stirred.store(false, Ordering::Release);
        self.reactions.flush(self, shared);
        let limit = shared.settings.presence_limit;
        let newcomers = self.newcomers.load(Ordering::Acquire);
        let mut asides = Vec::new();
        let mut again = newcomers > 1;
        {
            let mut watch = lock(&self.watch);
            let watch = &mut *watch;
            let Some(roster) = &mut watch.roster else {
                return;
            };
            if !roster.is_settled() || shared.nodes.borrow().as_of.is_none() {
                // Whoever came or went is told when it's known; reading stirs again.
                return;
            }
            if watch.watchers == 0 {
                roster.take_moves();
                return;
            }
            let (room, count) = (&self.room, roster.count());
            let is_large = count > limit;
            if is_large {
                if newcomers > 0 {
                    // Should the room get smaller before the others are told numbers, too, these
                    // need all names.
                    watch.told.1 = true;
                    asides.push(told::count(room, count, Audience::Newcomers));
                }
                let is_due = watch.next_count.is_none_or(|due| due <= now);
                if watch.told.0 != count && is_due {
                    roster.take_moves();
                    asides.push(told::count(room, count, Audience::Watchers));
                    watch.told = (count, true);
                    let share = u32::try_from(count / limit.max(1)).unwrap_or(u32::MAX);
                    let pause = TICK.saturating_mul(share).min(COUNT_EVERY);
                    watch.next_count = Some(now + pause);
                } else {
                    again |= watch.told.0 != count;
                }
            } else {
                let moves = roster.take_moves();
                let is_change = !moves.is_empty();
                let everybody = |audience| told::everybody(room, roster.present(limit), audience);
                if watch.told.1 || moves.roles {
                    // They were told numbers only, or other roles.
                    asides.push(everybody(Audience::Watchers));
                } else if is_change {
                    asides.push(told::moves(room, &moves));
                }
                if newcomers > 0 || is_change {
                    asides.push(everybody(Audience::Newcomers));
                }
                watch.told = (count, false);
            }
        }
        // Not if somebody has come since.
        let _ = self.newcomers.compare_exchange(
            newcomers,
            newcomers.saturating_sub(1),
            Ordering::AcqRel,
            Ordering::Relaxed,
        );
        for aside in asides {
            shared.relay.tell(&self.room, Arc::new(aside));
        }
        if again {
            self.stir();
        }
    }
}

fn now_idle(touched: &Mutex<Instant>) -> bool {
    lock(touched).elapsed() >= LINGER
}
