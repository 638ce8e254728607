//! Why a node does not start or does not go on, in words for the operator.

use super::{HomeError, cluster::ClusterError};
use crate::{
    dataplane::{
        datapath::DatapathError,
        gateway::{GatewayError, SubnetError},
        netlink::{GroError, NetlinkError, UnderlayError},
    },
    faces::api::ServeError,
    model::Invalid,
};
use overlay_common::VXLAN_OVERHEAD;
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Smallest underlay MTU: an endpoint must be able to send the smallest packet that IPv4 asks every
/// link to carry (RFC 791, section 3.2).
pub(crate) const UNDERLAY_MTU_MIN: u32 = 68 + VXLAN_OVERHEAD as u32;

/// Why a node did not start, or ended. One that never was a member leaves nothing but its state folder.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Not root.
    #[error(
        "a node must run as root: it loads BPF programs and moves devices into namespaces; try again with sudo"
    )]
    NotRoot,
    /// The name.
    #[error(transparent)]
    Name(#[from] Invalid),
    /// The host has no name.
    #[error("the host's name can't be read: give one with --name")]
    HostName(#[source] io::Error),
    /// A port.
    #[error(
        "the address {address} is in use by another program, or another node: choose another with {flag}"
    )]
    PortTaken {
        /// The address.
        address: SocketAddr,
        /// What names it.
        flag: &'static str,
    },
    /// An address.
    #[error("can't listen on {address}: give an address of this host with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What names it.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Peers can't reach a wildcard.
    #[error("--listen {0} is no address that other nodes reach: give one of this host")]
    Unspecified(SocketAddr),
    /// A wildcard is also the addresses by which endpoints reach the host.
    #[error("--metrics {0} would be served to endpoints too: give one address of this host")]
    MetricsUnspecified(SocketAddr),
    /// The socket.
    #[error("another node answers on the socket {}: give this one its own with --socket", .0.display())]
    SocketTaken(PathBuf),
    /// Something else is there.
    #[error("{} exists and is not a socket: choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket.
    #[error("can't make the socket {}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The underlay is IPv6.
    #[error("the underlay address {0} is IPv6: only IPv4 underlays are carried yet")]
    Ipv6Underlay(IpAddr),
    /// The underlay's MTU.
    #[error(
        "the underlay device {device} has an MTU of {mtu}: at least {UNDERLAY_MTU_MIN} is needed"
    )]
    UnderlayMtu {
        /// The device.
        device: String,
        /// Bytes.
        mtu: u32,
    },
    /// `--mtu`.
    #[error(
        "--mtu {asked} is more than the underlay device {device} takes, which is {mtu}: raise it (`ip link set {device} mtu {asked}`), or ask for less"
    )]
    MtuTooLarge {
        /// What was asked for.
        asked: u16,
        /// The device.
        device: String,
        /// Bytes that it takes.
        mtu: u32,
    },
    /// The underlay's super-packets.
    #[error(transparent)]
    BigTcp(#[from] crate::dataplane::host::BigTcpError),
    /// rtnetlink.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The underlay device.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    /// The VXLAN port.
    #[error(transparent)]
    Gro(#[from] GroError),
    /// The gateway bridge.
    #[error(transparent)]
    Bridge(#[from] crate::dataplane::netlink::BridgeError),
    /// The gateway bridge's subnet.
    #[error(transparent)]
    GatewaySubnet(#[from] SubnetError),
    /// nftables.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// BPF.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The state folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A node with another folder lived here, and its endpoints still work.
    #[error("{ports} endpoints of an earlier node still have their ports here, but the state folder {} is new: start with that node's --state-dir; or, to give its endpoints up, remove every device `ip link` shows as ovp…", .state_dir.display())]
    PortsStand {
        /// How many.
        ports: usize,
        /// The folder that was given.
        state_dir: PathBuf,
    },
    /// Another node is here.
    #[error("another node runs in this network namespace: stop that one first")]
    NodeRuns,
    /// Another node has the pins.
    #[error("the folder {} is another node's: give this one its own with --bpffs", .0.display())]
    PinsTaken(PathBuf),
    /// The folder of the pins.
    #[error("can't use the folder {}", .path.display())]
    Pins {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// rtnetlink.
    #[error(transparent)]
    Port(#[from] crate::dataplane::netlink::PortError),
    /// The thread of Raft's messages.
    #[error("the thread that carries Raft's messages can't be started")]
    RaftThread(#[source] io::Error),
    /// A task ended that must run for as long as the node.
    #[error(
        "the node's task `{name}` ended: {why}; start the node again, and report this with its log"
    )]
    Task {
        /// The task.
        name: &'static str,
        /// How it ended.
        why: String,
    },
    /// Signals.
    #[error("signals can't be received")]
    Signals(#[source] io::Error),
    /// The API.
    #[error(transparent)]
    Serve(#[from] ServeError),
}
