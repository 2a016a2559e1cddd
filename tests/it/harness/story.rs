//! What a watcher was told of who is here, and whether it makes sense.

use std::collections::BTreeMap;

use serde_json::Value;

/// What one watcher knows of one room.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// By the role they are shown with, if with one. Unknown before it was told, and while only numbers
    /// are.
    pub(crate) users: Option<BTreeMap<String, Option<String>>>,
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
        let listed = |list: &Value| -> Vec<(String, Option<String>)> {
            let list = list.as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let row = |user: &Value| (text(&user["user"]).unwrap_or_default(), text(&user["role"]));
            list.iter().map(row).collect()
        };
        let (joined, left) = (listed(&frame["join"]), listed(&frame["leave"]));
        let count = frame["count"].as_u64();
        known.count = count;
        if frame["all"] == true {
            known.users = Some(joined.into_iter().collect());
        } else if joined.is_empty() && left.is_empty() {
            known.users = None;
            return Ok(());
        } else {
            let Some(users) = &mut known.users else {
                return wrong("told of changes before it knew who is here".to_owned());
            };
            for (user, _) in left {
                if users.remove(&user).is_none() {
                    return wrong(format!("{user} left who was not here"));
                }
            }
            for (user, role) in joined {
                if users.insert(user.clone(), role).is_some() {
                    return wrong(format!("{user} joined who was here"));
                }
            }
        }
        let users = known.users.as_ref().map_or(0, BTreeMap::len);
        if count != Some(users as u64) {
            return wrong(format!("the number is not {users}"));
        }
        Ok(())
    }
}
