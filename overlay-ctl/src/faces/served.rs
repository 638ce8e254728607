//! A node, as its faces show it.

use super::{disk::StateDisk, shared::Shared};
use crate::{
    control::{controller::Controller, state::View},
    dataplane::{
        datapath::Whereabouts,
        host::{Monitor, Questions, SharedDatapath},
        kernel::LocalStatus,
    },
    model::{NodeName, Subnet, Vtep},
    proto::v1::MembersResponse,
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};
use tokio::sync::watch;

/// A node, as its faces show it: what the cluster can be asked through it, and what it knows of itself.
pub struct ServedNode {
    /// The cluster, as this node can ask it.
    pub controller: Controller,
    /// The node's name.
    pub name: NodeName,
    /// What the node knows of the cluster; `None` before it knows anything.
    pub view: watch::Receiver<Option<Arc<View>>>,
    /// What its kernel holds; without a data plane, the reason why there is none.
    pub status: watch::Receiver<LocalStatus>,
    /// Its data plane. It is set once, as soon as the host lets the node bring it up.
    pub data_plane: Arc<OnceLock<ServedDataPlane>>,
    /// VXLAN's UDP port.
    pub vxlan_port: u16,
    /// Its state folder.
    pub state_dir: PathBuf,
    /// The disk of that folder.
    pub(crate) disk: StateDisk,
    /// How the voters are, by what they say.
    pub(crate) surveys: Shared<MembersResponse>,
    /// Where its metrics are served, if they are.
    pub metrics: Option<SocketAddr>,
}

impl ServedNode {
    /// The node's own address on the underlay, as its host has it; `None` before its data plane is up.
    #[must_use]
    pub fn vtep(&self) -> Option<Vtep> {
        let at_start = || self.data_plane.get().map(|plane| plane.info.vtep);
        self.status.borrow().vtep.or_else(at_start)
    }

    /// Why there is no data plane, in words. Means something only while there is none.
    #[must_use]
    pub fn absence(&self) -> String {
        self.status.borrow().error.clone().unwrap_or_default()
    }
}

/// The data plane of a node, as its faces show it.
pub struct ServedDataPlane {
    /// Its maps and programs.
    pub datapath: SharedDatapath,
    /// What became of the questions that its endpoints asked.
    pub questions: Questions,
    /// Its packets as they are dropped or sampled. The kernel reports them only while somebody listens.
    pub monitor: Monitor,
    /// Its maps, to look up whose packet an event is about.
    pub whereabouts: Whereabouts,
    /// What does not change about it.
    pub info: DatapathInfo,
}

/// What does not change about a node's data path once it is up.
#[derive(Clone, Debug)]
pub struct DatapathInfo {
    /// Name of the underlay device when the data path was brought up.
    pub underlay: String,
    /// The node's address on it at that time.
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
