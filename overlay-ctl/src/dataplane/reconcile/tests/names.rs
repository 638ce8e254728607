//! The names that the resolvers are told, and when.

use super::*;
use crate::{
    dataplane::kernel::{Namespace, NetnsId},
    model::NetworkOptions,
};

#[tokio::test]
async fn names_come_before_the_view_is_acted_on_and_change_nothing() {
    let (mut cluster, mut kernel) = here_and_there();
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
async fn names_are_told_once_a_pass_and_only_when_they_changed() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    let told = async |reconciler: &mut Reconciler<&mut FakeKernel>, view: &View, trigger| {
        let before = reconciler.kernel.told;
        reconciler.work(view, &trigger).await.unwrap();
        reconciler.kernel.told - before
    };
    told(&mut reconciler, &cluster.view(), Trigger::Changed(Scope::whole())).await;
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::Changed(Scope::whole())).await, 0);
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::Periodic).await, 1, "again");
    cluster.endpoint("web2", "net", 1);
    reconciler.kernel.namespaces.insert("/run/netns/web2".into());
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::NewView).await, 1);
    cluster.remove("web2");
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::NewView).await, 2, "first it goes");
    // A doomed device is built again in the same pass.
    let ifindex = *reconciler.kernel.devices.keys().next().unwrap();
    reconciler.kernel.remake_namespace(ifindex);
    assert_eq!(told(&mut reconciler, &cluster.view(), Trigger::Changed(Scope::whole())).await, 2);
}

#[tokio::test]
async fn a_name_that_was_told_before_the_first_pass_goes_before_its_entry() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web1".into());
    pass(&mut kernel, &cluster.view()).await;
    // The namespace went while the node did not run. Its entry still leads there, and so the name is told.
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
    let mut fdb = reconciler.kernel.tables.fdb.values();
    assert_eq!((told(&reconciler), fdb.any(|entry| entry.is_somewhere())), (0, false));
}

#[tokio::test]
async fn a_namespace_asks_its_networks_in_the_order_in_which_its_endpoints_came() {
    let mut cluster = Cluster::new();
    cluster.network_with("lan", "172.16.17.0/24", NetworkOptions::default());
    for (name, network) in [("first", "lan"), ("second", "net")] {
        cluster.endpoint_with(name, network, on_node(1, "/run/netns/web"), &[]);
    }
    let [net, lan] = ["net", "lan"].map(|name| {
        let view = cluster.view();
        let mut networks = view.networks.values();
        networks.find(|network| network.name.as_str() == name).unwrap().id
    });
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web".into());
    pass(&mut kernel, &cluster.view()).await;
    let told =
        |kernel: &FakeKernel| kernel.names.namespaces.clone().into_iter().collect::<Vec<_>>();
    let namespace = |netns, networks: &[NetworkId]| {
        let networks = networks.to_vec();
        let namespace = Namespace { networks, netns: NetnsId::new(netns), has_outside: true };
        vec![("/run/netns/web".into(), namespace)]
    };
    assert_eq!(told(&kernel), namespace(0, &[lan, net]));
    // The namespace is made anew, and so the resolver is.
    kernel.namespaces.insert("/run/netns/a".into());
    kernel.remake_namespace(1);
    kernel.remake_namespace(2);
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(told(&kernel), namespace(1, &[lan, net]));
    // An endpoint goes, even the first one: the namespace stays what it is.
    cluster.remove("first");
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(told(&kernel), namespace(1, &[net]));
}

#[tokio::test]
async fn a_namespace_has_an_outside_if_one_of_its_networks_has() {
    let mut cluster = Cluster::new();
    let internal = NetworkOptions { internal: true, ..NetworkOptions::default() };
    cluster.network_with("inside", "172.16.17.0/24", internal);
    cluster.endpoint_with("secret", "inside", on_node(1, "/run/netns/web"), &[]);
    let mut kernel = FakeKernel::default();
    kernel.namespaces.insert("/run/netns/web".into());
    let has_outside = |kernel: &FakeKernel| {
        kernel.names.namespaces.values().map(|namespace| namespace.has_outside).collect::<Vec<_>>()
    };
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(has_outside(&kernel), [false]);
    cluster.endpoint_with("open", "net", on_node(1, "/run/netns/web"), &[]);
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(has_outside(&kernel), [true]);
    cluster.remove("open");
    pass(&mut kernel, &cluster.view()).await;
    assert_eq!(has_outside(&kernel), [false]);
}

#[tokio::test]
async fn names_are_told_again_after_a_problem() {
    let mut cluster = Cluster::new();
    cluster.endpoint("web1", "net", 1);
    let trouble = vec!["no resolver".to_owned()];
    let mut kernel = FakeKernel { trouble, ..FakeKernel::default() };
    kernel.namespaces.insert("/run/netns/web1".into());
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(status.borrow().fallbacks, ["no resolver"]);
    let told = reconciler.kernel.told;
    reconciler.kernel.trouble.clear();
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(reconciler.kernel.told, told + 1);
    assert_eq!(status.borrow().fallbacks, [""; 0]);
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(reconciler.kernel.told, told + 1, "without one they are not");
    // What is slower than it could be is shown, and is no reason to tell them again.
    reconciler.kernel.name_fallbacks = vec!["a server is slow".to_owned()];
    reconciler.work(&cluster.view(), &Trigger::Periodic).await.unwrap();
    assert_eq!(status.borrow().fallbacks, ["a server is slow"]);
    assert_eq!(reconciler.kernel.told, told + 2);
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(reconciler.kernel.told, told + 2);
}

#[tokio::test]
async fn names_that_were_told_before_the_first_pass_resolve_throughout() {
    let (cluster, mut kernel) = here_and_there();
    pass(&mut kernel, &cluster.view()).await;
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.preview(&cluster.view()).await.unwrap();
    reconciler.kernel.fewest_names = usize::MAX;
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(kernel.fewest_names, 2);
}
