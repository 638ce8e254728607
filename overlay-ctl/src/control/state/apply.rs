//! Applies commands to the state in two steps: a decision, which changes nothing and can be a refusal, and its
//! commit, which cannot fail.

use super::{
    Applied, Command, Decision, Envelope, Noted, Outcome, Refusal, RowKey, State,
    decision::check_id, endpoints::NewEndpoint, withdrawn,
};
use crate::{
    control::ipam,
    model::{
        EndpointId, Lease, Network, NetworkId, NetworkName, NetworkOptions, Node, NodeId, NodeName,
        Pool, RaftId, Revision, Speaks, Version, Vni,
    },
};
use std::collections::BTreeSet;

impl State {
    /// Applies the command of Raft entry `revision`, which [`State::read`] has read.
    pub fn apply(&mut self, revision: Revision, entry: Envelope) -> Outcome {
        debug_assert!(revision > self.revision, "an entry is applied once, in order");
        let outcome = self.apply_once(revision, entry);
        self.revision = revision;
        outcome
    }

    fn apply_once(&mut self, revision: Revision, entry: Envelope) -> Outcome {
        let Envelope { request, asked, rules, noted, command } = entry;
        if let Some(outcome) = self.recall(&request, asked, &command) {
            return outcome;
        }
        let decided = self.decide_by(rules, noted, revision, command.clone());
        let outcome = decided.map(|decision| {
            if let (Some(network), Some(confirmed)) = (decision.network(), noted.confirmed) {
                self.withdrawn.release(network, confirmed);
            }
            self.commit(revision, decision)
        });
        self.dedup.insert(request, asked, &command, &outcome);
        outcome
    }

    /// Decides what `command` would do as entry `revision`, and changes nothing. `apply` carries out the same
    /// decision, so that a caller can refuse a command before it is logged.
    ///
    /// # Errors
    /// The refusal that `apply` would answer.
    pub fn decide(&self, revision: Revision, command: Command) -> Result<Decision, Refusal> {
        self.decide_noting(revision, command, Noted::default())
    }

    /// As [`State::decide`], with what the leader would add.
    ///
    /// # Errors
    /// The refusal that `apply` would answer.
    pub fn decide_noting(
        &self,
        revision: Revision,
        command: Command,
        noted: Noted,
    ) -> Result<Decision, Refusal> {
        self.decide_by(self.version.number(), self.noted(noted), revision, command)
    }

    fn decide_by(
        &self,
        rules: u32,
        noted: Noted,
        revision: Revision,
        command: Command,
    ) -> Result<Decision, Refusal> {
        self.check_needs(&command)?;
        match command {
            Command::CreateNetwork { name, pool, vni, options } => {
                self.create_network(revision, name, pool, vni, options)
            }
            Command::RemoveNetwork { name, only } => self.remove_network(&name, only),
            Command::RegisterNode {
                instance,
                name,
                vtep,
                listen,
                returning,
                gateway,
                metrics,
                local_listen,
                speaks,
            } => {
                if let Some(id) = returning
                    && self.was_removed(id)
                {
                    return Err(Refusal::NodeRemoved(name));
                }
                self.check_speaks(speaks.unwrap_or(Speaks::UNSAID))?;
                let (epoch, id, voter, raft_id, demoted) = (revision, 0, false, None, false);
                let node = Node {
                    id,
                    name,
                    vtep,
                    listen,
                    instance,
                    epoch,
                    voter,
                    gateway,
                    metrics,
                    local_listen,
                    speaks,
                    raft_id,
                    lease: Lease::Held,
                    demoted,
                };
                self.register_node(rules, node)
            }
            Command::RemoveNode { name, only, with_endpoints } => {
                self.remove_node(&name, only, with_endpoints)
            }
            Command::BeginLife { name, only, ended } => self.begin_life(&name, only, ended),
            Command::Promote { name, only, instead_of } => self.promote(&name, only, instead_of),
            Command::Demote { name, only, ended, for_good } => {
                self.demote(&name, only, ended, for_good)
            }
            Command::SetVoters { voters } => Ok(self.set_voters(voters)),
            Command::ExchangeVteps { name, from, other, to } => {
                self.exchange_vteps(&name, from, &other, to)
            }
            Command::CreateEndpoint { name, network, placement, permissions, aliases, ports } => {
                let id = revision;
                let new = NewEndpoint { id, rules, noted, name, permissions, aliases, ports };
                self.create_endpoint(new, &network, placement)
            }
            Command::RemoveEndpoint { name, network, only } => {
                self.remove_endpoint(&name, network.as_ref(), only)
            }
            Command::KeepEndpoint { id } => self.keep_endpoint(id),
            Command::NoteLease { name, only, epoch, lease } => {
                self.note_lease(&name, only, epoch, lease)
            }
            Command::RaiseVersion { to, speaks } => self.raise_version(to, &speaks),
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
            Some(vni) => match self.networks().find(|network| network.vni == vni) {
                Some(other) => {
                    return Err(Refusal::VniExists { vni, network: other.name.clone() });
                }
                None => vni,
            },
            None => {
                let used: BTreeSet<Vni> = self.networks().map(|n| n.vni).collect();
                ipam::next_vni(self.last_vni, &used).ok_or(Refusal::VnisExhausted)?
            }
        };
        let pool = match pool {
            Some(pool) => pool,
            None => {
                let networks = self.networks().map(|network| network.pool.subnet);
                let gateways = self.nodes().filter_map(|node| node.gateway);
                ipam::next_subnet(networks.chain(gateways))
                    .map(Pool::whole)
                    .ok_or(Refusal::SubnetsExhausted)?
            }
        };
        let network = Network { id: revision, name, vni, pool, options };
        self.check_gateways(&network)?;
        Ok(Decision::PutNetwork { network, given_out })
    }

    fn remove_network(
        &self,
        name: &NetworkName,
        only: Option<NetworkId>,
    ) -> Result<Decision, Refusal> {
        let network = self.network_named(name)?;
        check_id(only, network.id, || format!("network {name}"))?;
        match self.endpoint_count_of(network.id) {
            0 => Ok(Decision::RemoveNetwork(network.clone())),
            endpoints => Err(Refusal::NetworkInUse { network: name.clone(), endpoints }),
        }
    }

    /// `said` is the row as the node describes itself. Its ids and its right to vote are decided here.
    fn register_node(&self, rules: u32, said: Node) -> Result<Decision, Refusal> {
        let (name, vtep) = (&said.name, said.vtep);
        let known = self.nodes().find(|node| node.instance == said.instance);
        let other = |node: &&Node| node.instance != said.instance;
        if let Some(node) = self.nodes().filter(other).find(|node| node.name == *name) {
            return Err(Refusal::NodeExists(node.name.clone()));
        }
        if let Some(node) = self.nodes().filter(other).find(|node| node.vtep == vtep) {
            return Err(Refusal::VtepExists { address: vtep, by: format!("node {}", node.name) });
        }
        if let Some(endpoint) = self.external_at(vtep) {
            let by = format!("external endpoint {}", endpoint.name);
            return Err(Refusal::VtepExists { address: vtep, by });
        }
        let (id, voter, raft_id, demoted) = match known {
            Some(node) => (node.id, node.voter, node.raft_id, node.demoted),
            None => {
                let voter = self.seated().count() < self.voters.count();
                let has_lives = self.version >= Version::V2;
                let raft_id = (voter && has_lives).then(|| RaftId::after(self.last_raft_id));
                (self.last_node_id + 1, voter, raft_id, false)
            }
        };
        let node = Node { id, voter, raft_id, demoted, ..said };
        match known {
            // The same registration again changes nothing. The epoch stays, because it fences out older
            // instances of the node.
            Some(known) if Node { epoch: known.epoch, ..node.clone() } == *known => {
                Ok(Decision::Nothing(Applied::Node(known.clone())))
            }
            _ => {
                let renumbering = self.renumber(rules, &node)?;
                Ok(Decision::PutNode { node, renumbering })
            }
        }
    }

    fn remove_node(
        &self,
        name: &NodeName,
        only: Option<NodeId>,
        with_endpoints: bool,
    ) -> Result<Decision, Refusal> {
        let node = self.node_named(name)?;
        check_id(only, node.id, || format!("node {name}"))?;
        self.check_not_the_last_voter(node)?;
        match self.endpoint_count_on(node.id) {
            endpoints if endpoints > 0 && !with_endpoints => {
                Err(Refusal::NodeInUse { node: name.clone(), endpoints })
            }
            _ => {
                let endpoints = self.endpoints_on(node.id).map(|endpoint| endpoint.id).collect();
                Ok(Decision::RemoveNode { node: node.clone(), endpoints })
            }
        }
    }

    /// An agent has no log, so that it needs no other life.
    fn begin_life(
        &self,
        name: &NodeName,
        only: NodeId,
        ended: Option<RaftId>,
    ) -> Result<Decision, Refusal> {
        let node = self.node_named(name)?;
        check_id(Some(only), node.id, || format!("node {name}"))?;
        let Some(found) = node.life() else {
            return Ok(Decision::Nothing(Applied::Node(node.clone())));
        };
        let ended = ended.map(RaftId::get);
        check_id(ended, found.get(), || format!("the membership of node {name}"))?;
        let raft_id = Some(RaftId::after(self.last_raft_id));
        Ok(Decision::BeginLife { node: Node { raft_id, ..node.clone() }, ended: found })
    }

    /// Carries out a decision. It cannot fail, because the decision has refused everything that can be refused.
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
                self.withdrawn.release(network.id, Revision::MAX);
                self.changes.push(revision, RowKey::Network(network.id));
                Applied::Removed(revision)
            }
            Decision::PutNode { node, renumbering } => {
                self.last_node_id = self.last_node_id.max(node.id);
                self.last_raft_id = self.last_raft_id.max(node.raft_id);
                if let Some(before) = self.nodes.get(&node.id) {
                    self.node_names.remove(&before.name);
                }
                if self.nodes.get(&node.id).is_some_and(|before| before.gateway != node.gateway) {
                    self.carry_out(revision, node.id, renumbering);
                }
                self.insert_node(node.clone());
                self.changes.push(revision, RowKey::Node(node.id));
                Applied::Node(node)
            }
            Decision::ExchangeVteps { node, other } => {
                for row in [&node, &other] {
                    self.insert_node(row.clone());
                    self.changes.push(revision, RowKey::Node(row.id));
                }
                Applied::Node(node)
            }
            Decision::BeginLife { node, ended: _ }
            | Decision::Promote(node)
            | Decision::Demote(node) => {
                self.last_raft_id = self.last_raft_id.max(node.raft_id);
                self.insert_node(node.clone());
                self.changes.push(revision, RowKey::Node(node.id));
                Applied::Node(node)
            }
            Decision::NoteLease(node) => {
                self.insert_node(node.clone());
                self.changes.push(revision, RowKey::Node(node.id));
                Applied::Node(node)
            }
            Decision::SetVoters(voters) => {
                self.voters = voters;
                Applied::Voters(voters)
            }
            Decision::RemoveNode { node, endpoints } => {
                for id in endpoints {
                    self.remove_row(revision, id);
                }
                self.nodes.remove(&node.id);
                self.node_names.remove(&node.name);
                self.last_leg.remove(&node.id);
                self.changes.push(revision, RowKey::Node(node.id));
                Applied::Removed(revision)
            }
            Decision::PutEndpoint { endpoint, given_out, leg_given_out, counted } => {
                if let (true, Some(address)) = (given_out, endpoint.addresses.v4) {
                    self.last_address.insert(endpoint.network, address);
                }
                if let (true, Some(node), Some(leg)) =
                    (leg_given_out, endpoint.node(), endpoint.leg)
                    && let Some(address) = leg.addresses.v4
                {
                    self.last_leg.insert(node, address);
                }
                self.last_leg_id = counted.unwrap_or(self.last_leg_id);
                self.insert_endpoint(endpoint.clone());
                self.changes.push(revision, RowKey::Endpoint(endpoint.network, endpoint.id));
                Applied::Endpoint(endpoint)
            }
            Decision::RemoveEndpoint(endpoint) => {
                self.remove_row(revision, endpoint.id);
                Applied::Removed(revision)
            }
            Decision::RaiseVersion { to, nodes } => {
                self.version = to;
                // Those that were given out so far are ids of nodes.
                self.last_raft_id = self.last_raft_id.max(RaftId::new(self.last_node_id));
                self.dedup = std::mem::take(&mut self.dedup).at(to);
                for node in nodes {
                    self.changes.push(revision, RowKey::Node(node.id));
                    self.insert_node(node);
                }
                Applied::Raised(to)
            }
        }
    }

    /// Removes an endpoint, and notes that it changed.
    fn remove_row(&mut self, revision: Revision, id: EndpointId) {
        if let Some(endpoint) = self.endpoints.get(&id).cloned() {
            self.forget_endpoint(&endpoint);
            if self.version >= Version::V2 {
                self.withdrawn.insert(withdrawn::Row::new(revision, &endpoint));
            }
            self.changes.push(revision, RowKey::Endpoint(endpoint.network, id));
        }
    }
}
