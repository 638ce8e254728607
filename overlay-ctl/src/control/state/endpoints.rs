//! Decides what the creation or the removal of an endpoint would do.

use super::{
    Applied, Decision, Noted, Placement, PortsWanted, Refusal, State, decision::check_id,
    legs::NewLeg,
};
use crate::{
    control::ipam,
    model::{
        Endpoint, EndpointAddrs, EndpointId, EndpointName, Invalid, Location, Mac, Network,
        NetworkName, Node, Permissions, Published,
    },
};
use std::{collections::BTreeSet, net::Ipv4Addr};

/// The properties of a new endpoint that do not depend on its place.
pub(super) struct NewEndpoint {
    pub(super) id: EndpointId,
    /// The rules by which it is created.
    pub(super) rules: u32,
    pub(super) noted: Noted,
    pub(super) name: EndpointName,
    pub(super) permissions: Permissions,
    pub(super) aliases: BTreeSet<EndpointName>,
    pub(super) ports: PortsWanted,
}

/// The properties of a new endpoint that follow from its place.
struct Place {
    location: Location,
    asked: EndpointAddrs,
    mac: Option<Mac>,
    leg: Option<NewLeg>,
    published: BTreeSet<Published>,
}

impl State {
    pub(super) fn create_endpoint(
        &self,
        new: NewEndpoint,
        network: &NetworkName,
        placement: Placement,
    ) -> Result<Decision, Refusal> {
        let NewEndpoint { id, rules, noted, name, permissions, aliases, ports } = new;
        let network = self.network_named(network)?;
        let aliases = self.check_names(network, &name, aliases)?;
        self.check_name_forgotten(network, &name, noted)?;
        let place = match placement {
            Placement::Node { node, netns, addresses } => {
                let node = self.node_named(&node)?;
                let leg = self.leg(rules, network, node, &netns)?;
                let published = self.published(&name, network, node, leg, &ports)?;
                let location = Location::Node { node: node.id, netns };
                Place { location, asked: addresses, mac: None, leg, published }
            }
            Placement::External { vtep, mac, addresses } => {
                if ports.publishes() {
                    let why =
                        format!("it is behind VTEP {vtep}, which is no node's; publish them there");
                    return Err(Refusal::CannotPublish { endpoint: name, why });
                }
                if let Some(node) = self.nodes().find(|node| node.vtep == vtep) {
                    let by = format!("node {}", node.name);
                    return Err(Refusal::VtepExists { address: vtep, by });
                }
                // The MAC of another address would block that one for ever.
                if mac.endpoint_address().is_some_and(|of| {
                    addresses.v4 != Some(of) && network.pool.subnet.net().contains(&of)
                }) {
                    let why = "is the MAC that another address of the network has";
                    return Err(Invalid::new("mac", mac.to_string(), why).into());
                }
                Place {
                    location: Location::External { vtep },
                    asked: addresses,
                    mac: Some(mac),
                    leg: None,
                    published: BTreeSet::new(),
                }
            }
        };
        let Place { location, asked, mac, leg, published } = place;
        let address = match asked.v4 {
            Some(address) => self.check_address(network, address, noted)?,
            None => self.next_address(network, noted)?,
        };
        let mac = mac.unwrap_or_else(|| Mac::of_endpoint(address));
        if let Some(id) = self.macs.get(&(network.id, mac)) {
            let endpoint = self.endpoint(*id).map_or(name, |other| other.name.clone());
            return Err(Refusal::MacInUse { mac, endpoint });
        }
        let mut exposed = ports.exposed;
        exposed.extend(published.iter().map(|published| published.port));
        let endpoint = Endpoint {
            id,
            name,
            network: network.id,
            location,
            addresses: address.into(),
            mac,
            permissions,
            aliases,
            exposed,
            published,
            leg: leg.map(|new| new.leg),
            provisional: noted.provisional,
        };
        Ok(Decision::PutEndpoint {
            endpoint,
            given_out: asked.v4.is_none(),
            leg_given_out: leg.is_some_and(|leg| leg.given_out),
            counted: leg.and_then(|leg| leg.counted),
        })
    }

    /// The ports of `node` that lead to the new endpoint. It needs a gateway leg for them.
    fn published(
        &self,
        name: &EndpointName,
        network: &Network,
        node: &Node,
        leg: Option<NewLeg>,
        ports: &PortsWanted,
    ) -> Result<BTreeSet<Published>, Refusal> {
        if !ports.publishes() {
            return Ok(BTreeSet::new());
        }
        if leg.is_some() {
            return self.publish(node, ports);
        }
        let why = if network.options.internal {
            format!(
                "network {} is internal and has no way to the outside; attach the namespace to a network that is not, too, and publish them there",
                network.name
            )
        } else {
            format!("node {} has no gateway bridge; all nodes must run the same version", node.name)
        };
        Err(Refusal::CannotPublish { endpoint: name.clone(), why })
    }

    pub(super) fn keep_endpoint(&self, id: EndpointId) -> Result<Decision, Refusal> {
        let Some(endpoint) = self.endpoint(id) else {
            return Err(Refusal::Gone { what: format!("the endpoint with id {id}") });
        };
        let kept = Endpoint { provisional: None, ..endpoint.clone() };
        if kept == *endpoint {
            return Ok(Decision::Nothing(Applied::Endpoint(kept)));
        }
        Ok(Decision::PutEndpoint {
            endpoint: kept,
            given_out: false,
            leg_given_out: false,
            counted: None,
        })
    }

    pub(super) fn remove_endpoint(
        &self,
        name: &EndpointName,
        network: Option<&NetworkName>,
        only: Option<EndpointId>,
    ) -> Result<Decision, Refusal> {
        let is_meant = |endpoint: &&Endpoint| {
            endpoint.name == *name
                && network.is_none_or(|network| self.network_of(endpoint).name == *network)
        };
        if let Some(endpoint) = only.and_then(|id| self.endpoint(id)).filter(is_meant) {
            return Ok(Decision::RemoveEndpoint(endpoint.clone()));
        }
        let endpoint = self.endpoint_named(name, network)?;
        check_id(only, endpoint.id, || format!("endpoint {name}"))?;
        Ok(Decision::RemoveEndpoint(endpoint.clone()))
    }

    fn check_address(
        &self,
        network: &Network,
        address: Ipv4Addr,
        noted: Noted,
    ) -> Result<Ipv4Addr, Refusal> {
        network.pool.subnet.check_endpoint(address)?;
        let holder = self.addresses.get(&network.id).and_then(|used| used.get(&address));
        match holder.and_then(|id| self.endpoint(*id)) {
            Some(other) => {
                let (address, endpoint) = (address.into(), other.name.clone());
                Err(Refusal::AddressInUse { address, endpoint })
            }
            None => match self.held_back(network.id, address, noted) {
                Some(revision) => Err(Refusal::NotForgotten {
                    what: format!("address {address}"),
                    network: network.name.clone(),
                    revision,
                }),
                None => Ok(address),
            },
        }
    }

    fn next_address(&self, network: &Network, noted: Noted) -> Result<Ipv4Addr, Refusal> {
        let mut last = self.last_address.get(&network.id).copied();
        let mut used = self.addresses.get(&network.id).cloned().unwrap_or_default();
        let (mut withheld, mut since) = (0, 0);
        while let Some(address) = ipam::next_address(&network.pool, last, &used) {
            let Some(revision) = self.held_back(network.id, address, noted) else {
                return Ok(address);
            };
            (withheld, since) = (withheld + 1, revision.max(since));
            used.insert(address, EndpointId::default());
            last = Some(address);
        }
        let range = network.pool.range().unwrap_or(network.pool.subnet.net()).to_string();
        let network = network.name.clone();
        Err(match withheld {
            0 => Refusal::AddressesExhausted { range, network },
            _ => Refusal::AddressesHeldBack { range, network, count: withheld, revision: since },
        })
    }
}
