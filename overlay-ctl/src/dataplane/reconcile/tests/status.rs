//! What a node reports of itself after a pass.

use super::{cluster::behind, *};
use crate::dataplane::kernel::{
    GatewayHealth, LegHealth, OutsideHealth, Probed, SuperPacketHealth,
};
use overlay_common::Counter;

fn super_packets() -> SuperPacketHealth {
    SuperPacketHealth { ipv4: 65_536, ipv6: 131_072, reason: "an old kernel".into() }
}

#[tokio::test]
async fn the_whole_status_of_a_node() {
    let (mut cluster, mut kernel) = published();
    cluster.endpoint("web2", "net", 2);
    cluster.endpoint("web3", "net", 3);
    cluster.endpoint_with("printer", "net", behind([10, 9, 0, 1], 7, [172, 16, 16, 99]), &[]);
    // Nothing goes to node 4.
    cluster.apply(crate::control::state::Command::RegisterNode {
        instance: [4; 16],
        name: "h4".parse().unwrap(),
        vtep: [10, 0, 0, 4].into(),
        listen: ([10, 0, 0, 4], 7400).into(),
        returning: None,
        gateway: None,
        metrics: None,
        local_listen: None,
        speaks: None,
    });
    kernel.unresolved = [[10, 0, 0, 2].into(), [10, 9, 0, 1].into()].into();
    kernel.outside = OutsideHealth {
        underlay: "eth0".into(),
        vtep: Some([10, 0, 0, 1].into()),
        unseen: Counter { packets: 7, bytes: 1000 },
        fallbacks: vec!["no BPF clone".into()],
        forwarding: ["eth0".into()].into(),
        published: 0,
    };
    kernel.trouble = vec!["no resolver".into()];
    let local = LocalNode { super_packets: super_packets(), ..node() };
    let (mut reconciler, mut status) = Reconciler::new(&mut kernel, local);
    let mtus = Mtus::new(1500, None, &BTreeMap::new());
    let waiting = "waiting for a voter, or a quorum of them, before the kernel is touched";
    let before = LocalStatus {
        error: Some(waiting.into()),
        mtus,
        super_packets: super_packets(),
        ..LocalStatus::default()
    };
    assert_eq!(*status.borrow_and_update(), before);

    reconciler.pass(&cluster.view()).await.unwrap();
    let web1 = cluster.state.endpoint_named(&"web1".parse().unwrap(), None).unwrap().id;
    // Devices are made in the order of their ids, ports first.
    let health = EndpointHealth {
        down: None,
        was_up: true,
        ifname: "device1".into(),
        ifindex: 1,
        mtu: 1450,
        interface: "eth0".into(),
        gateway: Some(LegHealth {
            interface: "eth1".into(),
            ifname: "device2".into(),
            ifindex: 2,
            mtu: 1500,
        }),
    };
    let after = LocalStatus {
        run: status.borrow().run,
        programmed: cluster.index,
        endpoints: [(web1, health)].into(),
        error: None,
        lacks_data_plane: false,
        underlay: "eth0".into(),
        vtep: Some([10, 0, 0, 1].into()),
        unseen: Counter { packets: 7, bytes: 1000 },
        fallbacks: vec!["no BPF clone".into(), "no resolver".into()],
        unresolved: vec![2],
        gateway: GatewayHealth { published: 1, forwarding: ["eth0".into()].into(), resolvers: 1 },
        mtus,
        super_packets: super_packets(),
        probes: Vec::new(),
        probing_trouble: None,
    };
    assert!(status.has_changed().unwrap());
    assert_ne!(after.run, 0, "0 is a node without a data plane");
    assert_eq!(*status.borrow_and_update(), after);
}

/// What probes show is noted by somebody else, between the passes.
#[tokio::test]
async fn a_pass_leaves_what_probes_show_as_it_is() {
    let (cluster, mut kernel) = here_and_there();
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    let now = tokio::time::Instant::now();
    let probed = Probed { node: 2, asked: now, answered: None, unanswered: 3 };
    let trouble = Some("nobody answers".to_owned());
    reconciler.status.send_modify(|status| {
        (status.probes, status.probing_trouble) = (vec![probed], trouble.clone());
    });
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
    let status = status.borrow();
    assert_eq!(status.programmed, cluster.index);
    assert_eq!((&status.probes, &status.probing_trouble), (&vec![probed], &trouble));
}

/// A leader takes back what never was up in the run in which it was created.
#[tokio::test]
async fn an_endpoint_that_was_up_once_says_so_for_as_long_as_the_run_lasts() {
    let (mut cluster, mut kernel) = here_and_there();
    // Its namespace is not there.
    cluster.endpoint("none", "net", 1);
    let id = |name: &str| cluster.state.endpoint_named(&name.parse().unwrap(), None).unwrap().id;
    let (web1, none) = (id("web1"), id("none"));
    let view = cluster.view();
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    let said = |status: &watch::Receiver<LocalStatus>| {
        let status = status.borrow();
        [web1, none].map(|id| (status.endpoints[&id].down.is_some(), status.endpoints[&id].was_up))
    };
    reconciler.work(&view, &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(said(&status), [(false, true), (true, false)]);
    let run = status.borrow().run;
    reconciler.kernel.namespaces.clear();
    reconciler.kernel.devices.clear();
    reconciler.work(&view, &Trigger::Periodic).await.unwrap();
    assert_eq!(said(&status), [(true, true), (true, false)]);
    assert_eq!(status.borrow().run, run);
    // The next run does not know.
    let (mut next, status) = Reconciler::new(&mut kernel, node());
    next.work(&view, &Trigger::Changed(Scope::whole())).await.unwrap();
    assert_eq!(said(&status), [(true, false), (true, false)]);
    assert_ne!(status.borrow().run, run);
}

#[tokio::test]
async fn a_status_is_reported_when_it_changed_and_not_when_it_did_not() {
    let (mut cluster, mut kernel) = here_and_there();
    let (mut reconciler, mut status) = Reconciler::new(&mut kernel, node());
    let mut reported = async |view: &View, trigger| {
        reconciler.work(view, &trigger).await.unwrap();
        let is_reported = status.has_changed().unwrap();
        (is_reported, status.borrow_and_update().programmed)
    };
    let first = cluster.view();
    assert_eq!(reported(&first, Trigger::Changed(Scope::whole())).await, (true, first.revision));
    assert_eq!(reported(&first, Trigger::Changed(Scope::whole())).await, (false, first.revision));
    cluster.endpoint("web3", "net", 2);
    let next = cluster.view();
    assert_eq!(reported(&next, Trigger::NewView).await, (true, next.revision), "followed");
    assert_eq!(reported(&next, Trigger::NewView).await, (false, next.revision));
}
