//! The clients' side: each client's events against the stream, and clients against each other.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound::{Excluded, Included};

use bytes::Bytes;
use tailcast::relay::entry::EntryId;
use tailcast::relay::format::GapReason;

use super::{Client, Event, Outcome, Room, Run, Violation};

/// Every entry known to have been in a room.
struct Truth<'a> {
    room: &'a Room,
    /// What is there at the end.
    present: BTreeMap<EntryId, &'a Bytes>,
    /// That, and what others saw before it was trimmed: other clients got it, or its publish was
    /// acknowledged. Where a stream's end was lost there is no telling which of its lives such a
    /// sighting belongs to, so there it's only what is present.
    known: BTreeMap<EntryId, &'a Bytes>,
}

pub(super) fn check(run: &Run, violations: &mut Vec<Violation>) {
    let mut rooms: BTreeMap<&str, Vec<&Client>> = BTreeMap::new();
    for client in &run.clients {
        rooms.entry(&client.room).or_default().push(client);
    }
    let nothing = Room::default();
    for (name, clients) in rooms {
        let truth = Truth::new(run, run.rooms.get(name).unwrap_or(&nothing), name, &clients);
        for client in &clients {
            Follower::new(&truth, client, violations).check();
        }
        check_agreement(name, &clients, violations);
    }
}

impl<'a> Truth<'a> {
    fn new(run: &'a Run, room: &'a Room, name: &str, clients: &[&'a Client]) -> Self {
        let present: BTreeMap<_, _> = room.entries.iter().map(|(id, p)| (*id, p)).collect();
        let mut known = present.clone();
        if room.trimmed && !room.lost {
            let first = room.entries.first().map_or(EntryId::MAX, |(id, _)| *id);
            let got = clients
                .iter()
                .flat_map(|client| &client.events)
                .filter_map(entry);
            let acknowledged = run.publishes.iter().filter(|publish| publish.room == name);
            let acknowledged = acknowledged.filter_map(|publish| match publish.outcome {
                Outcome::Stored(id) => Some((id, &publish.payload)),
                _ => None,
            });
            for (id, payload) in acknowledged.chain(got).filter(|(id, _)| *id < first) {
                known.entry(id).or_insert(payload);
            }
        }
        Truth {
            room,
            present,
            known,
        }
    }

    fn trimmed_away(&self, id: EntryId) -> bool {
        self.room.trimmed && self.present.keys().next().is_none_or(|first| id < *first)
    }
}

/// Goes through one client's events.
struct Follower<'a> {
    truth: &'a Truth<'a>,
    client: &'a Client,
    violations: &'a mut Vec<Violation>,
    /// Where the client is; the next entry is the first one past it. Unknown until it's told.
    cursor: Option<EntryId>,
    /// The last entry it got, or where it began.
    last: Option<EntryId>,
    /// All it got since the stream last began anew, and before.
    seen: HashMap<EntryId, &'a Bytes>,
    seen_before: HashSet<(EntryId, &'a Bytes)>,
    /// It got an entry that the stream lost since; only a gap can lead on from there.
    in_lost_end: bool,
    reconnected: bool,
}

impl<'a> Follower<'a> {
    fn new(truth: &'a Truth<'a>, client: &'a Client, violations: &'a mut Vec<Violation>) -> Self {
        Follower {
            truth,
            client,
            violations,
            cursor: None,
            last: None,
            seen: HashMap::new(),
            seen_before: HashSet::new(),
            in_lost_end: false,
            reconnected: false,
        }
    }

    fn check(mut self) {
        for (index, event) in self.client.events.iter().enumerate() {
            match event {
                Event::Joined { head } => {
                    if !std::mem::take(&mut self.reconnected) {
                        (self.cursor, self.last) = (Some(*head), Some(*head));
                    }
                }
                Event::Entry { id, payload } => self.entry(index, *id, payload),
                Event::Gap {
                    after,
                    before,
                    reason,
                } => self.gap(*after, *before, *reason),
                Event::Reconnected { from } => {
                    self.reconnected = true;
                    if let Some(cursor) = self.cursor
                        && *from > cursor
                        && Some(*from) != self.last
                    {
                        let (client, from) = (self.client.name.clone(), *from);
                        self.violations.push(Violation::ResumedAhead {
                            client,
                            from,
                            cursor,
                        });
                    }
                    self.cursor = Some(*from);
                }
            }
        }
        self.end();
    }

    fn entry(&mut self, index: usize, id: EntryId, payload: &'a Bytes) {
        let client = || self.client.name.clone();
        let twice = match self.seen.insert(id, payload) {
            Some(_) => true,
            None => self.seen_before.contains(&(id, payload)),
        };
        if twice {
            self.violations.push(Violation::Duplicate {
                client: client(),
                id,
            });
            return;
        }
        if let Some(last) = self.cursor.filter(|cursor| id <= *cursor) {
            self.violations.push(Violation::OutOfOrder {
                client: client(),
                last,
                id,
            });
            // The greatest ID stays the cursor, else each later entry would be reported, too.
            return;
        }
        match self.truth.known.get(&id) {
            Some(there) if *there == payload => {
                if self.in_lost_end {
                    self.violations.push(Violation::SilentReset {
                        client: client(),
                        id,
                    });
                    self.in_lost_end = false;
                } else if let Some(cursor) = self.cursor {
                    self.nothing_between(cursor, id);
                }
            }
            _ if self.truth.room.lost && self.may_be_lost(index, id) => self.in_lost_end = true,
            _ if self.truth.trimmed_away(id) => {}
            Some(_) => self.violations.push(Violation::WrongPayload {
                client: client(),
                id,
            }),
            None => self.violations.push(Violation::Invented {
                client: client(),
                id,
            }),
        }
        (self.cursor, self.last) = (Some(id), Some(id));
    }

    fn gap(&mut self, after: EntryId, before: EntryId, reason: GapReason) {
        let anew = reason != GapReason::Trimmed;
        let room = self.truth.room;
        let present = &self.truth.present;
        let still_there = || known_between(present, after, before).next().is_some();
        let why = if anew && !room.lost {
            Some("the stream never lost anything but its oldest entries")
        } else if !room.trimmed && !room.lost {
            Some("the stream has lost nothing")
        } else if !anew && before <= after {
            Some("it goes backwards")
        } else if !room.lost && still_there() {
            Some("entries in between are still there")
        } else {
            None
        };
        if let Some(why) = why {
            let client = self.client.name.clone();
            self.violations.push(Violation::FalseGap {
                client,
                after,
                before,
                reason,
                why,
            });
        }
        if anew {
            self.seen_before.extend(self.seen.drain());
            self.in_lost_end = false;
        } else if let Some(cursor) = self.cursor
            && cursor < after
            && Some(after) != self.last
        {
            // The gap begins too late: what came before it is untold.
            self.nothing_between(
                cursor,
                EntryId {
                    seq: after.seq.saturating_add(1),
                    ..after
                },
            );
        }
        self.cursor = Some(before.predecessor());
    }

    fn end(&mut self) {
        let Some(to) = self.client.complete_to else {
            return;
        };
        let last = self.cursor.unwrap_or(EntryId::ZERO);
        // Where IDs went back, a cursor past the end is one in the lost end.
        let reached = if self.truth.room.lost {
            last == to
        } else {
            last >= to
        };
        if !reached {
            let client = self.client.name.clone();
            self.violations
                .push(Violation::Incomplete { client, last, to });
        }
    }

    /// Reports entries that were passed over.
    fn nothing_between(&mut self, after: EntryId, before: EntryId) {
        let missed = known_between(&self.truth.known, after, before);
        let mut missed = missed.filter(|id| !self.of_a_later_life(*id));
        if let Some(first) = missed.next() {
            let (client, count) = (self.client.name.clone(), 1 + missed.count());
            self.violations.push(Violation::Missing {
                client,
                after,
                before,
                first,
                count,
            });
        }
    }

    /// Whether the stream got this entry only after it began anew under this client's eyes.
    fn of_a_later_life(&self, id: EntryId) -> bool {
        self.truth.room.lost
            && !self.seen.contains_key(&id)
            && self
                .client
                .events
                .iter()
                .filter_map(entry)
                .any(|(other, payload)| {
                    other == id && self.truth.present.get(&id) == Some(&payload)
                })
    }

    /// Whether the stream may have had this entry and lost it: it began anew after it was
    /// delivered, or it has nothing that came later.
    fn may_be_lost(&self, index: usize, id: EntryId) -> bool {
        let anew = |event: &Event| matches!(event, Event::Gap { reason, .. } if *reason != GapReason::Trimmed);
        let beyond = self
            .truth
            .present
            .keys()
            .next_back()
            .is_none_or(|last| *last < id);
        beyond || self.client.events[index..].iter().any(anew)
    }
}

fn known_between<'a>(
    entries: &'a BTreeMap<EntryId, &'a Bytes>,
    after: EntryId,
    before: EntryId,
) -> impl Iterator<Item = EntryId> + use<'a> {
    // The ends of an empty range must not be the wrong way round.
    let last = before.predecessor().max(after);
    let range = entries.range((Excluded(after), Included(last)));
    range.map(|(id, _)| *id)
}

fn entry(event: &Event) -> Option<(EntryId, &Bytes)> {
    match event {
        Event::Entry { id, payload } => Some((*id, payload)),
        _ => None,
    }
}

/// Each client's order gives edges from one entry to the next; if no one disagrees, these have no
/// cycle (Kahn's algorithm).
fn check_agreement(room: &str, clients: &[&Client], violations: &mut Vec<Violation>) {
    let mut next: HashMap<(EntryId, &Bytes), HashSet<(EntryId, &Bytes)>> = HashMap::new();
    let mut before: HashMap<(EntryId, &Bytes), usize> = HashMap::new();
    for client in clients {
        // Doubles are reported elsewhere; here they would be cycles.
        let mut seen = HashSet::new();
        let got = client
            .events
            .iter()
            .filter_map(entry)
            .filter(|key| seen.insert(*key));
        let mut last = None;
        for key in got.collect::<Vec<_>>() {
            before.entry(key).or_default();
            if let Some(last) = last.replace(key)
                && next.entry(last).or_default().insert(key)
            {
                *before.entry(key).or_default() += 1;
            }
        }
    }
    let mut free: Vec<_> = before
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(key, _)| *key)
        .collect();
    while let Some(key) = free.pop() {
        before.remove(&key);
        for after in next.remove(&key).unwrap_or_default() {
            if let Some(count) = before.get_mut(&after) {
                *count -= 1;
                if *count == 0 {
                    free.push(after);
                }
            }
        }
    }
    if !before.is_empty() {
        let mut ids: Vec<_> = before.keys().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.truncate(10);
        violations.push(Violation::Disagreement {
            room: room.to_owned(),
            ids,
        });
    }
}
