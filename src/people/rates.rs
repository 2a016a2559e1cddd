//! [`Rates`]: how often somebody may publish, by their role in the room.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::auth::Role;
use crate::auth::rights::RoleError;
use crate::relay::log::Limit;

/// The most a rate lets come at once; stores count no further.
const COUNT_MAX: u32 = 10_000;

/// The longest time a rate may be over.
const PER_MAX: Duration = Duration::from_secs(24 * 3600);

/// So many in so long; all of them may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Rate {
    /// As a limit of this name.
    fn limit(self, name: impl Into<Bytes>) -> Limit {
        Limit {
            name: name.into(),
            interval: self.per / self.count.max(1),
            burst: self.count.max(1),
        }
    }
}

/// The text is no rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not of the form.
    #[error("`{0}` is no rate: write how many in how long, as in member=20/30s")]
    Form(String),
    /// No such role.
    #[error("{0}, or room for all of a room together")]
    Role(#[from] RoleError),
}

/// The rates of all roles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    by_role: [Option<Rate>; 5],
    /// All of a room together, but for hosts and co-hosts.
    room: Option<Rate>,
}

impl Rates {
    /// Sets a role's rate; `None` is no limit.
    pub fn set(&mut self, role: Role, rate: Option<Rate>) {
        self.by_role[role as usize] = rate;
    }

    /// Whether who it is that speaks makes a difference.
    pub(super) fn concern(&self, role: Role, slow: Duration) -> bool {
        !slow.is_zero() || self.by_role[role as usize].is_some()
    }

    /// The limits on one message in a room of a user, or of a connection without one. Hosts, co-hosts and back ends have neither the
    /// room's limit nor slow mode; who moderates has no slow mode.
    pub(super) fn limits(&self, role: Role, speaker: Option<&str>, slow: Duration) -> Limits {
        let mut limits = Limits::default();
        let leads = matches!(role, Role::Host | Role::Cohost);
        if let Some(speaker) = speaker {
            if !slow.is_zero() && !leads && role != Role::Moderator {
                let once = Rate {
                    count: 1,
                    per: slow,
                };
                // A bucket for each length: what was said under a longer one does not count.
                let name = format!("slow:{}:{speaker}", slow.as_secs());
                limits.add(Kind::Slow, once.limit(name));
            }
            if let Some(rate) = self.by_role[role as usize] {
                limits.add(Kind::User, rate.limit(format!("user:{speaker}")));
            }
        }
        if let Some(rate) = self.room.filter(|_| !leads) {
            limits.add(Kind::Room, rate.limit("room"));
        }
        limits
    }
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Slow,
    User,
    Room,
}

/// Limits, and what each is.
#[derive(Debug, Default)]
pub(super) struct Limits {
    pub(super) kinds: Vec<Kind>,
    pub(super) limits: Vec<Limit>,
}

impl Limits {
    fn add(&mut self, kind: Kind, limit: Limit) {
        self.kinds.push(kind);
        self.limits.push(limit);
    }
}

impl FromStr for Rates {
    type Err = RateError;

    /// Reads `ROLE=COUNT/TIME` with commas between, and `room=` for a room's own. `ROLE=0` is no
    /// limit.
    fn from_str(text: &str) -> Result<Self, RateError> {
        let mut rates = Rates::default();
        let parts = text.split(',').map(str::trim);
        for part in parts.filter(|part| !part.is_empty()) {
            let form = || RateError::Form(part.to_owned());
            let (whose, rate) = part.split_once('=').ok_or_else(form)?;
            let rate = match rate.trim() {
                "0" => None,
                rate => {
                    let (count, per) = rate.split_once('/').ok_or_else(form)?;
                    let count = count.trim().parse().ok();
                    let count = count.filter(|count| (1..=COUNT_MAX).contains(count));
                    let per = time(per.trim()).filter(|per| *per <= PER_MAX);
                    match (count, per) {
                        // Redis counts in milliseconds.
                        (Some(count), Some(per)) if per.as_millis() >= u128::from(count) => {
                            Some(Rate { count, per })
                        }
                        _ => return Err(form()),
                    }
                }
            };
            match whose.trim() {
                "room" => rates.room = rate,
                role => rates.set(role.parse()?, rate),
            }
        }
        Ok(rates)
    }
}

/// `30s`, `500ms`, `1m`, `1h`; a bare unit is one of it, as in `5/s`.
fn time(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let count: u64 = if digits.is_empty() {
        1
    } else {
        digits.parse().ok()?
    };
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(count.checked_mul(ms)?)).filter(|time| !time.is_zero())
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roles = Role::ALL.into_iter();
        let named = roles.map(|role| (role.as_str(), self.by_role[role as usize]));
        let mut comma = "";
        for (name, rate) in named.chain([("room", self.room)]) {
            if let Some(rate) = rate {
                write!(f, "{comma}{name}={}/{}ms", rate.count, rate.per.as_millis())?;
                comma = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, want: &str| {
            let got = match text.parse::<Rates>() {
                Ok(rates) => rates.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(got.contains(want), "{text}: {got}");
        };
        check("", "");
        check("member=20/30s", "member=20/30000ms");
        check(
            "member = 20/30s, moderator=100/30s,room=5/s,viewer=0",
            "moderator=100/30000ms,member=20/30000ms,room=5/1000ms",
        );
        check("host=1/500ms", "host=1/500ms");
        for bad in [
            "member",
            "member=20",
            "member=0/1s",
            "member=9/1ms",
            "member=1/2d",
            "member=1/0s",
            "member=10001/30s",
        ] {
            check(bad, "is no rate");
        }
        check("guest=1/s", "`guest` is no role");
    }

    #[test]
    fn who_has_which_limits() {
        let rates: Rates = "member=20/30s,moderator=100/30s,room=40/s".parse().unwrap();
        let check = |role, user, slow, want: &[Kind]| {
            let limits = rates.limits(role, user, Duration::from_secs(slow));
            assert_eq!(limits.kinds, want, "{role}");
            assert_eq!(limits.limits.len(), want.len());
        };
        check(Role::Member, Some("ann"), 0, &[Kind::User, Kind::Room]);
        check(
            Role::Member,
            Some("ann"),
            5,
            &[Kind::Slow, Kind::User, Kind::Room],
        );
        check(Role::Moderator, Some("mod"), 5, &[Kind::User, Kind::Room]);
        check(Role::Viewer, Some("v"), 0, &[Kind::Room]);
        check(Role::Viewer, None, 5, &[Kind::Room]);
        check(Role::Cohost, Some("co"), 5, &[]);
        check(Role::Host, Some("host"), 5, &[]);
    }

    #[test]
    fn a_limit_is_its_rate() {
        let rates: Rates = "member=20/30s".parse().unwrap();
        let limits = rates
            .limits(Role::Member, Some("ann"), Duration::ZERO)
            .limits;
        let want = Limit {
            name: "user:ann".into(),
            interval: Duration::from_millis(1_500),
            burst: 20,
        };
        assert_eq!(limits, [want]);
    }
}
