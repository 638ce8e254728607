//! The sides of devices that are inside endpoints' namespaces, as they are.

use std::collections::BTreeMap;

use super::{
    Netlink, NetlinkError,
    link::{self, Link},
};
use crate::dataplane::kernel::{NetnsId, ObservedPeer};

impl Netlink {
    /// The other sides of these devices, by the index of the host's side. Left out where the kernel shows none.
    ///
    /// It takes two requests for each namespace in which there are some, however many there are.
    pub(super) async fn peers(
        &self,
        links: &[Link],
    ) -> Result<BTreeMap<u32, ObservedPeer>, NetlinkError> {
        let mut namespaces: BTreeMap<NetnsId, Vec<(u32, u32)>> = BTreeMap::new();
        for link in links {
            if let Some((peer, netns)) = link.peer.zip(link.peer_netns) {
                namespaces.entry(netns).or_default().push((link.index, peer));
            }
        }
        let mut peers = BTreeMap::new();
        for (netns, pairs) in namespaces {
            let inside = link::links(&self.handle, Some(netns)).await?;
            let addresses = link::addresses(&self.handle, 0, Some(netns)).await?;
            for (index, peer) in pairs {
                let found = match inside.iter().find(|link| link.index == peer) {
                    Some(found) => Some(found.clone()),
                    // A list that changed while it was read may lack a device, and a device whose other side is gone
                    // is rebuilt.
                    None => link::link_by_index(&self.handle, peer, Some(netns)).await?,
                };
                let Some(found) = found else { continue };
                let addresses = addresses.iter().filter(|address| address.index == peer);
                let seen = ObservedPeer {
                    netns,
                    ifindex: peer,
                    running: found.is_running(),
                    ifname: found.name,
                    up: found.up,
                    mac: found.mac,
                    mtu: found.mtu,
                    super_packets: found.super_packets,
                    addresses: addresses.filter_map(|address| address.net()).collect(),
                };
                peers.insert(index, seen);
            }
        }
        Ok(peers)
    }

    /// The other side of one device.
    pub(super) async fn peer(&self, link: &Link) -> Result<Option<ObservedPeer>, NetlinkError> {
        Ok(self.peers(std::slice::from_ref(link)).await?.remove(&link.index))
    }
}
