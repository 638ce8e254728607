//! Each refusal has its status code, names the error, and adds nothing to the log.

use overlay_ctl::proto::v1::{
    CreateEndpointRequest, CreateNetworkRequest, InspectEndpointRequest, InspectNetworkRequest,
    InspectNodeRequest, JoinRequest, ListEndpointsRequest, NetworkOptions, RemoveEndpointRequest,
    RemoveNetworkRequest, RemoveNodeRequest,
};
use tonic::Code;

use crate::{
    fixture::{NETWORK, NODE, PEER, VTEP, assert_refused, endpoint, external, with_node},
    lab::Netns,
};

const SUBNET: &str = "172.16.16.0/24";
const MAC: &str = "02:42:0a:00:00:63";

fn network(name: &str, subnet: &str) -> CreateNetworkRequest {
    CreateNetworkRequest { name: name.to_owned(), subnet: subnet.to_owned(), ..Default::default() }
}

#[test]
fn networks() {
    with_node(async |_, mut api| {
        let lab = api.network(NETWORK, SUBNET).await;
        let with = |change: fn(&mut CreateNetworkRequest)| {
            let mut request = network("other", "10.1.0.0/24");
            change(&mut request);
            request
        };
        let mtu = |mtu| Some(NetworkOptions { mtu, ..Default::default() });
        let long = "x".repeat(64);
        let taken_vni = CreateNetworkRequest { vni: lab.vni, ..network("other", "10.1.0.0/24") };
        let cases: Vec<(CreateNetworkRequest, Code, &[&str])> = vec![
            (network(NETWORK, "10.1.0.0/24"), Code::AlreadyExists, &["network with name lab"]),
            (taken_vni, Code::AlreadyExists, &["VNI 4097", NETWORK]),
            (network("", SUBNET), Code::InvalidArgument, &["name", "empty"]),
            (network("a b", SUBNET), Code::InvalidArgument, &["name", "a b"]),
            (network(&long, SUBNET), Code::InvalidArgument, &["name", "63"]),
            (network("other", "x"), Code::InvalidArgument, &["subnet", "CIDR"]),
            (network("other", "10.1.0.0/33"), Code::InvalidArgument, &["subnet"]),
            (network("other", "10.1.0.0/31"), Code::InvalidArgument, &["subnet", "too small"]),
            (network("other", "0.0.0.0/0"), Code::InvalidArgument, &["subnet", "too large"]),
            (network("other", "10.1.0.1/24"), Code::InvalidArgument, &["subnet", "10.1.0.0/24"]),
            (network("other", "fd00::/64"), Code::InvalidArgument, &["subnet"]),
            (network("other", "224.0.0.0/8"), Code::InvalidArgument, &["subnet", "unicast"]),
            (
                with(|r| r.ip_range = "10.2.0.0/25".into()),
                Code::InvalidArgument,
                &["ip_range", "outside the subnet"],
            ),
            (with(|r| r.ip_range = "y".into()), Code::InvalidArgument, &["ip_range"]),
            (
                with(|r| {
                    r.subnet.clear();
                    r.ip_range = "10.1.0.0/25".into();
                }),
                Code::InvalidArgument,
                &["ip_range", "needs a subnet"],
            ),
            (with(|r| r.vni = 1 << 24), Code::InvalidArgument, &["vni"]),
            (
                CreateNetworkRequest { options: mtu(67), ..network("other", SUBNET) },
                Code::InvalidArgument,
                &["mtu", "67"],
            ),
            (
                CreateNetworkRequest { options: mtu(65_500), ..network("other", SUBNET) },
                Code::InvalidArgument,
                &["mtu"],
            ),
            (with(|r| r.request_id = vec![1; 15]), Code::InvalidArgument, &["request_id"]),
        ];
        for (request, code, words) in cases {
            assert_refused(api.networks.create(request).await, code, words);
        }

        let nothing = || "nothing".to_owned();
        let words = &["no network with name nothing"];
        let inspect = InspectNetworkRequest { name: nothing(), brief: false, stale: false };
        assert_refused(api.networks.inspect(inspect).await, Code::NotFound, words);
        let remove = RemoveNetworkRequest { name: nothing(), ..Default::default() };
        assert_refused(api.networks.remove(remove).await, Code::NotFound, words);
        let malformed = RemoveNetworkRequest { name: "a/b".into(), ..Default::default() };
        assert_refused(api.networks.remove(malformed).await, Code::InvalidArgument, &["name"]);

        assert_eq!(api.next_revision().await, lab.created_revision + 1, "nothing was logged");
        // This network covers the whole pool from which subnets are taken.
        let all = api.network("all", "10.0.0.0/8").await;
        let none_left = api.networks.create(network("other", "")).await;
        assert_refused(none_left, Code::ResourceExhausted, &["no free subnet"]);
        let next = api.network("next", "10.0.0.0/8").await;
        assert_eq!(next.created_revision, all.created_revision + 1);
    });
}

#[test]
fn endpoints_that_clash_or_make_no_sense() {
    with_node(async |_, mut api| {
        api.network(NETWORK, SUBNET).await;
        let (web, other) = (Netns::new("web"), Netns::new("other"));
        let made = api.endpoints.create(endpoint("web2", &web)).await.unwrap().into_inner();
        let made = made.endpoint.unwrap();
        assert_eq!(
            (made.address.as_str(), made.mac.as_str()),
            ("172.16.16.2/24", "02:42:ac:10:10:02")
        );
        let switch = external("sw0", PEER, "02:42:0a:00:00:62", "172.16.16.8");
        let switch = api.endpoints.create(switch).await.unwrap().into_inner().endpoint.unwrap();
        let with = |change: fn(&mut CreateEndpointRequest)| {
            let mut request = endpoint("web3", &other);
            change(&mut request);
            request
        };
        let outside = |vtep: &str, mac: &str, ip: &str| external("sw1", vtep, mac, ip);
        let taken = || "172.16.16.2".to_owned();
        let cases: Vec<(CreateEndpointRequest, Code, &[&str])> = vec![
            (
                endpoint("web2", &other),
                Code::AlreadyExists,
                &["service endpoint with name web2 already exists"],
            ),
            (
                CreateEndpointRequest { ip: taken(), ..endpoint("web3", &other) },
                Code::AlreadyExists,
                &["172.16.16.2", "in use by endpoint web2"],
            ),
            (outside(PEER, MAC, "172.16.16.2"), Code::AlreadyExists, &["172.16.16.2", "web2"]),
            (
                outside(PEER, &made.mac, "172.16.16.9"),
                Code::InvalidArgument,
                &["mac", "02:42:ac:10:10:02", "another address"],
            ),
            (
                outside(PEER, &switch.mac, "172.16.16.9"),
                Code::AlreadyExists,
                &["MAC 02:42:0a:00:00:62", "in use by endpoint sw0"],
            ),
            (outside(VTEP, MAC, "172.16.16.9"), Code::AlreadyExists, &[VTEP, "node h1"]),
            (with(|r| r.ip = "x".into()), Code::InvalidArgument, &["ip ", "IPv4"]),
            (with(|r| r.ip = "fd00::1".into()), Code::InvalidArgument, &["ip ", "IPv4"]),
            (with(|r| r.ip = "10.9.9.9".into()), Code::InvalidArgument, &["ip ", "outside"]),
            (with(|r| r.ip = "172.16.16.0".into()), Code::InvalidArgument, &["ip ", "network"]),
            (with(|r| r.ip = "172.16.16.255".into()), Code::InvalidArgument, &["ip ", "broadcast"]),
            (with(|r| r.ip = "172.16.16.1".into()), Code::InvalidArgument, &["ip ", "gateway"]),
            (with(|r| r.mac = MAC.into()), Code::InvalidArgument, &["mac", "vtep"]),
            (with(|r| r.name = "a b".into()), Code::InvalidArgument, &["name", "a b"]),
            (with(|r| r.name.clear()), Code::InvalidArgument, &["name", "empty"]),
            (with(|r| r.network.clear()), Code::InvalidArgument, &["network", "empty"]),
            (with(|r| r.node = "a b".into()), Code::InvalidArgument, &["node", "a b"]),
            (with(|r| r.netns = "../x".into()), Code::InvalidArgument, &["netns"]),
            (with(|r| r.request_id = vec![1; 17]), Code::InvalidArgument, &["request_id"]),
            (with(|r| r.vtep = PEER.into()), Code::InvalidArgument, &["vtep", "netns"]),
            (outside("x", MAC, "172.16.16.9"), Code::InvalidArgument, &["vtep", "IPv4"]),
            (outside("224.0.0.1", MAC, "172.16.16.9"), Code::InvalidArgument, &["vtep", "host"]),
            (
                outside("255.255.255.255", MAC, "172.16.16.9"),
                Code::InvalidArgument,
                &["vtep", "host"],
            ),
            (outside(PEER, "zz", "172.16.16.9"), Code::InvalidArgument, &["mac", "six bytes"]),
            (
                outside(PEER, "01:00:5e:00:00:01", "172.16.16.9"),
                Code::InvalidArgument,
                &["mac", "group"],
            ),
            (outside(PEER, "", "172.16.16.9"), Code::InvalidArgument, &["mac", "missing"]),
            (outside(PEER, MAC, ""), Code::InvalidArgument, &["ip ", "missing"]),
            (with(|r| r.network = "nothing".into()), Code::NotFound, &["no network", "nothing"]),
            (with(|r| r.node = "h9".into()), Code::NotFound, &["no node", "h9"]),
        ];
        for (request, code, words) in cases {
            assert_refused(api.endpoints.create(request).await, code, words);
        }
        assert_eq!(api.next_revision().await, switch.created_revision + 1, "nothing was logged");
    });
}

#[test]
fn endpoints_whose_namespace_does_not_fit() {
    with_node(async |node, mut api| {
        let lab = api.network(NETWORK, SUBNET).await;
        let busy = Netns::new("busy");
        busy.sh("ip link add eth0 type veth peer name other");
        let has_eth0 = ["eth0", busy.name.as_str()];
        let in_netns = |netns: &str| CreateEndpointRequest {
            name: "web3".to_owned(),
            network: NETWORK.to_owned(),
            netns: netns.to_owned(),
            ..Default::default()
        };
        let cases: Vec<(CreateEndpointRequest, &[&str])> = vec![
            (in_netns("ovk-nothing"), &["ovk-nothing"]),
            // Without a namespace, the one with the endpoint's name is taken.
            (in_netns(""), &["web3"]),
            (in_netns("/etc/passwd"), &["/etc/passwd"]),
            (endpoint("web3", &busy), &has_eth0),
            (endpoint("web3", &node.host.netns), &["own"]),
        ];
        for (request, words) in cases {
            let answer = api.endpoints.create(request).await;
            assert_refused(answer, Code::FailedPrecondition, words);
        }
        let listed = api.endpoints.list(ListEndpointsRequest::default()).await.unwrap();
        assert_eq!(listed.into_inner().endpoints, []);
        assert!(!node.host.netns.sh("ip -o link").contains("ovp"), "no port is left");
        assert_eq!(api.next_revision().await, lab.created_revision + 1, "nothing was logged");
    });
}

#[test]
fn what_is_in_use_stays_and_what_is_empty_is_exhausted() {
    with_node(async |_, mut api| {
        // The four addresses are those of the network, the gateway, one endpoint and the broadcast.
        api.network(NETWORK, "172.16.16.0/30").await;
        let (web, other) = (Netns::new("web"), Netns::new("other"));
        let made = api.endpoints.create(endpoint("web1", &web)).await.unwrap().into_inner();
        let full = api.endpoints.create(endpoint("web2", &other)).await;
        assert_refused(full, Code::ResourceExhausted, &["172.16.16.0/30", NETWORK]);

        let remove = RemoveNetworkRequest { name: NETWORK.to_owned(), ..Default::default() };
        let in_use = api.networks.remove(remove.clone()).await;
        assert_refused(in_use, Code::FailedPrecondition, &["network lab has 1 endpoint"]);
        let leave = || RemoveNodeRequest { name: NODE.to_owned(), ..Default::default() };
        let in_use = api.nodes.remove(leave()).await;
        assert_refused(in_use, Code::FailedPrecondition, &["node h1 has 1 endpoint"]);
        let created = made.endpoint.unwrap().created_revision;
        assert_eq!(api.next_revision().await, created + 1, "nothing was logged");

        let free = RemoveEndpointRequest { name: "web1".to_owned(), ..Default::default() };
        let removed = api.endpoints.remove(free.clone()).await.unwrap().into_inner().revision;
        assert_refused(api.endpoints.remove(free).await, Code::NotFound, &["web1"]);
        let inspect = InspectEndpointRequest { name: "web1".to_owned(), ..Default::default() };
        assert_refused(api.endpoints.inspect(inspect).await, Code::NotFound, &["web1"]);
        let nowhere = ListEndpointsRequest { network: "nothing".to_owned(), ..Default::default() };
        assert_refused(api.endpoints.list(nowhere).await, Code::NotFound, &["nothing"]);
        let nobody = ListEndpointsRequest { node: "h9".to_owned(), ..Default::default() };
        assert_refused(api.endpoints.list(nobody).await, Code::NotFound, &["h9"]);
        let nobody = InspectNodeRequest { name: "h9".to_owned(), stale: false };
        assert_refused(api.nodes.inspect(nobody).await, Code::NotFound, &["h9"]);
        let last = api.nodes.remove(leave()).await;
        assert_refused(last, Code::FailedPrecondition, &["only voter"]);
        assert_eq!(api.next_revision().await, removed + 1, "nothing was logged");
        api.networks.remove(remove).await.unwrap();
    });
}

/// A new cluster begins at the newest version that its node speaks.
#[test]
fn a_node_that_does_not_speak_the_version_of_the_cluster() {
    with_node(async |_, mut api| {
        let status = api.status().await;
        let (oldest, newest) = (status.oldest_version, status.newest_version);
        assert_eq!((status.cluster_version, status.version_waits_for), (newest, Vec::new()));
        let join = |oldest_version: u32, newest_version: u32| JoinRequest {
            name: "h2".to_owned(),
            vtep: PEER.to_owned(),
            listen: format!("{PEER}:7400"),
            instance: vec![2; 16],
            oldest_version,
            newest_version,
            ..Default::default()
        };
        let at = format!("is at version {newest}");
        for (oldest, newest, speaks) in [
            (0, 0, "speaks version 1;"),
            (1, newest - 1, "speaks version"),
            (newest + 1, newest + 2, "speaks versions"),
        ] {
            let refused = api.cluster.join(join(oldest, newest)).await;
            assert_refused(refused, Code::FailedPrecondition, &[&at, speaks, "start the node"]);
        }
        let refused = api.cluster.join(join(2, 1)).await;
        assert_refused(refused, Code::InvalidArgument, &["newest_version"]);
        assert!(
            api.nodes
                .inspect(InspectNodeRequest { name: "h2".to_owned(), stale: false })
                .await
                .is_err()
        );
        api.cluster.join(join(oldest, newest)).await.unwrap();
    });
}
