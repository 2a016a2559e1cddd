//! The channels with ears, and what Redis is still to be asked for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Order;
use crate::people::board::Ear;

/// Most channels in one request: with the longest names a quarter of a megabyte.
const BATCH: usize = 1000;

/// What goes out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Subscribe(Vec<String>),
    Unsubscribe(Vec<String>),
    Ping,
}

/// The channels.
#[derive(Default)]
pub(super) struct Channels {
    channels: HashMap<Arc<str>, Channel>,
    /// To be asked, in this order: a channel that is left and listened to again must be
    /// unsubscribed first.
    wishes: VecDeque<(Wish, Arc<str>)>,
    /// Without a connection there is nobody to ask, and nothing to remember.
    connected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Subscribe,
    Unsubscribe,
}

struct Channel {
    ears: SmallVec<[(u64, Arc<dyn Ear>); 1]>,
    /// Redis confirmed it on this connection.
    live: bool,
}

impl Channels {
    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// An ear comes or goes.
    pub(super) fn apply(&mut self, order: Order) {
        match order {
            Order::Listen(id, name, ear) => {
                if let Some(channel) = self.channels.get_mut(name.as_str()) {
                    if channel.live {
                        ear.on_listening();
                    }
                    channel.ears.push((id, ear));
                    return;
                }
                let name: Arc<str> = name.into();
                let channel = Channel {
                    ears: SmallVec::from_iter([(id, ear)]),
                    live: false,
                };
                self.channels.insert(name.clone(), channel);
                self.wish(Wish::Subscribe, name);
            }
            Order::Leave(id, name) => {
                let Some(channel) = self.channels.get_mut(name.as_str()) else {
                    return;
                };
                channel.ears.retain(|(other, _)| *other != id);
                if channel.ears.is_empty() {
                    self.channels.remove(name.as_str());
                    self.wish(Wish::Unsubscribe, name.into());
                }
            }
        }
    }

    fn wish(&mut self, wish: Wish, name: Arc<str>) {
        if self.connected {
            self.wishes.push_back((wish, name));
        }
    }

    /// A new connection knows of no channel.
    pub(super) fn connected(&mut self) {
        self.connected = true;
        let names = self.channels.keys().cloned();
        self.wishes = names.map(|name| (Wish::Subscribe, name)).collect();
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self) {
        self.connected = false;
        self.wishes.clear();
        for channel in self.channels.values_mut() {
            channel.live = false;
        }
    }

    /// What to ask for next.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        let (first, _) = self.wishes.front()?;
        let first = *first;
        let mut names = Vec::new();
        while names.len() < BATCH
            && let Some((wish, name)) = self.wishes.front()
            && *wish == first
        {
            names.push(name.to_string());
            self.wishes.pop_front();
        }
        Some(match first {
            Wish::Subscribe => Request::Subscribe(names),
            Wish::Unsubscribe => Request::Unsubscribe(names),
        })
    }

    /// Redis confirmed a channel. One that was left and listened to again meanwhile is confirmed
    /// twice, and the second time counts; the ears are told both times.
    pub(super) fn on_subscribed(&mut self, name: &[u8]) {
        if let Some(channel) = self.get_mut(name) {
            channel.live = true;
            for (_, ear) in &channel.ears {
                ear.on_listening();
            }
        }
    }

    /// A message came.
    pub(super) fn on_message(&mut self, name: &[u8], message: &Bytes) {
        if let Some(channel) = self.get_mut(name) {
            for (_, ear) in &channel.ears {
                ear.on_message(message.clone());
            }
        }
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Channel> {
        self.channels.get_mut(std::str::from_utf8(name).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

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

    fn take(notes: &Notes) -> Vec<String> {
        std::mem::take(&mut *notes.0.lock().unwrap())
    }

    #[test]
    fn ears_hear_from_the_confirmation_on() {
        let (one, other) = (Arc::new(Notes::default()), Arc::new(Notes::default()));
        let mut channels = Channels::default();
        channels.connected();
        let subscribe = || Some(Request::Subscribe(vec!["a".to_owned()]));
        channels.apply(Order::Listen(1, "a".to_owned(), one.clone()));
        assert_eq!(channels.next_request(), subscribe());
        assert!(take(&one).is_empty());
        channels.on_subscribed(b"a");
        channels.on_message(b"a", &Bytes::from("x"));
        channels.on_message(b"b", &Bytes::from("y"));
        assert_eq!(take(&one), ["listening", "x"]);
        channels.apply(Order::Listen(2, "a".to_owned(), other.clone()));
        assert_eq!(
            (take(&one).len(), take(&other)),
            (0, vec!["listening".to_owned()])
        );
        assert_eq!(channels.next_request(), None);
        channels.lost();
        channels.apply(Order::Listen(9, "b".to_owned(), other.clone()));
        channels.apply(Order::Leave(9, "b".to_owned()));
        channels.connected();
        assert_eq!(channels.next_request(), subscribe());
        channels.apply(Order::Leave(1, "a".to_owned()));
        channels.on_subscribed(b"a");
        assert_eq!((take(&one).len(), take(&other).len()), (0, 1));
        assert_eq!(channels.next_request(), None);
        // Left and listened to again: first the one, then the other.
        channels.apply(Order::Leave(2, "a".to_owned()));
        channels.apply(Order::Listen(3, "a".to_owned(), one.clone()));
        let unsubscribe = Some(Request::Unsubscribe(vec!["a".to_owned()]));
        assert_eq!(channels.next_request(), unsubscribe);
        assert_eq!(channels.next_request(), subscribe());
    }

    #[test]
    fn requests_are_bounded() {
        let mut channels = Channels::default();
        channels.connected();
        for id in 0..2500 {
            channels.apply(Order::Listen(
                id,
                id.to_string(),
                Arc::new(Notes::default()),
            ));
        }
        let mut sizes = Vec::new();
        while let Some(Request::Subscribe(names)) = channels.next_request() {
            sizes.push(names.len());
        }
        assert_eq!(sizes, [1000, 1000, 500]);
    }
}
