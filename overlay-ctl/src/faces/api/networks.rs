//! The service `Networks`: create, list, inspect and remove.

use super::{
    Api, decode,
    error::refused,
    lists::{Encoding, Lists, TURN, decoded, forward},
    present,
    route::ANSWER_MAX,
};
use crate::{
    control::{
        controller::Attempt,
        state::{Applied, Command, State},
        voter::VoterParts,
    },
    model::{Location, NetworkId, NodeId},
    proto::v1::{
        self, CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest,
        ListNetworksResponse, NetworkDetail, NetworkPeer, RemoveNetworkRequest,
        RemoveNetworkResponse, networks_client::NetworksClient, networks_server::Networks,
    },
};
use futures::FutureExt as _;
use prost::bytes::Bytes;
use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};
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
        let lists = self.lists.clone();
        self.at_leader(
            request,
            TURN,
            move |voter, _| list(voter.clone(), lists.clone()).boxed(),
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
        decoded(inspect_encoded(self.clone(), request).await?)
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
    let command = decode::create_network(&message)?;
    let request = decode::request(&message.request_id, &command)?;
    match voter.execute(request, command).await? {
        Applied::Network(network) => {
            tracing::info!(network = %network.name, vni = network.vni.get(), subnet = %network.pool.subnet, "network created");
            Ok(voter.state.read(|state| present::network(state, &network)))
        }
        other => unreachable!("a network's creation answers a network, not {other:?}"),
    }
}

async fn list(voter: VoterParts, lists: Lists) -> Result<ListNetworksResponse, Attempt> {
    voter.consensus.read_index().await?;
    let rows = voter.state.read(|state| state.networks().count());
    let make = move || {
        let state = voter.state.copy();
        let networks = state.networks().map(|network| present::network(&state, network));
        Ok(ListNetworksResponse { networks: networks.collect() })
    };
    lists.make(rows, make).await
}

/// The path of [`Networks::inspect`].
pub(super) const INSPECT: &str = "/overlay.v1.Networks/Inspect";

/// [`Networks::inspect`], encoded.
pub(super) async fn inspect_encoded(
    api: Api,
    request: Request<InspectNetworkRequest>,
) -> Result<Response<Bytes>, Status> {
    let lists = api.lists.clone();
    api.at_leader(
        request,
        TURN,
        move |voter, message| inspect(voter.clone(), lists.clone(), message).boxed(),
        |channel, request| forward(channel, INSPECT, request).boxed(),
    )
    .await
}

async fn inspect(
    voter: VoterParts,
    lists: Lists,
    message: InspectNetworkRequest,
) -> Result<Bytes, Attempt> {
    let name = decode::network_name(&message.name)?;
    voter.consensus.read_index().await?;
    let rows = voter.state.read(|state| {
        state.network_named(&name).map(|network| state.endpoint_count_of(network.id))
    });
    let rows = rows.map_err(|refusal| refused(&refusal))?;
    let rows = if message.brief { 0 } else { rows };
    let make = move || {
        let state = voter.state.copy();
        // Removed since: then it is as if the call had come a moment later.
        let network = state.network_named(&name).map_err(|refusal| refused(&refusal))?;
        let shown = Some(present::network(&state, network));
        let mut encoding = Encoding::default();
        if message.brief {
            encoding.add(&NetworkDetail { network: shown, ..Default::default() })?;
            return Ok(encoding.finish());
        }
        let peers = peers(&state, network.id);
        encoding.add(&NetworkDetail { network: shown, peers, ..Default::default() })?;
        for endpoint in state.endpoints_of(network.id) {
            let endpoints = vec![present::endpoint(&state, &voter.table, endpoint)];
            encoding.add(&NetworkDetail { endpoints, ..Default::default() })?;
        }
        Ok(encoding.finish())
    };
    lists.make(rows, make).await
}

/// Where the endpoints of a network are, and how many there, by the nodes' names.
fn peers(state: &State, network: NetworkId) -> Vec<NetworkPeer> {
    let mut nodes: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut externals: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
    for endpoint in state.endpoints_of(network) {
        match &endpoint.location {
            Location::Node { node, .. } => *nodes.entry(*node).or_default() += 1,
            Location::External { vtep } => *externals.entry(*vtep).or_default() += 1,
        }
    }
    let nodes = nodes.into_iter().filter_map(|(id, count)| Some((state.node(id)?, count)));
    let nodes = nodes.map(|(node, count)| (node.name.to_string(), node.vtep, count));
    let externals = externals.into_iter().map(|(vtep, count)| (String::new(), vtep, count));
    let mut peers: Vec<NetworkPeer> = externals
        .chain(nodes)
        .map(|(node, vtep, endpoint_count)| {
            let vtep = vtep.to_string();
            NetworkPeer { node, vtep, endpoint_count }
        })
        .collect();
    peers.sort_unstable_by(|a, b| (&a.node, &a.vtep).cmp(&(&b.node, &b.vtep)));
    peers
}

async fn remove(
    voter: VoterParts,
    message: RemoveNetworkRequest,
) -> Result<RemoveNetworkResponse, Attempt> {
    let name = decode::network_name(&message.name)?;
    let only = decode::only(message.id);
    let command = Command::RemoveNetwork { name: name.clone(), only };
    let request = decode::request(&message.request_id, &command)?;
    match voter.execute(request, command).await? {
        Applied::Removed(revision) => {
            tracing::info!(network = %name, "network removed");
            Ok(RemoveNetworkResponse { revision })
        }
        other => unreachable!("a removal answers a removal, not {other:?}"),
    }
}
