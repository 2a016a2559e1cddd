//! What a watcher was told of who is here, and whether it makes sense.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What one watcher knows of one room.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Unknown before it was told, and while only numbers are.
    pub(crate) users: Option<BTreeSet<String>>,
    pub(crate) count: Option<u64>,
}

/// All it knows, by room.
#[derive(Debug, Default)]
pub(crate) struct Story(pub(crate) BTreeMap<String, Known>);

impl Story {
    /// Takes a frame; says what is wrong with it.
    pub(crate) fn take(&mut self, frame: &Value) -> Result<(), String> {
        let wrong = |why: String| Err(format!("{why}: {frame}"));
        let room = frame["room"].as_str().unwrap_or_default().to_owned();
        if frame["type"] == "joined" {
            self.0.insert(room, Known::default());
            return Ok(());
        }
        let Some(known) = self
            .0
            .get_mut(&room)
            .filter(|_| frame["type"] == "presence")
        else {
            return Ok(());
        };
        let names = |list: &Value| -> Vec<String> {
            let list = list.as_array().cloned().unwrap_or_default();
            let name = |user: &Value| user["user"].as_str().unwrap_or_default().to_owned();
            list.iter().map(name).collect()
        };
        let (joined, left) = (names(&frame["join"]), names(&frame["leave"]));
        let count = frame["count"].as_u64();
        known.count = count;
        if frame["all"] == true {
            known.users = Some(joined.iter().cloned().collect());
        } else if joined.is_empty() && left.is_empty() {
            known.users = None;
            return Ok(());
        } else {
            let Some(users) = &mut known.users else {
                return wrong("told of changes before it knew who is here".to_owned());
            };
            for user in left {
                if !users.remove(&user) {
                    return wrong(format!("{user} left who was not here"));
                }
            }
            for user in joined {
                if !users.insert(user.clone()) {
                    return wrong(format!("{user} joined who was here"));
                }
            }
        }
        let users = known.users.as_ref().map_or(0, BTreeSet::len);
        if count != Some(users as u64) {
            return wrong(format!("the number is not {users}"));
        }
        Ok(())
    }
}
