//! What of the host around the overlay keeps endpoints and the outside apart, and is not the node's to change: foreign
//! firewalls, and networks with the gateway bridge's addresses. It is looked for again and again, and said.

use crate::{
    dataplane::{
        gateway::dropping_chains,
        netlink::{GATEWAY_BRIDGE, Netlink},
    },
    model::Subnet,
};
use std::time::{Duration, Instant};

/// The next look waits this many times as long as the last one took, because a host may have a million routes or rules.
const SHARE: u32 = 50;
/// Longest time between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What was found at the last look.
#[derive(Default)]
pub(super) struct Surroundings {
    found: Vec<String>,
    /// What could not be looked at.
    failed: Option<String>,
    due: Option<Instant>,
}

impl Surroundings {
    /// Looks, where it is time to, and logs what is new.
    pub(super) async fn look(&mut self, netlink: &Netlink, subnet: Subnet) {
        let begun = Instant::now();
        if self.due.is_some_and(|due| begun < due) {
            return;
        }
        let (mut found, mut failed) = (Vec::new(), None);
        match netlink.collision(subnet.net()).await {
            Ok(collision) => found.extend(collision.map(|(net, what)| {
                format!(
                    "the gateway subnet {subnet} collides with {net} ({what}): endpoints do not reach all of that; remove it, or start the node with another --gateway-subnet"
                )
            })),
            Err(error) => failed = Some(crate::error_chain(&error)),
        }
        match dropping_chains(GATEWAY_BRIDGE, subnet).await {
            Ok(dropping) => found.extend(dropping),
            Err(error) => failed = Some(crate::error_chain(&error)),
        }
        for new in found.iter().filter(|new| !self.found.contains(new)) {
            tracing::warn!("{new}");
        }
        if let Some(why) = failed.as_ref().filter(|why| self.failed.as_ref() != Some(why)) {
            tracing::warn!(why, "foreign firewalls and routes can't be looked at");
        }
        (self.found, self.failed) = (found, failed);
        self.due = begun.elapsed().checked_mul(SHARE).map(|pause| begun + pause.min(PAUSE_MAX));
    }

    /// What was found, in words.
    pub(super) fn found(&self) -> impl Iterator<Item = &String> {
        self.found.iter()
    }
}
