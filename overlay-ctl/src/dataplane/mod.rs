//! The node's side of the data plane: it makes the kernel agree with what the cluster has decided.

pub mod datapath;
pub mod dns;
pub mod gateway;
pub mod host;
pub mod kernel;
pub mod netlink;
pub mod reconcile;
