//! [`Pid`]: what a client shows to have its connection's state back. It holds that state, signed, so
//! that any node can take it, also when the node that gave it out is gone.
//!
//! The client keeps it as it came, and never learns what is in it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::relay::entry::{EntryId, RoomName};

/// How long one is good for. A client that was away longer than a day can as well begin anew.
const VALID: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest one that is looked at: 128 rooms of 256 bytes, quoted and in base64, and then some.
const LENGTH_MAX: usize = 96 * 1024;

/// What the key is derived for, so that no other signature made with the secret counts here.
const PURPOSE: &[u8] = b"tailcast socket.io pid 1";

/// The state a connection had when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pid {
    /// The public socket ID.
    pub(super) sid: String,
    /// The namespace it's of.
    pub(super) namespace: String,
    /// Whose it is; nobody's, if they were nobody known.
    pub(super) user: Option<String>,
    /// The rooms it was let into then, and after which entry.
    pub(super) rooms: Vec<(RoomName, EntryId)>,
}

/// The same as it's written.
#[derive(Serialize, Deserialize)]
struct Written(u64, String, String, Option<String>, Vec<(String, String)>);

/// The key that all nodes have.
#[derive(Debug, Clone)]
pub(crate) struct Signer(hmac::Key);

impl Signer {
    /// A key derived from a secret of the nodes'.
    pub(crate) fn new(secret: &[u8]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = hmac::sign(&root, PURPOSE);
        Signer(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// Signs a state.
    pub(super) fn sign(&self, pid: &Pid) -> String {
        let expires = now() + VALID.as_secs();
        let rooms = pid.rooms.iter();
        let written = Written(
            expires,
            pid.sid.clone(),
            pid.namespace.clone(),
            pid.user.clone(),
            rooms
                .map(|(room, id)| (room.as_str().to_owned(), id.to_string()))
                .collect(),
        );
        // Text and numbers can't fail to be written to memory.
        let json = serde_json::to_vec(&written).unwrap_or_default();
        let tag = hmac::sign(&self.0, &json);
        format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(json),
            URL_SAFE_NO_PAD.encode(tag)
        )
    }

    /// Reads one that a client brought; none if it's not ours, or too old.
    pub(super) fn open(&self, text: &str) -> Option<Pid> {
        if text.len() > LENGTH_MAX {
            return None;
        }
        let (json, tag) = text.split_once('.')?;
        let json = URL_SAFE_NO_PAD.decode(json).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        hmac::verify(&self.0, &json, &tag).ok()?;
        let Written(expires, sid, namespace, user, rooms) = serde_json::from_slice(&json).ok()?;
        if expires < now() {
            return None;
        }
        let read =
            |(room, id): (String, String)| Some((RoomName::parse(&room).ok()?, id.parse().ok()?));
        Some(Pid {
            sid,
            namespace,
            user,
            rooms: rooms.into_iter().map(read).collect::<Option<_>>()?,
        })
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Reads what a client may bring, and changes one that is good.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    let signer = Signer::new(b"fuzz");
    // Without the key nobody gets anything past it.
    assert_eq!(signer.open(text), None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid() -> Pid {
        Pid {
            sid: "abc".to_owned(),
            namespace: "/x".to_owned(),
            user: Some("ann".to_owned()),
            rooms: vec![(RoomName::parse("a b").unwrap(), EntryId::new(5, 1))],
        }
    }

    #[test]
    fn who_has_the_key_reads_it() {
        let text = Signer::new(b"secret").sign(&pid());
        assert_eq!(Signer::new(b"secret").open(&text), Some(pid()));
        assert_eq!(Signer::new(b"other").open(&text), None);
        assert!(text.len() < 200, "{}", text.len());
    }

    #[test]
    fn nothing_of_it_may_be_changed() {
        let signer = Signer::new(b"secret");
        let text = signer.sign(&pid());
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last letter of base64 has bits that say nothing, and they have to be zero.
            assert_eq!(signer.open(&changed), None, "{at}");
        }
        for bad in ["", ".", "a.b", text.split('.').next().unwrap()] {
            assert_eq!(signer.open(bad), None, "{bad}");
        }
    }
}
