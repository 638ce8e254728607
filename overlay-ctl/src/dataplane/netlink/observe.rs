//! Ports and gateway legs as they stand.
//!
//! A pass looks at all of them: two requests for each namespace that has some of them, however many
//! they are, and one for the node's own.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    Netlink, NetlinkError, NetnsId, ObservedLeg, ObservedPort, PortError, SuperPackets,
    leg::leg_of,
    link::{self, Link},
    port::endpoint_of,
};

/// The endpoint's side of a port, or of a gateway leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPeer {
    /// The namespace it is in; [`Netlink::netns_id`] tells which that is.
    pub netns: NetnsId,
    /// Its index there.
    pub ifindex: u32,
    /// Its name there.
    pub ifname: String,
    /// It is up.
    pub up: bool,
    /// It is up, and what the endpoint gives it is sent.
    pub running: bool,
    /// Its MAC, in transmission order; empty where it has none.
    pub mac: Vec<u8>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// How large its super-packets may be.
    pub super_packets: SuperPackets,
    /// Its IPv4 addresses and their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

/// The endpoint's side as a spec wants it.
pub(super) struct Wanted<'a> {
    pub(super) netns: NetnsId,
    pub(super) has_name: &'a dyn Fn(&str) -> bool,
    pub(super) mac: [u8; 6],
    pub(super) address: (Ipv4Addr, u8),
    /// Of both sides.
    pub(super) mtu: u32,
}

/// The first thing, in words, in which a pair is not as wanted. `mtu` is that of the host's side.
pub(super) fn difference(
    mtu: u32,
    peer: Option<&ObservedPeer>,
    wanted: &Wanted<'_>,
) -> Option<&'static str> {
    let Some(peer) = peer else { return Some("the endpoint's interface is gone") };
    let checks = [
        (peer.netns == wanted.netns, "the endpoint's interface is in another namespace"),
        ((wanted.has_name)(&peer.ifname), "the endpoint's interface has another name"),
        (peer.mac == wanted.mac, "the endpoint's interface has another MAC"),
        (peer.addresses.contains(&wanted.address), "the endpoint's interface lacks its address"),
        (peer.mtu == wanted.mtu && mtu == wanted.mtu, "the MTU differs"),
    ];
    checks.into_iter().find_map(|(holds, difference)| (!holds).then_some(difference))
}

impl Netlink {
    /// The ports and the gateway legs that are ours, by their endpoints' ids and by their addresses.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn observe(&self) -> Result<(Vec<ObservedPort>, Vec<ObservedLeg>), PortError> {
        let mut links = link::links(&self.handle, None).await?;
        links.retain(|link| endpoint_of(link).is_some() || leg_of(link).is_some());
        let mut peers = self.peers(&links).await?;
        let (mut ports, mut legs) = (Vec::new(), Vec::new());
        for link in links {
            let peer = peers.remove(&link.index);
            if let Some(endpoint) = endpoint_of(&link) {
                ports.push(ObservedPort::new(endpoint, link, peer));
            } else if let Some(address) = leg_of(&link) {
                legs.push(ObservedLeg::new(address, link, peer));
            }
        }
        ports.sort_by_key(|port| port.endpoint);
        legs.sort_by_key(|leg| leg.address);
        Ok((ports, legs))
    }

    /// The other ends of these devices, by the index of the host's side. Left out where the kernel
    /// shows none.
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
                    // A list that changed while it was read may lack one, and whoever hears that the
                    // other end is gone builds the pair anew.
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
                    addresses: addresses.map(|address| (address.ip, address.prefix)).collect(),
                };
                peers.insert(index, seen);
            }
        }
        Ok(peers)
    }

    /// One device's other end.
    pub(super) async fn peer(&self, link: &Link) -> Result<Option<ObservedPeer>, NetlinkError> {
        Ok(self.peers(std::slice::from_ref(link)).await?.remove(&link.index))
    }
}
