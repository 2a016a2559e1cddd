//! What moderators do anywhere takes effect here: this node follows the audit stream, as a cursor
//! like any other.
//!
//! A record has the fields `act`, `room`, `by`, and, as the act has it, `user`, `until`, `reason` and
//! `ids`. What it does to the room's rules stands in `rules`, so that a node applies acts of newer nodes
//! that it has no word for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::side::Side;
use super::{Shared, now_ms, told};
use crate::relay::close::CloseReason;
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::listener::Heard;
use crate::relay::position::Position;

/// How long to wait before the audit stream is asked for again, if it can't be followed at all.
const RETRY: Duration = Duration::from_secs(1);

/// Follows the audit stream, for ever.
pub(super) async fn follow(shared: Arc<Shared>) {
    let audit = RoomName::audit();
    let mut listener = loop {
        match shared.relay.listen(&audit, Position::Now).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::error!(%error, "cannot follow tailcast:audit; no room can be joined");
                shared.audits.send_replace(Some(Err(error)));
                sleep(RETRY).await;
            }
        }
    };
    shared.audits.send_replace(Some(Ok(())));
    loop {
        match listener.next().await {
            Heard::Entry(entry) => {
                apply(&shared, &Record::read(&entry));
                shared.audited.send_replace(entry.id);
            }
            Heard::Gap(_) => {
                // Acts may have been missed, but what they did to the rules is in the rules.
                tracing::warn!("missed acts of moderators; reading all rules again");
                let sides: Vec<Arc<Side>> = shared.sides().values().cloned().collect();
                for side in sides {
                    side.reload(&shared);
                }
                shared.home.doubt();
            }
        }
    }
}

/// One act.
#[derive(Debug, Default, PartialEq)]
struct Record {
    act: String,
    room: Option<RoomName>,
    user: Option<String>,
    until: Option<u64>,
    reason: Option<String>,
    rules: HashMap<String, Option<String>>,
    ids: Vec<EntryId>,
}

impl Record {
    /// Reads a record. What makes no sense is left out: anybody may add to a stream in Redis.
    fn read(entry: &Entry) -> Self {
        let mut record = Record::default();
        for (name, value) in &entry.fields {
            let Ok(text) = std::str::from_utf8(value) else {
                continue;
            };
            match name.as_ref() {
                b"act" => text.clone_into(&mut record.act),
                b"room" => record.room = RoomName::parse(text).ok(),
                b"user" => record.user = Some(text.to_owned()),
                b"until" => record.until = text.parse().ok(),
                b"reason" => record.reason = Some(text.to_owned()),
                b"rules" => record.rules = serde_json::from_str(text).unwrap_or_default(),
                b"ids" => record.ids = text.split(' ').filter_map(|id| id.parse().ok()).collect(),
                _ => {}
            }
        }
        record
    }
}

fn apply(shared: &Arc<Shared>, record: &Record) {
    let Some(room) = &record.room else {
        return;
    };
    if !record.ids.is_empty() {
        shared.relay.forget(room, &record.ids);
        for ids in record.ids.chunks(told::DELETED_MAX) {
            shared.relay.tell(room, Arc::new(told::deleted(room, ids)));
        }
    }
    shared.home.apply(room, &record.rules, &record.ids);
    let side = shared.sides().get(room).cloned();
    let Some(side) = side else {
        return;
    };
    {
        let mut rules = side.rules();
        let before = told::rules(room, &rules);
        for (name, text) in &record.rules {
            rules.set(name, text.as_deref());
        }
        let after = told::rules(room, &rules);
        if before.json() != after.json() {
            shared.relay.tell(room, Arc::new(after));
        }
    }
    if let Some(user) = &record.user
        && !record.rules.is_empty()
    {
        let aside = told::moderated(room, &record.act, record.until, record.reason.as_deref());
        let theirs = side.stays_of(user).into_iter();
        for stay in theirs.filter(|stay| !stay.is_immune()) {
            stay.outlet().tell(&aside);
        }
    }
    if record.rules.keys().any(|name| name.starts_with("ban:")) {
        enforce(&side);
    }
}

/// Puts out who is banned.
pub(super) fn enforce(side: &Arc<Side>) {
    let now = now_ms();
    for stay in side.stays() {
        let Some(user) = stay.user().filter(|_| !stay.is_immune()) else {
            continue;
        };
        let banned = side.rules().admits(user, now);
        if let Err(why) = banned {
            let text = why.to_string();
            if stay.is_home() {
                stay.end();
                stay.outlet().close(CloseReason::Forbidden(text.into()));
            } else {
                stay.put_out(&told::put_out(side.room(), why.code(), &text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let field = |name: &str, value: &str| (name.to_owned().into(), value.to_owned().into());
        let entry = Entry::new(
            EntryId::new(1, 0),
            vec![
                field("act", "ban"),
                field("room", "live"),
                field("user", "bob"),
                field("by", "mod"),
                field("until", "99"),
                field("rules", r#"{"ban:bob":"99","mute:bob":null}"#),
                field("ids", "5-1 x 6-0"),
                field("new", "thing"),
            ],
        );
        let record = Record::read(&entry);
        assert_eq!(record.act, "ban");
        assert_eq!(record.room.as_ref().map(RoomName::as_str), Some("live"));
        assert_eq!(record.until, Some(99));
        assert_eq!(record.rules["ban:bob"].as_deref(), Some("99"));
        assert_eq!(record.rules["mute:bob"], None);
        assert_eq!(record.ids, [EntryId::new(5, 1), EntryId::new(6, 0)]);
        let odd = Entry::new(
            EntryId::new(1, 0),
            vec![field("rules", "[]"), field("room", "")],
        );
        assert_eq!(Record::read(&odd), Record::default());
    }
}
