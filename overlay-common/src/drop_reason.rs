//! Why a packet was dropped, and which way it went: one table for the programs, METRICS, the CLI and
//! the documents.

/// Which way a packet was going when it was counted.
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
    /// How many there are.
    pub const COUNT: u32 = 4;
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] =
        [Self::FromEndpoint, Self::FromUnderlay, Self::FromGateway, Self::GuardUnderlay];

    /// Its name in metrics, events and documents.
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
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Why a packet was dropped. Numbers are stable: they index METRICS, which outlives the
        /// program that writes it. 0 is not a reason: it counts what was forwarded.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum DropReason {
            $(#[doc = $text] $variant = $number,)*
        }

        impl DropReason {
            /// One more than the greatest number.
            pub const COUNT: u32 = { let mut n = 0; $( if $number >= n { n = $number + 1; } )* n };
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name in metrics, events and documents.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The reason with this number.
            #[must_use]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

drop_reasons! {
    Malformed = 1, "malformed", "The frame is too short for the headers it announces, or a header contradicts itself.";
    UnknownPort = 2, "unknown_port", "The device the frame came from belongs to no endpoint.";
    SpoofedMac = 3, "spoofed_mac", "The source MAC is not the endpoint's own.";
    SpoofedIp = 4, "spoofed_ip", "The source address is not the endpoint's own.";
    VlanUnsupported = 5, "vlan_unsupported", "More VLAN tags than two; on the gateway leg, any.";
    UnknownDestination = 6, "unknown_destination", "No endpoint of the network has the destination MAC.";
    BroadcastOff = 7, "broadcast_off", "Broadcast or multicast on a network that carries none.";
    ArpNotRequest = 8, "arp_not_request", "An ARP packet that is not an Ethernet/IPv4 request (on the gateway leg: nor an answer): nobody asked for it.";
    ArpUnknownTarget = 9, "arp_unknown_target", "An ARP request for an address that no endpoint of the network has.";
    ArpOwnAddress = 10, "arp_own_address", "An ARP request for the sender's own address (an announcement): the map says it better.";
    ArpFromUnderlay = 11, "arp_from_underlay", "ARP inside VXLAN: ARP never crosses the underlay.";
    IccOff = 12, "icc_off", "The network's endpoints may not reach each other.";
    UnknownNode = 13, "unknown_node", "The FDB names a VTEP that NODES does not hold, or one whose next hop is not resolved yet and the kernel has no other way for the frame.";
    EncapFailed = 14, "encap_failed", "The kernel refused to make room for the outer headers.";
    DecapFailed = 15, "decap_failed", "The kernel refused to strip the outer headers.";
    OuterFragment = 16, "outer_fragment", "A fragment of a VXLAN packet: we send none, and a fragment hides its inner frame.";
    OuterOptions = 17, "outer_options", "A VXLAN packet with IPv4 options.";
    VxlanFlags = 18, "vxlan_flags", "A VXLAN header without the VNI flag.";
    UnknownVtep = 19, "unknown_vtep", "VXLAN from an address that is no node of ours.";
    UnknownVni = 20, "unknown_vni", "VXLAN for a network that this node does not hold.";
    SourceNotBehindVtep = 21, "source_not_behind_vtep", "The inner source MAC does not belong to the VTEP that sent the packet.";
    OwnVtep = 22, "own_vtep", "VXLAN that claims to come from this node.";
    EcnNotCapable = 23, "ecn_not_capable", "Congestion experienced on the outer header, not ECN-capable inside (RFC 6040, section 4.2).";
    RedirectFailed = 24, "redirect_failed", "The kernel refused the redirect.";
    NotConfigured = 25, "not_configured", "The program runs but CONFIG is empty.";
    HairpinDestination = 26, "hairpin_destination", "The destination is the sender itself.";
    NotLocalDestination = 27, "not_local_destination", "VXLAN for an endpoint that is not on this node (it moved, or the sender's map is old).";
    GatewayNeighbour = 28, "gateway_neighbour", "A frame on the gateway leg for anybody but the gateway, or beyond it for another endpoint's gateway address: neighbours there never hear each other.";
    GatewayProtocol = 29, "gateway_protocol", "Neither IPv4 nor ARP on the gateway leg.";
    VxlanFromEndpoint = 30, "vxlan_from_endpoint", "UDP to or from the VXLAN port on the gateway leg: masqueraded, it would come from a VTEP's address, and its answer would look like a VTEP's VXLAN.";
    LoopbackDestination = 31, "loopback_destination", "To 127.0.0.0/8 on the gateway leg: what listens on the host's loopback is not for endpoints.";
    ControllerPort = 32, "controller_port", "TCP from an endpoint to the address and port of a node's API, whatever its flags.";
    SourceRoute = 33, "source_route", "An IPv4 source route on the gateway leg: its last destination is not the one that was checked.";
    TooBig = 34, "too_big", "Larger than the path to the destination's node takes. A sender of IP was told so by ICMP (RFC 1191, RFC 8201).";
    RouterAdvertisement = 35, "router_advertisement", "An IPv6 router advertisement or redirect, or what could hide one behind an extension header, from an endpoint that does not forward (RFC 6105).";
    DhcpServer = 36, "dhcp_server", "What a DHCP server says, from an endpoint that does not forward.";
    PriorityTag = 37, "priority_tag", "A VLAN tag of VLAN 0 around ARP or another tag: its receiver takes it for untagged, past all checks.";
    UnfinishedChecksum = 38, "unfinished_checksum", "A checksum that is still to be written is not the packet's own: it would overwrite what was checked.";
    IcmpAboutOthers = 39, "icmp_about_others", "An ICMP error on the gateway leg about a packet that was not for the endpoint.";
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
            assert_ne!(*reason as u32, 0, "0 counts what was forwarded");
        }
        assert_eq!(DropReason::from_number(0), None);
    }
}
