//! The netns lab and what the scenarios share.
//!
//! [`lab`] builds hosts, routers and containers out of network namespaces and runs real nodes on
//! them. The scenarios are in `tests/`; xtask's demo and benchmark stand on the same lab.

pub mod lab;
