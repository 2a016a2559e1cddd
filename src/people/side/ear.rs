//! What a room's side hears of other nodes over the room's channel.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::time::Instant;

use super::reading::read;
use super::{Side, lock};
use crate::people::board::{Ear, NodeId};
use crate::people::wire::{self, Message};
use crate::people::{Shared, told};

/// A listening ear. It must not keep its side alive, which keeps it.
pub(super) struct SideEar(pub(super) Weak<Side>);

impl SideEar {
    fn side(&self) -> Option<(Arc<Side>, Arc<Shared>)> {
        let side = self.0.upgrade()?;
        let shared = side.shared.upgrade()?;
        Some((side, shared))
    }
}

impl Ear for SideEar {
    fn on_listening(&self) {
        if let Some((side, shared)) = self.side() {
            side.reread(&shared);
        }
    }

    fn on_message(&self, message: Bytes) {
        if let Some((side, shared)) = self.side() {
            side.hear(&shared, &message);
        }
    }
}

impl Side {
    fn hear(self: &Arc<Self>, shared: &Arc<Shared>, message: &[u8]) {
        match Message::decode(message) {
            Some(Message::Ephemeral { except, json }) => {
                let own = shared.own();
                let except = except.filter(|(node, _)| node == own.as_str());
                let aside = told::ephemeral(json, except.map(|(_, number)| number));
                shared.relay.tell(&self.room, Arc::new(aside));
            }
            Some(Message::Reactions { counts, totals }) => {
                let aside = told::reactions(&self.room, &counts, &totals);
                shared.relay.tell(&self.room, Arc::new(aside));
            }
            Some(Message::Presence {
                node,
                seq,
                set,
                removed,
            }) => {
                let node = NodeId::new(&node);
                let gap = {
                    let mut watch = lock(&self.watch);
                    let watch = &mut *watch;
                    let Some(roster) = &mut watch.roster else {
                        return;
                    };
                    watch.heard.insert(node.clone(), Instant::now());
                    roster.apply(&node, wire::delta(seq, set, removed))
                };
                if let Some(ticket) = gap {
                    tokio::spawn(read(Arc::downgrade(self), shared.clone(), node, ticket));
                }
                self.stir();
            }
            Some(Message::Unknown) | None => {}
        }
    }
}
