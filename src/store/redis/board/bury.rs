//! Burying: a dead node's records go, in pieces, each of which makes sure that it's dead still.

use redis::Pipeline;

use super::{Connections, script};
use crate::people::board::NodeId;
use crate::relay::entry::RoomName;
use crate::relay::log::LogError;
use crate::store::redis::reply;

/// How often the rooms are gone through. Once would do, but for what the node still wrote
/// meanwhile; and a node that goes on writing is not to keep us for ever.
const ROUNDS: usize = 10;

/// What a piece came to.
enum Piece {
    /// The node lives.
    Lives,
    /// Nothing is left of it.
    Gone,
    /// There may be more, from this cursor on.
    More(String),
}

impl Connections {
    /// Removes what the node has written. False if it lives.
    pub(super) async fn bury(&self, node: &NodeId, notices: bool) -> Result<bool, LogError> {
        let mut cursor = "0".to_owned();
        let mut rounds = 0;
        while rounds < ROUNDS {
            if cursor == "0" {
                rounds += 1;
                if notices && !self.empty_rooms(node).await? {
                    return Ok(false);
                }
            }
            match self.finish(node, &cursor, notices).await? {
                Piece::Lives => return Ok(false),
                Piece::Gone => return Ok(true),
                Piece::More(next) => cursor = next,
            }
        }
        Err(LogError::Other(format!(
            "node {node} has no lease, and writes on"
        )))
    }

    /// Removes a page of rooms, and the node after the last one.
    async fn finish(&self, node: &NodeId, cursor: &str, careful: bool) -> Result<Piece, LogError> {
        let mut pipe = Pipeline::with_capacity(1);
        script::FINISH
            .call(&mut pipe)
            .arg(self.keys.nodes())
            .arg(self.keys.here_of())
            .arg(node.as_str())
            .arg(self.keys.lease(node))
            .arg(self.keys.rooms(node))
            .arg(self.keys.users(node))
            .arg(cursor)
            .arg(u8::from(careful));
        self.piece(&pipe).await
    }

    async fn piece(&self, pipe: &Pipeline) -> Result<Piece, LogError> {
        let answer = reply::text(self.one(pipe).await?)?;
        Ok(match answer.as_str() {
            "-1" => Piece::Lives,
            "-2" => Piece::Gone,
            _ => Piece::More(answer),
        })
    }

    /// Removes the people of all rooms, and tells who left by that. False if the node lives.
    async fn empty_rooms(&self, node: &NodeId) -> Result<bool, LogError> {
        let rooms = self.keys.rooms(node);
        let mut cursor = 0;
        loop {
            let mut pipe = Pipeline::with_capacity(1);
            pipe.cmd("HSCAN")
                .arg(&rooms)
                .arg(cursor)
                .arg("COUNT")
                .arg(200);
            let (next, found) = reply::scanned(self.one(&pipe).await?)?;
            for (name, _) in reply::pairs(found)? {
                // One that is no room's is left for the end to remove.
                let Ok(room) = RoomName::parse(&reply::text(name)?) else {
                    continue;
                };
                if !self.empty_room(node, &room).await? {
                    return Ok(false);
                }
            }
            if next == 0 {
                return Ok(true);
            }
            cursor = next;
        }
    }

    async fn empty_room(&self, node: &NodeId, room: &RoomName) -> Result<bool, LogError> {
        let mut cursor = "0".to_owned();
        loop {
            let mut pipe = Pipeline::with_capacity(1);
            script::EMPTY.call(&mut pipe);
            self.notice_arguments(&mut pipe, node, room);
            pipe.arg(self.keys.rooms(node))
                .arg(self.keys.lease(node))
                .arg(&cursor);
            match self.piece(&pipe).await? {
                Piece::Lives => return Ok(false),
                Piece::More(next) if next != "0" => cursor = next,
                Piece::More(_) | Piece::Gone => return Ok(true),
            }
        }
    }
}
