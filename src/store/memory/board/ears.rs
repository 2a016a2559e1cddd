//! The ears, and the task that speaks to them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::Shared;
use crate::people::board::Ear;
use crate::relay::entry::RoomName;

/// All ears.
#[derive(Default)]
pub(super) struct Ears {
    rooms: HashMap<RoomName, Vec<Listening>>,
    next_id: u64,
    /// To the task; it ends with the log.
    words: Option<UnboundedSender<Word>>,
    losing: bool,
}

struct Listening {
    id: u64,
    ear: Arc<dyn Ear>,
    /// It was told that it listens.
    live: bool,
}

/// What the task says, one after the other.
enum Word {
    Listening(RoomName, u64),
    Message(RoomName, Bytes),
}

impl Ears {
    /// Adds an ear; returns its number.
    pub(super) fn add(&mut self, room: &RoomName, ear: Arc<dyn Ear>, shared: &Arc<Shared>) -> u64 {
        // A runtime of tests may have ended, and its tasks with it.
        if self.words.as_ref().is_none_or(UnboundedSender::is_closed) {
            let (sender, words) = mpsc::unbounded_channel();
            tokio::spawn(speak(Arc::downgrade(shared), words));
            self.words = Some(sender);
        }
        self.next_id += 1;
        let id = self.next_id;
        self.rooms.entry(room.clone()).or_default().push(Listening {
            id,
            ear,
            live: false,
        });
        self.say(Word::Listening(room.clone(), id));
        id
    }

    /// Removes an ear, and gives it back.
    pub(super) fn remove(&mut self, room: &RoomName, id: u64) -> Option<Arc<dyn Ear>> {
        let ears = self.rooms.get_mut(room)?;
        let at = ears.iter().position(|ear| ear.id == id)?;
        let removed = ears.swap_remove(at);
        if ears.is_empty() {
            self.rooms.remove(room);
        }
        Some(removed.ear)
    }

    /// Tells a room's ears, later.
    pub(super) fn tell(&self, room: &RoomName, message: Bytes) {
        if !self.losing && self.rooms.contains_key(room) {
            self.say(Word::Message(room.clone(), message));
        }
    }

    /// Loses messages, or ends that.
    pub(super) fn set_losing(&mut self, losing: bool) {
        let back = self.losing && !losing;
        self.losing = losing;
        if back {
            self.listen_anew();
        }
    }

    /// Tells all ears that they listen.
    pub(super) fn listen_anew(&mut self) {
        for (room, ears) in &self.rooms {
            for ear in ears {
                self.say(Word::Listening(room.clone(), ear.id));
            }
        }
    }

    /// To whom a word is said.
    fn addressed(&mut self, word: Word) -> (Vec<Arc<dyn Ear>>, Option<Bytes>) {
        match word {
            Word::Listening(room, id) => {
                let ears = self.rooms.get_mut(&room).into_iter().flatten();
                let ear = ears.filter(|ear| ear.id == id).map(|ear| {
                    ear.live = true;
                    ear.ear.clone()
                });
                (ear.collect(), None)
            }
            Word::Message(room, message) => {
                let ears = self.rooms.get(&room).into_iter().flatten();
                let live = ears.filter(|ear| ear.live);
                (live.map(|ear| ear.ear.clone()).collect(), Some(message))
            }
        }
    }

    fn say(&self, word: Word) {
        if let Some(words) = &self.words {
            // If the task is gone, so is who would hear.
            let _ = words.send(word);
        }
    }
}

async fn speak(shared: Weak<Shared>, mut words: UnboundedReceiver<Word>) {
    while let Some(word) = words.recv().await {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        // Spoken to without the lock: an ear may ask the log.
        let (ears, message) = shared.lock().1.board.ears.addressed(word);
        for ear in ears {
            match &message {
                None => ear.on_listening(),
                Some(message) => ear.on_message(message.clone()),
            }
        }
    }
}
