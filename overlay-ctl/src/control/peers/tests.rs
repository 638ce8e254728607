//! Calls between nodes of one cluster and of two.

use super::{Admission, CLUSTER, Directory};
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
    let answer = Admission::new(ours)
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
            let server = Server::builder().layer(Admission::new(cluster)).add_service(health);
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
