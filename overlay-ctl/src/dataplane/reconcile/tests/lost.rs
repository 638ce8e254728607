//! Nothing is sent to a node that is lost, and nobody may speak in the name of its endpoints.

use super::*;
use crate::{
    control::state::Command,
    model::{Lease, NetworkOptions},
};
use overlay_common::FloodKey;

fn note(cluster: &mut Cluster, lease: Lease) {
    let name: crate::model::NodeName = "h2".parse().unwrap();
    let (only, epoch) = cluster.state.node_named(&name).map(|row| (row.id, row.epoch)).unwrap();
    cluster.apply(Command::NoteLease { name, only, epoch, lease });
}

fn names(kernel: &FakeKernel) -> Vec<String> {
    kernel.names.networks.values().flat_map(|n| n.records.keys().cloned()).collect()
}

#[tokio::test]
async fn the_endpoints_of_a_lost_node_leave_the_names_and_are_sent_nothing_until_it_is_back() {
    let (mut cluster, mut kernel) = here_and_there();
    cluster.raise();
    let lan = NetworkOptions { multicast: true, ..NetworkOptions::default() };
    cluster.network_with("lan", "172.16.17.0/24", lan);
    cluster.endpoint("here", "lan", 1);
    cluster.endpoint("there", "lan", 2);
    kernel.namespaces.insert("/run/netns/here".into());
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    let first = Trigger::Changed(Scope::whole());
    reconciler.work(&cluster.view(), &first).await.unwrap();
    let web2 = fdb_key(&cluster, "web2");
    let lan = FloodKey::first(fdb_key(&cluster, "here").vni);
    let before = (reconciler.kernel.tables.clone(), names(reconciler.kernel));
    assert_eq!(before.0.flood[&lan].hop_count, 1);
    for lease in [Lease::Doubted, Lease::Lost] {
        note(&mut cluster, lease);
        reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap();
        assert_eq!(status.borrow().programmed, cluster.index, "it is acknowledged");
        if lease == Lease::Doubted {
            assert_eq!(names(reconciler.kernel), before.1, "it keeps its names and its traffic");
            assert_eq!(reconciler.kernel.tables.fdb, before.0.fdb);
        }
    }
    let tables = &reconciler.kernel.tables;
    let entry = tables.fdb[&web2];
    // Without an entry, a station could take its MAC and its address.
    assert!(!entry.is_somewhere() && entry.endpoint == before.0.fdb[&web2].endpoint);
    assert_eq!(tables.neigh, before.0.neigh);
    assert_eq!(tables.flood[&lan].hop_count, 0, "nor do they get what is for all");
    assert_eq!(names(reconciler.kernel), ["web1", "here"]);

    note(&mut cluster, Lease::Held);
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap();
    assert_eq!((reconciler.kernel.tables.clone(), names(reconciler.kernel)), before);
}
