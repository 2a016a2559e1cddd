//! Patterns of room names: `live-42`, `lobby-*`, `*`.

use std::fmt;
use std::str::FromStr;

use memchr::memmem;

use crate::relay::entry::{ROOM_NAME_MAX, RoomName};

/// Which rooms are meant. A star stands for any run of characters, the empty one too; every other
/// character stands for itself. A user's inbox is meant only by a pattern that starts with `@`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RoomPattern(Box<str>);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Empty.
    #[error("a room pattern can't be empty; write a room's name, or * for any")]
    Empty,
    /// Longer than any room's name.
    #[error("a room pattern has at most {ROOM_NAME_MAX} bytes")]
    TooLong,
    /// Has a control character.
    #[error("a room pattern has no control characters")]
    Control,
}

impl RoomPattern {
    /// Whether the room is meant. Takes time by the length of the two, whatever they are.
    pub fn matches(&self, room: &RoomName) -> bool {
        if room.owner().is_some() && !self.0.starts_with('@') {
            return false;
        }
        glob(self.0.as_bytes(), room.as_str().as_bytes())
    }

    /// Whether it means one room only.
    pub fn is_exact(&self) -> bool {
        !self.0.contains('*')
    }

    /// Bytes that a room's name must have; of two patterns, the one with more says more.
    pub fn literals(&self) -> usize {
        self.0.bytes().filter(|byte| *byte != b'*').count()
    }

    /// The pattern as text; runs of stars are one star.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first piece must stand in front and the last at the end; each one between them is taken where
/// it is found first. Taking it later never helps, so nothing is tried twice.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let Some(star) = memchr::memchr(b'*', pattern) else {
        return pattern == name;
    };
    let last = memchr::memrchr(b'*', pattern).unwrap_or(star);
    let (front, end) = (&pattern[..star], &pattern[last + 1..]);
    let Some(mut rest) = name
        .strip_prefix(front)
        .and_then(|rest| rest.strip_suffix(end))
    else {
        return false;
    };
    for piece in pattern[star..last].split(|byte| *byte == b'*') {
        match memmem::find(rest, piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    true
}

impl FromStr for RoomPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > ROOM_NAME_MAX {
            return Err(PatternError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        let mut canonical = String::with_capacity(text.len());
        for c in text.chars() {
            if c != '*' || !canonical.ends_with('*') {
                canonical.push(c);
            }
        }
        Ok(RoomPattern(canonical.into()))
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn check(pattern: &str, name: &str, want: bool) {
        let parsed: RoomPattern = pattern.parse().unwrap();
        let room = RoomName::parse(name).unwrap();
        assert_eq!(parsed.matches(&room), want, "{pattern} {name}");
    }

    #[test]
    fn which_rooms() {
        check("live-42", "live-42", true);
        check("live-42", "live-421", false);
        check("live-42", "Live-42", false);
        check("lobby-*", "lobby-", true);
        check("lobby-*", "lobby-a", true);
        check("lobby-*", "a-lobby-a", false);
        check("*", "anything", true);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("*-de-*", "eu-de-1", true);
        check("*-de-*", "eu-fr-1", false);
        check("a**b", "ab", true);
        check("*ü*", "Grüße", true);
        // An inbox is nobody's by chance.
        check("*", "@alice", false);
        check("*alice", "@alice", false);
        check("@*", "@alice", true);
        check("@alice", "@alice", true);
        check("@*", "alice", false);
        check("a?c", "abc", false);
    }

    #[test]
    fn bad_patterns() {
        for bad in ["", "a\nb", "\u{0}", &"a".repeat(257)] {
            assert!(bad.parse::<RoomPattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostile_patterns_take_no_time() {
        let pattern: RoomPattern = "a*".repeat(128).parse().unwrap();
        let room = RoomName::parse(&format!("{}b", "a".repeat(127))).unwrap();
        let start = Instant::now();
        for _ in 0..1_000 {
            assert!(!pattern.matches(&room));
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    /// Every way to share out the name, one after another.
    fn oracle(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| oracle(rest, &name[skip..])),
            Some((byte, rest)) => name.first() == Some(byte) && oracle(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn as_the_oracle_says(pattern in "[ab*]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(
                glob(pattern.as_bytes(), name.as_bytes()),
                oracle(pattern.as_bytes(), name.as_bytes())
            );
        }
    }
}
