//! Grants: which role in which rooms.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::pattern::{PatternError, RoomPattern};
use super::rights::{Role, RoleError};
use crate::relay::entry::RoomName;

/// Roles by room pattern, in the order they are asked: names of one room first, then the pattern
/// with the most letters of its own; of equals, the first by the alphabet.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Grants(Box<[(RoomPattern, Role)]>);

/// Why a text gives no grants.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrantsError {
    /// No equals sign.
    #[error("`{0}` is no grant: write a room pattern, = and a role, as in lobby-*=viewer")]
    Form(String),
    /// Not a pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Not a role.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// Two roles for one pattern.
    #[error("the room pattern `{0}` stands twice; leave one out")]
    Twice(RoomPattern),
}

impl Grants {
    /// Puts them in the order they are asked in.
    pub fn new(mut grants: Vec<(RoomPattern, Role)>) -> Result<Self, GrantsError> {
        grants.sort_by(|(one, _), (other, _)| {
            let key =
                |pattern: &RoomPattern| (!pattern.is_exact(), usize::MAX - pattern.literals());
            key(one)
                .cmp(&key(other))
                .then_with(|| one.as_str().cmp(other.as_str()))
        });
        match grants.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(GrantsError::Twice(pair[0].0.clone())),
            None => Ok(Grants(grants.into())),
        }
    }

    /// The role in this room.
    pub fn lookup(&self, room: &RoomName) -> Option<Role> {
        let mut grants = self.0.iter();
        grants
            .find(|(pattern, _)| pattern.matches(room))
            .map(|(_, role)| *role)
    }

    /// Whether there is not one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each pattern and role.
    pub fn iter(&self) -> impl Iterator<Item = (&RoomPattern, Role)> {
        self.0.iter().map(|(pattern, role)| (pattern, *role))
    }
}

impl FromStr for Grants {
    type Err = GrantsError;

    /// Reads `PATTERN=ROLE`, with commas between.
    fn from_str(text: &str) -> Result<Self, GrantsError> {
        let parts = text.split(',').map(str::trim);
        let grants: Result<Vec<_>, GrantsError> = parts
            .filter(|part| !part.is_empty())
            .map(|part| {
                // A role has no equals sign, a room's name may.
                let (pattern, role) = part
                    .rsplit_once('=')
                    .ok_or_else(|| GrantsError::Form(part.to_owned()))?;
                Ok((pattern.trim().parse()?, role.trim().parse()?))
            })
            .collect();
        Grants::new(grants?)
    }
}

impl<'de> Deserialize<'de> for Grants {
    /// Reads an object, pattern to role. Unlike a map of serde's, a pattern that stands twice is an
    /// error: which of the two counts would be anybody's guess.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Grants;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of room patterns and roles")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Grants, A::Error> {
                let mut grants = Vec::new();
                while let Some((pattern, role)) = map.next_entry::<String, String>()? {
                    let pattern = pattern.parse().map_err(A::Error::custom)?;
                    grants.push((pattern, role.parse().map_err(A::Error::custom)?));
                }
                Grants::new(grants).map_err(A::Error::custom)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl fmt::Display for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (pattern, role)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{pattern}={role}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grants({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(grants: &str, room: &str, want: Option<Role>) {
        let parsed: Grants = grants.parse().unwrap();
        let room = RoomName::parse(room).unwrap();
        assert_eq!(parsed.lookup(&room), want, "{grants} {room}");
        // The order they are written in does not count.
        let turned: Vec<&str> = grants.rsplit(',').collect();
        let turned: Grants = turned.join(",").parse().unwrap();
        assert_eq!(turned, parsed, "{grants}");
    }

    #[test]
    fn the_closest_grant_counts() {
        use Role::{Cohost, Host, Member, Viewer};
        check("", "a", None);
        check("a=host", "a", Some(Host));
        check("a=host", "b", None);
        check("*=viewer,live-*=member,live-42=host", "live-42", Some(Host));
        check(
            "*=viewer,live-*=member,live-42=host",
            "live-4",
            Some(Member),
        );
        check("*=viewer,live-*=member,live-42=host", "lobby", Some(Viewer));
        // A name is closer than any pattern, even if it gives less.
        check("live-42=viewer,live-4*2*=host", "live-42", Some(Viewer));
        check("live-e*=viewer,*-eu-1=host", "live-eu-1", Some(Viewer));
        check("liv-*=viewer,*-eu-1=host", "liv-eu-1", Some(Host));
        // As many letters: by the alphabet.
        check("a*=host,*a=member", "aa", Some(Member));
        check("*=host,@*=cohost", "@bob", Some(Cohost));
        check("*=host", "@bob", None);
        check("a=b=member", "a=b", Some(Member));
        check(" a = member , ", "a", Some(Member));
    }

    #[test]
    fn bad_grants() {
        for bad in [
            "a",
            "=host",
            "a=",
            "a=Host",
            "a=host,a=viewer",
            "**=host,*=host",
        ] {
            assert!(bad.parse::<Grants>().is_err(), "{bad}");
        }
    }

    #[test]
    fn from_json() {
        let check = |json: &str, want: Option<&str>| {
            let read = serde_json::from_str::<Grants>(json).ok();
            assert_eq!(
                read.map(|grants| grants.to_string()).as_deref(),
                want,
                "{json}"
            );
        };
        check("{}", Some(""));
        check(r#"{"b*":"viewer","a":"host"}"#, Some("a=host,b*=viewer"));
        check(r#"{"a":"host","a":"viewer"}"#, None);
        check(r#"{"a":"king"}"#, None);
        check(r#"{"":"host"}"#, None);
        check(r#"{"a":["host"]}"#, None);
        check(r#"["a"]"#, None);
        check(r#""a=host""#, None);
    }
}
