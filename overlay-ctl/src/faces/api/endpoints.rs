//! The service `Endpoints`: create, list, inspect and remove.

use super::{
    Api, decode,
    encoded::{Encoding, decoded},
    present, stale,
};
use crate::{
    control::controller::{
        EndpointCreated, EndpointRemoved, InspectEndpoint, ListEndpoints, Read, RemoveEndpoint,
    },
    proto::v1::{
        self, CreateEndpointRequest, CreateEndpointResponse, InspectEndpointRequest,
        ListEndpointsRequest, ListEndpointsResponse, RemoveEndpointRequest, RemoveEndpointResponse,
        endpoints_server::Endpoints,
    },
};
use prost::bytes::Bytes;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Endpoints for Api {
    async fn create(
        &self,
        request: Request<CreateEndpointRequest>,
    ) -> Result<Response<CreateEndpointResponse>, Status> {
        let request = decode::create_endpoint(request.get_ref(), &self.name)?;
        let EndpointCreated { endpoint, lagging } =
            self.controller.create_endpoint(request).await?;
        Ok(Response::new(CreateEndpointResponse {
            endpoint: Some(present::endpoint(endpoint)),
            lagging_nodes: lagging.iter().map(ToString::to_string).collect(),
        }))
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
        let InspectEndpointRequest { name, network, stale } = request.get_ref();
        let (name, reading) = (decode::endpoint_name(name)?, stale::reading(*stale));
        let request = InspectEndpoint { name, network: decode::optional_network_name(network)? };
        let Read { answer, as_of } = self.controller.inspect_endpoint(request, reading).await?;
        Ok(stale::answer(stale::endpoint(answer, as_of), as_of))
    }

    async fn remove(
        &self,
        request: Request<RemoveEndpointRequest>,
    ) -> Result<Response<RemoveEndpointResponse>, Status> {
        let RemoveEndpointRequest { name, network, id, request_id, no_wait } = request.get_ref();
        let request = RemoveEndpoint {
            request: decode::request_id(request_id)?,
            name: decode::endpoint_name(name)?,
            network: decode::optional_network_name(network)?,
            only: decode::only(*id),
            wait: !*no_wait,
        };
        let EndpointRemoved { revision, lagging } =
            self.controller.remove_endpoint(request).await?;
        let lagging_nodes = lagging.iter().map(ToString::to_string).collect();
        Ok(Response::new(RemoveEndpointResponse { revision, lagging_nodes }))
    }
}

/// The path of [`Endpoints::list`].
pub(super) const LIST: &str = "/overlay.v1.Endpoints/List";

/// [`Endpoints::list`], encoded.
pub(super) async fn list_encoded(
    api: Api,
    request: Request<ListEndpointsRequest>,
) -> Result<Response<Bytes>, Status> {
    let ListEndpointsRequest { network, node, stale } = request.get_ref();
    let reading = stale::reading(*stale);
    let request = ListEndpoints {
        network: decode::optional_network_name(network)?,
        node: decode::optional_node_name(node)?,
    };
    let Read { answer: rows, as_of } = api.controller.list_endpoints(request, reading).await?;
    let encoding = rows.gather(Encoding::default(), move |encoding, row| {
        encoding.add(&ListEndpointsResponse { endpoints: vec![stale::endpoint(row, as_of)] })
    });
    Ok(stale::answer(encoding.await?.finish(), as_of))
}
