//! The control plane: what the cluster has decided, how it is replicated, and how it reaches each node.

pub mod backup;
pub mod consensus;
pub mod controller;
pub mod ipam;
pub mod peers;
#[cfg(test)]
mod sim;
pub mod state;
pub mod voter;
pub mod watch;
