//! What goes out beside the streams, and what does not go out, over a socket that takes a little at
//! a time.

use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::time::{sleep, timeout};

use super::*;
use crate::relay::aside::{Aside, Audience};
use crate::relay::connection::{Barred, Connection, Gate, Joined, Publish};
use crate::relay::entry::{EntryId, Fields};
use crate::relay::format::GapFrame;
use crate::relay::hub::Relay;
use crate::relay::listener::Heard;
use crate::relay::log::Log;
use crate::relay::position::Position;
use crate::relay::slow_log::SlowLog;
use crate::store::memory::MemoryLog;

/// A socket that takes so many bytes a millisecond, or none.
struct Slow {
    taken: Mutex<Vec<u8>>,
    most: AtomicUsize,
    full: Mutex<bool>,
}

impl Slow {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Slow {
            taken: Mutex::default(),
            most: AtomicUsize::new(most),
            full: Mutex::new(false),
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.taken.lock().unwrap().clone()).unwrap()
    }

    /// Waits until this has come.
    async fn has(&self, part: &str) {
        let wait = async {
            while !self.text().contains(part) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let came = timeout(Duration::from_secs(60), wait).await;
        came.unwrap_or_else(|_| panic!("{part} has not come: {}", self.text()));
    }
}

impl Wire for Slow {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.most.load(Ordering::Relaxed);
        let mut full = self.full.lock().unwrap();
        if *full || most == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(most);
        self.taken
            .lock()
            .unwrap()
            .extend_from_slice(&bytes[..count]);
        *full = count < bytes.len();
        Ok(count)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let waker = cx.waker().clone();
        if self.most.load(Ordering::Relaxed) > 0 && !std::mem::take(&mut *self.full.lock().unwrap())
        {
            return Poll::Ready(Ok(()));
        }
        tokio::spawn(async move {
            sleep(Duration::from_millis(1)).await;
            waker.wake();
        });
        Poll::Pending
    }
}

static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| [entry.message(), &b";"[..]].concat().into(),
    gap: |_, _| GapFrame::Frame(Bytes::from_static(b"<gap>;")),
    aside: |aside| Some([aside.json(), &b";"[..]].concat().into()),
    close: |_| Bytes::new(),
};

fn room() -> RoomName {
    RoomName::parse("r").unwrap()
}

fn message(text: &str) -> Fields {
    Box::new([(Bytes::from("message"), Bytes::from(text.to_owned()))])
}

fn relay() -> (Arc<MemoryLog>, Arc<Relay>) {
    let log = Arc::new(MemoryLog::new(Default::default()));
    let relay = Relay::new(log.clone(), Default::default());
    (log, relay)
}

async fn join(relay: &Arc<Relay>, wire: &Arc<Slow>, from: Position, watches: bool) -> Connection {
    let connection = relay.connect(wire.clone(), &FORMAT);
    let joined = Box::new(|_| Some(Bytes::from_static(b"joined;")));
    connection
        .join(room(), from, watches, None, joined)
        .unwrap();
    connection.joined().await;
    connection
}

async fn publish(relay: &Relay, text: &str) -> EntryId {
    let publish = Publish::new(room(), message(text));
    relay.publish(publish).await.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn own_publishes_that_are_not_wanted_back_are_passed_over(
        echoes in prop::collection::vec(any::<(bool, bool)>(), 1..40),
        most in 1usize..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (_, relay) = relay();
            let (mine, theirs) = (Slow::new(most), Slow::new(1_000));
            let connection = join(&relay, &mine, Position::Now, false).await;
            let _other = join(&relay, &theirs, Position::Now, false).await;
            let (mut all, mut wanted) = (String::from("joined;"), String::from("joined;"));
            for (at, (own, echo)) in echoes.iter().enumerate() {
                let text = format!("entry {at}");
                all.push_str(&format!("{text};"));
                if *own {
                    let publish = Publish {
                        echo: *echo,
                        ..Publish::new(room(), message(&text))
                    };
                    connection.publish(publish, Box::new(|_, outcome| assert!(outcome.is_ok())));
                } else {
                    publish(&relay, &text).await;
                }
                if !*own || *echo {
                    wanted.push_str(&format!("{text};"));
                }
            }
            publish(&relay, "end").await;
            mine.has("end;").await;
            theirs.has("end;").await;
            assert_eq!(mine.text(), wanted + "end;");
            assert_eq!(theirs.text(), all + "end;");
        });
    }
}

/// The entry is stored before, while or after its sender joins, and the join takes its time.
#[tokio::test(start_paused = true)]
async fn an_own_publish_is_passed_over_though_the_join_is_under_way() {
    let ways: [fn(&[EntryId]) -> Position; 5] = [
        |_| Position::Now,
        |_| Position::Start,
        |ids| Position::After(ids[1]),
        |_| Position::Last(10),
        |_| Position::Ago(Duration::from_secs(3_600)),
    ];
    for (way, from) in ways.iter().enumerate() {
        for (read, append) in [(0, 0), (20, 0), (0, 20), (20, 20), (20, 60)] {
            for from_start in [false, true] {
                let log = Arc::new(SlowLog::new(MemoryLog::new(Default::default())));
                let relay = Relay::new(log.clone(), Default::default());
                let mut ids = Vec::new();
                for text in ["one", "two", "three"] {
                    ids.push(publish(&relay, text).await);
                }
                log.set_delay(Duration::from_millis(read));
                log.set_append_delay(Duration::from_millis(append));
                let wire = Slow::new(1_000);
                let connection = relay.connect(wire.clone(), &FORMAT);
                let own = |text| {
                    let publish = Publish {
                        echo: false,
                        ..Publish::new(room(), message(text))
                    };
                    connection.publish(publish, Box::new(|_, outcome| assert!(outcome.is_ok())));
                };
                if from_start {
                    own("before");
                }
                let joined = Box::new(|_| Some(Bytes::from_static(b"joined;")));
                let join = connection.join(room(), from(&ids), false, None, joined);
                join.unwrap();
                own("at once");
                sleep(Duration::from_millis(1)).await;
                own("meanwhile");
                connection.joined().await;
                own("after");
                connection.settled().await;
                publish(&relay, "end").await;
                wire.has("end;").await;
                let text = wire.text();
                for own in ["at once", "meanwhile", "after"] {
                    assert!(!text.contains(own), "way {way}, {read} {append} ms: {text}");
                }
                // An entry that is stored when the join begins is one like any other; one that is
                // on its way then is not.
                assert!(append == 0 || !text.contains("before"), "way {way}: {text}");
                let want = match from(&ids) {
                    Position::Now => "joined;end;",
                    Position::After(_) => "joined;three;end;",
                    _ => "one;two;three;end;",
                };
                let text = text.replace("before;", "");
                assert!(text.contains(want), "way {way}, {read} {append} ms: {text}");
                assert!(connection.outlet().out().quiet.is_empty());
            }
        }
    }
}

/// What nobody will ever pass over is not kept.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_rooms_that_are_left_or_were_never_joined() {
    let (_, relay) = relay();
    let wire = Slow::new(1_000);
    let connection = join(&relay, &wire, Position::Now, false).await;
    for at in 0..200 {
        let elsewhere = RoomName::parse(&format!("elsewhere {}", at % 7)).unwrap();
        let joined: Joined = Box::new(|_| None);
        if at % 2 == 0 {
            let shut = || Barred {
                code: "closed",
                message: String::new(),
            };
            let gate: Gate = async move { Err(shut().into()) }.boxed();
            let gate = (at % 4 == 0).then_some(gate);
            let _ = connection.join(elsewhere.clone(), Position::Start, false, gate, joined);
        }
        let publish = Publish {
            echo: false,
            ..Publish::new(elsewhere.clone(), message("x"))
        };
        connection.publish(publish, Box::new(|_, outcome| assert!(outcome.is_ok())));
        if at % 3 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        connection.leave(&elsewhere);
    }
    connection.settled().await;
    sleep(Duration::from_millis(10)).await;
    assert!(connection.outlet().out().quiet.is_empty());
}

#[tokio::test(start_paused = true)]
async fn asides_go_to_whom_they_are_for() {
    let (_, relay) = relay();
    let wires = [(); 3].map(|()| Slow::new(1_000));
    let plain = join(&relay, &wires[0], Position::Now, false).await;
    let _watcher = join(&relay, &wires[1], Position::Now, true).await;
    let tell = |text: &'static str, audience, except| {
        let mut aside = Aside::new("test", text);
        (aside.audience, aside.except) = (audience, except);
        relay.tell(&room(), Arc::new(aside));
    };
    // A watcher is told of changes only once it knows what they change.
    tell("change 1", Audience::Watchers, None);
    tell("state", Audience::Newcomers, None);
    tell("change 2", Audience::Watchers, None);
    tell("state again", Audience::Newcomers, None);
    tell("not you", Audience::All, Some(plain.outlet().number()));
    tell("all", Audience::All, None);
    let _late = join(&relay, &wires[2], Position::Now, true).await;
    tell("late state", Audience::Newcomers, None);
    tell("end", Audience::All, None);
    for wire in &wires {
        wire.has("end;").await;
    }
    assert_eq!(wires[0].text(), "joined;all;end;");
    assert_eq!(wires[1].text(), "joined;state;change 2;not you;all;end;");
    assert_eq!(wires[2].text(), "joined;late state;end;");
}

#[tokio::test(start_paused = true)]
async fn who_is_behind_goes_without_what_sheds() {
    let (_, relay) = relay();
    let wire = Slow::new(1_000);
    let _connection = join(&relay, &wire, Position::Now, true).await;
    relay.tell(&room(), Arc::new(told("state", Audience::Newcomers)));
    wire.has("state;").await;
    wire.most.store(0, Ordering::Relaxed);
    publish(&relay, "stuck").await;
    sleep(Duration::from_millis(10)).await;
    assert!(!relay.take_missed(&room()));
    relay.tell(&room(), Arc::new(told("change", Audience::Watchers)));
    relay.tell(&room(), Arc::new(Aside::new("test", "kept")));
    sleep(Duration::from_millis(10)).await;
    assert!(relay.take_missed(&room()) && !relay.take_missed(&room()));
    wire.most.store(1_000, Ordering::Relaxed);
    wire.has("kept;").await;
    // It's a newcomer again.
    relay.tell(&room(), Arc::new(told("change 2", Audience::Watchers)));
    relay.tell(&room(), Arc::new(told("state 2", Audience::Newcomers)));
    wire.has("state 2;").await;
    let text = wire.text();
    assert!(
        !text.contains("change") && text.contains("stuck;"),
        "{text}"
    );
}

fn told(text: &'static str, audience: Audience) -> Aside {
    let mut aside = Aside::new("test", text);
    (aside.audience, aside.sheds) = (audience, true);
    aside
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_in_no_replay_and_no_gap() {
    let (log, relay) = relay();
    let first = Slow::new(1_000);
    let _first = join(&relay, &first, Position::Start, false).await;
    let mut ids = Vec::new();
    for text in ["one", "two", "three"] {
        ids.push(publish(&relay, text).await);
    }
    first.has("three;").await;
    // The newest one, too: the tail's own witness.
    assert_eq!(relay.remove(&room(), vec![ids[1], ids[2]]).await, Ok(2));
    assert_eq!(relay.remove(&room(), vec![ids[1]]).await, Ok(0));
    let late = Slow::new(1_000);
    let _late = join(&relay, &late, Position::Start, false).await;
    let resumed = Slow::new(1_000);
    let _resumed = join(&relay, &resumed, Position::After(ids[2]), false).await;
    let last = Slow::new(1_000);
    let _last = join(&relay, &last, Position::Last(2), false).await;
    publish(&relay, "four").await;
    for wire in [&first, &late, &resumed, &last] {
        wire.has("four;").await;
    }
    assert_eq!(first.text(), "joined;one;two;three;four;");
    assert_eq!(late.text(), "joined;one;four;");
    assert_eq!(resumed.text(), "joined;four;");
    assert_eq!(last.text(), "joined;one;four;");
    let state = log.state(&room()).await.unwrap().unwrap();
    assert_eq!(state.len, 2);
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_entries_and_gaps() {
    let (log, relay) = relay();
    for number in 0..1_500 {
        publish(&relay, &number.to_string()).await;
    }
    // More than a window holds, so that it begins in the log.
    let mut listener = relay.listen(&room(), Position::Start).await.unwrap();
    for number in 0..1_500 {
        match listener.next().await {
            Heard::Entry(entry) => assert_eq!(entry.message(), number.to_string().as_bytes()),
            Heard::Gap(gap) => panic!("{gap:?} at {number}"),
        }
    }
    let wait = timeout(Duration::from_secs(1), listener.next()).await;
    assert!(wait.is_err(), "nothing more");
    log.delete(&room());
    publish(&relay, "anew").await;
    assert!(matches!(listener.next().await, Heard::Gap(_)));
    assert!(matches!(listener.next().await, Heard::Entry(entry) if entry.message() == "anew"));
}
