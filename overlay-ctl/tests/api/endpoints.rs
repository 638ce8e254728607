//! The API's answers about networks, endpoints and nodes that exist.

use overlay_ctl::proto::v1::{
    CreateEndpointRequest, CreateNetworkRequest, EndpointState, InspectEndpointRequest,
    InspectNetworkRequest, InspectNodeRequest, ListEndpointsRequest, ListNodesRequest,
    NetworkOptions, NetworkPeer, NodeRole, NodeState, RemoveEndpointRequest,
};
use tonic::Code;

use crate::{
    fixture::{
        Api, NETWORK, NODE, PEER, VTEP, assert_refused, endpoint, eventually, external, with_node,
    },
    lab::Netns,
};

const MAC: &str = "02:42:0a:00:00:63";

fn inspect(name: &str, network: &str) -> InspectEndpointRequest {
    InspectEndpointRequest { name: name.to_owned(), network: network.to_owned(), stale: false }
}

#[test]
fn an_endpoint_is_shown_as_it_is() {
    with_node(async |node, mut api| {
        let request = CreateNetworkRequest {
            name: NETWORK.to_owned(),
            subnet: "172.16.16.0/24".to_owned(),
            ip_range: "172.16.16.128/25".to_owned(),
            vni: 5000,
            options: Some(NetworkOptions { mtu: 1400, ..Default::default() }),
            ..Default::default()
        };
        let network = api.networks.create(request.clone()).await.unwrap().into_inner();
        assert_eq!((network.vni, network.endpoint_count), (5000, 0));
        assert_eq!((&network.subnet, &network.ip_range), (&request.subnet, &request.ip_range));
        // Endpoints may reach each other unless the request says that they may not.
        let options = NetworkOptions { icc: Some(true), mtu: 1400, ..Default::default() };
        assert_eq!(network.options, Some(options));

        let web = Netns::new("web");
        let made = api.endpoints.create(endpoint("web1", &web)).await.unwrap().into_inner();
        assert_eq!(made.lagging_nodes, [""; 0]);
        let made = made.endpoint.unwrap();
        assert_eq!((made.name.as_str(), made.network.as_str()), ("web1", NETWORK));
        assert_eq!((made.node.as_str(), made.vtep.as_str()), (NODE, VTEP));
        assert_eq!(made.address, "172.16.16.129/24");
        assert_eq!(made.mac, "02:42:ac:10:10:81");
        assert_eq!(made.netns, web.path().display().to_string());
        assert_eq!(made.state(), EndpointState::Up);
        assert_eq!((made.vni, made.mtu, made.interface.as_str()), (5000, 1400, "eth0"));
        let inside = web.sh("ip addr show dev eth0");
        for part in ["172.16.16.129/24", "02:42:ac:10:10:81", "mtu 1400"] {
            assert!(inside.contains(part), "{part} in {inside}");
        }
        let outside = node.host.netns.sh(&format!("ip -o link show dev {}", made.host_interface));
        assert!(outside.starts_with(&format!("{}: ", made.host_ifindex)), "{outside}");

        let inspected = api.endpoints.inspect(inspect("web1", "")).await.unwrap().into_inner();
        assert_eq!(inspected, made);
        let detail = InspectNetworkRequest { name: NETWORK.to_owned(), brief: false, stale: false };
        let detail = api.networks.inspect(detail).await.unwrap().into_inner();
        assert_eq!(detail.network.unwrap().endpoint_count, 1);
        assert_eq!(detail.endpoints, std::slice::from_ref(&made));
        let peer = NetworkPeer { node: NODE.to_owned(), vtep: VTEP.to_owned(), endpoint_count: 1 };
        assert_eq!(detail.peers, [peer]);

        let status = api.status().await;
        assert!(status.programmed_revision >= made.created_revision, "{status:?}");
        let shown =
            api.nodes.inspect(InspectNodeRequest { name: NODE.to_owned(), stale: false }).await;
        let shown = shown.unwrap().into_inner();
        assert_eq!((shown.role(), shown.state()), (NodeRole::Leader, NodeState::Ready));
        assert_eq!((shown.vtep.as_str(), shown.endpoint_count), (VTEP, 1));
        assert_eq!(shown.listen, node.listen().to_string());
        let listed = api.nodes.list(ListNodesRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.nodes.len(), 1);
    });
}

#[test]
fn not_waiting_returns_at_once_and_the_endpoint_comes_up() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        let web = Netns::new("web");
        let create = CreateEndpointRequest { no_wait: true, ..endpoint("web1", &web) };
        let made = api.endpoints.create(create).await.unwrap().into_inner();
        assert_eq!(made.lagging_nodes, [""; 0], "nobody was waited for");
        let made = made.endpoint.unwrap();
        assert!(matches!(made.state(), EndpointState::Pending | EndpointState::Up), "{made:?}");
        eventually("the endpoint is up", async || {
            let shown = api.endpoints.inspect(inspect("web1", "")).await.unwrap().into_inner();
            (shown.state() == EndpointState::Up).then_some(())
        })
        .await;
        assert!(web.succeeds("ip link show eth0"));

        let remove =
            RemoveEndpointRequest { name: "web1".to_owned(), no_wait: true, ..Default::default() };
        api.endpoints.remove(remove).await.unwrap();
        assert_refused(api.endpoints.inspect(inspect("web1", "")).await, Code::NotFound, &["web1"]);
        eventually("the port is gone", async || (!web.succeeds("ip link show eth0")).then_some(()))
            .await;
    });
}

#[test]
fn an_endpoint_behind_another_vtep_is_external() {
    with_node(async |_, mut api| {
        let network = api.network(NETWORK, "172.16.16.0/24").await;
        let request = external("sw1", PEER, MAC, "172.16.16.9");
        let made = api.endpoints.create(request).await.unwrap().into_inner();
        assert_eq!(made.lagging_nodes, [""; 0]);
        let made = made.endpoint.unwrap();
        assert_eq!(made.state(), EndpointState::External);
        assert_eq!((made.vtep.as_str(), made.mac.as_str()), (PEER, MAC));
        assert_eq!((made.address.as_str(), made.vni), ("172.16.16.9/24", network.vni));
        for empty in [&made.node, &made.netns, &made.interface, &made.host_interface] {
            assert_eq!(empty, "", "{made:?}");
        }
        // Two endpoints may be behind the same foreign VTEP.
        let request = external("sw2", PEER, "02:42:0a:00:00:64", "172.16.16.10");
        api.endpoints.create(request).await.unwrap();
        let detail = InspectNetworkRequest { name: NETWORK.to_owned(), brief: false, stale: false };
        let detail = api.networks.inspect(detail).await.unwrap().into_inner();
        let peer = NetworkPeer { node: String::new(), vtep: PEER.to_owned(), endpoint_count: 2 };
        assert_eq!(detail.peers, [peer]);

        // When the node has an endpoint of the network, its kernel gets the network's other endpoints.
        let web = Netns::new("web");
        api.endpoints.create(endpoint("web1", &web)).await.unwrap();
        // Counting the entries takes time on a busy machine, so the status may show an earlier count for a
        // while.
        assert_counted(&mut api, [("FDB", 3), ("NEIGH", 3), ("NODES", 1)]).await;
        for name in ["sw1", "sw2"] {
            let remove = RemoveEndpointRequest { name: name.to_owned(), ..Default::default() };
            api.endpoints.remove(remove).await.unwrap();
        }
        // The VTEP is unknown again, so its VXLAN is dropped.
        assert_counted(&mut api, [("NODES", 0)]).await;
    });
}

/// Waits until the status shows these numbers of entries in these maps.
async fn assert_counted<const N: usize>(api: &mut Api, wanted: [(&str, u64); N]) {
    eventually("the maps hold what is wanted", async || {
        let maps = api.status().await.datapath.unwrap().maps;
        let is_so =
            |(name, entries)| maps.iter().any(|map| map.name == name && map.entries == entries);
        wanted.into_iter().all(is_so).then_some(())
    })
    .await;
}

#[test]
fn a_name_on_two_networks_needs_its_network() {
    with_node(async |_, mut api| {
        api.network(NETWORK, "172.16.16.0/24").await;
        // Subnets of two networks may overlap.
        api.network("other", "172.16.16.0/24").await;
        let (a, b) = (Netns::new("a"), Netns::new("b"));
        let on_lab = api.endpoints.create(endpoint("web1", &a)).await.unwrap().into_inner();
        let request = CreateEndpointRequest { network: "other".to_owned(), ..endpoint("web1", &b) };
        let on_other = api.endpoints.create(request).await.unwrap().into_inner();
        let (on_lab, on_other) = (on_lab.endpoint.unwrap(), on_other.endpoint.unwrap());
        assert_eq!(on_lab.address, on_other.address);

        let words = &["several networks", "web1"];
        let ambiguous = api.endpoints.inspect(inspect("web1", "")).await;
        assert_refused(ambiguous, Code::InvalidArgument, words);
        let remove = |network: &str| RemoveEndpointRequest {
            name: "web1".to_owned(),
            network: network.to_owned(),
            ..Default::default()
        };
        assert_refused(api.endpoints.remove(remove("")).await, Code::InvalidArgument, words);
        let found = api.endpoints.inspect(inspect("web1", "other")).await.unwrap().into_inner();
        assert_eq!(found, on_other);

        let list = |network: &str, node: &str| ListEndpointsRequest {
            network: network.to_owned(),
            node: node.to_owned(),
            stale: false,
        };
        let both = api.endpoints.list(list("", NODE)).await.unwrap().into_inner().endpoints;
        assert_eq!(both, [on_lab.clone(), on_other]);
        let one = api.endpoints.list(list(NETWORK, "")).await.unwrap().into_inner().endpoints;
        assert_eq!(one, [on_lab]);

        api.endpoints.remove(remove("other")).await.unwrap();
        let left = api.endpoints.inspect(inspect("web1", "")).await.unwrap().into_inner();
        assert_eq!(left.network, NETWORK);
        assert!(a.succeeds("ip link show eth0") && !b.succeeds("ip link show eth0"));
    });
}
