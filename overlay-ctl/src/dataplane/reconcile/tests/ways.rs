//! Ways to VTEPs that change, or that the kernel does not tell.

use super::*;
use overlay_common::HopEntry;

const WEB2: [u8; 4] = [10, 0, 0, 2];

fn hop(kernel: &FakeKernel) -> HopEntry {
    kernel.tables.hops[&kernel.tables.nodes[&NodeKey { vtep: ip16_from_v4(WEB2) }].hop]
}

/// The last byte of the next hop's MAC.
fn router(kernel: &FakeKernel) -> u8 {
    hop(kernel).header[5]
}

#[tokio::test]
async fn a_new_next_hop_is_one_write() {
    let (cluster, mut kernel) = here_and_there();
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    let (looked, written) = (reconciler.kernel.looked, reconciler.kernel.written);
    reconciler.kernel.router = 9;
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::ways())).await.unwrap();
    assert_eq!((reconciler.kernel.looked, reconciler.kernel.written), (looked, written + 1));
    assert_eq!(router(reconciler.kernel), 9);
    reconciler.kernel.unresolved = [WEB2.into()].into();
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::ways())).await.unwrap();
    assert_eq!((hop(reconciler.kernel).ifindex, &status.borrow().unresolved[..]), (0, &[2][..]));

    reconciler.kernel.mtu = Some(9000);
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::ways())).await.unwrap();
    assert_eq!((reconciler.kernel.looked, reconciler.kernel.glanced), (looked, 1));
    assert_eq!(reconciler.kernel.devices[&1].mtu, 8950, "the devices follow");
}

#[tokio::test]
async fn packets_are_sent_from_the_address_that_the_node_has_now() {
    let (cluster, mut kernel) = here_and_there();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    let before = hop(reconciler.kernel);
    let source = |hop: &HopEntry| Vec::from(&hop.header[26..30]);
    for (last, trigger) in [(77, Trigger::Periodic), (78, Trigger::Changed(Scope::ways()))] {
        reconciler.kernel.own = Some([10, 0, 0, last].into());
        reconciler.work(&cluster.view(), &trigger).await.unwrap();
        assert_eq!(source(&hop(reconciler.kernel)), [10, 0, 0, last], "{trigger:?}");
    }
    reconciler.kernel.own = None;
    reconciler.work(&cluster.view(), &Trigger::Periodic).await.unwrap();
    assert_eq!(source(&hop(reconciler.kernel)), [10, 0, 0, 78], "not looked at: it stays");
    assert_ne!(source(&before), [10, 0, 0, 78]);
}

#[tokio::test]
async fn a_view_that_came_with_the_event_is_followed() {
    let (mut cluster, mut kernel) = here_and_there();
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    cluster.endpoint("web3", "net", 3);
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::ways())).await.unwrap();
    assert_eq!(status.borrow().programmed, cluster.index);
    assert!(kernel.tables.fdb.contains_key(&fdb_key(&cluster, "web3")));
}

#[tokio::test]
async fn a_way_that_is_not_told_stays_as_it_was_and_the_others_follow() {
    let (mut cluster, mut kernel) = here_and_there();
    cluster.endpoint("web3", "net", 3);
    kernel.route_mtus.insert(WEB2.into(), 1400);
    let (mut reconciler, status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    for trigger in
        [Trigger::Changed(Scope::whole()), Trigger::Changed(Scope::ways()), Trigger::Periodic]
    {
        reconciler.kernel.router += 1;
        reconciler.kernel.unknown_ways = [WEB2.into()].into();
        reconciler.work(&cluster.view(), &trigger).await.unwrap();
        assert_eq!(router(reconciler.kernel), 0, "{trigger:?}");
        assert_eq!(status.borrow().mtus.endpoint, 1350, "{trigger:?}: no smaller way is forgotten");
        let key = NodeKey { vtep: ip16_from_v4([10, 0, 0, 3]) };
        let other = reconciler.kernel.tables.hops[&reconciler.kernel.tables.nodes[&key].hop];
        assert_eq!(other.header[5], reconciler.kernel.router, "{trigger:?}");
        assert_eq!(status.borrow().fallbacks, ["way to 10.0.0.2: refused"], "{trigger:?}");
    }
    reconciler.kernel.unknown_ways.clear();
    reconciler.work(&cluster.view(), &Trigger::Changed(Scope::ways())).await.unwrap();
    assert_eq!((router(reconciler.kernel), status.borrow().fallbacks.len()), (3, 0));
}

#[tokio::test]
async fn a_gateway_bridge_that_is_gone_is_repaired_in_the_pass_that_sees_it() {
    let (cluster, mut kernel) = published();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Periodic).await.unwrap();
    for (meddle, is_repaired) in [
        ((|_| {}) as fn(&mut FakeKernel), false),
        (|kernel| kernel.is_bridge_gone = true, true),
        (|kernel| kernel.devices.get_mut(&2).unwrap().bridge = 0, true),
    ] {
        let before = reconciler.kernel.repaired;
        meddle(reconciler.kernel);
        reconciler.work(&cluster.view(), &Trigger::Changed(Scope::whole())).await.unwrap();
        assert_eq!(reconciler.kernel.repaired - before, usize::from(is_repaired));
        reconciler.kernel.devices.get_mut(&2).unwrap().bridge = fake::BRIDGE;
    }
}

#[tokio::test]
async fn an_address_that_is_gone_is_looked_for_in_the_pass_that_sees_it() {
    let (cluster, mut kernel) = here_and_there();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    for trigger in [Trigger::Changed(Scope::whole()), Trigger::Changed(Scope::ways())] {
        let before = reconciler.kernel.repaired;
        reconciler.work(&cluster.view(), &trigger).await.unwrap();
        assert_eq!(reconciler.kernel.repaired, before, "{trigger:?}");
        reconciler.kernel.is_own_gone = true;
        reconciler.work(&cluster.view(), &trigger).await.unwrap();
        assert_eq!(reconciler.kernel.repaired, before + 1, "{trigger:?}");
    }
}

#[tokio::test]
async fn programs_are_looked_for_at_each_periodic_look() {
    let (cluster, mut kernel) = here_and_there();
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.work(&cluster.view(), &Trigger::Start).await.unwrap();
    for (trigger, is_found) in
        [(Trigger::Changed(Scope::whole()), false), (Trigger::Periodic, true)]
    {
        reconciler.kernel.attached.clear();
        reconciler.work(&cluster.view(), &trigger).await.unwrap();
        assert_eq!(!reconciler.kernel.attached.is_empty(), is_found, "{trigger:?}");
    }
}
