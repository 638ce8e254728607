//! A node, as its faces show it.

use crate::{
    control::{controller::Controller, state::View},
    dataplane::{
        datapath::Whereabouts,
        host::{Monitor, Questions, SharedDatapath},
        kernel::LocalStatus,
    },
    model::{NodeName, Subnet, Vtep},
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc};
use tokio::sync::watch;

/// A node, as its faces show it: what the cluster can be asked through it, and what it knows of itself.
pub struct ServedNode {
    /// The cluster, as this node can ask it.
    pub controller: Controller,
    /// The node's name.
    pub name: NodeName,
    /// What the node knows of the cluster; `None` before it knows anything.
    pub view: watch::Receiver<Option<Arc<View>>>,
    /// What its kernel holds.
    pub status: watch::Receiver<LocalStatus>,
    /// Its maps and programs.
    pub datapath: SharedDatapath,
    /// What became of the questions that its endpoints asked.
    pub questions: Questions,
    /// Its packets as they are dropped or sampled. The kernel reports them only while somebody listens.
    pub monitor: Monitor,
    /// Its maps, to look up whose packet an event is about.
    pub whereabouts: Whereabouts,
    /// What does not change about its data path.
    pub info: DatapathInfo,
    /// Its state folder.
    pub state_dir: PathBuf,
    /// Where its metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
}

impl ServedNode {
    /// The node's own address on the underlay, as its host has it.
    #[must_use]
    pub fn vtep(&self) -> Vtep {
        self.status.borrow().vtep.unwrap_or(self.info.vtep)
    }
}

/// What does not change about a node's data path while the node runs.
#[derive(Clone, Debug)]
pub struct DatapathInfo {
    /// Name of the underlay device when the node started.
    pub underlay: String,
    /// The node's address on it when the node started.
    pub vtep: Vtep,
    /// The address to which other nodes send, if it was given one.
    pub advertised: Option<Vtep>,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// Name of the VXLAN device that only exists.
    pub gro_device: String,
    /// Folder of the pins.
    pub bpffs: String,
    /// The subnet of the gateway bridge.
    pub gateway: Subnet,
}
