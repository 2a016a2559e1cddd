//! Reading what a node has written of a room's people.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::time::sleep;

use super::{RETRY, Side};
use crate::people::Shared;
use crate::people::board::NodeId;
use crate::people::here::SEQ;
use crate::people::member::Member;
use crate::people::roster::Ticket;

/// Reads a node's people in a room, however long that takes, unless another reading has begun.
pub(super) async fn read(side: Weak<Side>, shared: Arc<Shared>, node: NodeId, mut ticket: Ticket) {
    loop {
        let Some(room) = side.upgrade().map(|side| side.room.clone()) else {
            return;
        };
        match shared.board.members(&room, &node).await {
            Ok(records) => {
                let next = side
                    .upgrade()
                    .and_then(|side| side.end_reading(&node, &ticket, records));
                match next {
                    Some(next) => ticket = next,
                    None => return,
                }
            }
            Err(error) => {
                tracing::debug!(%room, %node, %error, "cannot read a node's people");
                sleep(RETRY).await;
                if !side
                    .upgrade()
                    .is_some_and(|side| side.awaits(&node, &ticket))
                {
                    return;
                }
            }
        }
    }
}

/// What a node has written of a room: its people, and the number of its last change.
pub(super) fn members(records: Vec<(String, Bytes)>) -> (Vec<(Arc<str>, Member)>, u64) {
    let mut upto = 0;
    let mut members = Vec::with_capacity(records.len());
    for (user, record) in records {
        if user == SEQ {
            let seq = std::str::from_utf8(&record).ok();
            upto = seq.and_then(|seq| seq.parse().ok()).unwrap_or(0);
        } else if let Some(member) = Member::read(&record) {
            members.push((Arc::from(user), member));
        }
    }
    (members, upto)
}
