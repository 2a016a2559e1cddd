//! What only this store has: its clock, its retention, and its hooks. The rest is the conformance
//! suite's.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::*;

/// A log whose clock the test sets.
fn log(settings: Settings) -> (MemoryLog, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1000));
    let clock = Arc::clone(&now);
    let log = MemoryLog::with_clock(settings, move || clock.load(Ordering::SeqCst));
    (log, now)
}

fn room() -> RoomName {
    RoomName::parse("lobby").unwrap()
}

fn fields() -> Fields {
    Box::new([(Bytes::from_static(b"message"), Bytes::from_static(b"hi"))])
}

fn append(log: &MemoryLog, key: Option<&'static str>) -> Result<EntryId, AppendError> {
    let (sender, mut outcome) = mpsc::unbounded_channel();
    log.append(Append {
        room: room(),
        fields: fields(),
        key: key.map(Bytes::from),
        limits: Box::default(),
        lane: Default::default(),
        deadline: Instant::now(),
        done: Box::new(move |outcome| sender.send(outcome).unwrap()),
    });
    outcome.try_recv().unwrap()
}

async fn state(log: &MemoryLog) -> Option<StreamState> {
    log.state(&room()).await.unwrap()
}

async fn ids(log: &MemoryLog) -> Vec<u64> {
    let all = Range {
        from: Bound::Unbounded,
        to: Bound::Unbounded,
        limit: usize::MAX,
        newest_first: false,
    };
    log.range(&room(), all)
        .await
        .unwrap()
        .iter()
        .map(|entry| entry.id.ms)
        .collect()
}

#[tokio::test]
async fn keeps_so_many() {
    let (log, now) = log(Settings {
        keep: Some(3),
        ..Settings::default()
    });
    for ms in 1..=5 {
        now.store(ms, Ordering::SeqCst);
        append(&log, None).unwrap();
    }
    assert_eq!(ids(&log).await, [3, 4, 5]);
    assert_eq!(state(&log).await.unwrap().added, Some(5));
}

#[tokio::test]
async fn keeps_so_long() {
    let keep_for = Some(Duration::from_millis(10));
    let (log, now) = log(Settings {
        keep_for,
        ..Settings::default()
    });
    for ms in [100, 105, 110, 116] {
        now.store(ms, Ordering::SeqCst);
        append(&log, None).unwrap();
    }
    assert_eq!(ids(&log).await, [110, 116]);
}

#[tokio::test]
async fn rooms_expire() {
    let expire_after = Some(Duration::from_millis(10));
    let (log, now) = log(Settings {
        expire_after,
        ..Settings::default()
    });
    now.store(100, Ordering::SeqCst);
    append(&log, None).unwrap();
    now.store(105, Ordering::SeqCst);
    append(&log, None).unwrap();
    now.store(114, Ordering::SeqCst);
    assert!(state(&log).await.is_some());
    now.store(115, Ordering::SeqCst);
    assert_eq!(state(&log).await, None);
    append(&log, None).unwrap();
    assert_eq!(state(&log).await.unwrap().added, Some(1));
}

#[test]
fn rooms_are_bounded() {
    let expire_after = Some(Duration::from_millis(10));
    let (log, now) = log(Settings {
        expire_after,
        ..Settings::default()
    });
    let try_append = |name: String| {
        let room = RoomName::parse(&name).unwrap();
        log.shared.append(room, fields(), None, &[])
    };
    for number in 0..ROOMS_MAX {
        try_append(format!("room-{number}")).unwrap();
    }
    assert!(matches!(
        try_append("one more".into()),
        Err(AppendError::Refused(LogError::Full(_)))
    ));
    try_append("room-7".into()).unwrap();
    now.fetch_add(10, Ordering::SeqCst);
    try_append("one more".into()).unwrap();
    assert_eq!(log.shared.lock().1.rooms.len(), 1);
}

#[test]
fn keys_are_forgotten_after_the_window() {
    let idempotency_window = Duration::from_millis(50);
    let (log, now) = log(Settings {
        idempotency_window,
        ..Settings::default()
    });
    let first = append(&log, Some("k")).unwrap();
    now.fetch_add(49, Ordering::SeqCst);
    assert_eq!(append(&log, Some("k")), Ok(first));
    now.fetch_add(1, Ordering::SeqCst);
    assert!(append(&log, Some("k")).unwrap() > first);
    assert_eq!(log.shared.lock().1.seen.ids.len(), 1);
}

#[test]
fn a_lost_answer_is_found_again_by_its_key() {
    let (log, _) = log(Settings::default());
    log.set_losing_answers(true);
    assert!(matches!(
        append(&log, Some("k")),
        Err(AppendError::Unknown(_))
    ));
    log.set_losing_answers(false);
    let id = append(&log, Some("k")).unwrap();
    assert_eq!(append(&log, None).unwrap(), EntryId::new(id.ms, id.seq + 1));
}

#[tokio::test]
async fn hooks() {
    let (log, now) = log(Settings::default());
    for ms in 1..=5 {
        log.append_with_id(&room(), EntryId::new(ms, 0), fields())
            .unwrap();
    }
    assert!(
        log.append_with_id(&room(), EntryId::new(5, 0), fields())
            .is_err()
    );
    assert!(log.remove(&room(), EntryId::new(2, 0)));
    log.trim(&room(), 3);
    assert_eq!(ids(&log).await, [3, 4, 5]);
    log.rewind(&room(), EntryId::new(4, 0));
    now.store(1, Ordering::SeqCst);
    assert_eq!(append(&log, None).unwrap(), EntryId::new(4, 1));
    assert!(log.delete(&room()));
    assert!(!log.delete(&room()));
    assert_eq!(state(&log).await, None);
}

/// Reads from the start and tells what it was told.
struct Listener {
    room: RoomName,
    after: Mutex<EntryId>,
    heard: mpsc::UnboundedSender<Result<Read, LogError>>,
}

impl Feed for Listener {
    fn room(&self) -> &RoomName {
        &self.room
    }

    fn next(&self) -> Next {
        Next::Read {
            after: *self.after.lock().unwrap(),
        }
    }

    fn on_read(&self, read: Read) {
        if let Some(entry) = read.entries.last() {
            *self.after.lock().unwrap() = entry.id;
        }
        let _ = self.heard.send(Ok(read));
    }

    fn on_survey(&self, _: Survey) {}

    fn on_error(&self, error: &LogError) {
        let _ = self.heard.send(Err(error.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tail_through_everything() {
    let (log, _) = log(Settings::default());
    let (heard, mut hears) = mpsc::unbounded_channel();
    let feed = Arc::new(Listener {
        room: room(),
        after: Mutex::default(),
        heard,
    });
    let guard = log.tail(feed);

    // Nothing there: an empty answer after a while, and no word of a cursor.
    let start = Instant::now();
    let read = hears.recv().await.unwrap().unwrap();
    assert_eq!((read.cursor_present(), read.entries.len()), (None, 0));
    assert_eq!(start.elapsed(), READ_WAIT);

    // An entry wakes it at once.
    let id = append(&log, None).unwrap();
    let start = Instant::now();
    let read = hears.recv().await.unwrap().unwrap();
    assert_eq!(read.entries[0].id, id);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let read = hears.recv().await.unwrap().unwrap();
    assert_eq!((read.after, read.cursor_present()), (id, Some(true)));

    // A trimmed cursor is told with the answer.
    log.trim(&room(), 0);
    let read = hears.recv().await.unwrap().unwrap();
    assert_eq!(
        (read.cursor_present(), read.entries.len()),
        (Some(false), 0)
    );

    // A failure is told at once, and again, until it's over.
    let start = Instant::now();
    log.set_failing(Some(LogError::Loading));
    assert_eq!(log.health(), Err(LogError::Loading));
    assert_eq!(
        append(&log, None),
        Err(AppendError::Refused(LogError::Loading))
    );
    assert!(log.state(&room()).await.is_err());
    for _ in 0..3 {
        assert_eq!(hears.recv().await.unwrap().unwrap_err(), LogError::Loading);
    }
    assert_eq!(start.elapsed(), 2 * RETRY);
    log.set_failing(None);
    append(&log, None).unwrap();
    assert_eq!(hears.recv().await.unwrap().unwrap().entries.len(), 1);

    // Dropping the guard ends it, and lets go of the feed.
    drop(guard);
    while hears.recv().await.is_some() {}
    assert!(log.shared.lock().1.bells.is_empty());
}
