//! The API: decode -> validate -> decide -> propose -> wait for apply -> wait for the kernels.
//!
//! Any node answers. What needs the leader is forwarded to it, at most twice (agent -> voter ->
//! leader); whoever forwards keeps the request's id, so a repeated attempt is carried out once.

mod cluster;
mod decode;
mod endpoints;
pub(crate) mod error;
mod filter;
mod lists;
mod networks;
mod nodes;
mod parties;
mod peers;
mod present;
mod route;
mod watch;

pub use error::{is_lost, says_removed};
pub use lists::Lists;
pub use peers::PeersService;

use crate::{
    control::controller::Controller,
    proto::v1::{
        self,
        cluster_server::ClusterServer,
        endpoints_server::{Endpoints, EndpointsServer},
        networks_server::{Networks, NetworksServer},
        nodes_server::NodesServer,
        watch_server::WatchServer,
    },
};
use futures::FutureExt as _;
use lists::WithEncoded;
use std::sync::Arc;
use tonic::{Code, Request, Response, service::Routes};

/// The services of one node, as tonic wants them: one value behind all.
#[derive(Clone)]
struct Api(Arc<Controller>);

impl std::ops::Deref for Api {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.0
    }
}

/// Which of two names are taken in the cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct Existing {
    /// The network's.
    pub network: bool,
    /// The endpoint's, on that network.
    pub endpoint: bool,
}

/// Asks the cluster whether there are a network and an endpoint of it with these names. Each node asks at
/// its start: that costs the same whatever else there is.
///
/// # Errors
/// As the calls: no quorum.
pub async fn existing(
    controller: Arc<Controller>,
    network: &str,
    endpoint: &str,
) -> Result<Existing, tonic::Status> {
    let api = Api(controller);
    let inspect = v1::InspectNetworkRequest { name: network.to_owned(), brief: true };
    let found_network = is_there(Networks::inspect(&api, Request::new(inspect)).await)?;
    let inspect =
        v1::InspectEndpointRequest { name: endpoint.to_owned(), network: network.to_owned() };
    let found_endpoint = is_there(Endpoints::inspect(&api, Request::new(inspect)).await)?;
    Ok(Existing { network: found_network, endpoint: found_endpoint })
}

fn is_there<T>(found: Result<Response<T>, tonic::Status>) -> Result<bool, tonic::Status> {
    match found {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(status),
    }
}

/// All public services, with reflection and health.
///
/// # Errors
/// The descriptors can't be decoded: a broken build.
pub async fn routes(
    controller: Arc<Controller>,
) -> Result<Routes, tonic_reflection::server::Error> {
    let api = Api(controller);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<NetworksServer<Api>>().await;
    health.set_serving::<EndpointsServer<Api>>().await;
    health.set_serving::<NodesServer<Api>>().await;
    health.set_serving::<ClusterServer<Api>>().await;
    health.set_serving::<WatchServer<Api>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(v1::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let networks = NetworksServer::new(api.clone());
    let networks = WithEncoded::new(networks, api.clone(), networks::INSPECT, |api, request| {
        networks::inspect_encoded(api, request).boxed()
    });
    let endpoints = EndpointsServer::new(api.clone());
    let endpoints = WithEncoded::new(endpoints, api.clone(), endpoints::LIST, |api, request| {
        endpoints::list_encoded(api, request).boxed()
    });
    Ok(Routes::new(health_service)
        .add_service(reflection)
        .add_service(networks)
        .add_service(endpoints)
        .add_service(NodesServer::new(api.clone()))
        .add_service(ClusterServer::new(api.clone()))
        .add_service(WatchServer::new(api)))
}
