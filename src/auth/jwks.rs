//! Public keys that change: a JWKS, from a file or a URL, kept here and read again now and then.
//!
//! A token with an unknown `kid` has it read again, but only so often, and by one at a time: anybody
//! can make up such tokens. If it can't be read, the keys there are go on to count.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonwebtoken::Header;
use jsonwebtoken::jwk::Jwk;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::{info, warn};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::AuthError;
use super::key::Key;

/// How long reading it may take, altogether.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest JWKS. Real ones have a few KiB.
const SIZE_MAX: u64 = 1024 * 1024;

/// Most answers that send the reader elsewhere.
const REDIRECTS_MAX: u32 = 3;

/// How often it's read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Not again before this, whatever comes.
    pub(super) least: Duration,
    /// The same while there is no key at all, so that a node that started first does not lag.
    pub(super) empty: Duration,
    /// Keys this old are read again by their next use, which does not wait for it.
    pub(super) stale: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            least: Duration::from_secs(30),
            empty: Duration::from_secs(5),
            stale: Duration::from_secs(600),
        }
    }
}

/// Where it is.
#[derive(Debug, Clone)]
pub(super) enum Source {
    File(PathBuf),
    Url(String),
}

/// Why it can't be read; for the log, as it may tell of places inside.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] Box<ureq::Error>),
    #[error("it is no JWKS: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has more than 1 MiB")]
    TooLarge,
    #[error("it has no key that can be used: RSA, P-256, P-384 or Ed25519, for signatures")]
    Empty,
}

impl Source {
    /// Reads the keys; blocks.
    pub(super) fn read(&self) -> Result<KeySet, ReadError> {
        let text = match self {
            Source::File(path) => {
                let mut text = Vec::new();
                let file = fs::File::open(path)?;
                file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
                text
            }
            Source::Url(url) => fetch(url).map_err(Box::new)?,
        };
        if text.len() as u64 > SIZE_MAX {
            return Err(ReadError::TooLarge);
        }
        KeySet::parse(&text)
    }
}

fn fetch(url: &str) -> Result<Vec<u8>, ureq::Error> {
    // The machine's own list, as for Redis: a login service may have a certificate of the house.
    let found = rustls_native_certs::load_native_certs().certs;
    let roots = match found.is_empty() {
        true => RootCerts::WebPki,
        false => found
            .iter()
            .map(|found| Certificate::from_der(found).to_owned())
            .into(),
    };
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .https_only(url.starts_with("https:"))
        .max_redirects(REDIRECTS_MAX)
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build()
        .new_agent();
    let mut answer = agent.get(url).call()?;
    let body = answer.body_mut().with_config().limit(SIZE_MAX);
    body.read_to_vec()
}

/// Keys by their `kid`.
#[derive(Debug, Default)]
pub(super) struct KeySet(Vec<(Option<String>, Key)>);

impl KeySet {
    /// Takes the keys that are of use, and leaves others where they are.
    fn parse(text: &[u8]) -> Result<Self, ReadError> {
        #[derive(Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }

        let document: Document = serde_json::from_slice(text)?;
        let mut keys = Vec::new();
        for value in document.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
                continue;
            };
            let kid = jwk.common.key_id.clone();
            match Key::from_jwk(&jwk) {
                Ok(key) => keys.push((kid, key)),
                Err(error) => info!(kid, %error, "a key of the JWKS is left out"),
            }
        }
        match keys.is_empty() {
            true => Err(ReadError::Empty),
            false => Ok(KeySet(keys)),
        }
    }

    /// The key that a header means: by `kid`, or the only one there is.
    fn find(&self, header: &Header) -> Option<&Key> {
        if let [(kid, key)] = self.0.as_slice()
            && (kid.is_none() || header.kid.is_none())
        {
            return Some(key);
        }
        let named = || {
            let keys = self.0.iter();
            keys.filter(|(kid, _)| kid.is_some() && *kid == header.kid)
                .map(|(_, key)| key)
        };
        // A kid may stand for several keys, if of different kinds.
        named()
            .find(|key| key.algorithms.contains(&header.alg))
            .or_else(|| named().next())
    }
}

#[derive(Debug, Default)]
struct State {
    keys: Arc<KeySet>,
    tried: Option<Instant>,
    read: Option<Instant>,
}

/// A JWKS, kept.
#[derive(Debug)]
pub(super) struct Jwks {
    source: Source,
    pace: Pace,
    state: Mutex<State>,
    /// Held while it's read.
    reading: tokio::sync::Mutex<()>,
}

impl Jwks {
    /// Keys of a source, which is read on first use if none are given.
    pub(super) fn new(source: Source, keys: Option<KeySet>, pace: Pace) -> Arc<Self> {
        let state = State {
            read: keys.as_ref().map(|_| Instant::now()),
            keys: Arc::new(keys.unwrap_or_default()),
            tried: None,
        };
        Arc::new(Jwks {
            source,
            pace,
            state: Mutex::new(state),
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// The key that a token's header means.
    pub(super) async fn key(self: &Arc<Self>, header: &Header) -> Result<Key, AuthError> {
        if let Some(key) = self.keys().find(header) {
            if self.is_stale() {
                tokio::spawn(Arc::clone(self).refresh());
            }
            return Ok(key.clone());
        }
        self.reread().await;
        let keys = self.keys();
        if keys.0.is_empty() {
            let why = "the keys to check them with can't be read";
            return Err(AuthError::Unavailable(why.to_owned()));
        }
        let why = match header.kid {
            Some(_) => "its kid is unknown",
            None => "it has no kid, and there are several keys",
        };
        let key = keys.find(header).cloned();
        key.ok_or_else(|| AuthError::token(why))
    }

    /// Reads it again if it's time for it, and waits for that. In a task of its own, which goes on
    /// if whoever waits goes away.
    pub(super) async fn reread(self: &Arc<Self>) {
        let _ = tokio::spawn(Arc::clone(self).refresh()).await;
    }

    async fn refresh(self: Arc<Self>) {
        let _one = self.reading.lock().await;
        if !self.may_read() {
            return;
        }
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.read()).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(Ok(keys)) => {
                info!(keys = keys.0.len(), "read the JWKS");
                state.keys = Arc::new(keys);
                state.read = Some(Instant::now());
            }
            Ok(Err(error)) => warn!(%error, "can't read the JWKS; trying on"),
            Err(error) => warn!(%error, "can't read the JWKS; trying on"),
        }
    }

    /// Whether it's time; if so, the next time is counted from now.
    fn may_read(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let least = match state.keys.0.is_empty() {
            true => self.pace.empty,
            false => self.pace.least,
        };
        let may = state.tried.is_none_or(|tried| tried.elapsed() >= least);
        if may {
            state.tried = Some(Instant::now());
        }
        may
    }

    fn is_stale(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |at: Option<Instant>, age| at.is_none_or(|at| at.elapsed() >= age);
        old(state.read, self.pace.stale) && old(state.tried, self.pace.least)
    }

    fn keys(&self) -> Arc<KeySet> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&state.keys)
    }
}

#[cfg(test)]
mod tests;
