//! The service `Nodes`: list, inspect, remove, and who has a seat.

use super::{Api, decode, present, stale};
use crate::{
    control::controller::{DemoteNode, InspectNode, PromoteNode, Read, RemoveNode, Removed},
    proto::v1::{
        self, DemoteNodeRequest, InspectNodeRequest, ListNodesRequest, ListNodesResponse,
        PromoteNodeRequest, RemoveNodeRequest, RemoveNodeResponse, nodes_server::Nodes,
    },
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Nodes for Api {
    async fn list(
        &self,
        request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let reading = stale::reading(request.get_ref().stale);
        let Read { answer: rows, as_of } = self.controller.list_nodes(reading).await?;
        let nodes = rows.gather(Vec::new(), move |into, row| {
            into.push(stale::node(row, as_of));
            Ok(())
        });
        Ok(stale::answer(ListNodesResponse { nodes: nodes.await? }, as_of))
    }

    async fn inspect(
        &self,
        request: Request<InspectNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let InspectNodeRequest { name, stale } = request.get_ref();
        let (request, reading) =
            (InspectNode { name: decode::node_name(name)? }, stale::reading(*stale));
        let Read { answer, as_of } = self.controller.inspect_node(request, reading).await?;
        Ok(stale::answer(stale::node(answer, as_of), as_of))
    }

    async fn remove(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let RemoveNodeRequest { name, force, request_id, id } = request.get_ref();
        let (request, only) = (decode::request_id(request_id)?, decode::only(*id));
        let name = decode::node_name(name)?;
        let request = RemoveNode { request, name, only, force: *force };
        let Removed { revision } = self.controller.remove_node(request).await?;
        Ok(Response::new(RemoveNodeResponse { revision }))
    }

    async fn promote(
        &self,
        request: Request<PromoteNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let PromoteNodeRequest { name, request_id, id } = request.get_ref();
        let (request, only) = (decode::request_id(request_id)?, decode::only(*id));
        let request = PromoteNode { request, name: decode::node_name(name)?, only };
        Ok(Response::new(present::node(self.controller.promote_node(request).await?)))
    }

    async fn demote(
        &self,
        request: Request<DemoteNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let DemoteNodeRequest { name, request_id, id } = request.get_ref();
        let (request, only) = (decode::request_id(request_id)?, decode::only(*id));
        let request = DemoteNode { request, name: decode::node_name(name)?, only };
        Ok(Response::new(present::node(self.controller.demote_node(request).await?)))
    }
}
