//! The nodes beside this one, as far as front ends need them: where they are, how many clients they
//! have, what all of them know.

use bytes::Bytes;
use serde_json::Value;
use tokio::time::timeout;

use super::{Nodes, People};
use crate::relay::log::LogError;

impl People {
    /// This process's name, which others know it by as long as it lives.
    pub fn process(&self) -> &str {
        &self.shared.process
    }

    /// The address of a living process, as it says itself. One that is not known yet, as it may
    /// have begun just now, is waited for until the next beat.
    pub async fn address_of(&self, process: &str) -> Option<String> {
        let mut nodes = self.shared.nodes.subscribe();
        if let Some(address) = address_in(&nodes.borrow_and_update(), process) {
            return Some(address);
        }
        let known = async {
            // The sender lives as long as this.
            let _ = nodes.changed().await;
            address_in(&nodes.borrow(), process)
        };
        timeout(self.shared.settings.lease, known).await.ok()?
    }

    /// How many nodes live, and how many connections they have together, as of the last beat.
    pub fn crowd(&self) -> (usize, u64) {
        let nodes = self.shared.nodes.borrow();
        let counts = statuses(&nodes).filter_map(|status| status.get("sockets")?.as_u64());
        (nodes.living.len(), counts.sum())
    }

    /// A secret that all nodes share, made by the first that asks.
    pub async fn secret(&self) -> Result<Bytes, LogError> {
        self.shared.board.secret(made_secret()).await
    }
}

/// A secret nobody knows: 256 bits, in hexadecimal digits, so that operators can copy it.
pub fn made_secret() -> Bytes {
    let random: [u8; 32] = rand::random();
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.into()
}

/// What the living say of themselves.
fn statuses(nodes: &Nodes) -> impl Iterator<Item = Value> {
    let told = nodes.living.iter();
    told.filter_map(|(_, status)| serde_json::from_slice(status).ok())
}

fn address_in(nodes: &Nodes, process: &str) -> Option<String> {
    let is_it = |status: &Value| status.get("process").is_some_and(|name| *name == process);
    let status = statuses(nodes).find(is_it)?;
    let address = status.get("address")?.as_str()?;
    Some(address.to_owned()).filter(|address| !address.is_empty())
}
