//! Whether somebody may publish, and what becomes of the entry on its way.

use std::time::Duration;

use bytes::Bytes;

use super::fields::{self, Mark, USER};
use super::rates::Kind;
use super::side::Side;
use super::{Refusal, Shared, now_ms};
use crate::auth::{Identity, Right, Role};
use crate::relay::connection::Publish;
use crate::relay::entry::{Fields, RoomName};
use crate::relay::log::{AppendError, Lane};

/// An entry that its publisher may publish, and how to read a refusal of its limits.
pub(super) struct Admitted {
    pub(super) publish: Publish,
    pub(super) kinds: Vec<Kind>,
}

impl Shared {
    /// Checks right, rules and fields, and says under which limits the entry goes out. The room's
    /// rules must be known. An anonymous one is limited as `connection`, if there is one.
    pub(super) fn admit(
        &self,
        identity: &Identity,
        connection: Option<u64>,
        side: &Side,
        fields: Fields,
        mark: Mark,
        key: Option<Bytes>,
    ) -> Result<Admitted, Refusal> {
        let room = side.room();
        self.may_speak(identity, side, Right::Publish)?;
        self.home.see(room);
        let fields = signed(identity, fields, mark)?;
        let key = key.map(|key| owned(identity, &key)).transpose()?;
        let role = identity.role(room).unwrap_or(Role::Viewer);
        let slow = side.rules().slow;
        let rates = &self.settings.rates;
        let limits = if identity.is_server() {
            Default::default()
        } else if let Some(user) = identity.user() {
            rates.limits(role, Some(user.as_str()), slow)
        } else {
            // No user's name has a control character.
            let connection = connection.filter(|_| rates.concern(role, slow));
            let anonymous = connection.map(|number| format!("\0{}:{number}", self.own()));
            rates.limits(role, anonymous.as_deref(), slow)
        };
        let lane = match role {
            Role::Host | Role::Cohost => Lane::First,
            Role::Moderator | Role::Member | Role::Viewer => Lane::Usual,
        };
        Ok(Admitted {
            publish: Publish {
                key,
                limits: limits.limits.into(),
                lane,
                ..Publish::new(room.clone(), fields)
            },
            kinds: limits.kinds,
        })
    }

    /// Checks a right to say something, and that no moderator stands against it.
    pub(super) fn may_speak(
        &self,
        identity: &Identity,
        side: &Side,
        right: Right,
    ) -> Result<(), Refusal> {
        let room = side.room();
        let rights = identity.rights(room);
        if !rights.has(right) {
            return Err(Refusal::NoRight(right));
        }
        side.known()?;
        let leads = identity.role(room) == Some(Role::Host) || rights.has(Right::Moderate);
        let user = identity.user().filter(|_| !is_immune(identity, room));
        let rules = side.rules();
        rules.lets_speak(user.map(|user| user.as_str()), leads, now_ms())
    }

    /// Checks a right to be in the room, or to read it, and that no moderator keeps them out.
    pub(super) fn may_read(
        &self,
        identity: &Identity,
        side: &Side,
        right: Right,
    ) -> Result<(), Refusal> {
        let room = side.room();
        if !identity.rights(room).has(right) {
            return Err(Refusal::NoRight(right));
        }
        // Where the rules are not known yet, this is not the last to ask.
        match identity.user().filter(|_| !is_immune(identity, room)) {
            Some(user) => side.rules().admits(user.as_str(), now_ms()),
            None => Ok(()),
        }
    }
}

/// Whether no moderator's word counts against them: back ends, and hosts whose token says so. Where
/// anybody is believed, that would be anybody.
pub(super) fn is_immune(identity: &Identity, room: &RoomName) -> bool {
    let is_verified = identity.expires().is_some();
    identity.is_server() || (is_verified && identity.role(room) == Some(Role::Host))
}

/// The client's fields, then what the node says of the entry, and last who published it, so that the
/// first field stays what it was.
fn signed(identity: &Identity, fields: Fields, mark: Mark) -> Result<Fields, Refusal> {
    fields::check(identity, &fields)?;
    if mark == Mark::None && identity.user().is_none() {
        return Ok(fields);
    }
    let mut fields = fields.into_vec();
    mark.put(&mut fields);
    if let Some(user) = identity.user() {
        let name = Bytes::copy_from_slice(user.as_str().as_bytes());
        fields.push((Bytes::from_static(USER), name));
    }
    Ok(fields.into())
}

/// The idempotency key as the store has it: each user's are their own. No user's name has the byte
/// that stands behind it.
fn owned(identity: &Identity, key: &[u8]) -> Result<Bytes, Refusal> {
    if key.contains(&0) {
        return Err(Refusal::BadRequest("a key has no NUL byte".to_owned()));
    }
    Ok(match identity.user() {
        Some(user) => [user.as_str().as_bytes(), b"\0", key].concat().into(),
        None => Bytes::copy_from_slice(key),
    })
}

/// What a failed append means to who published.
pub(super) fn refusal(kinds: &[Kind], error: AppendError) -> Refusal {
    match error {
        AppendError::TooFast { limit, retry } => {
            let retry = retry.max(Duration::from_millis(1));
            match kinds.get(limit) {
                Some(Kind::Slow) => Refusal::SlowMode(retry),
                Some(Kind::Room) => Refusal::RoomTooFast(retry),
                Some(Kind::User) | None => Refusal::TooFast(retry),
            }
        }
        error => Refusal::Append(error),
    }
}
