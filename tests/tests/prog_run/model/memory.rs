//! What the data path remembers from one frame to the next.

use std::collections::BTreeMap;

use overlay_common::Limit;

use super::{claim::Claims, path::Paths};
use crate::world::World;

/// The memory of a node: the reports of routers, and what endpoints have used up of their limits. Tests use limits
/// that are filled up again so slowly that only the burst counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    pub(super) paths: Paths,
    pub(super) claims: Claims,
    /// Broadcast and multicast frames, by slot.
    storms: Counts,
    /// Answers to packets that were too big, by slot.
    answers: Counts,
    /// Addresses of IPv6 that were claimed, by slot.
    claimed: Counts,
}

/// Events by slot.
type Counts = BTreeMap<u32, u32>;

impl Memory {
    /// Counts a broadcast or multicast frame, and returns true if the limit allows it.
    pub(super) fn allows_storm(&mut self, limit: Limit, slot: u32) -> bool {
        allows(&mut self.storms, limit, slot)
    }

    /// Counts an answer, and returns true if the limit allows it.
    pub(super) fn allows_answer(&mut self, limit: Limit, slot: u32) -> bool {
        allows(&mut self.answers, limit, slot)
    }

    /// Counts an address that is claimed, and returns true if the limit allows it.
    pub(super) fn allows_claim(&mut self, world: &World, slot: u32) -> bool {
        let limit = world.config.map_or(Limit::NONE, |config| config.claims);
        allows(&mut self.claimed, limit, slot)
    }
}

fn allows(counts: &mut Counts, limit: Limit, slot: u32) -> bool {
    if limit.gap_ns == 0 {
        return true;
    }
    let count = counts.entry(slot).or_default();
    let is_allowed = *count < limit.burst;
    *count += u32::from(is_allowed);
    is_allowed
}
