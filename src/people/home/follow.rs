//! Follows one room for the homepage, by a cursor like any other.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Followed, MESSAGES, Stale, State, cut};
use crate::people::Shared;
use crate::people::rules::Rules;
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::hub::HistoryQuery;
use crate::relay::listener::Heard;
use crate::relay::log::LogError;
use crate::relay::position::Position;

/// A room is read anew this often, as nobody tells of what XTRIM or XDEL in Redis itself takes away;
/// give or take a half, so that not all are at one time.
const CHECKED_EVERY: Duration = Duration::from_secs(60);

/// How long to wait before a room is read again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long, if it could not be read.
const RETRY: Duration = Duration::from_secs(1);

/// How a room stands in Redis.
pub(super) struct Read {
    /// Its newest entries, newest first.
    newest: Vec<Entry>,
    rules: Vec<(String, String)>,
}

/// Asks how a room stands.
async fn read(shared: &Shared, room: &RoomName) -> Result<Read, LogError> {
    // An act between the reading and the following would be missed.
    let mut audits = shared.audits.subscribe();
    let follows = audits.wait_for(|follows| follows.is_some()).await;
    if let Some(Err(error)) = follows.ok().and_then(|follows| (*follows).clone()) {
        return Err(error);
    }
    let newest = HistoryQuery {
        after: None,
        before: None,
        limit: MESSAGES,
        newest_first: true,
    };
    let newest = shared.relay.history(room, newest);
    let (newest, rules) = tokio::join!(newest, shared.board.rules(room));
    Ok(Read {
        newest: newest?.entries,
        rules: rules?,
    })
}

/// Begins to follow a room. `exists` if it's known to have a stream.
pub(super) async fn begin(
    shared: &Arc<Shared>,
    room: &RoomName,
    exists: bool,
    pass: u64,
) -> Result<(), LogError> {
    let bell = Arc::<Notify>::default();
    {
        let mut state = shared.home.state();
        if state.rooms.contains_key(room) {
            return Ok(());
        }
        // From here on it's told what moderators do.
        let followed = Followed {
            bell: bell.clone(),
            pass,
            ..Followed::default()
        };
        state.rooms.insert(room.clone(), followed);
    }
    let refreshed = refresh(shared, room).await;
    let mut state = shared.home.state();
    match refreshed {
        Ok(from) => {
            if let Some(followed) = state.change(room, Stale::Soon) {
                followed.exists = exists;
                let task = run(Arc::downgrade(shared), room.clone(), from, bell);
                followed._task = Some(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(task)));
            }
            Ok(())
        }
        Err(error) => {
            state.rooms.remove(room);
            Err(error)
        }
    }
}

/// Reads a room and shows what it says. Answers where to go on from.
async fn refresh(shared: &Shared, room: &RoomName) -> Result<Option<EntryId>, LogError> {
    loop {
        let before = {
            let state = shared.home.state();
            let followed = state.rooms.get(room);
            followed.map(|followed| (followed.acts, followed.last))
        };
        let Some((acts, heard)) = before else {
            return Ok(None);
        };
        let read = read(shared, room).await?;
        let mut state = shared.home.state();
        let Some(followed) = state.change(room, Stale::Soon) else {
            return Ok(None);
        };
        // What a moderator did in between, this may not have seen yet.
        if followed.acts == acts {
            followed.merge(read, heard);
            return Ok(followed.last);
        }
    }
}

impl Followed {
    /// Takes over how the room stood, and keeps what was heard since it was asked for: what
    /// follows `heard`.
    fn merge(&mut self, read: Read, heard: Option<EntryId>) {
        let newest = read.newest.first().map(|entry| entry.id);
        let known = heard.max(newest);
        self.messages
            .retain(|message| known.is_none_or(|known| message.entry.id > known));
        for entry in read.newest {
            self.messages.push_front(cut::message(Arc::new(entry)));
        }
        self.bound();
        // An ID whose entry is gone is as good to go on from, as long as there are others.
        let shown = self.messages.back().map(|message| message.entry.id);
        self.last = shown.and(shown.max(heard));
        self.rules = Arc::new(Rules::read(read.rules));
    }

    fn hear(&mut self, entry: Arc<Entry>) {
        // It may have been read already.
        if self.last.is_none_or(|last| entry.id > last) {
            self.last = Some(entry.id);
            self.messages.push_back(cut::message(entry));
            self.exists = true;
            self.bound();
        }
    }

    fn bound(&mut self) {
        let excess = self.messages.len().saturating_sub(MESSAGES);
        self.messages.drain(..excess);
    }
}

impl State {
    fn hear(&mut self, room: &RoomName, entry: Arc<Entry>) {
        if let Some(followed) = self.change(room, Stale::Soon) {
            followed.hear(entry);
        }
    }

    /// The stream is not what it was: nothing of it counts.
    fn clear(&mut self, room: &RoomName) {
        if let Some(followed) = self.change(room, Stale::Now) {
            followed.messages.clear();
            followed.last = None;
        }
    }
}

/// Follows a room from there on, until it's not to be followed any more.
async fn run(shared: Weak<Shared>, room: RoomName, from: Option<EntryId>, bell: Arc<Notify>) {
    let mut from = from;
    loop {
        let Some(relay) = shared.upgrade().map(|shared| shared.relay.clone()) else {
            return;
        };
        let position = from.map_or(Position::Start, Position::After);
        let mut listener = match relay.listen(&room, position).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::debug!(%room, %error, "the homepage can't follow a room");
                if let Some(shared) = shared.upgrade() {
                    shared.home.state().clear(&room);
                }
                sleep(CHECKED_EVERY).await;
                continue;
            }
        };
        let mut check = next_check();
        loop {
            tokio::select! {
                heard = listener.next() => {
                    let Some(shared) = shared.upgrade() else { return };
                    match heard {
                        Heard::Entry(entry) => shared.home.state().hear(&room, entry),
                        Heard::Gap(_) => {
                            shared.home.state().clear(&room);
                            break;
                        }
                    }
                    continue;
                }
                () = bell.notified() => {}
                () = sleep_until(check) => {}
            }
            check = next_check();
            let Some(shared) = shared.upgrade() else {
                return;
            };
            if refresh(&shared, &room).await.is_err() {
                check = Instant::now() + RETRY;
            }
        }
        drop(listener);
        from = loop {
            sleep(PAUSE).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            match refresh(&shared, &room).await {
                Ok(from) => break from,
                Err(_) => sleep(RETRY).await,
            }
        };
    }
}

fn next_check() -> Instant {
    Instant::now() + CHECKED_EVERY.mul_f64(rand::random_range(0.5..1.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(ms: u64) -> Entry {
        let field = (Bytes::from_static(b"message"), Bytes::from(ms.to_string()));
        Entry::new(EntryId::new(ms, 0), vec![field])
    }

    fn id(ms: u64) -> Option<EntryId> {
        Some(EntryId::new(ms, 0)).filter(|_| ms > 0)
    }

    /// A room that has heard these, that reads these as it had heard up to `heard`, and hears the
    /// next ones then; what it shows, and its last.
    fn check(first: &[u64], read: &[u64], heard: u64, next: &[u64], want: &[u64], last: u64) {
        let mut followed = Followed::default();
        for ms in first {
            followed.hear(Arc::new(entry(*ms)));
        }
        let newest = read.iter().rev().map(|ms| entry(*ms)).collect();
        let rules = Vec::new();
        followed.merge(Read { newest, rules }, id(heard));
        for ms in next {
            followed.hear(Arc::new(entry(*ms)));
        }
        let shown: Vec<u64> = followed.messages.iter().map(|m| m.entry.id.ms).collect();
        assert_eq!(shown, want, "{first:?} {read:?} {heard} {next:?}");
        assert_eq!(followed.last, id(last), "{first:?} {read:?} {heard}");
    }

    #[test]
    fn what_is_read_and_what_is_heard() {
        check(&[], &[], 0, &[], &[], 0);
        check(&[], &[5, 6], 0, &[7], &[5, 6, 7], 7);
        // Heard while it was read; read before it was heard.
        check(&[5, 6], &[5], 5, &[7], &[5, 6, 7], 7);
        check(&[5], &[5, 6], 5, &[6, 7], &[5, 6, 7], 7);
        // One was taken away, also the last one, and all.
        check(&[5, 6, 7], &[4, 5, 7], 7, &[], &[4, 5, 7], 7);
        check(&[5, 6, 7], &[5, 6], 7, &[8], &[5, 6, 8], 8);
        check(&[5, 6, 7], &[5, 6], 7, &[], &[5, 6], 7);
        check(&[5, 6], &[], 6, &[], &[], 0);
        check(&[5, 6], &[], 5, &[], &[6], 6);
        let many: Vec<u64> = (1..=15).collect();
        check(
            &many,
            &many[5..],
            15,
            &[16],
            &(7..=16).collect::<Vec<_>>(),
            16,
        );
    }
}
