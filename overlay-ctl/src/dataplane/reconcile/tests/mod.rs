//! Tests of the reconciler against a kernel in memory, which checks the order of every write.

mod bridges;
mod cluster;
mod desired;
mod failures;
mod fake;
mod legs;
mod lost;
mod memory;
mod names;
mod parts;
mod plan;
mod random;
mod run;
mod status;
mod ways;

use super::*;
use crate::{
    dataplane::kernel::{Legs, Station, Target},
    model::{Endpoint, Location, NetworkId, Permission, Transport},
};
use cluster::{Cluster, node, on_node};
use fake::{Call, FakeKernel, Fault, UNDERLAY};
use overlay_common::{FdbKey, NeighEntry, NeighKey, NodeEntry, NodeKey, ip16_from_v4};
use std::{net::Ipv4Addr, num::NonZeroU16};

async fn pass(kernel: &mut FakeKernel, view: &View) -> LocalStatus {
    let (mut reconciler, status) = Reconciler::new(kernel, node());
    reconciler.pass(view).await.unwrap();
    status.borrow().clone()
}

fn fdb_key(cluster: &Cluster, name: &str) -> FdbKey {
    let endpoint = cluster.state.endpoint_named(&name.parse().unwrap(), None).unwrap();
    let network = cluster.state.network(endpoint.network).unwrap();
    FdbKey { vni: network.vni.get(), mac: endpoint.mac.octets(), pad: [0; 2] }
}

/// web1 on this node, with its namespace, and web2 on another node.
fn here_and_there() -> (Cluster, FakeKernel) {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    (cluster, kernel)
}

#[tokio::test]
async fn endpoints_come_and_go() {
    let (mut cluster, mut kernel) = here_and_there();

    let status = pass(&mut kernel, &cluster.view()).await;
    assert_eq!(status.programmed, cluster.index);
    assert_eq!(kernel.up.len(), 1);
    assert_eq!(kernel.tables.fdb[&fdb_key(&cluster, "web1")].ifindex, 1);
    let remote = kernel.tables.fdb[&fdb_key(&cluster, "web2")];
    assert_eq!(remote.vtep, ip16_from_v4([10, 0, 0, 2]));
    assert_eq!(kernel.tables.nodes.len(), 2, "all other nodes are known VTEPs");
    let hop = |node| {
        let node = kernel.tables.nodes[&NodeKey { vtep: ip16_from_v4([10, 0, 0, node]) }];
        kernel.tables.hops[&node.hop]
    };
    assert_eq!((hop(2).ifindex, hop(2).header[..6].to_vec()), (1, vec![2, 0, 0, 0, 0, 0]));
    assert_eq!(remote.hop(), kernel.tables.nodes[&NodeKey { vtep: remote.vtep }].hop);
    assert_eq!(hop(3).ifindex, 0, "no next hop for a node that nothing goes to");

    kernel.attached.clear();
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create port 5"], "a second pass has nothing to do");
    assert_eq!(kernel.attached, [1].into(), "but to attach a program that somebody took off");
    assert_eq!(kernel.named, ["/run/netns/web1".into()].into());

    cluster.remove("web1");
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create port 5", "remove port 5"]);
    assert_eq!(kernel.named, [].into(), "the namespace is let go");
    assert_eq!(kernel.tables.fdb.len(), 0, "no endpoint here: nothing of the network is held");
    assert_eq!(kernel.tables.flood.len(), 0);
}

#[tokio::test]
async fn an_endpoint_is_up_when_its_device_runs_and_not_before() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let faults = [(Call::Raise, Fault::OfTheEndpoint)].into();
    let mut kernel = FakeKernel { faults, ..FakeKernel::default() };
    kernel.namespaces.insert("/run/netns/web1".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    let down = |status: &LocalStatus| status.endpoints.values().next().unwrap().down.clone();
    assert_eq!(down(&status).unwrap(), "Raise is refused");
    assert_eq!(status.programmed, cluster.index, "the others need not wait for it");
    kernel.faults.clear();
    assert_eq!(down(&pass(&mut kernel, &cluster.view()).await), None);
    assert_eq!(kernel.log, ["create port 5"], "it is raised again, not made again");
}

#[tokio::test]
async fn a_missing_namespace_takes_only_its_own_endpoint_down() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web2".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    let down: Vec<_> = status.endpoints.values().map(|health| health.down.clone()).collect();
    assert_eq!(down, [Some("its namespace is gone".into()), None]);
    // Its MAC and its address stay its own.
    let entry = kernel.tables.fdb[&fdb_key(&cluster, "web1")];
    assert!(!entry.is_somewhere());
    assert!(kernel.tables.neigh.keys().any(|key| key.ip == entry.ip));

    kernel.namespaces.insert("/run/netns/web1".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    assert!(status.endpoints.values().all(|health| health.down.is_none()));
}

#[tokio::test]
async fn a_namespace_made_anew_gets_its_leg_again() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    kernel.remake_namespace(1);
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create port 5", "remove port 5", "create port 5"]);
    assert_eq!(kernel.tables.fdb[&fdb_key(&cluster, "web1")].ifindex, 2);
    assert_eq!(kernel.tables.ports.keys().copied().collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_failed_pass_is_made_up_for() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    for failing in 1..6 {
        let mut kernel = FakeKernel { fail_writes: 1, ..FakeKernel::default() };
        kernel.namespaces.insert("/run/netns/web1".into());
        let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
        for _ in 0..failing {
            reconciler.kernel.fail_writes = 1;
            reconciler.pass(&cluster.view()).await.unwrap_err();
            assert_eq!(status.borrow().programmed, 0, "nothing is claimed");
            assert_eq!(reconciler.kernel.swapped_with, None, "no program takes half of the tables");
        }
        reconciler.kernel.fail_writes = 0;
        reconciler.pass(&cluster.view()).await.unwrap();
        assert_eq!(status.borrow().programmed, cluster.index);
        assert_eq!(kernel.tables.fdb.len(), 2);
        assert_eq!(kernel.swapped_with.as_ref(), Some(&kernel.tables), "by all of the tables");
    }
}

#[tokio::test]
async fn what_others_wrote_into_the_maps_is_put_right() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    let right = kernel.tables.clone();
    kernel.tables.fdb.clear();
    let stray = NodeEntry { node: 9, hop: 99, pad: 0 };
    kernel.tables.nodes.insert(NodeKey { vtep: [9; 16] }, stray);
    let stray = NeighEntry { mac: [9; 6], pad: [0; 2] };
    kernel.tables.neigh.insert(NeighKey { ip: [9; 16], vni: 9 }, stray);
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.tables, right);
}

#[tokio::test]
async fn an_endpoint_elsewhere_costs_its_own_entries_and_no_look_at_anything() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    cluster.endpoint("web3", "net", 3);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    let mut view = cluster.view();
    let counts = |r: &Reconciler<&mut FakeKernel>| {
        let FakeKernel { read_whole, looked, glanced, written, .. } = *r.kernel;
        (read_whole, looked + glanced, written)
    };
    let (whole, looked, written) = counts(&reconciler);

    let network: NetworkId = *view.networks.keys().next().unwrap();
    let endpoints = view.endpoints.get_mut(&network).unwrap();
    let web2 = endpoints.values().find(|e| e.name.as_str() == "web2").unwrap();
    let mut moved = Endpoint::clone(web2);
    moved.location = Location::Node { node: 3, netns: "/run/netns/web2".into() };
    endpoints.insert(moved.id, Arc::new(moved));
    reconciler.work(&view, &Trigger::NewView).await.unwrap();
    // Node 2 lost its last endpoint, and so the network lost a VTEP.
    assert_eq!(counts(&reconciler), (whole, looked + 1, written + 2), "the FDB and the next hop");

    cluster.endpoint("web4", "net", 3);
    let mut view = cluster.view();
    reconciler.work(&view, &Trigger::Changed(Scope::whole())).await.unwrap();
    let (_, looked, written) = counts(&reconciler);
    view.revision += 1;
    let endpoints = view.endpoints.get_mut(&network).unwrap();
    let web4 = endpoints.values().find(|e| e.name.as_str() == "web4").unwrap();
    let mut renamed = Endpoint::clone(web4);
    renamed.permissions = [Permission::Routing].into_iter().collect();
    renamed.aliases.insert("db".parse().unwrap());
    endpoints.insert(renamed.id, Arc::new(renamed));
    reconciler.work(&view, &Trigger::NewView).await.unwrap();
    assert_eq!(counts(&reconciler), (whole, looked, written + 1), "its FDB entry alone");
    assert_eq!(status.borrow().programmed, view.revision);
    assert!(reconciler.kernel.names.networks[&network].records.contains_key("db"));

    let id = view.endpoints[&network].values().find(|e| e.name.as_str() == "web4").unwrap().id;
    view.endpoints.get_mut(&network).unwrap().remove(&id);
    reconciler.work(&view, &Trigger::NewView).await.unwrap();
    assert_eq!(counts(&reconciler), (whole, looked, written + 3), "FDB and neighbour");
    assert!(!reconciler.kernel.names.networks[&network].records.contains_key("db"));
}

/// A node with a gateway: web1 publishes a port, and has a leg for that.
fn published() -> (Cluster, FakeKernel) {
    let mut cluster = Cluster::new();
    cluster.gateway();
    cluster.endpoint_with("web1", "net", on_node(1, "/run/netns/web1"), &["8080:80"]);
    let mut kernel = FakeKernel { bridge_mtu: 1500, ..FakeKernel::default() };
    kernel.namespaces.insert("/run/netns/web1".into());
    (cluster, kernel)
}

#[tokio::test]
async fn what_a_pass_does_not_look_at_is_repaired_with_the_mac_of_each_leg() {
    let (cluster, mut kernel) = published();
    let leg = cluster.view().all_endpoints().find_map(|endpoint| endpoint.leg).unwrap();
    let station = Station { mac: [2, 0x42, 172, 18, 0, 2], address: [172, 18, 0, 2].into() };
    let stations = [(DeviceId::leg(leg.id), station)].into();
    let mut repaired = 0;
    for trigger in [None, Some(Trigger::Changed(Scope::whole())), Some(Trigger::Periodic)] {
        kernel.stations.clear();
        let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
        match &trigger {
            None => reconciler.preview(&cluster.view()).await.unwrap(),
            Some(trigger) => reconciler.work(&cluster.view(), trigger).await.unwrap(),
        }
        repaired += 1;
        assert_eq!((kernel.repaired, &kernel.stations), (repaired, &stations), "{trigger:?}");
    }
}

#[tokio::test]
async fn the_mtu_is_followed() {
    let (cluster, mut kernel) = here_and_there();
    let mtus = async |kernel: &mut FakeKernel| {
        let status = pass(kernel, &cluster.view()).await;
        let devices: Vec<u32> = kernel.devices.values().map(|device| device.mtu).collect();
        let hop = kernel.tables.nodes[&NodeKey { vtep: ip16_from_v4([10, 0, 0, 2]) }].hop;
        let health = status.endpoints.values().next().unwrap();
        assert_eq!(devices, [health.mtu]);
        let Mtus { underlay, device, endpoint, .. } = status.mtus;
        assert_eq!((endpoint, kernel.bridge_mtu), (health.mtu, device));
        (underlay, kernel.tables.hops[&hop].mtu, endpoint)
    };
    assert_eq!(mtus(&mut kernel).await, (1500, 1500, 1450));
    kernel.mtu = Some(9000);
    assert_eq!(mtus(&mut kernel).await, (9000, 9000, 8950));
    kernel.route_mtus.insert([10, 0, 0, 2].into(), 1400);
    assert_eq!(mtus(&mut kernel).await, (1400, 1400, 1350));
    kernel.route_mtus.clear();
    kernel.route_mtus.insert([10, 0, 0, 3].into(), 1300);
    assert_eq!(mtus(&mut kernel).await, (9000, 9000, 8950), "nothing goes to that one");
    assert_eq!(
        kernel.log,
        ["create port 5", "update port 5 8950", "update port 5 1350", "update port 5 8950"]
    );
}

#[tokio::test]
async fn the_devices_by_which_vteps_are_reached_are_uplinks() {
    let (cluster, mut kernel) = here_and_there();
    let far: Vtep = [10, 0, 0, 2].into();
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.attached_uplinks, [UNDERLAY].into());
    kernel.uplinks.insert(far, 7);
    kernel.unresolved.insert(far);
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.attached_uplinks, [7].into());
    let hop = kernel.tables.nodes[&NodeKey { vtep: far.ip16() }].hop;
    let entry = kernel.tables.hops[&hop];
    assert_eq!((entry.ifindex, entry.via_device()), (0, 7), "unresolved, and by no other device");
}

#[tokio::test]
async fn a_vtep_without_a_route_is_named_and_keeps_nothing_else_back() {
    let (cluster, mut kernel) = here_and_there();
    let far: Vtep = [10, 0, 0, 2].into();
    kernel.unreachable.insert(far);
    let status = pass(&mut kernel, &cluster.view()).await;
    assert_eq!(status.fallbacks, ["nothing is sent to the VTEP 10.0.0.2: no route"]);
    assert_eq!((status.unresolved, status.error), (vec![], None));
    assert!(status.endpoints.values().all(|endpoint| endpoint.down.is_none()));
    let hop = kernel.tables.nodes[&NodeKey { vtep: far.ip16() }].hop;
    assert_eq!(kernel.tables.hops[&hop].via, 0);
    kernel.unreachable.clear();
    let status = pass(&mut kernel, &cluster.view()).await;
    assert!(status.fallbacks.is_empty() && status.unresolved.is_empty(), "{status:?}");
}
