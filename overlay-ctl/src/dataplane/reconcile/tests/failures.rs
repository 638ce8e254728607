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
    // What is refused, and the state of the endpoint then.
    let cases: [(Call, Option<&str>); 5] = [
        (Call::Create, Some("the kernel refused: Create")),
        (Call::Raise, Some("its device could not be set up")),
        (Call::SwapPrograms, None),
        (Call::UpdateBridge, None),
        (Call::Publish, None),
    ];
    for (call, reason) in cases {
        let (cluster, mut kernel) = published();
        kernel.faults.insert(call, Fault::OfTheKernel);
        let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
        let error = reconciler.pass(&cluster.view()).await.unwrap_err();
        assert_eq!(crate::error_chain(&error), format!("the kernel refused: {call:?}"));
        assert_eq!(status.borrow().programmed, 0, "{call:?}: nothing is claimed");
        let shown = down(&cluster, &status.borrow());
        assert_eq!(shown, [("web1".into(), reason.map(Into::into))].into(), "{call:?}");

        reconciler.kernel.faults.clear();
        reconciler.pass(&cluster.view()).await.unwrap();
        let status = status.borrow();
        assert_eq!((status.programmed, &status.error), (cluster.index, &None), "{call:?}");
        assert_eq!(down(&cluster, &status), [("web1".into(), None)].into(), "{call:?}");
        assert_eq!(kernel.published.len(), 1, "{call:?}");
    }
}

#[tokio::test]
async fn a_device_that_the_kernel_refuses_to_change_fails_the_pass_and_one_that_cannot_does_not() {
    let (cluster, mut kernel) = published();
    pass(&mut kernel, &cluster.view()).await;
    for (call, mtu) in [(Call::Attach, 1400), (Call::Update, 1400), (Call::UpdateBridge, 9000)] {
        let mut kernel = FakeKernel { mtu: Some(mtu), ..kernel.clone() };
        kernel.faults = [(call, Fault::OfTheKernel)].into();
        let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
        let error = reconciler.pass(&cluster.view()).await.unwrap_err();
        assert_eq!(crate::error_chain(&error), format!("the kernel refused: {call:?}"));
    }
    kernel.mtu = Some(1400);
    kernel.faults = [(Call::Update, Fault::OfTheEndpoint)].into();
    let status = pass(&mut kernel, &cluster.view()).await;
    let health = status.endpoints.values().next().unwrap();
    assert_eq!((&health.down, health.mtu), (&None, 1450), "it keeps its MTU");
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
    reconciler.pass(&cluster.view()).await.unwrap_err();
    let shown = &down(&cluster, &status.borrow())["web2"];
    assert_eq!(shown.as_deref(), Some("gateway leg: its device could not be set up"));
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
        drop(reconciler.work(&cluster.view(), Trigger::Periodic).await);
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
