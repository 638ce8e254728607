//! The node's own address on the underlay, where the one that it had is gone.

use crate::dataplane::netlink::{LinkList, Netlink, Underlay, UnderlayChoice};
use std::net::Ipv4Addr;
use tokio::sync::watch;

/// How the node's own address on the underlay is found, and who is told of another one.
pub struct OwnAddress {
    choice: UnderlayChoice,
    told: watch::Sender<Ipv4Addr>,
}

impl OwnAddress {
    /// The node was started with this choice, by which `address` was found. Those who listen to `told` hear of it, if it
    /// is not the one that they know.
    #[must_use]
    pub fn new(choice: UnderlayChoice, address: Ipv4Addr, told: watch::Sender<Ipv4Addr>) -> Self {
        let own = Self { choice, told };
        own.tell(address);
        own
    }

    /// The underlay with the address that takes the place of the one that `before` has, which no device has any more.
    ///
    /// # Errors
    /// There is none, with the reason and what to do, in words.
    pub(super) async fn after(
        &self,
        netlink: &Netlink,
        links: &LinkList,
        before: &Underlay,
    ) -> Result<Underlay, String> {
        let gone = format!(
            "the node's VTEP address {} is on no device of this host: other nodes do not reach its endpoints until it is back",
            before.address
        );
        match netlink.underlay_after(links, &self.choice, before).await {
            Ok(Some(now)) => Ok(now),
            Ok(None) => Err(format!(
                "{gone}, or the node is started anew with another --underlay (the address of a device that is named there is followed)"
            )),
            Err(error) => Err(format!(
                "{gone}, or there is another one to follow ({})",
                crate::error_chain(&error)
            )),
        }
    }

    /// The node has this address now.
    pub(super) fn tell(&self, address: Ipv4Addr) {
        self.told.send_if_modified(|now| std::mem::replace(now, address) != address);
    }
}
