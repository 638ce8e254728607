//! Tests of the reconciler against a kernel in memory, which checks the order of every write.

mod cluster;
mod fake;
mod plan;
mod random;

use super::*;
use crate::{
    control::state::{Command, Placement, PortsWanted},
    model::{Endpoint, EndpointAddrs, Location, NetworkId},
};
use cluster::{Cluster, node};
use fake::FakeKernel;
use overlay_common::{FdbKey, NodeEntry, NodeKey, ip16_from_v4};

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

#[tokio::test]
async fn endpoints_come_and_go() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());

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

    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create port 5"], "a second pass has nothing to do");

    cluster.remove("web1");
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(kernel.log, ["create port 5", "remove port 5"]);
    assert_eq!(kernel.tables.fdb.len(), 0, "no endpoint here: nothing of the network is held");
    assert_eq!(kernel.tables.flood.len(), 0);
}

#[tokio::test]
async fn an_endpoint_is_up_when_its_device_runs_and_not_before() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel { is_dead: true, ..FakeKernel::default() };
    kernel.namespaces.insert("/run/netns/web1".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    let down = |status: &LocalStatus| status.endpoints.values().next().unwrap().down.clone();
    assert_eq!(down(&status).unwrap(), "it does not run");
    assert_eq!(status.programmed, cluster.index, "the others need not wait for it");
    kernel.is_dead = false;
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
    assert!(!kernel.tables.fdb.contains_key(&fdb_key(&cluster, "web1")));

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
async fn names_come_before_the_view_is_acted_on_and_change_nothing() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    let (tables, log) = (kernel.tables.clone(), kernel.log.clone());
    kernel.names = Arc::default();
    // The kernel holds web2; of web3 it has not heard.
    let old = cluster.view();
    cluster.endpoint("web3", "net", 2);
    let (mut reconciler, _) = Reconciler::new(&mut kernel, node());
    reconciler.preview(&cluster.view()).await.unwrap();
    let known = |kernel: &FakeKernel| -> Vec<String> {
        kernel.names.networks.values().flat_map(|n| n.records.keys().cloned()).collect()
    };
    assert_eq!(known(&kernel), ["web1", "web2"]);
    assert_eq!(kernel.names.namespaces.len(), 1);
    // A view that is older than the kernel: of what it does not know it could only say that it is not.
    kernel.names = Arc::default();
    kernel.tables.fdb.values_mut().for_each(|entry| entry.endpoint += 100);
    let (mut reconciler, _) = Reconciler::new(&mut kernel, node());
    reconciler.preview(&old).await.unwrap();
    assert_eq!(*kernel.names, Names::default());
    kernel.tables.fdb.values_mut().for_each(|entry| entry.endpoint -= 100);
    assert_eq!((&kernel.tables, &kernel.log), (&tables, &log));
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
    reconciler.work(&cluster.view(), Trigger::KernelChanged).await.unwrap();
    let mut view = cluster.view();
    let counts =
        |r: &Reconciler<&mut FakeKernel>| (r.kernel.read_whole, r.kernel.looked, r.kernel.written);
    let (whole, looked, written) = counts(&reconciler);

    let network: NetworkId = *view.networks.keys().next().unwrap();
    let endpoints = view.endpoints.get_mut(&network).unwrap();
    let web2 = endpoints.values().find(|e| e.name.as_str() == "web2").unwrap();
    let mut moved = Endpoint::clone(web2);
    moved.location = Location::Node { node: 3, netns: "/run/netns/web2".into() };
    endpoints.insert(moved.id, Arc::new(moved));
    reconciler.work(&view, Trigger::NewView).await.unwrap();
    // Node 2 lost its last endpoint, and so the network lost a VTEP.
    assert_eq!(counts(&reconciler), (whole, looked + 1, written + 2), "the FDB and the next hop");

    cluster.endpoint("web4", "net", 3);
    let mut view = cluster.view();
    reconciler.work(&view, Trigger::KernelChanged).await.unwrap();
    let (_, looked, written) = counts(&reconciler);
    view.revision += 1;
    let endpoints = view.endpoints.get_mut(&network).unwrap();
    let web4 = endpoints.values().find(|e| e.name.as_str() == "web4").unwrap();
    let mut renamed = Endpoint::clone(web4);
    renamed.forwards = true;
    renamed.aliases.insert("db".parse().unwrap());
    endpoints.insert(renamed.id, Arc::new(renamed));
    reconciler.work(&view, Trigger::NewView).await.unwrap();
    assert_eq!(counts(&reconciler), (whole, looked, written + 1), "its FDB entry alone");
    assert_eq!(status.borrow().programmed, view.revision);
    assert!(reconciler.kernel.names.networks[&network].records.contains_key("db"));

    let id = view.endpoints[&network].values().find(|e| e.name.as_str() == "web4").unwrap().id;
    view.endpoints.get_mut(&network).unwrap().remove(&id);
    reconciler.work(&view, Trigger::NewView).await.unwrap();
    assert_eq!(counts(&reconciler), (whole, looked, written + 3), "FDB and neighbour");
    assert!(!reconciler.kernel.names.networks[&network].records.contains_key("db"));
}

/// A node with a gateway: web1 publishes a port, and has a leg for that.
fn published() -> (Cluster, FakeKernel) {
    let mut cluster = Cluster::new();
    cluster.gateway();
    let mut ports = PortsWanted::default();
    ports.publish.push("8080:80".parse().unwrap());
    cluster.apply(Command::CreateEndpoint {
        name: "web1".parse().unwrap(),
        network: "net".parse().unwrap(),
        placement: Placement::Node {
            node: "h1".parse().unwrap(),
            netns: "/run/netns/web1".into(),
            addresses: EndpointAddrs::default(),
        },
        forwards: false,
        aliases: std::collections::BTreeSet::default(),
        ports,
    });
    let mut kernel = FakeKernel { bridge_mtu: 1500, ..FakeKernel::default() };
    kernel.namespaces.insert("/run/netns/web1".into());
    (cluster, kernel)
}

#[tokio::test]
async fn a_leg_stands_before_a_port_leads_to_it_and_follows_the_bridge() {
    let (cluster, mut kernel) = published();
    let status = pass(&mut kernel, &cluster.view()).await;
    let health = status.endpoints.values().next().unwrap();
    assert_eq!(health.down, None);
    assert_eq!(health.gateway.as_ref().unwrap().interface, "eth1");
    assert_eq!((status.gateway.published, kernel.up.len()), (1, 2));
    // The fake checks that the bridge never takes more than its legs.
    for mtu in [9000, 1400] {
        kernel.mtu = Some(mtu);
        pass(&mut kernel, &cluster.view()).await;
        let legs = kernel.devices.values().filter(|device| device.interface() == "eth1");
        assert_eq!(legs.map(|leg| leg.mtu).collect::<Vec<_>>(), [mtu]);
        assert_eq!(kernel.bridge_mtu, mtu);
    }
}

#[tokio::test]
async fn another_leg_takes_the_place_of_one_in_one_pass() {
    let (cluster, mut kernel) = published();
    pass(&mut kernel, &cluster.view()).await;
    let legs = |kernel: &FakeKernel| -> Vec<u64> {
        let legs = kernel.devices.values().filter(|device| device.interface() == "eth1");
        legs.map(|leg| leg.id.number).collect()
    };
    let right = legs(&kernel);
    // A leg with another id is in the way, as after the gateway's subnet changed.
    let leg = kernel.devices.values_mut().find(|device| device.interface() == "eth1").unwrap();
    leg.id.number += 1;
    kernel.published.clear();
    let status = pass(&mut kernel, &cluster.view()).await;
    assert_eq!(legs(&kernel), right);
    assert!(status.endpoints.values().all(|health| health.down.is_none()));
    let [.., removed, created] = &kernel.log[..] else { panic!("{:?}", kernel.log) };
    assert!(removed.starts_with("remove leg") && created.starts_with("create leg"), "{removed}");
}

#[tokio::test]
async fn names_are_told_once_a_pass_and_only_when_they_changed() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    let told = async |reconciler: &mut Reconciler<&mut FakeKernel>, view: &View, trigger| {
        let before = reconciler.kernel.told;
        reconciler.work(view, trigger).await.unwrap();
        reconciler.kernel.told - before
    };
    told(&mut reconciler, &cluster.view(), Trigger::KernelChanged).await;
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::KernelChanged).await, 0);
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::Periodic).await, 1, "again");
    cluster.endpoint("web2", "net", 1);
    reconciler.kernel.namespaces.insert("/run/netns/web2".into());
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::NewView).await, 1);
    cluster.remove("web2");
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::NewView).await, 2, "first it goes");
    // A doomed device is built again in the same pass.
    let ifindex = *reconciler.kernel.devices.keys().next().unwrap();
    reconciler.kernel.remake_namespace(ifindex);
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::KernelChanged).await, 2);
}

#[tokio::test]
async fn a_name_that_was_told_before_the_first_pass_goes_before_its_entry() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    // The namespace went while the node did not run. Its entry is there still, and so the name is told.
    kernel.namespaces.clear();
    kernel.devices.clear();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.preview(&cluster.view()).await.unwrap();
    let told = |reconciler: &Reconciler<&mut FakeKernel>| -> usize {
        reconciler.kernel.names.networks.values().map(|network| network.records.len()).sum()
    };
    assert_eq!(told(&reconciler), 1);
    // The fake checks the order.
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!((told(&reconciler), reconciler.kernel.tables.fdb.len()), (0, 0));
}

#[tokio::test]
async fn the_mtu_is_followed() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    cluster.endpoint("web2", "net", 2);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
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
