use super::{Api, decode, error::refused, present, route::ANSWER_MAX};
use crate::{
    control::{
        controller::Attempt,
        state::{Applied, Command},
        voter::VoterParts,
    },
    model::NodeId,
    proto::v1::{
        self, InspectNodeRequest, ListNodesRequest, ListNodesResponse, RemoveNodeRequest,
        RemoveNodeResponse, nodes_client::NodesClient, nodes_server::Nodes,
    },
};
use futures::FutureExt as _;
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Nodes for Api {
    async fn list(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, _| list(voter.clone()).boxed(),
            |channel, request| {
                async move {
                    NodesClient::new(channel)
                        .max_decoding_message_size(ANSWER_MAX)
                        .list(request)
                        .await
                }
                .boxed()
            },
        )
        .await
    }

    async fn inspect(
        &self,
        request: Request<InspectNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, message| inspect(voter.clone(), message).boxed(),
            |channel, request| {
                async move {
                    NodesClient::new(channel)
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
        mut request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let message = request.get_mut();
        message.request_id = decode::request_id(&message.request_id)?.to_vec();
        decode::node_name(&message.name)?;
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, message| remove(voter.clone(), message).boxed(),
            |channel, request| {
                async move { NodesClient::new(channel).remove(request).await }.boxed()
            },
        )
        .await
    }
}

async fn list(voter: VoterParts) -> Result<ListNodesResponse, Attempt> {
    voter.consensus.read_index().await?;
    let leader = voter.consensus.status().borrow().leader;
    Ok(voter.state.read(|state| ListNodesResponse {
        nodes: state.nodes().map(|node| present::node(state, &voter.table, leader, node)).collect(),
    }))
}

async fn inspect(voter: VoterParts, message: InspectNodeRequest) -> Result<v1::Node, Attempt> {
    let name = decode::node_name(&message.name)?;
    voter.consensus.read_index().await?;
    let leader = voter.consensus.status().borrow().leader;
    let found = voter.state.read(|state| {
        state.node_named(&name).map(|node| present::node(state, &voter.table, leader, node))
    });
    found.map_err(|refusal| Attempt::Failed(refused(&refusal)))
}

/// A cluster must be able to decide without the voter that goes.
fn check_quorum_without(
    status: &crate::control::consensus::Status,
    gone: NodeId,
) -> Result<(), Status> {
    if !status.voters.contains(&gone) {
        return Ok(());
    }
    let left: Vec<NodeId> = status.voters.iter().copied().filter(|voter| *voter != gone).collect();
    if left.is_empty() {
        return Err(Status::failed_precondition(
            "it is the cluster's only voter; to end the cluster, stop it and remove its state folder",
        ));
    }
    let answers = |voter: &&NodeId| {
        **voter == status.id
            || status.peers.iter().any(|peer| peer.id == **voter && peer.recent_active)
    };
    let alive = left.iter().filter(answers).count();
    if alive * 2 > left.len() {
        return Ok(());
    }
    Err(Status::failed_precondition(format!(
        "of the other {} voters {alive} answer, which is no quorum; start those that are down first",
        left.len()
    )))
}

async fn remove(
    voter: VoterParts,
    message: RemoveNodeRequest,
) -> Result<RemoveNodeResponse, Attempt> {
    let request = decode::request_id(&message.request_id)?;
    let name = decode::node_name(&message.name)?;
    let command = Command::RemoveNode { name: name.clone() };
    voter.foretell(request, &command).await?;
    let id = voter.state.read(|state| state.node_named(&name).map(|node| node.id).ok());
    if let Some(id) = id {
        check_quorum_without(&voter.consensus.status().borrow(), id)?;
        if Some(id) == voter.consensus.status().borrow().leader {
            // Hands leadership over and answers that it did: the new leader carries this out.
            voter.consensus.remove(id).await?;
        }
    }
    // Who votes follows from the rows: see `node::members`.
    match voter.execute(request, command).await? {
        Applied::Removed(revision) => {
            if let Some(id) = id {
                voter.table.forget(id);
            }
            tracing::info!(node = %name, "node removed");
            Ok(RemoveNodeResponse { revision })
        }
        other => unreachable!("a removal answers a removal, not {other:?}"),
    }
}
