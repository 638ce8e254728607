//! The services that every gRPC client expects: health and reflection. Both transports give the same answers.

use std::collections::BTreeSet;

use overlay_ctl::proto::v1::NodeRole;
use tokio_stream::StreamExt as _;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::fixture::{Api, NODE, VTEP, tcp, unix, with_node};

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

#[test]
fn health_and_reflection_answer_on_both_transports() {
    with_node(async |node, _| {
        let unix = unix(&node.host.socket()).await.unwrap();
        for channel in [unix, tcp(node.listen()).await] {
            let mut health = HealthClient::new(channel.clone());
            // The empty name stands for the server as a whole.
            for service in SERVICES.into_iter().chain([""]) {
                let request = HealthCheckRequest { service: service.to_owned() };
                let answer = health.check(request).await.unwrap().into_inner();
                assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
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
