//! A stream that suffers everything Redis streams do, a follower that tails it between blows, and
//! subscribers at random distances behind. What each subscriber is given is held against what the
//! stream ever held.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::relay::batch::{self, Pending};
use crate::relay::cursor::Cursor;
use crate::relay::entry::{Entry, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};
use crate::relay::page::{self, Page};
use crate::relay::window::WindowLimits;

const LIMITS: WindowLimits = WindowLimits {
    entries: 12,
    bytes: 1 << 20,
};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Blow {
    Add(u8),
    Trim(u8),
    /// XDEL of the entry so many from the end, if it was read: one that nobody read makes a count
    /// that can be any other's.
    Remove(u8),
    /// DEL; new IDs go on from the clock.
    Delete,
    /// DEL, and IDs begin below all there were.
    Restart,
    /// The end is lost, as in a failover.
    Rewind(u8),
    /// The tail reads; the flag says whether it also gets its survey, if it wants one.
    Read(bool),
    /// A subscriber reads; the number says which.
    Take(u8),
    Join,
}

/// An entry as it was added: `serial` tells apart what IDs can't.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Added {
    id: EntryId,
    serial: u64,
}

#[derive(Default)]
struct Model {
    /// What the stream holds; `None` if there's no key.
    entries: Option<Vec<Added>>,
    last: EntryId,
    added: u64,
    clock: u64,
    /// The clock stands still at 0.
    is_low: bool,
    serial: u64,
    /// Serials in the order a reader who misses nothing sees them, with those lost for ever.
    history: Vec<Added>,
    removed: Vec<u64>,
    /// Deleted or rewound, and the tail has not looked since.
    is_unread: bool,
}

impl Model {
    fn add(&mut self) {
        self.clock += u64::from(!self.is_low);
        self.serial += 1;
        // IDs go back, but no two entries share one, as with Redis's own IDs.
        let id = EntryId::new(self.clock.max(self.last.ms), self.serial);
        let added = Added {
            id,
            serial: self.serial,
        };
        self.entries.get_or_insert_default().push(added);
        self.history.push(added);
        self.last = id;
        self.added += 1;
    }

    /// The key goes. Entries that came and went while the follower stood on no entry left nothing
    /// to find them by.
    fn forget(&mut self, window: &Window) {
        if window.find(window.head()).is_none() {
            self.removed
                .extend(self.history.iter().map(|entry| entry.serial));
        }
        self.is_unread = true;
        self.entries = None;
        self.last = EntryId::ZERO;
        self.added = 0;
    }

    fn held(&self) -> &[Added] {
        self.entries.as_deref().unwrap_or_default()
    }

    fn state(&self) -> Option<StreamState> {
        self.entries.as_ref().map(|entries| StreamState {
            first: entries.first().map(|entry| entry.id),
            last: self.last,
            len: entries.len() as u64,
            added: Some(self.added),
        })
    }

    fn read(&self, after: EntryId) -> Read {
        Read {
            after,
            cursor_entry: self.held().iter().find(|held| held.id == after).map(entry),
            entries: self
                .held()
                .iter()
                .filter(|entry| entry.id > after)
                .map(entry)
                .collect(),
        }
    }

    fn survey(&self, newest: usize) -> Survey {
        let from = self.held().len().saturating_sub(newest);
        Survey {
            state: self.state(),
            newest: self.held()[from..].iter().map(entry).collect(),
        }
    }
}

fn entry(added: &Added) -> Entry {
    let serial = Bytes::copy_from_slice(&added.serial.to_be_bytes());
    Entry::new(added.id, [(Bytes::from_static(b"s"), serial)])
}

/// Frames are `E` + serial, and `G` + reason: nine bytes each.
static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| [b"E", entry.fields[0].1.as_ref()].concat().into(),
    gap: |_, gap: &Gap| {
        GapFrame::Frame(
            [b"G".as_slice(), &(gap.reason as u64).to_be_bytes()]
                .concat()
                .into(),
        )
    },
    aside: |_| None,
    close: |_| Bytes::new(),
};

struct Subscriber {
    cursor: Cursor,
    /// History index it began from.
    began: usize,
    got: Vec<Option<u64>>,
}

impl Subscriber {
    /// Takes what there is, once; true if there was something.
    fn take(&mut self, room: &RoomName, model: &Model, window: &Window) -> bool {
        let batch = match batch::from_window(window, room, &FORMAT, &self.cursor) {
            Pending::CaughtUp => return false,
            Pending::Batch(batch) => batch,
            Pending::Behind => match self.page(room, model, window) {
                Some(batch) => batch,
                None => return false,
            },
        };
        for frame in batch.bytes.chunks(9) {
            let number = u64::from_be_bytes(frame[1..].try_into().unwrap());
            self.got.push((frame[0] == b'E').then_some(number));
        }
        self.cursor = batch.end;
        true
    }

    /// What `page::read` does, without the log.
    fn page(
        &mut self,
        room: &RoomName,
        model: &Model,
        window: &Window,
    ) -> Option<std::sync::Arc<batch::Batch>> {
        let (cursor, floor) = (self.cursor, window.floor());
        let state = model.state()?;
        if cursor.exact && (state.last < cursor.id || state.last < floor) {
            return None;
        }
        let entries: Vec<Arc<Entry>> = model
            .held()
            .iter()
            .filter(|entry| entry.id > cursor.id && entry.id <= floor)
            .map(|added| Arc::new(entry(added)))
            .collect();
        let present = model.held().iter().any(|entry| entry.id == cursor.id);
        let reason =
            page::lost_since(&state, cursor.id, floor).filter(|_| cursor.exact && !present);
        let lost = reason.map(|reason| {
            let upto = entries
                .first()
                .map_or(floor, |first| first.id.predecessor());
            (upto, reason)
        });
        let page = Page {
            entries,
            lost,
            end: floor,
        };
        match batch::from_page(&page, room, &FORMAT, &cursor) {
            Pending::Batch(batch) => Some(batch),
            Pending::CaughtUp | Pending::Behind => panic!("a page brings its cursor forward"),
        }
    }

    /// Between two entries without a gap, nothing but what was removed one by one.
    fn check(&self, model: &Model) -> Result<(), String> {
        let mut at = self.began;
        let mut told = false;
        for got in &self.got {
            let Some(serial) = got else {
                told = true;
                continue;
            };
            let index = model
                .history
                .iter()
                .position(|added| added.serial == *serial)
                .ok_or_else(|| format!("{serial} was never added"))?;
            if index < at && !told {
                return Err(format!(
                    "{serial} came twice or out of order in {:?}",
                    self.got
                ));
            }
            let skipped = model.history.get(at..index).unwrap_or_default();
            if let Some(lost) = skipped
                .iter()
                .find(|lost| !model.removed.contains(&lost.serial))
                && !told
            {
                return Err(format!(
                    "{} is missing before {serial} in {:?}",
                    lost.serial, self.got
                ));
            }
            at = index + 1;
            told = false;
        }
        let rest = model.history.get(at..).unwrap_or_default();
        let held = rest.iter().find(|added| model.held().contains(added));
        match held {
            Some(missing) if !told => {
                Err(format!("never got {} after {:?}", missing.serial, self.got))
            }
            _ => Ok(()),
        }
    }
}

fn suffer(blows: &[Blow]) -> Result<(), String> {
    let room = RoomName::parse("r").unwrap();
    let mut model = Model::default();
    let mut follower = Follower::default();
    let mut window = Window::new(EntryId::ZERO, Vec::new(), None);
    let mut subscribers: Vec<Subscriber> = Vec::new();
    let tail = |follower: &mut Follower, window: &mut Window, model: &Model, survey: bool| {
        match follower.next(window) {
            Next::Read { after } => follower.on_read(window, model.read(after)),
            Next::Survey { newest } if survey => follower.on_survey(window, model.survey(newest)),
            Next::Survey { .. } => {}
        }
        window.evict(&LIMITS);
    };
    tail(&mut follower, &mut window, &model, true);
    for blow in blows {
        match blow {
            Blow::Add(count) => (0..*count).for_each(|_| model.add()),
            Blow::Trim(keep) => {
                // A stream begun anew that was trimmed before anybody read it can have, by chance, the
                // very counts of the old one; here it has not.
                let is_read = !model.is_unread;
                if let Some(entries) = model.entries.as_mut().filter(|_| is_read) {
                    entries.drain(..entries.len().saturating_sub(usize::from(*keep)));
                }
            }
            Blow::Remove(back) => {
                if let Some(entries) = &mut model.entries
                    && let Some(index) = entries.len().checked_sub(1 + usize::from(*back))
                    && window.find(entries[index].id).is_some()
                {
                    model.removed.push(entries.remove(index).serial);
                }
            }
            Blow::Delete => model.forget(&window),
            Blow::Restart => {
                model.forget(&window);
                (model.clock, model.is_low) = (0, true);
            }
            Blow::Rewind(lost) => {
                if let Some(entries) = &mut model.entries {
                    let keep = entries
                        .len()
                        .saturating_sub(usize::from(*lost))
                        .max(1)
                        .min(entries.len());
                    let gone = entries.split_off(keep);
                    // What a failover lost is not in the stream: not owed to those who missed it.
                    model.removed.extend(gone.iter().map(|entry| entry.serial));
                    if let Some(end) = entries.last().filter(|_| !gone.is_empty()) {
                        model.is_unread = true;
                        model.last = end.id;
                        model.added -= gone.len() as u64;
                        // The new master's clock is behind or ahead; both happen.
                        model.clock = if gone.len() % 2 == 0 {
                            end.id.ms
                        } else {
                            model.clock
                        };
                    }
                }
            }
            Blow::Read(survey) => {
                tail(&mut follower, &mut window, &model, *survey);
                model.is_unread &= matches!(follower.next(&window), Next::Survey { .. });
            }
            Blow::Take(which) => {
                // A page read in the moment between a stream's replacement and its tail noticing
                // can't be told from one of the old stream if the IDs of both interleave, which
                // takes explicit IDs. Here the tail notices first.
                for _ in 0..3 {
                    tail(&mut follower, &mut window, &model, true);
                }
                model.is_unread = false;
                let count = subscribers.len().max(1);
                if let Some(subscriber) = subscribers.get_mut(usize::from(*which) % count) {
                    subscriber.take(&room, &model, &window);
                }
            }
            Blow::Join => {
                if follower.opened() && model.last == window.head() {
                    subscribers.push(Subscriber {
                        cursor: Cursor::after(window.head(), window.lineage()),
                        began: model.history.len(),
                        got: Vec::new(),
                    });
                }
            }
        }
    }
    for _ in 0..12 {
        tail(&mut follower, &mut window, &model, true);
    }
    for subscriber in &mut subscribers {
        let mut left = 10_000;
        while subscriber.take(&room, &model, &window) {
            left -= 1;
            if left == 0 {
                return Err("a subscriber never comes to the end".to_owned());
            }
        }
        subscriber.check(&model)?;
    }
    Ok(())
}

fn blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        6 => (1..6u8).prop_map(Blow::Add),
        1 => (0..6u8).prop_map(Blow::Trim),
        1 => (0..4u8).prop_map(Blow::Remove),
        1 => Just(Blow::Delete),
        1 => Just(Blow::Restart),
        1 => (1..20u8).prop_map(Blow::Rewind),
        6 => any::<bool>().prop_map(Blow::Read),
        4 => any::<u8>().prop_map(Blow::Take),
        2 => Just(Blow::Join),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_is_lost_in_silence(blows in prop::collection::vec(blow(), 1..80)) {
        prop_assert_eq!(suffer(&blows), Ok(()));
    }
}

#[test]
fn a_missing_cursor_is_surveyed_once_at_a_time() {
    let mut model = Model::default();
    (0..3).for_each(|_| model.add());
    let mut follower = Follower::default();
    let mut window = Window::new(EntryId::ZERO, Vec::new(), None);
    follower.on_survey(&mut window, model.survey(100));
    // XTRIM MAXLEN 0: the cursor's entry is gone, and nothing is lost.
    model.entries = Some(Vec::new());
    let after = window.head();
    for _ in 0..3 {
        follower.on_read(&mut window, model.read(after));
        assert_eq!(follower.next(&window), Next::Survey { newest: 100 });
        follower.on_survey(&mut window, model.survey(100));
        // The read that follows at once finds it gone again, and leaves it at that.
        follower.on_read(&mut window, model.read(after));
        assert_eq!(follower.next(&window), Next::Read { after });
    }
    assert_eq!(window.lineage(), 0);
}

#[test]
fn a_rewound_stream_that_grew_far_is_surveyed_deeper() {
    let mut model = Model::default();
    (0..300).for_each(|_| model.add());
    let mut follower = Follower::default();
    let mut window = Window::new(EntryId::ZERO, Vec::new(), None);
    let survey = |follower: &mut Follower, window: &mut Window, model: &Model| {
        let mut asked = Vec::new();
        while let Next::Survey { newest } = follower.next(window) {
            asked.push(newest);
            follower.on_survey(window, model.survey(newest));
        }
        asked
    };
    assert_eq!(survey(&mut follower, &mut window, &model), [100]);
    // A failover loses ten entries, and 250 come before the tail is back.
    let entries = model.entries.as_mut().unwrap();
    entries.truncate(290);
    let kept = entries[289].id;
    (model.last, model.added, model.clock) = (kept, 290, kept.ms);
    (0..250).for_each(|_| model.add());
    let read = model.read(window.head());
    follower.on_read(&mut window, read);
    assert_eq!(survey(&mut follower, &mut window, &model), [100, 1_000]);
    assert_eq!(window.head(), kept, "goes on where the two part");
    follower.on_read(&mut window, model.read(kept));
    assert_eq!(window.head(), model.last);
}
