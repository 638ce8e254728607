//! The host, which keeps the kernel contract: it carries out what the reconciler asks, by the doors to the kernel.

pub(crate) mod big_tcp;
mod check;
mod datapath;
mod devices;
mod forwarding;
mod gateway;
mod guard;
mod kernel;
mod maps;
mod merge_pair;
pub(crate) mod merging;
mod monitor;
mod neighbours;
mod outside;
mod own_address;
mod resolve;
mod surroundings;

pub use big_tcp::{BigTcpError, SuperPacketPlan};
pub(crate) use check::host_port;
pub use check::{EndpointCheck, SharedNamespaces};
pub use datapath::SharedDatapath;
pub use devices::HostDevices;
#[cfg(test)]
pub(crate) use forwarding::golden as forwarding_golden;
pub use forwarding::{ForwardingError, ForwardingKeeper, restore as restore_forwarding};
pub use gateway::{HostGateway, SharedPorts};
pub use kernel::HostKernel;
pub use maps::HostMaps;
pub use merging::{MergeKeeper, MergingError};
pub use monitor::{Listener, Monitor};
pub use outside::HostOutside;
pub use own_address::OwnAddress;
pub use resolve::{HostResolve, Questions};

/// The files that the host keeps in a state folder: what it changed of the machine, with what was there before.
pub(crate) const FILES: [&str; 3] = [big_tcp::FILE, merging::FILE, forwarding::FILE];
