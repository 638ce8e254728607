//! The gRPC face: decodes a message, asks the controller, and presents its answer.
//!
//! Any node answers, and any node can be asked: that the leader has the last word is the controller's affair.

mod cluster;
mod decode;
mod encoded;
mod endpoints;
mod error;
mod filter;
mod health;
mod members;
mod networks;
mod nodes;
mod parties;
mod peers;
mod present;
mod serve;
mod stale;
mod watch;

pub use peers::PeersService;
pub use serve::{ServeError, serve, serve_raft};

use crate::{
    faces::ServedNode,
    proto::v1::{
        self, cluster_server::ClusterServer, endpoints_server::EndpointsServer,
        networks_server::NetworksServer, nodes_server::NodesServer, watch_server::WatchServer,
    },
};
use encoded::WithEncoded;
use futures::FutureExt as _;
use std::sync::Arc;
use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

/// The services of one node, as tonic wants them: one value behind all.
#[derive(Clone)]
struct Api(Arc<ServedNode>);

impl std::ops::Deref for Api {
    type Target = ServedNode;

    fn deref(&self) -> &ServedNode {
        &self.0
    }
}

/// All public services, with reflection and health.
///
/// # Errors
/// The descriptors can't be decoded: a broken build.
fn routes(
    node: Arc<ServedNode>,
    health: HealthServer<impl Health>,
) -> Result<Routes, tonic_reflection::server::Error> {
    let api = Api(node);
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
    Ok(Routes::new(health)
        .add_service(reflection)
        .add_service(networks)
        .add_service(endpoints)
        .add_service(NodesServer::new(api.clone()))
        .add_service(ClusterServer::new(api.clone()))
        .add_service(WatchServer::new(api)))
}
