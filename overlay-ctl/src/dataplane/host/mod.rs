//! The host that keeps the kernel contract: it carries out what reconcile asks, by the doors to the kernel.

pub(crate) mod big_tcp;
mod check;
pub(crate) mod gateway;
mod guard;
mod kernel;
mod monitor;

pub use big_tcp::{BigTcpError, SuperPacketPlan};
pub(crate) use check::host_port;
pub use check::{EndpointCheck, SharedNamespaces};
pub use gateway::{HostGateway, SharedPorts};
pub use kernel::{HostKernel, SharedDatapath};
pub use monitor::{Listener, Monitor};
