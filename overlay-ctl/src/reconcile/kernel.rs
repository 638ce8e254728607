use super::{TableChange, Tables};
use crate::model::EndpointId;
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::Ipv4Addr,
    path::PathBuf,
};

/// A failure that is not one endpoint's own.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct KernelError {
    /// What was being done.
    pub what: &'static str,
    /// What the kernel said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl KernelError {
    /// Wraps what the kernel said.
    pub fn new(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { what, source: source.into() }
    }
}

/// Why a port was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum PortFailure {
    /// The endpoint's own trouble (its namespace is gone, say): it is shown as down.
    #[error("{0}")]
    Endpoint(String),
    /// Anything else: the pass fails.
    #[error(transparent)]
    Kernel(KernelError),
}

/// The veth pair that an endpoint needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSpec {
    /// Whose.
    pub endpoint: EndpointId,
    /// Absolute path of its namespace.
    pub netns: PathBuf,
    /// MAC of the leg inside.
    pub mac: [u8; 6],
    /// Address of the leg inside.
    pub address: Ipv4Addr,
    /// Prefix length of the network's subnet.
    pub prefix: u8,
    /// Bytes, both sides.
    pub mtu: u32,
}

/// A veth pair of ours, as found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPort {
    /// Whose, as its mark says.
    pub endpoint: EndpointId,
    /// Host side.
    pub ifname: String,
    /// Host side.
    pub ifindex: u32,
    /// Bytes.
    pub mtu: u32,
    /// Both sides are up.
    pub up: bool,
    /// How it differs from what its endpoint needs, if it does: it must be built anew then. Addresses
    /// inside are the endpoint's own to change; the data path enforces them.
    pub fault: Option<String>,
}

/// How a VTEP is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Device.
    pub ifindex: u32,
    /// Outer destination MAC.
    pub mac: [u8; 6],
    /// Outer source MAC.
    pub source_mac: [u8; 6],
}

/// What the reconciler asks of the kernel. Real: [`crate::node`]; a fake lets the reconciler be
/// tested without root.
pub trait Kernel: Send {
    /// Reads the maps.
    fn tables(&mut self) -> impl Future<Output = Result<Tables, KernelError>> + Send;
    /// Writes one map entry.
    fn write(
        &mut self,
        change: &TableChange,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Lists the ports of ours, each held against what `wanted` says of its endpoint.
    fn ports(
        &mut self,
        wanted: &BTreeMap<EndpointId, PortSpec>,
    ) -> impl Future<Output = Result<Vec<ObservedPort>, KernelError>> + Send;
    /// Makes a port with its program attached, down.
    fn create_port(
        &mut self,
        spec: &PortSpec,
    ) -> impl Future<Output = Result<ObservedPort, PortFailure>> + Send;
    /// Sets it up: from here on, packets flow.
    fn raise_port(
        &mut self,
        port: &ObservedPort,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Makes sure of an existing port's program.
    fn ensure_attached(
        &mut self,
        port: &ObservedPort,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// Removes a port, its program's link included.
    fn delete_port(
        &mut self,
        port: &ObservedPort,
    ) -> impl Future<Output = Result<(), KernelError>> + Send;
    /// What is done in a slower way than it could be, in words.
    fn fallbacks(&self) -> Vec<String> {
        Vec::new()
    }
    /// How each VTEP is reached; those not resolved are left out (and their resolution begins).
    fn next_hops(
        &mut self,
        vteps: &BTreeSet<Ipv4Addr>,
    ) -> impl Future<Output = Result<BTreeMap<Ipv4Addr, NextHop>, KernelError>> + Send;
}
