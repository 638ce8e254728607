//! The only door to rtnetlink: the underlay device, the devices of endpoints, the gateway bridge, the GRO device, the
//! barrier, the merge pair, next hops, and events.
//!
//! Invariants:
//! - A device belongs to the overlay by its alias, and by its name's prefix or, where somebody renamed it, its group. Any
//!   other device is never touched, also where it merely has such a prefix.
//! - Work inside another network namespace is done through a socket that a short-lived thread opened there; no thread
//!   of the runtime ever leaves its own namespace.
//! - The settings of the machine (rp_filter, whatever is set for all devices) are not changed. Sysctls are set for single
//!   devices: for the gateway bridge, and `forwarding` for the devices by which the host has neighbours. Offloads are
//!   switched on endpoints' interfaces, and on the devices of the underlay where the caller says so. Inside a namespace
//!   only the loopback device is set up, and a default route is added where there is none.

mod barrier;
mod bottom;
mod bridge;
mod bridge_port;
mod changes;
mod device;
mod dump;
mod error;
mod event_filter;
mod features;
mod gro;
mod held;
mod interest;
mod link;
mod link_layer;
mod listener;
mod marks;
mod merge_pair;
mod names;
mod neighbour;
mod neighbour_table;
mod netconf;
mod netns;
mod next_hop;
mod observe;
mod pair;
mod peer;
mod renamed;
mod route;
mod super_packets;
mod surroundings;
mod sysctl;
mod underlay;
mod update;
mod uplink;
mod xdp;
mod xdp_programs;
mod xfrm;

pub use barrier::BarrierGap;
pub use bottom::{BottomDevice, BottomKind};
pub use bridge::GatewayBridge;
pub(crate) use changes::Mounts;
pub use error::{
    BridgeError, DeviceError, GroError, MergePairError, NetlinkError, OffloadsError, UnderlayError,
};
pub use features::Offloads;
pub use gro::vxlan_user;
pub use held::HeldNamespaces;
pub use interest::{Change, Interest};
pub use listener::Listener;
pub use marks::device_name;
pub use merge_pair::MergePair;
pub use names::GATEWAY_BRIDGE;
pub use neighbour_table::NeighbourTable;
pub(crate) use netns::Netns;
pub use observe::LinkList;
pub use super_packets::DeviceSizes;
pub use surroundings::OuterDevice;
pub use sysctl::Forwarding;
pub use underlay::{Underlay, UnderlayChoice};
pub use xdp::{XdpDevice, offloads};
pub use xfrm::IpsecPolicies;

use self::renamed::LeftAlone;
use std::sync::Arc;

/// A connection to rtnetlink in the node's own network namespace.
///
/// It is cheap to keep and cheap to open. Clones share one socket, on which the kernel makes one list at a time and
/// answers a second request with EBUSY: a task that works beside another one opens a connection of its own. When the
/// socket breaks, every call fails with [`NetlinkError::Closed`]: open another connection.
#[derive(Debug, Clone)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    left_alone: Arc<LeftAlone>,
}

impl Netlink {
    /// Connects in the network namespace of the calling thread.
    ///
    /// Must be called within a tokio runtime, which then serves the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub async fn open() -> Result<Self, NetlinkError> {
        Ok(Self { handle: connect()?, left_alone: Arc::default() })
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
