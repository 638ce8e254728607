//! Keys and values of the maps.
//!
//! Invariants: every type is `repr(C)` without implicit padding, and any bytes are a value of it. Where
//! one field has a meaning that depends on another, it is private and has an accessor for each meaning.

use crate::arrivals::Arrivals;
use crate::fdb::{BridgeKey, FdbEntry, FdbKey};
use crate::flood::{FloodEntry, FloodKey};
use crate::limits::{Limit, Limits};
use crate::wire::{Ip16, MacBytes, VXLAN_OVERHEAD};

/// [`Config::flags`]: a listener reads drops from EVENTS.
pub const CONFIG_MONITOR: u32 = 1 << 0;
/// [`Config::flags`]: a listener reads flows from EVENTS; one forwarded packet in [`Config::sample`]
/// makes an event.
pub const CONFIG_FLOWS: u32 = 1 << 1;

/// [`Config::flags`]: another program of this host receives VXLAN on the same UDP port. VXLAN that is not of this
/// overlay goes up the stack, to its socket.
pub const CONFIG_SHARED: u32 = 1 << 2;

/// Key of NEIGH.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeighKey {
    /// Address asked for. It is the first field, so that the programs can build the key on their stack
    /// in whole words.
    pub ip: Ip16,
    /// Network, host byte order.
    pub vni: u32,
}

/// Value of NEIGH.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighEntry {
    /// MAC of the endpoint that has the address.
    pub mac: MacBytes,
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of CLAIMS: the endpoint that speaks for an IPv6 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimEntry {
    /// Its MAC.
    pub mac: MacBytes,
    /// Zero.
    pub pad: [u8; 2],
    /// Time, by `bpf_ktime_get_ns`, until which nobody else can have the address.
    pub until_ns: u64,
}

/// Value of PORTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEntry {
    /// The endpoint's own address.
    pub ip: Ip16,
    /// Network, host byte order.
    pub vni: u32,
    /// `FLAG_…`
    pub flags: u32,
    /// The endpoint's own MAC.
    pub mac: MacBytes,
    /// Zero.
    pub pad: [u8; 2],
    /// Index in TRAFFIC where its packets are counted; 0 is shared by all endpoints that have no slot of
    /// their own.
    pub slot: u32,
    /// Zero.
    pub pad2: u32,
}

/// Key of NODES.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey {
    /// The node's VTEP address.
    pub vtep: Ip16,
}

/// Value of GATEWAY_PORTS: everything that `from_gateway` must know about the sender and its bridge.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayPortEntry {
    /// The endpoint's address on the gateway bridge.
    pub ip: Ip16,
    /// The bridge's own address.
    pub gateway: Ip16,
    /// Ifindex of the bridge: a packet that may pass continues as if the bridge itself had received it.
    /// 0: the packet continues on the way that the device has anyway.
    pub bridge: u32,
    /// Mask of the gateway subnet: four bytes for those of the IPv4 address, in transmission order.
    pub mask: [u8; 4],
    /// MAC of the endpoint's leg.
    pub mac: MacBytes,
    /// MAC of the bridge.
    pub gateway_mac: MacBytes,
    /// [`FLAG_ROUTING`](crate::FLAG_ROUTING) if an endpoint that has this leg has it; no other flag.
    pub flags: u32,
}

/// Key of APIS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey {
    /// Address where the node's API listens.
    pub ip: Ip16,
    /// TCP port, host byte order.
    pub port: u32,
}

/// Value of NODES. An entry means that this VTEP may send VXLAN to this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Raft id of the node; 0 for an external VTEP, which is not a node of the cluster.
    pub node: u64,
    /// The VTEP's index in HOPS; never 0.
    pub hop: u32,
    /// Zero.
    pub pad: u32,
}

/// Element of HOPS: the part that all packets to one VTEP have in common. It fills one cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopEntry {
    /// The outer headers as they are sent, except for the fields that differ between packets: type of
    /// service, total length and checksum of IPv4, source port and length of UDP, the VNI. Those are zero.
    pub header: [u8; VXLAN_OVERHEAD as usize],
    /// Bytes of the longest outer IPv4 packet that reaches the VTEP, according to the device and the routes.
    /// 0: the whole entry is empty, and nothing is sent to the VTEP.
    pub mtu: u16,
    /// Sum of the IPv4 header's 16-bit words as they lie in `header`, in the host's byte order, before the
    /// carries are added in.
    pub csum: u32,
    /// Device of the route, where the next hop is an Ethernet hop and resolved: the packet leaves by it with the
    /// MACs in `header`. 0: the kernel looks the next hop up, packet by packet, on the device in `via`.
    pub ifindex: u32,
    /// Device of the route, resolved or not, and [`VIA_BARE`]. No packet to the VTEP leaves by another one. 0: no
    /// device is known, and nothing is sent that needs it.
    pub via: u32,
}

/// [`HopEntry::via`]: packets leave the device without an Ethernet header. The kernel itself removes the header
/// of every packet that is redirected to such a device, so that copies need no next hop there.
pub const VIA_BARE: u32 = 1 << 31;

impl HopEntry {
    /// The device of the route; 0 where none is known.
    #[inline(always)]
    #[must_use]
    pub const fn via_device(&self) -> u32 {
        self.via & !VIA_BARE
    }

    /// Returns true if packets leave the route's device without an Ethernet header.
    #[inline(always)]
    #[must_use]
    pub const fn is_bare(&self) -> bool {
        self.via & VIA_BARE != 0
    }
}

/// Element of PATHS: what the programs have learnt about the way to a VTEP and from it. A router on the way may have
/// reported that longer packets do not get through (RFC 1191). The element [`Arrivals::OF_ALL`] is of no VTEP.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtu {
    /// Bytes of the longest outer IPv4 packet; 0: no router reported a size.
    pub mtu: u32,
    /// How the VTEP's TCP segments arrive.
    pub arrivals: Arrivals,
    /// Time, by `bpf_ktime_get_ns`, until which the report holds.
    pub until_ns: u64,
}

/// Element of TRAFFIC: the packets that one endpoint of this node sent and received on its network.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent.
    pub sent: Counter,
    /// Received from the underlay.
    pub received: Counter,
    /// Received from endpoints of this node.
    pub from_neighbours: Counter,
    /// Sent by the endpoint and dropped; METRICS counts the reasons. Lost copies of a broadcast are not
    /// counted here.
    pub dropped: Counter,
}

/// The one element of CONFIG.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's own VTEP address: outer source of packets that are sent, outer destination of packets
    /// that are accepted.
    pub vtep: Ip16,
    /// The device that carries the VTEP's address. Never 0 once CONFIG is written.
    pub underlay_ifindex: u32,
    /// VXLAN's UDP port, host byte order.
    pub vxlan_port: u16,
    /// Time to live of outer packets.
    pub ttl: u8,
    /// The bits of an inner packet's type of service that the outer header gets: [`crate::TOS_ECN`], or all.
    pub tos_mask: u8,
    /// `CONFIG_…`
    pub flags: u32,
    /// While [`CONFIG_FLOWS`] is set, one in `sample` forwarded packets makes an event. 0: none does.
    pub sample: u32,
    /// Broadcast and multicast frames of one endpoint.
    pub storm: Limit,
    /// Answers to one endpoint that a packet was too big (RFC 4443, section 2.4 f), and to the probes of all other nodes
    /// together.
    pub answers: Limit,
    /// IPv6 addresses that one endpoint claims.
    pub claims: Limit,
    /// The subnet of the node's gateway bridge, whose addresses nobody has on a network.
    pub gateway: [u8; 4],
    /// Its mask; 0: there is none.
    pub gateway_mask: [u8; 4],
    /// The device by which `from_veth` has TCP segments merged: the merge pair's sending end. 0: it has none merged.
    pub merge_ifindex: u32,
}

/// Element of METRICS.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Packets; a GSO packet counts once.
    pub packets: u64,
    /// Bytes of the frame as the program saw it.
    pub bytes: u64,
}

/// One record of EVENTS: a packet that was dropped, or a sample of the forwarded packets. "The frame
/// inside" is the endpoints' own frame; its fields are not filled in for a packet that `guard_underlay`
/// dropped.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// `bpf_ktime_get_ns` at the verdict.
    pub time_ns: u64,
    /// [`crate::DropReason`] as a number; 0: forwarded.
    pub reason: u32,
    /// [`crate::Direction`] as a number.
    pub direction: u32,
    /// Network, where known; else 0.
    pub vni: u32,
    /// Device on which the packet came in.
    pub ifindex: u32,
    /// Bytes of the frame as it came.
    pub len: u32,
    /// Number of packets that the record stands for: 1 for a drop, [`Config::sample`] for a flow.
    pub sample: u32,
    /// Source address, if the frame inside is IP or ARP.
    pub src_ip: Ip16,
    /// Destination address, likewise.
    pub dst_ip: Ip16,
    /// The VTEP on the other side of the underlay, if the outer headers are available: the sender or the
    /// destination of the packet.
    pub vtep: Ip16,
    /// Source MAC of the frame inside.
    pub src_mac: MacBytes,
    /// Destination MAC, likewise.
    pub dst_mac: MacBytes,
    /// Ethertype of the frame inside, after its VLAN tag if it has one, host byte order; 0 if it could not
    /// be read.
    pub ethertype: u16,
    /// VLAN of the frame inside, from its outermost tag; 0: it has none.
    pub vlan: u16,
    /// Source port of TCP, UDP and SCTP, host byte order; else 0.
    pub src_port: u16,
    /// Destination port, likewise.
    pub dst_port: u16,
    /// Protocol that the IP header names; 0 if there is no IP header.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// States the size of each type, and lets user space copy its bytes to and from the kernel.
macro_rules! sizes {
    ($($entry:ident: $size:expr;)*) => {
        const _: () = {
            $(assert!(size_of::<$entry>() == $size);)*
        };

        #[cfg(feature = "user")]
        #[expect(unsafe_code, reason = "aya's Pod is a promise about layout, which is asserted above")]
        mod pod {
            use super::*;
            $(
                // SAFETY: repr(C), Copy, no padding (asserted above), every bit pattern is a value.
                unsafe impl aya::Pod for $entry {}
            )*
        }
    };
}

sizes! {
    FdbKey: 12;
    // With 48 bytes of the kernel's own, 16 of the key and 8 of the allocator, an element takes 128
    // bytes, which is one of the slab allocator's sizes.
    FdbEntry: 56;
    NeighKey: 20;
    BridgeKey: 20;
    NeighEntry: 8;
    ClaimEntry: 16;
    PortEntry: 40;
    NodeKey: 16;
    NodeEntry: 16;
    // One cache line.
    HopEntry: 64;
    PathMtu: 16;
    Arrivals: 4;
    Traffic: 64;
    FloodKey: 8;
    FloodEntry: 528;
    Limits: 24;
    Limit: 8;
    GatewayPortEntry: 56;
    ApiKey: 20;
    Config: 68;
    Counter: 16;
    Event: 104;
}
