//! The printed form of endpoints.

use super::{
    super::error::Error, PublishedPort, View, columns, fields, non_empty, non_zero, or_dash,
    or_none,
};
use crate::proto::v1::{self, EndpointState};
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Endpoint {
    id: u64,
    pub(in super::super) name: String,
    network: String,
    /// None = the endpoint is behind an external VTEP.
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
    aliases: Vec<String>,
    exposed: Vec<String>,
    published: Vec<PublishedPort>,
    /// What it may send beyond its own MAC and address: routing, bridging, advertising
    allowed: Vec<&'static str>,
    /// None = the endpoint has no leg to the outside.
    gateway: Option<Leg>,
}

/// The leg on the node's gateway bridge.
#[derive(Debug, Serialize)]
struct Leg {
    interface: Option<String>,
    host_interface: Option<String>,
    host_ifindex: Option<u32>,
    mtu: Option<u32>,
    /// With the gateway subnet's prefix length.
    address: String,
    mac: String,
    /// The default route.
    gateway: String,
}

impl From<v1::GatewayLeg> for Leg {
    fn from(leg: v1::GatewayLeg) -> Self {
        let v1::GatewayLeg { interface, host_interface, host_ifindex, mtu, address, mac, gateway } =
            leg;
        Self {
            interface: non_empty(interface),
            host_interface: non_empty(host_interface),
            host_ifindex: non_zero(host_ifindex),
            mtu: non_zero(mtu),
            address,
            mac,
            gateway,
        }
    }
}

impl From<v1::Endpoint> for Endpoint {
    fn from(endpoint: v1::Endpoint) -> Self {
        let v1::Endpoint {
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
            aliases,
            exposed,
            published,
            gateway,
            permissions,
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
            aliases,
            exposed,
            published: published.into_iter().map(Into::into).collect(),
            allowed: permissions.into_iter().map(permission_name).collect(),
            gateway: gateway.map(Into::into),
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

fn permission_name(permission: i32) -> &'static str {
    match v1::Permission::try_from(permission) {
        Ok(v1::Permission::Routing) => "routing",
        Ok(v1::Permission::Bridging) => "bridging",
        Ok(v1::Permission::Advertising) => "advertising",
        Ok(v1::Permission::Unspecified) | Err(_) => "unknown",
    }
}

impl Endpoint {
    /// The line that `create` prints.
    pub(in super::super) fn summary(&self) -> String {
        let place = match &self.node {
            Some(node) => format!("on {node}"),
            None => format!("behind VTEP {}", self.vtep),
        };
        let mut summary =
            format!("{}: {}, {}, {} {place}", self.name, self.address, self.mac, self.network);
        if !self.published.is_empty() {
            let ports: Vec<String> = self.published.iter().map(ToString::to_string).collect();
            summary = format!("{summary}, {}", ports.join(", "));
        }
        summary
    }

    /// The ports in the form of `docker ps`: first published ones with their host ports, then those that are
    /// only exposed.
    fn ports(&self) -> String {
        let is_published = |port: &&String| self.published.iter().any(|p| p.port == **port);
        let published = self.published.iter().map(PublishedPort::arrow);
        let exposed = self.exposed.iter().filter(|port| !is_published(port)).cloned();
        or_none(&published.chain(exposed).collect::<Vec<_>>())
    }

    /// Both legs, with the names and indexes of their devices on the host.
    fn legs(&self) -> String {
        let overlay = [
            "overlay".to_owned(),
            inside(self.interface.as_ref(), self.host_ifindex),
            outside(self.host_interface.as_ref(), self.host_ifindex),
            self.address.clone(),
            self.mac.clone(),
            super::NONE.to_owned(),
            or_dash(self.mtu.as_ref()),
        ];
        let gateway = self.gateway.as_ref().map(|leg| {
            [
                "gateway".to_owned(),
                inside(leg.interface.as_ref(), leg.host_ifindex),
                outside(leg.host_interface.as_ref(), leg.host_ifindex),
                leg.address.clone(),
                leg.mac.clone(),
                leg.gateway.clone(),
                or_dash(leg.mtu.as_ref()),
            ]
        });
        columns(
            ["LEG", "INTERFACE", "HOST INTERFACE", "ADDRESS", "MAC", "GATEWAY", "MTU"],
            std::iter::once(overlay).chain(gateway),
        )
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
            ["NAME", "NETWORK", "ADDRESS", "MAC", "NODE", "VTEP", "STATE", "PORTS"],
            self.iter().map(|endpoint| {
                [
                    endpoint.name.clone(),
                    endpoint.network.clone(),
                    endpoint.address.clone(),
                    endpoint.mac.clone(),
                    or_dash(endpoint.node.as_ref()),
                    endpoint.vtep.clone(),
                    endpoint.state(),
                    endpoint.ports(),
                ]
            }),
        )
    }
}

impl View for Endpoint {
    fn text(&self) -> String {
        let published: Vec<String> = self.published.iter().map(ToString::to_string).collect();
        let what = fields([
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("network", self.network.clone()),
            ("VNI", self.vni.to_string()),
            ("node", or_dash(self.node.as_ref())),
            ("VTEP", self.vtep.clone()),
            ("netns", or_dash(self.netns.as_ref())),
            ("state", self.state()),
            ("aliases", or_none(&self.aliases)),
            ("exposed", or_none(&self.exposed)),
            ("published", or_none(&published)),
            ("allowed", or_none(&self.allowed)),
            ("revision", self.created_revision.to_string()),
        ]);
        format!("{what}\n\n{}", self.legs())
    }
}

/// The interface as `ip link` shows it inside the namespace: `eth0@if17`, where 17 is the host's device.
fn inside(interface: Option<&String>, host_ifindex: Option<u32>) -> String {
    match (interface, host_ifindex) {
        (Some(name), Some(index)) => format!("{name}@if{index}"),
        (name, _) => or_dash(name),
    }
}

/// The device as `ip link` shows it on the host: `17: ovp3`.
fn outside(interface: Option<&String>, ifindex: Option<u32>) -> String {
    match (interface, ifindex) {
        (Some(name), Some(index)) => format!("{index}: {name}"),
        (name, _) => or_dash(name),
    }
}

/// The table of endpoints that `network inspect` shows.
pub(super) fn members(endpoints: &[Endpoint]) -> String {
    columns(
        ["ENDPOINT", "ID", "ADDRESS", "MAC", "NODE", "GATEWAY ADDRESS", "STATE", "PORTS"],
        endpoints.iter().map(|endpoint| {
            [
                endpoint.name.clone(),
                endpoint.id.to_string(),
                endpoint.address.clone(),
                endpoint.mac.clone(),
                or_dash(endpoint.node.as_ref()),
                or_dash(endpoint.gateway.as_ref().map(|leg| &leg.address)),
                endpoint.state(),
                endpoint.ports(),
            ]
        }),
    )
}

/// A created endpoint, and the nodes that have not programmed it yet.
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
