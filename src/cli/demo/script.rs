//! What is said in the demo: rooms, who is in charge of them, and their conversations, from a text.

use anyhow::{Context, Result, bail};

use crate::auth::UserName;
use crate::relay::entry::RoomName;

/// The text. A room's line has its name, an icon, a color, a host, moderators and a topic; below
/// stand its messages.
const TEXT: &str = include_str!("chat.txt");

/// What anybody may say to anything.
pub(super) const REMARKS: [&str; 12] = [
    "+1",
    "😄",
    "Good point.",
    "Can confirm.",
    "Wait, really?",
    "Love it.",
    "Noted, thanks!",
    "Same here.",
    "👏",
    "I did not know that.",
    "Ha!",
    "Somebody should write this down.",
];

/// A room of the demo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Room {
    pub(super) name: RoomName,
    pub(super) icon: &'static str,
    pub(super) color: &'static str,
    pub(super) host: &'static str,
    /// Names with commas between.
    pub(super) moderators: &'static str,
    pub(super) topic: &'static str,
    pub(super) lines: Vec<Line>,
}

/// A message and who says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) user: &'static str,
    pub(super) text: &'static str,
}

/// The rooms.
pub(super) fn rooms() -> Result<Vec<Room>> {
    parse(TEXT)
}

/// Everybody who says something, by name.
pub(super) fn users(rooms: &[Room]) -> Vec<&'static str> {
    let lines = rooms.iter().flat_map(|room| &room.lines);
    let mut users: Vec<&str> = lines.map(|line| line.user).collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn parse(text: &'static str) -> Result<Vec<Room>> {
    let mut rooms: Vec<Room> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = || format!("line {number} of the demo makes no sense: {line}");
        if line.is_empty() {
            continue;
        }
        if let Some(head) = line.strip_prefix("# ") {
            rooms.push(room(head).with_context(wrong)?);
            continue;
        }
        let (user, text) = line.split_once(": ").with_context(wrong)?;
        UserName::parse(user).with_context(wrong)?;
        let room = rooms.last_mut().with_context(wrong)?;
        room.lines.push(Line { user, text });
    }
    Ok(rooms)
}

fn room(head: &'static str) -> Result<Room> {
    let (words, topic) = head.split_once(" | ").context("there is no topic")?;
    let words: Vec<&str> = words.split(' ').collect();
    let [name, icon, color, host, moderators] = words[..] else {
        bail!("there are not five words");
    };
    Ok(Room {
        name: RoomName::parse(name)?,
        icon,
        color,
        host,
        moderators,
        topic,
        lines: Vec::new(),
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_makes_sense() {
        let rooms = rooms().expect("it can be read");
        let users = users(&rooms);
        assert_eq!(rooms.len(), 8);
        assert!((18..=22).contains(&users.len()), "{users:?}");
        for room in &rooms {
            assert!(room.lines.len() >= 20, "{}", room.name);
            assert!(room.topic.len() <= 200, "{}", room.topic);
            assert!(room.color.starts_with('#') && room.color.len() == 7);
            let leads = std::iter::once(room.host).chain(room.moderators.split(','));
            for user in leads {
                assert!(users.contains(&user), "{user} leads and says nothing");
            }
        }
        assert!(parse("ann: hi").is_err());
        assert!(parse("# a b c | t").is_err());
        assert!(parse("# a b #c d e | t\nhi").is_err());
    }
}
