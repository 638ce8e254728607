//! The API: decode -> validate -> decide -> propose -> wait for apply -> wait for the kernels.
//!
//! Any node answers. What needs the leader is forwarded to it, at most twice (agent -> voter ->
//! leader); whoever forwards keeps the request's id, so a repeated attempt is carried out once.

mod cluster;
mod decode;
mod endpoints;
pub(crate) mod error;
mod filter;
mod networks;
mod nodes;
mod parties;
mod peers;
mod present;
mod route;
mod watch;

pub use error::{is_lost, says_removed};
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
use std::sync::Arc;
use tonic::{Request, service::Routes};

/// The services of one node, as tonic wants them: one value behind all.
#[derive(Clone)]
struct Api(Arc<Controller>);

impl std::ops::Deref for Api {
    type Target = Controller;

    fn deref(&self) -> &Controller {
        &self.0
    }
}

/// The names that are taken in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// Of networks.
    pub networks: Vec<String>,
    /// Of endpoints.
    pub endpoints: Vec<String>,
}

/// Asks the cluster which names are taken.
///
/// # Errors
/// As the calls: no quorum.
pub async fn existing(controller: Arc<Controller>) -> Result<Existing, tonic::Status> {
    let api = Api(controller);
    let networks = Networks::list(&api, Request::new(v1::ListNetworksRequest {})).await?;
    let endpoints =
        Endpoints::list(&api, Request::new(v1::ListEndpointsRequest::default())).await?;
    Ok(Existing {
        networks: networks.into_inner().networks.into_iter().map(|row| row.name).collect(),
        endpoints: endpoints.into_inner().endpoints.into_iter().map(|row| row.name).collect(),
    })
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
    Ok(Routes::new(health_service)
        .add_service(reflection)
        .add_service(NetworksServer::new(api.clone()))
        .add_service(EndpointsServer::new(api.clone()))
        .add_service(NodesServer::new(api.clone()))
        .add_service(ClusterServer::new(api.clone()))
        .add_service(WatchServer::new(api)))
}
