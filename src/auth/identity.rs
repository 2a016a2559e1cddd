//! Who somebody is, once that was verified: a user, a back end, or nobody in particular.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::grants::Grants;
use super::rights::{Right, Rights, Role, Roles};
use crate::relay::entry::{RoomName, RoomNameError};

/// Longest user name, and longest shown name, in bytes.
pub const USER_NAME_MAX: usize = 128;

/// What the owner of an inbox may do there, by any role.
const OWNER: Rights = Rights::of(&[Right::Subscribe, Right::History, Right::Presence]);

/// The most that anybody else may do there.
const OTHERS: Rights = Rights::of(&[Right::Publish]);

/// A user, as the `sub` of their tokens has it.
// The name of their inbox, which is theirs with an @ in front: one text serves both.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(RoomName);

/// Why a text is no user name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserNameError {
    /// Empty.
    #[error("a user name can't be empty")]
    Empty,
    /// Over [`USER_NAME_MAX`].
    #[error("a user name has at most {USER_NAME_MAX} bytes")]
    TooLong,
    /// Has a control character.
    #[error("a user name has no control characters")]
    Control,
}

impl UserName {
    /// Takes 1 to 128 bytes of UTF-8 without control characters.
    pub fn parse(text: &str) -> Result<Self, UserNameError> {
        if text.len() > USER_NAME_MAX {
            return Err(UserNameError::TooLong);
        }
        match RoomName::of_user(text) {
            Ok(room) => Ok(UserName(room)),
            Err(RoomNameError::Empty) => Err(UserNameError::Empty),
            Err(RoomNameError::TooLong) => Err(UserNameError::TooLong),
            Err(_) => Err(UserNameError::Control),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.owner().unwrap_or_default()
    }

    /// The room of everything sent to them.
    pub fn room(&self) -> &RoomName {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What holds for everybody: what roles may, and the roles of those whose token names none.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) roles: Roles,
    pub(super) otherwise: Grants,
}

/// Who they are.
#[derive(Debug)]
enum Who {
    /// A user.
    User {
        user: UserName,
        name: Option<Box<str>>,
    },
    /// Nobody in particular.
    Anonymous,
    /// Not known yet.
    Nobody,
    /// A back end, by the name of its key.
    Server(Option<Arc<str>>),
}

#[derive(Debug)]
struct Verified {
    who: Who,
    grants: Grants,
    expires: Option<Instant>,
    rules: Arc<Rules>,
}

/// Somebody, verified. A clone is the same one, and costs next to nothing.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Verified>);

impl Identity {
    fn new(who: Who, grants: Grants, expires: Option<Instant>, rules: &Arc<Rules>) -> Self {
        Identity(Arc::new(Verified {
            who,
            grants,
            expires,
            rules: Arc::clone(rules),
        }))
    }

    /// A user with grants of their own, which go before those of everybody.
    pub(super) fn of_user(
        user: UserName,
        name: Option<Box<str>>,
        grants: Grants,
        expires: Option<Instant>,
        rules: &Arc<Rules>,
    ) -> Self {
        Identity::new(Who::User { user, name }, grants, expires, rules)
    }

    /// Somebody who did not say who they are.
    pub(super) fn anonymous(rules: &Arc<Rules>) -> Self {
        Identity::new(Who::Anonymous, Grants::default(), None, rules)
    }

    /// Somebody who has not been asked yet, and may do nothing.
    pub fn nobody() -> Self {
        let rules = Arc::new(Rules::default());
        Identity::new(Who::Nobody, Grants::default(), None, &rules)
    }

    /// Whether it is nobody.
    pub fn is_nobody(&self) -> bool {
        matches!(self.0.who, Who::Nobody)
    }

    /// A back end.
    pub(super) fn of_server(
        key: Option<Arc<str>>,
        expires: Option<Instant>,
        rules: &Arc<Rules>,
    ) -> Self {
        Identity::new(Who::Server(key), Grants::default(), expires, rules)
    }

    /// The user; `None` for an anonymous one and for a back end.
    pub fn user(&self) -> Option<&UserName> {
        match &self.0.who {
            Who::User { user, .. } => Some(user),
            Who::Anonymous | Who::Nobody | Who::Server(_) => None,
        }
    }

    /// The name to show for them, if the token has one.
    pub fn name(&self) -> Option<&str> {
        match &self.0.who {
            Who::User { name, .. } => name.as_deref(),
            Who::Anonymous | Who::Nobody | Who::Server(_) => None,
        }
    }

    /// Whether it is a back end, which has all rights everywhere.
    pub fn is_server(&self) -> bool {
        matches!(self.0.who, Who::Server(_))
    }

    /// A back end's name: that of its API key, or the `sub` of its token.
    pub fn key_name(&self) -> Option<&str> {
        match &self.0.who {
            Who::Server(key) => key.as_deref(),
            Who::User { .. } | Who::Anonymous | Who::Nobody => None,
        }
    }

    /// When it ends, by the clock that nobody sets.
    pub fn expires(&self) -> Option<Instant> {
        self.0.expires
    }

    /// The role in this room; a back end is a host everywhere.
    pub fn role(&self, room: &RoomName) -> Option<Role> {
        if self.is_server() {
            return Some(Role::Host);
        }
        let own = self.0.grants.lookup(room);
        own.or_else(|| self.0.rules.otherwise.lookup(room))
    }

    /// The role that others are shown beside the name: host, cohost or moderator, by a token. Where
    /// anybody is believed all are alike, and to show it would say nothing.
    pub fn shown_role(&self, room: &RoomName) -> Option<Role> {
        let is_verified = self.0.expires.is_some();
        self.role(room)
            .filter(|role| is_verified && role.is_leading())
    }

    /// What they may do in this room. An inbox is read by its owner and by back ends only, and
    /// others may at most publish to it, whatever their role.
    pub fn rights(&self, room: &RoomName) -> Rights {
        if self.is_server() {
            return Rights::ALL;
        }
        let role = self.role(room);
        let rights = role.map_or(Rights::NONE, |role| self.0.rules.roles.rights(role));
        if room.owner().is_none() {
            rights
        } else if self.user().is_some_and(|user| user.room() == room) {
            rights.and(OTHERS).or(OWNER)
        } else {
            rights.and(OTHERS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names() {
        let check = |text: &str, ok: bool| {
            let user = UserName::parse(text);
            assert_eq!(user.is_ok(), ok, "{text:?}");
            if let Ok(user) = user {
                assert_eq!(user.as_str(), text);
                assert_eq!(user.room().as_str(), format!("@{text}"));
                assert_eq!(user.room().owner(), Some(text));
            }
        };
        check("alice", true);
        check("@alice", true);
        check("auth0|5f7c8ec7c33c6c004bbafe82", true);
        check("Zoë", true);
        check("tailcast:x", true);
        check(&"a".repeat(128), true);
        check(&"a".repeat(129), false);
        check("", false);
        check("a\nb", false);
        check("a\u{7f}", false);
    }

    fn rights(who: &str, own: &str, otherwise: &str, room: &str) -> String {
        let rules = Arc::new(Rules {
            roles: Roles::default(),
            otherwise: otherwise.parse().unwrap(),
        });
        let identity = match who {
            "" => Identity::anonymous(&rules),
            "server" => Identity::of_server(Some("key".into()), None, &rules),
            user => {
                let user = UserName::parse(user).unwrap();
                Identity::of_user(user, None, own.parse().unwrap(), None, &rules)
            }
        };
        let rights = identity.rights(&RoomName::parse(room).unwrap());
        rights.to_string()
    }

    #[test]
    fn who_may_what() {
        let check = |who: &str, own: &str, otherwise: &str, room: &str, want: &str| {
            let got = rights(who, own, otherwise, room);
            assert_eq!(got, want, "{who} {own} {otherwise} {room}");
        };
        let (all, viewer) = (Rights::ALL.to_string(), "subscribe+history+presence");
        check("alice", "live=host", "", "live", &all);
        check("alice", "live=host", "", "lobby", "none");
        check("alice", "live=viewer", "*=host", "live", viewer);
        check("alice", "live=host", "*=viewer", "lobby", viewer);
        check("", "", "*=viewer", "lobby", viewer);
        check("", "", "", "lobby", "none");
        check("server", "", "", "lobby", &all);
    }

    #[test]
    fn inboxes() {
        let check = |who: &str, own: &str, otherwise: &str, want: &str| {
            let got = rights(who, own, otherwise, "@alice");
            assert_eq!(got, want, "{who} {own} {otherwise}");
        };
        let owner = "subscribe+history+presence";
        check("alice", "", "", owner);
        check("alice", "*=host", "*=host", owner);
        check("alice", "@*=host", "", "subscribe+publish+history+presence");
        check("alice", "@*=viewer", "", owner);
        check("bob", "", "", "none");
        check("bob", "*=host", "*=host", "none");
        check("bob", "@*=host", "", "publish");
        check("bob", "@alice=host", "", "publish");
        check("bob", "@*=viewer", "", "none");
        check("bob", "", "@*=member", "publish");
        check("", "", "@*=member", "publish");
        check("", "", "*=host", "none");
        check("@alice", "*=host", "", "none");
        check("server", "", "", &Rights::ALL.to_string());
    }
}
