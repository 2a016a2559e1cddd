//! Where a subscriber asks to begin.

use std::str::FromStr;
use std::time::Duration;

use super::entry::EntryId;

/// Most entries `last:N` may ask for.
pub const LAST_MAX: usize = 10_000;

/// The `from` of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// Only what comes from now on.
    #[default]
    Now,
    /// The oldest entry there is.
    Start,
    /// What follows this ID. A gap is told if entries in between are gone.
    After(EntryId),
    /// The newest so many entries, then live.
    Last(usize),
    /// What was added within this long before now.
    Ago(Duration),
}

/// The text is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "from is one of: now, start, an entry ID such as 1700000000000-0, last:50 (at most {LAST_MAX}), ago:10m (s, m, h or d)"
)]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        match text {
            // A page that has no ID yet writes an empty one.
            "" | "now" => return Ok(Position::Now),
            "start" => return Ok(Position::Start),
            _ => {}
        }
        if let Some(count) = text.strip_prefix("last:") {
            let count: usize = digits(count).ok_or(PositionError)?;
            return if count <= LAST_MAX {
                Ok(Position::Last(count))
            } else {
                Err(PositionError)
            };
        }
        if let Some(age) = text.strip_prefix("ago:") {
            let unit = match age.as_bytes().last() {
                Some(b's') => 1,
                Some(b'm') => 60,
                Some(b'h') => 3_600,
                Some(b'd') => 86_400,
                _ => return Err(PositionError),
            };
            let count: u64 = digits(&age[..age.len() - 1]).ok_or(PositionError)?;
            let seconds = count.checked_mul(unit).ok_or(PositionError)?;
            return Ok(Position::Ago(Duration::from_secs(seconds)));
        }
        text.parse().map(Position::After).map_err(|_| PositionError)
    }
}

fn digits<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<Position>) {
        assert_eq!(text.parse().ok(), want, "{text}");
    }

    #[test]
    fn positions() {
        check("", Some(Position::Now));
        check("now", Some(Position::Now));
        check("start", Some(Position::Start));
        check("5-1", Some(Position::After(EntryId::new(5, 1))));
        check("5", Some(Position::After(EntryId::new(5, 0))));
        check("last:0", Some(Position::Last(0)));
        check("last:50", Some(Position::Last(50)));
        check("ago:10m", Some(Position::Ago(Duration::from_secs(600))));
        check("ago:2d", Some(Position::Ago(Duration::from_secs(172_800))));
        for bad in [
            "$",
            "-",
            "+1-1",
            "last:",
            "last:-1",
            "last:+1",
            "last:10001",
            "ago:",
            "ago:m",
            "ago:5",
            "ago:5w",
            "ago:99999999999999999999d",
            "5-",
            "-5",
            "5-1-1",
            "NOW",
            "ago:é",
        ] {
            check(bad, None);
        }
    }
}
