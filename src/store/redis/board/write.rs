//! Writing what changed on a node, in pieces that keep Redis no longer than a few milliseconds.
//!
//! Each piece is one step, and begins by naming the node among those that have written something: a
//! node that is taken for dead and buried just then is found again, and what it wrote with it. All
//! of it says how things are, not how they change, so a piece may be written twice. At the end the
//! node's number of writes is noted, by which the next one, or a beat, sees that Redis has them still.

use redis::{Cmd, Pipeline};

use super::{Connections, WRITES, script, writes};
use crate::people::board::{Change, NodeId, RoomChange};
use crate::relay::entry::RoomName;
use crate::relay::log::LogError;
use crate::store::redis::command::Repeat;
use crate::store::redis::{millis, reply};

/// Most fields of one command, and about as many in one step.
const FIELDS: usize = 500;

/// Most users of one step with notices, each of which may be looked up on every node.
const NOTICED: usize = 200;

/// About how many bytes one step may have.
const STEP_BYTES: usize = 128 << 10;

/// About how many bytes one pipeline may have.
const PIPELINE_BYTES: usize = 1 << 20;

impl Connections {
    /// Writes changes, in their order.
    pub(super) async fn write(
        &self,
        node: &NodeId,
        changes: Vec<Change>,
        notices: bool,
    ) -> Result<(), LogError> {
        let before = self.lives().get(node).map_or(0, |life| life.writes);
        let writes = before + 1;
        let mut pen = Pen::new(self, node, before);
        for change in changes {
            match change {
                Change::User(user, record) => pen.user(user, record),
                Change::Room(change) if notices => {
                    pen.close();
                    for piece in pieces(change) {
                        pen.notice(piece);
                        pen.flush_if_full().await?;
                    }
                }
                Change::Room(change) => {
                    for piece in pieces(change) {
                        pen.room(piece);
                        pen.flush_if_full().await?;
                    }
                }
            }
            pen.flush_if_full().await?;
        }
        // Last, so that it stands for all before it.
        pen.user(WRITES.to_owned(), Some(writes.to_string().into()));
        pen.close();
        pen.flush().await?;
        self.lives().entry(node.clone()).or_default().writes = writes;
        Ok(())
    }

    /// What all scripts that tell of joining and leaving begin with.
    pub(super) fn notice_arguments(&self, pipe: &mut Pipeline, node: &NodeId, room: &RoomName) {
        pipe.arg(self.keys.nodes())
            .arg(self.keys.here_of())
            .arg(node.as_str())
            .arg(room.as_str())
            .arg(self.keys.room(room).as_ref())
            .arg(self.expire_after.map_or(0, |after| millis(after).max(1)));
        match self.keep.threshold() {
            Some((kind, threshold)) => pipe.arg(kind).arg(threshold),
            None => pipe.arg("").arg(""),
        };
    }
}

/// Part of a room's change; the last one has the message.
struct Piece {
    change: RoomChange,
    last: bool,
}

/// Cuts a change into pieces of at most [`NOTICED`] users.
fn pieces(mut change: RoomChange) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut set = std::mem::take(&mut change.set).into_iter().peekable();
    let mut removed = std::mem::take(&mut change.removed).into_iter().peekable();
    loop {
        let mut bytes = 0;
        let mut part = RoomChange {
            set: Vec::new(),
            removed: Vec::new(),
            ..change.clone()
        };
        while part.set.len() < NOTICED
            && bytes < STEP_BYTES
            && let Some((user, record)) = set.next()
        {
            bytes += user.len() + record.len();
            part.set.push((user, record));
        }
        while part.set.len() + part.removed.len() < NOTICED
            && let Some(user) = removed.next()
        {
            part.removed.push(user);
        }
        let last = set.peek().is_none() && removed.peek().is_none();
        pieces.push(Piece { change: part, last });
        if last {
            return pieces;
        }
    }
}

/// Writes a pipeline.
struct Pen<'a> {
    board: &'a Connections,
    node: &'a NodeId,
    /// The number of the last write, until it was seen in Redis.
    before: Option<u64>,
    pipe: Pipeline,
    bytes: usize,
    /// The commands of the step that is being written.
    step: Vec<Cmd>,
    step_fields: usize,
    step_bytes: usize,
    /// Users' records that are set one after the other go with one command.
    users: Option<Cmd>,
}

impl<'a> Pen<'a> {
    fn new(board: &'a Connections, node: &'a NodeId, before: u64) -> Self {
        let mut pipe = Pipeline::new();
        pipe.cmd("HGET").arg(board.keys.users(node)).arg(WRITES);
        Pen {
            board,
            node,
            before: Some(before),
            pipe,
            bytes: 0,
            step: Vec::new(),
            step_fields: 0,
            step_bytes: 0,
            users: None,
        }
    }

    fn user(&mut self, user: String, record: Option<bytes::Bytes>) {
        let key = self.board.keys.users(self.node);
        match record {
            Some(record) => {
                let size = user.len() + record.len();
                let command = self.users.get_or_insert_with(|| {
                    let mut command = redis::cmd("HSET");
                    command.arg(key);
                    command
                });
                command.arg(user).arg(record.as_ref());
                self.grew(1, size);
            }
            None => {
                let size = user.len();
                let mut command = redis::cmd("HDEL");
                command.arg(key).arg(user);
                self.push(command);
                self.grew(1, size);
            }
        }
    }

    fn room(&mut self, Piece { change, last }: Piece) {
        let keys = &self.board.keys;
        let (rooms, here) = (keys.rooms(self.node), keys.here(self.node, &change.room));
        let channel = keys.live(&change.room);
        // First, so that whoever buries this node finds the people by it.
        let mut size = redis::cmd("HSET");
        size.arg(&rooms).arg(change.room.as_str()).arg(change.size);
        self.push(size);
        let mut bytes = 0;
        if !change.set.is_empty() {
            let mut command = redis::cmd("HSET");
            command.arg(&here);
            for (user, record) in &change.set {
                bytes += user.len() + record.len();
                command.arg(user).arg(record.as_ref());
            }
            self.push(command);
        }
        if !change.removed.is_empty() {
            let mut command = redis::cmd("HDEL");
            command.arg(&here);
            for user in &change.removed {
                bytes += user.len();
                command.arg(user);
            }
            self.push(command);
        }
        let fields = change.set.len() + change.removed.len();
        if last {
            if change.size == 0 {
                let mut command = redis::cmd("UNLINK");
                command.arg(&here);
                self.push(command);
                let mut command = redis::cmd("HDEL");
                command.arg(&rooms).arg(change.room.as_str());
                self.push(command);
            }
            bytes += change.message.len();
            let mut command = redis::cmd("PUBLISH");
            command.arg(channel).arg(change.message.as_ref());
            self.push(command);
        }
        self.grew(1 + fields, bytes);
    }

    fn notice(&mut self, Piece { change, last }: Piece) {
        let board = self.board;
        let pipe = &mut self.pipe;
        script::WRITE.call(pipe);
        board.notice_arguments(pipe, self.node, &change.room);
        pipe.arg(board.keys.rooms(self.node)).arg(change.size);
        match last {
            true => pipe
                .arg(board.keys.live(&change.room))
                .arg(change.message.as_ref()),
            false => pipe.arg("").arg(""),
        };
        pipe.arg(change.set.len());
        for (user, record) in &change.set {
            self.bytes += user.len() + record.len();
            pipe.arg(user).arg(record.as_ref());
        }
        for user in &change.removed {
            self.bytes += user.len();
            pipe.arg(user);
        }
        self.bytes += 300 + change.message.len();
    }

    fn push(&mut self, command: Cmd) {
        self.step.extend(self.users.take());
        self.step.push(command);
    }

    fn grew(&mut self, fields: usize, bytes: usize) {
        self.step_fields += fields;
        self.step_bytes += bytes + 40;
        if self.step_fields >= FIELDS || self.step_bytes >= STEP_BYTES {
            self.close();
        }
    }

    /// Ends a step.
    fn close(&mut self) {
        self.step.extend(self.users.take());
        if self.step.is_empty() {
            return;
        }
        self.pipe.cmd("MULTI");
        let nodes = self.board.keys.nodes();
        self.pipe.cmd("SADD").arg(nodes).arg(self.node.as_str());
        for command in self.step.drain(..) {
            self.pipe.add_command(command);
        }
        self.pipe.cmd("EXEC");
        self.bytes += self.step_bytes;
        (self.step_fields, self.step_bytes) = (0, 0);
    }

    async fn flush_if_full(&mut self) -> Result<(), LogError> {
        match self.bytes >= PIPELINE_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), LogError> {
        self.bytes = 0;
        let pipe = std::mem::take(&mut self.pipe);
        if pipe.is_empty() {
            return Ok(());
        }
        let mut values = self.board.ask(&pipe, Repeat::Safe).await?;
        if let Some(before) = self.before.take() {
            let found = writes(values.swap_remove(0))?;
            // One more, if this was asked twice.
            if found != Some(before) && found != Some(before + 1) {
                // The next beat says so.
                self.board
                    .lives()
                    .entry(self.node.clone())
                    .or_default()
                    .lost = true;
            }
        }
        reply::all_well(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn pieces_hold_everything_once() {
        for (set, removed) in [
            (0, 0),
            (1, 0),
            (0, 1),
            (200, 0),
            (201, 0),
            (150, 500),
            (401, 3),
        ] {
            let name = |index: usize| format!("user {index}");
            let change = RoomChange {
                room: RoomName::parse("r").unwrap(),
                set: (0..set).map(|i| (name(i), Bytes::from("x"))).collect(),
                removed: (0..removed).map(|i| name(1000 + i)).collect(),
                size: 7,
                message: Bytes::from("m"),
            };
            let pieces = pieces(change.clone());
            let lasts: Vec<_> = pieces.iter().map(|piece| piece.last).collect();
            assert_eq!(lasts.iter().filter(|last| **last).count(), 1);
            assert_eq!(lasts.last(), Some(&true));
            let mut all = RoomChange {
                set: Vec::new(),
                removed: Vec::new(),
                ..change.clone()
            };
            for piece in pieces {
                let users = piece.change.set.len() + piece.change.removed.len();
                assert!(users <= NOTICED);
                all.set.extend(piece.change.set);
                all.removed.extend(piece.change.removed);
            }
            assert_eq!(all, change);
        }
    }
}
