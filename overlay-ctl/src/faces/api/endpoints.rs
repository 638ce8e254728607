//! The service `Endpoints`: create, list, inspect and remove.

use super::{
    Api, decode,
    error::refused,
    lists::{Encoding, Lists, TURN, decoded, forward},
    present,
    route::ANSWER_MAX,
};
use crate::{
    control::{
        consensus::Role,
        controller::{Attempt, Foretold, check::Check},
        state::{Applied, Command, Decision, Mutation, Refusal, State},
        voter::VoterParts,
    },
    model::{Endpoint, NetworkId, NodeId},
    proto::v1::{
        self, CreateEndpointRequest, CreateEndpointResponse, InspectEndpointRequest,
        ListEndpointsRequest, ListEndpointsResponse, RemoveEndpointRequest, RemoveEndpointResponse,
        endpoints_client::EndpointsClient, endpoints_server::Endpoints,
    },
};
use futures::FutureExt as _;
use prost::bytes::Bytes;
use std::{collections::BTreeSet, time::Duration};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// How long a creation or removal waits for the kernels of the nodes concerned.
const PROGRAM_DEADLINE: Duration = Duration::from_secs(10);
/// How often a wait looks whether the node fell silent.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

#[tonic::async_trait]
impl Endpoints for Api {
    async fn create(
        &self,
        mut request: Request<CreateEndpointRequest>,
    ) -> Result<Response<CreateEndpointResponse>, Status> {
        let message = request.get_mut();
        message.request_id = decode::request_id(&message.request_id)?.to_vec();
        if message.vtep.is_empty() && message.node.is_empty() {
            message.node = self.name.to_string();
        }
        decode::create_endpoint(message)?;
        let check =
            Check { own: self.id, here: self.check.clone(), directory: self.directory.clone() };
        self.at_leader(
            request,
            PROGRAM_DEADLINE,
            move |voter, message| {
                // On a task of its own: a caller that goes away must not keep an endpoint that can't
                // be made from being taken back.
                let create = tokio::spawn(create(voter.clone(), check.clone(), message));
                async move {
                    create.await.unwrap_or_else(|error| {
                        Err(Attempt::Failed(Status::internal(error.to_string())))
                    })
                }
                .boxed()
            },
            |channel, request| {
                async move { EndpointsClient::new(channel).create(request).await }.boxed()
            },
        )
        .await
    }

    async fn list(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        decoded(list_encoded(self.clone(), request).await?)
    }

    async fn inspect(
        &self,
        request: Request<InspectEndpointRequest>,
    ) -> Result<Response<v1::Endpoint>, Status> {
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, message| inspect(voter.clone(), message).boxed(),
            |channel, request| {
                async move {
                    EndpointsClient::new(channel)
                        .max_decoding_message_size(ANSWER_MAX)
                        .inspect(request)
                        .await
                }
                .boxed()
            },
        )
        .await
    }

    async fn remove(
        &self,
        mut request: Request<RemoveEndpointRequest>,
    ) -> Result<Response<RemoveEndpointResponse>, Status> {
        let message = request.get_mut();
        message.request_id = decode::request_id(&message.request_id)?.to_vec();
        decode::endpoint_name(&message.name)?;
        decode::optional_network_name(&message.network)?;
        self.at_leader(
            request,
            PROGRAM_DEADLINE,
            |voter, message| remove(voter.clone(), message).boxed(),
            |channel, request| {
                async move { EndpointsClient::new(channel).remove(request).await }.boxed()
            },
        )
        .await
    }
}

async fn create(
    voter: VoterParts,
    check: Check,
    message: CreateEndpointRequest,
) -> Result<CreateEndpointResponse, Attempt> {
    let mut command = decode::create_endpoint(&message)?;
    let request = decode::request(&message.request_id, &command)?;
    if let Foretold::New(_) = voter.foretell(request, &command).await? {
        check.ask(&voter, &mut command).await?;
    }
    let endpoint = match voter.execute(request, command).await? {
        Applied::Endpoint(endpoint) => endpoint,
        other => unreachable!("an endpoint's creation answers an endpoint, not {other:?}"),
    };
    tracing::info!(endpoint = %endpoint.name, id = endpoint.id, address = %endpoint.address, "endpoint created");
    let mut lagging = BTreeSet::new();
    if !message.no_wait {
        let deadline = Instant::now() + PROGRAM_DEADLINE;
        if let Some(node) = endpoint.node()
            && let Some(reason) =
                while_leading(&voter, wait_until_up(&voter, node, &endpoint, deadline)).await?
        {
            undo(&voter, &endpoint).await;
            return Err(Attempt::Failed(Status::failed_precondition(format!(
                "node {} could not make the endpoint: {reason}",
                message.node
            ))));
        }
        let wait = wait_for_kernels(&voter, &endpoint, endpoint.id, deadline);
        lagging = while_leading(&voter, wait).await?;
        still_there(&voter, &endpoint)?;
    }
    Ok(voter.state.read(|state| CreateEndpointResponse {
        endpoint: Some(present::endpoint(state, &voter.table, &endpoint)),
        lagging_nodes: names(state, &lagging),
    }))
}

fn is_there(voter: &VoterParts, endpoint: &Endpoint) -> bool {
    voter.state.read(|state| state.endpoint(endpoint.id).is_some())
}

fn still_there(voter: &VoterParts, endpoint: &Endpoint) -> Result<(), Status> {
    if is_there(voter, endpoint) {
        return Ok(());
    }
    Err(refused(&Refusal::Gone { what: format!("endpoint {}", endpoint.name) }))
}

/// Waits for as long as this node leads: statuses come to the leader alone.
async fn while_leading<T>(voter: &VoterParts, wait: impl Future<Output = T>) -> Result<T, Attempt> {
    let mut status = voter.consensus.status();
    tokio::select! {
        waited = wait => Ok(waited),
        _ = status.wait_for(|status| status.role != Role::Leader) => {
            Err(Attempt::Again("the leader changed"))
        }
    }
}

/// Waits until the node's status speaks of the endpoint, or there is none any more. The reason, if it
/// is down.
async fn wait_until_up(
    voter: &VoterParts,
    node: NodeId,
    endpoint: &Endpoint,
    deadline: Instant,
) -> Option<String> {
    let mut changed = voter.table.watch();
    loop {
        changed.borrow_and_update();
        if let Some(Some(health)) = voter.table.health(node, endpoint.id) {
            return (!health.up).then_some(health.reason);
        }
        if !is_there(voter, endpoint) {
            return None;
        }
        // Late: the answer names the node as lagging.
        if voter.table.is_down(node) || Instant::now() >= deadline {
            return None;
        }
        let look_again = deadline.min(Instant::now() + LOOK_AGAIN);
        drop(tokio::time::timeout_at(look_again, changed.changed()).await);
    }
}

/// Waits until every live node with an endpoint of the network has programmed `revision`. Those that
/// have not.
async fn wait_for_kernels(
    voter: &VoterParts,
    endpoint: &Endpoint,
    revision: u64,
    deadline: Instant,
) -> BTreeSet<NodeId> {
    let mut nodes = voter.state.read(|state| state.nodes_of(endpoint.network));
    nodes.extend(endpoint.node());
    let down: BTreeSet<NodeId> =
        nodes.iter().copied().filter(|node| voter.table.is_down(*node)).collect();
    let alive = &nodes - &down;
    let left = deadline.saturating_duration_since(Instant::now());
    let late = voter.table.wait_programmed(alive, revision, left).await;
    &late | &down
}

/// Takes back an endpoint that its node could not make.
async fn undo(voter: &VoterParts, endpoint: &Endpoint) {
    let network = voter.state.read(|state| state.network(endpoint.network).map(|n| n.name.clone()));
    let command =
        Command::RemoveEndpoint { name: endpoint.name.clone(), network, only: Some(endpoint.id) };
    let request = Mutation::new(*uuid::Uuid::new_v4().as_bytes(), &command);
    if voter.execute(request, command).await.is_err() {
        // The endpoint stays, shown as down with its reason; `endpoint rm` removes it.
        tracing::error!(endpoint = %endpoint.name, id = endpoint.id, "could not take the endpoint back");
    }
}

fn names(state: &State, nodes: &BTreeSet<NodeId>) -> Vec<String> {
    let named = nodes.iter().filter_map(|id| state.node(*id));
    named.map(|node| node.name.to_string()).collect()
}

/// The path of [`Endpoints::list`].
pub(super) const LIST: &str = "/overlay.v1.Endpoints/List";

/// [`Endpoints::list`], encoded.
pub(super) async fn list_encoded(
    api: Api,
    request: Request<ListEndpointsRequest>,
) -> Result<Response<Bytes>, Status> {
    let lists = api.lists.clone();
    api.at_leader(
        request,
        TURN,
        move |voter, message| list(voter.clone(), lists.clone(), message).boxed(),
        |channel, request| forward(channel, LIST, request).boxed(),
    )
    .await
}

async fn list(
    voter: VoterParts,
    lists: Lists,
    message: ListEndpointsRequest,
) -> Result<Bytes, Attempt> {
    let network = decode::optional_network_name(&message.network)?;
    let node = if message.node.is_empty() { None } else { Some(decode::node_name(&message.node)?) };
    voter.consensus.read_index().await?;
    let found = voter.state.read(|state| {
        let network = network.map(|name| state.network_named(&name).map(|row| row.id));
        let node = node.map(|name| state.node_named(&name).map(|row| row.id));
        let wanted = Wanted { network: network.transpose()?, node: node.transpose()? };
        Ok((wanted.count(state), wanted))
    });
    let (rows, wanted) = found.map_err(|refusal: Refusal| refused(&refusal))?;
    let make = move || {
        let state = voter.state.copy();
        let mut encoding = Encoding::default();
        for endpoint in wanted.endpoints(&state) {
            let shown = present::endpoint(&state, &voter.table, endpoint);
            encoding.add(&ListEndpointsResponse { endpoints: vec![shown] })?;
        }
        Ok(encoding.finish())
    };
    lists.make(rows, make).await
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

async fn inspect(
    voter: VoterParts,
    message: InspectEndpointRequest,
) -> Result<v1::Endpoint, Attempt> {
    let name = decode::endpoint_name(&message.name)?;
    let network = decode::optional_network_name(&message.network)?;
    voter.consensus.read_index().await?;
    let found = voter.state.read(|state| {
        let endpoint = state.endpoint_named(&name, network.as_ref())?;
        Ok::<_, Refusal>(present::endpoint(state, &voter.table, endpoint))
    });
    found.map_err(|refusal| Attempt::Failed(refused(&refusal)))
}

async fn remove(
    voter: VoterParts,
    message: RemoveEndpointRequest,
) -> Result<RemoveEndpointResponse, Attempt> {
    let name = decode::endpoint_name(&message.name)?;
    let network = decode::optional_network_name(&message.network)?;
    let only = decode::only(message.id);
    let command = Command::RemoveEndpoint { name: name.clone(), network, only };
    let request = decode::request(&message.request_id, &command)?;
    // Before it is gone, and in a state that is not behind: who has to forget it.
    let peers = match voter.foretell(request, &command).await? {
        Foretold::New(Decision::RemoveEndpoint(endpoint)) => {
            voter.state.read(|state| state.nodes_of(endpoint.network))
        }
        _ => BTreeSet::new(),
    };
    let revision = match voter.execute(request, command).await? {
        Applied::Removed(revision) => revision,
        other => unreachable!("a removal answers a removal, not {other:?}"),
    };
    tracing::info!(endpoint = %name, "endpoint removed");
    if !message.no_wait {
        let mut alive = peers;
        alive.retain(|node| !voter.table.is_down(*node));
        let late = voter.table.wait_programmed(alive, revision, PROGRAM_DEADLINE).await;
        if !late.is_empty() {
            tracing::warn!(endpoint = %name, nodes = ?late, "nodes have not forgotten it yet");
        }
    }
    Ok(RemoveEndpointResponse { revision })
}
