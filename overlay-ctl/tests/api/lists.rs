//! Long lists have the same contents as short ones, whichever node is asked.

use futures::future::try_join_all;
use overlay_ctl::proto::v1::{
    Endpoint, InspectEndpointRequest, InspectNetworkRequest, ListEndpointsRequest, NetworkPeer,
};
use tonic::Code;

use crate::fixture::{Api, NETWORK, NODE, PEER, assert_refused, external, tcp, with_node};

/// More rows than one answer contains.
const MANY: u32 = 1_100;
/// Number of calls that run at the same time.
const AT_ONCE: usize = 50;

async fn make_many(api: &Api) -> Vec<Endpoint> {
    let numbers: Vec<u32> = (0..MANY).collect();
    let mut made = Vec::new();
    for some in numbers.chunks(AT_ONCE) {
        let creations = some.iter().map(|n| {
            let mut endpoints = api.endpoints.clone();
            // Addresses have the opposite order of ids.
            let at = MANY - n + 1;
            let (high, low) = (at >> 8, at & 255);
            let mac = format!("02:99:00:00:{high:02x}:{low:02x}");
            let ip = format!("172.16.{high}.{low}");
            async move { endpoints.create(external(&format!("e{n}"), PEER, &mac, &ip)).await }
        });
        let answers = try_join_all(creations).await.unwrap();
        made.extend(answers.into_iter().map(|answer| answer.into_inner().endpoint.unwrap()));
    }
    made.sort_unstable_by_key(|endpoint| endpoint.id);
    made
}

#[test]
fn a_long_list_is_what_a_short_one_is() {
    with_node(async |node, mut api| {
        let network = api.network(NETWORK, "172.16.0.0/16").await;
        let made = make_many(&api).await;
        let some = made[700].clone();
        let inspect = InspectEndpointRequest { name: some.name.clone(), ..Default::default() };
        assert_eq!(api.endpoints.inspect(inspect).await.unwrap().into_inner(), some);

        for mut api in [api, Api::new(tcp(node.listen()).await)] {
            let list = async |api: &mut Api, network: &str, node: &str| {
                let (network, node) = (network.to_owned(), node.to_owned());
                api.endpoints.list(ListEndpointsRequest { network, node, stale: false }).await
            };
            for network in ["", NETWORK] {
                let listed = list(&mut api, network, "").await.unwrap().into_inner().endpoints;
                assert!(listed == made, "all, by id");
            }
            for network in ["", NETWORK] {
                let listed = list(&mut api, network, NODE).await.unwrap().into_inner().endpoints;
                assert_eq!(listed, [], "none is on the node");
            }
            assert_refused(list(&mut api, "none", "").await, Code::NotFound, &["none"]);
            assert_refused(list(&mut api, "a b", "").await, Code::InvalidArgument, &["a b"]);

            let mut inspect = async |brief| {
                let request =
                    InspectNetworkRequest { name: NETWORK.to_owned(), brief, stale: false };
                api.networks.inspect(request).await.unwrap().into_inner()
            };
            let detail = inspect(false).await;
            let shown = detail.network.clone().unwrap();
            assert_eq!((shown.id, shown.endpoint_count), (network.id, MANY));
            let mut by_address = made.clone();
            by_address.sort_by_key(|endpoint| {
                let address = endpoint.address.split('/').next().unwrap();
                address.parse::<std::net::Ipv4Addr>().unwrap()
            });
            assert!(detail.endpoints == by_address, "all, by address");
            let (vtep, endpoint_count) = (PEER.to_owned(), MANY);
            assert_eq!(detail.peers, [NetworkPeer { node: String::new(), vtep, endpoint_count }]);
            // A brief request returns the network alone.
            let brief = inspect(true).await;
            assert_eq!(brief.network, detail.network);
            assert!(brief.endpoints.is_empty() && brief.peers.is_empty());
            let none = InspectNetworkRequest { name: "none".to_owned(), brief: true, stale: false };
            assert_refused(api.networks.inspect(none).await, Code::NotFound, &["none"]);
        }
    });
}
