//! Why a node does not start or does not go on, in sentences for the operator.

use super::HomeError;
use crate::{
    control::{
        consensus::{FatalError, OpenError},
        watch::Unreadable,
    },
    dataplane::{
        datapath::DatapathError,
        gateway::{GatewayError, SubnetError},
        netlink::{GroError, NetlinkError, UnderlayError},
    },
    faces::api::ServeError,
    model::{Encapsulation, Generation, Invalid, RaftId},
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// Smallest underlay MTU: an endpoint must be able to send the smallest packet that IPv4 asks every
/// link to carry (RFC 791, section 3.2).
pub(crate) const UNDERLAY_MTU_MIN: u32 = Encapsulation::VxlanIpv4.underlay_mtu_min();

/// Why a node did not become a member.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The state folder can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The log in the state folder can't be used.
    #[error("the state folder can't be used")]
    Log(#[from] OpenError),
    /// The state folder has no room for a log.
    #[error(
        "the state folder {} has {} MiB free, {} are needed: make room, or give --state-dir another folder",
        .path.display(), .free >> 20, .needed >> 20
    )]
    NoRoom {
        /// The folder.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free.
        needed: u64,
    },
    /// No node answers.
    #[error(
        "no node answers at {join}: is it running, is the address the one it listens on, and does its host's firewall let TCP {} in ({why})", .join.port()
    )]
    NobodyThere {
        /// The address that was asked.
        join: SocketAddr,
        /// What went wrong.
        why: String,
    },
    /// The cluster refuses the node.
    #[error("the cluster at {join} does not take this node in: {why}")]
    Refused {
        /// The address that was asked.
        join: SocketAddr,
        /// The reason that it gave.
        why: String,
    },
    /// The cluster has removed the node.
    #[error("this node was removed from the cluster")]
    Removed,
    /// The log of the cluster's only voter is lost: nobody else has it.
    #[error(
        "the log in the state folder {} is lost ({why}), and no other voter is known that has it: put the folder back as it was last, or restore a backup with `overlay cluster restore`; `overlay cluster recover` on another node that has the log goes on from there, and `overlay node reset` gives the cluster up",
        .path.display()
    )]
    LogLost {
        /// The folder.
        path: PathBuf,
        /// What is wrong with the log.
        why: String,
    },
    /// The log is that of a life that is over.
    #[error(
        "this node runs as member {life}, and is member {now} by now: its log must not vote any more"
    )]
    LifeOver {
        /// The life of the log.
        life: RaftId,
        /// The node's present life.
        now: RaftId,
    },
    /// The cluster wants the node to hold the log under a Raft id that it had, and whose log it has let go of.
    #[error(
        "this node is to vote as member {life}, and has let go of the log of that member: take its seat and give it another with `overlay node demote` and `promote`"
    )]
    LifeUsed {
        /// The Raft id.
        life: RaftId,
    },
    /// The cluster gives a node whose log is lost no other life.
    #[error(
        "the log of this node is lost, and it can't come back as another member: {why}; remove the node with `overlay node rm` and let it join as a new one"
    )]
    NoOtherLife {
        /// What is wrong with the log, and why the cluster refuses.
        why: String,
    },
    /// Another process runs as this node.
    #[error("{0}")]
    RunsElsewhere(String),
    /// The answer can't be read.
    #[error(
        "the node at {join} answered what this version can't read: {what}; all nodes must run the same version"
    )]
    Malformed {
        /// The address that was asked.
        join: SocketAddr,
        /// What can't be read.
        what: String,
    },
    /// The cluster has gone on without this node's log.
    #[error(
        "this node's log is of generation {ours} of the cluster, and a node{} is of generation {theirs}: the cluster was restored from a backup, or recovered, without this log, which is of no use any more; what the kernel holds stays",
        .at.map(|at| format!(" at {at}")).unwrap_or_default()
    )]
    OlderGeneration {
        /// That of the log.
        ours: Generation,
        /// The newer one.
        theirs: Generation,
        /// Where a node of the newer one was met, if that is known.
        at: Option<SocketAddr>,
    },
    /// The cluster has written what this version can't read.
    #[error(transparent)]
    Unreadable(FatalError),
    /// The state of this node is another one than that of a majority.
    #[error(transparent)]
    Differs(FatalError),
    /// Consensus did not start, or ended.
    #[error("the log can't be used")]
    Consensus(#[source] FatalError),
}

impl From<FatalError> for ClusterError {
    fn from(error: FatalError) -> Self {
        match error {
            // The text is the same now and at every later start.
            FatalError::Unfit(error) => Self::Log(error),
            FatalError::Unreadable { .. } | FatalError::Newer { .. } => Self::Unreadable(error),
            FatalError::Differs { .. } => Self::Differs(error),
            error => Self::Consensus(error),
        }
    }
}

/// Why a node did not start, or ended. A node that never was a member leaves nothing but its state folder.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process does not run as root.
    #[error(
        "a node must run as root: it loads BPF programs and moves devices into namespaces; try again with sudo"
    )]
    NotRoot,
    /// The node's name is not valid.
    #[error(transparent)]
    Name(#[from] Invalid),
    /// The host's name can't be read.
    #[error("the host's name can't be read: give one with --name")]
    HostName(#[source] io::Error),
    /// A port is taken.
    #[error(
        "the address {address} is in use by another program, or another node: choose another with {flag}"
    )]
    PortTaken {
        /// The address.
        address: SocketAddr,
        /// The option that sets it.
        flag: &'static str,
    },
    /// An address can't be listened on.
    #[error("can't listen on {address}: give an address of this host with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The option that sets it.
        flag: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// `--listen` is a wildcard, which peers can't reach.
    #[error("--listen {0} is no address that other nodes reach: give one of this host")]
    Unspecified(SocketAddr),
    /// `--metrics` is a wildcard, which includes the addresses by which endpoints reach the host.
    #[error("--metrics {0} would be served to endpoints too: give one address of this host")]
    MetricsUnspecified(SocketAddr),
    /// Another node has the socket.
    #[error("another node answers on the socket {}: give this one its own with --socket", .0.display())]
    SocketTaken(PathBuf),
    /// The socket's path names something else.
    #[error("{} exists and is not a socket: choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The socket can't be made.
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
    /// `--advertise` names no address that others could reach.
    #[error("--advertise {address}: {why}")]
    Advertise {
        /// The address.
        address: IpAddr,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// The underlay's MTU is too small.
    #[error(
        "the underlay device {device} has an MTU of {mtu}: at least {UNDERLAY_MTU_MIN} is needed"
    )]
    UnderlayMtu {
        /// The device.
        device: String,
        /// Bytes.
        mtu: u32,
    },
    /// `--mtu` is larger than the underlay's MTU.
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
    /// The underlay's super-packets can't be changed.
    #[error(transparent)]
    BigTcp(#[from] crate::dataplane::host::BigTcpError),
    /// The underlay's offloads can't be given back.
    #[error(transparent)]
    Merging(#[from] crate::dataplane::host::MergingError),
    /// Forwarding can't be switched on or off.
    #[error(transparent)]
    Forwarding(#[from] crate::dataplane::host::ForwardingError),
    /// rtnetlink failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// No underlay device fits.
    #[error(transparent)]
    Underlay(#[from] UnderlayError),
    /// The device of the VXLAN port can't be made.
    #[error(transparent)]
    Gro(#[from] GroError),
    /// The gateway bridge can't be made.
    #[error(transparent)]
    Bridge(#[from] crate::dataplane::netlink::BridgeError),
    /// There is no subnet for the gateway bridge.
    #[error(transparent)]
    GatewaySubnet(#[from] SubnetError),
    /// nftables failed.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    /// The BPF programs can't be loaded.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The state folder can't be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The node can't be a member of its cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A voter sent what this version can't read.
    #[error(transparent)]
    Watch(#[from] Unreadable),
    /// Endpoints of a node with another state folder still work here.
    #[error("{ports} endpoints of an earlier node still have their ports here, but the state folder {} is new: start with that node's --state-dir; or, to give its endpoints up, run `overlay node reset` with it, and with --force if it is lost", .state_dir.display())]
    PortsStand {
        /// Number of their ports.
        ports: usize,
        /// The folder that was given.
        state_dir: PathBuf,
    },
    /// Another node runs in this network namespace.
    #[error("another node runs in this network namespace: stop that one first")]
    NodeRuns,
    /// Another node uses the folder of the pins.
    #[error("another node uses the folder {}: give this one its own with --bpffs", .0.display())]
    PinsTaken(PathBuf),
    /// A folder of pins or of locks can't be used.
    #[error("can't use the folder {}", .path.display())]
    Pins {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A port can't be removed.
    #[error(transparent)]
    Port(#[from] crate::dataplane::netlink::DeviceError),
    /// The thread of Raft's messages can't be started.
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
    /// The handler of signals can't be set up.
    #[error("signals can't be received")]
    Signals(#[source] io::Error),
    /// The API can't be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
}
