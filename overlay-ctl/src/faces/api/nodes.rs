//! The service `Nodes`: list, inspect and remove.

use super::{Api, decode, present};
use crate::{
    control::controller::{InspectNode, RemoveNode, Removed},
    proto::v1::{
        self, InspectNodeRequest, ListNodesRequest, ListNodesResponse, RemoveNodeRequest,
        RemoveNodeResponse, nodes_server::Nodes,
    },
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Nodes for Api {
    async fn list(
        &self,
        _request: Request<ListNodesRequest>,
    ) -> Result<Response<ListNodesResponse>, Status> {
        let rows = self.controller.list_nodes().await?;
        let nodes = rows.gather(Vec::new(), |into, row| {
            into.push(present::node(row));
            Ok(())
        });
        Ok(Response::new(ListNodesResponse { nodes: nodes.await? }))
    }

    async fn inspect(
        &self,
        request: Request<InspectNodeRequest>,
    ) -> Result<Response<v1::Node>, Status> {
        let request = InspectNode { name: decode::node_name(&request.get_ref().name)? };
        Ok(Response::new(present::node(self.controller.inspect_node(request).await?)))
    }

    async fn remove(
        &self,
        request: Request<RemoveNodeRequest>,
    ) -> Result<Response<RemoveNodeResponse>, Status> {
        let RemoveNodeRequest { name, request_id, id } = request.get_ref();
        let (request, only) = (decode::request_id(request_id)?, decode::only(*id));
        let request = RemoveNode { request, name: decode::node_name(name)?, only };
        let Removed { revision } = self.controller.remove_node(request).await?;
        Ok(Response::new(RemoveNodeResponse { revision }))
    }
}
