//! Gateway legs: the order in which they and what leads by them are made, and what goes with them.

use super::*;

#[tokio::test]
async fn a_leg_stands_before_a_port_leads_to_it_and_follows_the_bridge() {
    let (cluster, mut kernel) = published();
    let status = pass(&mut kernel, &cluster.view()).await;
    let health = status.endpoints.values().next().unwrap();
    assert_eq!(health.down, None);
    assert_eq!(health.gateway.as_ref().unwrap().interface, "eth1");
    assert_eq!((status.gateway.published, kernel.up.len()), (1, 2));
    let port = |number| NonZeroU16::new(number).unwrap();
    let target =
        Target { address: [172, 18, 0, 2].into(), port: port(80), comment: "web1 80/tcp".into() };
    let from = (Transport::Tcp, Ipv4Addr::UNSPECIFIED, port(8080));
    assert_eq!(kernel.published, [(from, target)].into());
    // The fake checks that the bridge never takes more than its legs.
    for mtu in [9000, 1400] {
        kernel.mtu = Some(mtu);
        pass(&mut kernel, &cluster.view()).await;
        let legs = kernel.devices.values().filter(|device| device.interface() == "eth1");
        assert_eq!(legs.map(|leg| leg.mtu).collect::<Vec<_>>(), [mtu]);
        assert_eq!(kernel.bridge_mtu, mtu);
    }
}

/// For them the kernel tracks each connection of the host, so they go when the last leg went, and not before.
#[tokio::test]
async fn the_rules_that_translate_stand_from_before_the_first_leg_until_after_the_last() {
    let (mut cluster, mut kernel) = published();
    let view = cluster.view();
    cluster.remove("web1");
    pass(&mut kernel, &cluster.view()).await;
    assert!(!kernel.translates);
    // The fake checks that no leg stands without them.
    pass(&mut kernel, &view).await;
    assert!(kernel.translates);
    pass(&mut kernel, &cluster.view()).await;
    assert!(kernel.translates, "the leg might send until it was removed");
    pass(&mut kernel, &cluster.view()).await;
    assert!(!kernel.translates);
}

/// The legs with which the ports are published again when the ruleset was flushed.
fn remembered<K: Kernel>(reconciler: &Reconciler<K>) -> Legs {
    reconciler.published.clone().unwrap().legs
}

/// A leg's connections may live from its set-up until before it is removed; the fake checks the latter.
#[tokio::test]
async fn only_a_leg_that_was_set_up_has_connections() {
    let (mut cluster, mut kernel) = published();
    let leg = |cluster: &Cluster| {
        let leg = cluster.view().all_endpoints().find_map(|endpoint| endpoint.leg).unwrap();
        (DeviceId::leg(leg.id), leg.addresses.v4.unwrap())
    };
    let first = leg(&cluster);
    let (mut reconciler, _status) = Reconciler::new(&mut kernel, node());
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(reconciler.kernel.legs, Legs::new(), "it was created, not set up");
    // From here on a ruleset that is flushed and written again ends none of them.
    assert_eq!(remembered(&reconciler), [first].into());
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(reconciler.kernel.legs, [first].into());

    // Another endpoint takes the place in the same view: the connections are not its own, whatever its address.
    cluster.remove("web1");
    cluster.endpoint("web2", "net", 1);
    reconciler.kernel.namespaces.insert("/run/netns/web2".into());
    assert_ne!(leg(&cluster).0, first.0);
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!(reconciler.kernel.legs, Legs::new());
    assert_eq!(remembered(&reconciler), [leg(&cluster)].into());

    // Its namespace is gone, and the leg with it.
    reconciler.kernel.namespaces.clear();
    reconciler.kernel.devices.clear();
    reconciler.pass(&cluster.view()).await.unwrap();
    assert_eq!((&reconciler.kernel.legs, remembered(&reconciler)), (&Legs::new(), Legs::new()));
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
async fn a_leg_that_found_no_room_gets_it_in_the_pass_that_makes_it() {
    let (mut cluster, mut kernel) = published();
    kernel.room = Some(1);
    pass(&mut kernel, &cluster.view()).await;
    cluster.remove("web1");
    cluster.endpoint("web2", "net", 1);
    kernel.namespaces.insert("/run/netns/web2".into());
    let status = pass(&mut kernel, &cluster.view()).await;
    assert_eq!(status.endpoints.values().map(|health| &health.down).collect::<Vec<_>>(), [&None]);
}
