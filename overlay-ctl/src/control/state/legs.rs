//! Addresses of the gateway legs. A namespace has one leg, which its endpoints of networks that are not
//! internal share.

use super::{Refusal, RowKey, State};
use crate::{
    control::ipam,
    model::{
        Endpoint, EndpointAddrs, EndpointId, Leg, LegId, Location, Network, Node, NodeId, Pool,
        Revision, Subnet,
    },
};
use imbl::OrdMap;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::Path,
};

/// The gateway leg of a new endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct NewLeg {
    pub(super) leg: Leg,
    /// True if the namespace had no leg: the next address is searched after this one.
    pub(super) given_out: bool,
    /// The id, if it was counted: the next id comes after this one.
    pub(super) counted: Option<LegId>,
}

/// The legs of a node after its gateway subnet changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Renumbering {
    /// The endpoints whose leg changes; `None` = the endpoint loses its leg.
    pub(super) legs: BTreeMap<EndpointId, Option<Leg>>,
    /// The last address that was given out.
    pub(super) last: Option<Ipv4Addr>,
    /// The last id that was counted; `None` = none was.
    pub(super) last_id: Option<LegId>,
}

impl State {
    /// The leg that an endpoint of `network` gets in a namespace of `node`. `None` for an internal network,
    /// and for a node that has no gateway bridge.
    pub(super) fn leg(
        &self,
        rules: u32,
        network: &Network,
        node: &Node,
        netns: &Path,
    ) -> Result<Option<NewLeg>, Refusal> {
        let Some(subnet) = node.gateway else { return Ok(None) };
        if let Some(other) = self.endpoints_in(node.id, netns).find(|e| e.network == network.id) {
            return Err(Refusal::NamespaceInUse {
                netns: netns.to_owned(),
                node: node.name.clone(),
                network: network.name.clone(),
                endpoint: other.name.clone(),
            });
        }
        let shared = self.endpoints_in(node.id, netns).find_map(|endpoint| endpoint.leg);
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
        if let Some(leg) = shared {
            return Ok(Some(NewLeg { leg, given_out: false, counted: None }));
        }
        let none = OrdMap::new();
        let used = self.legs.get(&node.id).unwrap_or(&none);
        let last = self.last_leg.get(&node.id).copied();
        match ipam::next_address(&Pool::whole(subnet), last, used) {
            Some(address) => {
                let (leg, counted) = new_leg(rules, self.last_leg_id, address.into());
                Ok(Some(NewLeg { leg, given_out: true, counted }))
            }
            None => Err(Refusal::GatewayExhausted { subnet, node: node.name.clone() }),
        }
    }

    /// The new legs on `node`, whose row will be this one. Each namespace keeps one leg; addresses are given out
    /// again in the order of the endpoints' ids.
    pub(super) fn renumber(&self, rules: u32, node: &Node) -> Result<Renumbering, Refusal> {
        if self.node(node.id).is_none_or(|before| before.gateway == node.gateway) {
            return Ok(Renumbering::default());
        }
        let mut endpoints: Vec<&Endpoint> = self.endpoints_on(node.id).collect();
        endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
        let Some(subnet) = node.gateway else {
            let legs = endpoints.iter().map(|endpoint| (endpoint.id, None)).collect();
            return Ok(Renumbering { legs, ..Renumbering::default() });
        };
        let mut renumbering = Renumbering::default();
        let mut namespaces: BTreeMap<&Path, Leg> = BTreeMap::new();
        let mut used: OrdMap<Ipv4Addr, ()> = OrdMap::new();
        for endpoint in &endpoints {
            let Location::Node { netns, .. } = &endpoint.location else { continue };
            if self.network_of(endpoint).options.internal {
                continue;
            }
            let leg = match namespaces.get(netns.as_path()) {
                Some(leg) => *leg,
                None => {
                    let next = ipam::next_address(&Pool::whole(subnet), renumbering.last, &used);
                    let address = next.ok_or_else(|| Refusal::GatewayExhausted {
                        subnet,
                        node: node.name.clone(),
                    })?;
                    used.insert(address, ());
                    renumbering.last = Some(address);
                    let last = renumbering.last_id.unwrap_or(self.last_leg_id);
                    let (leg, counted) = new_leg(rules, last, address.into());
                    renumbering.last_id = counted.or(renumbering.last_id);
                    namespaces.insert(netns, leg);
                    leg
                }
            };
            renumbering.legs.insert(endpoint.id, Some(leg));
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

    /// Writes the new legs into the endpoints of `node`.
    pub(super) fn carry_out(&mut self, revision: Revision, node: NodeId, renumbering: Renumbering) {
        let Renumbering { legs, last, last_id } = renumbering;
        self.last_leg_id = last_id.unwrap_or(self.last_leg_id);
        for (id, leg) in legs {
            let Some(mut endpoint) = self.endpoint(id).cloned() else { continue };
            if endpoint.leg == leg {
                continue;
            }
            self.forget_endpoint(&endpoint);
            endpoint.leg = leg;
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

/// A new leg by the rules of the log entry, and its id if that was counted, after `last`.
fn new_leg(rules: u32, last: LegId, addresses: EndpointAddrs) -> (Leg, Option<LegId>) {
    let counted = (rules > 0).then(|| last.next());
    let id = counted.unwrap_or_else(|| LegId::of_addresses(addresses));
    (Leg { id, addresses }, counted)
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
