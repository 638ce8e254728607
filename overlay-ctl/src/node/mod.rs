//! `overlay node run`: puts the parts together, in an order in which a refusal leaves nothing behind.
//!
//! Checks first (root, bpffs, underlay, ports, state folder), then the kernel (programs, then the devices
//! that only exist), then the cluster (bootstrap, join or come back). The node says that it is ready when
//! its kernel holds what the cluster desires.

mod big_tcp;
mod check;
mod cluster;
mod error;
mod gate;
mod gateway;
#[cfg(test)]
pub(crate) mod golden;
mod guard;
mod home;
mod kernel;
mod members;
mod metrics;
mod monitor;
mod remove;
mod running;
mod serve;
mod start;

pub use big_tcp::{BigTcpError, SuperPacketPlan};
pub use check::EndpointCheck;
pub(crate) use check::host_port;
pub use error::StartError;
pub use gateway::SharedPorts;
pub use home::{Home, HomeError, Member, Record};
pub use kernel::{HostKernel, SharedDatapath};
pub use monitor::{Listener, Monitor};
pub use start::run;
