//! The service `Networks`: create, list, inspect and remove.

use super::{
    Api, decode,
    encoded::{Encoding, decoded},
    present, stale,
};
use crate::{
    control::controller::{InspectNetwork, NetworkDetail, Peers, Read, RemoveNetwork, Removed},
    proto::v1::{
        self, CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest,
        ListNetworksResponse, RemoveNetworkRequest, RemoveNetworkResponse,
        networks_server::Networks,
    },
};
use prost::bytes::Bytes;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Networks for Api {
    async fn create(
        &self,
        request: Request<CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        let request = decode::create_network(request.get_ref())?;
        let network = self.controller.create_network(request).await?;
        Ok(Response::new(present::network(network)))
    }

    async fn list(
        &self,
        request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        let reading = stale::reading(request.get_ref().stale);
        let Read { answer: rows, as_of } = self.controller.list_networks(reading).await?;
        let networks = rows.gather(Vec::new(), |into, row| {
            into.push(present::network(row));
            Ok(())
        });
        Ok(stale::answer(ListNetworksResponse { networks: networks.await? }, as_of))
    }

    async fn inspect(
        &self,
        request: Request<InspectNetworkRequest>,
    ) -> Result<Response<v1::NetworkDetail>, Status> {
        decoded(inspect_encoded(self.clone(), request).await?)
    }

    async fn remove(
        &self,
        request: Request<RemoveNetworkRequest>,
    ) -> Result<Response<RemoveNetworkResponse>, Status> {
        let RemoveNetworkRequest { name, request_id, id } = request.get_ref();
        let name = decode::network_name(name)?;
        let (request, only) = (decode::request_id(request_id)?, decode::only(*id));
        let request = RemoveNetwork { request, name, only };
        let Removed { revision } = self.controller.remove_network(request).await?;
        Ok(Response::new(RemoveNetworkResponse { revision }))
    }
}

/// The path of [`Networks::inspect`].
pub(super) const INSPECT: &str = "/overlay.v1.Networks/Inspect";

/// [`Networks::inspect`], encoded.
pub(super) async fn inspect_encoded(
    api: Api,
    request: Request<InspectNetworkRequest>,
) -> Result<Response<Bytes>, Status> {
    let InspectNetworkRequest { name, brief, stale } = request.get_ref();
    let reading = stale::reading(*stale);
    let request = InspectNetwork { name: decode::network_name(name)?, brief: *brief };
    let Read { answer, as_of } = api.controller.inspect_network(request, reading).await?;
    let NetworkDetail { network, endpoints } = answer;
    let mut encoding = Encoding::default();
    let network = Some(present::network(network));
    encoding.add(&v1::NetworkDetail { network, ..Default::default() })?;
    let gathered = endpoints.gather((encoding, Peers::default()), move |(encoding, peers), row| {
        peers.add(&row);
        let endpoints = vec![stale::endpoint(row, as_of)];
        encoding.add(&v1::NetworkDetail { endpoints, ..Default::default() })
    });
    let (mut encoding, peers) = gathered.await?;
    let peers = peers.finish().into_iter().map(present::peer).collect();
    encoding.add(&v1::NetworkDetail { peers, ..Default::default() })?;
    Ok(stale::answer(encoding.finish(), as_of))
}
