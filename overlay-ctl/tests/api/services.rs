//! The services that every gRPC client expects: health and reflection. Both transports give the same answers.

use std::collections::BTreeSet;

use overlay_ctl::{
    dataplane::datapath::maps_folder,
    proto::v1::{CreateEndpointRequest, NodeRole},
};
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest,
    health_check_response::ServingStatus::{self, NotServing, Serving},
    health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    fixture::{Api, NETWORK, NODE, Node, VTEP, endpoint, eventually, http, tcp, unix, with_node},
    lab::{Netns, skip},
};

const SERVICES: [&str; 5] = [
    "overlay.v1.Cluster",
    "overlay.v1.Endpoints",
    "overlay.v1.Networks",
    "overlay.v1.Nodes",
    "overlay.v1.Watch",
];

async fn reflected(channel: Channel, asked: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(asked) };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    answers.next().await.unwrap().unwrap().message_response.unwrap()
}

/// Waits until clients are told this of a service.
async fn is_told(health: &mut HealthClient<Channel>, service: &str, status: ServingStatus) {
    eventually(&format!("{service:?} is {status:?}"), async || {
        let request = HealthCheckRequest { service: service.to_owned() };
        let answer = health.check(request).await.unwrap().into_inner();
        (answer.status() == status).then_some(())
    })
    .await;
}

/// Checks what `/readyz` says: 200, or 503 with these words. `/livez` says 200 whatever it is.
async fn is_ready(trouble: Option<&str>) {
    let (head, body) = http("GET", "/readyz").await;
    match trouble {
        None => assert!(head.starts_with("HTTP/1.1 200 ") && body == "ready\n", "{head}{body}"),
        Some(words) => {
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}{body}");
            let lines: Vec<&str> = body.lines().collect();
            let [line] = lines[..] else { panic!("not one trouble: {body}") };
            assert!(line.starts_with("not ready: ") && line.contains(words), "{body}");
        }
    }
    let (head, body) = http("GET", "/livez").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && body == "alive\n", "{head}{body}");
}

/// The first of two nodes has the only vote, so that the second one finds no leader when it is gone.
#[test]
fn health_is_true_without_a_quorum() {
    if skip() {
        return;
    }
    let [first, second] = Node::start_pair();
    second.call(async move |node, mut api| {
        let mut health = HealthClient::new(unix(&node.host.socket()).await.unwrap());
        for service in SERVICES.into_iter().chain([""]) {
            is_told(&mut health, service, Serving).await;
        }
        is_ready(None).await;
        assert_eq!(api.status().await.leader, NODE);
        drop(first);
        let lost = ["", "overlay.v1.Networks", "overlay.v1.Endpoints", "overlay.v1.Nodes"];
        for service in lost {
            is_told(&mut health, service, NotServing).await;
        }
        for service in SERVICES.into_iter().filter(|service| !lost.contains(service)) {
            is_told(&mut health, service, Serving).await;
        }
        is_ready(Some("no leader")).await;
        assert_eq!(api.status().await.leader, "");
    });
}

#[test]
fn health_is_true_without_a_data_path() {
    with_node(async |node, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let mut health = HealthClient::new(unix(&node.host.socket()).await.unwrap());
        is_told(&mut health, "", Serving).await;
        is_ready(None).await;
        // Nobody writes to this map any more.
        let fdb = maps_folder(&node.host.bpffs).join("FDB");
        node.host.netns.sh(&format!("bpftool map freeze pinned {}", fdb.display()));
        let inside = Netns::new("a");
        let web1 = CreateEndpointRequest { no_wait: true, ..endpoint("web1", &inside) };
        api.endpoints.create(web1).await.unwrap();
        is_told(&mut health, "", NotServing).await;
        for service in SERVICES {
            is_told(&mut health, service, Serving).await;
        }
        is_ready(Some("the kernel does not hold")).await;
    });
}

#[test]
fn health_and_reflection_answer_on_both_transports() {
    with_node(async |node, _| {
        let unix = unix(&node.host.socket()).await.unwrap();
        for channel in [unix, tcp(node.listen()).await] {
            let mut health = HealthClient::new(channel.clone());
            // The empty name stands for the server as a whole.
            for service in SERVICES.into_iter().chain([""]) {
                is_told(&mut health, service, Serving).await;
            }
            let unknown = HealthCheckRequest { service: "overlay.v1.Nothing".to_owned() };
            assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);

            let listed =
                reflected(channel.clone(), MessageRequest::ListServices(String::new())).await;
            let MessageResponse::ListServicesResponse(listed) = listed else {
                panic!("{listed:?}");
            };
            let listed: BTreeSet<String> = listed.service.into_iter().map(|s| s.name).collect();
            for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
                assert!(listed.contains(service), "{service} in {listed:?}");
            }
            let symbol = "overlay.v1.Networks.Create".to_owned();
            let found = reflected(channel, MessageRequest::FileContainingSymbol(symbol)).await;
            assert!(matches!(found, MessageResponse::FileDescriptorResponse(_)), "{found:?}");
        }
    });
}

#[test]
fn the_status_is_the_node_s_own() {
    with_node(async |node, mut api| {
        let local = api.status().await;
        let remote = Api::new(tcp(node.listen()).await).status().await;
        assert_eq!((&local.cluster, local.node_id), (&remote.cluster, remote.node_id));
        assert_eq!((local.node.as_str(), local.leader.as_str()), (NODE, NODE));
        assert_eq!(local.role(), NodeRole::Leader);
        assert!(local.term > 0 && local.revision > 0, "{local:?}");
        let datapath = local.datapath.unwrap();
        assert_eq!((datapath.underlay.as_str(), datapath.vtep.as_str()), ("eth7", VTEP));
        assert_eq!((datapath.underlay_mtu, datapath.endpoint_mtu), (1500, 1450));
        assert_eq!(datapath.underlay_mtu_source, "the device's");
        assert!(datapath.super_packets.is_some());
        assert_eq!(datapath.bpffs, node.host.bpffs.display().to_string());
        assert_eq!(datapath.error, "");
        let fdb = datapath.maps.iter().find(|map| map.name == "FDB").unwrap();
        assert!(fdb.entries == 0 && fdb.capacity > 0, "{fdb:?}");
    });
}
