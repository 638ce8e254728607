//! `overlay node run`: puts the parts together, in an order in which a refusal leaves nothing behind.
//!
//! Checks first (root, bpffs, underlay, ports, state folder), then the kernel (programs, then the devices
//! that only exist), then the cluster (bootstrap, join or come back). The node says that it is ready when
//! its kernel holds what the cluster desires.

mod cluster;
mod gate;
mod home;
mod kernel;
mod members;
mod metrics;
mod monitor;
mod serve;
mod start;

pub use home::{Home, HomeError, Member, Record};
pub use kernel::{HostKernel, SharedDatapath};
pub use start::{StartError, run};

use crate::{netlink::Netlink, proto::internal::CheckEndpointResponse};
use std::path::PathBuf;

/// Whether this node could make an endpoint in the namespace at `netns`.
pub async fn check_endpoint(netns: PathBuf) -> CheckEndpointResponse {
    let path = netns.clone();
    let runtime = tokio::runtime::Handle::current();
    // It enters the namespace, on a thread of its own, and waits for it.
    let checked = tokio::task::spawn_blocking(move || {
        // Whether it needs a gateway leg is not said here; making the leg says what is in its way.
        runtime.block_on(async { Netlink::open().await?.check_netns(&path, false).await })
    })
    .await;
    let problem = match checked {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => crate::error_chain(&error),
        Err(panic) => panic.to_string(),
    };
    CheckEndpointResponse { netns: netns.display().to_string(), problem, busy: Vec::new() }
}
