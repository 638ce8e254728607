//! What can go wrong, in words for the person who reads it.

use std::{io, net::Ipv4Addr, path::PathBuf};

use nix::errno::Errno;
use overlay_common::{VNI_MAX, VNI_RESERVED};

use super::GATEWAY_BRIDGE;

/// rtnetlink itself failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("no rtnetlink socket could be opened")]
    Open(#[source] io::Error),
    /// EPERM or EACCES.
    #[error(
        "the kernel does not allow us to {action}: this needs CAP_NET_ADMIN; run the node as root"
    )]
    Denied {
        /// What was asked, as "set the link up".
        action: String,
    },
    /// Any other answer of the kernel.
    #[error("the kernel refused to {action}")]
    Refused {
        /// What was asked.
        action: String,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// The socket is gone, or an answer made no sense.
    #[error("the rtnetlink socket broke while we wanted to {action}; try again")]
    Closed {
        /// What was asked.
        action: String,
        /// The library's word.
        #[source]
        source: rtnetlink::Error,
    },
    /// A device's sysctl can be neither read nor written.
    #[error("the sysctl {} could not be set: /proc/sys must be there and writable (in a container: `--privileged`)", .path.display())]
    Sysctl {
        /// Its file.
        path: PathBuf,
        /// Why.
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
            Self::Open(_) | Self::Denied { .. } | Self::Closed { .. } | Self::Sysctl { .. } => None,
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

/// A device's offloads are not known.
#[derive(Debug, thiserror::Error)]
pub enum OffloadsError {
    /// No socket, or the kernel has no family "ethtool".
    #[error("no ethtool socket could be opened")]
    Open(#[source] io::Error),
    /// The kernel's or the library's word.
    #[error("the kernel does not tell the device's offloads: {0}")]
    Refused(String),
    /// An answer without offloads.
    #[error("the kernel told of no offload at all")]
    Nothing,
}

/// No underlay device.
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
    /// There is nothing to choose from.
    #[error(
        "this host has no default route and no device that is up and has an IPv4 address: configure one, or name it with `--underlay`"
    )]
    None,
    /// There is more than one, and guessing wrong would be worse than asking.
    #[error("several devices could be the underlay ({}): choose one with `--underlay`", .candidates.join(", "))]
    Ambiguous {
        /// As "eth0 (10.0.0.1)".
        candidates: Vec<String>,
    },
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The device that makes GRO work could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GroError {
    /// Somebody else listens on the port.
    #[error(
        "UDP port {port} is taken by {holder}: stop it, or give every node another port with `--vxlan-port`"
    )]
    PortTaken {
        /// The VXLAN port.
        port: u16,
        /// "the VXLAN device docker1", "another program (see `ss -lunp`)".
        holder: String,
    },
    /// A VXLAN device of somebody else has the VNI that we keep for ourselves.
    #[error(
        "the VXLAN device {device} has the VNI {VNI_RESERVED} (the greatest, {VNI_MAX:#x}) on UDP port {port}, which the overlay keeps for itself: remove it, or choose another port with `--vxlan-port`"
    )]
    VniTaken {
        /// Whose it is.
        device: String,
        /// The VXLAN port.
        port: u16,
    },
    /// A device that is not ours has the name.
    #[error(
        "a device {0} exists and is not ours: remove it or rename it (`ip link set {0} name OTHER`)"
    )]
    NameTaken(String),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// The gateway bridge could not be made, repaired or removed.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A device that is not ours has the name.
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

/// A port or a gateway leg could not be made, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// There is no such path.
    #[error(
        "there is no network namespace {}: create it (`ip netns add NAME`), or name one that `ip netns` shows, or give a path such as /proc/PID/ns/net", .0.display()
    )]
    NoNamespace(PathBuf),
    /// The path is something else.
    #[error(
        "{} is not a network namespace: give the name of one that `ip netns` shows, or a path such as /proc/PID/ns/net", .0.display()
    )]
    NotNamespace(PathBuf),
    /// It may lead to another namespace tomorrow.
    #[error(
        "{} leads by way of a process, and will lead to another process' namespace when that one has ended: remove the endpoint and create it again, then its namespace itself is held", .0.display()
    )]
    ByProcess(PathBuf),
    /// It could not be given a path of its own.
    #[error(
        "the namespace {} could not be held when its process ends: give it a name (`ip netns attach NAME PID`) and create the endpoint with that", .path.display()
    )]
    NotHeld {
        /// The namespace.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is the node's own.
    #[error(
        "{} is the node's own network namespace: an endpoint needs one of its own (`ip netns add NAME`)", .0.display()
    )]
    OwnNamespace(PathBuf),
    /// The namespace has an interface of a name that the endpoint's own needs, and it is not ours.
    #[error(
        "the namespace {} already has an interface {interface}: remove or rename it, or choose another namespace", .netns.display()
    )]
    InterfaceExists {
        /// The namespace.
        netns: PathBuf,
        /// eth0, or eth1 where the way to the gateway is to be.
        interface: String,
    },
    /// No gateway leg without it; [`Netlink::ensure_gateway_bridge`](super::Netlink::ensure_gateway_bridge)
    /// makes it.
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
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device that is not ours has the port's name.
    #[error(
        "a device {0} exists and is not ours: remove it or rename it (`ip link set {0} name OTHER`)"
    )]
    NameTaken(String),
    /// The device vanished while it was worked on: its namespace went.
    #[error(
        "the device {0} is gone, most likely together with its endpoint's namespace; create the endpoint again when the namespace is back"
    )]
    Gone(String),
    /// The kernel has set both sides up and lets no packet pass.
    #[error(
        "the device {0} is up, but the kernel does not run it yet (`ip link` shows its state): the node tries again"
    )]
    NotRunning(String),
    /// Ids are Raft indexes; one past 48 bits would not fit a device's name.
    #[error("the endpoint id {0} does not fit a device name (at most 48 bits)")]
    IdTooLarge(u64),
    /// What the caller does between creation and activation failed; the port was removed again.
    #[error("the port was made but could not be prepared, and was removed again")]
    Attach(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
