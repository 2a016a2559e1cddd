//! What every board does alike. A new store runs this suite with one function that makes it; rooms,
//! users and nodes are named after the case, so one server can serve all cases at once.

mod redis;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tailcast::people::board::{Board, Change, Ear, EarGuard, NodeId, RoomChange};
use tailcast::relay::entry::{EntryId, Fields, RoomName};
use tailcast::relay::log::{Append, AppendError, Limit, Log};
use tailcast::store::memory::{self, MemoryLog};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::harness::{PATIENCE, room, truth, until};

/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(60);

/// A lease that is waited out.
const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn memory() {
    let log = Arc::new(MemoryLog::new(memory::Settings::default()));
    run(|| log.clone()).await;
}

/// The suite. `make` gives another node's view of one and the same board.
pub(crate) async fn run<L: Log + Board>(make: impl Fn() -> Arc<L>) {
    whispers(make(), make(), make()).await;
    ears(make(), make()).await;
    leases(make(), make()).await;
    records(make(), make()).await;
    many_members(make()).await;
    burials(make(), make()).await;
    notices(make(), make()).await;
    notices_of_many(make()).await;
    churn(make(), make()).await;
    acts(make(), make()).await;
    counters(make(), make()).await;
    secrets(make(), make()).await;
    pages_of_rooms(make()).await;
    limits(make(), make()).await;
    limits_and_keys(make()).await;
}

/// An ear that keeps what it hears.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Vec<Option<Bytes>>>);

impl Notes {
    pub(crate) fn listen(board: &dyn Board, room: &RoomName) -> (Arc<Self>, EarGuard) {
        let notes = Arc::new(Notes::default());
        let guard = board.listen(room, notes.clone());
        (notes, guard)
    }

    /// How often it was told that it listens.
    pub(crate) fn listening(&self) -> usize {
        let notes = self.0.lock().unwrap();
        notes.iter().filter(|note| note.is_none()).count()
    }

    pub(crate) fn messages(&self) -> Vec<Bytes> {
        self.0.lock().unwrap().iter().flatten().cloned().collect()
    }
}

impl Ear for Notes {
    fn on_listening(&self) {
        self.0.lock().unwrap().push(None);
    }

    fn on_message(&self, message: Bytes) {
        self.0.lock().unwrap().push(Some(message));
    }
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn numbered(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(format!("{n}"))).collect()
}

/// A room's change: who is set, who goes, and how many are there then.
pub(crate) fn change(room: &RoomName, set: &[&str], removed: &[&str], size: u64) -> Change {
    let record = |user: &&str| (user.to_string(), Bytes::from(format!("record of {user}")));
    Change::Room(RoomChange {
        room: room.clone(),
        set: set.iter().map(record).collect(),
        removed: removed.iter().map(|user| user.to_string()).collect(),
        size,
        message: Bytes::from(format!("+{} -{}", set.join(","), removed.join(","))),
    })
}

async fn beat<B: Board + ?Sized>(board: &B, node: &NodeId, lease: Duration) -> bool {
    board.beat(node, text("up"), lease).await.unwrap().kept
}

pub(crate) async fn users<B: Board + ?Sized>(
    board: &B,
    room: &RoomName,
    node: &NodeId,
) -> Vec<String> {
    let members = board.members(room, node).await.unwrap();
    let mut users: Vec<_> = members.into_iter().map(|(user, _)| user).collect();
    users.sort();
    users
}

/// Joins and leaves that the room's stream has, as `+alice`, `-alice`.
pub(crate) async fn noticed<L: Log + ?Sized>(log: &L, room: &RoomName) -> Vec<String> {
    let all = tailcast::relay::log::Range {
        from: std::ops::Bound::Unbounded,
        to: std::ops::Bound::Unbounded,
        limit: 100_000,
        newest_first: false,
    };
    let word = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let entries = log.range(room, all).await.unwrap();
    entries
        .iter()
        .map(|entry| {
            let names: Vec<_> = entry.fields.iter().map(|(name, _)| word(name)).collect();
            assert_eq!(names, ["event", "user"]);
            let sign = match word(&entry.fields[0].1).as_str() {
                "join" => '+',
                "leave" => '-',
                other => panic!("{other}"),
            };
            format!("{sign}{}", word(&entry.fields[1].1))
        })
        .collect()
}

async fn whispers<B: Board>(one: Arc<B>, two: Arc<B>, three: Arc<B>) {
    let (here, there) = (room("board whispers é*"), room("board whispers"));
    let ears: Vec<_> = [&one, &two, &three]
        .map(|board| Notes::listen(&**board, &here))
        .into();
    until("all listen", || {
        ears.iter().all(|(ear, _)| ear.listening() == 1)
    })
    .await;
    for message in numbered(2000) {
        one.whisper(&here, message);
        one.whisper(&there, text("elsewhere"));
    }
    for (ear, _) in &ears {
        until("all came", || ear.messages().len() >= 2000).await;
        assert!(ear.messages() == numbered(2000), "in order");
    }
    let every: Bytes = (0..=255).collect();
    two.whisper(&here, every.clone());
    two.whisper(&here, Bytes::new());
    let last = || ears.iter().all(|(ear, _)| ear.messages().len() == 2002);
    until("any bytes came", last).await;
    assert_eq!(ears[0].0.messages()[2000..], [every, Bytes::new()]);
}

async fn ears<B: Board>(board: Arc<B>, other: Arc<B>) {
    let here = room("board ears");
    let (one, one_guard) = Notes::listen(&*board, &here);
    until("it listens", || one.listening() == 1).await;
    let (two, _two) = Notes::listen(&*board, &here);
    until("the second listens", || two.listening() == 1).await;
    other.whisper(&here, text("a"));
    let both = || one.messages() == ["a"] && two.messages() == ["a"];
    until("both hear", both).await;
    drop(one_guard);
    until("the ear is let go", || Arc::strong_count(&one) == 1).await;
    other.whisper(&here, text("b"));
    until("the one left hears", || two.messages() == ["a", "b"]).await;
    assert_eq!(one.messages(), ["a"]);
    // Left and listened to again, many times over.
    for round in 0..50 {
        let (ear, _guard) = Notes::listen(&*other, &here);
        if round % 2 == 0 {
            until("it listens again", || ear.listening() > 0).await;
        }
    }
    let (ear, _guard) = Notes::listen(&*other, &here);
    until("it listens again", || ear.listening() > 0).await;
    // What it listened to may have been the end of an earlier round, and is told anew then.
    let heard = || {
        board.whisper(&here, text("c"));
        ear.messages().contains(&text("c"))
    };
    until("it hears", heard).await;
}

async fn leases<B: Board>(board: Arc<B>, other: Arc<B>) {
    let [a, b] = ["lease a", "lease b"].map(NodeId::new);
    assert!(!beat(&*board, &a, LONG).await, "it's the first one");
    assert!(beat(&*board, &a, LONG).await);
    let seen = other.beat(&b, text("b says"), SHORT).await.unwrap();
    assert!(!seen.kept);
    assert!(seen.living.contains(&(a.clone(), text("up"))));
    assert!(seen.living.contains(&(b.clone(), text("b says"))));
    assert!(!seen.dead.contains(&a) && !seen.dead.contains(&b));
    // It's too late for b.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = board.beat(&a, text("new"), LONG).await.unwrap();
        assert!(seen.kept && seen.living.contains(&(a.clone(), text("new"))));
        if seen.dead.contains(&b) {
            break;
        }
        assert!(Instant::now() < deadline, "the lease expires");
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!beat(&*other, &b, LONG).await, "it was lost");
    assert!(beat(&*other, &b, LONG).await);
    other.retire(&b).await.unwrap();
    let seen = board.beat(&a, text("up"), LONG).await.unwrap();
    assert!(seen.dead.contains(&b));
    assert!(!beat(&*other, &b, LONG).await);
    for (board, node) in [(&board, &a), (&other, &b)] {
        board.retire(node).await.unwrap();
        assert!(board.bury(node, false).await.unwrap());
    }
    let seen = board.beat(&a, text("up"), LONG).await.unwrap();
    assert!(!seen.kept && !seen.dead.contains(&b));
}

async fn records<B: Board>(board: Arc<B>, other: Arc<B>) {
    let [a, b] = ["records a", "records b"].map(NodeId::new);
    let (one, two) = (room("board records"), room("board records 2"));
    let (ear, _guard) = Notes::listen(&*other, &one);
    until("it listens", || ear.listening() == 1).await;
    let record = |user: &str, record: Option<&str>| Change::User(user.to_owned(), record.map(text));
    let changes = vec![
        record("ann", Some("1")),
        record("bob", Some("2")),
        change(&one, &["ann", "bob"], &[], 2),
        record("ann", Some("3")),
        record("bob", None),
        change(&two, &["ann"], &[], 1),
        change(&one, &[], &["bob"], 1),
    ];
    board.write(&a, changes, false).await.unwrap();
    let changes = vec![change(&one, &["cy"], &[], 1), record("ann", Some("b's"))];
    other.write(&b, changes, false).await.unwrap();
    assert_eq!(users(&*other, &one, &a).await, ["ann"]);
    assert_eq!(users(&*other, &one, &b).await, ["cy"]);
    let members = board.members(&one, &b).await.unwrap();
    assert_eq!(members, [("cy".to_owned(), text("record of cy"))]);
    let nodes = [a.clone(), NodeId::new("nobody"), b.clone()];
    let want = [Some(text("3")), None, Some(text("b's"))];
    assert_eq!(board.user("ann", &nodes).await.unwrap(), want);
    assert_eq!(board.user("bob", &nodes).await.unwrap(), [None, None, None]);
    let rooms = [two.clone(), room("board no records"), one.clone()];
    let want = [[1, 0, 0], [0, 0, 0], [1, 0, 1]].map(Vec::from);
    assert_eq!(other.sizes(&rooms, &nodes).await.unwrap(), want);
    assert_eq!(other.sizes(&[], &nodes).await.unwrap().len(), 0);
    let none = other.sizes(&rooms, &[]).await.unwrap();
    assert_eq!(none, vec![Vec::<u64>::new(); 3]);
    until("all is told", || ear.messages().len() == 3).await;
    assert_eq!(ear.messages(), ["+ann,bob -", "+ -bob", "+cy -"]);
    let changes = vec![change(&two, &[], &["ann"], 0)];
    board.write(&a, changes, false).await.unwrap();
    assert!(users(&*board, &two, &a).await.is_empty());
    let want = [vec![0, 0, 0]];
    assert_eq!(other.sizes(&rooms[..1], &nodes).await.unwrap(), want);
    board.write(&a, Vec::new(), true).await.unwrap();
    // It has written, and has no lease.
    let seen = board.beat(&b, text("up"), LONG).await.unwrap();
    assert!(seen.dead.contains(&a));
    assert!(other.bury(&a, false).await.unwrap());
    assert_eq!(board.user("ann", &nodes).await.unwrap()[0], None);
}

async fn many_members<B: Board>(board: Arc<B>) {
    let (node, here) = (NodeId::new("many"), room("board many"));
    let names: Vec<String> = (0..5000)
        .map(|number| format!("user {number:04}"))
        .collect();
    let some: Vec<&str> = names.iter().map(String::as_str).collect();
    let (ear, _guard) = Notes::listen(&*board, &here);
    until("it listens", || ear.listening() == 1).await;
    let all = change(&here, &some, &[], 5000);
    board.write(&node, vec![all], false).await.unwrap();
    assert!(users(&*board, &here, &node).await == names);
    let gone = change(&here, &[], &some[..2500], 2500);
    board.write(&node, vec![gone], false).await.unwrap();
    assert!(users(&*board, &here, &node).await == names[2500..]);
    until("each was told once", || ear.messages().len() == 2).await;
    assert!(board.bury(&node, false).await.unwrap());
    assert!(users(&*board, &here, &node).await.is_empty());
}

async fn burials<B: Board>(board: Arc<B>, other: Arc<B>) {
    let node = NodeId::new("buried");
    let rooms: Vec<_> = (0..700)
        .map(|n| room(&format!("board burials {n}")))
        .collect();
    beat(&*board, &node, LONG).await;
    let mut changes: Vec<_> = rooms
        .iter()
        .map(|room| change(room, &["u"], &[], 1))
        .collect();
    changes.push(Change::User("u".to_owned(), Some(text("here"))));
    board.write(&node, changes, false).await.unwrap();
    for notices in [false, true] {
        assert!(!other.bury(&node, notices).await.unwrap(), "it lives");
    }
    assert_eq!(users(&*other, &rooms[0], &node).await, ["u"]);
    board.retire(&node).await.unwrap();
    assert!(other.bury(&node, false).await.unwrap());
    let nodes = [node.clone()];
    let sizes = other.sizes(&rooms, &nodes).await.unwrap();
    assert!(sizes.iter().all(|sizes| sizes == &[0]));
    for room in &rooms {
        assert!(users(&*other, room, &node).await.is_empty());
    }
    assert_eq!(other.user("u", &nodes).await.unwrap(), [None]);
    // Nothing is there any more, which is as good.
    assert!(other.bury(&node, true).await.unwrap());
    let seen = other
        .beat(&NodeId::new("mourner"), text("up"), LONG)
        .await
        .unwrap();
    assert!(!seen.dead.contains(&node));
}

async fn notices<L: Log + Board>(one: Arc<L>, two: Arc<L>) {
    let here = room("board notices");
    let [a, b] = ["notices a", "notices b"].map(NodeId::new);
    beat(&*one, &a, LONG).await;
    beat(&*two, &b, LONG).await;
    let (ear, _guard) = Notes::listen(&*one, &here);
    until("it listens", || ear.listening() == 1).await;
    let write = |board: &Arc<L>, node: &NodeId, set: &[&str], removed: &[&str], size| {
        board.write(node, vec![change(&here, set, removed, size)], true)
    };
    write(&one, &a, &["ann", "bob"], &[], 2).await.unwrap();
    write(&two, &b, &["ann", "cy"], &[], 2).await.unwrap();
    assert_eq!(noticed(&*one, &here).await, ["+ann", "+bob", "+cy"]);
    // Told again, as after an answer that was lost; and a record that changed.
    write(&one, &a, &["ann", "bob"], &[], 2).await.unwrap();
    write(&one, &a, &[], &["dan"], 2).await.unwrap();
    write(&one, &a, &[], &["ann"], 1).await.unwrap();
    assert_eq!(noticed(&*one, &here).await.len(), 3, "ann is on b");
    write(&two, &b, &[], &["ann"], 1).await.unwrap();
    assert_eq!(noticed(&*one, &here).await[3..], ["-ann"]);
    until("messages came", || ear.messages().len() == 6).await;
    assert_eq!(ear.messages()[3..5], ["+ -dan", "+ -ann"]);
    // Both have bob when both die: he leaves with the second burial, and cy with it.
    write(&two, &b, &["bob"], &[], 2).await.unwrap();
    one.retire(&a).await.unwrap();
    two.retire(&b).await.unwrap();
    assert!(one.bury(&a, true).await.unwrap());
    assert_eq!(noticed(&*one, &here).await.len(), 4, "b is not buried yet");
    // Meanwhile cy comes to a node that lives.
    let c = NodeId::new("notices c");
    write(&one, &c, &["cy"], &[], 1).await.unwrap();
    assert!(one.bury(&b, true).await.unwrap());
    assert_eq!(noticed(&*one, &here).await[4..], ["-bob"]);
    assert_eq!(users(&*one, &here, &c).await, ["cy"]);
    write(&one, &c, &[], &["cy"], 0).await.unwrap();
    assert_eq!(noticed(&*one, &here).await[5..], ["-cy"]);
    assert_eq!(one.sizes(&[here], &[c]).await.unwrap(), [[0]]);
}

async fn notices_of_many<L: Log + Board>(board: Arc<L>) {
    let (node, here) = (NodeId::new("notices many"), room("board notices many"));
    let names: Vec<String> = (0..1000).map(|number| format!("{number:04}")).collect();
    let some: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = change(&here, &some, &[], 1000);
    board.write(&node, vec![all], true).await.unwrap();
    let want: Vec<_> = names.iter().map(|name| format!("+{name}")).collect();
    assert!(noticed(&*board, &here).await == want);
    assert!(board.bury(&node, true).await.unwrap());
    let mut left = noticed(&*board, &here).await.split_off(1000);
    left.sort();
    let want: Vec<_> = names.iter().map(|name| format!("-{name}")).collect();
    assert!(left == want);
}

/// Users move between nodes that die and are buried, in any order: each join has its leave.
async fn churn<L: Log + Board>(one: Arc<L>, two: Arc<L>) {
    let here = room("board churn");
    let nodes: Vec<_> = (0..4).map(|n| NodeId::new(&format!("churn {n}"))).collect();
    let mut sizes = [0_u64; 4];
    let mut log = Vec::new();
    for _ in 0..400 {
        let at = rand::random_range(0..nodes.len());
        let (board, node) = (if at < 2 { &one } else { &two }, &nodes[at]);
        let present = users(&**board, &here, node).await;
        let some = (0..8).filter(|_| rand::random_range(0..4) == 0);
        let some: Vec<String> = some.map(|n| format!("user {n}")).collect();
        let some: Vec<&str> = some.iter().map(String::as_str).collect();
        match rand::random_range(0..10) {
            0..5 => {
                let new = some
                    .iter()
                    .filter(|user| !present.iter().any(|p| p == *user));
                sizes[at] = present.len() as u64 + new.count() as u64;
                let changes = vec![change(&here, &some, &[], sizes[at])];
                board.write(node, changes, true).await.unwrap();
            }
            5..8 => {
                let gone = some
                    .iter()
                    .filter(|user| present.iter().any(|p| p == *user));
                sizes[at] = present.len() as u64 - gone.count() as u64;
                let changes = vec![change(&here, &[], &some, sizes[at])];
                board.write(node, changes, true).await.unwrap();
            }
            8 => drop(beat(&**board, node, LONG).await),
            _ => {
                board.retire(node).await.unwrap();
                if rand::random() {
                    assert!(two.bury(node, true).await.unwrap());
                    sizes[at] = 0;
                }
            }
        }
        log.push((at, some.join(",")));
        let got = one
            .sizes(std::slice::from_ref(&here), &nodes)
            .await
            .unwrap();
        assert_eq!(got, [sizes.to_vec()], "{log:?}");
    }
    for node in &nodes {
        one.retire(node).await.unwrap();
    }
    for node in &nodes {
        assert!(one.bury(node, true).await.unwrap());
    }
    let told = noticed(&*one, &here).await;
    for user in 0..8 {
        let user = format!("user {user}");
        let signs = told.iter().filter(|word| word[1..] == user);
        let signs: String = signs.map(|word| &word[..1]).collect();
        let joins = signs.len() / 2;
        assert!(joins > 0 && signs == "+-".repeat(joins), "{user}: {signs}");
    }
}

async fn acts<L: Log + Board>(one: Arc<L>, two: Arc<L>) {
    let here = room("board acts");
    assert!(two.rules(&here).await.unwrap().is_empty());
    let record = |act: &str| -> Fields {
        let fields = [("message", act), ("room", "board acts")];
        fields.map(|(name, value)| (text(name), text(value))).into()
    };
    let rule = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
    let rules = vec![
        rule("slow", Some("5")),
        rule("closed", Some("é \0")),
        rule("x", None),
    ];
    let first = one.act(&here, rules, record("close")).await.unwrap();
    let sorted = || async {
        let mut rules = two.rules(&here).await.unwrap();
        rules.sort();
        rules
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(sorted().await, [pair("closed", "é \0"), pair("slow", "5")]);
    let rules = vec![rule("slow", Some("7")), rule("closed", None)];
    let second = two.act(&here, rules, record("open")).await.unwrap();
    assert_eq!(sorted().await, [pair("slow", "7")]);
    let rooms = [room("board acts elsewhere"), here.clone()];
    let slow = two.rule(&rooms, "slow").await.unwrap();
    assert_eq!(slow, [None, Some("7".to_owned())]);
    assert!(two.rule(&[], "slow").await.unwrap().is_empty());
    let third = two.act(&here, Vec::new(), record("delete")).await.unwrap();
    let audit = truth(&*one, &RoomName::audit()).await;
    let want = [
        (first, text("close")),
        (second, text("open")),
        (third, text("delete")),
    ];
    assert_eq!(audit, want);
    // Both or neither: a record without fields can't be.
    let empty = one.act(&here, vec![rule("slow", Some("9"))], Box::default());
    assert!(empty.await.is_err());
    assert_eq!(sorted().await, [pair("slow", "7")]);
    assert_eq!(truth(&*one, &RoomName::audit()).await.len(), 3);
}

async fn counters<B: Board>(one: Arc<B>, two: Arc<B>) {
    let here = room("board counters");
    let add = |board: &Arc<B>, counts: &[(&str, u64)]| {
        let counts = counts
            .iter()
            .map(|(name, count)| (name.to_string(), *count));
        board.count(&here, counts.collect())
    };
    assert_eq!(
        add(&one, &[("heart", 2), ("fire", 1)]).await.unwrap(),
        [2, 1]
    );
    assert_eq!(
        add(&two, &[("fire", 5), ("heart", 0)]).await.unwrap(),
        [6, 2]
    );
    assert!(add(&two, &[]).await.unwrap().is_empty());
}

async fn secrets<B: Board>(one: Arc<B>, two: Arc<B>) {
    let kept = one.secret(Bytes::from_static(b"first")).await.unwrap();
    // Whoever else asks on that board gets the same.
    assert_eq!(
        two.secret(Bytes::from_static(b"second")).await,
        Ok(kept.clone())
    );
    assert_eq!(one.secret(Bytes::from_static(b"third")).await, Ok(kept));
}

async fn pages_of_rooms<L: Log + Board>(board: Arc<L>) {
    let mut want: Vec<_> = (0..300)
        .map(|n| room(&format!("board page {n:03}")))
        .collect();
    for (index, room) in want.iter().enumerate() {
        append(&*board, room, None, &[], index)
            .await
            .unwrap()
            .unwrap();
    }
    append(&*board, &room("@alice"), None, &[], 0)
        .await
        .unwrap()
        .unwrap();
    let mut found = Vec::new();
    let (mut cursor, mut pages) = (0, 0);
    loop {
        let (rooms, next) = board.rooms(cursor, 50).await.unwrap();
        assert!(rooms.len() <= 200, "about 50: {}", rooms.len());
        found.extend(rooms);
        (cursor, pages) = (next, pages + 1);
        if cursor == 0 {
            break;
        }
        assert!(pages < 10_000);
    }
    assert!(pages > 1);
    let reserved = |room: &&RoomName| room.as_str().starts_with(['@']);
    assert_eq!(found.iter().find(reserved), None);
    assert!(!found.contains(&RoomName::audit()));
    // Other cases have rooms, too; those that never had an entry are none.
    found.retain(|room| room.as_str().starts_with("board page"));
    found.sort();
    found.dedup();
    want.sort();
    assert!(found == want, "{found:?}");
}

fn limit(name: &str, interval: Duration, burst: u32) -> Limit {
    Limit {
        name: text(name),
        interval,
        burst,
    }
}

fn append<L: Log + ?Sized>(
    log: &L,
    room: &RoomName,
    key: Option<&str>,
    limits: &[Limit],
    number: usize,
) -> oneshot::Receiver<Result<EntryId, AppendError>> {
    let (sender, outcome) = oneshot::channel();
    log.append(Append {
        room: room.clone(),
        fields: Box::new([(text("message"), Bytes::from(number.to_string()))]),
        key: key.map(text),
        limits: limits.into(),
        lane: Default::default(),
        deadline: Instant::now() + PATIENCE,
        done: Box::new(move |outcome| drop(sender.send(outcome))),
    });
    outcome
}

fn too_fast(outcome: &Result<EntryId, AppendError>) -> (usize, Duration) {
    match outcome {
        Err(AppendError::TooFast { limit, retry }) => (*limit, *retry),
        other => panic!("{other:?}"),
    }
}

async fn limits<L: Log + Board>(one: Arc<L>, two: Arc<L>) {
    let (here, there) = (room("board limits"), room("board limits elsewhere"));
    // Nothing refills while this runs.
    let (user, all) = (limit("user \u{1}", LONG, 3), limit("*", LONG, 5));
    let both = [user.clone(), all.clone()];
    let add = |log: &Arc<L>, room: &RoomName, limits: &[Limit]| {
        let outcome = append(&**log, room, None, limits, 0);
        async { outcome.await.unwrap() }
    };
    for log in [&one, &two, &one] {
        add(log, &here, &both).await.unwrap();
    }
    for log in [&one, &two] {
        // Refused for the user: the room's is not charged.
        let (limit, retry) = too_fast(&add(log, &here, &both).await);
        assert_eq!(limit, 0);
        assert!(retry <= LONG && retry > LONG / 2, "{retry:?}");
    }
    let other = [limit("other", LONG, 9), all.clone()];
    for log in [&one, &two] {
        add(log, &here, &other).await.unwrap();
    }
    assert_eq!(too_fast(&add(&two, &here, &other).await).0, 1);
    // The other user was not charged for that: seven are left of nine.
    for _ in 0..7 {
        add(&one, &here, &other[..1]).await.unwrap();
    }
    assert_eq!(too_fast(&add(&one, &here, &other[..1]).await).0, 0);
    add(&one, &there, &both).await.unwrap();
    add(&one, &here, &[]).await.unwrap();
    assert_eq!(truth(&*one, &here).await.len(), 3 + 2 + 7 + 1);

    // What it says of the time is enough, and not far more.
    let quick = [limit("quick", Duration::from_millis(150), 2)];
    for _ in 0..3 {
        let retry = loop {
            match add(&one, &here, &quick).await {
                Ok(_) => {}
                outcome => break too_fast(&outcome).1,
            }
        };
        assert!(retry <= Duration::from_millis(150), "{retry:?}");
        sleep(retry).await;
        add(&two, &here, &quick).await.unwrap();
    }
}

async fn limits_and_keys<L: Log + Board>(log: Arc<L>) {
    let here = room("board limits and keys");
    let limits = [limit("u", LONG, 2)];
    let add = |key: &str| {
        let outcome = append(&*log, &here, Some(key), &limits, 0);
        async { outcome.await.unwrap() }
    };
    let id = add("k").await.unwrap();
    for _ in 0..3 {
        assert_eq!(add("k").await, Ok(id), "a repeat costs nothing");
    }
    let other = add("l").await.unwrap();
    too_fast(&add("m").await);
    assert_eq!(add("l").await, Ok(other), "a repeat passes anyway");
    too_fast(&add("m").await);
    assert_eq!(truth(&*log, &here).await.len(), 2);
}
