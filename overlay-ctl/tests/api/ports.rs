//! Published ports, aliases and the gateway leg: how they are shown, what is refused, and the answer to a
//! repeated request.

use std::net::{TcpListener, UdpSocket};

use overlay_ctl::proto::v1::{
    CreateEndpointRequest, CreateNetworkRequest, EndpointState, InspectEndpointRequest,
    InspectNodeRequest, JoinRequest, NetworkOptions, PublishRequest, PublishedPort,
    RemoveEndpointRequest,
};
use tonic::Code;

use crate::{
    fixture::{Api, NETWORK, NODE, PEER, assert_refused, endpoint, external, with_node},
    lab::Netns,
};

const SUBNET: &str = "172.16.16.0/24";
const MAC: &str = "02:42:0a:00:00:63";

fn wish(host_ip: &str, host_port: u32, port: &str) -> PublishRequest {
    PublishRequest { host_ip: host_ip.to_owned(), host_port, port: port.to_owned() }
}

fn published(port: &str, host_ip: &str, host_port: u32) -> PublishedPort {
    PublishedPort { port: port.to_owned(), host_ip: host_ip.to_owned(), host_port }
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

async fn internal(api: &mut Api, name: &str, subnet: &str) {
    let request = CreateNetworkRequest {
        name: name.to_owned(),
        subnet: subnet.to_owned(),
        options: Some(NetworkOptions { internal: true, ..Default::default() }),
        ..Default::default()
    };
    api.networks.create(request).await.unwrap();
}

async fn remove(api: &mut Api, name: &str) {
    let request = RemoveEndpointRequest { name: name.to_owned(), ..Default::default() };
    api.endpoints.remove(request).await.unwrap();
}

#[test]
fn both_legs_and_what_is_published_are_shown() {
    with_node(async |node, mut api| {
        api.network(NETWORK, SUBNET).await;
        api.network("other", "172.16.17.0/24").await;
        internal(&mut api, "inside", "172.16.18.0/24").await;
        let web = Netns::new("web");
        let request = CreateEndpointRequest {
            aliases: words(["www", "db", "web1"]),
            exposed: words(["443", "53/udp"]),
            publish: vec![wish("", 8080, "80"), wish("127.0.0.1", 0, "81/tcp")],
            publish_all: true,
            ..endpoint("web1", &web)
        };
        let made = api.endpoints.create(request).await.unwrap().into_inner().endpoint.unwrap();
        assert_eq!(made.state(), EndpointState::Up);
        assert_eq!(made.aliases, ["db", "www"]);
        assert_eq!(made.exposed, ["53/udp", "80/tcp", "81/tcp", "443/tcp"]);
        assert_eq!(
            made.published,
            [
                published("53/udp", "0.0.0.0", 32768),
                published("80/tcp", "0.0.0.0", 8080),
                published("81/tcp", "127.0.0.1", 32768),
                published("443/tcp", "0.0.0.0", 32769),
            ]
        );
        let shown =
            api.nodes.inspect(InspectNodeRequest { name: NODE.to_owned(), stale: false }).await;
        let subnet = shown.unwrap().into_inner().gateway_subnet;
        let prefix = subnet.trim_end_matches("0.0/16");
        let leg = made.gateway.clone().unwrap();
        assert_eq!(leg.address, format!("{prefix}0.2/16"), "the first that is free in {subnet}");
        assert_eq!(leg.gateway, format!("{prefix}0.1"));
        assert_eq!((made.interface.as_str(), leg.interface.as_str()), ("eth0", "eth1"));
        let inside = web.sh("ip addr show dev eth1");
        for part in [&leg.address, &leg.mac, &format!("mtu {}", leg.mtu)] {
            assert!(inside.contains(part), "{part} in {inside}");
        }
        assert!(inside.contains(&format!("eth1@if{}:", leg.host_ifindex)), "{inside}");
        let outside = node.host.netns.sh(&format!("ip -o link show dev {}", leg.host_interface));
        assert!(outside.starts_with(&format!("{}: ", leg.host_ifindex)), "{outside}");

        let inspect =
            |name: &str| InspectEndpointRequest { name: name.to_owned(), ..Default::default() };
        let inspected = api.endpoints.inspect(inspect("web1")).await.unwrap().into_inner();
        assert_eq!(inspected, made);
        let gateway = api.status().await.datapath.unwrap().gateway.unwrap();
        assert_eq!((gateway.bridge.as_str(), &gateway.subnet), ("ov_gwbridge", &subnet));
        assert_eq!((gateway.published_ports, gateway.resolvers), (4, 1));

        // Endpoints of other networks in the same namespace have an interface each, and share the leg.
        let on = |network: &str, name: &str| CreateEndpointRequest {
            network: network.to_owned(),
            ..endpoint(name, &web)
        };
        let also = api.endpoints.create(on("other", "web2")).await.unwrap().into_inner();
        let also = also.endpoint.unwrap();
        assert_eq!((also.interface.as_str(), also.gateway), ("eth2", Some(leg)));
        let inner = api.endpoints.create(on("inside", "web3")).await.unwrap().into_inner();
        let inner = inner.endpoint.unwrap();
        assert_eq!((inner.interface.as_str(), inner.gateway), ("eth3", None));

        remove(&mut api, "web1").await;
        let gateway = api.status().await.datapath.unwrap().gateway.unwrap();
        assert_eq!(gateway.published_ports, 0);
        assert!(web.succeeds("ip link show eth1"), "web2 still has it");
        remove(&mut api, "web2").await;
        assert!(!web.succeeds("ip link show eth1"), "an internal network has no way out");
    });
}

#[test]
fn what_clashes_or_makes_no_sense_is_refused() {
    with_node(async |_, mut api| {
        api.network(NETWORK, SUBNET).await;
        internal(&mut api, "inside", "172.16.18.0/24").await;
        let (web, other) = (Netns::new("web"), Netns::new("other"));
        let made = CreateEndpointRequest {
            aliases: words(["www"]),
            publish: vec![wish("", 8080, "80"), wish("127.0.0.1", 9090, "80")],
            ..endpoint("web1", &web)
        };
        let made = api.endpoints.create(made).await.unwrap().into_inner().endpoint.unwrap();
        let with = |change: &dyn Fn(&mut CreateEndpointRequest)| {
            let mut request = endpoint("web2", &other);
            change(&mut request);
            request
        };
        let asks = |publish: PublishRequest| with(&|r| r.publish = vec![publish.clone()]);
        let behind = |change: &dyn Fn(&mut CreateEndpointRequest)| {
            let mut request = external("sw1", PEER, MAC, "172.16.16.9");
            change(&mut request);
            request
        };
        let many = |n: usize| (0..n).map(|n| format!("a{n}")).collect::<Vec<_>>();
        let in_use = [web.name.as_str(), NETWORK, "web1", "another namespace"];
        let taken = ["8080/tcp", NODE, "endpoint web1", NETWORK];
        let cases: Vec<(CreateEndpointRequest, Code, &[&str])> = vec![
            (asks(wish("", 8080, "90")), Code::AlreadyExists, &taken),
            (asks(wish("10.0.0.1", 8080, "90")), Code::AlreadyExists, &taken),
            (asks(wish("", 9090, "90")), Code::AlreadyExists, &["9090/tcp", "endpoint web1"]),
            (
                with(&|r| r.publish = vec![wish("", 7070, "1"), wish("127.0.0.1", 7070, "2")]),
                Code::InvalidArgument,
                &["7070/tcp", "twice"],
            ),
            (asks(wish("x", 1, "80")), Code::InvalidArgument, &["publish.host_ip", "IPv4"]),
            (asks(wish("224.0.0.1", 1, "80")), Code::InvalidArgument, &["publish.host_ip"]),
            (asks(wish("", 65_536, "80")), Code::InvalidArgument, &["publish.host_port", "65536"]),
            (asks(wish("", 1, "")), Code::InvalidArgument, &["publish.port"]),
            (asks(wish("", 1, "80/icmp")), Code::InvalidArgument, &["publish.port", "icmp"]),
            (with(&|r| r.exposed = words(["0"])), Code::InvalidArgument, &["exposed", "\"0\""]),
            (with(&|r| r.aliases = words(["a b"])), Code::InvalidArgument, &["aliases", "a b"]),
            (with(&|r| r.aliases = many(65)), Code::InvalidArgument, &["aliases", "65", "64"]),
            (
                with(&|r| r.publish = vec![wish("", 0, "80"); 1025]),
                Code::InvalidArgument,
                &["publish", "1025", "1024"],
            ),
            (
                with(&|r| r.exposed = vec!["80".to_owned(); 1025]),
                Code::InvalidArgument,
                &["exposed", "1025"],
            ),
            (
                with(&|r| r.aliases = words(["WEB1"])),
                Code::AlreadyExists,
                &["alias WEB1", "endpoint web1"],
            ),
            (with(&|r| r.name = "www".into()), Code::AlreadyExists, &["name www", "endpoint web1"]),
            (with(&|r| r.netns.clone_from(&web.name)), Code::FailedPrecondition, &in_use),
            (
                with(&|r| {
                    r.network = "inside".into();
                    r.publish = vec![wish("", 0, "80")];
                }),
                Code::FailedPrecondition,
                &["web2", "network inside is internal"],
            ),
            (
                with(&|r| {
                    r.network = "inside".into();
                    r.publish_all = true;
                }),
                Code::FailedPrecondition,
                &["network inside is internal"],
            ),
            (
                behind(&|r| r.publish = vec![wish("", 0, "80")]),
                Code::FailedPrecondition,
                &["sw1", PEER],
            ),
            (behind(&|r| r.publish_all = true), Code::FailedPrecondition, &["sw1", PEER]),
        ];
        for (request, code, words) in cases {
            assert_refused(api.endpoints.create(request).await, code, words);
        }

        let subnet = InspectNodeRequest { name: NODE.to_owned(), stale: false };
        let subnet = api.nodes.inspect(subnet).await.unwrap().into_inner().gateway_subnet;
        let near = CreateNetworkRequest {
            name: "near".to_owned(),
            subnet: subnet.replace("/16", "/24"),
            ..Default::default()
        };
        let refused = api.networks.create(near.clone()).await;
        let words = ["network near", subnet.as_str(), NODE, "--internal"];
        assert_refused(refused, Code::FailedPrecondition, &words);
        assert_eq!(api.next_revision().await, made.created_revision + 1, "nothing was logged");
        internal(&mut api, "near", &near.subnet).await;
    });
}

#[test]
fn a_port_that_a_program_has_is_not_given_out() {
    with_node(async |_, mut api| {
        let lab = api.network(NETWORK, SUBNET).await;
        let web = Netns::new("web");
        // The test runs in the node's namespace, so these sockets occupy the node's ports.
        let _tcp = TcpListener::bind("127.0.0.1:8080").unwrap();
        let _first = TcpListener::bind("0.0.0.0:32768").unwrap();
        let _udp = UdpSocket::bind("0.0.0.0:32769").unwrap();
        let asks = |publish: Vec<PublishRequest>| CreateEndpointRequest {
            publish,
            ..endpoint("web1", &web)
        };
        for (publish, words) in [
            (wish("", 8080, "80"), ["8080", "tcp"]),
            (wish("127.0.0.1", 8080, "80"), ["8080", "127.0.0.1"]),
            (wish("", 32769, "80/udp"), ["32769", "udp"]),
        ] {
            let refused = api.endpoints.create(asks(vec![publish])).await;
            assert_refused(refused, Code::FailedPrecondition, &words);
        }
        assert_eq!(api.next_revision().await, lab.created_revision + 1, "nothing was logged");
        let free = vec![wish("", 0, "80"), wish("", 0, "81"), wish("", 0, "53/udp")];
        let made = api.endpoints.create(asks(free)).await.unwrap().into_inner();
        assert_eq!(
            made.endpoint.unwrap().published,
            [
                published("53/udp", "0.0.0.0", 32768),
                published("80/tcp", "0.0.0.0", 32769),
                published("81/tcp", "0.0.0.0", 32770),
            ]
        );
        // The node has bound its ports now.
        assert!(TcpListener::bind("0.0.0.0:32769").is_err());
        remove(&mut api, "web1").await;
        TcpListener::bind("0.0.0.0:32769").unwrap();
    });
}

#[test]
fn a_retry_gets_the_ports_of_the_first_attempt() {
    with_node(async |_, mut api| {
        api.network(NETWORK, SUBNET).await;
        let (web, other) = (Netns::new("web"), Netns::new("other"));
        let create = CreateEndpointRequest {
            publish: vec![wish("", 0, "80"), wish("", 8080, "80")],
            request_id: vec![7; 16],
            ..endpoint("web1", &web)
        };
        let first = api.endpoints.create(create.clone()).await.unwrap().into_inner();
        // The ports are not free any more, but the same request has taken them.
        let again = api.endpoints.create(create.clone()).await.unwrap().into_inner();
        assert_eq!(first, again);
        let made = first.endpoint.unwrap();
        assert_eq!(api.next_revision().await, made.created_revision + 1);
        let another = CreateEndpointRequest { request_id: vec![8; 16], ..create };
        let another =
            CreateEndpointRequest { name: "web2".into(), netns: other.name.clone(), ..another };
        let refused = api.endpoints.create(another).await;
        assert_refused(refused, Code::AlreadyExists, &["8080/tcp", "web1"]);
    });
}

#[test]
fn a_joining_node_says_a_subnet_or_none() {
    with_node(async |_, mut api| {
        let join = |gateway_subnet: &str| JoinRequest {
            name: "h2".to_owned(),
            vtep: PEER.to_owned(),
            listen: format!("{PEER}:7400"),
            instance: vec![2; 16],
            gateway_subnet: gateway_subnet.to_owned(),
            oldest_version: 1,
            newest_version: 2,
            ..Default::default()
        };
        for bad in ["x", "172.18.0.1/16", "172.18.0.0/31", "fd00::/64"] {
            let refused = api.cluster.join(join(bad)).await;
            assert_refused(refused, Code::InvalidArgument, &["gateway_subnet", bad]);
        }
        api.cluster.join(join("172.30.0.0/24")).await.unwrap();
        let shown =
            api.nodes.inspect(InspectNodeRequest { name: "h2".to_owned(), stale: false }).await;
        assert_eq!(shown.unwrap().into_inner().gateway_subnet, "172.30.0.0/24");
    });
}

#[test]
fn a_joining_node_has_the_vxlan_port_of_the_others() {
    with_node(async |_, mut api| {
        let join = |vxlan_port: u32| JoinRequest {
            name: "h2".to_owned(),
            vtep: PEER.to_owned(),
            listen: format!("{PEER}:7400"),
            instance: vec![2; 16],
            vxlan_port,
            oldest_version: 1,
            newest_version: 2,
            ..Default::default()
        };
        let refused = api.cluster.join(join(8472)).await;
        assert_refused(refused, Code::FailedPrecondition, &["8472", "4789", "--vxlan-port"]);
        assert!(
            api.nodes
                .inspect(InspectNodeRequest { name: "h2".to_owned(), stale: false })
                .await
                .is_err()
        );
        let same = api.cluster.join(join(4789)).await.unwrap().into_inner();
        let unsaid = api.cluster.join(join(0)).await.unwrap().into_inner();
        assert_eq!(same.node_id, unsaid.node_id, "a node of an earlier version says none");
    });
}
