//! What of the host around the overlay keeps endpoints and the outside apart, and is not the node's to change: foreign
//! firewalls, and networks with the gateway bridge's addresses. It is looked for again and again, and said.

use crate::{
    dataplane::{
        gateway::Passage,
        netlink::{GATEWAY_BRIDGE, Netlink},
    },
    model::Subnet,
};
use std::time::{Duration, Instant};

/// The next look waits this many times as long as the last one took, because a host may have a million routes or rules.
const SHARE: u32 = 50;
/// The same, where another program has written to nftables: somebody may be following advice, and looks at the status.
const SHARE_CHANGED: u32 = 10;
/// Longest time between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What was found at the last look.
#[derive(Default)]
pub(super) struct Surroundings {
    found: Vec<String>,
    /// What could not be looked at.
    failed: Option<String>,
    /// When the last look began, and how long it took.
    last: Option<(Instant, Duration)>,
    /// Another program has written to nftables since.
    is_changed: bool,
}

impl Surroundings {
    /// Looks, where it is time to, and logs what is new.
    pub(super) async fn look(&mut self, netlink: &Netlink, subnet: Subnet, api: u16) {
        let begun = Instant::now();
        if self.last.is_some_and(|last| begun < due(last, self.is_changed)) {
            return;
        }
        self.is_changed = false;
        let (mut found, mut failed) = (Vec::new(), None);
        match netlink.collision(subnet.net()).await {
            Ok(collision) => found.extend(collision.map(|(net, what)| {
                format!(
                    "the gateway subnet {subnet} collides with {net} ({what}): endpoints do not reach all of that; remove it, or start the node with another --gateway-subnet"
                )
            })),
            Err(error) => failed = Some(crate::error_chain(&error)),
        }
        match (Passage { bridge: GATEWAY_BRIDGE, subnet, api }).hindrances().await {
            Ok(hindrances) => found.extend(hindrances),
            Err(error) => failed = Some(crate::error_chain(&error)),
        }
        for new in found.iter().filter(|new| !self.found.contains(new)) {
            tracing::warn!("{new}");
        }
        if let Some(why) = failed.as_ref().filter(|why| self.failed.as_ref() != Some(why)) {
            tracing::warn!(why, "foreign firewalls and routes can't be looked at");
        }
        (self.found, self.failed) = (found, failed);
        self.last = Some((begun, begun.elapsed()));
    }

    /// Notes that another program has written to nftables.
    pub(super) fn note_change(&mut self) {
        self.is_changed = true;
    }

    /// What was found, in words.
    pub(super) fn found(&self) -> impl Iterator<Item = &String> {
        self.found.iter()
    }
}

/// When to look again.
fn due((begun, took): (Instant, Duration), is_changed: bool) -> Instant {
    let share = if is_changed { SHARE_CHANGED } else { SHARE };
    begun + took.saturating_mul(share).min(PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_look_is_rare_and_less_so_where_rules_change() {
        let begun = Instant::now();
        let after =
            |took: u64, is_changed| due((begun, Duration::from_millis(took)), is_changed) - begun;
        assert_eq!(after(20, false), Duration::from_secs(1));
        assert_eq!(after(1_000, false), Duration::from_secs(50));
        assert_eq!(after(1_000, true), Duration::from_secs(10));
        assert_eq!(after(60_000, true), PAUSE_MAX);
    }
}
