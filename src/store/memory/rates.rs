//! The rates of appends.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use crate::relay::entry::RoomName;
use crate::relay::log::{AppendError, Limit};
use crate::store::rate;

/// All rates: when each is full again, in Unix microseconds.
#[derive(Default)]
pub(super) struct Rates {
    full: HashMap<(RoomName, Bytes), u64>,
    /// Those that are full are looked for when there are so many.
    sweep_at: usize,
}

/// What an append costs, if it's stored.
pub(super) type Charges = Vec<((RoomName, Bytes), u64)>;

impl Rates {
    /// Whether all limits let an append pass; what to charge then.
    pub(super) fn pass(
        &self,
        room: &RoomName,
        limits: &[Limit],
        now_ms: u64,
    ) -> Result<Charges, AppendError> {
        let mut charges = Charges::new();
        for (index, limit) in limits.iter().enumerate() {
            let name = (room.clone(), limit.name.clone());
            let full = self.full.get(&name).copied();
            match rate::pass(full, now_ms.saturating_mul(1000), limit) {
                Ok(full) => charges.push((name, full)),
                Err(wait) => {
                    return Err(AppendError::TooFast {
                        limit: index,
                        retry: Duration::from_millis(wait.div_ceil(1000)),
                    });
                }
            }
        }
        Ok(charges)
    }

    /// Charges what was passed.
    pub(super) fn charge(&mut self, charges: Charges, now_ms: u64) {
        self.full.extend(charges);
        // Looks through all only when their number has doubled, so that the cost of each stays
        // constant.
        if self.full.len() >= self.sweep_at {
            self.full
                .retain(|_, full| *full > now_ms.saturating_mul(1000));
            self.sweep_at = (2 * self.full.len()).max(1024);
        }
    }
}
