//! Calls between nodes of one cluster and of two.

use super::{Admission, CLUSTER, Directory, GENERATION, Generations, Newer};
use crate::model::Generation;
use futures::FutureExt as _;
use hyper_util::rt::TokioIo;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{
    Code, Status,
    body::Body,
    codegen::http,
    transport::{Channel, Endpoint, Server, Uri},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer as _, ServiceExt as _};
use uuid::Uuid;

const INTERNAL_CALL: &str = "/overlay.internal.v1.Peers/CheckEndpoint";
const USERS_CALL: &str = "/overlay.v1.Networks/Create";

/// A node of `ours` gets a call; the answer's status, and how often the service behind was called.
async fn call(ours: Uuid, path: &str, headers: &[(&'static str, String)]) -> (Code, usize) {
    let called = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&called);
    let service = tower::service_fn(move |_: http::Request<Body>| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok::<_, Status>(http::Response::new(Body::empty())) }
    });
    let mut request = http::Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let answer = Admission::new(ours, Generations::default())
        .layer(service)
        .oneshot(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    let named = answer.headers().get(CLUSTER).unwrap();
    assert_eq!(named.to_str().unwrap(), ours.to_string(), "refusals name the cluster too");
    let status = Status::from_header_map(answer.headers());
    (status.map_or(Code::Ok, |status| status.code()), called.load(Ordering::SeqCst))
}

#[tokio::test]
async fn a_call_for_another_cluster_is_refused_before_it_has_an_effect() {
    let (ours, theirs) = (Uuid::new_v4(), Uuid::new_v4());
    let stamp = |cluster: Uuid| (CLUSTER, cluster.to_string());
    let (admitted, refused) = ((Code::Ok, 1), (Code::PermissionDenied, 0));
    for path in [INTERNAL_CALL, USERS_CALL] {
        assert_eq!(call(ours, path, &[stamp(ours)]).await, admitted, "{path}");
        assert_eq!(call(ours, path, &[stamp(theirs)]).await, refused, "{path}");
        assert_eq!(call(ours, path, &[(CLUSTER, "prod".to_owned())]).await, refused, "{path}");
    }
    assert_eq!(call(ours, USERS_CALL, &[]).await, admitted, "a user names no cluster");
    assert_eq!(call(ours, INTERNAL_CALL, &[]).await, refused);
}

/// A server of health, which is of a cluster or says nothing of one.
fn server(cluster: Option<Uuid>) -> Channel {
    let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
    let incoming = UnboundedReceiverStream::new(incoming);
    let (_, health) = tonic_health::server::health_reporter();
    match cluster {
        Some(cluster) => {
            let server = Server::builder()
                .layer(Admission::new(cluster, Generations::default()))
                .add_service(health);
            tokio::spawn(server.serve_with_incoming(incoming));
        }
        None => {
            let server = Server::builder().add_service(health);
            tokio::spawn(server.serve_with_incoming(incoming));
        }
    }
    Endpoint::from_static("http://node").connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let (client, server) = tokio::io::duplex(1 << 16);
            let sent = connections.send(Ok(server));
            async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
        },
    ))
}

async fn ask(directory: &Directory, address: SocketAddr) -> Result<(), Status> {
    let mut client = HealthClient::new(directory.channel(address));
    client.check(HealthCheckRequest::default()).await.map(drop)
}

#[tokio::test]
async fn an_answer_is_used_only_from_the_own_cluster() {
    let (ours, theirs) = (Uuid::new_v4(), Uuid::new_v4());
    let directory = Directory::new(ours, []);
    let address: SocketAddr = "10.0.0.1:7400".parse().unwrap();

    directory.put_channel(address, server(Some(ours)));
    ask(&directory, address).await.unwrap();

    for (stranger, word) in [(Some(theirs), theirs.to_string()), (None, ours.to_string())] {
        directory.put_channel(address, server(stranger));
        let refusal = ask(&directory, address).await.unwrap_err();
        // Nothing happened there, and another node can be asked.
        assert_eq!(refusal.code(), Code::Unavailable, "{refusal:?}");
        assert!(refusal.message().contains(&address.to_string()), "{refusal:?}");
        assert!(refusal.message().contains(&word), "{refusal:?}");
    }

    directory.put_channel(address, server(Some(ours)));
    ask(&directory, address).await.unwrap();
}

fn of(number: u64) -> Generations {
    Generations::new(Generation::from_wire(number))
}

/// A node of generation 2 gets a call of a node of generation `theirs`; whether the service was reached, and the newest
/// generation that the node has met.
async fn call_of_generation(path: &str, theirs: Option<u64>) -> (Code, Option<u64>) {
    let (cluster, generations) = (Uuid::new_v4(), of(2));
    let service = tower::service_fn(async |_: http::Request<Body>| {
        Ok::<_, Status>(http::Response::new(Body::empty()))
    });
    let mut request = http::Request::post(path).header(CLUSTER, cluster.to_string());
    if let Some(theirs) = theirs {
        request = request.header(GENERATION, theirs);
    }
    let admitted = Admission::new(cluster, generations.clone()).layer(service);
    let answer = admitted.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.headers().get(GENERATION).unwrap(), "2", "refusals name it too");
    let status = Status::from_header_map(answer.headers());
    let newer = generations.newer().now_or_never().map(|newer| newer.generation.number());
    (status.map_or(Code::Ok, |status| status.code()), newer)
}

#[tokio::test]
async fn a_node_of_an_older_generation_may_only_come_back() {
    const JOIN: &str = "/overlay.v1.Cluster/Join";
    const STATUS: &str = "/overlay.v1.Cluster/Status";
    for path in [INTERNAL_CALL, USERS_CALL, JOIN, STATUS] {
        let comes_back = path == JOIN || path == STATUS;
        let older = if comes_back { Code::Ok } else { Code::PermissionDenied };
        assert_eq!(call_of_generation(path, Some(2)).await, (Code::Ok, None), "{path}");
        assert_eq!(call_of_generation(path, Some(1)).await, (older, None), "{path}");
        // A program of before generations says none.
        assert_eq!(call_of_generation(path, None).await, (older, None), "{path}");
        let newer = (Code::PermissionDenied, Some(3));
        assert_eq!(call_of_generation(path, Some(3)).await, newer, "{path}");
    }
}

/// Forwarded requests, streams and Raft's messages all go by such a connection.
#[tokio::test]
async fn an_answer_of_another_generation_is_used_only_by_who_comes_back() {
    let cluster = Uuid::new_v4();
    let address: SocketAddr = "10.0.0.1:7400".parse().unwrap();
    for (ours, theirs, used, used_by_who_comes_back) in
        [(2, 2, true, true), (2, 1, false, false), (1, 2, false, true)]
    {
        let directory = Directory::new(cluster, []).of(Generation::from_wire(ours));
        // A service of its own: what it admits is of no account here.
        directory.put_channel(address, unchecked(cluster, theirs));
        let asked = ask(&directory, address).await;
        assert_eq!(asked.is_ok(), used, "{ours} asks {theirs}: {asked:?}");
        if let Err(refusal) = asked {
            assert_eq!(refusal.code(), Code::Unavailable, "another node can be asked");
            assert!(refusal.message().contains(&format!("generation {theirs}")), "{refusal:?}");
        }
        let channel = directory.channel(address).or_newer();
        let asked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
        assert_eq!(asked.is_ok(), used_by_who_comes_back, "{ours} comes back to {theirs}");
        let met = directory.generations().newer().now_or_never();
        let expected = (theirs > ours)
            .then(|| Newer { generation: Generation::from_wire(theirs), at: Some(address) });
        assert_eq!(met, expected, "{ours} met {theirs}");
    }
}

/// A server of health that refuses nobody, and names the cluster and this generation.
fn unchecked(cluster: Uuid, generation: u64) -> Channel {
    let (connections, incoming) = mpsc::unbounded_channel::<io::Result<DuplexStream>>();
    let (_, health) = tonic_health::server::health_reporter();
    let stamp = tower::util::MapResponseLayer::new(move |mut answer: http::Response<Body>| {
        let headers = answer.headers_mut();
        headers.insert(CLUSTER, cluster.to_string().parse().unwrap());
        headers.insert(GENERATION, generation.into());
        answer
    });
    let server = Server::builder().layer(stamp).add_service(health);
    tokio::spawn(server.serve_with_incoming(UnboundedReceiverStream::new(incoming)));
    Endpoint::from_static("http://node").connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let (client, server) = tokio::io::duplex(1 << 16);
            let sent = connections.send(Ok(server));
            async move { sent.map(|()| TokioIo::new(client)).map_err(io::Error::other) }
        },
    ))
}

/// A survey tries places that others name.
#[tokio::test]
async fn only_connections_to_known_places_are_kept() {
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let known = super::Peer { id: 1, listen: at(7_400), voter: true, raft_id: None };
    let directory = Directory::new(Uuid::nil(), [known]);
    for port in 7_400..7_500 {
        drop(directory.channel(at(port)));
    }
    assert_eq!(directory.kept_channels(), [at(7_400)]);
}
