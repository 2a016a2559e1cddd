//! The fields of an entry that have a meaning to this node, and who may write each of them.
//!
//! | field | meaning | who may write it |
//! |---|---|---|
//! | `user` | who published the entry | this node, back ends |
//! | `socket` | the Socket.IO client that sent it, which does not get it back | this node, back ends |
//! | `event`: `join`, `leave` | somebody came or left | this node, back ends |
//! | `event`: another name, with `args` and `attachment` | an event for Socket.IO clients | anybody, but for a `message` of the node's own form |
//! | `username` | the name to show | back ends; a known user: their own name; an anonymous client: anything |
//! | any other | none | anybody |
//!
//! Every publish of a client passes `check`, whatever its protocol. What `redis-cli` and back ends
//! write is not checked.

use std::collections::HashMap;

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::auth::Identity;

/// Says who published an entry.
pub const USER: &[u8] = b"user";
/// The public ID of the Socket.IO client that an entry is of.
pub const SOCKET: &[u8] = b"socket";
/// What an entry is, if it's not a message.
pub const EVENT: &[u8] = b"event";
/// The arguments of an event, as a JSON array.
pub const ARGS: &[u8] = b"args";
/// Bytes that belong into the arguments of an event.
pub const ATTACHMENT: &[u8] = b"attachment";
/// The name to show for whoever published an entry.
pub const USERNAME: &[u8] = b"username";

/// The values of [`EVENT`] that say that somebody came, and that they left.
const JOIN: &[u8] = b"join";
const LEAVE: &[u8] = b"leave";

/// The event by which Socket.IO clients get entries that are no events.
const MESSAGE: &str = "message";

/// A field that a client may not set, or not to this value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reserved {
    /// It would say that somebody else published the entry.
    #[error("the field `user` says who published an entry, and is set by the server")]
    User,
    /// It would keep the entry from a client.
    #[error(
        "the field `socket` says which Socket.IO client sent an entry, and is set by the server"
    )]
    Socket,
    /// It would say that somebody came or left.
    #[error(
        "an entry whose `event` is `join` or `leave` says who came or left, and only the server writes one; \
         give the event another name"
    )]
    Notice,
    /// A known user would be shown by another name.
    #[error(
        "a known user is shown by their own name; leave out `username`, or set it to your user name or \
         to the name in your token"
    )]
    Username,
    /// Socket.IO clients would take it for an entry of somebody else.
    #[error(
        "an event `message` whose first argument has a member `event` is how the server tells of entries; \
         give your event another name, or use `say`"
    )]
    Told,
}

/// Whether a client may publish these fields. Back ends may publish any.
pub(super) fn check(identity: &Identity, fields: &[(Bytes, Bytes)]) -> Result<(), Reserved> {
    if identity.is_server() {
        return Ok(());
    }
    for (name, value) in fields {
        match name.as_ref() {
            USER => return Err(Reserved::User),
            SOCKET => return Err(Reserved::Socket),
            EVENT if [JOIN, LEAVE].contains(&value.as_ref()) => return Err(Reserved::Notice),
            USERNAME if !is_own_name(identity, value) => return Err(Reserved::Username),
            _ => {}
        }
    }
    match emitted(fields) {
        Some((MESSAGE, args)) if tells(args) => Err(Reserved::Told),
        _ => Ok(()),
    }
}

/// Whether somebody may be shown by this name.
fn is_own_name(identity: &Identity, shown: &[u8]) -> bool {
    let Some(user) = identity.user() else {
        return true;
    };
    let name = identity.name().map(str::as_bytes);
    shown == user.as_str().as_bytes() || Some(shown) == name
}

/// The name and the arguments of an entry that may be an event for Socket.IO clients. The first field
/// of a name counts; the arguments begin with a bracket, and are not known to be JSON.
pub fn emitted(fields: &[(Bytes, Bytes)]) -> Option<(&str, &str)> {
    let text = |wanted: &[u8]| {
        let mut fields = fields.iter();
        let (_, value) = fields.find(|(name, _)| name.as_ref() == wanted)?;
        std::str::from_utf8(value).ok()
    };
    let name = text(EVENT)?;
    let args = text(ARGS)?.trim();
    args.starts_with('[').then_some((name, args))
}

/// Whether these arguments have the form in which Socket.IO clients are told of entries.
fn tells(args: &str) -> bool {
    let Ok(args) = serde_json::from_str::<Vec<&RawValue>>(args) else {
        // Nobody gets it as an event.
        return false;
    };
    let Some(first) = args.first().map(|first| first.get()) else {
        return false;
    };
    // A client's JSON parser may take an object that ours does not.
    first.starts_with('{')
        && serde_json::from_str::<HashMap<String, IgnoredAny>>(first)
            .map_or(true, |members| members.contains_key("event"))
}

/// That somebody came to a room, or left it, as the node tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether they came; else they left.
    pub is_coming: bool,
    /// The name to show for them.
    pub username: Bytes,
    /// Their Socket.IO client.
    pub socket: Bytes,
}

/// What this node itself writes into an entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing.
    #[default]
    None,
    /// Which Socket.IO client sent it.
    Socket(Bytes),
    /// All of it: it's a notice.
    Notice(Notice),
}

impl Mark {
    /// Appends the fields.
    pub(super) fn put(self, fields: &mut Vec<(Bytes, Bytes)>) {
        let mut put = |name, value| fields.push((Bytes::from_static(name), value));
        match self {
            Mark::None => {}
            Mark::Socket(socket) => put(SOCKET, socket),
            Mark::Notice(notice) => {
                let what = if notice.is_coming { JOIN } else { LEAVE };
                put(EVENT, Bytes::from_static(what));
                put(USERNAME, notice.username);
                put(SOCKET, notice.socket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_as(
        identity: &Identity,
        fields: &[(&'static str, &'static str)],
        want: Option<Reserved>,
    ) {
        let list: Vec<(Bytes, Bytes)> = fields
            .iter()
            .map(|(name, value)| (Bytes::from(*name), Bytes::from(*value)))
            .collect();
        assert_eq!(check(identity, &list).err(), want, "{fields:?}");
    }

    #[test]
    fn what_clients_may_set() {
        use Reserved::{Notice, Socket, Told, User};
        let nobody = Identity::nobody();
        for (fields, want) in [
            (&[("message", "x"), ("to", "bob")][..], None),
            (&[("message", "x"), ("user", "bob")], Some(User)),
            (&[("message", "x"), ("socket", "abc")], Some(Socket)),
            (&[("event", "join")], Some(Notice)),
            (&[("event", "x"), ("event", "leave")], Some(Notice)),
            (&[("event", "leave"), ("args", "[]")], Some(Notice)),
            (&[("event", "left"), ("username", "Bob")], None),
            (&[("event", "draw"), ("args", "[{\"event\":1}]")], None),
            (
                &[("event", "message"), ("args", "[\"x\",{\"event\":1}]")],
                None,
            ),
            (&[("event", "message"), ("args", "[]")], None),
            (&[("event", "message"), ("args", "{\"event\":1}")], None),
            (&[("event", "message"), ("args", "[{\"data\":1}]")], None),
            (
                &[("event", "message"), ("args", "[{\"event\":1}]")],
                Some(Told),
            ),
            (
                &[
                    ("event", "message"),
                    ("args", " \u{a0}[ {\"x\":{},\"\\u0065vent\":1}]"),
                ],
                Some(Told),
            ),
            // Ours takes none of these, but JavaScript takes the first.
            (
                &[
                    ("event", "message"),
                    ("args", "[{\"\\ud800\":1,\"event\":1}]"),
                ],
                Some(Told),
            ),
            (&[("event", "message"), ("args", "[{\"event\":1}")], None),
        ] {
            check_as(&nobody, fields, want);
        }
    }
}
