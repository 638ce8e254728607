//! The devices by which VXLAN comes, beside those by which it goes.
//!
//! A packet need not come by the device by which the answer leaves: two network cards, a VTEP's address on the loopback
//! device, a router that prefers the other way. So each network card of the host counts, unless the host itself takes
//! from it only packets whose answer leaves by it (rp_filter 1).
//!
//! A card without an address counts too, where the host takes packets from it (rp_filter 0): Linux answers ARP requests
//! for any of its addresses on any device that hears them (arp_ignore 0), so neighbours may send what is for the VTEP's
//! address to that card. The card below a macvlan with the address is one.
//!
//! Devices that face containers or virtual machines do not count unless a route to a VTEP leads by them: VXLAN that is
//! forged there must not be received.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{
    LinkList, Netlink, NetlinkError,
    bottom::{BottomKind, VETH, bottom_of},
    link::{self, Address, Link},
    marks::{id_of, is_gateway_bridge, is_gro_device},
    merge_pair::is_merge_end,
    sysctl::{self, ReversePathFilter},
};
use crate::dataplane::kernel::{LinkLayer, Uplink};

impl Netlink {
    /// The uplinks of a node with this VTEP address which reaches VTEPs by the devices `by`: those devices, the one that
    /// has the address, and every network card by which the host takes packets whose answer leaves by another. They are
    /// among these devices of the host.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn vxlan_uplinks(
        &self,
        LinkList(links): &LinkList,
        vtep: Ipv4Addr,
        by: &BTreeSet<u32>,
    ) -> Result<Vec<Uplink>, NetlinkError> {
        let addresses = link::addresses(&self.handle, 0, None).await?;
        // A setting that cannot be read lets nothing more in.
        let filter = |link: &Link| {
            sysctl::reverse_path_filter(&link.name).unwrap_or(ReversePathFilter::Strict)
        };
        Ok(choose(links, &addresses, vtep, by, filter))
    }
}

/// The uplinks among these devices.
fn choose(
    links: &[Link],
    addresses: &[Address],
    vtep: Ipv4Addr,
    by: &BTreeSet<u32>,
    filter: impl Fn(&Link) -> ReversePathFilter,
) -> Vec<Uplink> {
    let has = |link: &Link, is_meant: &dyn Fn(&Address) -> bool| {
        addresses.iter().any(|address| address.index == link.index && is_meant(address))
    };
    let is_proven =
        |link: &&Link| by.contains(&link.index) || has(link, &|address| address.ip == vtep);
    let proven: Vec<&Link> = links.iter().filter(is_proven).collect();
    let around = Surroundings::of(links, &proven);
    let takes = |link: &Link| match filter(link) {
        ReversePathFilter::Strict => false,
        ReversePathFilter::Loose => has(link, &|address| address.global),
        ReversePathFilter::Off => true,
    };
    // What comes by a bond's card is the bond's.
    let is_free = |link: &Link| link.up && link.controller.is_none() && !is_ours(link);
    let is_card = |link: &&Link| is_free(link) && around.is_card(links, link) && takes(link);
    links
        .iter()
        .filter(|link| is_proven(link) || is_card(link))
        .filter(|link| link.link_layer != LinkLayer::Foreign)
        .map(|link| Uplink {
            ifindex: link.index,
            name: link.name.clone(),
            link_layer: link.link_layer,
            is_veth: link.kind == VETH,
        })
        .collect()
}

/// How the network around this host is reached.
struct Surroundings<'a> {
    /// The veths by which it is. A host that is a namespace itself has a veth as its network card, whose other end is in
    /// the namespace that is its network. The host's side of a container's veth looks the same, but for that namespace.
    veths: Vec<&'a Link>,
}

impl<'a> Surroundings<'a> {
    fn of(links: &'a [Link], proven: &[&Link]) -> Self {
        let veths =
            proven.iter().flat_map(|link| bottoms(links, link)).filter_map(|(link, kind)| {
                (kind == BottomKind::Software(VETH.to_owned())).then_some(link)
            });
        Self { veths: veths.collect() }
    }

    /// Returns true if every device at the bottom of this one is a network card.
    fn is_card(&self, links: &[Link], link: &Link) -> bool {
        let bottoms = bottoms(links, link);
        let is_card = |(link, kind): &(&Link, BottomKind)| match kind {
            BottomKind::Bus(_) => true,
            BottomKind::Software(kind) if kind == VETH => self.is_around(link),
            // Before Linux 5.14 the kernel does not tell on which bus a device is.
            BottomKind::Software(kind) => kind.is_empty() && !link.loopback,
            BottomKind::Hidden => false,
        };
        !bottoms.is_empty() && bottoms.iter().all(is_card)
    }

    fn is_around(&self, veth: &Link) -> bool {
        veth.peer_netns.is_some()
            && self.veths.iter().any(|known| known.peer_netns == veth.peer_netns)
    }
}

fn bottoms<'a>(links: &'a [Link], link: &Link) -> Vec<(&'a Link, BottomKind)> {
    let bottom = bottom_of(links, link.index, |_| String::new());
    let found = bottom.into_iter().filter_map(|device| {
        let link = links.iter().find(|link| link.name == device.name)?;
        Some((link, device.kind))
    });
    found.collect()
}

fn is_ours(link: &Link) -> bool {
    is_gateway_bridge(link) || id_of(link).is_some() || is_gro_device(link) || is_merge_end(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{kernel::NetnsId, netlink::link::Parent};

    const VTEP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link { index, name: name.to_owned(), kind: kind.to_owned(), up: true, ..Link::default() }
    }

    fn card(index: u32, name: &str) -> Link {
        let parent = Parent { bus: "pci".to_owned(), device: name.to_owned() };
        Link { parent, ..link(index, name, "") }
    }

    fn veth(index: u32, name: &str, netns: i32) -> Link {
        Link { peer: Some(9), peer_netns: NetnsId::new(netns), ..link(index, name, "veth") }
    }

    fn on(index: u32, name: &str, kind: &str, below: u32) -> Link {
        Link { peer: Some(below), ..link(index, name, kind) }
    }

    fn lo() -> Link {
        Link { loopback: true, ..link(99, "lo", "") }
    }

    fn address(index: u32, ip: Ipv4Addr) -> Address {
        Address { index, ip, prefix: 24, global: true }
    }

    fn names(uplinks: Vec<Uplink>) -> Vec<String> {
        uplinks.into_iter().map(|uplink| uplink.name).collect()
    }

    /// Each device but the one with the VTEP has a global address of its own.
    fn chosen(links: &[Link], vtep_on: u32, by: &[u32], strict: &[u32]) -> Vec<String> {
        let own = |link: &Link| match link.index {
            index if index == vtep_on => address(index, VTEP),
            index => address(index, Ipv4Addr::new(10, 9, 9, u8::try_from(index).unwrap())),
        };
        let addresses: Vec<Address> = links.iter().map(own).collect();
        let by = by.iter().copied().collect();
        let filter = |link: &Link| match strict.contains(&link.index) {
            true => ReversePathFilter::Strict,
            false => ReversePathFilter::Off,
        };
        names(choose(links, &addresses, VTEP, &by, filter))
    }

    #[test]
    fn routes_and_the_vteps_address_make_an_uplink_of_any_device() {
        let docker = link(3, "docker0", "bridge");
        let links = [card(1, "eth0"), lo(), docker, link(4, "tun0", "tun"), link(5, "d0", "dummy")];
        assert_eq!(chosen(&links, 1, &[], &[]), ["eth0"]);
        assert_eq!(chosen(&links, 1, &[1, 4], &[]), ["eth0", "tun0"]);
        assert_eq!(chosen(&links, 99, &[1], &[]), ["eth0", "lo"]);
        assert_eq!(chosen(&links, 5, &[1], &[1]), ["eth0", "d0"], "whatever its rp_filter is");
        assert_eq!(chosen(&links, 1, &[1, 3], &[]), ["eth0", "docker0"]);
    }

    #[test]
    fn another_card_is_an_uplink_unless_the_host_takes_nothing_from_elsewhere_by_it() {
        let links = [card(1, "eth0"), card(2, "eth1"), lo()];
        assert_eq!(chosen(&links, 1, &[1], &[]), ["eth0", "eth1"]);
        assert_eq!(chosen(&links, 1, &[1], &[2]), ["eth0"]);
        let down = Link { up: false, ..card(2, "eth1") };
        assert_eq!(chosen(&[card(1, "eth0"), down], 1, &[1], &[]), ["eth0"]);
    }

    #[test]
    fn a_card_without_an_address_is_an_uplink_where_the_host_takes_packets_from_it() {
        let member = Link { controller: Some(4), ..card(3, "eth2") };
        let links = [
            card(1, "eth0"),
            card(2, "eth1"),
            member,
            link(4, "bond0", "bond"),
            on(5, "up0", "macvlan", 2),
            veth(6, "container", 1),
        ];
        let found = |filter| {
            let addresses = [address(5, VTEP)];
            names(choose(&links, &addresses, VTEP, &BTreeSet::new(), |_| filter))
        };
        assert_eq!(found(ReversePathFilter::Off), ["eth0", "eth1", "bond0", "up0"]);
        assert_eq!(found(ReversePathFilter::Loose), ["up0"], "the host refuses these packets");
        assert_eq!(found(ReversePathFilter::Strict), ["up0"]);
    }

    #[test]
    fn a_veth_is_a_card_where_it_leads_to_the_network_around_the_host() {
        let links = [veth(1, "eth0", 0), veth(2, "eth1", 0), veth(3, "container", 1)];
        assert_eq!(chosen(&links, 1, &[], &[]), ["eth0", "eth1"]);
        let links = [card(1, "eth0"), veth(2, "calico", 0)];
        assert_eq!(chosen(&links, 1, &[], &[]), ["eth0"]);
        let here = Link { peer_netns: None, ..veth(2, "pair", 0) };
        assert_eq!(chosen(&[veth(1, "eth0", 0), here], 1, &[], &[]), ["eth0"]);
        let links = [lo(), veth(1, "eth0", 0), veth(2, "eth1", 0)];
        assert_eq!(chosen(&links, 99, &[1], &[]), ["lo", "eth0", "eth1"]);
    }

    #[test]
    fn what_is_made_on_cards_is_one() {
        let member = |bond, member: Link| Link { controller: Some(bond), ..member };
        let links = [
            card(1, "eth0"),
            member(10, card(2, "eth1")),
            link(10, "bond0", "bond"),
            on(11, "bond0.7", "vlan", 10),
            on(12, "vm", "macvtap", 20),
            link(20, "br0", "bridge"),
            on(21, "br0.7", "vlan", 20),
            link(22, "tap0", "tun"),
            link(23, "empty", "bond"),
            link(24, "wg0", "wireguard"),
        ];
        let found = chosen(&links, 1, &[1], &[]);
        assert_eq!(found, ["eth0", "bond0", "bond0.7"], "no guest's");
    }

    #[test]
    fn a_link_layer_that_no_program_knows_is_left_out() {
        let infiniband = Link { link_layer: LinkLayer::Foreign, ..card(2, "ib0") };
        assert_eq!(chosen(&[card(1, "eth0"), infiniband], 1, &[1, 2], &[]), ["eth0"]);
    }
}
