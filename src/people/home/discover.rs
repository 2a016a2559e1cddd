//! Finds the rooms of the homepage: those that this node publishes into at once, the others by looking
//! through Redis, a piece every few seconds.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Stale, State, follow};
use crate::people::{Refusal, Shared};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::hub::HistoryQuery;

/// How often Redis is looked through, a piece at a time.
const EVERY: Duration = Duration::from_secs(5);

/// How long after the last who asked for it the homepage is given up.
const IDLE: Duration = Duration::from_secs(5 * 60);

/// Rooms in one piece, about.
const PIECE: usize = 1_000;

/// Pieces looked through before the first who asks gets an answer.
const PIECES_FIRST: usize = 8;

/// What this node sees is gathered for so long.
const GATHERED: Duration = Duration::from_millis(50);

/// How long to wait before Redis is asked again, when it did not answer at first.
const RETRY: Duration = Duration::from_millis(250);

/// Rooms read at a time.
const AT_A_TIME: usize = 50;

/// Where the look through Redis stands.
struct Look {
    cursor: u64,
    pass: u64,
    /// Whether this pass has met a room for which there is no place.
    has_more: bool,
}

/// Keeps the homepage, until nobody asks for it any more.
pub(super) async fn run(shared: Weak<Shared>) {
    let mut look = Look {
        cursor: 0,
        pass: 1,
        has_more: false,
    };
    let mut is_first = true;
    loop {
        let next = Instant::now() + EVERY;
        let Some(strong) = shared.upgrade() else {
            return;
        };
        if strong.home.end_if_idle(IDLE) {
            return;
        }
        match tick(&strong, &mut look, is_first).await {
            Ok(()) => {
                is_first = false;
                strong.home.ready.send_replace(true);
            }
            Err(error) => tracing::debug!(%error, "the homepage can't look for rooms"),
        }
        drop(strong);
        // A first look that failed is what somebody waits for.
        let next = if is_first {
            Instant::now() + RETRY
        } else {
            next
        };
        loop {
            let Some(strong) = shared.upgrade() else {
                return;
            };
            let bell = strong.home.bell.clone();
            drop(strong);
            tokio::select! {
                () = bell.notified() => {}
                () = sleep_until(next) => break,
            }
            sleep(GATHERED).await;
            let Some(strong) = shared.upgrade() else {
                return;
            };
            if let Err(error) = take_seen(&strong, look.pass).await {
                tracing::debug!(%error, "the homepage can't read a room");
            }
        }
    }
}

/// Looks through a piece of Redis, and asks how many users are where.
async fn tick(shared: &Arc<Shared>, look: &mut Look, is_first: bool) -> Result<(), Refusal> {
    take_seen(shared, look.pass).await?;
    let pieces = if is_first { PIECES_FIRST } else { 1 };
    let mut found = BTreeSet::new();
    let mut is_over = false;
    for _ in 0..pieces {
        let (rooms, next) = shared.board.rooms(look.cursor, PIECE).await?;
        found.extend(rooms);
        look.cursor = next;
        is_over = next == 0;
        if is_over {
            break;
        }
    }
    look.has_more |= take(shared, found, look.pass, true).await?;
    if is_over {
        let mut state = shared.home.state();
        state.end_pass(look);
        look.pass += 1;
        look.has_more = false;
    }
    count(shared).await
}

async fn take_seen(shared: &Arc<Shared>, pass: u64) -> Result<(), Refusal> {
    let seen = std::mem::take(&mut shared.home.state().seen);
    take(shared, seen, pass, false).await?;
    Ok(())
}

/// Follows those of the rooms that are among the most active ones. Whether there are more.
async fn take(
    shared: &Arc<Shared>,
    mut found: BTreeSet<RoomName>,
    pass: u64,
    exist: bool,
) -> Result<bool, Refusal> {
    let most = shared.settings.homepage_rooms;
    let places = {
        let mut state = shared.home.state();
        found.retain(|room| match state.rooms.get_mut(room) {
            Some(followed) => {
                followed.pass = pass;
                let is_news = exist && !followed.exists;
                if is_news {
                    followed.exists = true;
                    state.stale = state.stale.max(Stale::Soon);
                }
                false
            }
            None => true,
        });
        most.saturating_sub(state.rooms.len())
    };
    let mut has_more = false;
    let mut chosen: Vec<RoomName> = found.into_iter().collect();
    if chosen.len() > places {
        has_more = true;
        chosen = most_active(shared, chosen, most).await?;
    }
    for rooms in chosen.chunks(AT_A_TIME) {
        let reading = rooms
            .iter()
            .map(|room| follow::begin(shared, room, exist, pass));
        for read in join_all(reading).await {
            match read {
                // This room's key is something else by now, or nobody may read it.
                Err(error) if !error.passes() => {}
                read => read?,
            }
        }
    }
    Ok(has_more)
}

/// Makes places for those of these rooms that were active later than what is followed, and answers
/// which.
async fn most_active(
    shared: &Shared,
    rooms: Vec<RoomName>,
    most: usize,
) -> Result<Vec<RoomName>, Refusal> {
    let newest = HistoryQuery {
        after: None,
        before: None,
        limit: 1,
        newest_first: true,
    };
    let newest = rooms.iter().map(|room| shared.relay.history(room, newest));
    let newest = join_all(newest).await;
    let mut ranked: Vec<Rank> = Vec::with_capacity(rooms.len());
    for (room, page) in rooms.into_iter().zip(newest) {
        match page {
            Ok(page) => ranked.push((page.entries.first().map(|entry| entry.id), Reverse(room))),
            Err(error) if error.passes() => return Err(error.into()),
            Err(_) => {}
        }
    }
    ranked.sort_by(|one, other| other.cmp(one));
    Ok(shared.home.state().make_places(ranked, most))
}

/// What decides which rooms are shown, and in which order: the newest activity, and where IDs are the same,
/// as those of two rooms in one millisecond may be, the name that sorts first.
type Rank = (Option<EntryId>, Reverse<RoomName>);

impl State {
    /// Of these rooms, latest activity first, those that belong among `most`; for each that finds no
    /// place, one that is followed and was active earlier is let go.
    fn make_places(&mut self, ranked: Vec<Rank>, most: usize) -> Vec<RoomName> {
        let mut followed: Vec<Rank> = self
            .rooms
            .iter()
            .map(|(room, followed)| (followed.last, Reverse(room.clone())))
            .collect();
        // The earliest is the last one.
        followed.sort_by(|one, other| other.cmp(one));
        let mut chosen = Vec::new();
        for rank in ranked {
            if followed.len() + chosen.len() >= most {
                match followed.last() {
                    Some(earliest) if *earliest < rank => {
                        if let Some((_, Reverse(gone))) = followed.pop() {
                            self.rooms.remove(&gone);
                            self.stale = self.stale.max(Stale::Soon);
                        }
                    }
                    _ => break,
                }
            }
            chosen.push(rank.1.0);
        }
        chosen
    }

    /// All of Redis was looked through. What was not met is gone, or has just begun.
    fn end_pass(&mut self, look: &Look) {
        if self.is_truncated != look.has_more {
            self.is_truncated = look.has_more;
            self.stale = self.stale.max(Stale::Soon);
        }
        let (mut are_gone, pass) = (false, look.pass);
        self.rooms.retain(|_, followed| {
            let is_met = followed.pass >= pass;
            let stays = is_met || !followed.messages.is_empty();
            if stays && !is_met {
                followed.bell.notify_one();
            }
            are_gone |= !stays;
            stays
        });
        if are_gone {
            self.stale = self.stale.max(Stale::Soon);
        }
    }
}

/// Asks how many users are in each room.
async fn count(shared: &Arc<Shared>) -> Result<(), Refusal> {
    let rooms: Vec<RoomName> = shared.home.state().rooms.keys().cloned().collect();
    let counts = shared.counts(&rooms).await?;
    let mut state = shared.home.state();
    for (room, count) in rooms.iter().zip(counts) {
        let is_news = |count_before| count_before != count;
        if state
            .rooms
            .get(room)
            .is_some_and(|followed| is_news(followed.count))
            && let Some(followed) = state.change(room, Stale::Soon)
        {
            followed.count = count;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Followed;
    use super::*;

    fn id(ms: u64) -> Option<EntryId> {
        Some(EntryId::new(ms, 0)).filter(|_| ms > 0)
    }

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    /// Rooms that are followed and rooms that are found, with their last activity; which are
    /// chosen of the latter, and which of the former stay.
    fn check(followed: &[(&str, u64)], found: &[(&str, u64)], most: usize, want: (&str, &str)) {
        let mut state = State::default();
        for (name, last) in followed {
            let one = Followed {
                last: id(*last),
                ..Followed::default()
            };
            state.rooms.insert(room(name), one);
        }
        let ranked = found
            .iter()
            .map(|(name, last)| (id(*last), Reverse(room(name))));
        let chosen = state.make_places(ranked.collect(), most);
        let names = |rooms: Vec<&RoomName>| {
            let mut names: Vec<&str> = rooms.into_iter().map(RoomName::as_str).collect();
            names.sort_unstable();
            names.join(" ")
        };
        let got = (
            names(chosen.iter().collect()),
            names(state.rooms.keys().collect()),
        );
        assert_eq!((&*got.0, &*got.1), want, "{followed:?} {found:?}");
    }

    #[test]
    fn places() {
        check(&[], &[("b", 2), ("a", 1)], 1, ("b", ""));
        check(&[("a", 1)], &[("b", 2)], 1, ("b", ""));
        check(&[("b", 2)], &[("a", 1)], 1, ("", "b"));
        check(&[("a", 1), ("d", 4)], &[("c", 3), ("b", 2)], 2, ("c", "d"));
        check(&[("a", 1)], &[("e", 0), ("f", 0)], 2, ("e", "a"));
        check(&[("a", 0)], &[("b", 0)], 1, ("", "a"));
        check(&[("a", 0)], &[("b", 1)], 1, ("b", ""));
    }
}
