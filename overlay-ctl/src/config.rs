//! The arguments of `overlay node run`, which are the node's whole configuration, and those of `overlay node reset`.
//!
//! They are not part of `faces::cli`, so that the node does not depend on the command line.

use crate::model::{Encapsulation, Subnet, Voters};
use clap::{Args, ValueEnum};
use std::{
    convert::Infallible,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};
use uuid::Uuid;

/// Least MTU of the underlay: with it, endpoints get the smallest packet that every link must carry
/// for IPv4 (RFC 791, section 3.2).
const MTU_MIN: i64 = Encapsulation::VxlanIpv4.underlay_mtu_min() as i64;
/// The state folder where no other is given.
const STATE_DIR: &str = "/var/lib/overlay";
/// The folder of the pins where no other is given.
const BPFFS: &str = "/sys/fs/bpf/overlay";
/// File in which the kernel shows the host's name, the default of the node's name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The arguments that a node is started with.
#[derive(Clone, Debug, Args)]
pub struct NodeRunArgs {
    /// Name of the node, unique in the cluster [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Device that carries the underlay, or an address of it; its address is the node's VTEP
    /// [default: the device of the default route]
    #[arg(long, value_name = "DEV|IP")]
    pub underlay: Option<Underlay>,
    /// Address that serves the API and the other nodes [default: the underlay address, port 7400]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Address by which the other nodes reach this one, where a router translates it (1:1 NAT): they send VXLAN there, and
    /// its API is there at the port of --listen. Both are of this host: --listen and the address of --underlay
    #[arg(long, value_name = "IP")]
    pub advertise: Option<IpAddr>,
    /// Join the cluster of which the node at this address is a member; without it, a node with an empty
    /// state folder becomes a cluster of its own. A node that comes back needs it only where all nodes have new addresses
    #[arg(long, value_name = "IP:PORT")]
    pub join: Option<SocketAddr>,
    /// Join token; it is sent, but not checked yet
    #[arg(long, requires = "join", env = "OVERLAY_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Folder of the log, the snapshots and the node's identity
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// Unix socket of the local API: the command line's own --socket.
    #[arg(skip)]
    pub socket: PathBuf,
    /// Folder of a mounted bpffs for maps and links; each node needs its own
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,
    /// Bytes of the largest packet that the underlay carries, VXLAN's headers included; endpoints get 50
    /// less [default: the least MTU of the underlay device and of the routes to the other nodes; the node
    /// follows their changes]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(MTU_MIN..))]
    pub mtu: Option<u16>,
    /// Whether super-packets may be above 64 KiB ("BIG TCP") where the underlay device takes such. auto: those of
    /// IPv4 that are sent, where the device is a network card that is known to cut them itself; else none, since a
    /// veth, a bridge, a tap or a virtio card hands them on whole to who may have to cut them in software
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub big_tcp: BigTcp,
    /// UDP port of VXLAN, the same on every node
    #[arg(long, value_name = "PORT", default_value_t = overlay_common::VXLAN_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,
    /// Copy all of an endpoint's type of service to the outer header. Without it only ECN is copied (RFC 6040), since
    /// an endpoint could choose the queues of the underlay by DSCP
    #[arg(long)]
    pub copy_dscp: bool,
    /// Broadcast and multicast frames a second that one endpoint may send on a network with --multicast; a tenth of it
    /// may come at once. What is more is dropped and counted (`storm`). 0: no limit
    #[arg(long, value_name = "FRAMES", default_value_t = 10_000)]
    pub storm_limit: u32,
    /// Place where VXLAN from unknown addresses is dropped before the network stack sees it. off: the later programs
    /// drop it. auto: in the underlay device's driver if that costs no offload (GRO in hardware, LRO,
    /// segmentation); a driver may reset the link when the program comes and when it goes, and may refuse a
    /// larger MTU meanwhile
    #[arg(long, value_enum, value_name = "MODE", default_value_t)]
    pub xdp: Xdp,
    /// Seconds for which every node must have said that it speaks the next version of the cluster before this node, if it
    /// leads, raises the cluster's version. Until then each node can be put back to the program that it ran before
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub raise_version_after: u32,
    /// Seconds for which neither a controller nor the VTEP of a node may be silent before the node counts as lost: its
    /// endpoints then leave the names and the tables of all others until it is heard again. The same on every node
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=86_400))]
    pub lease: u32,
    /// How many nodes of a new cluster are to vote: 1, 3 or 5. Only the first node says so; `overlay cluster voters` changes
    /// it later [default: 3]
    #[arg(long, value_name = "1|3|5", conflicts_with = "join")]
    pub voters: Option<Voters>,
    /// Seconds after which an agent takes the place of a voter that is down, or does not take what is written, if this node
    /// leads. The voter becomes an agent when it is back. 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub replace_voter_after: u32,
    /// Subnet of the gateway bridge, through which endpoints reach the outside and published ports reach
    /// endpoints [default: 172.18.0.0/16, or the next of 172.18 to 172.31 that is free on the host]
    #[arg(long, value_name = "CIDR")]
    pub gateway_subnet: Option<Subnet>,
    /// File that names the resolvers for names that no endpoint has
    #[arg(long, value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Address that serves metrics for Prometheus; `off` = none [default: 127.0.0.1:7401, which only the
    /// host itself reaches]
    #[arg(long, value_name = "IP:PORT|off")]
    pub metrics: Option<Metrics>,
}

impl NodeRunArgs {
    /// The node's name: the given one, else the host's.
    ///
    /// # Errors
    /// The host's name is needed and cannot be read.
    pub fn node_name(&self) -> io::Result<String> {
        name_or_host_s(self.name.as_ref())
    }
}

fn name_or_host_s(name: Option<&String>) -> io::Result<String> {
    match name {
        Some(name) => Ok(name.clone()),
        None => Ok(std::fs::read_to_string(HOSTNAME)?.trim_end().to_owned()),
    }
}

/// The arguments with which a node that has ended is reset.
#[derive(Clone, Debug, Args)]
pub struct NodeResetArgs {
    /// The node's state folder
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// The node's socket, where the state folder does not say it: the command line's own --socket.
    #[arg(skip)]
    pub socket: PathBuf,
    /// Name of the node, where the state folder does not say it [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Folder of the node's maps and links, where the state folder does not say it (in `run.json`)
    #[arg(long, value_name = "DIR", default_value = BPFFS)]
    pub bpffs: PathBuf,
    /// UDP port of VXLAN, where the state folder does not say it
    #[arg(long, value_name = "PORT", default_value_t = overlay_common::VXLAN_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,
    /// Remove endpoints' devices also where the state folder holds no node: that of their node is lost
    #[arg(long)]
    pub force: bool,
}

impl NodeResetArgs {
    /// As [`NodeRunArgs::node_name`].
    ///
    /// # Errors
    /// The host's name is needed and cannot be read.
    pub fn node_name(&self) -> io::Result<String> {
        name_or_host_s(self.name.as_ref())
    }
}

/// The arguments with which the first node of a cluster is made from a backup.
#[derive(Clone, Debug, Args)]
pub struct ClusterRestoreArgs {
    /// The backup
    pub file: PathBuf,
    /// State folder that the node gets. It must be empty, or not be there
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// Name of the node in the backup that this host becomes [default: the host's name]
    #[arg(long)]
    pub name: Option<String>,
    /// Refuse a backup of another cluster than this one
    #[arg(long, value_name = "UUID")]
    pub cluster: Option<Uuid>,
}

impl ClusterRestoreArgs {
    /// As [`NodeRunArgs::node_name`].
    ///
    /// # Errors
    /// The host's name is needed and cannot be read.
    pub fn node_name(&self) -> io::Result<String> {
        name_or_host_s(self.name.as_ref())
    }
}

/// The arguments with which a voter that has ended becomes the only one of its cluster.
#[derive(Clone, Debug, Args)]
pub struct ClusterRecoverArgs {
    /// The voter's state folder
    #[arg(long, value_name = "DIR", default_value = STATE_DIR)]
    pub state_dir: PathBuf,
    /// Recover also where a node that answers knows a later revision than the log: what came after the log's end is lost
    #[arg(long)]
    pub accept_loss: bool,
}

/// The way `guard_underlay` is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Xdp {
    /// Native if that costs no offload, else off.
    Auto,
    /// In the driver, whatever that costs.
    Native,
    /// In the stack: works on any device, and costs time for each packet that comes in.
    Generic,
    /// Not at all.
    #[default]
    Off,
}

/// The address where metrics are served, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for Metrics {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| "neither an IP:PORT nor `off`"),
        }
    }
}

/// Who gets super-packets above 64 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BigTcp {
    /// IPv4, sent, where the underlay device is known to cut them itself.
    #[default]
    Auto,
    /// IPv4 and IPv6, whatever the underlay device is.
    On,
    /// IPv4, whatever the underlay device is.
    Ipv4,
    /// Nobody: the underlay device is left alone.
    Off,
}

/// The name of the underlay, in one of two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// By its device.
    Device(String),
    /// By an address of its device, which is then the VTEP.
    Address(IpAddr),
}

impl FromStr for Underlay {
    type Err = Infallible;

    /// A text that parses as an address is one. Any other text is a device, which the node looks for.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Device(text.to_owned()), Self::Address))
    }
}

impl fmt::Display for Underlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}
