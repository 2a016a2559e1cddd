//! What only this board has: its hooks, and leases by a clock that tests may pause. The rest is the
//! conformance suite's.

use std::sync::Mutex;

use super::*;
use crate::relay::log::Log;

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Ear for Notes {
    fn on_listening(&self) {
        self.0.lock().unwrap().push("listening".to_owned());
    }

    fn on_message(&self, message: Bytes) {
        let text = String::from_utf8_lossy(&message).into_owned();
        self.0.lock().unwrap().push(text);
    }
}

impl Notes {
    /// What was heard since; lets the task that speaks to ears have its turn first.
    async fn take(&self) -> Vec<String> {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn room() -> RoomName {
    RoomName::parse("lobby").unwrap()
}

fn change(set: &[&str], removed: &[&str], size: u64) -> Vec<Change> {
    vec![Change::Room(RoomChange {
        room: room(),
        set: set.iter().map(|u| (u.to_string(), Bytes::new())).collect(),
        removed: removed.iter().map(|u| u.to_string()).collect(),
        size,
        message: Bytes::from("changed"),
    })]
}

#[tokio::test(start_paused = true)]
async fn leases_run_by_tokios_clock() {
    let log = MemoryLog::new(Settings::default());
    let [a, b] = ["a", "b"].map(NodeId::new);
    let beat = |node: &NodeId| log.beat(node, Bytes::new(), Duration::from_secs(10));
    assert!(!beat(&a).await.unwrap().kept);
    tokio::time::advance(Duration::from_secs(9)).await;
    assert!(beat(&a).await.unwrap().kept);
    assert!(!log.bury(&a, false).await.unwrap());
    tokio::time::advance(Duration::from_secs(10)).await;
    let seen = beat(&b).await.unwrap();
    assert_eq!((seen.living.len(), seen.dead), (1, vec![a.clone()]));
    assert!(log.bury(&a, false).await.unwrap());
    assert!(beat(&b).await.unwrap().dead.is_empty());
    assert!(!beat(&a).await.unwrap().kept);
}

#[tokio::test(start_paused = true)]
async fn hooks() {
    let log = MemoryLog::new(Settings::default());
    let (ear, node) = (Arc::new(Notes::default()), NodeId::new("a"));
    let _guard = log.listen(&room(), ear.clone());
    assert_eq!(ear.take().await, ["listening"]);
    log.whisper(&room(), Bytes::from("a"));
    assert!(ear.0.lock().unwrap().is_empty(), "later");
    assert_eq!(ear.take().await, ["a"]);

    log.drop_whispers(true);
    log.whisper(&room(), Bytes::from("b"));
    log.write(&node, change(&["ann"], &[], 1), true)
        .await
        .unwrap();
    assert!(ear.take().await.is_empty());
    log.drop_whispers(false);
    assert_eq!(ear.take().await, ["listening"]);

    log.set_failing(Some(LogError::Loading));
    log.whisper(&room(), Bytes::from("c"));
    let failed = log.write(&node, change(&[], &["ann"], 0), true).await;
    assert_eq!(failed, Err(LogError::Loading));
    assert_eq!(log.rules(&room()).await, Err(LogError::Loading));
    log.set_failing(None);
    assert_eq!(ear.take().await, ["listening"]);

    let lease = Duration::from_secs(10);
    log.beat(&node, Bytes::new(), lease).await.unwrap();
    log.forget_board();
    assert_eq!(ear.take().await, ["listening"]);
    assert!(log.members(&room(), &node).await.unwrap().is_empty());
    let seen = log.beat(&node, Bytes::new(), lease).await.unwrap();
    assert_eq!((seen.kept, seen.living.len()), (false, 1));
    // The streams are still there.
    assert_eq!(log.state(&room()).await.unwrap().unwrap().len, 1);
}

#[tokio::test(start_paused = true)]
async fn counters_are_forgotten() {
    let log = MemoryLog::new(Settings::default());
    let one = || vec![("heart".to_owned(), 1)];
    assert_eq!(log.count(&room(), one()).await.unwrap(), [1]);
    tokio::time::advance(COUNTERS_KEPT - Duration::from_secs(1)).await;
    assert_eq!(log.count(&room(), one()).await.unwrap(), [2]);
    tokio::time::advance(COUNTERS_KEPT + Duration::from_secs(1)).await;
    assert_eq!(log.count(&room(), one()).await.unwrap(), [1]);
}
