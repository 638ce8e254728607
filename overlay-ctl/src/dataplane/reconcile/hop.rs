//! The outer headers that all packets to one VTEP have in common, as HOPS holds them.

use crate::{
    dataplane::kernel::{LinkLayer, Way, packet_mtu},
    model::Vtep,
};
use overlay_common::{DONT_FRAGMENT, HopEntry, VIA_BARE, VNI_VALID, VXLAN_OVERHEAD};
use std::net::{IpAddr, Ipv4Addr};

/// What the outer headers of all packets of this node have in common.
#[derive(Clone, Copy, Debug)]
pub struct LocalVtep {
    /// The outer source address.
    pub address: Vtep,
    /// UDP port of VXLAN.
    pub port: u16,
    /// Time to live of the outer packet.
    pub ttl: u8,
    /// The size that no packet on the underlay may exceed, whatever its route, in bytes.
    pub mtu: u16,
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const UDP: u8 = 17;

/// The HOPS entry for `vtep`. Without a next hop, the program lets the kernel look it up for each packet, on the route's
/// device. Without a way, nothing is sent. `None` where one of the two addresses is not of IPv4: an entry has room for
/// IPv4 headers only.
#[must_use]
pub fn hop_entry(local: LocalVtep, vtep: Vtep, way: Option<Way>) -> Option<HopEntry> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (local.address.ip(), vtep.ip()) else {
        return None;
    };
    let next = way.and_then(|way| way.hop);
    let (mac, source_mac) = next.map_or(([0; 6], [0; 6]), |hop| (hop.mac, hop.source_mac));
    let ipv4 = ipv4(local.ttl, source, destination);
    // Ethernet, IPv4, UDP (RFC 768; no checksum: RFC 7348, section 5), VXLAN.
    let parts: [&[u8]; 9] = [
        &mac,
        &source_mac,
        &ETHERTYPE_IPV4.to_be_bytes(),
        &ipv4,
        &[0; 2],
        &local.port.to_be_bytes(),
        &[0; 4],
        &VNI_VALID.to_be_bytes(),
        &[0; 4],
    ];
    let mut header = [0; VXLAN_OVERHEAD as usize];
    for (to, from) in header.iter_mut().zip(parts.concat()) {
        *to = from;
    }
    let words = ipv4.as_chunks::<2>().0.iter();
    Some(HopEntry {
        header,
        mtu: way.map_or(local.mtu, |way| packet_mtu(way.mtu).min(local.mtu)),
        csum: words.map(|word| u32::from(u16::from_ne_bytes(*word))).sum(),
        ifindex: way.filter(|_| next.is_some()).map_or(0, |way| way.device),
        via: way.map_or(0, via),
    })
}

fn via(way: Way) -> u32 {
    match way.link_layer {
        LinkLayer::Bare => way.device | VIA_BARE,
        LinkLayer::Ethernet | LinkLayer::Ppp | LinkLayer::Foreign => way.device,
    }
}

/// The outer IPv4 header (RFC 791, section 3.1); the fields that differ between packets are zero.
fn ipv4(ttl: u8, source: Ipv4Addr, destination: Ipv4Addr) -> [u8; 20] {
    let mut header = [0; 20];
    header[0] = 0x45;
    header[6..8].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    header[8] = ttl;
    header[9] = UDP;
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{dataplane::kernel::NextHop, model::Encapsulation};
    use etherparse::{NetHeaders, PacketHeaders, TransportHeader};

    const BY_7: Way = Way {
        mtu: 1500,
        encapsulation: Encapsulation::VxlanIpv4,
        device: 7,
        link_layer: LinkLayer::Ethernet,
        hop: None,
    };

    #[test]
    fn the_headers_are_as_another_reads_them() {
        let local = LocalVtep { address: [10, 9, 0, 1].into(), port: 8472, ttl: 61, mtu: 1500 };
        let next = NextHop { mac: [2, 0, 0, 0, 0, 9], source_mac: [2, 0, 0, 0, 0, 1] };
        let way = |mtu| Some(Way { mtu, hop: Some(next), ..BY_7 });
        let hop = hop_entry(local, [10, 9, 1, 2].into(), way(1400)).unwrap();
        assert_eq!((hop.ifindex, hop.via, hop.mtu), (7, 7, 1400));
        assert_eq!(
            hop_entry(local, [10, 9, 1, 2].into(), way(9000)).unwrap().mtu,
            1500,
            "at most the node's"
        );
        // A packet's own length, so that there is a packet to read; VXLAN is payload.
        let mut packet = hop.header;
        packet[17] = 36;
        packet[39] = 16;
        let read = PacketHeaders::from_ethernet_slice(&packet).unwrap();
        let link = read.link.unwrap().ethernet2().unwrap();
        assert_eq!((link.destination, link.source), (next.mac, next.source_mac));
        let Some(NetHeaders::Ipv4(ip, _)) = read.net else { panic!("IPv4") };
        assert_eq!((ip.source, ip.destination), ([10, 9, 0, 1], [10, 9, 1, 2]));
        assert_eq!((ip.time_to_live, ip.dont_fragment, ip.dscp.value()), (61, true, 0));
        let Some(TransportHeader::Udp(udp)) = read.transport else { panic!("UDP") };
        assert_eq!((udp.destination_port, udp.checksum), (8472, 0));
        assert_eq!(packet[42..], [8, 0, 0, 0, 0, 0, 0, 0]);
        // What the programs add the packet's words to.
        let length = u32::from(u16::from_ne_bytes(36u16.to_be_bytes()));
        let sum = hop.csum + length;
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        assert_eq!(!(sum as u16), u16::from_ne_bytes(ip.calc_header_checksum().to_be_bytes()));
    }

    #[test]
    fn without_a_next_hop_the_device_of_the_route_is_known() {
        let local = LocalVtep { address: [10, 9, 0, 1].into(), port: 4789, ttl: 64, mtu: 1500 };
        let entry = |way| hop_entry(local, [10, 9, 1, 2].into(), way).unwrap();
        let none = entry(None);
        assert_eq!((none.ifindex, none.via, none.mtu), (0, 0, 1500), "no route");
        assert_eq!(none.header[..12], [0; 12]);
        let hop = entry(Some(Way { mtu: 1300, ..BY_7 }));
        assert_eq!((hop.ifindex, hop.via_device(), hop.is_bare(), hop.mtu), (0, 7, false, 1300));
        for (link_layer, is_bare) in [(LinkLayer::Bare, true), (LinkLayer::Ppp, false)] {
            let hop = entry(Some(Way { link_layer, ..BY_7 }));
            assert_eq!((hop.ifindex, hop.via_device(), hop.is_bare()), (0, 7, is_bare));
        }
    }

    #[test]
    fn a_vtep_of_ipv6_has_no_headers_yet() {
        let v6: Vtep = "fd00::1".parse().unwrap();
        let v4: Vtep = [10, 9, 1, 2].into();
        let local = |address| LocalVtep { address, port: 4789, ttl: 64, mtu: 1500 };
        for (from, to, is_made) in [(v4, v4, true), (v4, v6, false), (v6, v4, false)] {
            assert_eq!(hop_entry(local(from), to, None).is_some(), is_made, "{from} to {to}");
        }
    }
}
