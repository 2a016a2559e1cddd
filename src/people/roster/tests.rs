//! The roster against a model: nodes that come, go, die, and lose messages.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// Who has more than one device is a moderator, who has three a host.
fn member(devices: u32) -> Member {
    Member {
        devices,
        since: 7,
        name: None,
        role: match devices {
            0 | 1 => None,
            2 => Some(Role::Moderator),
            _ => Some(Role::Host),
        },
    }
}

fn delta(seq: u64, set: &[(&str, u32)], removed: &[&str]) -> Delta {
    Delta {
        seq,
        set: set
            .iter()
            .map(|(user, devices)| (Arc::from(*user), member(*devices)))
            .collect(),
        removed: removed.iter().map(|user| Arc::from(*user)).collect(),
    }
}

fn moves(roster: &mut Roster) -> (Vec<String>, Vec<String>, usize) {
    let moves = roster.take_moves();
    let joined = moves.joined.iter().map(|present| present.user.to_string());
    let left = moves.left.iter().map(|user| user.to_string());
    (joined.collect(), left.collect(), moves.count)
}

fn told(joined: &[&str], left: &[&str], count: usize) -> (Vec<String>, Vec<String>, usize) {
    let owned = |users: &[&str]| users.iter().map(|user| (*user).to_owned()).collect();
    (owned(joined), owned(left), count)
}

#[test]
fn a_user_with_devices_on_two_nodes_joins_once_and_leaves_once() {
    let (one, two) = (NodeId::new("1"), NodeId::new("2"));
    let mut roster = Roster::default();
    assert!(roster.apply(&one, delta(1, &[("ann", 1)], &[])).is_none());
    assert_eq!(moves(&mut roster), told(&["ann"], &[], 1));
    roster.apply(&two, delta(1, &[("ann", 2), ("bob", 1)], &[]));
    assert_eq!(moves(&mut roster), told(&["bob"], &[], 2));
    assert_eq!(roster.present(1)[0].devices, 3);
    roster.apply(&one, delta(2, &[], &["ann"]));
    assert_eq!(moves(&mut roster), told(&[], &[], 2));
    roster.drop_node(&two);
    assert_eq!(moves(&mut roster), told(&[], &["ann", "bob"], 0));
    // Gone and back between two looks is nothing to tell.
    roster.apply(&one, delta(3, &[("cy", 1)], &[]));
    roster.apply(&one, delta(4, &[], &["cy"]));
    assert_eq!(moves(&mut roster), told(&[], &[], 0));
}

#[test]
fn the_highest_role_over_all_nodes_counts() {
    let (one, two) = (NodeId::new("1"), NodeId::new("2"));
    let mut roster = Roster::default();
    let check = |roster: &mut Roster, role: Option<Role>, is_told: bool| {
        assert_eq!(roster.present(1)[0].role, role);
        let moves = roster.take_moves();
        assert!(moves.joined.is_empty() && moves.left.is_empty());
        assert_eq!((moves.roles, moves.is_empty()), (is_told, !is_told));
    };
    roster.apply(&one, delta(1, &[("ann", 1)], &[]));
    assert_eq!(moves(&mut roster), told(&["ann"], &[], 1));
    roster.apply(&two, delta(1, &[("ann", 2)], &[]));
    check(&mut roster, Some(Role::Moderator), true);
    roster.apply(&one, delta(2, &[("ann", 3)], &[]));
    check(&mut roster, Some(Role::Host), true);
    roster.apply(&two, delta(2, &[], &["ann"]));
    check(&mut roster, Some(Role::Host), false);
    // There and back between two looks.
    roster.apply(&one, delta(3, &[("ann", 1)], &[]));
    roster.apply(&one, delta(4, &[("ann", 3)], &[]));
    check(&mut roster, Some(Role::Host), false);
    roster.apply(&two, delta(3, &[("ann", 2)], &[]));
    roster.drop_node(&one);
    check(&mut roster, Some(Role::Moderator), true);
}

#[test]
fn a_gap_has_the_node_read_anew() {
    let node = NodeId::new("1");
    let mut roster = Roster::default();
    roster.apply(&node, delta(1, &[("ann", 1)], &[]));
    let ticket = roster.apply(&node, delta(3, &[("cy", 1)], &[])).unwrap();
    assert!(!roster.is_settled());
    assert!(roster.apply(&node, delta(4, &[], &["bob"])).is_none());
    let read = vec![(Arc::from("bob"), member(1)), (Arc::from("cy"), member(1))];
    assert!(roster.end_reading(&node, &ticket, read, 4).is_none());
    assert!(roster.is_settled());
    assert_eq!(moves(&mut roster), told(&["cy"], &[], 1));
    // Begun anew, by its first number.
    roster.apply(&node, delta(1, &[("dan", 1)], &[]));
    assert_eq!(moves(&mut roster), told(&["dan"], &["cy"], 1));
}

#[test]
fn all_behind_a_gap_counts() {
    let node = NodeId::new("1");
    let mut roster = Roster::default();
    let first = roster.apply(&node, delta(2, &[("ann", 1)], &[])).unwrap();
    // The third is lost.
    assert!(roster.apply(&node, delta(4, &[], &["ann"])).is_none());
    assert!(roster.apply(&node, delta(5, &[("ann", 1)], &[])).is_none());
    let read = || vec![(Arc::from("ann"), member(1))];
    let second = roster.end_reading(&node, &first, read(), 5).unwrap();
    assert!(roster.end_reading(&node, &second, read(), 5).is_none());
    assert_eq!(moves(&mut roster), told(&["ann"], &[], 1));
}

#[test]
fn only_the_last_reading_counts() {
    let node = NodeId::new("1");
    let mut roster = Roster::default();
    let people = |user: &str| vec![(Arc::from(user), member(1))];
    // What the first reading finds is from before the connection broke.
    let first = roster.begin_reading(&node);
    let second = roster.begin_reading(&node);
    assert!(
        roster
            .end_reading(&node, &first, people("ann"), 1)
            .is_none()
    );
    assert!(!roster.is_settled());
    roster.end_reading(&node, &second, people("bob"), 2);
    assert_eq!(moves(&mut roster), told(&["bob"], &[], 1));
    // A late answer takes nothing away, and the node is known to hold whom it held.
    roster.end_reading(&node, &first, people("ann"), 1);
    roster.drop_node(&node);
    assert_eq!(moves(&mut roster), told(&[], &["bob"], 0));
    // Nor does it count for a node that died meanwhile, and is heard once more.
    let third = roster.begin_reading(&node);
    roster.drop_node(&node);
    let fourth = roster.apply(&node, delta(5, &[("cy", 1)], &[])).unwrap();
    roster.end_reading(&node, &third, people("bob"), 4);
    roster.end_reading(&node, &fourth, Vec::new(), 0);
    assert_eq!(moves(&mut roster), told(&["cy"], &[], 1));
    roster.drop_node(&node);
    assert_eq!(roster.count(), 0);
}

/// What may happen to one of two nodes.
#[derive(Debug, Clone)]
enum Step {
    Set(usize, usize, u32),
    Remove(usize, usize),
    /// The next message of the node is lost.
    Lose(usize),
    /// What is being read is found.
    Find,
    /// And arrives: the oldest.
    Read,
    /// Everything is read anew, as after a reconnect.
    Reload(usize),
    Die(usize),
    Look,
}

fn step() -> impl Strategy<Value = Step> {
    let (node, user) = (0..2usize, 0..6usize);
    prop_oneof![
        6 => (node.clone(), user.clone(), 1..4u32).prop_map(|(n, u, d)| Step::Set(n, u, d)),
        5 => (node.clone(), user).prop_map(|(n, u)| Step::Remove(n, u)),
        1 => node.clone().prop_map(Step::Lose),
        3 => Just(Step::Find),
        3 => Just(Step::Read),
        1 => node.clone().prop_map(Step::Reload),
        1 => node.prop_map(Step::Die),
        2 => Just(Step::Look),
    ]
}

/// A node as it is.
#[derive(Default)]
struct Truth {
    members: BTreeMap<Arc<str>, Member>,
    seq: u64,
    lose: bool,
    /// Readings on their way, with what they found.
    reading: VecDeque<(Ticket, Option<Found>)>,
}

type Found = (Vec<(Arc<str>, Member)>, u64);

proptest! {
    #[test]
    fn in_the_end_it_knows_who_is_here(steps in prop::collection::vec(step(), 0..80)) {
        let ids = [NodeId::new("0"), NodeId::new("1")];
        let mut nodes = [Truth::default(), Truth::default()];
        let mut roster = Roster::default();
        let mut seen: BTreeMap<Arc<str>, Option<Role>> = BTreeMap::new();
        let end = [0, 1].into_iter().flat_map(|node| {
            [Step::Reload(node), Step::Find]
        });
        let arrivals = std::iter::repeat_n(Step::Read, 100);
        for step in steps.into_iter().chain(end).chain(arrivals).chain([Step::Look]) {
            let changed = match &step {
                Step::Set(node, user, devices) => {
                    let user: Arc<str> = format!("u{user}").into();
                    nodes[*node].members.insert(user.clone(), member(*devices));
                    Some((*node, vec![(user, member(*devices))], vec![]))
                }
                Step::Remove(node, user) => {
                    let user: Arc<str> = format!("u{user}").into();
                    nodes[*node].members.remove(&user);
                    Some((*node, vec![], vec![user]))
                }
                _ => None,
            };
            if let Some((at, set, removed)) = changed {
                let node = &mut nodes[at];
                node.seq += 1;
                // Whatever is lost, everything is read anew some time later.
                let delta = Delta { seq: node.seq, set, removed };
                if !std::mem::take(&mut node.lose) {
                    let ticket = roster.apply(&ids[at], delta);
                    node.reading.extend(ticket.map(|ticket| (ticket, None)));
                }
                continue;
            }
            match step {
                Step::Lose(at) => nodes[at].lose = true,
                Step::Find => {
                    for node in &mut nodes {
                        let members = node.members.iter().map(|(u, m)| (u.clone(), m.clone()));
                        let found = (members.collect::<Vec<_>>(), node.seq);
                        for (_, nothing) in node.reading.iter_mut().filter(|(_, f)| f.is_none()) {
                            *nothing = Some(found.clone());
                        }
                    }
                }
                Step::Read => {
                    for (at, node) in nodes.iter_mut().enumerate() {
                        let found = node.reading.iter().position(|(_, found)| found.is_some());
                        if let Some((ticket, Some((members, seq)))) =
                            found.and_then(|found| node.reading.remove(found))
                        {
                            let again = roster.end_reading(&ids[at], &ticket, members, seq);
                            node.reading.extend(again.map(|ticket| (ticket, None)));
                        }
                    }
                }
                Step::Reload(at) => {
                    let ticket = roster.begin_reading(&ids[at]);
                    nodes[at].reading.push_back((ticket, None));
                }
                Step::Die(at) => {
                    roster.drop_node(&ids[at]);
                    // What was found of it is on its way still.
                    let reading = std::mem::take(&mut nodes[at].reading);
                    nodes[at] = Truth { reading, ..Truth::default() };
                }
                Step::Look => {
                    let moves = roster.take_moves();
                    for present in moves.joined {
                        prop_assert!(seen.insert(present.user, present.role).is_none(), "joined twice");
                    }
                    for user in moves.left {
                        prop_assert!(seen.remove(&user).is_some(), "left twice");
                    }
                    prop_assert_eq!(moves.count, seen.len());
                    let present = roster.present(usize::MAX).into_iter();
                    let now: BTreeMap<_, _> = present.map(|p| (p.user, p.role)).collect();
                    prop_assert_eq!(moves.roles, now != seen, "other roles");
                    seen = now;
                }
                Step::Set(..) | Step::Remove(..) => {}
            }
        }
        prop_assert!(roster.is_settled());
        let mut want: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for (user, member) in nodes.iter().flat_map(|node| &node.members) {
            *want.entry(user.clone()).or_default() += member.devices;
        }
        let got: BTreeMap<Arc<str>, u32> = roster
            .present(usize::MAX)
            .into_iter()
            .map(|present| (present.user, present.devices))
            .collect();
        prop_assert_eq!(got, want);
    }
}
