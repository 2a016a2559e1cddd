//! What every log does alike. A new store runs this suite with one function that makes it; rooms
//! are named after the case, so one server can serve all cases at once.

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tailcast::relay::entry::{Entry, EntryId, Fields, RoomName};
use tailcast::relay::log::{
    Append, AppendError, Feed, Log, LogError, Next, Range, Read, StreamState, Survey,
};
use tailcast::store::memory::{self, MemoryLog};
use tailcast::store::redis::{self, RedisLog, TailMode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::harness::redis_server::RedisServer;
use crate::harness::{PATIENCE, room, until};

#[tokio::test]
async fn memory() {
    run(|| Arc::new(MemoryLog::new(memory::Settings::default()))).await;
}

async fn over_redis(tail_mode: TailMode) {
    let server = RedisServer::start();
    let settings = redis::Settings {
        url: server.url(),
        tail_mode,
        // Fewer than the suite has rooms, so that both kinds of tail are used.
        tail_connections: 16,
        ..redis::Settings::default()
    };
    run(|| RedisLog::start(settings.clone()).unwrap()).await;
}

#[tokio::test]
async fn redis_auto() {
    over_redis(TailMode::Auto).await;
}

#[tokio::test]
async fn redis_block() {
    over_redis(TailMode::Block).await;
}

#[tokio::test]
async fn redis_track() {
    over_redis(TailMode::Track).await;
}

/// The suite. `make` gives a new log on every call; they may share one server.
pub(crate) async fn run<L: Log>(make: impl Fn() -> Arc<L>) {
    let make = || -> Arc<dyn Log> { make() };
    appends_in_order(make()).await;
    keys_repeat(make()).await;
    ranges(make()).await;
    nothing_there(make()).await;
    states(make()).await;
    any_bytes(make()).await;
    tail_from_before_the_first(make()).await;
    tail_of_a_long_stream(make()).await;
    two_tails(make()).await;
    many_rooms(make()).await;
    dropped_tail(make()).await;
}

async fn appends_in_order(log: Arc<dyn Log>) {
    let room = room("conformance order");
    let outcomes: Vec<_> = (0..500)
        .map(|number| append(&*log, &room, message(number), None))
        .collect();
    let mut want = Vec::new();
    for (number, outcome) in outcomes.into_iter().enumerate() {
        want.push((outcome.await.unwrap().unwrap(), message(number)));
    }
    assert!(
        want.is_sorted_by(|(a, _), (b, _)| a < b),
        "IDs strictly increase: {want:?}"
    );
    assert!(want[0].0 > EntryId::ZERO);
    assert_eq!(all(&*log, &room).await, want);
    assert_eq!(log.health(), Ok(()));
}

async fn keys_repeat(log: Arc<dyn Log>) {
    let (one, other) = (room("conformance keys"), room("conformance other keys"));
    let add = |room, number, key: Option<&'static str>| append(&*log, room, message(number), key);
    // All at once: the second must not overtake the first one's bookkeeping.
    let outcomes = [
        add(&one, 0, Some("k")),
        add(&one, 0, Some("k")),
        add(&one, 1, Some("l")),
        add(&one, 2, None),
        add(&one, 0, Some("k")),
        add(&other, 0, Some("k")),
    ];
    let mut ids = Vec::new();
    for outcome in outcomes {
        ids.push(outcome.await.unwrap().unwrap());
    }
    let again = add(&one, 9, Some("k")).await.unwrap().unwrap();
    assert_eq!([ids[1], ids[4], again], [ids[0]; 3]);
    let want = [
        (ids[0], message(0)),
        (ids[2], message(1)),
        (ids[3], message(2)),
    ];
    assert_eq!(all(&*log, &one).await, want);
    assert_eq!(all(&*log, &other).await, [(ids[5], message(0))]);
    let binary = "\0\u{ff} {k}\r\n";
    let id = add(&one, 3, Some(binary)).await.unwrap();
    assert_eq!(add(&one, 3, Some(binary)).await.unwrap(), id);
}

async fn ranges(log: Arc<dyn Log>) {
    let room = room("conformance ranges");
    let model = fill(&*log, &room, 0..6).await;
    let mut bounds = vec![Unbounded];
    let known = model.iter().flat_map(|(id, _)| [id.predecessor(), *id]);
    for id in known.chain([EntryId::ZERO, EntryId::new(5, 0), EntryId::MAX]) {
        bounds.extend([Included(id), Excluded(id)]);
    }
    for &from in &bounds {
        for &to in &bounds {
            for (limit, newest_first) in [(2, false), (2, true), (100, false), (100, true)] {
                let range = Range {
                    from,
                    to,
                    limit,
                    newest_first,
                };
                let inside = |id: &EntryId| {
                    (match from {
                        Unbounded => true,
                        Included(low) => *id >= low,
                        Excluded(low) => *id > low,
                    }) && (match to {
                        Unbounded => true,
                        Included(high) => *id <= high,
                        Excluded(high) => *id < high,
                    })
                };
                let mut want: Vec<_> = model.iter().filter(|(id, _)| inside(id)).cloned().collect();
                if newest_first {
                    want.reverse();
                }
                want.truncate(limit);
                assert_eq!(
                    pairs(log.range(&room, range).await.unwrap()),
                    want,
                    "{range:?}"
                );
            }
        }
    }
    let none = Range {
        from: Unbounded,
        to: Unbounded,
        limit: 0,
        newest_first: false,
    };
    assert!(log.range(&room, none).await.unwrap().is_empty());
}

async fn nothing_there(log: Arc<dyn Log>) {
    let room = room("conformance nothing");
    assert!(all(&*log, &room).await.is_empty());
    assert_eq!(log.state(&room).await.unwrap(), None);
}

async fn states(log: Arc<dyn Log>) {
    let room = room("conformance states");
    for number in 0..3 {
        fill(&*log, &room, number..number + 1).await;
        let entries = all(&*log, &room).await;
        let state = log.state(&room).await.unwrap().unwrap();
        let want = StreamState {
            first: Some(entries[0].0),
            last: entries[number].0,
            len: number as u64 + 1,
            // Before Redis 7.0 nobody counts.
            added: state.added.and(Some(number as u64 + 1)),
        };
        assert_eq!(state, want);
    }
}

async fn any_bytes(log: Arc<dyn Log>) {
    let room = room("conformance bytes é {tag} \" \\");
    let every: Bytes = (0..=255).collect();
    let field = |name: &Bytes, value: &Bytes| (name.clone(), value.clone());
    let (empty, name) = (Bytes::new(), Bytes::from_static(b"name"));
    let large = Bytes::from(vec![0xff; 100_000]);
    let mut fields = vec![
        field(&name, &every),
        field(&name, &empty),
        field(&every, &name),
        field(&empty, &large),
        field(&name, &every),
    ];
    fields.extend((0..59).map(|number| (Bytes::from(number.to_string()), name.clone())));
    let fields = Fields::from(fields);
    let id = append(&*log, &room, fields.clone(), None)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all(&*log, &room).await, [(id, fields.clone())]);
    let (feed, _guard) = Collector::tail(&log, &room, 5);
    until("the entry is surveyed", || feed.surveyed().is_some()).await;
    assert_eq!(feed.surveyed().unwrap(), [(id, fields)]);
}

async fn tail_from_before_the_first(log: Arc<dyn Log>) {
    let room = room("conformance tail");
    let (feed, _guard) = Collector::tail(&log, &room, 10);
    until("the survey is there", || feed.surveyed().is_some()).await;
    assert!(feed.surveyed().unwrap().is_empty());
    let mut want = Vec::new();
    for number in 0..10 {
        // One at a time, each waited for, then more than one read brings.
        want.extend(fill(&*log, &room, number..number + 1).await);
        until("the entry came", || feed.read().len() == want.len()).await;
    }
    want.extend(fill(&*log, &room, 10..3000).await);
    until("all entries came", || feed.read().len() >= want.len()).await;
    assert!(feed.read() == want);
}

async fn tail_of_a_long_stream(log: Arc<dyn Log>) {
    let room = room("conformance long");
    let mut want = fill(&*log, &room, 0..50).await;
    let (feed, _guard) = Collector::tail(&log, &room, 20);
    until("the survey is there", || feed.surveyed().is_some()).await;
    assert_eq!(feed.surveyed().unwrap(), want[30..]);
    want.extend(fill(&*log, &room, 50..60).await);
    until("the new entries came", || feed.read().len() >= 10).await;
    assert_eq!(feed.read(), want[50..]);
    // Backwards is the feed's right; it gets all from there again.
    feed.go_to(EntryId::ZERO);
    // A tail that waits asks from where to read once something comes.
    want.extend(fill(&*log, &room, 60..61).await);
    until("the old entries came", || feed.read().len() >= 61).await;
    assert_eq!(feed.read(), want);
}

async fn two_tails(log: Arc<dyn Log>) {
    let room = room("conformance two");
    let (one, _one) = Collector::tail(&log, &room, 1);
    let (other, other_guard) = Collector::tail(&log, &room, 1);
    until("both surveyed", || {
        one.surveyed().and(other.surveyed()).is_some()
    })
    .await;
    let mut want = fill(&*log, &room, 0..20).await;
    until("both have all", || {
        one.read() == want && other.read() == want
    })
    .await;
    drop(other_guard);
    want.extend(fill(&*log, &room, 20..40).await);
    until("the one that's left has all", || one.read() == want).await;
}

async fn many_rooms(log: Arc<dyn Log>) {
    let rooms: Vec<_> = (0..200)
        .map(|number| room(&format!("conformance many {number}")))
        .collect();
    let tails: Vec<_> = rooms
        .iter()
        .map(|room| Collector::tail(&log, room, 3))
        .collect();
    until("all surveyed", || {
        tails.iter().all(|(feed, _)| feed.surveyed().is_some())
    })
    .await;
    let mut outcomes = Vec::new();
    for number in 0..5 {
        for (index, room) in rooms.iter().enumerate() {
            outcomes.push(append(&*log, room, message(1000 * index + number), None));
        }
    }
    for outcome in outcomes {
        outcome.await.unwrap().unwrap();
    }
    for (index, (feed, _)) in tails.iter().enumerate() {
        until("the room's entries came", || feed.read().len() >= 5).await;
        let got: Vec<_> = feed.read().into_iter().map(|(_, fields)| fields).collect();
        assert_eq!(
            got,
            (0..5)
                .map(|number| message(1000 * index + number))
                .collect::<Vec<_>>()
        );
    }
}

async fn dropped_tail(log: Arc<dyn Log>) {
    let room = room("conformance dropped");
    let (feed, guard) = Collector::tail(&log, &room, 1);
    until("the survey is there", || feed.surveyed().is_some()).await;
    drop(guard);
    until("the log let go of the feed", || {
        Arc::strong_count(&feed) == 1
    })
    .await;
    fill(&*log, &room, 0..1).await;
    assert!(feed.read().is_empty());
}

type Pair = (EntryId, Fields);

/// A feed that keeps what it's handed, and checks each answer on its own.
struct Collector {
    room: RoomName,
    newest: usize,
    got: Mutex<Got>,
}

#[derive(Default)]
struct Got {
    surveyed: Option<Vec<Pair>>,
    read: Vec<Pair>,
    cursor: EntryId,
    errors: Vec<LogError>,
    /// An answer to the question before [`Collector::go_to`] may be on its way.
    moved: bool,
}

impl Collector {
    fn tail(
        log: &Arc<dyn Log>,
        room: &RoomName,
        newest: usize,
    ) -> (Arc<Self>, tailcast::relay::log::TailGuard) {
        let room = room.clone();
        let feed = Arc::new(Collector {
            room,
            newest,
            got: Mutex::default(),
        });
        let guard = log.tail(Arc::clone(&feed) as Arc<dyn Feed>);
        (feed, guard)
    }

    fn surveyed(&self) -> Option<Vec<Pair>> {
        self.got.lock().unwrap().surveyed.clone()
    }

    fn read(&self) -> Vec<Pair> {
        self.got.lock().unwrap().read.clone()
    }

    /// Forgets what it read and reads from here.
    fn go_to(&self, cursor: EntryId) {
        let mut got = self.got.lock().unwrap();
        (got.cursor, got.moved) = (cursor, true);
        got.read.clear();
    }
}

impl Feed for Collector {
    fn room(&self) -> &RoomName {
        &self.room
    }

    fn next(&self) -> Next {
        let mut got = self.got.lock().unwrap();
        got.moved = false;
        match got.surveyed {
            None => Next::Survey {
                newest: self.newest,
            },
            Some(_) => Next::Read { after: got.cursor },
        }
    }

    fn on_read(&self, read: Read) {
        let mut got = self.got.lock().unwrap();
        if got.moved {
            return;
        }
        assert_eq!(read.after, got.cursor, "the answer to what was asked");
        let there = (read.after != EntryId::ZERO).then_some(true);
        assert_eq!(
            read.cursor_present(),
            there,
            "nobody removed {}",
            read.after
        );
        let entries = pairs(read.entries);
        assert!(entries.iter().all(|(id, _)| *id > read.after));
        got.cursor = entries.last().map_or(got.cursor, |(id, _)| *id);
        got.read.extend(entries);
    }

    fn on_survey(&self, survey: Survey) {
        let mut got = self.got.lock().unwrap();
        assert!(got.surveyed.is_none(), "one survey was asked for");
        let newest = pairs(survey.newest);
        assert!(newest.len() <= self.newest);
        let last = survey.state.map(|state| state.last);
        assert!(
            last >= newest.last().map(|(id, _)| *id),
            "the state is asked for afterwards"
        );
        got.cursor = newest.last().map_or(EntryId::ZERO, |(id, _)| *id);
        got.surveyed = Some(newest);
    }

    fn on_error(&self, error: &LogError) {
        self.got.lock().unwrap().errors.push(error.clone());
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let errors = &self.got.get_mut().unwrap().errors;
        assert!(
            errors.is_empty() || std::thread::panicking(),
            "nothing fails here: {errors:?}"
        );
    }
}

fn message(number: usize) -> Fields {
    Box::new([(
        Bytes::from_static(b"message"),
        Bytes::from(format!("message {number}")),
    )])
}

fn append(
    log: &dyn Log,
    room: &RoomName,
    fields: Fields,
    key: Option<&'static str>,
) -> oneshot::Receiver<Result<EntryId, AppendError>> {
    let (sender, outcome) = oneshot::channel();
    log.append(Append {
        room: room.clone(),
        fields,
        key: key.map(Bytes::from),
        limits: Box::default(),
        lane: Default::default(),
        deadline: Instant::now() + PATIENCE,
        done: Box::new(move |outcome| {
            let _ = sender.send(outcome);
        }),
    });
    outcome
}

/// Appends one message per number; what was stored, and where.
async fn fill(log: &dyn Log, room: &RoomName, numbers: std::ops::Range<usize>) -> Vec<Pair> {
    let outcomes: Vec<_> = numbers
        .map(|number| (message(number), append(log, room, message(number), None)))
        .collect();
    let mut stored = Vec::new();
    for (fields, outcome) in outcomes {
        stored.push((outcome.await.unwrap().unwrap(), fields));
    }
    stored
}

async fn all(log: &dyn Log, room: &RoomName) -> Vec<Pair> {
    let range = Range {
        from: Unbounded,
        to: Unbounded,
        limit: 10_000,
        newest_first: false,
    };
    pairs(log.range(room, range).await.unwrap())
}

fn pairs(entries: Vec<Entry>) -> Vec<Pair> {
    entries
        .into_iter()
        .map(|entry| (entry.id, entry.fields))
        .collect()
}
