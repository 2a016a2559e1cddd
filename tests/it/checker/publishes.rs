//! The publishers' side: each outcome against the stream.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use tailcast::relay::entry::EntryId;

use super::{Outcome, Publish, Room, Run, Violation};

/// All publishes of one message in one room, each key counted once.
#[derive(Default)]
struct Tally {
    stored: Vec<EntryId>,
    unknown: usize,
    refused: usize,
}

pub(super) fn check(run: &Run, violations: &mut Vec<Violation>) {
    let mut rooms: BTreeMap<&str, Vec<&Publish>> = BTreeMap::new();
    for publish in &run.publishes {
        rooms.entry(&publish.room).or_default().push(publish);
    }
    let nothing = Room::default();
    for (name, publishes) in rooms {
        let room = run.rooms.get(name).unwrap_or(&nothing);
        check_room(
            name,
            room,
            &once_per_key(name, &publishes, violations),
            violations,
        );
    }
}

/// Repeats under one key are one publish: stored if any was, else unknown if any is.
fn once_per_key(
    room: &str,
    publishes: &[&Publish],
    violations: &mut Vec<Violation>,
) -> Vec<(Bytes, Outcome)> {
    let mut keyed: BTreeMap<&str, (Bytes, Outcome)> = BTreeMap::new();
    let mut all = Vec::new();
    for publish in publishes {
        let Some(key) = &publish.key else {
            all.push((publish.payload.clone(), publish.outcome));
            continue;
        };
        let first = || (publish.payload.clone(), publish.outcome);
        let (_, known) = keyed.entry(key).or_insert_with(first);
        match (*known, publish.outcome) {
            (Outcome::Stored(one), Outcome::Stored(other)) if one != other => {
                let (room, key) = (room.to_owned(), key.clone());
                violations.push(Violation::KeyAnsweredTwice {
                    room,
                    key,
                    one,
                    other,
                });
            }
            (Outcome::Stored(_), _) | (Outcome::Unknown, Outcome::Refused) => {}
            (_, outcome) => *known = outcome,
        }
    }
    all.extend(keyed.into_values());
    all
}

fn check_room(
    name: &str,
    room: &Room,
    publishes: &[(Bytes, Outcome)],
    violations: &mut Vec<Violation>,
) {
    let by_id: HashMap<EntryId, &Bytes> = room.entries.iter().map(|(id, p)| (*id, p)).collect();
    let first = room.entries.first().map_or(EntryId::MAX, |(id, _)| *id);
    let mut tallies: HashMap<&Bytes, Tally> = HashMap::new();
    let mut acknowledged = HashMap::new();
    for (payload, outcome) in publishes {
        let tally = tallies.entry(payload).or_default();
        let id = match *outcome {
            Outcome::Stored(id) => id,
            Outcome::Unknown => {
                tally.unknown += 1;
                continue;
            }
            Outcome::Refused => {
                tally.refused += 1;
                continue;
            }
        };
        tally.stored.push(id);
        let owned = || (name.to_owned(), payload.clone());
        // A lost end gives its IDs out again.
        if acknowledged.insert(id, payload).is_some() && !room.lost {
            violations.push(Violation::AcknowledgedTwice {
                room: name.to_owned(),
                id,
            });
        }
        match by_id.get(&id) {
            Some(there) if *there == payload => {}
            _ if room.lost || (room.trimmed && id < first) => {}
            Some(_) => {
                let (room, payload) = owned();
                violations.push(Violation::AcknowledgedOther { room, payload, id });
            }
            None => {
                let (room, payload) = owned();
                violations.push(Violation::AcknowledgedLost { room, payload, id });
            }
        }
    }
    for (id, payload) in &room.entries {
        // A message that nobody here published came from elsewhere.
        let Some(tally) = tallies.get_mut(payload) else {
            continue;
        };
        if tally.stored.contains(id) {
            continue;
        }
        if tally.unknown > 0 {
            tally.unknown -= 1;
            continue;
        }
        let why = match tally {
            Tally { stored, .. } if !stored.is_empty() => "it was acknowledged under another ID",
            Tally { refused: 1.., .. } => "it was refused",
            _ => "it's there already",
        };
        let (room, payload, id) = (name.to_owned(), payload.clone(), *id);
        violations.push(Violation::StoredOnce {
            room,
            payload,
            id,
            why,
        });
    }
}
