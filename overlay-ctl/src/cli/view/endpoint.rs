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
    aliases: Vec<String>,
    exposed: Vec<String>,
    published: Vec<Published>,
    /// None where it has no leg to the outside.
    gateway: Option<Leg>,
    created_revision: u64,
}

/// A port of the endpoint and where it is reached.
#[derive(Debug, Serialize)]
struct Published {
    /// 80/tcp
    port: String,
    /// 0.0.0.0 = every address of the node
    host_ip: String,
    host_port: u32,
}

/// The leg on the gateway bridge.
#[derive(Debug, Serialize)]
struct Leg {
    /// With the gateway subnet's prefix length.
    address: String,
    mac: String,
    gateway: String,
    interface: Option<String>,
    host_interface: Option<String>,
    host_ifindex: Option<u32>,
    mtu: Option<u32>,
}

impl From<v1::PublishedPort> for Published {
    fn from(published: v1::PublishedPort) -> Self {
        let v1::PublishedPort { port, host_ip, host_port } = published;
        Self { port, host_ip, host_port }
    }
}

impl From<v1::GatewayLeg> for Leg {
    fn from(leg: v1::GatewayLeg) -> Self {
        let v1::GatewayLeg { interface, host_interface, host_ifindex, mtu, address, mac, gateway } =
            leg;
        Self {
            address,
            mac,
            gateway,
            interface: non_empty(interface),
            host_interface: non_empty(host_interface),
            host_ifindex: non_zero(host_ifindex),
            mtu: non_zero(mtu),
        }
    }
}

/// The ports of a node that lead to an endpoint, as `docker port` prints them.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(in super::super) struct Ports(Vec<Published>);

impl From<v1::Endpoint> for Ports {
    fn from(endpoint: v1::Endpoint) -> Self {
        Self(endpoint.published.into_iter().map(Into::into).collect())
    }
}

impl Ports {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl View for Ports {
    fn text(&self) -> String {
        let lines: Vec<String> = self
            .0
            .iter()
            .map(|Published { port, host_ip, host_port }| {
                format!("{port} -> {host_ip}:{host_port}")
            })
            .collect();
        lines.join("\n")
    }
}

/// `eth0@if17`, as `ip link` shows it inside, and the host's side.
fn leg_text(
    interface: Option<&String>,
    host: Option<&String>,
    index: Option<u32>,
    mtu: Option<u32>,
) -> String {
    match (interface, host, index) {
        (Some(interface), Some(host), Some(index)) => {
            format!("{interface}@if{index}, host side {host}, MTU {}", or_dash(mtu.as_ref()))
        }
        (interface, ..) => or_dash(interface),
    }
}

fn list(words: &[String]) -> String {
    if words.is_empty() { or_dash(None::<&String>) } else { words.join(", ") }
}

impl From<v1::Endpoint> for Endpoint {
    fn from(endpoint: v1::Endpoint) -> Self {
        let v1::Endpoint {
            aliases,
            exposed,
            published,
            gateway,
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
            aliases,
            exposed,
            published: published.into_iter().map(Into::into).collect(),
            gateway: gateway.map(Into::into),
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
        let ports = self.ports();
        let ports = if ports.is_empty() { ports } else { format!(", {ports}") };
        format!("{}: {}, {}, {} {place}{ports}", self.name, self.address, self.mac, self.network)
    }

    /// `0.0.0.0:8080->80/tcp`, as `docker ps` shows it.
    fn ports(&self) -> String {
        let ports: Vec<String> = self
            .published
            .iter()
            .map(|Published { port, host_ip, host_port }| format!("{host_ip}:{host_port}->{port}"))
            .collect();
        ports.join(", ")
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
            ["NAME", "NETWORK", "ADDRESS", "MAC", "NODE", "VTEP", "PORTS", "STATE"],
            self.iter().map(|endpoint| {
                [
                    endpoint.name.clone(),
                    endpoint.network.clone(),
                    endpoint.address.clone(),
                    endpoint.mac.clone(),
                    or_dash(endpoint.node.as_ref()),
                    endpoint.vtep.clone(),
                    or_dash(Some(endpoint.ports()).filter(|ports| !ports.is_empty()).as_ref()),
                    endpoint.state(),
                ]
            }),
        )
    }
}

impl View for Endpoint {
    fn text(&self) -> String {
        let overlay = leg_text(
            self.interface.as_ref(),
            self.host_interface.as_ref(),
            self.host_ifindex,
            self.mtu,
        );
        let mut rows = vec![
            ("name", self.name.clone()),
            ("aliases", list(&self.aliases)),
            ("network", self.network.clone()),
            ("VNI", self.vni.to_string()),
            ("node", or_dash(self.node.as_ref())),
            ("VTEP", self.vtep.clone()),
            ("netns", or_dash(self.netns.as_ref())),
            ("overlay leg", overlay),
            ("address", self.address.clone()),
            ("MAC", self.mac.clone()),
        ];
        if let Some(leg) = &self.gateway {
            let text = leg_text(
                leg.interface.as_ref(),
                leg.host_interface.as_ref(),
                leg.host_ifindex,
                leg.mtu,
            );
            rows.extend([
                ("gateway leg", text),
                ("gateway address", leg.address.clone()),
                ("gateway MAC", leg.mac.clone()),
                ("default route", format!("via {}", leg.gateway)),
            ]);
        }
        rows.extend([
            ("exposed", list(&self.exposed)),
            (
                "published",
                list(&[self.ports()].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>()),
            ),
            ("state", self.state()),
            ("revision", self.created_revision.to_string()),
        ]);
        fields(rows)
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
