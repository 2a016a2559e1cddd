//! [`Roster`]: who is in one room, over all nodes, as one node knows it. No I/O and no clock: it's
//! told what nodes hold and what changed, and tells who came and went since it was asked last.
//!
//! Each node numbers its changes of a room from 1. A node whose changes have a gap has to be read
//! anew; while that goes on its changes are kept, and applied to what was read. Applying a change
//! that was read already does no harm, as it says how things stand and not how they moved.
//!
//! Each reading has a [`Ticket`], and only the last one begun for a node counts: what an earlier one
//! brings may be older than what was missed, or than the node's death.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use smallvec::SmallVec;

use super::board::NodeId;
use super::member::Member;
use crate::auth::Role;

/// A change of one node's people in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delta {
    /// One more than the one before; 1 if the node had nobody here before.
    pub(super) seq: u64,
    pub(super) set: Vec<(Arc<str>, Member)>,
    pub(super) removed: Vec<Arc<str>>,
}

/// A user, over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Who.
    pub user: Arc<str>,
    /// The name to show.
    pub name: Option<Arc<str>>,
    /// The role to show beside it: host, cohost or moderator, by a token.
    pub role: Option<Role>,
    /// Connections in the room.
    pub devices: u32,
    /// Unix milliseconds of the first join.
    pub since: u64,
}

impl Present {
    /// As `{"user","name","role","devices","since"}`, name and role only if there are any.
    pub fn json(&self) -> serde_json::Value {
        let mut json = serde_json::json!({
            "user": &*self.user,
            "devices": self.devices,
            "since": self.since,
        });
        if let Some(name) = &self.name {
            json["name"] = (&**name).into();
        }
        if let Some(role) = self.role {
            json["role"] = role.as_str().into();
        }
        json
    }
}

/// Who came and went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) joined: Vec<Present>,
    pub(super) left: Vec<Arc<str>>,
    /// Whether somebody who stayed has another role.
    pub(super) roles: bool,
    pub(super) count: usize,
}

impl Moves {
    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && !self.roles
    }
}

#[derive(Debug, Default)]
pub(super) struct Roster {
    users: BTreeMap<Arc<str>, SmallVec<[(NodeId, Member); 1]>>,
    nodes: HashMap<NodeId, Progress>,
    /// Users who changed since the last look, and what they were then.
    changed: BTreeMap<Arc<str>, Was>,
}

/// What a user was at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Was {
    Away,
    Here(Option<Role>),
}

/// How far a node's changes are known.
#[derive(Debug)]
enum Progress {
    /// All up to this one.
    UpTo(u64),
    /// Being read; what came since.
    Reading(Ticket, Vec<Delta>),
}

/// One reading of one node.
#[derive(Debug, Clone)]
pub(super) struct Ticket(Arc<()>);

impl Ticket {
    fn new() -> Self {
        Ticket(Arc::new(()))
    }

    fn is(&self, other: &Ticket) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Roster {
    /// Takes a change. If the node has to be read anew, that has begun then, with this ticket.
    pub(super) fn apply(&mut self, node: &NodeId, delta: Delta) -> Option<Ticket> {
        match self.nodes.get_mut(node) {
            Some(Progress::Reading(_, kept)) => {
                kept.push(delta);
                None
            }
            // It begins: whatever was known of it is from before.
            _ if delta.seq == 1 => {
                self.clear(node);
                self.nodes.insert(node.clone(), Progress::UpTo(1));
                self.change(node, delta);
                None
            }
            // One that was read already is on its way still; what it undoes, the next one does.
            Some(Progress::UpTo(seq)) if delta.seq <= *seq + 1 => {
                *seq = delta.seq.max(*seq);
                self.change(node, delta);
                None
            }
            _ => Some(self.reading(node, vec![delta])),
        }
    }

    /// A node is about to be read; one that is being read is read from the beginning.
    pub(super) fn begin_reading(&mut self, node: &NodeId) -> Ticket {
        self.reading(node, Vec::new())
    }

    fn reading(&mut self, node: &NodeId, kept: Vec<Delta>) -> Ticket {
        let ticket = Ticket::new();
        let reading = Progress::Reading(ticket.clone(), kept);
        self.nodes.insert(node.clone(), reading);
        ticket
    }

    /// Whether this reading still counts.
    pub(super) fn awaits(&self, node: &NodeId, ticket: &Ticket) -> bool {
        let progress = self.nodes.get(node);
        matches!(progress, Some(Progress::Reading(current, _)) if current.is(ticket))
    }

    /// A node was read: these are its people, as of change `upto` or later, and what came meanwhile
    /// comes on top. If that has a gap, too, it has to be read once more, with the ticket returned.
    /// Does nothing if the reading counts no more.
    pub(super) fn end_reading(
        &mut self,
        node: &NodeId,
        ticket: &Ticket,
        members: Vec<(Arc<str>, Member)>,
        upto: u64,
    ) -> Option<Ticket> {
        if !self.awaits(node, ticket) {
            return None;
        }
        let Some(Progress::Reading(_, kept)) = self.nodes.remove(node) else {
            return None;
        };
        self.clear(node);
        // What was read is not of one moment, so all that came meanwhile counts, in its order.
        let first = kept.first().map(|delta| delta.seq.saturating_sub(1));
        let mut seq = first.unwrap_or(upto);
        self.change(
            node,
            Delta {
                seq: 0,
                set: members,
                removed: Vec::new(),
            },
        );
        let mut kept = kept.into_iter();
        while let Some(delta) = kept.next() {
            if delta.seq == 1 {
                self.clear(node);
            } else if delta.seq != seq + 1 {
                // All that came behind the gap goes on top of what is read next: one of them alone
                // might undo what a later one did.
                let rest = std::iter::once(delta).chain(kept).collect();
                return Some(self.reading(node, rest));
            }
            seq = delta.seq;
            self.change(node, delta);
        }
        self.nodes.insert(node.clone(), Progress::UpTo(seq));
        None
    }

    /// A node is dead, and its people gone.
    pub(super) fn drop_node(&mut self, node: &NodeId) {
        if self.nodes.remove(node).is_some() {
            self.clear(node);
        }
    }

    /// The nodes it knows of.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.keys()
    }

    /// Whether nothing is being read.
    pub(super) fn is_settled(&self) -> bool {
        let mut nodes = self.nodes.values();
        nodes.all(|progress| matches!(progress, Progress::UpTo(_)))
    }

    /// How many users are here.
    pub(super) fn count(&self) -> usize {
        self.users.len()
    }

    /// Users in order of their names, at most so many.
    pub(super) fn present(&self, limit: usize) -> Vec<Present> {
        let users = self.users.iter().take(limit);
        users.map(|(user, on)| present(user, on)).collect()
    }

    /// Who came and went since this was called last.
    pub(super) fn take_moves(&mut self) -> Moves {
        let mut moves = Moves {
            count: self.users.len(),
            ..Moves::default()
        };
        for (user, was) in std::mem::take(&mut self.changed) {
            match (self.users.get(&user), was) {
                (Some(on), Was::Away) => moves.joined.push(present(&user, on)),
                (Some(on), Was::Here(was)) => moves.roles |= role(on) != was,
                (None, Was::Here(_)) => moves.left.push(user),
                (None, Was::Away) => {}
            }
        }
        moves
    }

    fn change(&mut self, node: &NodeId, delta: Delta) {
        for (user, member) in delta.set {
            let on = self.users.entry(user.clone()).or_default();
            let was = if on.is_empty() {
                Was::Away
            } else {
                Was::Here(role(on))
            };
            self.changed.entry(user).or_insert(was);
            match on.iter_mut().find(|(other, _)| other == node) {
                Some((_, known)) => *known = member,
                None => on.push((node.clone(), member)),
            }
        }
        for user in delta.removed {
            self.remove(node, &user);
        }
    }

    fn clear(&mut self, node: &NodeId) {
        let is_there = |on: &SmallVec<[(NodeId, Member); 1]>| on.iter().any(|(n, _)| n == node);
        let users: Vec<Arc<str>> = self
            .users
            .iter()
            .filter(|(_, on)| is_there(on))
            .map(|(user, _)| user.clone())
            .collect();
        for user in users {
            self.remove(node, &user);
        }
    }

    fn remove(&mut self, node: &NodeId, user: &Arc<str>) {
        let Some(on) = self.users.get_mut(user) else {
            return;
        };
        let was = Was::Here(role(on));
        self.changed.entry(user.clone()).or_insert(was);
        on.retain(|(other, _)| other != node);
        if on.is_empty() {
            self.users.remove(user);
        }
    }
}

/// Of several devices' roles the one that counts most.
fn role(on: &[(NodeId, Member)]) -> Option<Role> {
    on.iter().filter_map(|(_, member)| member.role).min()
}

fn present(user: &Arc<str>, on: &[(NodeId, Member)]) -> Present {
    Present {
        user: user.clone(),
        name: on.iter().find_map(|(_, member)| member.name.clone()),
        role: role(on),
        devices: on.iter().map(|(_, member)| member.devices).sum(),
        since: on.iter().map(|(_, m)| m.since).min().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
