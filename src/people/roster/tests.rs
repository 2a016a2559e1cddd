//! The roster against a model: nodes that come, go, die, and lose messages.

use proptest::prelude::*;

use super::*;

fn member(devices: u32) -> Member {
    Member {
        devices,
        since: 7,
        name: None,
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
    assert!(!roster.apply(&one, delta(1, &[("ann", 1)], &[])));
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
fn a_gap_has_the_node_read_anew() {
    let node = NodeId::new("1");
    let mut roster = Roster::default();
    roster.apply(&node, delta(1, &[("ann", 1)], &[]));
    assert!(roster.apply(&node, delta(3, &[("cy", 1)], &[])));
    assert!(!roster.is_settled());
    assert!(!roster.apply(&node, delta(4, &[], &["bob"])));
    let read = vec![(Arc::from("bob"), member(1)), (Arc::from("cy"), member(1))];
    assert!(!roster.end_reading(&node, read, 4));
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
    assert!(roster.apply(&node, delta(2, &[("ann", 1)], &[])));
    // The third is lost.
    assert!(!roster.apply(&node, delta(4, &[], &["ann"])));
    assert!(!roster.apply(&node, delta(5, &[("ann", 1)], &[])));
    let read = || vec![(Arc::from("ann"), member(1))];
    assert!(roster.end_reading(&node, read(), 5));
    assert!(!roster.end_reading(&node, read(), 5));
    assert_eq!(moves(&mut roster), told(&["ann"], &[], 1));
}

/// What may happen to one of two nodes.
#[derive(Debug, Clone)]
enum Step {
    Set(usize, usize, u32),
    Remove(usize, usize),
    /// The next message of the node is lost.
    Lose(usize),
    /// What is being read is read.
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
    reading: bool,
}

proptest! {
    #[test]
    fn in_the_end_it_knows_who_is_here(steps in prop::collection::vec(step(), 0..80)) {
        let ids = [NodeId::new("0"), NodeId::new("1")];
        let mut nodes = [Truth::default(), Truth::default()];
        let mut roster = Roster::default();
        let mut seen: BTreeMap<Arc<str>, ()> = BTreeMap::new();
        let end = [0, 1].into_iter().flat_map(|node| {
            [Step::Set(node, 0, 1), Step::Set(node, 0, 1), Step::Read, Step::Read]
        });
        for step in steps.into_iter().chain(end).chain([Step::Read, Step::Look]) {
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
                // At the end two come: if the first is lost, the second shows it.
                let delta = Delta { seq: node.seq, set, removed };
                if !std::mem::take(&mut node.lose) {
                    node.reading |= roster.apply(&ids[at], delta);
                }
                continue;
            }
            match step {
                Step::Lose(at) => nodes[at].lose = true,
                Step::Read => {
                    for (at, node) in nodes.iter_mut().enumerate().filter(|(_, n)| n.reading) {
                        let members = node.members.iter().map(|(u, m)| (u.clone(), m.clone()));
                        node.reading = roster.end_reading(&ids[at], members.collect(), node.seq);
                    }
                }
                Step::Reload(at) => nodes[at].reading |= roster.begin_reading(&ids[at]),
                Step::Die(at) => {
                    roster.drop_node(&ids[at]);
                    nodes[at] = Truth::default();
                }
                Step::Look => {
                    let moves = roster.take_moves();
                    for present in moves.joined {
                        prop_assert!(seen.insert(present.user, ()).is_none(), "joined twice");
                    }
                    for user in moves.left {
                        prop_assert!(seen.remove(&user).is_some(), "left twice");
                    }
                    prop_assert_eq!(moves.count, seen.len());
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
