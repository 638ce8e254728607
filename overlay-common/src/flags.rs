//! What an endpoint may send, and what its network carries: the flags of PORTS, FDB and BRIDGES.

/// The endpoint may send from IP addresses that no endpoint of the network has: it routes for others.
pub const FLAG_ROUTING: u32 = 1 << 0;
/// The network's endpoints may not reach each other (ICC off).
pub const FLAG_ICC_OFF: u32 = 1 << 1;
/// The endpoint's network carries broadcast and multicast.
pub const FLAG_MULTICAST: u32 = 1 << 2;
/// The endpoint may send from MACs that no endpoint of the network has, and gets what is sent to such MACs: it bridges
/// for others.
pub const FLAG_BRIDGING: u32 = 1 << 3;
/// The endpoint may send what configures others: router advertisements, redirects, a DHCP server's messages.
pub const FLAG_ADVERTISING: u32 = 1 << 4;
/// The entry, or the sender, is of stations behind bridging endpoints, and no endpoint's: it has no address of its own.
pub const FLAG_STATIONS: u32 = 1 << 5;
/// The device of the endpoint on this host has a queue (a queueing discipline other than noqueue) that packets to the
/// endpoint wait in. Only entries of FDB have it.
pub const FLAG_QUEUED: u32 = 1 << 6;
