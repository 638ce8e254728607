//! What the maps say of stations behind bridging endpoints.

use super::{
    cluster::{behind, on_node},
    *,
};
use crate::{
    dataplane::reconcile::{
        bridges,
        desired::{Placement, Port},
        sites::Sites,
    },
    model::{NetworkOptions, Permission, Permissions},
};
use overlay_common::{
    BRIDGES_MAX, BridgeKey, FLAG_BRIDGING, FLAG_MULTICAST, FLAG_ROUTING, FLAG_STATIONS, FLOOD_MAX,
    FdbEntry, FloodEntry, FloodKey, IP16_NONE, ip16_from_v4,
};
use std::collections::BTreeMap;

/// A cluster with one network, which has a plain endpoint here and one on node 2.
fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    let lan = NetworkOptions { multicast: true, ..NetworkOptions::default() };
    cluster.network_with("lan", "172.16.17.0/24", lan);
    cluster.endpoint("web", "lan", 1);
    cluster.endpoint("db", "lan", 2);
    cluster
}

fn id(view: &View, name: &str) -> u64 {
    view.all_endpoints().find(|endpoint| endpoint.name.as_str() == name).unwrap().id
}

/// The name of an endpoint that has no port.
const DOWN: &str = "down";

/// The entries of the network `lan`. Endpoints of this node but [`DOWN`] are ports 31, 32 and so on, in the order of their
/// names; nodes 2 and 3 are hops 1 and 2, and the VTEP of an external endpoint has no index.
fn tables(cluster: &Cluster) -> (View, Tables) {
    let view = cluster.view();
    let mut sites = Sites::new(1);
    sites.update(&view);
    let here = sites.here().filter(|endpoint| endpoint.name.as_str() != DOWN);
    let mut here: Vec<_> = here.collect();
    here.sort_unstable_by_key(|endpoint| endpoint.name.to_string());
    let ports = here.iter().zip(31..).map(|(endpoint, ifindex)| {
        (endpoint.id, Port { ifindex, queued: false, slot: ifindex - 30 })
    });
    let placement = Placement {
        ports: ports.collect(),
        hops: [([10, 0, 0, 2].into(), 1), ([10, 0, 0, 3].into(), 2)].into(),
    };
    let mut tables = Tables::default();
    bridges::put(&mut tables, &view, &node(), &sites, &placement).unwrap();
    (view, tables)
}

fn vni(view: &View) -> u32 {
    view.networks.values().find(|network| network.name.as_str() == "lan").unwrap().vni.get()
}

fn page(hops: &[u32], ports: &[u32]) -> FloodEntry {
    let mut page = FloodEntry {
        hop_count: u32::try_from(hops.len()).unwrap(),
        port_count: u32::try_from(ports.len()).unwrap(),
        ..FloodEntry::EMPTY
    };
    page.hops[..hops.len()].copy_from_slice(hops);
    page.ports[..ports.len()].copy_from_slice(ports);
    page
}

#[test]
fn without_a_bridging_endpoint_there_is_nothing() {
    assert_eq!(tables(&cluster()).1, Tables::default());
}

#[test]
fn the_only_one_gets_what_nobody_else_does() {
    let flags = FLAG_MULTICAST | FLAG_BRIDGING;
    let mut cluster = cluster();
    cluster.endpoint("bridge", "lan", 1);
    let (view, found) = tables(&cluster);
    let vni = vni(&view);
    let ip = ip16_from_v4([172, 16, 17, 4]);
    let here = FdbEntry::here(id(&view, "bridge"), ip, flags, 31, 1);
    let expected = Tables {
        bridges: [(BridgeKey::only(vni), here)].into(),
        flood: [(FloodKey::bridging(vni), page(&[], &[31]))].into(),
        ..Tables::default()
    };
    assert_eq!(found, expected, "on this node");

    cluster.remove("bridge");
    cluster.endpoint("bridge", "lan", 3);
    let (view, found) = tables(&cluster);
    let id = id(&view, "bridge");
    let vtep = ip16_from_v4([10, 0, 0, 3]);
    let ip = ip16_from_v4([172, 16, 17, 5]);
    let expected = Tables {
        bridges: [
            (BridgeKey::only(vni), FdbEntry::behind(id, ip, flags, vtep, 2)),
            (
                BridgeKey::behind(vni, vtep),
                FdbEntry::behind(id, IP16_NONE, flags | FLAG_STATIONS, vtep, 2),
            ),
        ]
        .into(),
        flood: [(FloodKey::bridging(vni), page(&[2], &[]))].into(),
        ..Tables::default()
    };
    assert_eq!(found, expected, "on another");
}

/// A VTEP's stations may do what one of its bridging endpoints may do, since nobody knows which they are behind.
#[test]
fn several_get_copies_and_share_what_they_may_do() {
    let mut cluster = cluster();
    cluster.endpoint("bridge", "lan", 1);
    let both: Permissions = [Permission::Bridging, Permission::Routing].into_iter().collect();
    cluster.permit("b2", "lan", on_node(2, "/run/netns/b2"), both);
    cluster.permit("b3", "lan", on_node(2, "/run/netns/b3"), both);
    cluster.permit(
        "r",
        "lan",
        on_node(3, "/run/netns/r"),
        [Permission::Routing].into_iter().collect(),
    );
    cluster.endpoint_with("switch", "lan", behind([10, 9, 0, 1], 7, [172, 16, 17, 30]), &[]);
    let (view, found) = tables(&cluster);
    let (vni, vtep) = (vni(&view), ip16_from_v4([10, 0, 0, 2]));
    let flags = FLAG_MULTICAST | FLAG_BRIDGING | FLAG_ROUTING | FLAG_STATIONS;
    let stations = FdbEntry::behind(id(&view, "b2"), IP16_NONE, flags, vtep, 1);
    let lost = FloodEntry { lost_hops: 1, ..page(&[1], &[31]) };
    let expected = Tables {
        bridges: [(BridgeKey::behind(vni, vtep), stations)].into(),
        flood: [(FloodKey::bridging(vni), lost)].into(),
        ..Tables::default()
    };
    assert_eq!(found, expected, "the switch's VTEP has no index, and is counted");
}

/// A namespace of this node that has gone, or a port that was not made.
#[test]
fn one_of_this_node_that_is_down_changes_nothing_for_the_others() {
    let mut cluster = cluster();
    cluster.endpoint("bridge", "lan", 2);
    let (_, alone) = tables(&cluster);
    assert_eq!(alone.bridges.len(), 2);
    // `tables` gives no port to it.
    let bridging = [Permission::Bridging].into_iter().collect();
    cluster.permit(DOWN, "lan", on_node(1, "/run/netns/down"), bridging);
    assert_eq!(tables(&cluster).1, alone);
    cluster.remove("bridge");
    assert_eq!(tables(&cluster).1, Tables::default(), "nobody gets anything");
}

#[test]
fn a_network_for_which_a_map_has_no_room_is_named_and_stops_nothing() {
    let mut cluster = cluster();
    cluster.endpoint("bridge", "lan", 2);
    let view = cluster.view();
    let mut sites = Sites::new(1);
    sites.update(&view);
    let placement = Placement { hops: [([10, 0, 0, 2].into(), 1)].into(), ..Default::default() };
    let entry = FdbEntry::nowhere(0, IP16_NONE, 0);
    let others = |count: u32| Tables {
        bridges: (0..count).map(|n| (BridgeKey::only(1 << 20 | n), entry)).collect(),
        ..Tables::default()
    };
    // The network has an entry for its only bridging endpoint, and one for the stations behind its VTEP.
    let mut tables = others(BRIDGES_MAX - 2);
    bridges::put(&mut tables, &view, &node(), &sites, &placement).unwrap();
    assert_eq!((tables.bridges.len(), tables.flood.len()), (BRIDGES_MAX as usize, 1));
    let mut tables = others(BRIDGES_MAX - 1);
    let error = bridges::put(&mut tables, &view, &node(), &sites, &placement).unwrap_err();
    assert!(error.to_string().contains("too many bridging endpoints"), "{error}");
    assert_eq!(tables, others(BRIDGES_MAX - 1));
}

#[test]
fn those_without_a_place_are_counted() {
    let mut cluster = cluster();
    let bridging = [Permission::Bridging].into_iter().collect();
    for n in 0..FLOOD_MAX + 3 {
        let name = format!("b{n}");
        cluster.permit(&name, "lan", on_node(1, &format!("/run/netns/{name}")), bridging);
    }
    let (view, found) = tables(&cluster);
    let page = found.flood[&FloodKey::bridging(vni(&view))];
    assert_eq!((page.port_count, page.lost_ports, page.lost_hops), (64, 3, 0));
    assert_eq!(found.bridges, BTreeMap::new());
}

#[test]
fn a_change_of_a_bridging_endpoint_elsewhere_changes_more_than_its_row() {
    let mut cluster = cluster();
    let mut sites = Sites::new(1);
    sites.update(&cluster.view());
    let mut changed = |cluster: &Cluster| sites.update(&cluster.view());
    cluster.endpoint("db2", "lan", 2);
    assert!(!changed(&cluster), "a plain one");
    cluster.endpoint("bridge", "lan", 2);
    assert!(changed(&cluster));
    assert!(!changed(&cluster), "the same view");
    cluster.remove("bridge");
    assert!(changed(&cluster));
    cluster.remove("db2");
    assert!(!changed(&cluster));
}
