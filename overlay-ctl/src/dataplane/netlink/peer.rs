//! The sides of devices that are inside endpoints' namespaces, as they are.

use std::collections::BTreeMap;

use super::{
    Netlink, NetlinkError,
    link::{self, Link},
};
use crate::dataplane::kernel::{NetnsId, ObservedPeer};

/// Up to how many devices of a namespace are asked for one by one. For a list of links the kernel first measures every
/// device of the *socket's* namespace (`rtnl_calcit`, Linux 6.18), whichever namespace is listed: with a list for each of a
/// thousand endpoints, a look at them would cost a million measurements.
const FEW: usize = 8;

impl Netlink {
    /// The other sides of these devices, by the index of the host's side. Left out where the kernel shows none.
    ///
    /// The devices of a namespace are asked for one by one if they are few, and otherwise by one list; the addresses
    /// always by one.
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
            let inside = if pairs.len() > FEW {
                link::links(&self.handle, Some(netns)).await?
            } else {
                Vec::new()
            };
            let addresses = link::addresses(&self.handle, 0, Some(netns)).await?;
            for (index, peer) in pairs {
                let found = match inside.iter().find(|link| link.index == peer) {
                    Some(found) => Some(found.clone()),
                    // A list that changed while it was read may lack a device, too, and a device whose other side is
                    // gone is rebuilt.
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
