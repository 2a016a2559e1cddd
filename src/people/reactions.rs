//! Reactions: counted here, told to all nodes once a tick, with the totals that the board keeps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::side::Side;
use super::wire::Message;
use super::{Refusal, Shared};

/// Longest name of a reaction, in bytes: room for an emoji of many parts.
const NAME_MAX: usize = 64;

/// Kinds of reaction that one node counts in one tick, and so about the most that a room ever has.
const KINDS_MAX: usize = 32;

/// Reactions of one room since the last tick.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    /// Counts one.
    pub(super) fn add(&self, reaction: &str) -> Result<(), Refusal> {
        if reaction.is_empty()
            || reaction.len() > NAME_MAX
            || reaction.chars().any(char::is_control)
        {
            return Err(Refusal::BadRequest(format!(
                "a reaction has 1 to {NAME_MAX} bytes, without control characters"
            )));
        }
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(reaction) {
            *count += 1;
        } else if counts.len() < KINDS_MAX {
            counts.insert(reaction.to_owned(), 1);
        } else {
            return Err(Refusal::BadRequest(format!(
                "at most {KINDS_MAX} kinds of reaction at a time"
            )));
        }
        Ok(())
    }

    /// Adds what was counted to the totals, and tells all nodes.
    pub(super) fn flush(&self, side: &Arc<Side>, shared: &Arc<Shared>) {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if counts.is_empty() {
            return;
        }
        let (side, shared) = (side.clone(), shared.clone());
        tokio::spawn(async move {
            let list = counts.iter().map(|(name, count)| (name.clone(), *count));
            match shared.board.count(side.room(), list.collect()).await {
                Ok(totals) => {
                    let totals = counts.keys().cloned().zip(totals).collect();
                    let message = Message::Reactions { counts, totals };
                    shared.board.whisper(side.room(), message.encode());
                }
                Err(error) => {
                    tracing::debug!(room = %side.room(), %error, "reactions are lost");
                }
            }
        });
    }
}
