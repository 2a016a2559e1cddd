//! What waits to be appended, in two lanes, each bounded in number and bytes. The first lane goes
//! out before the usual one, and has a budget of its own, so that no crowd can keep a host from
//! speaking.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::relay::entry::{EntryId, Fields, RoomName, fields_size};
use crate::relay::log::{Append, AppendDone, AppendError, Lane, Limit, LogError};

/// Most appends in one pipeline. Measured: 64 saturate a Redis core, and more only lengthen the
/// time until the first of them is told.
const BATCH: usize = 512;

/// Most bytes in one pipeline, unless a single append is larger.
const BATCH_BYTES: usize = 1 << 20;

/// The queue.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    pushed: Notify,
    first_budget: Arc<Budget>,
    usual_budget: Arc<Budget>,
}

#[derive(Default)]
struct Waiting {
    first: VecDeque<Pending>,
    usual: VecDeque<Pending>,
}

/// One append on its way.
pub(super) struct Pending {
    pub(super) room: RoomName,
    pub(super) fields: Fields,
    pub(super) key: Option<Bytes>,
    pub(super) limits: Box<[Limit]>,
    pub(super) deadline: Instant,
    /// It's on the wire.
    pub(super) out: bool,
    /// It was on the wire before, on a connection that broke.
    pub(super) in_doubt: bool,
    done: Option<AppendDone>,
    place: Place,
}

impl Pending {
    /// Whether it asks for more than XADD.
    pub(super) fn needs_script(&self) -> bool {
        self.key.is_some() || !self.limits.is_empty()
    }

    /// Tells the outcome, once.
    pub(super) fn finish(&mut self, outcome: Result<EntryId, AppendError>) {
        if let Some(done) = self.done.take() {
            self.place.free();
            done(outcome);
        }
    }
}

impl Drop for Pending {
    /// Whatever happens, the outcome is told.
    fn drop(&mut self) {
        let error = LogError::Unavailable("tailcast is stopping".to_owned());
        let outcome = match self.out || self.in_doubt {
            true => AppendError::Unknown(error),
            false => AppendError::Refused(error),
        };
        self.finish(Err(outcome));
    }
}

impl Queue {
    /// Each lane holds at most so many appends and bytes, those on the wire included.
    pub(super) fn new(most: usize, most_bytes: usize) -> Self {
        let budget = || {
            Arc::new(Budget {
                most,
                most_bytes,
                count: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
            })
        };
        Queue {
            waiting: Mutex::default(),
            pushed: Notify::new(),
            first_budget: budget(),
            usual_budget: budget(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues it, or refuses it.
    pub(super) fn push(&self, append: Append) {
        let names = append.limits.iter().map(|limit| limit.name.len());
        let size = fields_size(&append.fields)
            + append.key.as_ref().map_or(0, Bytes::len)
            + names.sum::<usize>();
        let budget = match append.lane {
            Lane::First => &self.first_budget,
            Lane::Usual => &self.usual_budget,
        };
        let Some(place) = Budget::take(budget, size) else {
            (append.done)(Err(AppendError::Refused(LogError::Busy)));
            return;
        };
        let pending = Pending {
            room: append.room,
            fields: append.fields,
            key: append.key,
            limits: append.limits,
            deadline: append.deadline,
            out: false,
            in_doubt: false,
            done: Some(append.done),
            place,
        };
        let mut waiting = self.lock();
        match append.lane {
            Lane::First => waiting.first.push_back(pending),
            Lane::Usual => waiting.usual.push_back(pending),
        }
        drop(waiting);
        self.pushed.notify_one();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.first.is_empty() && waiting.usual.is_empty()
    }

    /// Returns after a push, perhaps an older one.
    pub(super) async fn pushed(&self) {
        self.pushed.notified().await;
    }

    /// Takes out what is past its deadline.
    pub(super) fn take_expired(&self, now: Instant) -> Vec<Pending> {
        let waiting = &mut *self.lock();
        let mut late = Vec::new();
        for lane in [&mut waiting.first, &mut waiting.usual] {
            if lane.iter().all(|pending| pending.deadline > now) {
                continue;
            }
            let (past, rest) = lane
                .drain(..)
                .partition::<Vec<_>, _>(|pending| pending.deadline <= now);
            lane.extend(rest);
            late.extend(past);
        }
        late
    }

    /// Moves the next batch to `batch`: what goes out again, then the first lane, then the usual one.
    /// What goes out again is older than anything that waits, and less than one batch. Within a lane
    /// the order is kept; a connection's appends to one room are all in one lane.
    pub(super) fn take_batch(&self, again: &mut VecDeque<Pending>, batch: &mut Vec<Pending>) {
        let mut bytes = 0;
        let mut waiting = self.lock();
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let next = again
                .pop_front()
                .or_else(|| waiting.first.pop_front())
                .or_else(|| waiting.usual.pop_front());
            let Some(pending) = next else {
                return;
            };
            bytes += pending.place.size;
            batch.push(pending);
        }
    }
}

struct Budget {
    most: usize,
    most_bytes: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
}

impl Budget {
    fn take(self: &Arc<Self>, size: usize) -> Option<Place> {
        let within = |most: usize, more: usize| {
            move |now: usize| now.checked_add(more).filter(|sum| *sum <= most)
        };
        let (relaxed, count) = (Ordering::Relaxed, within(self.most, 1));
        self.count.fetch_update(relaxed, relaxed, count).ok()?;
        let bytes = within(self.most_bytes, size);
        if self.bytes.fetch_update(relaxed, relaxed, bytes).is_err() {
            self.count.fetch_sub(1, relaxed);
            return None;
        }
        Some(Place {
            budget: Some(self.clone()),
            size,
        })
    }
}

/// One append's share of the budget.
struct Place {
    budget: Option<Arc<Budget>>,
    size: usize,
}

impl Place {
    fn free(&mut self) {
        if let Some(budget) = self.budget.take() {
            budget.count.fetch_sub(1, Ordering::Relaxed);
            budget.bytes.fetch_sub(self.size, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    type Told = mpsc::Receiver<(usize, Result<EntryId, AppendError>)>;

    fn fill(queue: &Queue, sizes: &[usize]) -> Told {
        fill_lane(queue, Lane::Usual, sizes)
    }

    fn fill_lane(queue: &Queue, lane: Lane, sizes: &[usize]) -> Told {
        let (tell, told) = mpsc::channel();
        for (index, size) in sizes.iter().enumerate() {
            let tell = tell.clone();
            queue.push(Append {
                room: RoomName::parse("r").unwrap(),
                fields: Box::new([(Bytes::new(), Bytes::from(vec![0; *size]))]),
                key: None,
                limits: Box::default(),
                lane,
                deadline: Instant::now() + Duration::from_secs(index as u64),
                done: Box::new(move |outcome| drop(tell.send((index, outcome)))),
            });
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn refuses_over_count_and_over_bytes() {
        let busy = |index| (index, Err(AppendError::Refused(LogError::Busy)));
        let queue = Queue::new(2, 100);
        let told = fill(&queue, &[1, 1, 1]);
        assert_eq!(told.try_recv(), Ok(busy(2)));
        assert!(told.try_recv().is_err());
        let (mut again, mut batch) = (VecDeque::new(), Vec::new());
        queue.take_batch(&mut again, &mut batch);
        // What is on the wire counts as well.
        assert_eq!(fill(&queue, &[1]).try_recv(), Ok(busy(0)));
        batch.clear();
        let told = fill(&queue, &[60, 60, 40]);
        assert_eq!(told.try_recv(), Ok(busy(1)));
        assert!(told.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_lane_goes_first_and_is_never_refused_for_the_other() {
        let queue = Queue::new(3, 1000);
        let usual = fill(&queue, &[1, 2, 3, 4]);
        assert_eq!(usual.try_recv().unwrap().0, 3, "the usual lane is full");
        let first = fill_lane(&queue, Lane::First, &[11, 12, 13, 14]);
        assert_eq!(first.try_recv().unwrap().0, 3, "and so is this one");
        let sizes = |batch: &[Pending]| batch.iter().map(|p| p.place.size).collect::<Vec<_>>();
        let (mut again, mut batch) = (VecDeque::new(), Vec::new());
        queue.take_batch(&mut again, &mut batch);
        assert_eq!(sizes(&batch), [11, 12, 13, 1, 2, 3]);
        // What goes out again stays in front.
        again.extend(batch.drain(3..));
        batch.clear();
        let _first = fill_lane(&queue, Lane::First, &[21]);
        queue.take_batch(&mut again, &mut batch);
        assert_eq!(sizes(&batch), [1, 2, 3, 21]);
        assert!(queue.is_empty());
        let told = fill_lane(&queue, Lane::First, &[1, 1]);
        assert_eq!(queue.take_expired(Instant::now()).len(), 1);
        drop((queue, told));
    }

    #[tokio::test(start_paused = true)]
    async fn every_append_is_told() {
        let queue = Queue::new(9, 100);
        let told = fill(&queue, &[1, 1]);
        let late = queue.take_expired(Instant::now());
        assert_eq!(late.len(), 1);
        drop((late, queue));
        for index in 0..2 {
            let (told, outcome) = told.try_recv().unwrap();
            assert_eq!(told, index);
            assert!(matches!(outcome, Err(AppendError::Refused(_))));
        }
    }
}
