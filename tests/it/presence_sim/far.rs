//! The board as one node sees it, from afar: answers take their time, and the node dies, stands
//! still, or loses the board for a while.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tailcast::people::board::{Answer, Beat, Board, Change, Ear, EarGuard, NodeId};
use tailcast::relay::entry::{EntryId, Fields, RoomName};
use tailcast::relay::log::LogError;
use tailcast::store::memory::MemoryLog;
use tokio::sync::watch;
use tokio::time::sleep;

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// What it asks fails; some of that is done all the same, at once or later.
    Failing,
    /// Nothing happens, and everything goes on afterwards.
    Still,
    /// Nothing happens any more.
    Dead,
}

/// One node's board.
#[derive(Clone)]
pub(super) struct FarBoard(Arc<Far>);

struct Far {
    log: MemoryLog,
    state: watch::Sender<State>,
    random: Mutex<StdRng>,
    ears: Mutex<Vec<Weak<FarEar>>>,
    /// Names whose lease was gone at a beat that is not answered yet.
    lapsed: Mutex<HashSet<NodeId>>,
}

impl FarBoard {
    pub(super) fn new(log: MemoryLog, seed: u64) -> Self {
        FarBoard(Arc::new(Far {
            log,
            state: watch::Sender::new(State::Up),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            ears: Mutex::default(),
            lapsed: Mutex::default(),
        }))
    }

    pub(super) fn state(&self) -> State {
        *self.0.state.borrow()
    }

    pub(super) fn set(&self, state: State) {
        let before = self.0.state.send_replace(state);
        if state != State::Up || before == State::Up {
            return;
        }
        let ears = self.0.ears.lock().unwrap().clone();
        for ear in ears.iter().filter_map(Weak::upgrade) {
            ear.go_on(before);
        }
    }

    /// Asks; what fails may be done in spite of it.
    fn ask<T: Send + 'static>(&self, work: Answer<T>, or_late: Option<Answer<()>>) -> Answer<T> {
        let far = self.0.clone();
        Box::pin(async move {
            far.pause().await;
            far.moves().await;
            if *far.state.borrow() == State::Failing {
                if let Some(late) = or_late.filter(|_| far.below(2) == 0) {
                    let wait = Duration::from_millis(far.below(3_000));
                    tokio::spawn(async move {
                        sleep(wait).await;
                        let _ = late.await;
                    });
                }
                return Err(LogError::Unavailable("the board fails".to_owned()));
            }
            let answer = work.await;
            far.pause().await;
            far.moves().await;
            answer
        })
    }
}

impl Far {
    fn below(&self, end: u64) -> u64 {
        self.random.lock().unwrap().random_range(0..end)
    }

    async fn pause(&self) {
        let most = [0, 5, 50, 300][self.below(4) as usize];
        if most > 0 {
            sleep(Duration::from_millis(self.below(most))).await;
        }
    }

    /// Waits while it stands still.
    async fn moves(&self) {
        let mut state = self.state.subscribe();
        let moves = |state: &State| matches!(state, State::Up | State::Failing);
        let _ = state.wait_for(moves).await;
    }
}

impl Board for FarBoard {
    fn whisper(&self, room: &RoomName, message: Bytes) {
        if self.state() == State::Up {
            self.0.log.whisper(room, message);
        }
    }

    fn listen(&self, room: &RoomName, ear: Arc<dyn Ear>) -> EarGuard {
        let ear = Arc::new(FarEar {
            ear,
            far: self.0.clone(),
            waiting: Mutex::default(),
        });
        let mut ears = self.0.ears.lock().unwrap();
        ears.retain(|ear| ear.strong_count() > 0);
        ears.push(Arc::downgrade(&ear));
        self.0.log.listen(room, ear)
    }

    fn beat(&self, node: &NodeId, status: Bytes, lease: Duration) -> Answer<Beat> {
        let (far, name) = (self.0.clone(), node.clone());
        let renewed = self.0.log.beat(node, status, lease);
        let renewed = Box::pin(async move {
            let beat = renewed.await?;
            if !beat.kept {
                far.lapsed.lock().unwrap().insert(name);
            }
            Ok(beat)
        });
        let answer = self.ask(renewed, None);
        let (far, name) = (self.0.clone(), node.clone());
        Box::pin(async move {
            let beat = answer.await?;
            // Should this answer be lost, the next one has to say so still.
            let kept = !far.lapsed.lock().unwrap().remove(&name);
            Ok(Beat { kept, ..beat })
        })
    }

    fn retire(&self, node: &NodeId) -> Answer<()> {
        self.ask(self.0.log.retire(node), Some(self.0.log.retire(node)))
    }

    fn write(&self, node: &NodeId, changes: Vec<Change>, notices: bool) -> Answer<()> {
        let mut some = changes.clone();
        some.truncate(self.0.below(changes.len() as u64 + 1) as usize);
        let late = self.0.log.write(node, some, notices);
        self.ask(self.0.log.write(node, changes, notices), Some(late))
    }

    fn bury(&self, node: &NodeId, notices: bool) -> Answer<bool> {
        let again = self.0.log.bury(node, notices);
        let late = Box::pin(async move { again.await.map(drop) });
        self.ask(self.0.log.bury(node, notices), Some(late))
    }

    fn secret(&self, made: Bytes) -> Answer<Bytes> {
        self.ask(self.0.log.secret(made), None)
    }

    fn members(&self, room: &RoomName, node: &NodeId) -> Answer<Vec<(String, Bytes)>> {
        self.ask(self.0.log.members(room, node), None)
    }

    fn user(&self, user: &str, nodes: &[NodeId]) -> Answer<Vec<Option<Bytes>>> {
        self.ask(self.0.log.user(user, nodes), None)
    }

    fn sizes(&self, rooms: &[RoomName], nodes: &[NodeId]) -> Answer<Vec<Vec<u64>>> {
        self.ask(self.0.log.sizes(rooms, nodes), None)
    }

    fn rules(&self, room: &RoomName) -> Answer<Vec<(String, String)>> {
        self.ask(self.0.log.rules(room), None)
    }

    fn rule(&self, rooms: &[RoomName], name: &str) -> Answer<Vec<Option<String>>> {
        self.ask(self.0.log.rule(rooms, name), None)
    }

    fn act(
        &self,
        room: &RoomName,
        rules: Vec<(String, Option<String>)>,
        record: Fields,
    ) -> Answer<EntryId> {
        self.ask(self.0.log.act(room, rules, record), None)
    }

    fn count(&self, room: &RoomName, counts: Vec<(String, u64)>) -> Answer<Vec<u64>> {
        self.ask(self.0.log.count(room, counts), None)
    }

    fn rooms(&self, cursor: u64, limit: usize) -> Answer<(Vec<RoomName>, u64)> {
        self.ask(Board::rooms(&self.0.log, cursor, limit), None)
    }
}

/// An ear of that node's.
struct FarEar {
    ear: Arc<dyn Ear>,
    far: Arc<Far>,
    /// What came while it stood still; nothing stands for listening anew.
    waiting: Mutex<Vec<Option<Bytes>>>,
}

impl FarEar {
    fn hear(&self, word: Option<Bytes>) {
        let state = *self.far.state.borrow();
        match (state, word) {
            (State::Up, Some(message)) => self.ear.on_message(message),
            (State::Up, None) => self.ear.on_listening(),
            (State::Still, word) => self.waiting.lock().unwrap().push(word),
            (State::Failing | State::Dead, _) => {}
        }
    }

    fn go_on(&self, before: State) {
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        waiting.into_iter().for_each(|word| self.hear(word));
        if before == State::Failing {
            self.ear.on_listening();
        }
    }
}

impl Ear for FarEar {
    fn on_listening(&self) {
        self.hear(None);
    }

    fn on_message(&self, message: Bytes) {
        self.hear(Some(message));
    }
}
