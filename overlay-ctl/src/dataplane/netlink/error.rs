//! The errors of this door. Each text says what to do.

use std::{io, net::Ipv4Addr, path::PathBuf};

use nix::errno::Errno;
use overlay_common::{VNI_MAX, VNI_RESERVED};

use super::names::GATEWAY_BRIDGE;
use crate::model::Subnet;

/// rtnetlink itself failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket could be opened.
    #[error("no rtnetlink socket could be opened")]
    Open(#[source] io::Error),
    /// EPERM or EACCES.
    #[error(
        "the kernel does not allow us to {action}: this needs CAP_NET_ADMIN; run the node as root"
    )]
    Denied {
        /// The request, as "set the link up".
        action: String,
    },
    /// Any other answer of the kernel.
    #[error("the kernel refused to {action}")]
    Refused {
        /// The request.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The socket is gone, or an answer could not be understood.
    #[error("the rtnetlink socket broke while we wanted to {action}; try again")]
    Closed {
        /// The request.
        action: String,
        /// The error of the library.
        #[source]
        source: rtnetlink::Error,
    },
    /// ENOBUFS for a new neighbour.
    #[error(
        "the kernel's table of neighbours is full, which all network namespaces of the machine share: raise its limits (`sysctl -w net.ipv4.neigh.default.gc_thresh3=16384 net.ipv4.neigh.default.gc_thresh2=8192`)"
    )]
    NeighbourTableFull,
    /// A device's sysctl can be neither read nor written.
    #[error("the sysctl {} could not be set: /proc/sys must be there and writable (in a container: `--privileged`)", .path.display())]
    Sysctl {
        /// The file of the sysctl.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl NetlinkError {
    pub(super) fn new(action: impl Into<String>, error: rtnetlink::Error) -> Self {
        let action = action.into();
        match error {
            rtnetlink::Error::NetlinkError(message) => {
                let source = message.to_io();
                if source.kind() == io::ErrorKind::PermissionDenied {
                    Self::Denied { action }
                } else {
                    Self::Refused { action, source }
                }
            }
            source => Self::Closed { action, source },
        }
    }

    /// The kernel's answer, where there was one.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Open(_)
            | Self::Denied { .. }
            | Self::Closed { .. }
            | Self::NeighbourTableFull
            | Self::Sysctl { .. } => None,
        }
    }

    /// The device is not there (any more).
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENODEV | Errno::ENXIO | Errno::ENOENT))
    }

    /// The namespace that the request named by its id is not there (any more).
    pub(super) fn is_netns_gone(&self) -> bool {
        self.errno() == Some(Errno::EINVAL)
    }
}

/// The offloads of a device could not be read or set.
#[derive(Debug, thiserror::Error)]
pub enum OffloadsError {
    /// No socket, or the kernel has no family "ethtool".
    #[error("no ethtool socket could be opened")]
    Open(#[source] io::Error),
    /// The error of the kernel or of the library.
    #[error("the kernel does not tell the device's offloads: {0}")]
    Refused(String),
    /// The device is gone.
    #[error("there is no device {0}")]
    NoDevice(String),
    /// The answer named no offload.
    #[error("the kernel told of no offload at all")]
    Nothing,
}

/// No underlay device could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum UnderlayError {
    /// No device of that name.
    #[error(
        "there is no network device {0}: name one of `ip link` with `--underlay`, or an address of this host"
    )]
    NoDevice(String),
    /// The device carries no usable address.
    #[error(
        "the device {0} has no IPv4 address: give it one, or name another device with `--underlay`"
    )]
    NoAddress(String),
    /// The address is on no device.
    #[error(
        "no device of this host has the address {0}: `--underlay` takes a device, or one of the addresses that `ip addr` shows"
    )]
    NoSuchAddress(Ipv4Addr),
    /// The device is down.
    #[error("the underlay device {0} is down: `ip link set {0} up`")]
    Down(String),
    /// No program knows the headers of its packets.
    #[error(
        "the device {0} has a link layer that the overlay cannot use (`ip link` shows it): VXLAN needs Ethernet, or a device without a link header such as WireGuard or tun; name another one with `--underlay`"
    )]
    ForeignLinkLayer(String),
    /// There is nothing to choose from.
    #[error(
        "this host has no default route and no device that is up and has an IPv4 address: configure one, or name it with `--underlay`"
    )]
    None,
    /// There is more than one possible device, and a wrong guess would be worse than a question.
    #[error("several devices could be the underlay ({}): choose one with `--underlay`", .candidates.join(", "))]
    Ambiguous {
        /// The devices, as "eth0 (10.0.0.1)".
        candidates: Vec<String>,
    },
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The barrier or the GRO device could not be created.
#[derive(Debug, thiserror::Error)]
pub enum GroError {
    /// Another program listens on the port.
    #[error(
        "UDP port {port} is taken by {holder}: stop it, or give every node another port with `--vxlan-port`"
    )]
    PortTaken {
        /// The VXLAN port.
        port: u16,
        /// The device or program, as "the VXLAN device docker1".
        holder: String,
    },
    /// A foreign VXLAN device has the VNI that is reserved for the overlay.
    #[error(
        "the VXLAN device {device} has the VNI {VNI_RESERVED} (the greatest, {VNI_MAX:#x}) on UDP port {port}, which the overlay keeps for itself: remove it, or choose another port with `--vxlan-port`"
    )]
    VniTaken {
        /// The foreign device.
        device: String,
        /// The VXLAN port.
        port: u16,
    },
    /// A foreign device has the name.
    #[error(
        "a device {0} exists and is not ours: remove it or rename it (`ip link set {0} name OTHER`)"
    )]
    NameTaken(String),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The merge pair could not be created, or does not merge.
#[derive(Debug, thiserror::Error)]
pub enum MergePairError {
    /// A foreign device has the name.
    #[error(
        "a device {0} exists and is not ours: remove it or rename it (`ip link set {0} name OTHER`)"
    )]
    NameTaken(String),
    /// Another program removed it at once.
    #[error("the device {0} was removed when it had just been made")]
    Gone(String),
    /// The kernel does not switch what the pair needs.
    #[error(
        "the kernel does not switch generic-receive-offload of ovm-in on and tcp-segmentation-offload of ovm-out off (`ethtool -K`)"
    )]
    StaysOff,
    /// ethtool's messages failed.
    #[error(transparent)]
    Offloads(#[from] OffloadsError),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The gateway bridge could not be created, repaired or removed.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A foreign device has the name.
    #[error(
        "a device {GATEWAY_BRIDGE} exists and is not ours: remove it or rename it (`ip link set {GATEWAY_BRIDGE} name OTHER`)"
    )]
    NameTaken,
    /// The kernel has no bridges.
    #[error(
        "the kernel has no bridges (CONFIG_BRIDGE; `modprobe bridge`), which endpoints need to reach anything beyond their own network"
    )]
    NoBridges,
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// A device could not be created, changed, raised or removed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The path does not exist.
    #[error(
        "there is no network namespace {}: create it (`ip netns add NAME`), or name one that `ip netns` shows, or give a path such as /proc/PID/ns/net", .0.display()
    )]
    NoNamespace(PathBuf),
    /// The path leads to something else.
    #[error(
        "{} is not a network namespace: give the name of one that `ip netns` shows, or a path such as /proc/PID/ns/net", .0.display()
    )]
    NotNamespace(PathBuf),
    /// The path may lead to another namespace tomorrow.
    #[error(
        "{} leads by way of a process, and will lead to another process' namespace when that one has ended: remove the endpoint and create it again, then its namespace itself is held", .0.display()
    )]
    ByProcess(PathBuf),
    /// The namespace could not be given a path of its own.
    #[error(
        "the namespace {} could not be held when its process ends: give it a name (`ip netns attach NAME PID`) and create the endpoint with that", .path.display()
    )]
    NotHeld {
        /// The namespace.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The namespace is the node's own.
    #[error(
        "{} is the node's own network namespace: an endpoint needs one of its own (`ip netns add NAME`)", .0.display()
    )]
    OwnNamespace(PathBuf),
    /// The namespace has a foreign interface with a name that the endpoint's interface needs.
    #[error(
        "the namespace {} already has an interface {interface}: remove or rename it, or choose another namespace", .netns.display()
    )]
    InterfaceExists {
        /// The namespace.
        netns: PathBuf,
        /// eth0, or eth1 where a gateway leg is needed.
        interface: String,
    },
    /// The namespace has an address on the subnet of the endpoint's network, or on one that meets it. Linux would use one
    /// of both interfaces for all of that subnet, and the other would be mute.
    #[error(
        "the namespace {} already has {address} on {interface}, which meets the network's subnet {subnet}: choose another namespace, or a network with another subnet", .netns.display()
    )]
    SubnetInUse {
        /// The namespace.
        netns: PathBuf,
        /// The interface that has the address.
        interface: String,
        /// The address, with the length of its prefix.
        address: String,
        /// The network's subnet.
        subnet: Subnet,
    },
    /// A gateway leg needs the bridge, which [`Netlink::ensure_gateway_bridge`](super::Netlink::ensure_gateway_bridge)
    /// creates.
    #[error("the gateway bridge {GATEWAY_BRIDGE} is gone; the node makes it again, try again then")]
    NoGatewayBridge,
    /// A bridge takes 1,023 ports (`BR_MAX_PORTS`) and has them.
    #[error(
        "the gateway bridge {GATEWAY_BRIDGE} is full: 1,023 namespaces of this node are on it; use another node, or an --internal network"
    )]
    GatewayBridgeFull,
    /// No permission for the namespace.
    #[error("entering the namespace {} is not allowed: this needs CAP_SYS_ADMIN; run the node as root", .0.display())]
    Denied(PathBuf),
    /// Opening or entering it failed otherwise.
    #[error("the namespace {} could not be entered", .path.display())]
    Enter {
        /// The namespace.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A foreign device has the name.
    #[error(
        "a device {0} exists and is not ours: remove it or rename it (`ip link set {0} name OTHER`)"
    )]
    NameTaken(String),
    /// The device was removed meanwhile, as it is when its namespace is removed.
    #[error(
        "the device {0} is gone, most likely together with its endpoint's namespace; create the endpoint again when the namespace is back"
    )]
    Gone(String),
    /// Both sides are set up, but no packet passes yet.
    #[error(
        "the device {0} is up, but the kernel does not run it yet (`ip link` shows its state): the node tries again"
    )]
    NotRunning(String),
    /// The number is too large for a device's name. Ids of endpoints are Raft indexes, for which 48 bits are enough.
    #[error("the endpoint id {0} does not fit a device name (at most 48 bits)")]
    IdTooLarge(u64),
    /// The program could not be attached; the device was removed again.
    #[error("the port was made but could not be prepared, and was removed again")]
    Attach(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
