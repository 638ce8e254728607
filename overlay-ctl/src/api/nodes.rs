use super::{Api, controller::Attempt, decode, error::refused, present};
use crate::{
    peers::VoterParts,
    proto::v1::{
        self, InspectNodeRequest, ListNodesRequest, ListNodesResponse, RemoveNodeRequest,
        RemoveNodeResponse, nodes_client::NodesClient, nodes_server::Nodes,
    },
    state::{Applied, Command},
};
use futures::FutureExt as _;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Nodes for Api {
    async fn list(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        self.at_leader(
            request,
            |voter, _| list(voter.clone()).boxed(),
            |channel, request| async move { NodesClient::new(channel).list(request).await }.boxed(),
        )
        .await
    }

    async fn inspect(
        &self,
        request: Request<InspectNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        self.at_leader(
            request,
            |voter, message| inspect(voter.clone(), message).boxed(),
            |channel, request| {
                async move { NodesClient::new(channel).inspect(request).await }.boxed()
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

async fn remove(
    voter: VoterParts,
    message: RemoveNodeRequest,
) -> Result<RemoveNodeResponse, Attempt> {
    let request = decode::request_id(&message.request_id)?;
    let name = decode::node_name(&message.name)?;
    let command = Command::RemoveNode { name: name.clone() };
    voter.foretell(request, &command).await?;
    let leader = voter.consensus.status().borrow().leader;
    let id = voter.state.read(|state| state.node_named(&name).map(|node| node.id).ok());
    if id.is_some() && id == leader {
        return Err(Attempt::Failed(Status::failed_precondition(format!(
            "node {name} leads the cluster; stop it first, so that another one does"
        ))));
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
