//! The checker can fail: made-up runs that keep every promise pass, and each kind of fault put
//! into one of them is caught, whatever the seed.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailcast::relay::entry::EntryId;
use tailcast::relay::format::GapReason;

use super::{Client, Event, Outcome, Publish, Room, Run, Violation, assert_clean, check};

const SEEDS: u64 = 50;

/// What the stream went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Plain,
    Trimmed,
    Rewound,
    Deleted,
}

const KINDS: [Kind; 4] = [Kind::Plain, Kind::Trimmed, Kind::Rewound, Kind::Deleted];

/// A run in which all went well.
fn clean(seed: u64, kind: Kind) -> (Run, StdRng) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut run = Run::default();
    for name in ["one", "two"] {
        add_room(&mut run, name, kind, &mut rng);
    }
    (run, rng)
}

fn add_room(run: &mut Run, name: &str, kind: Kind, rng: &mut StdRng) {
    let count = rng.random_range(30..50);
    let first = stream(EntryId::new(1000, 0), count, &format!("{name} first"), rng);
    let cut = rng.random_range(10..20);
    // The second life of a stream that lost its end, or everything.
    let start = match kind {
        Kind::Deleted => EntryId::new(rng.random_range(500..1200), 0),
        _ => first[cut - 1].0,
    };
    let second = stream(start, count, &format!("{name} second"), rng);
    let (entries, lost) = match kind {
        Kind::Plain => (first.clone(), false),
        Kind::Trimmed => (first[cut..].to_vec(), false),
        Kind::Rewound => ([&first[..cut], &second].concat(), true),
        Kind::Deleted => (second.clone(), true),
    };
    for number in 0..4 {
        let begin = rng.random_range(0..8);
        let head = if begin == 0 {
            EntryId::ZERO
        } else {
            first[begin - 1].0
        };
        let mut client = Client {
            name: format!("{name}/{number}"),
            room: name.to_owned(),
            events: vec![Event::Joined { head }],
            complete_to: entries.last().map(|(id, _)| *id),
        };
        match kind {
            Kind::Plain => client.get(&first[begin..], rng),
            Kind::Trimmed => {
                // Some were fast enough to see all before it was trimmed, one surely was not.
                let until = if number == 0 {
                    begin + 2
                } else {
                    rng.random_range(begin + 2..=cut)
                };
                client.get(&first[begin..until], rng);
                if until < cut {
                    client.gap(first[cut].0, GapReason::Trimmed);
                }
                client.get(&first[until.max(cut)..], rng);
            }
            Kind::Rewound => {
                let until = if number == 0 {
                    cut + 1
                } else {
                    rng.random_range(begin + 2..count)
                };
                client.get(&first[begin..until.max(cut)], rng);
                if until > cut {
                    client.gap(second[0].0, GapReason::Rewound);
                }
                client.get(&second, rng);
            }
            Kind::Deleted => {
                client.get(&first[begin..rng.random_range(begin + 2..count)], rng);
                client.gap(second[0].0, GapReason::Deleted);
                client.get(&second, rng);
            }
        }
        run.clients.push(client);
    }
    for (number, entry) in first.iter().chain(&second).enumerate() {
        let (id, payload) = entry;
        let there = entries.contains(entry);
        let mut add = |payload: &Bytes, keyed: bool, outcome| {
            let (room, payload) = (name.to_owned(), payload.clone());
            let key = keyed.then(|| format!("key {number}"));
            run.publishes.push(Publish {
                room,
                payload,
                key,
                outcome,
            });
        };
        if matches!(kind, Kind::Plain | Kind::Trimmed) && number >= first.len() {
            let outcome = if number % 2 == 0 {
                Outcome::Refused
            } else {
                Outcome::Unknown
            };
            add(payload, false, outcome);
            continue;
        }
        match rng.random_range(0..10) {
            0 if there => add(payload, false, Outcome::Unknown),
            1 => {
                add(payload, true, Outcome::Unknown);
                add(payload, true, Outcome::Refused);
                add(payload, true, Outcome::Stored(*id));
                add(payload, true, Outcome::Stored(*id));
            }
            _ => add(payload, false, Outcome::Stored(*id)),
        }
    }
    let trimmed = kind == Kind::Trimmed;
    run.rooms.insert(
        name.to_owned(),
        Room {
            entries,
            trimmed,
            lost,
        },
    );
}

/// Entries past an ID, several in one millisecond now and then.
fn stream(after: EntryId, count: usize, name: &str, rng: &mut StdRng) -> Vec<(EntryId, Bytes)> {
    let mut id = after;
    let mut next = |number| {
        let ms = rng.random_range(0..3);
        id = if ms == 0 {
            EntryId::new(id.ms, id.seq + 1)
        } else {
            EntryId::new(id.ms + ms, 0)
        };
        (id, Bytes::from(format!("{name} {number}")))
    };
    (0..count).map(&mut next).collect()
}

impl Client {
    /// Gets these, with a reconnect here and there, at least one before the last two.
    fn get(&mut self, entries: &[(EntryId, Bytes)], rng: &mut StdRng) {
        let sure = rng.random_range(0..entries.len().saturating_sub(2).max(1));
        for (index, (id, payload)) in entries.iter().enumerate() {
            if index == sure || rng.random_ratio(1, 20) {
                let last = self.last();
                // Whoever got nothing since a gap is told of it again.
                let gap = self
                    .events
                    .pop_if(|event| matches!(event, Event::Gap { .. }));
                self.events.extend(gap.clone());
                self.events.push(Event::Reconnected { from: last });
                self.events.push(Event::Joined { head: last });
                self.events.extend(gap);
            }
            self.events.push(Event::Entry {
                id: *id,
                payload: payload.clone(),
            });
        }
    }

    fn gap(&mut self, before: EntryId, reason: GapReason) {
        let after = self.last();
        self.events.push(Event::Gap {
            after,
            before,
            reason,
        });
    }

    /// What it resumes from: the last entry, or where it began.
    fn last(&self) -> EntryId {
        let last = self.events.iter().rev().find_map(|event| match event {
            Event::Entry { id, .. } | Event::Joined { head: id } => Some(*id),
            _ => None,
        });
        last.unwrap()
    }

    fn is_entry(&self, index: usize) -> bool {
        matches!(self.events.get(index), Some(Event::Entry { .. }))
    }

    /// Whether it resumed right after this event, and so from this very entry.
    fn resumes_after(&self, index: usize) -> bool {
        matches!(self.events.get(index + 1), Some(Event::Reconnected { .. }))
    }
}

/// A random event of a random client that fits.
fn pick(run: &Run, rng: &mut StdRng, fits: impl Fn(&Client, usize) -> bool) -> (usize, usize) {
    let mut all = Vec::new();
    for (number, client) in run.clients.iter().enumerate() {
        let events = (0..client.events.len()).filter(|index| fits(client, *index));
        all.extend(events.map(|index| (number, index)));
    }
    all[rng.random_range(0..all.len())]
}

/// Puts a fault into many runs; each time the checker must name it so.
#[track_caller]
fn caught(
    kinds: &[Kind],
    mutate: impl Fn(&mut Run, &mut StdRng),
    named: impl Fn(&Violation) -> bool,
) {
    for seed in 0..SEEDS {
        for &kind in kinds {
            let (mut run, mut rng) = clean(seed, kind);
            mutate(&mut run, &mut rng);
            let violations = check(&run);
            assert!(
                violations.iter().any(&named),
                "seed {seed} {kind:?}: {violations:?}"
            );
        }
    }
}

const WHOLE: [Kind; 2] = [Kind::Plain, Kind::Trimmed];

#[test]
fn clean_runs_pass() {
    for seed in 0..2 * SEEDS {
        for kind in KINDS {
            let (run, _) = clean(seed, kind);
            let reconnects = run.clients.iter().flat_map(|client| &client.events);
            assert!(
                reconnects
                    .clone()
                    .any(|event| matches!(event, Event::Reconnected { .. }))
            );
            assert_clean(&run, seed);
        }
    }
    assert_clean(&Run::default(), 0);
}

#[test]
fn drop_one() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let fits = |client: &Client, at| client.is_entry(at) && !client.resumes_after(at);
        let (client, at) = pick(run, rng, fits);
        run.clients[client].events.remove(at);
    };
    caught(&WHOLE, mutate, |violation| {
        matches!(
            violation,
            Violation::Missing { .. } | Violation::Incomplete { .. }
        )
    });
}

#[test]
fn double_one() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (client, at) = pick(run, rng, Client::is_entry);
        let events = &mut run.clients[client].events;
        let later = rng.random_range(at + 1..=events.len());
        events.insert(later, events[at].clone());
    };
    caught(&KINDS, mutate, |violation| {
        matches!(violation, Violation::Duplicate { .. })
    });
}

#[test]
fn swap_two() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let fits = |client: &Client, at| client.is_entry(at) && client.is_entry(at + 1);
        let (client, at) = pick(run, rng, fits);
        run.clients[client].events.swap(at, at + 1);
    };
    caught(&KINDS, mutate, |violation| {
        matches!(violation, Violation::OutOfOrder { .. })
    });
}

#[test]
fn swap_two_that_others_have() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        // By the tenth entry all are there.
        let late = |client: &Client, at: usize| match client.events.get(at) {
            Some(Event::Entry { id, .. }) => *id > run.rooms[&client.room].entries[10].0,
            _ => false,
        };
        let (client, at) = pick(run, rng, |client, at| {
            late(client, at) && late(client, at + 1)
        });
        run.clients[client].events.swap(at, at + 1);
    };
    caught(&[Kind::Plain], mutate, |violation| {
        matches!(violation, Violation::Disagreement { .. })
    });
}

#[test]
fn skip_one_on_replay() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let fits = |client: &Client, at: usize| {
            let resumed = at >= 2 && matches!(client.events[at - 2], Event::Reconnected { .. });
            resumed && client.is_entry(at) && !client.resumes_after(at)
        };
        let (client, at) = pick(run, rng, fits);
        run.clients[client].events.remove(at);
    };
    caught(&WHOLE, mutate, |violation| {
        matches!(
            violation,
            Violation::Missing { .. } | Violation::Incomplete { .. }
        )
    });
}

#[test]
fn stop_early() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (client, at) = pick(run, rng, Client::is_entry);
        run.clients[client].events.truncate(at);
    };
    caught(&KINDS, mutate, |violation| {
        matches!(violation, Violation::Incomplete { .. })
    });
}

#[test]
fn wrong_payload() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (client, at) = pick(run, rng, Client::is_entry);
        if let Event::Entry { payload, .. } = &mut run.clients[client].events[at] {
            *payload = Bytes::from_static(b"something else");
        }
    };
    caught(&[Kind::Plain], mutate, |violation| {
        matches!(violation, Violation::WrongPayload { .. })
    });
}

#[test]
fn invent_one() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (client, at) = pick(run, rng, |client, at| {
            client.is_entry(at) && !client.resumes_after(at)
        });
        let events = &mut run.clients[client].events;
        let Event::Entry { id, .. } = events[at] else {
            unreachable!()
        };
        let id = EntryId::new(id.ms, id.seq + 1_000_000);
        events.insert(
            at + 1,
            Event::Entry {
                id,
                payload: Bytes::from_static(b"new"),
            },
        );
    };
    caught(&[Kind::Plain], mutate, |violation| {
        matches!(violation, Violation::Invented { .. })
    });
}

#[test]
fn leave_a_gap_untold() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (client, at) = pick(run, rng, |client, at| {
            matches!(client.events[at], Event::Gap { .. })
        });
        let told = run.clients[client].events[at].clone();
        run.clients[client].events.retain(|event| *event != told);
    };
    caught(&[Kind::Trimmed], mutate, |violation| {
        matches!(violation, Violation::Missing { .. })
    });
    // A new life that gives the same IDs out again looks like doubles.
    caught(&[Kind::Rewound, Kind::Deleted], mutate, |violation| {
        matches!(
            violation,
            Violation::SilentReset { .. }
                | Violation::OutOfOrder { .. }
                | Violation::Invented { .. }
                | Violation::Duplicate { .. }
        )
    });
}

#[test]
fn tell_a_gap_that_is_none() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (client, at) = pick(run, rng, |client, at| {
            client.is_entry(at) && client.is_entry(at + 2)
        });
        let events = &mut run.clients[client].events;
        let (Event::Entry { id: after, .. }, Event::Entry { id: before, .. }) =
            (events[at].clone(), events[at + 2].clone())
        else {
            unreachable!()
        };
        events[at + 1] = Event::Gap {
            after,
            before,
            reason: GapReason::Trimmed,
        };
    };
    caught(&[Kind::Plain], mutate, |violation| {
        matches!(violation, Violation::FalseGap { .. })
    });
}

/// A publish of one room that was acknowledged, and is there.
fn pick_stored(run: &Run, rng: &mut StdRng) -> (usize, EntryId) {
    let all: Vec<_> = (run.publishes.iter().enumerate())
        .filter_map(|(index, publish)| match publish.outcome {
            Outcome::Stored(id) if publish.key.is_none() => Some((index, id)),
            _ => None,
        })
        .filter(|(index, id)| {
            let publish = &run.publishes[*index];
            let entry = (*id, publish.payload.clone());
            run.rooms[&publish.room].entries.contains(&entry)
        })
        .collect();
    all[rng.random_range(0..all.len())]
}

#[test]
fn acknowledge_before_the_append() {
    // The acknowledged entry never came to be, for the clients neither.
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (index, gone) = pick_stored(run, rng);
        let room = run.publishes[index].room.clone();
        run.rooms
            .get_mut(&room)
            .unwrap()
            .entries
            .retain(|(id, _)| *id != gone);
        for client in run.clients.iter_mut().filter(|client| client.room == room) {
            client
                .events
                .retain(|event| !matches!(event, Event::Entry { id, .. } if *id == gone));
        }
    };
    caught(&[Kind::Plain], mutate, |violation| {
        matches!(violation, Violation::AcknowledgedLost { .. })
    });
}

#[test]
fn acknowledge_under_a_wrong_id() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (index, id) = pick_stored(run, rng);
        let entries = &run.rooms[&run.publishes[index].room].entries;
        let other = entries
            .iter()
            .rev()
            .find(|(other, _)| *other != id)
            .unwrap();
        run.publishes[index].outcome = Outcome::Stored(other.0);
    };
    caught(&WHOLE, mutate, |violation| {
        matches!(violation, Violation::AcknowledgedOther { .. })
    });
    caught(&WHOLE, mutate, |violation| {
        matches!(violation, Violation::StoredOnce { .. })
    });
}

#[test]
fn store_one_that_was_refused() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (index, _) = pick_stored(run, rng);
        run.publishes[index].outcome = Outcome::Refused;
    };
    caught(&KINDS, mutate, |violation| {
        matches!(violation, Violation::StoredOnce { .. })
    });
}

#[test]
fn store_one_twice() {
    let mutate = |unknown: bool| {
        move |run: &mut Run, rng: &mut StdRng| {
            let (index, _) = pick_stored(run, rng);
            let publish = &mut run.publishes[index];
            if unknown {
                publish.outcome = Outcome::Unknown;
            }
            let entries = &mut run.rooms.get_mut(&publish.room).unwrap().entries;
            let last = entries.last().unwrap().0;
            entries.push((EntryId::new(last.ms + 1, 0), publish.payload.clone()));
        }
    };
    let named = |violation: &Violation| matches!(violation, Violation::StoredOnce { .. });
    caught(&KINDS, mutate(false), named);
    caught(&KINDS, mutate(true), named);
}

#[test]
fn answer_a_key_twice() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let (index, id) = pick_stored(run, rng);
        let mut publish = run.publishes[index].clone();
        publish.key = Some("again".into());
        run.publishes[index].key.clone_from(&publish.key);
        publish.outcome = Outcome::Stored(EntryId::new(id.ms, id.seq + 1_000_000));
        run.publishes.push(publish);
    };
    caught(&KINDS, mutate, |violation| {
        matches!(violation, Violation::KeyAnsweredTwice { .. })
    });
}

#[test]
fn resume_from_ahead_is_the_tests_fault() {
    let mutate = |run: &mut Run, rng: &mut StdRng| {
        let is_reconnect =
            |client: &Client, at| matches!(client.events[at], Event::Reconnected { .. });
        let (client, at) = pick(run, rng, is_reconnect);
        run.clients[client].events[at] = Event::Reconnected { from: EntryId::MAX };
    };
    caught(&KINDS, mutate, |violation| {
        matches!(violation, Violation::ResumedAhead { .. })
    });
}
