//! What clients are told beside the streams: the JSON of every aside.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json as value};

use super::roster::{Moves, Present};
use super::rules::Rules;
use crate::relay::aside::{Aside, Audience};
use crate::relay::entry::{EntryId, RoomName};

fn aside(kind: &'static str, room: &RoomName, rest: Map<String, Value>) -> Aside {
    Aside::new(kind, json(kind, room, rest))
}

fn json(kind: &'static str, room: &RoomName, mut rest: Map<String, Value>) -> Bytes {
    let mut object = Map::new();
    object.insert("type".to_owned(), kind.into());
    object.insert("room".to_owned(), room.as_str().into());
    object.append(&mut rest);
    Value::Object(object).to_string().into()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn joined(users: &[Present]) -> Value {
    let user = |present: &Present| {
        let mut user = value!({"user": &*present.user});
        if let Some(name) = &present.name {
            user["name"] = (&**name).into();
        }
        if let Some(role) = present.role {
            user["role"] = role.as_str().into();
        }
        user
    };
    users.iter().map(user).collect()
}

/// Who came and went.
pub(super) fn moves(room: &RoomName, moves: &Moves) -> Aside {
    let left: Vec<Value> = moves
        .left
        .iter()
        .map(|user| value!({"user": &**user}))
        .collect();
    let rest = value!({"join": joined(&moves.joined), "leave": left, "count": moves.count});
    presence(aside("presence", room, object(rest)), Audience::Watchers)
}

/// Who goes without it is told everything a little later.
fn presence(mut aside: Aside, audience: Audience) -> Aside {
    aside.sheds = true;
    aside.audience = audience;
    aside
}

/// How many are here.
pub(super) fn count(room: &RoomName, count: usize, audience: Audience) -> Aside {
    let rest = value!({"join": [], "leave": [], "count": count});
    presence(aside("presence", room, object(rest)), audience)
}

/// Everybody who is here, for those who don't know. Made only if there is somebody.
pub(super) fn everybody(room: &RoomName, users: Vec<Present>, audience: Audience) -> Aside {
    let room = room.clone();
    let aside = Aside::lazily("presence", move || {
        let rest = value!({
            "join": joined(&users), "leave": [], "count": users.len(), "all": true,
        });
        json("presence", &room, object(rest))
    });
    presence(aside, audience)
}

/// Most IDs in one `deleted`, so that a frame stays below some 40 KB however many entries go.
pub(super) const DELETED_MAX: usize = 1_000;

/// Entries are gone: at most [`DELETED_MAX`] of them.
pub(super) fn deleted(room: &RoomName, ids: &[EntryId]) -> Aside {
    let ids: Vec<String> = ids.iter().map(EntryId::to_string).collect();
    aside("deleted", room, object(value!({"ids": ids})))
}

/// How the room stands.
pub(super) fn rules(room: &RoomName, rules: &Rules) -> Aside {
    let parsed = |json: &Option<Box<str>>| -> Value {
        let json = json.as_deref();
        json.and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or(Value::Null)
    };
    let rest = value!({
        "closed": rules.closed,
        "slow": rules.slow.as_secs(),
        "pin": parsed(&rules.pin),
        "announcement": parsed(&rules.announcement),
        "topic": rules.topic,
        "properties": rules.properties,
    });
    aside("room", room, object(rest))
}

/// A moderator has done something to this very user.
pub(super) fn moderated(
    room: &RoomName,
    act: &str,
    until: Option<u64>,
    reason: Option<&str>,
) -> Aside {
    let mut rest = object(value!({"act": act}));
    if let Some(until) = until.filter(|until| *until > 0) {
        rest.insert("until".to_owned(), until.into());
    }
    if let Some(reason) = reason {
        rest.insert("reason".to_owned(), reason.into());
    }
    aside("moderated", room, rest)
}

/// The client was put out of a room that is not its socket's own.
pub(super) fn put_out(room: &RoomName, code: &str, message: &str) -> Aside {
    aside(
        "left",
        room,
        object(value!({"code": code, "message": message})),
    )
}

/// Reactions since the last of these, and all in all.
pub(super) fn reactions(
    room: &RoomName,
    counts: &BTreeMap<String, u64>,
    totals: &BTreeMap<String, u64>,
) -> Aside {
    let mut aside = aside(
        "reactions",
        room,
        object(value!({"counts": counts, "totals": totals})),
    );
    aside.sheds = true;
    aside
}

/// Something shown now or never, as its publisher's node wrote it.
pub(super) fn ephemeral(json: impl Into<Bytes>, except: Option<u64>) -> Aside {
    let mut aside = Aside::new("ephemeral", json);
    aside.sheds = true;
    aside.except = except;
    aside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;
    use std::sync::Arc;
    use std::time::Duration;

    fn check(aside: Aside, want: &str) {
        assert_eq!(std::str::from_utf8(aside.json()).unwrap(), want);
    }

    #[test]
    fn asides() {
        let room = RoomName::parse("a\"b").unwrap();
        let ann = Present {
            user: Arc::from("ann"),
            name: Some(Arc::from("Ann")),
            role: Some(Role::Host),
            devices: 2,
            since: 7,
        };
        let moved = Moves {
            joined: vec![ann.clone()],
            left: vec![Arc::from("bob")],
            roles: false,
            count: 3,
        };
        check(
            moves(&room, &moved),
            r#"{"type":"presence","room":"a\"b","join":[{"user":"ann","name":"Ann","role":"host"}],"leave":[{"user":"bob"}],"count":3}"#,
        );
        check(
            count(&room, 900, Audience::Watchers),
            r#"{"type":"presence","room":"a\"b","join":[],"leave":[],"count":900}"#,
        );
        assert_eq!(
            ann.json().to_string(),
            r#"{"user":"ann","devices":2,"since":7,"name":"Ann","role":"host"}"#
        );
        check(
            deleted(&room, &[EntryId::new(5, 1), EntryId::new(6, 0)]),
            r#"{"type":"deleted","room":"a\"b","ids":["5-1","6-0"]}"#,
        );
        let mut laid_down = Rules::default();
        laid_down.set("pin", Some(r#"{"message":"hi"}"#));
        laid_down.slow = Duration::from_secs(5);
        laid_down.set("topic", Some("News"));
        laid_down.set("property:color", Some("red"));
        check(
            rules(&room, &laid_down),
            r#"{"type":"room","room":"a\"b","closed":false,"slow":5,"pin":{"message":"hi"},"announcement":null,"topic":"News","properties":{"color":"red"}}"#,
        );
        check(
            moderated(&room, "mute", Some(9), Some("spam")),
            r#"{"type":"moderated","room":"a\"b","act":"mute","until":9,"reason":"spam"}"#,
        );
        let hearts = BTreeMap::from([("heart".to_owned(), 2)]);
        let told = reactions(&room, &hearts, &hearts);
        assert!(told.sheds);
        check(
            told,
            r#"{"type":"reactions","room":"a\"b","counts":{"heart":2},"totals":{"heart":2}}"#,
        );
    }
}
