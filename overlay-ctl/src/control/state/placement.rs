//! Where a new endpoint is to be, and which ports are wanted for it.

use crate::model::{EndpointAddrs, EndpointPort, Mac, NodeName, Publish, Transport, Vtep};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, num::NonZeroU16, path::PathBuf};

/// The place of a new endpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Placement {
    /// In a namespace of a node.
    Node {
        /// The node.
        node: NodeName,
        /// Absolute path of the namespace there.
        netns: PathBuf,
        /// Without an IPv4 address: the next free one.
        #[serde(default, rename = "address")]
        addresses: EndpointAddrs,
    },
    /// Behind a VTEP that is no node of this cluster.
    External {
        /// The underlay address of the VTEP.
        vtep: Vtep,
        /// Must be free on the network.
        mac: Mac,
        /// Each must be free on the network.
        #[serde(rename = "address")]
        addresses: EndpointAddrs,
    },
}

/// The ports that a new endpoint exposes and publishes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortsWanted {
    /// Ports that the endpoint serves.
    pub exposed: BTreeSet<EndpointPort>,
    /// Ports to publish.
    pub publish: Vec<Publish>,
    /// Also publish each exposed port at a free port of the node.
    pub publish_all: bool,
    /// Ports of the node that programs use, as the node reported when it was asked. They are not given out.
    pub busy: BTreeSet<(Transport, NonZeroU16)>,
}

impl PortsWanted {
    /// Returns true if at least one port of the node is asked for.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.publish_all || !self.publish.is_empty()
    }

    /// The protocols for which a free port of the node is asked for, without a number.
    #[must_use]
    pub fn any_of(&self) -> BTreeSet<Transport> {
        let exposed = self.exposed.iter().filter(|_| self.publish_all).map(|port| port.transport);
        let publish = self.publish.iter().filter(|wish| wish.host_port.is_none());
        publish.map(|wish| wish.port.transport).chain(exposed).collect()
    }
}
