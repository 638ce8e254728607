//! Endpoints.

use super::{super::error::Error, View, columns, fields, non_empty, non_zero, or_dash};
use crate::proto::v1::{self, EndpointState};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Endpoint {
    id: u64,
    pub(in super::super) name: String,
    network: String,
    /// None where the endpoint is behind a VTEP that is not ours.
    node: Option<String>,
    vtep: String,
    /// With the subnet's prefix length.
    address: String,
    mac: String,
    netns: Option<String>,
    /// up, down, pending, external
    state: &'static str,
    state_reason: Option<String>,
    /// The leg inside the namespace.
    interface: Option<String>,
    host_interface: Option<String>,
    host_ifindex: Option<u32>,
    mtu: Option<u32>,
    vni: u32,
    created_revision: u64,
}

impl From<v1::Endpoint> for Endpoint {
    fn from(endpoint: v1::Endpoint) -> Self {
        let v1::Endpoint {
            aliases: _,
            exposed: _,
            published: _,
            gateway: _,
            id,
            name,
            network,
            node,
            vtep,
            address,
            mac,
            netns,
            state,
            state_reason,
            interface,
            host_interface,
            host_ifindex,
            mtu,
            vni,
            created_revision,
        } = endpoint;
        Self {
            id,
            name,
            network,
            node: non_empty(node),
            vtep,
            address,
            mac,
            netns: non_empty(netns),
            state: state_name(state),
            state_reason: non_empty(state_reason),
            interface: non_empty(interface),
            host_interface: non_empty(host_interface),
            host_ifindex: non_zero(host_ifindex),
            mtu: non_zero(mtu),
            vni,
            created_revision,
        }
    }
}

fn state_name(state: i32) -> &'static str {
    match EndpointState::try_from(state) {
        Ok(EndpointState::Pending) => "pending",
        Ok(EndpointState::Up) => "up",
        Ok(EndpointState::Down) => "down",
        Ok(EndpointState::External) => "external",
        Ok(EndpointState::Unspecified) | Err(_) => "unknown",
    }
}

impl Endpoint {
    /// What `create` says.
    pub(in super::super) fn made(&self) -> String {
        let place = match &self.node {
            Some(node) => format!("on {node}"),
            None => format!("behind VTEP {}", self.vtep),
        };
        format!("{}: {}, {}, {} {place}", self.name, self.address, self.mac, self.network)
    }

    fn state(&self) -> String {
        match &self.state_reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.to_owned(),
        }
    }
}

impl View for Vec<Endpoint> {
    fn text(&self) -> String {
        columns(
            ["NAME", "NETWORK", "ADDRESS", "MAC", "NODE", "VTEP", "STATE"],
            self.iter().map(|endpoint| {
                [
                    endpoint.name.clone(),
                    endpoint.network.clone(),
                    endpoint.address.clone(),
                    endpoint.mac.clone(),
                    or_dash(endpoint.node.as_ref()),
                    endpoint.vtep.clone(),
                    endpoint.state(),
                ]
            }),
        )
    }
}

impl View for Endpoint {
    fn text(&self) -> String {
        let host = match (&self.host_interface, self.host_ifindex) {
            (Some(name), Some(index)) => format!("{name} (ifindex {index})"),
            (name, _) => or_dash(name.as_ref()),
        };
        fields([
            ("name", self.name.clone()),
            ("network", self.network.clone()),
            ("VNI", self.vni.to_string()),
            ("address", self.address.clone()),
            ("MAC", self.mac.clone()),
            ("node", or_dash(self.node.as_ref())),
            ("VTEP", self.vtep.clone()),
            ("netns", or_dash(self.netns.as_ref())),
            ("interface", or_dash(self.interface.as_ref())),
            ("host interface", host),
            ("MTU", or_dash(self.mtu.as_ref())),
            ("state", self.state()),
            ("revision", self.created_revision.to_string()),
        ])
    }
}

/// An endpoint, and who does not know it yet.
#[derive(Debug, Serialize)]
pub(in super::super) struct CreatedEndpoint {
    #[serde(flatten)]
    pub(in super::super) endpoint: Endpoint,
    pub(in super::super) lagging_nodes: Vec<String>,
}

impl TryFrom<v1::CreateEndpointResponse> for CreatedEndpoint {
    type Error = Error;

    fn try_from(response: v1::CreateEndpointResponse) -> Result<Self, Error> {
        let v1::CreateEndpointResponse { endpoint, lagging_nodes } = response;
        Ok(Self {
            endpoint: endpoint.ok_or(Error::Incomplete("the endpoint"))?.into(),
            lagging_nodes,
        })
    }
}
