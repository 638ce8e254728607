//! The service `Nodes`: list, inspect and remove.

use super::{
    Api, decode,
    error::refused,
    lists::{Lists, TURN},
    present,
    route::ANSWER_MAX,
};
use crate::{
    control::{
        controller::{Attempt, Foretold},
        state::{Applied, Command, Decision},
        voter::VoterParts,
    },
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
        let lists = self.lists.clone();
        self.at_leader(
            request,
            TURN,
            move |voter, _| list(voter.clone(), lists.clone()).boxed(),
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

async fn list(voter: VoterParts, lists: Lists) -> Result<ListNodesResponse, Attempt> {
    voter.consensus.read_index().await?;
    let members = voter.consensus.status().borrow().clone();
    let rows = voter.state.read(|state| state.nodes().count());
    let make = move || {
        let state = voter.state.copy();
        let nodes = state.nodes().map(|node| present::node(&state, &voter.table, &members, node));
        Ok(ListNodesResponse { nodes: nodes.collect() })
    };
    lists.make(rows, make).await
}

async fn inspect(voter: VoterParts, message: InspectNodeRequest) -> Result<v1::Node, Attempt> {
    let name = decode::node_name(&message.name)?;
    voter.consensus.read_index().await?;
    let members = voter.consensus.status().borrow().clone();
    let found = voter.state.read(|state| {
        state.node_named(&name).map(|node| present::node(state, &voter.table, &members, node))
    });
    found.map_err(|refusal| Attempt::Failed(refused(&refusal)))
}

/// In this order: the others can decide without the node, its row is gone, and the node finds out. It
/// wipes itself then, and nothing may need its vote any more.
async fn remove(
    voter: VoterParts,
    message: RemoveNodeRequest,
) -> Result<RemoveNodeResponse, Attempt> {
    let name = decode::node_name(&message.name)?;
    let command = Command::RemoveNode { name: name.clone(), only: decode::only(message.id) };
    let request = decode::request(&message.request_id, &command)?;
    // A repeated request is only answered: the name may be another node's by now.
    let id = match voter.foretell(request, &command).await? {
        Foretold::New(Decision::RemoveNode(node)) => Some(node.id),
        _ => None,
    };
    // Until its row is gone it would be made a member again, by that row: see `follow_the_rows`.
    let _hold = id.map(|id| voter.leaving.hold(id));
    if let Some(id) = id {
        // A leader that is to remove itself hands over and says so: the new one carries this out.
        voter.consensus.remove(id).await?;
    }
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
