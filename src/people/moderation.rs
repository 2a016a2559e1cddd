//! What moderators, hosts and back ends may do to a room and its people.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::time::timeout;

use super::rules::{
    self, PROPERTIES_MAX, PROPERTY_MAX, PROPERTY_NAME_MAX, SLOW_MAX, TOPIC_MAX, Until,
};
use super::{People, Refusal, Shared, now_ms};
use crate::auth::{Identity, Right, UserName};
use crate::relay::entry::{Entry, EntryId, Fields, RoomName};
use crate::relay::hub::HistoryQuery;

/// How long a timeout is, unless somebody says. YouTube's is as long.
const TIMEOUT: Duration = Duration::from_secs(300);

/// How long an answer waits for its act to take effect.
const HOLDS: Duration = Duration::from_secs(1);

/// Entries looked through at a time for those of one user.
const PAGE: usize = 1_000;

/// Entries removed with one record. Their IDs are in it.
const CHUNK: usize = 500;

/// Longest reason, and longest pinned or announced message, in bytes.
const TEXT_MAX: usize = 2_000;

/// One thing done to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The user may not publish: for so long, or until it's lifted.
    Mute(UserName, Option<Duration>),
    /// The same for a while; 5 minutes if nothing is said.
    Timeout(UserName, Option<Duration>),
    /// Lifts a mute or a timeout.
    Unmute(UserName),
    /// The user may not be here: for so long, or until it's lifted.
    Ban(UserName, Option<Duration>),
    /// Lifts a ban.
    Unban(UserName),
    /// Removes one entry.
    Delete(EntryId),
    /// Removes all entries that a user has published, as far back as they are kept.
    DeleteAll(UserName),
    /// Nobody but who moderates may publish.
    Close,
    /// Lifts that.
    Open,
    /// One message per user in so long; zero lifts it.
    Slow(Duration),
    /// Pins an entry of the room, or a text.
    Pin(Pin),
    /// Lifts that.
    Unpin,
    /// Shows an announcement to everybody who is here or comes.
    Announce(String),
    /// Lifts that.
    Unannounce,
    /// Says what the room is about; an empty text lifts it.
    Topic(String),
    /// Lifts that.
    Untopic,
    /// Gives the room a property, by name: a colour, a language, whatever clients make of it.
    Property(String, String),
    /// Takes it away.
    Unproperty(String),
}

/// What is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pin {
    /// An entry; what it says is kept with the pin.
    Entry(EntryId),
    /// A text.
    Message(String),
}

/// What an act came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The word for it.
    pub act: &'static str,
    /// The ID of its record in `tailcast:audit`.
    pub audit: EntryId,
    /// When it ends, in Unix milliseconds.
    pub until: Option<u64>,
    /// Which entries were removed.
    pub deleted: Vec<EntryId>,
}

impl Act {
    /// Its word.
    pub fn name(&self) -> &'static str {
        match self {
            Act::Mute(..) => "mute",
            Act::Timeout(..) => "timeout",
            Act::Unmute(_) => "unmute",
            Act::Ban(..) => "ban",
            Act::Unban(_) => "unban",
            Act::Delete(_) | Act::DeleteAll(_) => "delete",
            Act::Close => "close",
            Act::Open => "open",
            Act::Slow(_) => "slow",
            Act::Pin(_) => "pin",
            Act::Unpin => "unpin",
            Act::Announce(_) => "announce",
            Act::Unannounce => "unannounce",
            Act::Topic(_) => "topic",
            Act::Untopic => "untopic",
            Act::Property(..) => "property",
            Act::Unproperty(_) => "unproperty",
        }
    }

    /// Which rights it takes, any of them.
    fn rights(&self) -> &'static [Right] {
        match self {
            Act::Pin(_) | Act::Unpin | Act::Announce(_) | Act::Unannounce => &[Right::Announce],
            Act::Topic(_) | Act::Untopic | Act::Property(..) | Act::Unproperty(_) => {
                &[Right::Announce, Right::Moderate]
            }
            _ => &[Right::Moderate],
        }
    }

    fn user(&self) -> Option<&UserName> {
        match self {
            Act::Mute(user, _)
            | Act::Timeout(user, _)
            | Act::Unmute(user)
            | Act::Ban(user, _)
            | Act::Unban(user)
            | Act::DeleteAll(user) => Some(user),
            _ => None,
        }
    }

    /// How long it lasts, if it ends by itself.
    fn lasts(&self) -> Option<Duration> {
        match self {
            Act::Mute(_, lasts) | Act::Ban(_, lasts) => *lasts,
            Act::Timeout(_, lasts) => Some(lasts.unwrap_or(TIMEOUT)),
            _ => None,
        }
    }
}

type RuleChanges = Vec<(String, Option<String>)>;

impl People {
    /// Does something to a room, on all nodes, and records it.
    pub async fn moderate(
        &self,
        identity: &Identity,
        room: &RoomName,
        act: Act,
        reason: Option<String>,
    ) -> Result<Done, Refusal> {
        self.shared.moderate(identity, room, act, reason).await
    }
}

impl Shared {
    pub(super) async fn moderate(
        self: &Arc<Self>,
        identity: &Identity,
        room: &RoomName,
        act: Act,
        reason: Option<String>,
    ) -> Result<Done, Refusal> {
        if room.owner().is_some() {
            return Err(Refusal::BadRequest(
                "nobody moderates a user's own room".to_owned(),
            ));
        }
        let side = self.side(room);
        side.known_within(self.patience()).await?;
        // Whoever is muted or banned can't undo that.
        let held = identity.rights(room);
        let rights = act.rights();
        let right = rights.iter().find(|right| held.has(**right));
        self.may_speak(identity, &side, *right.unwrap_or(&rights[0]))?;
        let is_immune = |user: &UserName| side.is_immune(user.as_str());
        if !identity.is_server() && act.user().is_some_and(is_immune) {
            return Err(Refusal::Immune);
        }
        if reason
            .as_ref()
            .is_some_and(|reason| reason.len() > TEXT_MAX)
        {
            return Err(Refusal::BadRequest(format!(
                "a reason has at most {TEXT_MAX} bytes"
            )));
        }
        let now = now_ms();
        let until = act
            .lasts()
            .map(|lasts| now.saturating_add(u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX)));
        let mut record = vec![
            field("act", act.name()),
            field("room", room.as_str()),
            field("by", by(identity)),
        ];
        if let Some(user) = act.user() {
            record.push(field("user", user.as_str()));
        }
        if let Some(until) = until {
            record.push(field("until", &until.to_string()));
        }
        if let Some(reason) = &reason {
            record.push(field("reason", reason));
        }
        let mut deleted = Vec::new();
        match &act {
            Act::Delete(id) => {
                if self.relay.remove(room, vec![*id]).await? == 0 {
                    return Err(Refusal::BadRequest(format!(
                        "there is no entry {id} in this room"
                    )));
                }
                deleted.push(*id);
            }
            Act::DeleteAll(user) => deleted = self.entries_of(room, user).await?,
            _ => {}
        }
        let mut changes = self.changes(identity, room, &act, until, now).await?;
        // Whoever is banned or muted may ask later why; an act without a reason takes an earlier one away.
        let held = changes.iter().map(|(name, text)| (name.as_str(), text));
        let held = held.filter(|(name, _)| name.starts_with("ban:") || name.starts_with("mute:"));
        let whys =
            held.map(|(name, text)| (rules::reason(name), text.as_ref().and(reason.clone())));
        let whys: RuleChanges = whys.collect();
        changes.extend(whys);
        if side.rules().pins_one_of(&deleted) {
            changes.push(("pin".to_owned(), None));
        }
        if !changes.is_empty() {
            let spent = side.rules().spent(now).into_iter();
            let spent = spent.filter(|name| !changes.iter().any(|(other, _)| other == name));
            let spent: RuleChanges = spent.map(|name| (name, None)).collect();
            changes.extend(spent);
            let told: serde_json::Map<String, serde_json::Value> = changes
                .iter()
                .map(|(name, text)| (name.clone(), json!(text)))
                .collect();
            record.push(field("rules", &serde_json::Value::Object(told).to_string()));
        }
        let mut audit = None;
        let mut chunks = deleted.chunks(CHUNK);
        loop {
            let chunk = chunks.next();
            if audit.is_some() && chunk.is_none() {
                break;
            }
            let mut record = record.clone();
            if let Some(ids) = chunk {
                if let Act::DeleteAll(_) = &act {
                    self.relay.remove(room, ids.to_vec()).await?;
                }
                let ids: Vec<String> = ids.iter().map(EntryId::to_string).collect();
                record.push(field("ids", &ids.join(" ")));
            }
            let record: Fields = record.into();
            audit = Some(self.board.act(room, changes.clone(), record).await?);
        }
        let audit = audit.unwrap_or_default();
        // What is done holds here when its answer comes; elsewhere it's a moment's matter. If this
        // node lags behind its Redis, it's done all the same.
        let mut audited = self.audited.subscribe();
        let holds = audited.wait_for(|upto| *upto >= audit);
        let _ = timeout(HOLDS, holds).await;
        Ok(Done {
            act: act.name(),
            audit,
            until,
            deleted,
        })
    }

    /// What an act does to the rules.
    async fn changes(
        self: &Arc<Self>,
        identity: &Identity,
        room: &RoomName,
        act: &Act,
        until: Option<u64>,
        now: u64,
    ) -> Result<RuleChanges, Refusal> {
        let end = until.map_or(Until::Lifted, Until::At).text();
        let by = by(identity);
        let one = |name: &str, text: Option<String>| vec![(name.to_owned(), text)];
        Ok(match act {
            Act::Mute(user, _) | Act::Timeout(user, _) => {
                one(&rules::mute(user.as_str()), Some(end))
            }
            Act::Unmute(user) => one(&rules::mute(user.as_str()), None),
            Act::Ban(user, _) => one(&rules::ban(user.as_str()), Some(end)),
            Act::Unban(user) => one(&rules::ban(user.as_str()), None),
            Act::Delete(_) | Act::DeleteAll(_) => Vec::new(),
            Act::Close => one("closed", Some("1".to_owned())),
            Act::Open => one("closed", None),
            Act::Slow(time) if time.is_zero() => one("slow", None),
            Act::Slow(time) => {
                let seconds = time.as_secs();
                if seconds == 0 || *time > SLOW_MAX {
                    return Err(Refusal::BadRequest(format!(
                        "slow mode takes 1 to {} seconds, or 0 to end it",
                        SLOW_MAX.as_secs()
                    )));
                }
                one("slow", Some(seconds.to_string()))
            }
            Act::Pin(pin) => {
                let mut pinned = match pin {
                    Pin::Message(text) => json!({"message": bounded(text)?}),
                    Pin::Entry(id) => self.entry_shown(room, *id).await?,
                };
                pinned["by"] = json!(by);
                pinned["at"] = json!(now);
                one("pin", Some(pinned.to_string()))
            }
            Act::Unpin => one("pin", None),
            Act::Announce(text) => {
                let shown = json!({"message": bounded(text)?, "by": by, "at": now});
                one("announcement", Some(shown.to_string()))
            }
            Act::Unannounce => one("announcement", None),
            Act::Topic(text) if text.len() > TOPIC_MAX => {
                return Err(Refusal::BadRequest(format!(
                    "a topic has at most {TOPIC_MAX} bytes"
                )));
            }
            Act::Topic(text) => one("topic", Some(text.clone()).filter(|text| !text.is_empty())),
            Act::Untopic => one("topic", None),
            Act::Property(name, value) => {
                self.check_property(room, name, value)?;
                one(&rules::property(name), Some(value.clone()))
            }
            Act::Unproperty(name) => one(&rules::property(name), None),
        })
    }

    /// Whether the room may have this property, beside those it has.
    fn check_property(
        self: &Arc<Self>,
        room: &RoomName,
        name: &str,
        value: &str,
    ) -> Result<(), Refusal> {
        if !rules::is_property_name(name) {
            return Err(Refusal::BadRequest(format!(
                "a property's name has 1 to {PROPERTY_NAME_MAX} bytes of a-z, 0-9, _ and -"
            )));
        }
        if value.len() > PROPERTY_MAX {
            return Err(Refusal::BadRequest(format!(
                "a property's value has at most {PROPERTY_MAX} bytes"
            )));
        }
        let side = self.side(room);
        let rules = side.rules();
        if rules.properties.len() >= PROPERTIES_MAX && !rules.properties.contains_key(name) {
            return Err(Refusal::BadRequest(format!(
                "a room has at most {PROPERTIES_MAX} properties; take one away first"
            )));
        }
        Ok(())
    }

    /// An entry as a pin shows it.
    async fn entry_shown(
        &self,
        room: &RoomName,
        id: EntryId,
    ) -> Result<serde_json::Value, Refusal> {
        let query = HistoryQuery {
            after: Some(id.predecessor()),
            before: None,
            limit: 1,
            newest_first: false,
        };
        let page = self.relay.history(room, query).await?;
        match page.entries.first().filter(|entry| entry.id == id) {
            Some(entry) => {
                let message = String::from_utf8_lossy(entry.message());
                let mut shown = json!({"id": id.to_string(), "message": bounded(&message)?});
                if let Some(user) = published_by(entry) {
                    shown["user"] = json!(String::from_utf8_lossy(user));
                }
                Ok(shown)
            }
            None => Err(Refusal::BadRequest(format!(
                "there is no entry {id} in this room"
            ))),
        }
    }

    /// The IDs of all that a user has published here.
    async fn entries_of(&self, room: &RoomName, user: &UserName) -> Result<Vec<EntryId>, Refusal> {
        let mut found = Vec::new();
        let mut before = None;
        loop {
            let query = HistoryQuery {
                after: None,
                before,
                limit: PAGE,
                newest_first: true,
            };
            let page = self.relay.history(room, query).await?;
            let theirs = page.entries.iter();
            let theirs = theirs.filter(|entry| {
                published_by(entry).is_some_and(|by| by == user.as_str().as_bytes())
            });
            found.extend(theirs.map(|entry| entry.id));
            before = page.next;
            if before.is_none() {
                return Ok(found);
            }
        }
    }
}

/// Who has published an entry, as its field `user` says.
fn published_by(entry: &Entry) -> Option<&Bytes> {
    let mut fields = entry.fields.iter().rev();
    fields
        .find(|(name, _)| name.as_ref() == b"user")
        .map(|(_, user)| user)
}

fn bounded(text: &str) -> Result<&str, Refusal> {
    if text.is_empty() || text.len() > TEXT_MAX {
        return Err(Refusal::BadRequest(format!(
            "a message here has 1 to {TEXT_MAX} bytes"
        )));
    }
    Ok(text)
}

/// Who does it, for the record.
fn by(identity: &Identity) -> &str {
    let user = identity.user().map(UserName::as_str);
    user.or(identity.key_name()).unwrap_or("")
}

fn field(name: &'static str, value: &str) -> (Bytes, Bytes) {
    (Bytes::from_static(name.as_bytes()), value.to_owned().into())
}
