//! Requests about endpoints: create, list, inspect and remove.

use super::{
    barrier::{DryRun, Fresh},
    error::{Attempt, ControllerError, Effect},
    forgotten::{self, FORGET_DEADLINE, names},
    info::EndpointInfo,
    lists::{Rows, TURN},
    program::{Made, PROGRAM_DEADLINE, is_there, wait_for_kernels, wait_until_up, while_leading},
    verb::{Leader, Verb},
};
use crate::{
    control::{
        state::{
            Applied, Command, Decision, Mutation, Noted, Placement, PortsWanted, Refusal,
            RequestId, State,
        },
        voter::VoterParts,
    },
    model::{
        Endpoint, EndpointId, EndpointName, Invalid, NetworkId, NetworkName, NodeId, NodeName,
        Permissions, Revision,
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// Makes an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CreateEndpoint {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Must be free on the network.
    pub name: EndpointName,
    /// Its network.
    pub network: NetworkName,
    /// Where it will be.
    pub placement: Placement,
    /// What it may send beyond its own MAC and address.
    #[serde(rename = "forwards")]
    pub permissions: Permissions,
    /// Other names on its network.
    pub aliases: BTreeSet<EndpointName>,
    /// The ports that it shows to the outside.
    pub ports: PortsWanted,
    /// Wait until its node has made it, and until the nodes of its network can reach it.
    pub wait: bool,
}

/// A new endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCreated {
    /// The endpoint.
    pub endpoint: EndpointInfo,
    /// The nodes of its network that do not know it yet, or are down.
    pub lagging: Vec<NodeName>,
}

impl Verb for CreateEndpoint {
    const NAME: &str = "CreateEndpoint";
    type Answer = EndpointCreated;
    const CHANGES: bool = true;
    const WAITS: Duration = PROGRAM_DEADLINE.saturating_add(FORGET_DEADLINE);

    fn check(&self) -> Result<(), Invalid> {
        Self::check(self)
    }

    async fn carry_out(self, leader: Leader) -> Result<EndpointCreated, Attempt> {
        // On a task of its own: a caller that goes away must not keep an endpoint that can't be made from being
        // removed again.
        let create = tokio::spawn(self.create(leader)).await;
        // Of a build in which a panic ends only its task; a release build ends the process.
        create.unwrap_or_else(|panic| {
            let (why, effect) = (panic.to_string(), Effect::Unknown);
            Err(Attempt::Failed(ControllerError::Defect { why, effect }))
        })
    }
}

impl CreateEndpoint {
    async fn create(self, leader: Leader) -> Result<EndpointCreated, Attempt> {
        let Leader { voter, check, .. } = leader;
        let Self { request, name, network, placement, permissions, aliases, ports, wait } = self;
        let of = network.clone();
        let mut command =
            Command::CreateEndpoint { name, network, placement, permissions, aliases, ports };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        let mut noted = Noted::default();
        let decided =
            forgotten::dry_run(&voter, &fresh, request, &command, &of, &mut noted).await?;
        if let DryRun::New(_) = decided {
            check.ask(&voter, &fresh, &mut command).await?;
        }
        noted.provisional = if wait { run_of(&voter, &fresh, &command) } else { None };
        let endpoint = match fresh.execute_noting(&voter, request, command, noted).await? {
            Applied::Endpoint(endpoint) => endpoint,
            other => unreachable!("an endpoint's creation answers an endpoint, not {other:?}"),
        };
        tracing::info!(endpoint = %endpoint.name, id = endpoint.id, address = %endpoint.addresses, "endpoint created");
        let lagging = if wait {
            wait_for(&voter, &fresh, &endpoint).await?
        } else {
            // Of a request that waited when it was sent first.
            keep(&voter, &fresh, &endpoint).await?;
            BTreeSet::new()
        };
        Ok(fresh.read(&voter, |state| EndpointCreated {
            endpoint: EndpointInfo::new(state, &voter.table, &endpoint),
            lagging: names(state, &lagging),
        }))
    }
}

/// Waits until the endpoint works, and removes it again if its node can't make it. Answers the nodes that lag.
async fn wait_for(
    voter: &VoterParts,
    fresh: &Fresh,
    endpoint: &Endpoint,
) -> Result<BTreeSet<NodeId>, Attempt> {
    let deadline = Instant::now() + PROGRAM_DEADLINE;
    if let Some(node) = endpoint.node() {
        match while_leading(voter, wait_until_up(voter, node, endpoint, deadline)).await? {
            Made::Down(reason) => {
                let name = |state: &State| state.node(node).map(|node| node.name.clone());
                let name = fresh.read(voter, name);
                let taken_back = take_back(voter, fresh, endpoint).await?;
                return Err(Attempt::Failed(match name {
                    Some(node) => ControllerError::NotMade { node, reason, taken_back },
                    // Its endpoints went with it.
                    None => gone(endpoint).into(),
                }));
            }
            Made::Unknown => keep(voter, fresh, endpoint).await?,
            Made::Up | Made::Gone => {}
        }
    }
    let wait = wait_for_kernels(voter, endpoint, endpoint.id, deadline);
    let lagging = while_leading(voter, wait).await?;
    if is_there(voter, endpoint) {
        return Ok(lagging);
    }
    Err(gone(endpoint).into())
}

fn gone(endpoint: &Endpoint) -> Refusal {
    Refusal::Gone { what: format!("endpoint {}", endpoint.name) }
}

/// The run of the data plane that is to make the new endpoint; `None` where no node says it, or no node is to make it.
fn run_of(voter: &VoterParts, fresh: &Fresh, command: &Command) -> Option<u64> {
    let Command::CreateEndpoint { placement: Placement::Node { node, .. }, .. } = command else {
        return None;
    };
    let id = fresh.read(voter, |state| state.node_named(node).map(|node| node.id));
    voter.table.run(id.ok()?)
}

/// Makes an endpoint stay whatever its node says of it later, because the caller is told that it was made.
async fn keep(voter: &VoterParts, fresh: &Fresh, endpoint: &Endpoint) -> Result<(), Attempt> {
    if endpoint.provisional.is_none() {
        return Ok(());
    }
    let command = Command::KeepEndpoint { id: endpoint.id };
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    match fresh.execute(voter, request, command).await {
        Ok(_) => Ok(()),
        Err(Attempt::Failed(ControllerError::Refused(Refusal::Gone { .. }))) => {
            Err(gone(endpoint).into())
        }
        Err(failed) => Err(failed.of_an_effect()),
    }
}

/// Removes an endpoint that its node could not make. Answers whether it is gone. Where that can't be told, the attempt fails:
/// the next one finds the endpoint, and removes it, and whoever leads does if there is none.
async fn take_back(
    voter: &VoterParts,
    fresh: &Fresh,
    endpoint: &Endpoint,
) -> Result<bool, Attempt> {
    let network = fresh
        .read(voter, |state| state.network(endpoint.network).map(|network| network.name.clone()));
    let command =
        Command::RemoveEndpoint { name: endpoint.name.clone(), network, only: Some(endpoint.id) };
    let request = Mutation::new(Uuid::new_v4().into_bytes(), &command);
    match fresh.execute(voter, request, command).await {
        Ok(_) => Ok(true),
        // Somebody else may have removed it.
        Err(Attempt::Failed(ControllerError::Refused(_))) => Ok(!is_there(voter, endpoint)),
        Err(failed) => {
            tracing::warn!(endpoint = %endpoint.name, id = endpoint.id, "the endpoint is not taken back yet");
            Err(failed.of_an_effect())
        }
    }
}

/// Lists endpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListEndpoints {
    /// Only those of this network.
    pub network: Option<NetworkName>,
    /// Only those on this node.
    pub node: Option<NodeName>,
}

impl Verb for ListEndpoints {
    const NAME: &str = "ListEndpoints";
    /// By id.
    type Answer = Rows<EndpointInfo>;
    const CHANGES: bool = false;
    const WAITS: Duration = TURN;

    async fn carry_out(self, leader: Leader) -> Result<Rows<EndpointInfo>, Attempt> {
        let state = leader.state().await?;
        let Leader { voter, lists, .. } = leader;
        let network = self.network.map(|name| state.network_named(&name).map(|row| row.id));
        let node = self.node.map(|name| state.node_named(&name).map(|row| row.id));
        let wanted = Wanted { network: network.transpose()?, node: node.transpose()? };
        Ok(Rows::new(&lists, wanted.count(&state), move |take| {
            let rows = wanted.endpoints(&state);
            rows.map(|row| EndpointInfo::new(&state, &voter.table, row)).try_for_each(take)
        }))
    }
}

/// Which endpoints a list has.
struct Wanted {
    network: Option<NetworkId>,
    node: Option<NodeId>,
}

impl Wanted {
    /// How many rows are looked at.
    fn count(&self, state: &State) -> usize {
        match (self.network, self.node) {
            (Some(network), _) => state.endpoint_count_of(network),
            (None, Some(node)) => state.endpoint_count_on(node),
            (None, None) => state.endpoint_count(),
        }
    }

    /// The endpoints, by id.
    fn endpoints<'a>(&self, state: &'a State) -> Box<dyn Iterator<Item = &'a Endpoint> + 'a> {
        let by_id = |mut endpoints: Vec<&'a Endpoint>| {
            endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
            Box::new(endpoints.into_iter())
        };
        match (self.network, self.node) {
            (Some(network), None) => by_id(state.endpoints_of(network).collect()),
            (Some(network), Some(node)) => {
                let is_on = |endpoint: &&Endpoint| endpoint.node() == Some(node);
                by_id(state.endpoints_of(network).filter(is_on).collect())
            }
            (None, Some(node)) => by_id(state.endpoints_on(node).collect()),
            (None, None) => Box::new(state.endpoints()),
        }
    }
}

/// Shows an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InspectEndpoint {
    /// Which.
    pub name: EndpointName,
    /// Needed only if endpoints of several networks have the name.
    pub network: Option<NetworkName>,
}

impl Verb for InspectEndpoint {
    const NAME: &str = "InspectEndpoint";
    type Answer = EndpointInfo;
    const CHANGES: bool = false;
    const WAITS: Duration = Duration::ZERO;

    async fn carry_out(self, leader: Leader) -> Result<EndpointInfo, Attempt> {
        let state = leader.state().await?;
        let row = state.endpoint_named(&self.name, self.network.as_ref())?;
        Ok(EndpointInfo::new(&state, &leader.voter.table, row))
    }
}

/// Removes an endpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RemoveEndpoint {
    /// The caller's id for the request: repeated, it is carried out once.
    pub request: RequestId,
    /// Which.
    pub name: EndpointName,
    /// Needed only if endpoints of several networks have the name.
    pub network: Option<NetworkName>,
    /// Only if it is the one of this id, and not a successor.
    pub only: Option<EndpointId>,
    /// Wait until the nodes of its network have forgotten it.
    pub wait: bool,
}

/// A removed endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRemoved {
    /// The revision since which it is gone.
    pub revision: Revision,
    /// The nodes of its network that have not forgotten it yet, or are down. Its name and address are not given out again
    /// before each of them has, or counts as lost for a while.
    #[serde(default)]
    pub lagging: Vec<NodeName>,
}

impl Verb for RemoveEndpoint {
    const NAME: &str = "RemoveEndpoint";
    type Answer = EndpointRemoved;
    const CHANGES: bool = true;
    const WAITS: Duration = PROGRAM_DEADLINE;

    async fn carry_out(self, Leader { voter, .. }: Leader) -> Result<EndpointRemoved, Attempt> {
        let Self { request, name, network, only, wait } = self;
        let command = Command::RemoveEndpoint { name: name.clone(), network, only };
        let request = Mutation::new(request, &command);
        let fresh = Fresh::wait(&voter).await?;
        let mut noted = Noted::default();
        // Before it is gone: the nodes that have to forget it.
        let peers = match fresh.dry_run(&voter, request, &command)? {
            DryRun::New(Decision::RemoveEndpoint(endpoint)) => {
                forgotten::note(&voter, &fresh, endpoint.network, &mut noted);
                fresh.read(&voter, |state| state.nodes_of(endpoint.network))
            }
            _ => BTreeSet::new(),
        };
        let revision = match fresh.execute_noting(&voter, request, command, noted).await? {
            Applied::Removed(revision) => revision,
            other => unreachable!("a removal answers a removal, not {other:?}"),
        };
        tracing::info!(endpoint = %name, "endpoint removed");
        if !wait {
            return Ok(EndpointRemoved { revision, lagging: Vec::new() });
        }
        // It ends early where all that are late are down.
        let late = voter.table.wait_programmed(peers, revision, PROGRAM_DEADLINE).await;
        let lagging = fresh.read(&voter, |state| names(state, &late));
        if !lagging.is_empty() {
            tracing::warn!(endpoint = %name, nodes = ?lagging, "nodes have not forgotten it yet");
        }
        Ok(EndpointRemoved { revision, lagging })
    }
}
