//! MTUs and sizes of super-packets, for paths, existing pairs and the gateway bridge.

use overlay_ctl::dataplane::{
    kernel::{DeviceId, DeviceSpec, PairSizes, SUPER_PACKET_MAX, SuperPackets},
    netlink::{BottomKind, DeviceError, Netlink, UnderlayChoice},
};

use super::{Netns, pair_of_hosts, raise, ready, sizes, skip, spec};

const BIG: Option<u32> = Some(200_000);

fn mtu(netns: &Netns, device: &str) -> u32 {
    netns
        .sh(&format!("ip -o link show {device} | sed \"s/.* mtu //; s/ .*//\""))
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn a_way_takes_what_its_route_and_its_device_do() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        let way = async |to: [u8; 4]| {
            netlink.way(to.into(), &underlay, 4789).await.unwrap().map(|way| way.mtu)
        };
        assert_eq!(way([10, 0, 0, 2]).await, Some(1500));
        assert_eq!(way([192, 0, 2, 9]).await, None, "no route");
        host.sh("ip route add 192.0.2.0/24 via 10.0.0.2 mtu 1400");
        assert_eq!(way([192, 0, 2, 9]).await, Some(1400));
        host.sh("ip route add 192.0.2.8/32 via 10.0.0.2 mtu lock 1300");
        assert_eq!(way([192, 0, 2, 8]).await, Some(1300));
        host.sh("ip route add 198.51.100.0/24 via 10.0.0.2 mtu 9000");
        assert_eq!(way([198, 51, 100, 1]).await, Some(1500), "the device takes no more");
        host.sh("ip link set eth7 mtu 1280");
        assert_eq!(way([10, 0, 0, 2]).await, Some(1280));
        let sizes = netlink.device_sizes(underlay.ifindex).await.unwrap().unwrap();
        assert_eq!(sizes.mtu, 1280);
        assert_eq!(netlink.device_sizes(9999).await.unwrap(), None);
    });
}

#[test]
fn the_way_out_takes_what_the_first_default_route_does() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let outward = async || netlink.outward_mtu().await.unwrap();
        host.sh("ip route del default 2>/dev/null || true");
        assert_eq!(outward().await, None);
        host.sh("ip route add default via 10.0.0.2 mtu 1300 metric 9");
        assert_eq!(outward().await, Some(1300));
        host.sh("ip route add default via 10.0.0.2");
        assert_eq!(outward().await, Some(1500), "the device's");
        host.sh("ip route change default via 10.0.0.2 mtu 9000");
        assert_eq!(outward().await, Some(1500), "the device takes no more");
        host.sh("ip route del default metric 0; ip route add unreachable default metric 1");
        assert_eq!(outward().await, Some(1300), "one that leads nowhere is no way out");
    });
}

#[test]
fn a_pair_follows_and_keeps_what_the_endpoint_set() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let made = netlink.create_device(&spec, ready).await.unwrap();
        raise(&netlink, &spec).await.unwrap();
        let fit = async |sizes: PairSizes| {
            let port = netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
            let fitted = netlink.update_device(&port, &DeviceSpec { sizes, ..spec.clone() }).await;
            let port = netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
            assert!(fitted.is_err() || port.has(&sizes), "{port:?}");
            fitted
        };
        let both = || (mtu(&host, "ovp9"), mtu(&web, "eth0"));
        assert!(made.has(&sizes(1450)));
        for wanted in [8950, 1350] {
            fit(sizes(wanted)).await.unwrap();
            assert_eq!(both(), (wanted, wanted));
        }
        web.sh("ip link set eth0 mtu 1200");
        fit(sizes(1450)).await.unwrap();
        assert_eq!(both(), (1450, 1200), "the endpoint's own choice");
        fit(sizes(1150)).await.unwrap();
        assert_eq!(both(), (1150, 1150), "too large for the host's side");
        assert!(web.sh("ip -o link show eth0").contains("UP"));

        let gone = DeviceSpec { netns: "ovk-no-such-namespace".into(), ..spec.clone() };
        let port = netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
        let error = netlink.update_device(&port, &gone).await.unwrap_err();
        assert!(matches!(error, DeviceError::NoNamespace(_)), "{error:?}");
        assert_eq!(both(), (1150, 1150), "not one side alone");
    });
}

#[test]
fn super_packets_of_a_pair_and_of_a_device_are_set_and_set_back() {
    if skip() {
        return;
    }
    let (host, peer) = pair_of_hosts();
    let web = Netns::new("web");
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        let before = netlink.device_sizes(underlay.ifindex).await.unwrap().unwrap();
        if before.super_packets.gso_ipv4.is_none() {
            eprintln!("this kernel has no BIG TCP for IPv4; that it is left alone is a unit test");
            return;
        }
        let big = SuperPackets { gso_ipv4: BIG, gro_ipv4: BIG, ..SuperPackets::default() };
        netlink.set_super_packets(underlay.ifindex, &big).await.unwrap();
        let now = netlink.device_sizes(underlay.ifindex).await.unwrap().unwrap().super_packets;
        assert_eq!(now, SuperPackets { gso_ipv4: BIG, gro_ipv4: BIG, ..before.super_packets });
        let all = SuperPackets { gso: BIG, gro: BIG, ..big };
        netlink.set_super_packets(underlay.ifindex, &all).await.unwrap();
        netlink.set_super_packets(underlay.ifindex, &before.super_packets).await.unwrap();
        let now = netlink.device_sizes(underlay.ifindex).await.unwrap().unwrap();
        assert_eq!(now, before);
        netlink.set_super_packets(9999, &big).await.unwrap();

        netlink.create_device(&spec, ready).await.unwrap();
        let seen = async || netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
        let wanted = PairSizes { mtu: 1450, outside: big, inside: all };
        let spec = DeviceSpec { sizes: wanted, ..spec.clone() };
        netlink.update_device(&seen().await, &spec).await.unwrap();
        let port = seen().await;
        assert!(port.has(&wanted));
        let size = |sizes: SuperPackets| (sizes.gso, sizes.gso_ipv4);
        assert_eq!(size(port.super_packets), (Some(SUPER_PACKET_MAX), BIG));
        assert_eq!(size(port.peer.unwrap().super_packets), (BIG, BIG));
    });
    drop(peer);
}

#[test]
fn a_device_is_what_its_packets_leave_by() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    let veth = ("eth7", "veth");
    // The name of a device, the way to make it, and the devices that send its packets.
    let devices = [
        ("eth7", None, vec![veth]),
        ("mac0", Some("link eth7 type macvlan"), vec![veth]),
        ("br0", Some("type bridge"), vec![("br0", "bridge")]),
        // Not every kernel has these kinds.
        ("vlan7", Some("link eth7 type vlan id 7"), vec![veth]),
        ("bond0", Some("type bond"), vec![]),
    ];
    host.sh("ip tuntap add tap0 mode tap");
    for (name, made, expected) in devices.into_iter().chain([("tap0", None, vec![("tap0", "tun")])])
    {
        if made.is_some_and(|made| !host.succeeds(&format!("ip link add name {name} {made}"))) {
            eprintln!("this kernel makes no {name}");
            continue;
        }
        let index = host.sh(&format!("ip -o link show {name} | cut -d: -f1")).trim().parse();
        let found = host.block_on(|| async {
            let netlink = Netlink::open().await.unwrap();
            netlink.bottom_devices(index.unwrap()).await.unwrap()
        });
        let expected = expected.into_iter();
        let expected = expected.map(|(name, kind)| (name, BottomKind::Software(kind.to_owned())));
        let found: Vec<_> =
            found.iter().map(|device| (&*device.name, device.kind.clone())).collect();
        assert_eq!(found, expected.collect::<Vec<_>>(), "{name}");
    }
}
