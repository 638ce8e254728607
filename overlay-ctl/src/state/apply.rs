use super::{
    Applied, Command, Envelope, Outcome, Placement, Refusal, RequestId, RowKey, State, VOTERS_MAX,
};
use crate::{
    ipam,
    model::{
        Endpoint, EndpointName, Invalid, Location, Mac, Network, NetworkName, NetworkOptions, Node,
        NodeName, Pool, Revision, Vni,
    },
};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

impl State {
    /// Applies the command of Raft entry `revision`.
    pub fn apply(&mut self, revision: Revision, entry: &[u8]) -> Outcome {
        debug_assert!(revision > self.revision, "an entry is applied once, in order");
        let outcome = match rmp_serde::from_slice::<Envelope>(entry) {
            Ok(Envelope { request, command }) => self.apply_once(revision, request, command),
            Err(error) => Err(Refusal::UnknownCommand(error.to_string())),
        };
        self.revision = revision;
        outcome
    }

    fn apply_once(&mut self, revision: Revision, request: RequestId, command: Command) -> Outcome {
        if let Some(outcome) = self.dedup.get(&request) {
            return outcome.clone();
        }
        let outcome =
            self.decide(revision, command).map(|decision| self.commit(revision, decision));
        self.dedup.insert(request, outcome.clone());
        outcome
    }

    /// Decides what `command` would do if it were entry `revision`, and changes nothing: the same
    /// decision is what apply carries out, so a caller can refuse before anything is logged.
    ///
    /// # Errors
    /// What apply would refuse, for the same reason.
    pub fn decide(&self, revision: Revision, command: Command) -> Result<Decision, Refusal> {
        match command {
            Command::CreateNetwork { name, pool, vni, options } => {
                self.create_network(revision, name, pool, vni, options)
            }
            Command::RemoveNetwork { name } => self.remove_network(&name),
            Command::RegisterNode { instance, name, vtep, listen, returning, gateway: _ } => {
                if let Some(id) = returning
                    && self.was_removed(id)
                {
                    return Err(Refusal::NodeRemoved(name));
                }
                self.register_node(revision, instance, name, vtep, listen)
            }
            Command::RemoveNode { name } => self.remove_node(&name),
            Command::CreateEndpoint {
                name,
                network,
                placement,
                forwards,
                aliases: _,
                ports: _,
            } => self.create_endpoint(revision, name, &network, placement, forwards),
            Command::RemoveEndpoint { name, network, only } => {
                self.remove_endpoint(&name, network.as_ref(), only)
            }
        }
    }

    fn create_network(
        &self,
        revision: Revision,
        name: NetworkName,
        pool: Option<Pool>,
        vni: Option<Vni>,
        options: NetworkOptions,
    ) -> Result<Decision, Refusal> {
        if self.network_names.contains_key(&name) {
            return Err(Refusal::NetworkExists(name));
        }
        let given_out = vni.is_none();
        let vni = match vni {
            Some(vni) => match self.networks.values().find(|network| network.vni == vni) {
                Some(other) => {
                    return Err(Refusal::VniExists { vni, network: other.name.clone() });
                }
                None => vni,
            },
            None => {
                let used: BTreeSet<Vni> = self.networks.values().map(|n| n.vni).collect();
                ipam::next_vni(self.last_vni, &used).ok_or(Refusal::VnisExhausted)?
            }
        };
        let pool = match pool {
            Some(pool) => pool,
            None => ipam::next_subnet(self.networks.values().map(|n| n.pool.subnet))
                .map(Pool::whole)
                .ok_or(Refusal::SubnetsExhausted)?,
        };
        let network = Network { id: revision, name, vni, pool, options };
        Ok(Decision::PutNetwork { network, given_out })
    }

    fn remove_network(&self, name: &NetworkName) -> Result<Decision, Refusal> {
        let network = self.network_named(name)?;
        match self.endpoints_of(network.id).count() {
            0 => Ok(Decision::RemoveNetwork(network.clone())),
            endpoints => Err(Refusal::NetworkInUse { network: name.clone(), endpoints }),
        }
    }

    fn register_node(
        &self,
        revision: Revision,
        instance: [u8; 16],
        name: NodeName,
        vtep: Ipv4Addr,
        listen: SocketAddr,
    ) -> Result<Decision, Refusal> {
        let known = self.nodes.values().find(|node| node.instance == instance);
        let other = |node: &&Node| node.instance != instance;
        if let Some(node) = self.nodes.values().filter(other).find(|node| node.name == name) {
            return Err(Refusal::NodeExists(node.name.clone()));
        }
        if let Some(node) = self.nodes.values().filter(other).find(|node| node.vtep == vtep) {
            return Err(Refusal::VtepExists { address: vtep, by: format!("node {}", node.name) });
        }
        if let Some(endpoint) = self.external_at(vtep) {
            let by = format!("external endpoint {}", endpoint.name);
            return Err(Refusal::VtepExists { address: vtep, by });
        }
        let (id, voter) = match known {
            Some(node) => (node.id, node.voter),
            None => (
                self.last_node_id + 1,
                self.nodes.values().filter(|node| node.voter).count() < VOTERS_MAX,
            ),
        };
        let node = Node { id, name, vtep, listen, instance, epoch: revision, voter, gateway: None };
        match known {
            // The same registration again is no change: its epoch, which fences, stands.
            Some(known) if Node { epoch: known.epoch, ..node.clone() } == *known => {
                Ok(Decision::Nothing(Applied::Node(known.clone())))
            }
            _ => Ok(Decision::PutNode(node)),
        }
    }

    fn remove_node(&self, name: &NodeName) -> Result<Decision, Refusal> {
        let node = self.node_named(name)?;
        match self.endpoints_on(node.id).count() {
            0 => Ok(Decision::RemoveNode(node.clone())),
            endpoints => Err(Refusal::NodeInUse { node: name.clone(), endpoints }),
        }
    }

    fn create_endpoint(
        &self,
        revision: Revision,
        name: EndpointName,
        network: &NetworkName,
        placement: Placement,
        forwards: bool,
    ) -> Result<Decision, Refusal> {
        let network = self.network_named(network)?;
        if self.endpoint_names.contains_key(&(network.id, name.clone())) {
            return Err(Refusal::EndpointExists(name));
        }
        let (location, asked, mac) = match placement {
            Placement::Node { node, netns, address } => {
                let node = self.node_named(&node)?.id;
                (Location::Node { node, netns }, address, None)
            }
            Placement::External { vtep, mac, address } => {
                if let Some(node) = self.nodes.values().find(|node| node.vtep == vtep) {
                    let by = format!("node {}", node.name);
                    return Err(Refusal::VtepExists { address: vtep, by });
                }
                // The MAC of another address would block that one for ever.
                if mac
                    .endpoint_address()
                    .is_some_and(|of| of != address && network.pool.subnet.net().contains(&of))
                {
                    let why = "is the MAC that another address of the network has";
                    return Err(Invalid::new("mac", mac.to_string(), why).into());
                }
                (Location::External { vtep }, Some(address), Some(mac))
            }
        };
        let address = match asked {
            Some(address) => self.check_address(network, address)?,
            None => self.next_address(network)?,
        };
        let mac = mac.unwrap_or_else(|| Mac::of_endpoint(address));
        if let Some(id) = self.macs.get(&(network.id, mac)) {
            let endpoint = self.endpoints.get(id).map_or(name, |other| other.name.clone());
            return Err(Refusal::MacInUse { mac, endpoint });
        }
        let endpoint = Endpoint {
            id: revision,
            name,
            network: network.id,
            location,
            address,
            mac,
            forwards,
            aliases: BTreeSet::new(),
            exposed: BTreeSet::new(),
            published: BTreeSet::new(),
            gateway: None,
        };
        Ok(Decision::PutEndpoint { endpoint, given_out: asked.is_none() })
    }

    fn remove_endpoint(
        &self,
        name: &EndpointName,
        network: Option<&NetworkName>,
        only: Option<u64>,
    ) -> Result<Decision, Refusal> {
        let endpoint = self.endpoint_named(name, network)?;
        if only.is_some_and(|id| id != endpoint.id) {
            return Err(Refusal::NoEndpoint(name.clone()));
        }
        Ok(Decision::RemoveEndpoint(endpoint.clone()))
    }

    /// Carries out a decision. Can't fail: all that could be refused was.
    fn commit(&mut self, revision: Revision, decision: Decision) -> Applied {
        match decision {
            Decision::Nothing(applied) => applied,
            Decision::PutNetwork { network, given_out } => {
                if given_out {
                    self.last_vni = Some(network.vni);
                }
                self.insert_network(network.clone());
                self.changes.push(revision, RowKey::Network(network.id));
                Applied::Network(network)
            }
            Decision::RemoveNetwork(network) => {
                self.networks.remove(&network.id);
                self.network_names.remove(&network.name);
                self.addresses.remove(&network.id);
                self.last_address.remove(&network.id);
                self.changes.push(revision, RowKey::Network(network.id));
                Applied::Removed(revision)
            }
            Decision::PutNode(node) => {
                self.last_node_id = self.last_node_id.max(node.id);
                if let Some(before) = self.nodes.get(&node.id) {
                    self.node_names.remove(&before.name);
                }
                self.insert_node(node.clone());
                self.changes.push(revision, RowKey::Node(node.id));
                Applied::Node(node)
            }
            Decision::RemoveNode(node) => {
                self.nodes.remove(&node.id);
                self.node_names.remove(&node.name);
                self.changes.push(revision, RowKey::Node(node.id));
                Applied::Removed(revision)
            }
            Decision::PutEndpoint { endpoint, given_out } => {
                if given_out {
                    self.last_address.insert(endpoint.network, endpoint.address);
                }
                self.insert_endpoint(endpoint.clone());
                self.changes.push(revision, RowKey::Endpoint(endpoint.network, endpoint.id));
                Applied::Endpoint(endpoint)
            }
            Decision::RemoveEndpoint(endpoint) => {
                self.forget_endpoint(&endpoint);
                self.changes.push(revision, RowKey::Endpoint(endpoint.network, endpoint.id));
                Applied::Removed(revision)
            }
        }
    }

    fn check_address(&self, network: &Network, address: Ipv4Addr) -> Result<Ipv4Addr, Refusal> {
        network.pool.subnet.check_endpoint(address)?;
        let holder = self.addresses.get(&network.id).and_then(|used| used.get(&address));
        match holder.and_then(|id| self.endpoints.get(id)) {
            Some(other) => Err(Refusal::AddressInUse { address, endpoint: other.name.clone() }),
            None => Ok(address),
        }
    }

    fn next_address(&self, network: &Network) -> Result<Ipv4Addr, Refusal> {
        let last = self.last_address.get(&network.id).copied();
        self.addresses
            .get(&network.id)
            .and_then(|used| ipam::next_address(&network.pool, last, used))
            .ok_or_else(|| {
                let net = network.pool.range().unwrap_or(network.pool.subnet.net());
                Refusal::AddressesExhausted {
                    range: net.to_string(),
                    network: network.name.clone(),
                }
            })
    }

    fn external_at(&self, address: Ipv4Addr) -> Option<&Endpoint> {
        self.endpoints
            .values()
            .find(|e| matches!(e.location, Location::External { vtep } if vtep == address))
    }

    /// Inserts the row and its indexes: the one place that a snapshot's rows pass too.
    pub(super) fn insert_network(&mut self, network: Network) {
        self.network_names.insert(network.name.clone(), network.id);
        self.addresses.entry(network.id).or_default();
        self.networks.insert(network.id, network);
    }

    /// Inserts the row and its indexes: the one place that a snapshot's rows pass too.
    pub(super) fn insert_node(&mut self, node: Node) {
        self.node_names.insert(node.name.clone(), node.id);
        self.nodes.insert(node.id, node);
    }

    /// Inserts the row and its indexes: the one place that a snapshot's rows pass too.
    pub(super) fn insert_endpoint(&mut self, endpoint: Endpoint) {
        let Endpoint { id, name, network, location, address, mac, .. } = &endpoint;
        self.endpoint_names.insert((*network, name.clone()), *id);
        self.addresses.entry(*network).or_default().insert(*address, *id);
        self.macs.insert((*network, *mac), *id);
        if let Location::Node { node, .. } = location {
            self.placements.entry((*node, *network)).or_default().insert(*id);
        }
        self.endpoints.insert(*id, endpoint);
    }

    /// The reverse of [`State::insert_endpoint`].
    fn forget_endpoint(&mut self, endpoint: &Endpoint) {
        let Endpoint { id, name, network, location, address, mac, .. } = endpoint;
        self.endpoints.remove(id);
        self.endpoint_names.remove(&(*network, name.clone()));
        self.macs.remove(&(*network, *mac));
        if let Some(addresses) = self.addresses.get_mut(network) {
            addresses.remove(address);
        }
        if let Location::Node { node, .. } = location {
            let key = (*node, *network);
            if let Some(ids) = self.placements.get_mut(&key) {
                ids.remove(id);
                if ids.is_empty() {
                    self.placements.remove(&key);
                }
            }
        }
    }
}

/// What a command would do. Made by [`State::decide`].
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// It has been done already.
    Nothing(Applied),
    /// A new network.
    PutNetwork {
        /// The row.
        network: Network,
        /// The VNI was not asked for: the next one comes after it.
        given_out: bool,
    },
    /// A network that has no endpoints goes.
    RemoveNetwork(Network),
    /// A new node, or a node's new addresses.
    PutNode(Node),
    /// A node that has no endpoints goes.
    RemoveNode(Node),
    /// A new endpoint.
    PutEndpoint {
        /// The row.
        endpoint: Endpoint,
        /// The address was not asked for: the next one comes after it.
        given_out: bool,
    },
    /// An endpoint goes.
    RemoveEndpoint(Endpoint),
}
