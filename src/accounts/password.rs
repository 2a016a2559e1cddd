//! Passwords to hashes: argon2id, on threads of its own, so many at a time and no more.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::AccountError;
use crate::auth::Secret;

/// Shortest password, in bytes: NIST SP 800-63B has as many characters.
pub const PASSWORD_MIN: usize = 8;

/// Longest, in bytes.
pub const PASSWORD_MAX: usize = 256;

/// 19 MiB, two passes, one lane: OWASP's recommendation for argon2id. About 20 ms of a processor.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// The most that are computed at a time: 76 MiB, and no more than the processors.
const PARALLEL_MAX: usize = 4;

/// So many may wait for their turn, which is about a second; whoever comes then had better come again.
const WAITING_MAX: usize = 64;

/// No password's hash, which takes as long to check as any.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Whether it's neither too short nor too long.
pub(super) fn is_fit(password: &Secret) -> bool {
    (PASSWORD_MIN..=PASSWORD_MAX).contains(&password.expose().len())
}

/// Makes and checks hashes.
pub(super) struct Hasher {
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Hasher {
    pub(super) fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let parallel = processors.min(PARALLEL_MAX);
        Hasher {
            turns: Arc::new(Semaphore::new(parallel)),
            places: Arc::new(Semaphore::new(parallel + WAITING_MAX)),
        }
    }

    /// A new hash, with a salt of its own, as a PHC string.
    pub(super) async fn hash(&self, password: Secret) -> Result<String, AccountError> {
        self.compute(move || {
            let salt: [u8; 16] = rand::random();
            let hash = argon2()?.hash_password_with_salt(password.expose(), &salt);
            Ok(hash.map_err(internal)?.to_string())
        })
        .await
    }

    /// Whether it's the hash of this password. Without a hash it's not, and that takes as long.
    pub(super) async fn verify(
        &self,
        password: Secret,
        hash: Option<String>,
    ) -> Result<bool, AccountError> {
        self.compute(move || {
            let hash = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY)).map_err(internal)?;
            let verified = argon2()?.verify_password(password.expose(), &hash);
            match verified {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(error) => Err(internal(error)),
            }
        })
        .await
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| AccountError::Busy)?;
        let turn = self.turns.clone().acquire_owned().await;
        let turn = turn.map_err(internal)?;
        // They go along, as the work goes on if whoever asked for it goes away.
        let permits: [OwnedSemaphorePermit; 2] = [place, turn];
        let work = move || {
            let done = work();
            drop(permits);
            done
        };
        tokio::task::spawn_blocking(work).await.map_err(internal)?
    }
}

fn argon2() -> Result<Argon2<'static>, AccountError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(internal)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn internal(error: impl std::fmt::Display) -> AccountError {
    AccountError::Internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hashes() {
        let hasher = Hasher::new();
        let secret = |text: &str| Secret::from(text);
        let hash = hasher.hash(secret("correct horse")).await.unwrap();
        let start = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(hash.starts_with(start), "{hash}");
        // 16 bytes of salt, 32 of hash.
        assert_eq!(hash.len(), start.len() + 22 + 1 + 43, "{hash}");
        assert_eq!(hash.len(), NOBODY.len());
        assert!(NOBODY.starts_with(start));
        let again = hasher.hash(secret("correct horse")).await.unwrap();
        assert_ne!(hash, again, "each has its own salt");
        let check = async |password: &str, hash: Option<&str>, want: bool| {
            let hash = hash.map(str::to_owned);
            let got = hasher.verify(secret(password), hash).await;
            assert_eq!(got, Ok(want), "{password}");
        };
        check("correct horse", Some(&hash), true).await;
        check("correct horse", Some(&again), true).await;
        check("correct horsf", Some(&hash), false).await;
        check("correct horse", None, false).await;
        let broken = hasher.verify(secret("x"), Some("not a hash".into())).await;
        assert!(
            matches!(broken, Err(AccountError::Internal(_))),
            "{broken:?}"
        );
    }

    #[test]
    fn lengths() {
        for (length, want) in [(7, false), (8, true), (256, true), (257, false)] {
            assert_eq!(is_fit(&Secret::new(vec![b'x'; length])), want, "{length}");
        }
    }

    #[tokio::test]
    async fn no_more_than_can_wait() {
        let hasher = Hasher::new();
        let places = hasher.places.available_permits();
        let _all = hasher
            .places
            .clone()
            .acquire_many_owned(places as u32)
            .await;
        let busy = hasher.hash(Secret::from("correct horse")).await;
        assert_eq!(busy, Err(AccountError::Busy));
    }
}
