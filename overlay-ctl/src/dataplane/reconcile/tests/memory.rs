//! What is remembered of the kernel, and what happens where the memory may be wrong.

use super::*;
use crate::dataplane::reconcile::audit::Audit;
use overlay_common::{FLAG_ICC_OFF, TRAFFIC_MAX};

/// web1 on this node, web2 on node 2, web3 on node 3.
fn three() -> (Cluster, FakeKernel) {
    let mut cluster = Cluster::new();
    for node in 1..=3 {
        cluster.endpoint(&format!("web{node}"), "net", node);
    }
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    (cluster, kernel)
}

#[tokio::test]
async fn a_write_that_stopped_half_way_leaves_nothing_behind() {
    let (mut cluster, mut kernel) = three();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    let before = reconciler.kernel.tables.clone();
    cluster.endpoint("web4", "net", 2);
    (reconciler.kernel.good_writes, reconciler.kernel.fail_writes) = (1, 1);
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap_err();
    assert_eq!(reconciler.kernel.tables.fdb, before.fdb);
    let written = reconciler.kernel.tables.neigh.len();
    assert_eq!(written, before.neigh.len() + 1, "half of it was written");
    cluster.remove("web4");
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap();
    assert_eq!(kernel.tables, before);
}

#[tokio::test]
async fn each_port_is_counted_by_itself_and_its_counts_are_taken_when_it_goes() {
    let mut cluster = Cluster::new();
    let mut kernel = FakeKernel::default();
    for name in ["web1", "web2"] {
        cluster.endpoint(name, "net", 1);
        kernel.namespaces.insert(format!("/run/netns/{name}").into());
    }
    pass(&mut kernel, &cluster.view()).await;
    let slots: Vec<u32> = kernel.tables.ports.values().map(|port| port.slot).collect();
    assert_eq!(slots, [1, 2]);

    // An earlier process may have ended before it took the counts of ports that are gone.
    kernel.freed.clear();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(reconciler.kernel.freed, (3..TRAFFIC_MAX).collect());

    reconciler.kernel.freed.clear();
    reconciler.kernel.faults.insert(Call::FreeSlots, Fault::OfTheKernel);
    cluster.remove("web2");
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap_err();
    reconciler.kernel.faults.clear();
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap();
    assert!(kernel.freed.contains(&2), "the next pass takes what this one could not");
}

#[tokio::test]
async fn a_hop_that_an_entry_names_is_given_to_no_other_vtep() {
    let (mut cluster, mut kernel) = three();
    pass(&mut kernel, &cluster.view()).await;
    kernel.tables.nodes.clear();
    // Its VTEP comes first when hops are given. The fake checks that no entry leads there for a moment.
    cluster.apply(crate::control::state::Command::RegisterNode {
        instance: [4; 16],
        name: "h4".parse().unwrap(),
        vtep: [10, 0, 0, 0].into(),
        listen: ([10, 0, 0, 0], 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    });
    pass(&mut kernel, &cluster.view()).await;
    let hops: Vec<u32> = kernel.tables.nodes.values().map(|node| node.hop).collect();
    assert_eq!(hops, [3, 4, 5], "1 and 2 were named until the end");
}

#[tokio::test]
async fn an_option_of_a_network_reaches_the_entries_of_all_its_endpoints() {
    let (cluster, mut kernel) = three();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    let mut view = cluster.view();
    reconciler.work(&view, &Trigger::Changed(Scope::whole())).await.unwrap();
    let id = *view.networks.keys().next().unwrap();
    Arc::make_mut(view.networks.get_mut(&id).unwrap()).options.icc = false;
    reconciler.work(&view, &Trigger::NewView).await.unwrap();
    let flags: Vec<u32> = kernel.tables.fdb.values().map(|entry| entry.flags).collect();
    assert_eq!(flags, [FLAG_ICC_OFF; 3]);
}

#[tokio::test]
async fn an_audit_of_single_endpoints_reaches_each_of_them_and_writes_nothing_else() {
    let (cluster, mut kernel) = three();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.audit = Audit::with_part(1);
    reconciler.pass(&cluster.view()).await.unwrap();
    let right = reconciler.kernel.tables.clone();
    reconciler.kernel.tables.fdb.clear();
    reconciler.kernel.tables.neigh.clear();
    for looked in 1..=3 {
        reconciler.audit().await.unwrap();
        let Tables { fdb, neigh, .. } = &reconciler.kernel.tables;
        assert_eq!((fdb.len(), neigh.len()), (looked, looked));
    }
    assert_eq!(reconciler.kernel.tables, right);
    let written = reconciler.kernel.written;
    for _ in 0..4 {
        reconciler.audit().await.unwrap();
    }
    assert_eq!(kernel.written, written);
}

#[tokio::test]
async fn an_audit_mends_entries_that_somebody_changed_and_removes_none_of_them() {
    let (cluster, mut kernel) = three();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.pass(&cluster.view()).await.unwrap();
    let right = reconciler.kernel.tables.clone();
    for entry in reconciler.kernel.tables.neigh.values_mut() {
        entry.mac = [2, 9, 9, 9, 9, 9];
    }
    for entry in reconciler.kernel.tables.fdb.values_mut() {
        entry.endpoint += 1000;
    }
    reconciler.audit().await.unwrap();
    assert_eq!(kernel.tables, right);
}
