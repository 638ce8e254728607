//! The only door to rtnetlink: the underlay device, the ports' veth pairs, the gateway bridge and its
//! legs, the device that lets GRO merge VXLAN packets, the bridge that lets nothing past the programs,
//! next hops, and word of what changed.
//!
//! Invariants:
//! - A device is ours by its name's prefix AND its alias. Whatever else there is, is never touched,
//!   also where it merely has our prefix.
//! - What happens inside another network namespace happens through a socket that a short-lived
//!   thread opened there; no thread of the runtime ever leaves its own namespace.
//! - The machine's settings (rp_filter, offloads, whatever is set for all devices) are the machine's
//!   own. Sysctls are set for single devices: those of our gateway bridge, and `forwarding` where the
//!   gateway asks for it because the outside comes by that device. The endpoints' own settings are
//!   theirs, but for the loopback device, which is brought up, and a default route where there is none.

mod barrier;
mod bottom;
mod bridge;
mod changes;
mod error;
mod features;
mod fit;
mod gro;
mod held;
mod leg;
mod link;
mod netns;
mod next_hop;
mod observe;
mod pair;
mod port;
mod route;
mod super_packets;
mod surroundings;
mod sysctl;
mod underlay;
mod xdp;

pub use barrier::Outside;
pub use bottom::{BottomDevice, BottomKind};
pub use bridge::{GATEWAY_BRIDGE, GatewayBridge};
pub use changes::Change;
pub use error::{BridgeError, GroError, NetlinkError, OffloadsError, PortError, UnderlayError};
pub use fit::PairSizes;
pub use held::HeldNamespaces;
pub use leg::{LegSpec, ObservedLeg, leg_name};
pub(crate) use netns::Netns;
pub use netns::NetnsId;
pub use next_hop::{NextHop, Way};
pub use observe::ObservedPeer;
pub use port::{ObservedPort, PORT_PREFIX, PortSpec, port_name};
pub use super_packets::{DeviceSizes, SUPER_PACKET_MAX, SuperPackets};
pub use underlay::{Underlay, UnderlayChoice};
pub use xdp::{XdpDevice, offloads};

/// A connection to rtnetlink in the node's own network namespace.
///
/// Cheap to keep, cheap to open. Clones share the socket, on which the kernel lists one thing at a time and
/// answers a second wish with EBUSY: who works beside another opens one of its own. When the socket breaks
/// every call fails with [`NetlinkError::Closed`]: open another.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
}

impl Netlink {
    /// Connects in the network namespace of the calling thread.
    ///
    /// Must be called within a tokio runtime, which then serves the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub async fn open() -> Result<Self, NetlinkError> {
        Ok(Self { handle: connect()? })
    }
}

/// Opens a socket in the calling thread's network namespace and lets the entered runtime serve it.
///
/// Strict checking (kernel 4.20) makes the kernel honour what a dump asks for: without it an address
/// dump ignores the namespace that it names.
fn connect() -> Result<rtnetlink::Handle, NetlinkError> {
    let (connection, handle, _) =
        rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Open)?;
    // It ends with the last handle.
    tokio::spawn(connection);
    Ok(handle)
}
