use super::{Api, decode, error::refused, present, route::ANSWER_MAX};
use crate::{
    control::{
        controller::Attempt,
        state::{Applied, Command, Refusal, RequestId},
        voter::VoterParts,
    },
    model::Location,
    proto::v1::{
        self, CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest,
        ListNetworksResponse, NetworkDetail, NetworkPeer, RemoveNetworkRequest,
        RemoveNetworkResponse, networks_client::NetworksClient, networks_server::Networks,
    },
};
use futures::FutureExt as _;
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Networks for Api {
    async fn create(
        &self,
        mut request: Request<CreateNetworkRequest>,
    ) -> Result<Response<v1::Network>, Status> {
        decode::create_network(request.get_ref())?;
        let id = decode::request_id(&request.get_ref().request_id)?;
        request.get_mut().request_id = id.to_vec();
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, message| create(voter.clone(), message).boxed(),
            |channel, request| {
                async move { NetworksClient::new(channel).create(request).await }.boxed()
            },
        )
        .await
    }

    async fn list(
        &self,
        request: Request<ListNetworksRequest>,
    ) -> Result<Response<ListNetworksResponse>, Status> {
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, _| list(voter.clone()).boxed(),
            |channel, request| {
                async move {
                    NetworksClient::new(channel)
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
        request: Request<InspectNetworkRequest>,
    ) -> Result<Response<NetworkDetail>, Status> {
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, message| inspect(voter.clone(), message).boxed(),
            |channel, request| {
                async move {
                    NetworksClient::new(channel)
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
        mut request: Request<RemoveNetworkRequest>,
    ) -> Result<Response<RemoveNetworkResponse>, Status> {
        decode::network_name(&request.get_ref().name)?;
        let id = decode::request_id(&request.get_ref().request_id)?;
        request.get_mut().request_id = id.to_vec();
        self.at_leader(
            request,
            Duration::ZERO,
            |voter, message| remove(voter.clone(), message).boxed(),
            |channel, request| {
                async move { NetworksClient::new(channel).remove(request).await }.boxed()
            },
        )
        .await
    }
}

async fn create(voter: VoterParts, message: CreateNetworkRequest) -> Result<v1::Network, Attempt> {
    let request: RequestId = decode::request_id(&message.request_id)?;
    let command = decode::create_network(&message)?;
    match voter.execute(request, command).await? {
        Applied::Network(network) => {
            tracing::info!(network = %network.name, vni = network.vni.get(), subnet = %network.pool.subnet, "network created");
            Ok(voter.state.read(|state| present::network(state, &network)))
        }
        other => unreachable!("a network's creation answers a network, not {other:?}"),
    }
}

async fn list(voter: VoterParts) -> Result<ListNetworksResponse, Attempt> {
    voter.consensus.read_index().await?;
    Ok(voter.state.read(|state| ListNetworksResponse {
        networks: state.networks().map(|network| present::network(state, network)).collect(),
    }))
}

async fn inspect(
    voter: VoterParts,
    message: InspectNetworkRequest,
) -> Result<NetworkDetail, Attempt> {
    let name = decode::network_name(&message.name)?;
    voter.consensus.read_index().await?;
    let detail = voter.state.read(|state| {
        let network = state.network_named(&name)?;
        let mut peers: BTreeMap<(String, String), u32> = BTreeMap::new();
        for endpoint in state.endpoints_of(network.id) {
            let peer = match &endpoint.location {
                Location::Node { node, .. } => state
                    .node(*node)
                    .map(|node| (node.name.to_string(), node.vtep.to_string()))
                    .unwrap_or_default(),
                Location::External { vtep } => (String::new(), vtep.to_string()),
            };
            *peers.entry(peer).or_default() += 1;
        }
        let endpoints = state.endpoints_of(network.id);
        Ok::<_, Refusal>(NetworkDetail {
            network: Some(present::network(state, network)),
            endpoints: endpoints.map(|e| present::endpoint(state, &voter.table, e)).collect(),
            peers: peers
                .into_iter()
                .map(|((node, vtep), endpoint_count)| NetworkPeer { node, vtep, endpoint_count })
                .collect(),
        })
    });
    detail.map_err(|refusal| Attempt::Failed(refused(&refusal)))
}

async fn remove(
    voter: VoterParts,
    message: RemoveNetworkRequest,
) -> Result<RemoveNetworkResponse, Attempt> {
    let request = decode::request_id(&message.request_id)?;
    let name = decode::network_name(&message.name)?;
    match voter.execute(request, Command::RemoveNetwork { name: name.clone() }).await? {
        Applied::Removed(revision) => {
            tracing::info!(network = %name, "network removed");
            Ok(RemoveNetworkResponse { revision })
        }
        other => unreachable!("a removal answers a removal, not {other:?}"),
    }
}
