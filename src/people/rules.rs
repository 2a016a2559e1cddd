//! [`Rules`]: what moderators have laid down for one room. All nodes have the same, from the board's
//! hash when a room opens and from the audit stream after that.
//!
//! A rule has a name and a text, as the hash has them: `ban:USER` and `mute:USER` with the Unix
//! milliseconds of their end or `0` for none, `closed` with `1`, `slow` with seconds, `pin` and
//! `announcement` with a JSON object, `topic` and `property:NAME` with text, `reason:ban:USER` and
//! `reason:mute:USER` with why. (Not in the rule itself: older nodes could not read that, and lift it.)

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::refusal::Refusal;
use crate::relay::entry::EntryId;

/// Longest slow mode.
pub const SLOW_MAX: Duration = Duration::from_secs(120);

/// Longest topic, in bytes: a line.
pub(super) const TOPIC_MAX: usize = 200;

/// Longest name of a property, in bytes.
pub(super) const PROPERTY_NAME_MAX: usize = 64;

/// Longest value of a property, in bytes.
pub(super) const PROPERTY_MAX: usize = 1_000;

/// Most properties of a room: all of them are told to whoever joins.
pub(super) const PROPERTIES_MAX: usize = 32;

/// What the names of reasons begin with.
const REASON: &str = "reason:";

/// Whether a property may be called so.
pub(super) fn is_property_name(name: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=PROPERTY_NAME_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// When a ban or a mute ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// It doesn't, by itself.
    Lifted,
    /// Unix milliseconds.
    At(u64),
}

impl Until {
    fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(0) => Some(Until::Lifted),
            Ok(at) => Some(Until::At(at)),
            Err(_) => None,
        }
    }

    /// As a rule's text.
    pub(super) fn text(self) -> String {
        match self {
            Until::Lifted => "0".to_owned(),
            Until::At(at) => at.to_string(),
        }
    }

    /// Whether it's still in force.
    fn holds(self, now_ms: u64) -> bool {
        match self {
            Until::Lifted => true,
            Until::At(at) => now_ms < at,
        }
    }

    /// In words, for who is kept out.
    pub(super) fn words(self, now_ms: u64) -> String {
        match self {
            Until::Lifted => "until a moderator lifts it".to_owned(),
            Until::At(at) => format!("for {} s more", at.saturating_sub(now_ms).div_ceil(1000)),
        }
    }
}

/// What a moderator has done to a user, as it still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// When it ends, in Unix milliseconds; none if it's until a moderator lifts it.
    pub until: Option<u64>,
    /// Why, if the moderator said so.
    pub reason: Option<String>,
}

/// A room's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rules {
    bans: HashMap<Box<str>, Until>,
    mutes: HashMap<Box<str>, Until>,
    /// Why, by the name of the ban or the mute.
    reasons: HashMap<Box<str>, Box<str>>,
    pub(super) closed: bool,
    pub(super) slow: Duration,
    /// JSON objects.
    pub(super) pin: Option<Box<str>>,
    pub(super) announcement: Option<Box<str>>,
    pub(super) topic: Option<Box<str>>,
    pub(super) properties: BTreeMap<Box<str>, Box<str>>,
}

/// The name of the rule that bans a user.
pub(super) fn ban(user: &str) -> String {
    format!("ban:{user}")
}

/// The name of the rule that mutes a user.
pub(super) fn mute(user: &str) -> String {
    format!("mute:{user}")
}

/// The name of the rule that holds why there is this ban or mute.
pub(super) fn reason(of: &str) -> String {
    format!("{REASON}{of}")
}

/// The name of the rule that holds a property.
pub(super) fn property(name: &str) -> String {
    format!("property:{name}")
}

impl Rules {
    /// Reads a hash of them. What makes no sense is left out.
    pub(super) fn read(rules: Vec<(String, String)>) -> Self {
        let mut read = Rules::default();
        for (name, text) in rules {
            read.set(&name, Some(&text));
        }
        read
    }

    /// Sets one rule, or lifts it.
    pub(super) fn set(&mut self, name: &str, text: Option<&str>) {
        let json = |text: &str| {
            let is_object = serde_json::from_str::<serde_json::Map<String, _>>(text);
            is_object
                .is_ok_and(|_: serde_json::Map<String, serde_json::Value>| true)
                .then(|| Box::from(text))
        };
        match name {
            "closed" => self.closed = text == Some("1"),
            "slow" => {
                let seconds = text.and_then(|text| text.parse().ok()).unwrap_or(0);
                self.slow = Duration::from_secs(seconds).min(SLOW_MAX);
            }
            "pin" => self.pin = text.and_then(json),
            "announcement" => self.announcement = text.and_then(json),
            "topic" => {
                let topic = text.filter(|text| (1..=TOPIC_MAX).contains(&text.len()));
                self.topic = topic.map(Box::from);
            }
            _ if name.starts_with("property:") => {
                let name = &name["property:".len()..];
                match text.filter(|text| text.len() <= PROPERTY_MAX) {
                    Some(text) if is_property_name(name) => {
                        self.properties.insert(name.into(), text.into());
                    }
                    _ => {
                        self.properties.remove(name);
                    }
                }
            }
            _ if name.starts_with(REASON) => {
                let of = &name[REASON.len()..];
                match text {
                    Some(text) => self.reasons.insert(of.into(), text.into()),
                    None => self.reasons.remove(of),
                };
            }
            _ => {
                let (users, user) = match name.split_once(':') {
                    Some(("ban", user)) => (&mut self.bans, user),
                    Some(("mute", user)) => (&mut self.mutes, user),
                    // A newer node's.
                    _ => return,
                };
                match text.and_then(Until::parse) {
                    Some(until) => users.insert(user.into(), until),
                    None => users.remove(user),
                };
            }
        }
    }

    /// Names of rules that have run out, for whoever writes next to take them away.
    pub(super) fn spent(&self, now_ms: u64) -> Vec<String> {
        let spent = |users: &HashMap<Box<str>, Until>, name: fn(&str) -> String| {
            let over = users.iter().filter(|(_, until)| !until.holds(now_ms));
            over.map(|(user, _)| name(user)).collect::<Vec<_>>()
        };
        let mut spent = [spent(&self.bans, ban), spent(&self.mutes, mute)].concat();
        let reasons = spent.iter().filter(|of| self.reasons.contains_key(&***of));
        let reasons: Vec<String> = reasons.map(|of| reason(of)).collect();
        spent.extend(reasons);
        spent
    }

    /// The ban that keeps a user out, if there is one.
    pub(super) fn ban_of(&self, user: &str, now_ms: u64) -> Option<Hold> {
        self.hold(self.bans.get(user), &ban(user), now_ms)
    }

    /// The mute or timeout that keeps a user silent, if there is one.
    pub(super) fn mute_of(&self, user: &str, now_ms: u64) -> Option<Hold> {
        self.hold(self.mutes.get(user), &mute(user), now_ms)
    }

    fn hold(&self, until: Option<&Until>, name: &str, now_ms: u64) -> Option<Hold> {
        let until = until.filter(|until| until.holds(now_ms))?;
        Some(Hold {
            until: match until {
                Until::Lifted => None,
                Until::At(at) => Some(*at),
            },
            reason: self.reasons.get(name).map(|reason| reason.to_string()),
        })
    }

    /// Whether a user may be here at all.
    pub(super) fn admits(&self, user: &str, now_ms: u64) -> Result<(), Refusal> {
        match self.bans.get(user).filter(|until| until.holds(now_ms)) {
            Some(until) => Err(Refusal::Banned(until.words(now_ms))),
            None => Ok(()),
        }
    }

    /// Whether a user may say something, apart from how often. Whoever `leads` the room may also
    /// while it's closed.
    pub(super) fn lets_speak(
        &self,
        user: Option<&str>,
        leads: bool,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        if let Some(user) = user {
            self.admits(user, now_ms)?;
            if let Some(until) = self.mutes.get(user).filter(|until| until.holds(now_ms)) {
                return Err(Refusal::Muted(until.words(now_ms)));
            }
        }
        if self.closed && !leads {
            return Err(Refusal::Closed);
        }
        Ok(())
    }

    /// Whether the pin shows one of these entries.
    pub(super) fn pins_one_of(&self, ids: &[EntryId]) -> bool {
        let pin = self.pin.as_deref();
        let shown: Option<serde_json::Value> = pin.and_then(|pin| serde_json::from_str(pin).ok());
        let id = shown.and_then(|shown| shown["id"].as_str()?.parse::<EntryId>().ok());
        id.is_some_and(|id| ids.contains(&id))
    }

    /// Whether there is anything to tell who joins.
    pub(super) fn is_plain(&self) -> bool {
        !self.closed
            && self.slow.is_zero()
            && self.pin.is_none()
            && self.announcement.is_none()
            && self.topic.is_none()
            && self.properties.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(pairs: &[(&str, &str)]) -> Rules {
        let owned = pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
        Rules::read(owned.collect())
    }

    #[test]
    fn bans_and_mutes_end() {
        let rules = rules(&[
            ("ban:bob", "5000"),
            ("ban:mallory", "0"),
            ("mute:carol", "2000"),
            ("ban:odd", "soon"),
            ("unheard:of", "1"),
        ]);
        let check = |user: &str, now: u64, admitted: bool, heard: bool| {
            assert_eq!(rules.admits(user, now).is_ok(), admitted, "{user} {now}");
            let speaks = rules.lets_speak(Some(user), false, now);
            assert_eq!(speaks.is_ok(), heard, "{user} {now}");
        };
        check("bob", 4_999, false, false);
        check("bob", 5_000, true, true);
        check("mallory", u64::MAX, false, false);
        check("carol", 1_999, true, false);
        check("carol", 2_000, true, true);
        check("odd", 0, true, true);
        let error = rules.admits("bob", 3_500).unwrap_err();
        assert_eq!(error.to_string(), "banned from this room for 2 s more");
        assert_eq!(rules.spent(5_000), ["ban:bob", "mute:carol"]);
    }

    #[test]
    fn what_holds_against_a_user() {
        let mut rules = rules(&[
            ("ban:bob", "5000"),
            ("reason:ban:bob", "spam: twice"),
            ("mute:bob", "0"),
            ("mute:a:b", "7000"),
            ("reason:mute:a:b", "noise"),
        ]);
        let hold = |until: Option<u64>, reason: Option<&str>| {
            let reason = reason.map(str::to_owned);
            Some(Hold { until, reason })
        };
        assert_eq!(
            rules.ban_of("bob", 4_999),
            hold(Some(5_000), Some("spam: twice"))
        );
        assert_eq!(rules.ban_of("bob", 5_000), None);
        assert_eq!(rules.mute_of("bob", 9_000), hold(None, None));
        assert_eq!(rules.mute_of("a:b", 1), hold(Some(7_000), Some("noise")));
        assert_eq!(rules.ban_of("carol", 0), None);
        // Its reason goes with a ban.
        assert_eq!(rules.spent(5_000), ["ban:bob", "reason:ban:bob"]);
        for name in [
            "ban:bob",
            "reason:ban:bob",
            "mute:bob",
            "mute:a:b",
            "reason:mute:a:b",
        ] {
            rules.set(name, None);
        }
        assert_eq!(rules, Rules::default());
    }

    #[test]
    fn a_closed_room_hears_who_leads_it() {
        let mut rules = rules(&[("closed", "1"), ("mute:host", "0")]);
        assert_eq!(rules.lets_speak(None, false, 0), Err(Refusal::Closed));
        assert_eq!(rules.lets_speak(None, true, 0), Ok(()));
        assert!(rules.lets_speak(Some("host"), true, 0).is_err());
        rules.set("closed", None);
        rules.set("mute:host", None);
        assert_eq!(rules, Rules::default());
        assert!(rules.is_plain());
    }

    #[test]
    fn topics_and_properties() {
        let check = |name: &str, text: &str, is_kept: bool| {
            let mut rules = rules(&[(name, text)]);
            assert_eq!(!rules.is_plain(), is_kept, "{name} {text}");
            rules.set(name, None);
            assert_eq!(rules, Rules::default(), "{name}");
        };
        check("topic", "Release week", true);
        check("topic", &"a".repeat(TOPIC_MAX), true);
        check("topic", &"a".repeat(TOPIC_MAX + 1), false);
        check("topic", "", false);
        check("property:color", "#ff0000", true);
        check("property:a-b_0", "", true);
        check(&format!("property:{}", "n".repeat(64)), "v", true);
        check(&format!("property:{}", "n".repeat(65)), "v", false);
        check("property:", "v", false);
        check("property:Color", "v", false);
        check("property:a:b", "v", false);
        check("property:x", &"v".repeat(PROPERTY_MAX + 1), false);
    }

    #[test]
    fn what_is_told_on_join() {
        let rules = rules(&[
            ("slow", "30"),
            ("pin", r#"{"message":"hi"}"#),
            ("announcement", "not json"),
        ]);
        assert_eq!(rules.slow, Duration::from_secs(30));
        assert_eq!(rules.pin.as_deref(), Some(r#"{"message":"hi"}"#));
        assert_eq!(rules.announcement, None);
        assert!(!rules.is_plain());
        assert_eq!(
            super::Rules::read(vec![("slow".into(), "999".into())]).slow,
            SLOW_MAX
        );
    }
}
