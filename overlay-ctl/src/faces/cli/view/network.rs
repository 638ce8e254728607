//! The printed form of networks.

use super::{
    super::error::Error, Endpoint, View, columns, endpoint::members, fields, non_empty, non_zero,
    or_dash,
};
use crate::proto::v1;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Network {
    id: u64,
    name: String,
    vni: u32,
    subnet: String,
    /// None = the whole subnet.
    ip_range: Option<String>,
    options: Options,
    endpoint_count: u32,
    created_revision: u64,
}

#[derive(Debug, Serialize)]
struct Options {
    icc: bool,
    internal: bool,
    multicast: bool,
    /// None = the underlay's MTU minus the encapsulation.
    mtu: Option<u32>,
}

impl From<v1::Network> for Network {
    fn from(network: v1::Network) -> Self {
        let v1::Network {
            id,
            name,
            vni,
            subnet,
            ip_range,
            options,
            endpoint_count,
            created_revision,
        } = network;
        let v1::NetworkOptions { icc, internal, multicast, mtu } = options.unwrap_or_default();
        Self {
            id,
            name,
            vni,
            subnet,
            ip_range: non_empty(ip_range),
            options: Options { icc: icc.unwrap_or(true), internal, multicast, mtu: non_zero(mtu) },
            endpoint_count,
            created_revision,
        }
    }
}

impl Network {
    /// The line that `create` prints.
    pub(in super::super) fn summary(&self) -> String {
        let range = match &self.ip_range {
            Some(range) => format!(", addresses from {range}"),
            None => String::new(),
        };
        format!("{}: subnet {}{range}, VNI {}", self.name, self.subnet, self.vni)
    }

    fn ip_range(&self) -> &str {
        self.ip_range.as_deref().unwrap_or(&self.subnet)
    }
}

impl Options {
    fn mtu(&self) -> String {
        match self.mtu {
            Some(mtu) => mtu.to_string(),
            None => "the underlay's less the encapsulation".to_owned(),
        }
    }

    /// The options that differ from their defaults.
    fn text(&self) -> String {
        let words = [
            (!self.icc).then(|| "no-icc".to_owned()),
            self.internal.then(|| "internal".to_owned()),
            self.multicast.then(|| "multicast".to_owned()),
            self.mtu.map(|mtu| format!("mtu={mtu}")),
        ];
        let words: Vec<_> = words.into_iter().flatten().collect();
        if words.is_empty() { super::NONE.to_owned() } else { words.join(",") }
    }
}

fn on_or_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}

impl View for Vec<Network> {
    fn text(&self) -> String {
        columns(
            ["NAME", "VNI", "SUBNET", "IP RANGE", "OPTIONS", "ENDPOINTS"],
            self.iter().map(|network| {
                [
                    network.name.clone(),
                    network.vni.to_string(),
                    network.subnet.clone(),
                    network.ip_range().to_owned(),
                    network.options.text(),
                    network.endpoint_count.to_string(),
                ]
            }),
        )
    }
}

impl View for Network {
    fn text(&self) -> String {
        fields([
            ("name", self.name.clone()),
            ("id", self.id.to_string()),
            ("VNI", self.vni.to_string()),
            ("subnet", self.subnet.clone()),
            ("IP range", self.ip_range().to_owned()),
            ("ICC", on_or_off(self.options.icc).to_owned()),
            ("internal", on_or_off(self.options.internal).to_owned()),
            ("multicast", on_or_off(self.options.multicast).to_owned()),
            ("MTU", self.options.mtu()),
            ("endpoints", self.endpoint_count.to_string()),
            ("revision", self.created_revision.to_string()),
        ])
    }
}

#[derive(Debug, Serialize)]
pub(in super::super) struct NetworkDetail {
    #[serde(flatten)]
    network: Network,
    endpoints: Vec<Endpoint>,
    peers: Vec<Peer>,
}

#[derive(Debug, Serialize)]
struct Peer {
    node: String,
    vtep: String,
    endpoint_count: u32,
}

impl TryFrom<v1::NetworkDetail> for NetworkDetail {
    type Error = Error;

    fn try_from(detail: v1::NetworkDetail) -> Result<Self, Error> {
        let v1::NetworkDetail { network, endpoints, peers } = detail;
        Ok(Self {
            network: network.ok_or(Error::Incomplete("the network"))?.into(),
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            peers: peers
                .into_iter()
                .map(|v1::NetworkPeer { node, vtep, endpoint_count }| Peer {
                    node,
                    vtep,
                    endpoint_count,
                })
                .collect(),
        })
    }
}

impl View for NetworkDetail {
    fn text(&self) -> String {
        let mut parts = vec![self.network.text()];
        if !self.endpoints.is_empty() {
            parts.push(members(&self.endpoints));
        }
        if !self.peers.is_empty() {
            parts.push(columns(
                ["PEER", "VTEP", "ENDPOINTS"],
                self.peers.iter().map(|peer| {
                    let name = non_empty(peer.node.clone());
                    [or_dash(name.as_ref()), peer.vtep.clone(), peer.endpoint_count.to_string()]
                }),
            ));
        }
        parts.join("\n\n")
    }
}
