//! A pass for an event, or for a new endpoint, looks at what that is about and at nothing else.

use super::*;

/// Three endpoints here and one on node 2, in namespaces of their names, after the first look.
fn four() -> (Cluster, FakeKernel) {
    let mut cluster = Cluster::new();
    let mut kernel = FakeKernel::default();
    for (name, node) in [("web1", 1), ("web2", 1), ("web3", 1), ("web4", 2)] {
        cluster.endpoint(name, "net", node);
        kernel.namespaces.insert(format!("/run/netns/{name}").into());
    }
    (cluster, kernel)
}

async fn begun<'a>(
    cluster: &Cluster,
    kernel: &'a mut FakeKernel,
) -> Reconciler<&'a mut FakeKernel> {
    let (mut reconciler, _) = Reconciler::new(kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    reconciler
}

fn port(cluster: &Cluster, name: &str) -> DeviceId {
    let endpoint = cluster.state.endpoint_named(&name.parse().unwrap(), None).unwrap();
    DeviceId::port(endpoint.id)
}

/// The index of a port.
fn index(kernel: &FakeKernel, id: DeviceId) -> Option<u32> {
    kernel.devices.values().find(|device| device.id == id).map(|device| device.ifindex)
}

/// Looks at everything, at parts, and at the ways; and the devices that were looked at as parts.
fn looks(kernel: &FakeKernel) -> (usize, usize, usize, Vec<DeviceId>) {
    let FakeKernel { looked, glanced, looked_for_ways, .. } = *kernel;
    (looked, glanced, looked_for_ways, kernel.glanced_at.iter().copied().collect())
}

#[tokio::test]
async fn a_device_that_is_gone_is_made_again_and_no_other_is_looked_at() {
    let (cluster, mut kernel) = four();
    let mut reconciler = begun(&cluster, &mut kernel).await;
    let id = port(&cluster, "web2");
    let gone = index(reconciler.kernel, id).unwrap();
    reconciler.kernel.devices.remove(&gone);
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::device(gone))).await.unwrap();
    assert!(index(reconciler.kernel, id).is_some_and(|now| now != gone));
    assert_eq!(looks(reconciler.kernel), (1, 1, 1, vec![id]));
}

#[tokio::test]
async fn a_new_endpoint_costs_a_look_at_its_own_device() {
    let (mut cluster, mut kernel) = four();
    kernel.namespaces.insert("/run/netns/web5".into());
    let mut reconciler = begun(&cluster, &mut kernel).await;
    cluster.endpoint("web5", "net", 1);
    let id = port(&cluster, "web5");
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap();
    assert!(index(reconciler.kernel, id).is_some());
    assert_eq!(looks(reconciler.kernel), (1, 1, 1, vec![id]));
    // Where it is to be sent to other VTEPs than before, the ways are looked up.
    cluster.endpoint("web6", "net", 3);
    reconciler.work(&cluster.view(), &Trigger::NewView).await.unwrap();
    assert_eq!(looks(reconciler.kernel), (1, 2, 2, vec![id]));
}

#[tokio::test]
async fn a_namespace_that_was_made_anew_gets_its_devices() {
    let (cluster, mut kernel) = four();
    let mut reconciler = begun(&cluster, &mut kernel).await;
    let id = port(&cluster, "web3");
    let before = index(reconciler.kernel, id).unwrap();
    reconciler.kernel.remake_namespace(before);
    let other = Scope::namespace("/run/netns/other".into());
    reconciler.work(&cluster.view(), &Trigger::Changed(other)).await.unwrap();
    assert_eq!(looks(reconciler.kernel), (1, 0, 1, vec![]), "another's");
    let own = Scope::namespace("/var/run/netns/web3".into());
    reconciler.work(&cluster.view(), &Trigger::Changed(own)).await.unwrap();
    assert!(index(reconciler.kernel, id).is_some_and(|now| now != before));
    assert_eq!(looks(reconciler.kernel), (1, 1, 1, vec![id]));
}

#[tokio::test]
async fn a_new_view_is_followed_also_where_an_event_is_about_nothing_of_ours() {
    let (mut cluster, mut kernel) = four();
    let mut reconciler = begun(&cluster, &mut kernel).await;
    cluster.endpoint("web5", "net", 2);
    let other = Scope::namespace("/run/netns/other".into());
    reconciler.work(&cluster.view(), &Trigger::Changed(other)).await.unwrap();
    assert_eq!(looks(reconciler.kernel), (1, 0, 1, vec![]));
    assert_eq!(reconciler.kernel.tables.fdb.len(), 5);
}

#[tokio::test]
async fn after_a_failure_everything_is_looked_at() {
    for fault in [Call::Publish, Call::Create] {
        let (cluster, mut kernel) = four();
        let mut reconciler = begun(&cluster, &mut kernel).await;
        let gone = index(reconciler.kernel, port(&cluster, "web2")).unwrap();
        reconciler.kernel.devices.remove(&gone);
        reconciler.kernel.faults.insert(fault, Fault::OfTheKernel);
        let event = Trigger::Changed(Scope::device(gone));
        drop(reconciler.work(&cluster.view(), &event).await);
        reconciler.kernel.faults.clear();
        reconciler.work(&cluster.view(), &event).await.unwrap();
        assert_eq!(reconciler.kernel.looked, 2, "{fault:?}");
        assert_eq!(reconciler.kernel.devices.len(), 3);
    }
}

#[tokio::test]
async fn what_a_pass_changed_and_did_not_read_back_is_looked_at_by_the_next() {
    let (cluster, mut kernel) = four();
    let mut reconciler = begun(&cluster, &mut kernel).await;
    reconciler.kernel.mtu = Some(9000);
    let ways = Trigger::Changed(Scope::ways());
    reconciler.work(&cluster.view(), &ways).await.unwrap();
    let all: Vec<DeviceId> = ["web1", "web2", "web3"].map(|name| port(&cluster, name)).into();
    assert_eq!(looks(reconciler.kernel).3, all, "each has another MTU");
    reconciler.kernel.glanced_at.clear();
    let gone = Trigger::Changed(Scope::device(4711));
    reconciler.work(&cluster.view(), &gone).await.unwrap();
    assert_eq!(looks(reconciler.kernel).3, all);
    reconciler.kernel.glanced_at.clear();
    reconciler.work(&cluster.view(), &gone).await.unwrap();
    assert_eq!(looks(reconciler.kernel).3, []);
}
