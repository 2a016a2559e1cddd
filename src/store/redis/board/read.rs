//! Reading what nodes have written.

use std::collections::HashMap;

use bytes::Bytes;
use redis::Pipeline;

use super::Connections;
use crate::people::board::NodeId;
use crate::relay::entry::RoomName;
use crate::relay::log::LogError;
use crate::store::redis::command::Repeat;
use crate::store::redis::reply;

/// Fields in one page of a hash: less than a millisecond of Redis.
const PAGE: usize = 1000;

/// Keys looked at in one step of a SCAN, at least and at most, and most steps for one page of rooms:
/// where few of the keys are rooms, a page has few.
const SCAN_COUNTS: (usize, usize) = (100, 1000);
const SCANS: usize = 16;

/// Rooms asked for with one command.
const ROOMS: usize = 500;

impl Connections {
    /// A hash of records, in pages.
    pub(super) async fn members(&self, key: &str) -> Result<Vec<(String, Bytes)>, LogError> {
        let mut cursor = 0;
        let mut members: HashMap<String, Bytes> = HashMap::new();
        loop {
            let mut pipe = Pipeline::with_capacity(1);
            pipe.cmd("HSCAN")
                .arg(key)
                .arg(cursor)
                .arg("COUNT")
                .arg(PAGE);
            let (next, found) = reply::scanned(self.one(&pipe).await?)?;
            for (user, record) in reply::pairs(found)? {
                // A page may repeat what an earlier one had.
                members.insert(reply::text(user)?, reply::bytes(record)?);
            }
            if next == 0 {
                return Ok(members.into_iter().collect());
            }
            cursor = next;
        }
    }

    /// A user's record on each node.
    pub(super) async fn user(
        &self,
        user: &str,
        nodes: &[NodeId],
    ) -> Result<Vec<Option<Bytes>>, LogError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = Pipeline::with_capacity(nodes.len());
        for node in nodes {
            pipe.cmd("HGET").arg(self.keys.users(node)).arg(user);
        }
        let values = self.ask(&pipe, Repeat::Safe).await?;
        values.into_iter().map(reply::bytes_or_nil).collect()
    }

    /// How many users each node has in each room.
    pub(super) async fn sizes(
        &self,
        rooms: &[RoomName],
        nodes: &[NodeId],
    ) -> Result<Vec<Vec<u64>>, LogError> {
        let mut sizes = Vec::with_capacity(rooms.len());
        for rooms in rooms.chunks(ROOMS) {
            let first = sizes.len();
            sizes.resize_with(first + rooms.len(), || Vec::with_capacity(nodes.len()));
            if nodes.is_empty() {
                continue;
            }
            let mut pipe = Pipeline::with_capacity(nodes.len());
            for node in nodes {
                pipe.cmd("HMGET").arg(self.keys.rooms(node));
                for room in rooms {
                    pipe.arg(room.as_str());
                }
            }
            for value in self.ask(&pipe, Repeat::Safe).await? {
                let row = reply::list(value)?;
                for (of_room, size) in sizes[first..].iter_mut().zip(row) {
                    let size = reply::bytes_or_nil(size)?;
                    let size = size.and_then(|size| std::str::from_utf8(&size).ok()?.parse().ok());
                    of_room.push(size.unwrap_or(0));
                }
            }
        }
        Ok(sizes)
    }

    /// A hash of rules.
    pub(super) async fn rules(&self, key: &str) -> Result<Vec<(String, String)>, LogError> {
        let mut pipe = Pipeline::with_capacity(1);
        pipe.cmd("HGETALL").arg(key);
        reply::pairs(self.one(&pipe).await?)?
            .into_iter()
            .map(|(name, value)| Ok((reply::text(name)?, reply::text(value)?)))
            .collect()
    }

    /// One rule out of each of these hashes.
    pub(super) async fn rule(
        &self,
        keys: Vec<String>,
        name: &str,
    ) -> Result<Vec<Option<String>>, LogError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipe = Pipeline::with_capacity(keys.len());
        for key in &keys {
            pipe.cmd("HGET").arg(key).arg(name);
        }
        let values = self.ask(&pipe, Repeat::Safe).await?;
        let text = |value| Ok(reply::bytes_or_nil(value)?.map(utf8));
        values.into_iter().map(text).collect()
    }

    /// A page of the rooms that have a stream.
    pub(super) async fn rooms(
        &self,
        mut cursor: u64,
        limit: usize,
    ) -> Result<(Vec<RoomName>, u64), LogError> {
        let prefix = self.keys.prefix();
        let pattern = format!("{}*", escape_glob(prefix));
        let mut rooms = Vec::new();
        for _ in 0..SCANS {
            let mut pipe = Pipeline::with_capacity(1);
            pipe.cmd("SCAN").arg(cursor).arg("MATCH").arg(&pattern);
            let count = limit.saturating_sub(rooms.len());
            pipe.arg("COUNT")
                .arg(count.clamp(SCAN_COUNTS.0, SCAN_COUNTS.1));
            pipe.arg("TYPE").arg("stream");
            let (next, found) = reply::scanned(self.one(&pipe).await?)?;
            for key in reply::list(found)? {
                // Other keys are no rooms: not text, too long, our own.
                let Ok(key) = reply::text(key) else { continue };
                let name = key.strip_prefix(prefix).unwrap_or_default();
                if !name.starts_with('@')
                    && let Ok(room) = RoomName::parse(name)
                {
                    rooms.push(room);
                }
            }
            cursor = next;
            if cursor == 0 || rooms.len() >= limit {
                break;
            }
        }
        Ok((rooms, cursor))
    }
}

fn utf8(bytes: Bytes) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text itself as a pattern of Redis.
fn escape_glob(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert_eq!(escape_glob("app:é"), "app:é");
        assert_eq!(escape_glob("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
    }
}
