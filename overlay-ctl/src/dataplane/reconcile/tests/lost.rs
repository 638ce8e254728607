//! Nothing is sent to a node that is lost, and nobody may speak in the name of its endpoints.

use super::{super::sites::Sites, *};
use crate::{
    control::state::Command,
    dataplane::kernel::MtuSource,
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

/// The MTUs of running endpoints must not change twice because a host died, nor its answers find no program.
#[tokio::test]
async fn the_way_to_a_lost_node_counts_as_it_did() {
    let (mut cluster, mut kernel) = here_and_there();
    cluster.raise();
    let there: Vtep = [10, 0, 0, 2].into();
    kernel.route_mtus.insert(there, 1400);
    kernel.uplinks.insert(there, UNDERLAY + 1);
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    let mtus = status.borrow().mtus;
    assert_eq!((mtus.underlay, mtus.source), (1400, MtuSource::Route(there)));
    let uplinks = reconciler.kernel.attached_uplinks.clone();
    assert!(uplinks.contains(&(UNDERLAY + 1)), "{uplinks:?}");
    // A dead host answers no ARP, and its route may go.
    reconciler.kernel.unresolved.insert(there);
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(status.borrow().unresolved, [2]);
    for lease in [Lease::Doubted, Lease::Lost] {
        note(&mut cluster, lease);
        for trigger in [Trigger::NewView, Trigger::Changed(Scope::whole())] {
            reconciler.work(&cluster.view(), &trigger).await.unwrap();
            assert_eq!(status.borrow().mtus, mtus, "{lease:?}");
            assert_eq!(reconciler.kernel.attached_uplinks, uplinks, "{lease:?}");
        }
    }
    assert!(status.borrow().unresolved.is_empty(), "nothing is sent there that could be slow");
    reconciler.kernel.unreachable.insert(there);
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(status.borrow().fallbacks, [""; 0], "nor could be lost");
    note(&mut cluster, Lease::Held);
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(status.borrow().fallbacks, ["nothing is sent to the VTEP 10.0.0.2: no route"]);
}

/// A doubt is noted whenever a process stands still, on every node: it must cost none of them a pass.
#[test]
fn a_doubt_alone_changes_nothing_and_anything_else_does() {
    let (mut cluster, _) = here_and_there();
    cluster.raise();
    let mut sites = Sites::new(1);
    assert!(sites.update(&cluster.view()));
    let mut changes = |cluster: &Cluster| sites.update(&cluster.view());
    for (lease, changed) in [
        (Lease::Doubted, false),
        (Lease::Held, false),
        (Lease::Doubted, false),
        (Lease::Lost, true),
        (Lease::Doubted, true),
        (Lease::Lost, true),
        (Lease::Held, true),
    ] {
        note(&mut cluster, lease);
        assert_eq!(changes(&cluster), changed, "{lease:?}");
    }
    let name: crate::model::NodeName = "h2".parse().unwrap();
    let mut moved = cluster.state.node_named(&name).unwrap().clone();
    moved.listen.set_port(7500);
    let mut view = cluster.view();
    moved.lease = Lease::Doubted;
    view.nodes.insert(moved.id, Arc::new(moved));
    assert!(sites.update(&view), "a node with another address, which is doubted at once");
}
