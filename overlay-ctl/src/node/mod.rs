//! `overlay node run`: puts the parts together, in an order in which a refusal leaves nothing behind.
//!
//! Checks first (root, bpffs, underlay, ports, state folder), then the kernel (programs, then the devices
//! that only exist), then the cluster (bootstrap, join or come back). The node says that it is ready when
//! its kernel holds what the cluster desires.

mod addresses;
mod cluster;
mod ending;
mod error;
mod folders;
mod gate;
#[cfg(test)]
pub(crate) mod golden;
mod home;
mod named;
mod raft_thread;
mod registration;
mod remove;
mod running;
mod serve;
mod start;
mod tasks;

pub use error::StartError;
pub use home::{Home, HomeError, Member, Record};
pub use start::run;
