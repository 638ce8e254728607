//! The drop reasons and the directions of packets.
//!
//! One table serves the programs, METRICS, the CLI and the documents, so that a reason has the same
//! number, name and text everywhere, and one meaning.

/// The direction of a packet when it was counted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Sent by an endpoint of this node.
    FromEndpoint = 0,
    /// Received from the underlay.
    FromUnderlay = 1,
    /// Sent by an endpoint of this node on its gateway leg.
    FromGateway = 2,
    /// Received from the underlay, dropped before it became an skb.
    GuardUnderlay = 3,
}

impl Direction {
    /// Number of directions.
    pub const COUNT: u32 = 4;
    /// All directions, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] =
        [Self::FromEndpoint, Self::FromUnderlay, Self::FromGateway, Self::GuardUnderlay];

    /// The direction's name in metrics, events and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FromEndpoint => "from_endpoint",
            Self::FromUnderlay => "from_underlay",
            Self::FromGateway => "from_gateway",
            Self::GuardUnderlay => "guard_underlay",
        }
    }
}

macro_rules! drop_reasons {
    (
        forwarded = $forwarded:literal, $forwarded_name:literal, $forwarded_text:literal;
        $($variant:ident = $number:literal, $name:literal, $text:literal;)*
    ) => {
        #[doc = $forwarded_text]
        pub const FORWARDED: u32 = $forwarded;

        /// The reason for which a packet was dropped. Numbers are stable, because they index METRICS,
        /// which outlives the program that writes it. [`FORWARDED`] is not among them.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl DropReason {
            /// One more than the greatest number.
            pub const COUNT: u32 = { let mut n = 0; $( if $number >= n { n = $number + 1; } )* n };
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The reason's name in metrics, events and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The name of what became of a packet: of the reason for which it was dropped, or, if there
            /// was none, of having been forwarded.
            #[must_use]
            pub const fn name_of(reason: Option<Self>) -> &'static str {
                match reason {
                    Some(reason) => reason.name(),
                    None => $forwarded_name,
                }
            }

            /// The reason's meaning, in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The reason with this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

drop_reasons! {
    forwarded = 0, "forwarded", "The number that stands in the place of a reason where a packet was forwarded.";
    Malformed = 1, "malformed", "The frame is too short for the headers it announces, or a header contradicts itself.";
    UnknownPort = 2, "unknown_port", "The device that the frame came from belongs to no endpoint.";
    SpoofedMac = 3, "spoofed_mac", "The source MAC is not the endpoint's own. A bridging endpoint may have others, but not those of endpoints and groups.";
    SpoofedIp = 4, "spoofed_ip", "The source address is not the endpoint's own. A routing endpoint, and a station behind a bridging one, may have others, but not those of endpoints.";
    VlanUnsupported = 5, "vlan_unsupported", "The frame has more than two VLAN tags, or came from a gateway leg and has one.";
    UnknownDestination = 6, "unknown_destination", "No endpoint of the network has the destination MAC.";
    BroadcastOff = 7, "broadcast_off", "The frame is broadcast or multicast, which the network does not carry.";
    ArpNotRequest = 8, "arp_not_request", "The ARP packet is not an Ethernet/IPv4 request (on the gateway leg, and from a bridging endpoint: neither a request nor an answer). The overlay answers ARP itself, so that endpoints need send nothing else.";
    ArpUnknownTarget = 9, "arp_unknown_target", "The ARP request asks for an address that no endpoint of the network has, or that of an endpoint of this node that is down.";
    ArpOwnAddress = 10, "arp_own_address", "The ARP request asks for the sender's own address (an announcement). NEIGH already holds the address, so that no announcement is needed.";
    ArpFromUnderlay = 11, "arp_from_underlay", "There is ARP inside VXLAN. The sender's node answers ARP, so that it never crosses the underlay, except to and from stations behind bridging endpoints.";
    IccOff = 12, "icc_off", "The network's endpoints may not reach each other.";
    UnknownNode = 13, "unknown_node", "The destination is behind a VTEP that NODES or HOPS does not hold, or an endpoint of this node that is down.";
    EncapFailed = 14, "encap_failed", "The kernel refused to make room for the outer headers.";
    DecapFailed = 15, "decap_failed", "The kernel refused to remove the outer headers.";
    OuterFragment = 16, "outer_fragment", "The VXLAN packet is a fragment. Nodes send none, and the inner frame of a fragment cannot be checked.";
    OuterOptions = 17, "outer_options", "The VXLAN packet has IPv4 options.";
    VxlanFlags = 18, "vxlan_flags", "The VXLAN header lacks the VNI flag.";
    UnknownVtep = 19, "unknown_vtep", "The VXLAN packet comes from an address that is no VTEP of the cluster.";
    UnknownVni = 20, "unknown_vni", "The VXLAN packet is for a network that this node does not hold.";
    SourceNotBehindVtep = 21, "source_not_behind_vtep", "The inner source MAC does not belong to the VTEP that sent the packet. That of an endpoint whose node is lost belongs to none.";
    OwnVtep = 22, "own_vtep", "The VXLAN packet claims to come from this node.";
    EcnNotCapable = 23, "ecn_not_capable", "The outer header says that congestion was experienced, but the inner header is not ECN-capable (RFC 6040, section 4.2).";
    RedirectFailed = 24, "redirect_failed", "The kernel refused the redirect.";
    NotConfigured = 25, "not_configured", "The program runs, but CONFIG is empty.";
    HairpinDestination = 26, "hairpin_destination", "The destination is the sender itself.";
    NotLocalDestination = 27, "not_local_destination", "The VXLAN packet is for an endpoint that is not on this node, or is down there (the endpoint moved, or the sender's map is old).";
    GatewayNeighbour = 28, "gateway_neighbour", "The frame on the gateway leg is not for the gateway, or is a packet through the gateway to another endpoint's gateway address. Endpoints do not reach each other over the gateway bridge.";
    GatewayProtocol = 29, "gateway_protocol", "The frame on the gateway leg is neither IPv4 nor ARP.";
    VxlanFromEndpoint = 30, "vxlan_from_endpoint", "The packet on the gateway leg is UDP to or from the VXLAN port. Masqueraded, it would come from a VTEP's address, and its answer would look like a VTEP's VXLAN.";
    LoopbackDestination = 31, "loopback_destination", "The packet on the gateway leg is for 127.0.0.0/8. What listens on the host's loopback is not for endpoints.";
    ControllerPort = 32, "controller_port", "The packet is TCP from an endpoint to the address and port of a node's API, whatever its flags.";
    SourceRoute = 33, "source_route", "The packet on the gateway leg has an IPv4 source route: its last destination is not the one that was checked.";
    TooBig = 34, "too_big", "The packet is larger than the path to the destination's node can carry. A sender of IP was informed by ICMP (RFC 1191, RFC 8201).";
    RouterAdvertisement = 35, "router_advertisement", "An IPv6 router advertisement or redirect, or a packet that could hide one behind an extension header, from an endpoint without the permission to advertise (RFC 6105).";
    DhcpServer = 36, "dhcp_server", "A DHCP server's message from an endpoint without the permission to advertise.";
    PriorityTag = 37, "priority_tag", "A VLAN tag of VLAN 0 is around ARP or around another tag. The receiver would treat the frame as untagged, and it would have avoided all checks.";
    UnfinishedChecksum = 38, "unfinished_checksum", "The kernel was asked to write a checksum that is not the packet's own. The write would change what was checked.";
    IcmpAboutOthers = 39, "icmp_about_others", "An ICMP error of an endpoint is about a packet that was not for the endpoint. On a network, a router may send it about a packet that was for no endpoint.";
    UnresolvedNextHop = 40, "unresolved_next_hop", "The next hop towards the destination's node is not resolved yet (ARP on the underlay), and the kernel's own routes cannot carry this frame. Packets of IP take those routes meanwhile.";
    OuterGroupFrame = 41, "outer_group_frame", "The VXLAN packet is for this node's address, but came in a broadcast or multicast Ethernet frame.";
    ReservedGroup = 42, "reserved_group", "The frame is to one of the group addresses that no bridge passes on (01:80:c2:00:00:00 to 0f: spanning tree, pause, LACP, 802.1X, LLDP; IEEE 802.1Q, section 8.6.3).";
    FloodOverflow = 43, "flood_overflow", "A copy of a broadcast or multicast frame: its network has more receivers than a node makes copies for.";
    Storm = 44, "storm", "The frame is broadcast or multicast, and its sender has sent more of those than the storm limit of the node allows.";
    SpoofedNeighbour = 45, "spoofed_neighbour", "A message of IPv6 neighbour discovery in which an endpoint speaks for an address of another (RFC 6620), or a packet that could hide one behind an extension header.";
    UncutSuperPacket = 46, "uncut_super_packet", "A super-packet of SCTP, or of a tunnel inside the endpoint, which behind the outer headers would be cut in the wrong places. The endpoint's interface has such packets cut before they leave it, unless its segmentation offloads were switched on again (`ethtool -K`).";
    NeighbourLimit = 47, "neighbour_limit", "A message of IPv6 neighbour discovery for one more address, from an endpoint that has claimed too many, or the claim could not be noted.";
    IcmpFromRouter = 48, "icmp_from_router", "An ICMP message that only a router sends: a redirect from an endpoint without the permission to advertise, a report of a smaller packet size from one without that to route, or on the gateway leg a redirect or a report of less than 1280 bytes from any. It would count for all traffic of the host that gets it.";
    ProbeLimit = 49, "probe_limit", "A probe of another node's, one more than this node answers in that time. It is sent again in the next round.";
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn numbers_and_names_are_unique_and_round_trip() {
        let names: BTreeSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len());
        for reason in DropReason::ALL {
            assert_eq!(DropReason::from_number(*reason as u32), Some(*reason));
            assert_eq!(DropReason::name_of(Some(*reason)), reason.name());
        }
        assert_eq!(DropReason::from_number(FORWARDED), None);
        assert!(!names.contains(DropReason::name_of(None)));
    }
}
