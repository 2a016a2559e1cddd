//! [`Flights`]: one read for all callers that ask for the same thing at the same time.
//!
//! Each read is driven by a task of its own, which takes the read off the list when it ends. A caller
//! that goes away therefore leaves nothing behind. A future that the callers themselves drive
//! together would stay on the list, with all that it holds, once the last of them is gone.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use tokio::sync::oneshot;

/// What becomes of a read that nobody waits for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unwanted {
    /// It is given up. Right for reads of which clients can begin any number.
    Stops,
    /// It goes on to its end, as it has an effect of its own.
    Finishes,
}

/// The reads that are under way, by what they read.
pub(super) struct Flights<K, T>(Arc<Mutex<Flying<K, T>>>);

/// What a read brings, for any number of callers.
pub(super) type Outcome<T> = Shared<oneshot::Receiver<T>>;

struct Flying<K, T> {
    by_key: HashMap<K, Flight<T>>,
    /// The number of the next flight.
    next: u64,
}

struct Flight<T> {
    number: u64,
    /// Weak, so that the task sees when the last caller has gone away.
    outcome: WeakShared<oneshot::Receiver<T>>,
}

/// Takes its flight off the list when it's dropped, also if the read panics.
struct Landing<K: Eq + Hash, T> {
    flights: Flights<K, T>,
    key: K,
    number: u64,
}

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Flights(Arc::new(Mutex::new(Flying {
            by_key: HashMap::new(),
            next: 0,
        })))
    }
}

impl<K, T> Flights<K, T> {
    fn flying(&self) -> MutexGuard<'_, Flying<K, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, T> Flights<K, T>
where
    K: Copy + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// The outcome of the read of this key: of the one that is under way, or of `read`, which then
    /// begins. An error if the read ended without one: it panicked, or the runtime shuts down.
    pub(super) fn join<F>(&self, key: K, unwanted: Unwanted, read: impl FnOnce() -> F) -> Outcome<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flying = self.flying();
        let under_way = flying.by_key.get(&key);
        match under_way.and_then(|flight| flight.outcome.upgrade()) {
            Some(outcome) => outcome,
            None => {
                let (sender, outcome) = oneshot::channel();
                let outcome = outcome.shared();
                let number = flying.next;
                flying.next += 1;
                if let Some(outcome) = outcome.downgrade() {
                    flying.by_key.insert(key, Flight { number, outcome });
                }
                let landing = Landing {
                    flights: Flights(self.0.clone()),
                    key,
                    number,
                };
                let kept = (unwanted == Unwanted::Finishes).then(|| outcome.clone());
                tokio::spawn(fly(read(), sender, landing, kept));
                outcome
            }
        }
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flying().by_key.len()
    }
}

async fn fly<K: Eq + Hash, T>(
    read: impl Future<Output = T>,
    mut sender: oneshot::Sender<T>,
    landing: Landing<K, T>,
    kept: Option<Outcome<T>>,
) where
    T: Clone,
{
    let outcome = tokio::select! {
        outcome = read => outcome,
        () = sender.closed() => return,
    };
    // Off the list first: a caller that has this outcome and asks again is to have a new read.
    drop(landing);
    drop(kept);
    // It fails if nobody waits.
    let _ = sender.send(outcome);
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        let mut flying = self.flights.flying();
        // Another one may fly under this key by now.
        let is_own = |flight: &Flight<T>| flight.number == self.number;
        if flying.by_key.get(&self.key).is_some_and(is_own) {
            flying.by_key.remove(&self.key);
        }
        if flying.by_key.is_empty() {
            flying.by_key.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    const LONG: Duration = Duration::from_millis(300);

    /// A read that lasts, and counts how many of its kind have ended.
    async fn read(ended: Arc<Mutex<u32>>) -> u32 {
        sleep(LONG).await;
        let mut ended = ended.lock().unwrap();
        *ended += 1;
        *ended
    }

    #[tokio::test(start_paused = true)]
    async fn callers_share_a_read_and_the_next_one_has_its_own() {
        let (flights, ended) = (Flights::default(), Arc::default());
        let ask = || flights.join(1, Unwanted::Stops, || read(Arc::clone(&ended)));
        let (one, other) = tokio::join!(ask(), ask());
        assert_eq!((one, other), (Ok(1), Ok(1)));
        assert_eq!(ask().await, Ok(2));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_goes_away_leaves_nothing() {
        for (unwanted, want) in [(Unwanted::Stops, 0), (Unwanted::Finishes, 1)] {
            let (flights, ended) = (Flights::default(), Arc::<Mutex<u32>>::default());
            let ask = || flights.join(1, unwanted, || read(ended.clone()));
            timeout(LONG / 6, ask()).await.unwrap_err();
            sleep(LONG).await;
            assert_eq!((flights.len(), *ended.lock().unwrap()), (0, want));
            assert_eq!(Arc::strong_count(&ended), 1, "{unwanted:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_outlives_the_caller_that_began_it_while_another_waits() {
        let (flights, ended) = (Flights::default(), Arc::default());
        let ask = || flights.join(1, Unwanted::Stops, || read(Arc::clone(&ended)));
        let (one, other) = tokio::join!(timeout(LONG / 6, ask()), ask());
        assert!(one.is_err());
        assert_eq!(other, Ok(1));
    }

    /// The one that is given up must not take the next one of its key off the list.
    #[tokio::test(start_paused = true)]
    async fn a_read_that_was_given_up_does_not_end_the_next_one() {
        let (flights, ended) = (Flights::default(), Arc::default());
        let ask = || flights.join(1, Unwanted::Stops, || read(Arc::clone(&ended)));
        drop(ask());
        let next = ask();
        sleep(LONG / 6).await;
        assert_eq!(flights.len(), 1);
        let (one, other) = tokio::join!(next, ask());
        assert_eq!((one, other), (Ok(1), Ok(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_panics_ends_for_those_who_wait() {
        let flights = Flights::<u8, ()>::default();
        let outcome = flights.join(1, Unwanted::Stops, async || panic!("as it's meant to"));
        outcome.await.unwrap_err();
        assert_eq!(flights.len(), 0);
    }
}
