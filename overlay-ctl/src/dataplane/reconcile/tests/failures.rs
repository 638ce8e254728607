//! A call to the kernel that fails: what the node shows, and what becomes of the rest.

use super::*;
use std::collections::BTreeMap;

/// The reasons why endpoints are down, by name.
fn down(cluster: &Cluster, status: &LocalStatus) -> BTreeMap<String, Option<String>> {
    let view = cluster.view();
    let health = |endpoint: &Endpoint| {
        let health = status.endpoints.get(&endpoint.id)?;
        Some((endpoint.name.to_string(), health.down.clone()))
    };
    view.all_endpoints().filter_map(health).collect()
}

#[tokio::test]
async fn a_refusal_of_the_kernel_ends_a_pass_with_its_error_and_the_next_pass_makes_up_for_it() {
    for call in [Call::SwapPrograms, Call::UpdateBridge, Call::Publish] {
        let (cluster, mut kernel) = published();
        kernel.faults.insert(call, Fault::OfTheKernel);
        let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
        let error = reconciler.pass(&cluster.view()).await.unwrap_err();
        assert_eq!(crate::error_chain(&error), format!("the kernel refused: {call:?}"));
        assert_eq!(status.borrow().programmed, 0, "{call:?}: nothing is claimed");
        let shown = down(&cluster, &status.borrow());
        assert_eq!(shown, [("web1".into(), None)].into(), "{call:?}");

        reconciler.kernel.faults.clear();
        reconciler.pass(&cluster.view()).await.unwrap();
        let status = status.borrow();
        assert_eq!((status.programmed, &status.error), (cluster.index, &None), "{call:?}");
        assert_eq!(down(&cluster, &status), [("web1".into(), None)].into(), "{call:?}");
        assert_eq!(kernel.published.len(), 1, "{call:?}");
    }
}

/// Two endpoints on this node, the port of web2 being one that calls fail for.
fn one_is_faulty() -> (Cluster, FakeKernel) {
    let (mut cluster, mut kernel) = published();
    cluster.endpoint("web2", "net", 1);
    kernel.namespaces.insert("/run/netns/web2".into());
    let web2 = cluster.state.endpoint_named(&"web2".parse().unwrap(), None).unwrap().id;
    kernel.faulty = Some(DeviceId::port(web2));
    (cluster, kernel)
}

#[tokio::test]
async fn what_the_kernel_refuses_for_one_device_takes_its_endpoint_down_and_stops_no_other() {
    for call in [Call::Create, Call::Raise, Call::Attach] {
        let (cluster, mut kernel) = one_is_faulty();
        if call == Call::Attach {
            pass(&mut kernel, &cluster.view()).await;
        }
        kernel.faults.insert(call, Fault::OfTheKernel);
        let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
        let is_complete = reconciler.pass(&cluster.view()).await.unwrap();
        assert!(!is_complete, "{call:?}: it is tried again");
        let reason = format!("the kernel refused: {call:?}");
        let shown = [("web1".into(), None), ("web2".into(), Some(reason))].into();
        assert_eq!(down(&cluster, &status.borrow()), shown, "{call:?}");
        assert_eq!(status.borrow().programmed, cluster.index, "{call:?}: the others have theirs");
        assert_eq!(reconciler.kernel.published.len(), 1, "{call:?}");

        reconciler.kernel.faults.clear();
        assert!(reconciler.pass(&cluster.view()).await.unwrap(), "{call:?}");
        let shown = [("web1".into(), None), ("web2".into(), None)].into();
        assert_eq!(down(&cluster, &status.borrow()), shown, "{call:?}");
    }
}

#[tokio::test]
async fn a_device_that_cannot_be_removed_is_named_and_stops_nothing() {
    let (mut cluster, mut kernel) = one_is_faulty();
    pass(&mut kernel, &cluster.view()).await;
    cluster.remove("web2");
    kernel.faults.insert(Call::Remove, Fault::OfTheKernel);
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    assert!(!reconciler.pass(&cluster.view()).await.unwrap());
    let said = status.borrow().fallbacks.clone();
    assert!(matches!(&said[..], [one] if one.ends_with("the kernel refused: Remove")), "{said:?}");
    assert_eq!(status.borrow().programmed, cluster.index);
    reconciler.kernel.faults.clear();
    assert!(reconciler.pass(&cluster.view()).await.unwrap());
    assert_eq!(status.borrow().fallbacks, [""; 0]);
}

#[tokio::test]
async fn a_device_that_cannot_be_changed_keeps_its_mtu_whoever_refuses() {
    for (fault, is_complete) in [(Fault::OfTheEndpoint, true), (Fault::OfTheKernel, false)] {
        let (cluster, mut kernel) = published();
        pass(&mut kernel, &cluster.view()).await;
        kernel.mtu = Some(1400);
        kernel.faults = [(Call::Update, fault)].into();
        let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
        assert_eq!(reconciler.pass(&cluster.view()).await.unwrap(), is_complete);
        let status = status.borrow();
        let health = status.endpoints.values().next().unwrap();
        assert_eq!((&health.down, health.mtu), (&None, 1450), "{fault:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_repaired_is_named_and_stops_nothing() {
    let (cluster, mut kernel) = published();
    kernel.unrepaired = vec!["the GRO device could not be kept: in use".into()];
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Periodic).await.unwrap();
    assert_eq!(status.borrow().programmed, cluster.index);
    assert_eq!(status.borrow().fallbacks, ["the GRO device could not be kept: in use"]);
    assert!(reconciler.is_settled, "it waits for the next look, and holds up nobody");
}

#[tokio::test]
async fn an_endpoint_is_up_if_its_device_is_and_not_if_it_was_raised() {
    let (cluster, mut kernel) = published();
    kernel.is_set_down = true;
    let status = pass(&mut kernel, &cluster.view()).await;
    let shown = &down(&cluster, &status)["web1"];
    assert_eq!(shown.as_deref(), Some("its device could not be set up"), "it is down again");
    kernel.is_set_down = false;
    assert_eq!(down(&cluster, &pass(&mut kernel, &cluster.view()).await)["web1"], None);
    let port = kernel.devices.values_mut().find(|device| device.interface() == "eth0").unwrap();
    port.peer.as_mut().unwrap().up = false;
    let status = pass(&mut kernel, &cluster.view()).await;
    let shown = down(&cluster, &status)["web1"].clone().unwrap();
    assert!(shown.starts_with("its interface eth0 was set down inside"), "{shown}");
}

#[tokio::test]
async fn the_reason_that_is_shown_is_the_last_one() {
    let (mut cluster, mut kernel) = published();
    kernel.room = Some(1);
    cluster.endpoint("web2", "net", 1);
    kernel.namespaces.insert("/run/netns/web2".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    let shown = &down(&cluster, &status)["web2"];
    assert_eq!(shown.as_deref(), Some("gateway leg: the bridge is full"));
    // The leg finds no room at first, then it does, and then it cannot be set up.
    cluster.remove("web1");
    kernel.faults.insert(Call::Raise, Fault::OfTheKernel);
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.pass(&cluster.view()).await.unwrap();
    let shown = &down(&cluster, &status.borrow())["web2"];
    assert_eq!(shown.as_deref(), Some("gateway leg: the kernel refused: Raise"));
}

/// A packet that the bridge takes and a leg does not is lost without an answer to its sender.
#[tokio::test]
async fn the_bridge_takes_no_more_than_the_legs_where_a_change_fails_half_way() {
    let (cluster, mut kernel) = published();
    pass(&mut kernel, &cluster.view()).await;
    let mtus = |kernel: &FakeKernel| {
        let leg = kernel.devices.values().find(|device| device.interface() == "eth1").unwrap();
        (kernel.bridge_mtu, leg.mtu)
    };
    for (mtu, call, fault, half_way) in [
        (9000, Call::Update, Fault::OfTheEndpoint, (1500, 1500)),
        (9000, Call::Update, Fault::OfTheKernel, (1500, 1500)),
        (9000, Call::UpdateBridge, Fault::OfTheKernel, (1500, 9000)),
        (1400, Call::Update, Fault::OfTheKernel, (1400, 1500)),
        (1400, Call::UpdateBridge, Fault::OfTheKernel, (1500, 1500)),
    ] {
        let mut kernel = FakeKernel { mtu: Some(mtu), ..kernel.clone() };
        kernel.faults = [(call, fault)].into();
        let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
        drop(reconciler.pass(&cluster.view()).await);
        assert_eq!(mtus(reconciler.kernel), half_way, "{call:?} at {mtu}");
        drop(reconciler.work(&cluster.view(), &Trigger::Periodic).await);
        let (bridge, leg) = mtus(reconciler.kernel);
        assert!(
            bridge <= leg,
            "{call:?} at {mtu}: a periodic look keeps to it, {bridge} and {leg}"
        );
        reconciler.kernel.faults.clear();
        reconciler.pass(&cluster.view()).await.unwrap();
        assert_eq!(mtus(reconciler.kernel), (mtu, mtu), "{call:?} at {mtu}");
    }
}
