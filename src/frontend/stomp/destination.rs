//! Where a frame goes: destinations, and the rooms they name.
//!
//! `/topic/ROOM` is the room of that name, taken as it stands: nothing in it is percent-decoded, and
//! slashes belong to it. `/user/queue/…` is the user's own room, whatever follows, and
//! `/user/NAME/queue/…` somebody else's, to be written to. Whatever else an application calls its
//! destinations can be an alias.

use std::collections::HashMap;
use std::str::FromStr;

use super::refused::Refused;
use crate::auth::{Mode, UserName};
use crate::relay::entry::RoomName;

/// Whose room a destination names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// That one.
    Room(RoomName),
    /// The room of whoever says so.
    Own,
}

impl Place {
    /// Reads a destination that is no alias.
    pub(super) fn parse(destination: &str) -> Result<Self, Refused> {
        let room = |room: Result<RoomName, _>| room.map(Place::Room).map_err(Refused::bad);
        if let Some(name) = destination.strip_prefix("/topic/") {
            return room(RoomName::parse(name));
        }
        if destination.starts_with("/user/queue/") {
            return Ok(Place::Own);
        }
        if let Some(rest) = destination.strip_prefix("/user/")
            && let Some((user, _)) = rest.split_once("/queue/")
        {
            return room(RoomName::of_user(user));
        }
        let kind = destination.split('/').nth(1).unwrap_or_default();
        Err(match kind {
            "queue" | "amq" | "temp-queue" | "reply-queue" => Refused::unsupported(
                "there are no work queues here: every subscriber gets every entry; use /topic/ROOM, or /user/queue/NAME for a user's own",
            ),
            "exchange" => Refused::unsupported("there are no exchanges here; use /topic/ROOM"),
            _ => Refused::bad(
                "a destination is /topic/ROOM, /user/queue/NAME, /user/USER/queue/NAME, or an alias of --stomp-alias",
            ),
        })
    }

    /// The room, for that user; the mode says how nobody becomes one.
    pub(super) fn room(self, user: Option<&UserName>, mode: Mode) -> Result<RoomName, Refused> {
        match (self, user) {
            (Place::Room(room), _) => Ok(room),
            (Place::Own, Some(user)) => Ok(user.room().clone()),
            (Place::Own, None) => Err(Refused::bad(match mode {
                Mode::None => {
                    "/user/queue/ is for who has a name; give yours as the login of the CONNECT, or say it to an alias with enter: first"
                }
                Mode::Jwt => "/user/queue/ is for who has logged in; connect with a token",
                Mode::Cookie => {
                    "/user/queue/ is for who has a name; connect with the cookie that has yours"
                }
            })),
        }
    }
}

/// What an alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) place: Place,
    /// Whether the message says that its sender is there now, so that their going is told, too.
    pub(super) enters: bool,
}

/// Destinations of an application's own, by what they stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Aliases(HashMap<String, Target>);

impl Aliases {
    /// What a message to this destination is for.
    pub(super) fn target(&self, destination: &str) -> Result<Target, Refused> {
        if let Some(target) = self.0.get(destination) {
            return Ok(target.clone());
        }
        Place::parse(destination).map(|place| Target {
            place,
            enters: false,
        })
    }
}

impl FromStr for Aliases {
    type Err = String;

    /// Reads `ALIAS=DESTINATION` between commas; `enter:` before a destination makes it one to which
    /// clients say that they are there.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut aliases = HashMap::new();
        let items = text.split(',').map(str::trim);
        for item in items.filter(|item| !item.is_empty()) {
            let wrong = |what: &str| {
                format!("has {item}, {what}; write it as in /app/chat.sendMessage=/topic/public")
            };
            let (alias, target) = item
                .split_once('=')
                .ok_or_else(|| wrong("which has no ="))?;
            let (alias, target) = (alias.trim(), target.trim());
            if !alias.starts_with('/') || alias.len() < 2 {
                return Err(wrong("whose alias does not begin with /"));
            }
            let (enters, target) = match target.strip_prefix("enter:") {
                Some(target) => (true, target),
                None => (false, target),
            };
            let place = Place::parse(target).map_err(|_| wrong("whose destination is none"))?;
            let target = Target { place, enters };
            if aliases.insert(alias.to_owned(), target).is_some() {
                return Err(wrong("which is there twice"));
            }
        }
        Ok(Aliases(aliases))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let check = |destination: &str, want: Result<Option<&str>, &str>| {
            let got = match Place::parse(destination) {
                Ok(Place::Room(room)) => Ok(Some(room.to_string())),
                Ok(Place::Own) => Ok(None),
                Err(refused) => Err(refused.code),
            };
            assert_eq!(
                got,
                want.map(|room| room.map(str::to_owned)),
                "{destination}"
            );
        };
        check("/topic/lobby", Ok(Some("lobby")));
        check("/topic/chat.general", Ok(Some("chat.general")));
        check("/topic/a/b%20c d", Ok(Some("a/b%20c d")));
        check("/topic/@bob", Ok(Some("@bob")));
        check("/user/queue/errors", Ok(None));
        check("/user/queue/", Ok(None));
        check("/user/bob/queue/private", Ok(Some("@bob")));
        check("/user/a/b/queue/x", Ok(Some("@a/b")));
        for bad in [
            "",
            "lobby",
            "/topic",
            "/topic/",
            "/topic/tailcast:audit",
            "/topic/a\nb",
        ] {
            check(bad, Err("bad_request"));
        }
        for bad in [
            "/user/bob",
            "/user//queue/x",
            "/app/x",
            "/Topic/x",
            "topic/x",
        ] {
            check(bad, Err("bad_request"));
        }
        for work in [
            "/queue/jobs",
            "/exchange/x/y",
            "/amq/queue/x",
            "/temp-queue/x",
        ] {
            check(work, Err("unsupported"));
        }
    }

    #[test]
    fn own_places_want_a_name() {
        let check = |mode, want: &str| {
            let refused = Place::Own.room(None, mode).unwrap_err();
            assert_eq!(refused.code, "bad_request");
            assert!(refused.message.contains(want), "{}", refused.message);
        };
        check(Mode::None, "the login of the CONNECT");
        check(Mode::Jwt, "with a token");
        check(Mode::Cookie, "with the cookie");
    }

    #[test]
    fn aliases() {
        let aliases: Aliases = "/app/say=/topic/public, /app/in=enter:/topic/public,"
            .parse()
            .unwrap();
        let public = Place::parse("/topic/public").unwrap();
        let target = |enters| Target {
            place: public.clone(),
            enters,
        };
        assert_eq!(aliases.target("/app/say"), Ok(target(false)));
        assert_eq!(aliases.target("/app/in"), Ok(target(true)));
        assert_eq!(aliases.target("/topic/public"), Ok(target(false)));
        assert!(aliases.target("/app/other").is_err());
        for bad in [
            "/a",
            "a=/topic/b",
            "/=/topic/b",
            "/a=/queue/b",
            "/a=b",
            "/a=/topic/b,/a=/topic/c",
        ] {
            assert!(bad.parse::<Aliases>().is_err(), "{bad}");
        }
        assert_eq!("".parse(), Ok(Aliases::default()));
    }
}
