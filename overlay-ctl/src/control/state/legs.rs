//! Addresses of the gateway legs. A namespace has one leg, which its endpoints of networks that are not
//! internal share.

use super::{Refusal, RowKey, State};
use crate::{
    control::ipam,
    model::{Endpoint, EndpointId, Location, Network, Node, NodeId, Pool, Revision, Subnet},
};
use imbl::OrdMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
};

/// The gateway leg of a new endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Leg {
    pub(super) address: Ipv4Addr,
    /// True if the namespace had no leg: the next address is searched after this one.
    pub(super) given_out: bool,
}

/// The legs of a node after its gateway subnet changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renumbering {
    /// The endpoints whose leg address changes; `None` = the endpoint loses its leg.
    pub(super) legs: BTreeMap<EndpointId, Option<Ipv4Addr>>,
    /// The last address that was given out.
    pub(super) last: Option<Ipv4Addr>,
}

impl State {
    /// The leg that an endpoint of `network` gets in a namespace of `node`. `None` for an internal network,
    /// and for a node that has no gateway bridge.
    pub(super) fn leg(
        &self,
        network: &Network,
        node: &Node,
        netns: &Path,
    ) -> Result<Option<Leg>, Refusal> {
        let Some(subnet) = node.gateway else { return Ok(None) };
        if let Some(other) = self.endpoints_in(node.id, netns).find(|e| e.network == network.id) {
            return Err(Refusal::NamespaceInUse {
                netns: netns.to_owned(),
                node: node.name.clone(),
                network: network.name.clone(),
                endpoint: other.name.clone(),
            });
        }
        let shared = self.endpoints_in(node.id, netns).find_map(|endpoint| endpoint.gateway);
        if network.options.internal && shared.is_none() {
            return Ok(None);
        }
        // A namespace with the leg has routes to all its networks besides.
        let others = self.endpoints_in(node.id, netns).map(|endpoint| self.network_of(endpoint));
        for network in others.chain([network]) {
            check_overlap(network, node, subnet)?;
        }
        if network.options.internal {
            return Ok(None);
        }
        if let Some(address) = shared {
            return Ok(Some(Leg { address, given_out: false }));
        }
        let none = OrdMap::new();
        let used = self.legs.get(&node.id).unwrap_or(&none);
        let last = self.last_leg.get(&node.id).copied();
        match ipam::next_address(&Pool::whole(subnet), last, used) {
            Some(address) => Ok(Some(Leg { address, given_out: true })),
            None => Err(Refusal::GatewayExhausted { subnet, node: node.name.clone() }),
        }
    }

    /// The new addresses of the legs on `node`, whose row will be this one. Each namespace keeps one
    /// address; addresses are given out again in the order of the endpoints' ids.
    pub(super) fn renumber(&self, node: &Node) -> Result<Renumbering, Refusal> {
        if self.node(node.id).is_none_or(|before| before.gateway == node.gateway) {
            return Ok(Renumbering::default());
        }
        let mut endpoints: Vec<&Endpoint> = self.endpoints_on(node.id).collect();
        endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
        let Some(subnet) = node.gateway else {
            let legs = endpoints.iter().map(|endpoint| (endpoint.id, None)).collect();
            return Ok(Renumbering { legs, last: None });
        };
        let mut renumbering = Renumbering::default();
        let mut namespaces: BTreeMap<&Path, Ipv4Addr> = BTreeMap::new();
        let mut used: OrdMap<Ipv4Addr, ()> = OrdMap::new();
        for endpoint in &endpoints {
            let Location::Node { netns, .. } = &endpoint.location else { continue };
            if self.network_of(endpoint).options.internal {
                continue;
            }
            let address = match namespaces.get(netns.as_path()) {
                Some(address) => *address,
                None => {
                    let next = ipam::next_address(&Pool::whole(subnet), renumbering.last, &used);
                    let address = next.ok_or_else(|| Refusal::GatewayExhausted {
                        subnet,
                        node: node.name.clone(),
                    })?;
                    used.insert(address, ());
                    namespaces.insert(netns, address);
                    renumbering.last = Some(address);
                    address
                }
            };
            renumbering.legs.insert(endpoint.id, Some(address));
        }
        let networks: BTreeSet<_> = endpoints
            .iter()
            .filter(|endpoint| match &endpoint.location {
                Location::Node { netns, .. } => namespaces.contains_key(netns.as_path()),
                Location::External { .. } => false,
            })
            .map(|endpoint| endpoint.network)
            .collect();
        for network in networks.into_iter().filter_map(|id| self.network(id)) {
            check_overlap(network, node, subnet)?;
        }
        Ok(renumbering)
    }

    /// Writes the new leg addresses into the endpoints of `node`.
    pub(super) fn carry_out(&mut self, revision: Revision, node: NodeId, renumbering: Renumbering) {
        let Renumbering { legs, last } = renumbering;
        for (id, leg) in legs {
            let Some(mut endpoint) = self.endpoint(id).cloned() else { continue };
            if endpoint.gateway == leg {
                continue;
            }
            self.forget_endpoint(&endpoint);
            endpoint.gateway = leg;
            self.changes.push(revision, RowKey::Endpoint(endpoint.network, id));
            self.insert_endpoint(endpoint);
        }
        match last {
            Some(last) => self.last_leg.insert(node, last),
            None => self.last_leg.remove(&node),
        };
    }

    /// Fails if `network` overlaps the gateway subnet of a node, so that its endpoints could not be there.
    pub(super) fn check_gateways(&self, network: &Network) -> Result<(), Refusal> {
        if network.options.internal {
            return Ok(());
        }
        self.nodes().try_for_each(|node| match node.gateway {
            Some(subnet) => check_overlap(network, node, subnet),
            None => Ok(()),
        })
    }
}

fn check_overlap(network: &Network, node: &Node, gateway: Subnet) -> Result<(), Refusal> {
    if !network.pool.subnet.overlaps(gateway) {
        return Ok(());
    }
    Err(Refusal::GatewayOverlap {
        network: network.name.clone(),
        subnet: network.pool.subnet,
        node: node.name.clone(),
        gateway,
    })
}
