//! A moderator's act as JSON has it: the same over a socket and over HTTP.

use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::auth::UserName;
use crate::people::moderation::{Act, Pin};
use crate::relay::entry::EntryId;

/// Longest ban or mute that ends by itself: a year. What is to last longer is lifted by hand.
const FOR_MAX: u64 = 366 * 24 * 3600;

const ACTS: &str = "one of mute, timeout, unmute, ban, unban, delete, close, open, slow, pin, unpin, announce, unannounce, topic, untopic, property, unproperty";

/// What was asked for. Which members matter, the act says.
// A member that is misspelt must not make a short ban one for ever.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    act: Option<String>,
    user: Option<String>,
    id: Option<String>,
    message: Option<String>,
    name: Option<String>,
    value: Option<String>,
    /// Seconds.
    seconds: Option<u64>,
    /// Why, for the record and for who it happens to.
    pub(crate) reason: Option<String>,
    /// What a socket's frame has besides.
    #[serde(rename = "type")]
    _kind: Option<IgnoredAny>,
    #[serde(rename = "ref")]
    _reference: Option<IgnoredAny>,
    #[serde(rename = "room")]
    _room: Option<IgnoredAny>,
}

impl Asked {
    /// The act, or what is wrong with it.
    pub(crate) fn act(&self) -> Result<Act, String> {
        let act = self
            .act
            .as_deref()
            .ok_or(format!("`act` is missing: {ACTS}"))?;
        Ok(match act {
            "mute" => Act::Mute(self.user()?, self.lasts()?),
            "timeout" => Act::Timeout(self.user()?, self.lasts()?),
            "unmute" => Act::Unmute(self.user()?),
            "ban" => Act::Ban(self.user()?, self.lasts()?),
            "unban" => Act::Unban(self.user()?),
            "delete" => match (&self.id, &self.user) {
                (Some(_), None) => Act::Delete(self.id()?),
                (None, Some(_)) => Act::DeleteAll(self.user()?),
                _ => {
                    return Err(
                        "delete takes either `id`, an entry, or `user`, for all of theirs"
                            .to_owned(),
                    );
                }
            },
            "close" => Act::Close,
            "open" => Act::Open,
            "slow" => Act::Slow(Duration::from_secs(
                self.seconds.ok_or("slow takes `seconds`; 0 ends it")?,
            )),
            "pin" => match (&self.id, &self.message) {
                (Some(_), None) => Act::Pin(Pin::Entry(self.id()?)),
                (None, Some(message)) => Act::Pin(Pin::Message(message.clone())),
                _ => return Err("pin takes either `id`, an entry, or `message`".to_owned()),
            },
            "unpin" => Act::Unpin,
            "announce" => Act::Announce(self.message.clone().ok_or("announce takes `message`")?),
            "unannounce" => Act::Unannounce,
            "topic" => Act::Topic(
                (self.message.clone()).ok_or("topic takes `message`; an empty one lifts it")?,
            ),
            "untopic" => Act::Untopic,
            "property" => Act::Property(
                self.name()?,
                self.value.clone().ok_or("property takes `value`")?,
            ),
            "unproperty" => Act::Unproperty(self.name()?),
            other => {
                let shown: String = other.chars().take(40).collect();
                return Err(format!("there is no act `{shown}`: {ACTS}"));
            }
        })
    }

    fn user(&self) -> Result<UserName, String> {
        let user = self.user.as_deref().ok_or("`user` is missing: say whom")?;
        UserName::parse(user).map_err(|error| format!("`user`: {error}"))
    }

    fn name(&self) -> Result<String, String> {
        let name = self.name.clone();
        name.ok_or_else(|| "`name` is missing: say which property".to_owned())
    }

    fn id(&self) -> Result<EntryId, String> {
        let id = self.id.as_deref().unwrap_or_default();
        id.parse().map_err(|error| format!("`id` is {error}"))
    }

    fn lasts(&self) -> Result<Option<Duration>, String> {
        match self.seconds {
            None => Ok(None),
            Some(seconds @ 1..=FOR_MAX) => Ok(Some(Duration::from_secs(seconds))),
            Some(_) => Err(format!(
                "`seconds` is a number from 1 to {FOR_MAX}; without it a timeout lasts 300 s, a mute or ban until it's lifted"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts() {
        let user = || UserName::parse("bob").unwrap();
        let secs = Duration::from_secs;
        let check = |json: &str, want: Result<Act, &str>| {
            let asked: Asked = serde_json::from_str(json).unwrap();
            match (asked.act(), want) {
                (Ok(act), Ok(want)) => assert_eq!(act, want, "{json}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{json}: {error}"),
                (got, _) => panic!("{json}: {got:?}"),
            }
        };
        check(
            r#"{"act":"mute","user":"bob"}"#,
            Ok(Act::Mute(user(), None)),
        );
        check(
            r#"{"act":"timeout","user":"bob","seconds":60}"#,
            Ok(Act::Timeout(user(), Some(secs(60)))),
        );
        check(
            r#"{"act":"ban","user":"bob","seconds":1}"#,
            Ok(Act::Ban(user(), Some(secs(1)))),
        );
        check(r#"{"act":"unban","user":"bob"}"#, Ok(Act::Unban(user())));
        check(
            r#"{"act":"delete","id":"5-1"}"#,
            Ok(Act::Delete(EntryId::new(5, 1))),
        );
        check(
            r#"{"act":"delete","user":"bob"}"#,
            Ok(Act::DeleteAll(user())),
        );
        check(r#"{"act":"slow","seconds":0}"#, Ok(Act::Slow(secs(0))));
        check(
            r#"{"act":"pin","message":"hi","type":"moderate"}"#,
            Ok(Act::Pin(Pin::Message("hi".into()))),
        );
        check(r#"{"act":"close"}"#, Ok(Act::Close));
        check(
            r#"{"act":"announce","message":"m"}"#,
            Ok(Act::Announce("m".into())),
        );
        check(
            r#"{"act":"topic","message":""}"#,
            Ok(Act::Topic(String::new())),
        );
        check(r#"{"act":"untopic"}"#, Ok(Act::Untopic));
        check(
            r#"{"act":"property","name":"color","value":"red"}"#,
            Ok(Act::Property("color".into(), "red".into())),
        );
        check(
            r#"{"act":"unproperty","name":"color"}"#,
            Ok(Act::Unproperty("color".into())),
        );
        check(r#"{"act":"topic"}"#, Err("`message`"));
        check(r#"{"act":"property","value":"red"}"#, Err("`name`"));
        check(r#"{"act":"property","name":"a"}"#, Err("`value`"));
        check("{}", Err("`act` is missing"));
        check(r#"{"act":"kick"}"#, Err("no act `kick`"));
        check(r#"{"act":"ban"}"#, Err("`user` is missing"));
        check(r#"{"act":"ban","user":""}"#, Err("`user`"));
        check(r#"{"act":"ban","user":"b","seconds":0}"#, Err("from 1"));
        check(r#"{"act":"delete"}"#, Err("either"));
        check(r#"{"act":"delete","id":"now"}"#, Err("not an entry ID"));
        check(r#"{"act":"slow"}"#, Err("seconds"));
        check(r#"{"act":"pin","id":"1","message":"m"}"#, Err("either"));
    }
}
