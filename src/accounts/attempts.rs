//! How often somebody may try: per user name, so that one password is not guessed from many places,
//! and per address, so that one place does not guess many. Each node counts for itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::AccountError;
use crate::auth::UserName;

/// Ten at once and then one every six seconds: nobody mistypes so often, and it's 14,400 guesses a day
/// and node at the most. A password that was right ends it.
const OF_USER: Rate = Rate {
    interval: Duration::from_secs(6),
    burst: 10,
};

/// Thirty at once and then one every two seconds: a class that registers behind one address.
const OF_PEER: Rate = Rate {
    interval: Duration::from_secs(2),
    burst: 30,
};

/// Names and addresses remembered; each is for a minute. At some 100 bytes each, 10 MB.
const REMEMBERED_MAX: usize = 100_000;

/// The generic cell rate algorithm (ITU-T I.371).
struct Rate {
    interval: Duration,
    burst: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    User(UserName),
    Peer(IpAddr),
}

/// When the rate of each is full again.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<Who, Instant>>);

impl Attempts {
    /// Counts one attempt, or says how long to wait; then it's not counted.
    pub(super) fn take(
        &self,
        user: Option<&UserName>,
        peer: Option<IpAddr>,
    ) -> Result<(), AccountError> {
        let now = Instant::now();
        let user = user.map(|user| (Who::User(user.clone()), OF_USER));
        let peer = peer.map(|peer| (Who::Peer(network(peer)), OF_PEER));
        let mut full = self.full();
        if full.len() >= REMEMBERED_MAX {
            full.retain(|_, at| *at > now);
            if full.len() >= REMEMBERED_MAX {
                return Err(AccountError::Busy);
            }
        }
        let mut after = Vec::with_capacity(2);
        for (who, rate) in user.into_iter().chain(peer) {
            let at = full.get(&who).map_or(now, |at| (*at).max(now)) + rate.interval;
            let excess = (at - now).saturating_sub(rate.interval * rate.burst);
            if !excess.is_zero() {
                return Err(AccountError::TooOften(excess));
            }
            after.push((who, at));
        }
        full.extend(after);
        Ok(())
    }

    /// It was them.
    pub(super) fn forget(&self, user: &UserName) {
        self.full().remove(&Who::User(user.clone()));
    }

    fn full(&self) -> MutexGuard<'_, HashMap<Who, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one customer has: an address of IPv4, a /64 of IPv6.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(peer) => {
            let bits = u128::from(peer) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(bits))
        }
        peer => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn guessing_is_slow() {
        let attempts = Attempts::default();
        let (bob, home) = (user("bob"), peer("192.0.2.1"));
        for number in 0..10 {
            let from = peer(&format!("192.0.2.{}", 100 + number));
            assert_eq!(attempts.take(Some(&bob), Some(from)), Ok(()));
        }
        // From wherever.
        let refused = attempts.take(Some(&bob), Some(home));
        assert_eq!(refused, Err(AccountError::TooOften(OF_USER.interval)));
        tokio::time::advance(OF_USER.interval).await;
        assert_eq!(attempts.take(Some(&bob), Some(home)), Ok(()));
        assert!(attempts.take(Some(&bob), Some(home)).is_err());
        attempts.forget(&bob);
        assert_eq!(attempts.take(Some(&bob), Some(home)), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_place_does_not_try_all() {
        let attempts = Attempts::default();
        for number in 0..30 {
            let name = user(&format!("user{number}"));
            let from = peer(&format!("2001:db8::{number}"));
            assert_eq!(attempts.take(Some(&name), Some(from)), Ok(()));
        }
        let refused = attempts.take(Some(&user("x")), Some(peer("2001:db8::ffff")));
        assert_eq!(refused, Err(AccountError::TooOften(OF_PEER.interval)));
        let elsewhere = peer("2001:db8:0:1::");
        assert_eq!(attempts.take(Some(&user("x")), Some(elsewhere)), Ok(()));
        // A refused one is not counted, neither for the user nor for the address.
        for _ in 0..100 {
            assert!(
                attempts
                    .take(Some(&user("y")), Some(peer("2001:db8::1")))
                    .is_err()
            );
        }
        assert_eq!(attempts.take(Some(&user("y")), Some(elsewhere)), Ok(()));
    }
}
