//! What may be done in a room: rights, and the roles that bundle them.

use std::fmt;
use std::str::FromStr;

/// One thing that may be done in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Right {
    /// Follow it.
    Subscribe = 1,
    /// Put entries into it.
    Publish = 2,
    /// Read what was before.
    History = 4,
    /// See who is there.
    Presence = 8,
    /// Mute, ban, delete, close.
    Moderate = 16,
    /// Pin a message, announce.
    Announce = 32,
}

/// Every right with its word, in the order they are written.
const RIGHTS: [(Right, &str); 6] = [
    (Right::Subscribe, "subscribe"),
    (Right::Publish, "publish"),
    (Right::History, "history"),
    (Right::Presence, "presence"),
    (Right::Moderate, "moderate"),
    (Right::Announce, "announce"),
];

impl Right {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        let row = RIGHTS.iter().find(|(right, _)| *right == self);
        row.map_or("", |(_, word)| word)
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of rights. Written `subscribe+publish`, and `none` if there is not one.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights(u8);

/// The text is no set of rights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no right: write some of subscribe, publish, history, presence, moderate and announce with + between, or none"
)]
pub struct RightsError(String);

impl Rights {
    /// None at all.
    pub const NONE: Rights = Rights(0);
    /// Every one.
    pub const ALL: Rights = Rights(63);

    /// A set of some.
    pub const fn of(rights: &[Right]) -> Rights {
        let mut bits = 0;
        let mut index = 0;
        while index < rights.len() {
            bits |= rights[index] as u8;
            index += 1;
        }
        Rights(bits)
    }

    /// Those that are in, in the order they are written.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        let all = RIGHTS.iter().map(|(right, _)| *right);
        all.filter(move |right| self.has(*right))
    }

    /// Whether it is in.
    pub const fn has(self, right: Right) -> bool {
        self.0 & right as u8 != 0
    }

    /// These and one more.
    pub const fn with(self, right: Right) -> Rights {
        Rights(self.0 | right as u8)
    }

    /// What is in both.
    pub const fn and(self, other: Rights) -> Rights {
        Rights(self.0 & other.0)
    }

    /// What is in either.
    pub const fn or(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Rights::NONE {
            return f.write_str("none");
        }
        let held = RIGHTS.iter().filter(|(right, _)| self.has(*right));
        for (index, (_, word)) in held.enumerate() {
            let plus = if index == 0 { "" } else { "+" };
            write!(f, "{plus}{word}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Self, RightsError> {
        if text.trim() == "none" {
            return Ok(Rights::NONE);
        }
        text.split('+').try_fold(Rights::NONE, |rights, word| {
            let row = RIGHTS.iter().find(|(_, known)| *known == word.trim());
            row.map(|(right, _)| rights.with(*right))
                .ok_or_else(|| RightsError(word.trim().to_owned()))
        })
    }
}

/// A bundle of rights by name. From the one that counts most to the one that counts least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Runs the room.
    Host,
    /// Speaks beside the host.
    Cohost,
    /// Keeps order.
    Moderator,
    /// Takes part.
    Member,
    /// Looks on.
    Viewer,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 5] = [
        Role::Host,
        Role::Cohost,
        Role::Moderator,
        Role::Member,
        Role::Viewer,
    ];

    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Host => "host",
            Role::Cohost => "cohost",
            Role::Moderator => "moderator",
            Role::Member => "member",
            Role::Viewer => "viewer",
        }
    }

    /// Whether it sets somebody apart from those who take part or look on.
    pub const fn is_leading(self) -> bool {
        matches!(self, Role::Host | Role::Cohost | Role::Moderator)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: write host, cohost, moderator, member or viewer")]
pub struct RoleError(String);

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let role = Role::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| RoleError(text.chars().take(32).collect()))
    }
}

/// Which rights each role bundles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles([Rights; 5]);

impl Default for Roles {
    fn default() -> Self {
        use Right::{Announce, History, Moderate, Presence, Publish, Subscribe};
        Roles([
            Rights::ALL,
            Rights::of(&[Subscribe, Publish, History, Presence, Announce]),
            Rights::of(&[Subscribe, Publish, History, Presence, Moderate]),
            Rights::of(&[Subscribe, Publish, History, Presence]),
            Rights::of(&[Subscribe, History, Presence]),
        ])
    }
}

impl Roles {
    /// What a role may.
    pub const fn rights(&self, role: Role) -> Rights {
        self.0[role as usize]
    }

    /// Says anew what a role may.
    pub const fn set(&mut self, role: Role, rights: Rights) {
        self.0[role as usize] = rights;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        for bits in 0..64 {
            let rights = Rights(bits);
            assert_eq!(rights.to_string().parse(), Ok(rights), "{rights}");
        }
        for bad in ["", "+", "Publish", "publish,history", "publish+", "all"] {
            assert!(bad.parse::<Rights>().is_err(), "{bad}");
        }
        let member = Roles::default().rights(Role::Member);
        assert_eq!(member.to_string(), "subscribe+publish+history+presence");
        assert_eq!(Rights::ALL, Roles::default().rights(Role::Host));
    }

    #[test]
    fn roles() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("Host".parse::<Role>().is_err() && "".parse::<Role>().is_err());
        assert!(Role::Host < Role::Cohost && Role::Member < Role::Viewer);
        let mut roles = Roles::default();
        roles.set(Role::Viewer, Rights::NONE.with(Right::Presence));
        assert_eq!(roles.rights(Role::Viewer).to_string(), "presence");
        assert!(
            !Roles::default()
                .rights(Role::Moderator)
                .has(Right::Announce)
        );
        assert!(!Roles::default().rights(Role::Cohost).has(Right::Moderate));
    }
}
