//! Map keys, values, names and capacities.
//!
//! Map names have at most 15 characters, because the kernel cuts longer object names.

use crate::wire::{Ip16, MacBytes, VXLAN_OVERHEAD};

/// (VNI, MAC) -> the endpoint and its place. Key [`FdbKey`], value [`FdbEntry`].
pub const MAP_FDB: &str = "FDB";
/// (VNI, IP) -> MAC, for ARP answers. Key [`NeighKey`], value [`NeighEntry`].
pub const MAP_NEIGH: &str = "NEIGH";
/// Host-side ifindex -> the endpoint whose veth this is. Key `u32`, value [`PortEntry`].
pub const MAP_PORTS: &str = "PORTS";
/// VTEP address -> the node and its index in HOPS. Key [`NodeKey`], value [`NodeEntry`].
pub const MAP_NODES: &str = "NODES";
/// Array of [`HopEntry`]: the way to each VTEP. Index 0 belongs to no VTEP.
pub const MAP_HOPS: &str = "HOPS";
/// Array of [`PathMtu`] with the same indexes as HOPS: the packet sizes that routers on the way have
/// reported. The programs write it.
pub const MAP_PATHS: &str = "PATHS";
/// Per-CPU array of [`Traffic`], indexed by [`PortEntry::slot`].
pub const MAP_TRAFFIC: &str = "TRAFFIC";
/// VNI -> the VTEPs and local ports that receive broadcast and multicast. Key `u32`, value
/// [`FloodEntry`]. An entry exists for every VNI that this node holds, even if it lists none.
pub const MAP_FLOOD: &str = "FLOOD";
/// Array of one [`Config`].
pub const MAP_CONFIG: &str = "CONFIG";
/// Per-CPU array of [`Counter`], indexed by [`metric_index`].
pub const MAP_METRICS: &str = "METRICS";
/// Host-side ifindex -> the endpoint whose gateway leg this is. Key `u32`, value [`GatewayPortEntry`].
pub const MAP_GATEWAY_PORTS: &str = "GATEWAY_PORTS";
/// Addresses of the nodes' APIs, which endpoints must not reach. Key [`ApiKey`], value `u64`: the
/// node's id.
pub const MAP_APIS: &str = "APIS";
/// Ring buffer of [`Event`].
pub const MAP_EVENTS: &str = "EVENTS";

/// Capacity of FDB and of NEIGH, in entries. Not preallocated: an empty slot costs no memory.
pub const ENDPOINTS_MAX: u32 = 1 << 20;
/// Capacity of PORTS and of GATEWAY_PORTS: endpoints on one node.
pub const PORTS_MAX: u32 = 1 << 14;
/// Capacity of NODES, HOPS, PATHS and APIS.
pub const NODES_MAX: u32 = 1 << 14;
/// Capacity of TRAFFIC: endpoints of one node that have a slot of their own. Further endpoints share
/// slot 0.
pub const TRAFFIC_MAX: u32 = 1 << 12;
/// Capacity of FLOOD: networks on one node.
pub const NETWORKS_MAX: u32 = 1 << 14;
/// Greatest number of VTEPs, and also of local ports, that one network's broadcast is replicated to.
pub const FLOOD_MAX: usize = 32;
/// Bytes of the EVENTS ring buffer. A power of two and a multiple of the page size.
pub const EVENTS_BYTES: u32 = 1 << 18;

/// The endpoint may send from addresses that are not its own: it routes or bridges for others.
pub const FLAG_FORWARDS: u32 = 1 << 0;
/// The network's endpoints may not reach each other (ICC off).
pub const FLAG_ICC_OFF: u32 = 1 << 1;
/// The endpoint's network carries broadcast and multicast.
pub const FLAG_MULTICAST: u32 = 1 << 2;

/// [`Config::flags`]: a listener reads drops from EVENTS.
pub const CONFIG_MONITOR: u32 = 1 << 0;
/// [`Config::flags`]: a listener reads flows from EVENTS; one forwarded packet in [`Config::sample`]
/// makes an event.
pub const CONFIG_FLOWS: u32 = 1 << 1;

/// Key of FDB.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbKey {
    /// Network, host byte order.
    pub vni: u32,
    /// MAC of the endpoint.
    pub mac: MacBytes,
    /// Zero.
    pub pad: [u8; 2],
}

/// Value of FDB. A single lookup of a packet's source gives all that its MAC, its address and its VTEP
/// are checked against.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The VTEP the endpoint is behind; all zero if the endpoint is on this node.
    pub vtep: Ip16,
    /// The endpoint's own address.
    pub ip: Ip16,
    /// Host-side ifindex of the endpoint's veth; 0 if the endpoint is behind a VTEP.
    pub ifindex: u32,
    /// `FLAG_…`
    pub flags: u32,
    /// Revision that created the endpoint.
    pub generation: u64,
    /// For an endpoint behind a VTEP, the VTEP's index in HOPS. For an endpoint on this node, its slot
    /// in TRAFFIC.
    pub hop: u32,
    /// Zero.
    pub pad: u32,
}

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
    /// Device through which the next hop is reached. 0: the next hop is not resolved, and the kernel's own
    /// routes decide.
    pub ifindex: u32,
    /// Zero.
    pub flags: u32,
}

/// Element of PATHS: a router on the way reported that longer packets do not get through (RFC 1191).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtu {
    /// Bytes of the longest outer IPv4 packet; 0: no router reported a size.
    pub mtu: u32,
    /// Zero.
    pub pad: u32,
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

/// Value of FLOOD.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FloodEntry {
    /// Number of filled elements of `vteps`.
    pub vtep_count: u32,
    /// Number of filled elements of `ports`.
    pub port_count: u32,
    /// VTEPs with an endpoint of the network.
    pub vteps: [Ip16; FLOOD_MAX],
    /// Host-side ifindexes of the network's endpoints on this node.
    pub ports: [u32; FLOOD_MAX],
}

/// The one element of CONFIG.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's own VTEP address: outer source of packets that are sent, outer destination of packets
    /// that are accepted.
    pub vtep: Ip16,
    /// Underlay device.
    pub underlay_ifindex: u32,
    /// VXLAN's UDP port, host byte order.
    pub vxlan_port: u16,
    /// Time to live of outer packets.
    pub ttl: u8,
    /// Zero.
    pub pad: u8,
    /// `CONFIG_…`
    pub flags: u32,
    /// While [`CONFIG_FLOWS`] is set, one in `sample` forwarded packets makes an event. 0: none does.
    pub sample: u32,
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

/// Index into METRICS of a reason in a direction. Reason 0 counts forwarded packets. Of the packets on a
/// network it counts only those that TRAFFIC no longer holds, because their endpoint is gone.
#[inline(always)]
#[must_use]
pub const fn metric_index(reason: u32, direction: crate::Direction) -> u32 {
    reason * DIRECTIONS_MAX + direction as u32
}

/// Room for directions in METRICS, so that a direction can be added without moving the counters.
const DIRECTIONS_MAX: u32 = 4;
/// Elements of METRICS. A power of two, so that a reason can be added without a new map.
pub const METRICS_MAX: u32 = 512;

const _: () = {
    assert!(size_of::<FdbKey>() == 12);
    // With 48 bytes of the kernel's own, 16 of the key and 8 of the allocator, an element takes 128
    // bytes, which is one of the slab allocator's sizes.
    assert!(size_of::<FdbEntry>() == 56);
    assert!(size_of::<HopEntry>() == 64);
    assert!(size_of::<PathMtu>() == 16);
    assert!(size_of::<Traffic>() == 64);
    assert!(size_of::<NeighKey>() == 20);
    assert!(size_of::<NeighEntry>() == 8);
    assert!(size_of::<PortEntry>() == 40);
    assert!(size_of::<NodeKey>() == 16);
    assert!(size_of::<NodeEntry>() == 16);
    assert!(size_of::<FloodEntry>() == 8 + 20 * FLOOD_MAX);
    assert!(size_of::<Config>() == 32);
    assert!(size_of::<Counter>() == 16);
    assert!(size_of::<Event>() == 104);
    assert!(size_of::<GatewayPortEntry>() == 52);
    assert!(size_of::<ApiKey>() == 20);
    assert!(crate::Direction::COUNT <= DIRECTIONS_MAX);
    assert!(crate::DropReason::COUNT * DIRECTIONS_MAX <= METRICS_MAX);
    assert!(EVENTS_BYTES.is_power_of_two() && EVENTS_BYTES.is_multiple_of(4096));
};

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "aya's Pod is a promise about layout, which is asserted above")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($t:ty),* $(,)?) => {$(
            // SAFETY: repr(C), Copy, no padding (asserted above), every bit pattern is a value.
            unsafe impl aya::Pod for $t {}
        )*};
    }
    pod!(
        FdbKey,
        FdbEntry,
        NeighKey,
        NeighEntry,
        PortEntry,
        NodeKey,
        NodeEntry,
        HopEntry,
        PathMtu,
        Traffic,
        FloodEntry,
        Config,
        Counter,
        Event,
        GatewayPortEntry,
        ApiKey,
    );
}
