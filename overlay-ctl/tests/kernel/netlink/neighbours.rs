//! Neighbours that the kernel keeps resolved for the node, and that go when they are no next hops any more.

use std::collections::BTreeSet;

use overlay_ctl::{
    dataplane::netlink::{Interest, Netlink, Underlay, UnderlayChoice},
    model::Vtep,
};

use super::{MAC_OF_ETH7, mac, pair_of_hosts, resolved};
use crate::lab::{Netns, skip};

async fn look(netlink: &Netlink, underlay: &Underlay, vteps: &[[u8; 4]]) {
    let vteps: BTreeSet<Vtep> = vteps.iter().map(|vtep| (*vtep).into()).collect();
    let ways = netlink.ways(&vteps, (underlay, 4789), &Interest::default()).await;
    assert!(ways.trouble.is_empty() && ways.unknown.is_empty(), "{ways:?}");
}

/// The addresses of the neighbours that the kernel keeps resolved.
fn managed(host: &Netns) -> Vec<String> {
    let shown = host.sh("ip -d neigh show nud all dev eth7");
    let managed = shown.lines().filter(|line| line.contains("managed"));
    let mut addresses: Vec<String> =
        managed.filter_map(|line| line.split(' ').next()).map(ToOwned::to_owned).collect();
    addresses.sort();
    addresses
}

#[test]
fn a_neighbour_that_is_no_hop_any_more_is_not_asked_for() {
    if skip() {
        return;
    }
    let (host, peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        // Of the operator, of another program, and of an earlier version of this one.
        host.sh("ip neigh add 10.0.0.60 lladdr 02:00:00:00:00:60 dev eth7 nud permanent");
        host.sh("ip neigh replace 10.0.0.61 dev eth7 managed extern_learn");
        host.sh("ip neigh replace 10.0.0.62 dev eth7 managed");
        look(&netlink, &underlay, &[[10, 0, 0, 2], [10, 0, 0, 9]]).await;
        assert_eq!(resolved(&netlink, &underlay, [10, 0, 0, 2]).await, mac(&peer.sh(MAC_OF_ETH7)));
        assert_eq!(managed(&host), ["10.0.0.2", "10.0.0.61", "10.0.0.62", "10.0.0.9"]);

        look(&netlink, &underlay, &[[10, 0, 0, 2], [10, 0, 0, 60], [10, 0, 0, 61], [10, 0, 0, 62]])
            .await;
        assert_eq!(managed(&host), ["10.0.0.2", "10.0.0.61", "10.0.0.62"], "10.0.0.9 left");
        assert_eq!(resolved(&netlink, &underlay, [10, 0, 0, 2]).await, mac(&peer.sh(MAC_OF_ETH7)));
        // By another process, after a restart.
        let netlink = Netlink::open().await.unwrap();
        look(&netlink, &underlay, &[]).await;
        assert_eq!(managed(&host), ["10.0.0.61"], "another program's");
        assert!(host.sh("ip neigh show 10.0.0.60").contains("PERMANENT"));

        look(&netlink, &underlay, &[[10, 0, 0, 9]]).await;
        netlink.release_neighbours().await.unwrap();
        assert_eq!(managed(&host), ["10.0.0.61"]);
    });
}

#[test]
fn a_router_is_kept_while_one_way_leads_by_it() {
    if skip() {
        return;
    }
    let (host, _router) = pair_of_hosts();
    host.sh("ip route add 192.0.2.0/24 via 10.0.0.2");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        look(&netlink, &underlay, &[[192, 0, 2, 1], [192, 0, 2, 2]]).await;
        look(&netlink, &underlay, &[[192, 0, 2, 2]]).await;
        assert_eq!(managed(&host), ["10.0.0.2"]);
        host.sh("ip route del 192.0.2.0/24");
        look(&netlink, &underlay, &[[192, 0, 2, 2]]).await;
        assert_eq!(managed(&host), [""; 0], "there is no route");
    });
}

#[test]
fn the_state_of_the_table_is_told_in_any_namespace() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let before = netlink.neighbour_table().await.unwrap().unwrap();
        assert!(before.max > 0, "{before:?}");
        host.sh("ip neigh add 10.0.0.60 lladdr 02:00:00:00:00:60 dev eth7 nud permanent");
        let after = netlink.neighbour_table().await.unwrap().unwrap();
        assert!(after.entries > 0 && after.max == before.max, "{after:?}");
    });
}
