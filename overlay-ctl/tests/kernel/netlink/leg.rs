//! Gateway legs, and several endpoints in one namespace.

use std::{convert::Infallible, net::Ipv4Addr, path::Path};

use ipnet::Ipv4Net;
use overlay_ctl::{
    dataplane::{
        kernel::{DeviceId, DeviceSpec, LinkLayer, ObservedDevice, Station, Stations},
        netlink::{DeviceError, Interest, Netlink},
    },
    model::{LegId, Mac},
};

use super::{bridge::subnet, raise, ready, sizes, spec as port_spec, tell_until};
use crate::lab::{Netns, skip};

const MTU: u32 = 1500;
const FIRST: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);
const SECOND: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 4);

fn id(address: Ipv4Addr) -> DeviceId {
    let first = LegId::default().next();
    DeviceId::leg(if address == FIRST { first } else { first.next() })
}

fn stations() -> Stations {
    let station = |address| Station { mac: Mac::of_endpoint(address).octets(), address };
    [FIRST, SECOND].map(|address| (id(address), station(address))).into()
}

pub(super) fn spec(netns: &Netns, address: Ipv4Addr) -> DeviceSpec {
    DeviceSpec {
        id: id(address),
        netns: netns.path(),
        addresses: vec![Ipv4Net::new_assert(address, 16).into()],
        mac: Mac::of_endpoint(address).octets(),
        gateway: Some(Ipv4Addr::new(172, 18, 0, 1)),
        sizes: sizes(MTU),
    }
}

async fn with_bridge() -> Netlink {
    let netlink = Netlink::open().await.unwrap();
    netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &stations()).await.unwrap();
    netlink
}

async fn bring_up(netlink: &Netlink, spec: &DeviceSpec) -> ObservedDevice {
    netlink.create_device(spec, ready).await.unwrap();
    raise(netlink, spec).await.unwrap();
    netlink.device(spec.id).await.unwrap().unwrap()
}

#[test]
fn a_leg_is_made_as_asked_and_leaves_nothing() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    web.sh("ip link set lo down");
    let (host_before, web_before) =
        (host.sh("ip addr; ip route"), web.sh("ip addr show lo; ip route"));
    let spec = spec(&web, FIRST);
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let mut called = None;
        let leg = netlink
            .create_device(&spec, |name, index| -> Result<(), Infallible> {
                called = Some((name.to_owned(), index));
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(called, Some(("ovgw00000001".to_owned(), leg.ifindex)));
        let netns = netlink.netns_id(&spec.netns).await.unwrap();
        assert_eq!(leg.difference(&spec, netns), None, "{leg:?}");
        assert!(!leg.up && !leg.peer.as_ref().unwrap().up, "down until it is activated");
        let device = host.sh("ip -d link show dev ovgw00000001");
        assert!(device.contains("isolated on"), "before it is up: {device}");
        assert!(!web.sh("ip route").contains("default"));

        raise(&netlink, &spec).await.unwrap();
        raise(&netlink, &spec).await.unwrap();
        let legs = netlink.devices().await.unwrap();
        let [leg] = &legs[..] else { panic!("{legs:?}") };
        assert!(leg.is_active() && leg.id == spec.id, "{leg:?}");
        assert_eq!(leg.difference(&spec, netns), None);
        let renamed = ObservedDevice { mtu: 1400, ..leg.clone() };
        assert_eq!(renamed.difference(&spec, netns), Some("the MTU differs"));
    });
    let inside = web.sh("ip addr show dev eth1");
    for part in ["mtu 1500", "02:42:ac:12:00:03", "inet 172.18.0.3/16", "UP"] {
        assert!(inside.contains(part), "{part} in {inside}");
    }
    assert!(!inside.contains("inet6"), "{inside}");
    assert!(web.sh("ip route").contains("default via 172.18.0.1 dev eth1"));
    assert!(web.sh("ip link show lo").contains(",UP"), "127.0.0.11 is there");
    let outside = host.sh("ip -d link show dev ovgw00000001; ip addr show dev ovgw00000001");
    for part in ["alias overlay:leg:1", "master ov_gwbridge", "isolated on", "mtu 1500"] {
        assert!(outside.contains(part), "{part} in {outside}");
    }
    assert!(!outside.contains("inet"), "{outside}");
    host.sh("ping -c 1 -W 5 172.18.0.3");
    web.sh("ping -c 1 -W 5 172.18.0.1");

    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.remove_device(id(FIRST)).await.unwrap();
        netlink.remove_device(id(FIRST)).await.unwrap();
        assert_eq!(netlink.devices().await.unwrap(), []);
        netlink.remove_gateway_bridge().await.unwrap();
    });
    assert_eq!(host.sh("ip addr; ip route"), host_before);
    web.sh("ip link set lo down");
    assert_eq!(web.sh("ip addr show lo; ip route"), web_before);
    assert!(!web.succeeds("ip link show eth1"));
}

#[test]
fn packets_pass_as_soon_as_a_leg_is_activated() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.block_on(|| async {
        let netlink = with_bridge().await;
        // Many rounds, because the kernel is only late by chance.
        for round in 0..50 {
            let leg = bring_up(&netlink, &spec(&web, FIRST)).await;
            let runs = (leg.running, leg.peer.as_ref().unwrap().running);
            assert_eq!(runs, (true, true), "round {round}: {leg:?}");
            netlink.remove_device(leg.id).await.unwrap();
        }
        netlink.create_device(&spec(&web, FIRST), ready).await.unwrap();
        host.sh("ip link set ovgw00000001 up");
        let leg = netlink.device(id(FIRST)).await.unwrap().unwrap();
        assert!(!leg.is_active(), "somebody else's doing");
        raise(&netlink, &spec(&web, FIRST)).await.unwrap();
        assert!(web.sh("ip route").contains("default via 172.18.0.1 dev eth1"));
    });
}

#[test]
fn neighbours_on_the_bridge_are_isolated_even_without_a_program() {
    if skip() {
        return;
    }
    let (host, web, db) = (Netns::new("host"), Netns::new("web"), Netns::new("db"));
    host.block_on(|| async {
        let netlink = with_bridge().await;
        bring_up(&netlink, &spec(&web, FIRST)).await;
        bring_up(&netlink, &spec(&db, SECOND)).await;
        // The ARP request stays on the link, so no answer can come through the host.
        let asks = "arping -q -c 1 -w 2 -I eth1 172.18.0.4";
        assert!(!web.succeeds(asks));
        host.sh("ip link set ovgw00000001 type bridge_slave isolated off");
        host.sh("ip link set ovgw00000002 type bridge_slave isolated off");
        assert!(web.succeeds(asks), "what it is for");

        // The next pass repairs the isolation, and puts back a leg that somebody took out of the bridge.
        host.sh("ip link set ovgw00000002 nomaster");
        let netlink = with_bridge().await;
        for name in ["ovgw00000001", "ovgw00000002"] {
            let seen = host.sh(&format!("ip -d link show dev {name}"));
            assert!(seen.contains("master ov_gwbridge") && seen.contains("isolated on"), "{seen}");
        }
        assert!(!web.succeeds(asks));
        host.sh("ping -c 1 -W 5 172.18.0.4");

        // A bridge that is made anew takes the legs in.
        host.sh("ip link del ov_gwbridge");
        netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &stations()).await.unwrap();
        host.sh("ping -c 1 -W 5 172.18.0.4");
    });
}

/// Permanent neighbours take no room in the table that all namespaces share.
#[test]
fn the_host_knows_the_mac_of_each_leg_without_asking() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(&web, FIRST);
    host.block_on(|| async {
        let netlink = with_bridge().await;
        bring_up(&netlink, &spec).await;
        let known = || host.sh("ip neigh show dev ov_gwbridge nud permanent");
        let first = "172.18.0.3 lladdr 02:42:ac:12:00:03";
        assert!(known().contains(first), "{}", known());
        host.sh("ip neigh del 172.18.0.3 dev ov_gwbridge");
        host.sh("ip neigh add 172.18.0.9 lladdr 02:00:00:00:00:09 dev ov_gwbridge nud permanent");
        with_bridge().await;
        assert!(known().contains(first), "{}", known());
        let seen = netlink.device(spec.id).await.unwrap().unwrap();
        netlink.remove_seen(&seen).await.unwrap();
        assert!(!known().contains("172.18.0.3"), "{}", known());
        // A leg that went with its namespace.
        bring_up(&netlink, &spec).await;
        netlink.remove_device(spec.id).await.unwrap();
        assert!(known().contains(first), "{}", known());
        with_bridge().await;
        assert!(!known().contains("172.18.0.3"), "{}", known());
        assert!(known().contains("172.18.0.9"), "the operator's own stays");
    });
}

/// A packet that the bridge takes and a leg does not is lost without an answer to its sender.
#[test]
fn the_bridge_takes_no_larger_packets_than_its_legs() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let spec = DeviceSpec { sizes: sizes(1400), ..spec(&web, FIRST) };
        bring_up(&netlink, &spec).await;
        let has_mtu = |mtu| host.sh("ip link show dev ov_gwbridge").contains(mtu);
        netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &stations()).await.unwrap();
        assert!(has_mtu("mtu 1400"));
        netlink.remove_device(spec.id).await.unwrap();
        netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &stations()).await.unwrap();
        assert!(has_mtu("mtu 1500"));
    });
}

/// The leg was made by an earlier version, as after an upgrade.
#[test]
fn a_leg_of_an_earlier_version_stays_as_it_is() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let former = DeviceId::leg(LegId::of_addresses(FIRST.into()));
    let spec = DeviceSpec { id: former, ..spec(&web, FIRST) };
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let made = bring_up(&netlink, &spec).await;
        assert_eq!(made.ifname, "ovgwac120003");
        host.sh("ip link set ovgwac120003 alias overlay:gateway:172.18.0.3");
        let [leg] = &netlink.devices().await.unwrap()[..] else { panic!("one leg") };
        assert_eq!((leg, leg.is_active()), (&made, true));
        raise(&netlink, &spec).await.unwrap();
        let alias = host.sh("ip link show dev ovgwac120003");
        assert!(alias.contains("overlay:gateway:172.18.0.3"), "not raised again: {alias}");
        host.sh("ip link set ovgwac120003 nomaster");
        let stations = [(former, Station { mac: spec.mac, address: FIRST })].into();
        let subnet = subnet("172.18.0.0/16");
        netlink.ensure_gateway_bridge(subnet, MTU, &stations).await.unwrap();
        host.sh("ping -c 1 -W 5 172.18.0.3");
        netlink.remove_device(former).await.unwrap();
        assert_eq!(netlink.devices().await.unwrap(), []);
    });
}

#[test]
fn endpoints_share_a_namespace_and_one_leg() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let check = async |netlink: &Netlink| netlink.check_netns(&web.path(), true, None).await;
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let make = async |spec: &DeviceSpec| {
            let made = netlink.create_device(spec, ready).await.unwrap();
            raise(&netlink, spec).await.unwrap();
            made.peer.unwrap().ifname
        };
        assert_eq!(make(&port(7, 16, &web)).await, "eth0");
        check(&netlink).await.expect("an eth0 of ours is no obstacle");
        assert_eq!(make(&port(8, 17, &web)).await, "eth2", "eth1 is kept for the gateway leg");
        bring_up(&netlink, &spec(&web, FIRST)).await;
        check(&netlink).await.expect("nor is an eth1 of ours");
        assert_eq!(make(&port(9, 18, &web)).await, "eth3");

        let seen = netlink.devices().await.unwrap();
        let (ports, legs) = seen.split_at(3);
        let netns = netlink.netns_id(&web.path()).await.unwrap();
        let active: Vec<_> = ports.iter().map(|port| (port.id, port.is_active())).collect();
        assert_eq!(active, [7, 8, 9].map(|endpoint| (DeviceId::port(endpoint), true)));
        for (observed, host_part) in ports.iter().zip(16..) {
            let spec = port(observed.id.number, host_part, &web);
            assert_eq!(observed.difference(&spec, netns), None);
        }
        assert_eq!(legs[0].difference(&spec(&web, FIRST), netns), None);

        // A namespace has one leg: a second one is refused, and the first one stays.
        let error = netlink.create_device(&spec(&web, SECOND), ready).await.unwrap_err();
        assert!(error.to_string().contains("already has an interface eth1"), "{error}");
        assert_eq!(netlink.devices().await.unwrap(), seen);
        assert_eq!(legs.len(), 1);

        netlink.remove_device(ports[0].id).await.unwrap();
        check(&netlink).await.unwrap();
        assert_eq!(make(&port(10, 19, &web)).await, "eth0", "the first that is free");
    });
}

fn port(endpoint: u64, host_part: u8, netns: &Netns) -> DeviceSpec {
    let addresses = vec![format!("172.16.{host_part}.2/24").parse().unwrap()];
    DeviceSpec { addresses, ..port_spec(endpoint, netns) }
}

#[test]
fn a_namespace_keeps_the_default_route_that_it_has() {
    if skip() {
        return;
    }
    let (host, web, uplink) = (Netns::new("host"), Netns::new("web"), Netns::new("uplink"));
    web.join("wan0", &uplink, "wan0");
    web.sh("ip addr add 192.0.2.2/24 dev wan0; ip route add default via 192.0.2.1 metric 500");
    host.block_on(|| async {
        let netlink = with_bridge().await;
        assert!(bring_up(&netlink, &spec(&web, FIRST)).await.is_active());
    });
    let routes = web.sh("ip route");
    assert_eq!(routes.matches("default").count(), 1, "{routes}");
    assert!(routes.contains("default via 192.0.2.1 dev wan0"), "{routes}");
    // The leg's address is reachable all the same, because the bridge is on the leg's link.
    host.sh("ping -c 1 -W 5 172.18.0.3");
}

#[test]
fn a_foreign_eth1_is_refused_where_a_leg_is_needed() {
    if skip() {
        return;
    }
    let (host, web, other) = (Netns::new("host"), Netns::new("web"), Netns::new("other"));
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let leg = netlink.create_device(&spec(&other, SECOND), ready).await.unwrap();
        let index = leg.peer.unwrap().ifindex;
        web.sh(&format!("ip link add eth1 index {index} type bridge"));
        let before = web.sh("ip -o link");
        let check = async || netlink.check_netns(&web.path(), true, None).await.unwrap_err();
        let error = check().await;
        assert!(matches!(error, DeviceError::InterfaceExists { .. }), "{error:?}");
        assert!(error.to_string().contains("eth1"), "{error}");
        netlink
            .check_netns(&web.path(), false, None)
            .await
            .expect("an --internal network needs none");
        let error = netlink.create_device(&spec(&web, FIRST), ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::InterfaceExists { .. }), "{error:?}");
        assert_eq!(netlink.device(id(FIRST)).await.unwrap(), None);
        // The device is not taken for a leg either, although a port of ours is beside it, and although a leg
        // elsewhere has its index.
        netlink.create_device(&port_spec(7, &web), ready).await.unwrap();
        assert!(matches!(check().await, DeviceError::InterfaceExists { .. }));
        netlink.remove_device(DeviceId::port(7)).await.unwrap();
        assert_eq!(web.sh("ip -o link"), before);
    });
}

#[test]
fn a_leg_that_can_not_be_made_leaves_nothing() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(&web, FIRST);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let error = netlink.create_device(&spec, ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::NoGatewayBridge), "{error:?}");
        let netlink = with_bridge().await;
        let fail = |_: &str, _| Err("no room in the map");
        let error = netlink.create_device(&spec, fail).await.unwrap_err();
        assert!(matches!(error, DeviceError::Attach(_)), "{error:?}");
        let nowhere = DeviceSpec { netns: Path::new("ovk-no-such").to_owned(), ..spec.clone() };
        let error = netlink.create_device(&nowhere, ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::NoNamespace(_)), "{error:?}");
        assert_eq!(netlink.devices().await.unwrap(), []);
    });
    assert!(!host.succeeds("ip link show ovgw00000001"));
    assert!(!web.succeeds("ip link show eth1"));
}

#[test]
fn what_a_killed_controller_left_of_a_leg_is_replaced() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let group = u32::from_be_bytes(*b"ovly");
    host.sh(&format!(
        "ip link add ovgw00000001 group {group} type veth peer name eth1 netns {}",
        web.name
    ));
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let underlay = overlay_ctl::dataplane::netlink::Underlay {
            ifindex: 1,
            name: "lo".to_owned(),
            address: Ipv4Addr::new(10, 0, 0, 1),
            mtu: MTU,
            is_silent: true,
            link_layer: LinkLayer::Ethernet,
            is_veth: false,
            vrf: None,
        };
        // The GRO device and the barrier have names that begin with the leg's prefix. Neither may take the
        // half-made leg for its own.
        netlink.ensure_gro_device(&underlay, 4789).await.unwrap();
        netlink.ensure_barrier().await.unwrap();
        assert!(!host.sh("ip link show dev ovgw00000001").contains("ovbarrier"));
        let legs = netlink.devices().await.unwrap();
        let [half] = &legs[..] else { panic!("it is seen, so that it does not stay: {legs:?}") };
        assert_eq!((half.id, half.up), (id(FIRST), false));
        assert!(bring_up(&netlink, &spec(&web, FIRST)).await.is_active());
    });
}

#[test]
fn a_foreign_device_with_a_legs_name_is_left_alone() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.sh("ip link add ovgw00000001 type veth peer name ovgw00000002");
    host.sh("ip link set ovgw00000002 alias overlay:leg:1");
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let before = host.sh("ip -o link show");
        assert_eq!(netlink.devices().await.unwrap(), []);
        for address in [FIRST, SECOND] {
            let error = netlink.remove_device(id(address)).await.unwrap_err();
            assert!(matches!(error, DeviceError::NameTaken(_)), "{error:?}");
        }
        let error = netlink.create_device(&spec(&web, FIRST), ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::NameTaken(_)), "{error:?}");
        with_bridge().await;
        assert_eq!(host.sh("ip -o link show"), before, "nor taken into the bridge");
    });
    assert!(!web.succeeds("ip link show eth1"));
}

#[test]
fn a_leg_goes_with_its_namespace_and_comes_back_with_the_next() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(&web, FIRST);
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let mut changes = netlink.changes(Interest::default()).unwrap();
        let earlier = bring_up(&netlink, &spec).await;
        let old = netlink.netns_id(&spec.netns).await.unwrap();
        web.remake();
        tell_until(&mut changes, async || netlink.device(id(FIRST)).await.unwrap().is_none()).await;
        let error = netlink.raise_device(&earlier, &spec).await.unwrap_err();
        assert!(matches!(error, DeviceError::Gone(_)), "{error:?}");
        let leg = bring_up(&netlink, &spec).await;
        let new = netlink.netns_id(&spec.netns).await.unwrap();
        assert_eq!(leg.difference(&spec, new), None, "after {old:?}");
        host.sh("ping -c 1 -W 5 172.18.0.3");
    });
}

#[test]
fn a_leg_of_a_namespace_that_lost_its_name_is_not_raised_in_its_successor() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(&web, FIRST);
    host.block_on(|| async {
        let netlink = with_bridge().await;
        let index = netlink.create_device(&spec, ready).await.unwrap().peer.unwrap().ifindex;
        // A process still uses the old namespace.
        let _old = std::fs::File::open(web.path()).unwrap();
        web.remake();
        web.sh(&format!("ip link add eth1 index {index} type bridge"));
        let error = raise(&netlink, &spec).await.unwrap_err();
        assert!(matches!(error, DeviceError::Gone(_)), "{error:?}");
        assert!(!web.sh("ip -o link show eth1").contains(",UP"), "another's, of the same index");
    });
}

#[test]
fn the_loopback_is_raised() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let up = || web.sh("ip link show lo").contains(",UP");
    web.sh("ip link set lo down");
    host.block_on(|| async {
        Netlink::raise_loopback(&web.path()).await.unwrap();
        assert!(up());
        Netlink::raise_loopback(&web.path()).await.unwrap();
        web.sh("ip link set lo down");
        let netlink = Netlink::open().await.unwrap();
        let port = port_spec(7, &web);
        netlink.create_device(&port, ready).await.unwrap();
        raise(&netlink, &port).await.unwrap();
        let error = Netlink::raise_loopback(Path::new("ovk-no-such")).await.unwrap_err();
        assert!(matches!(error, DeviceError::NoNamespace(_)), "{error:?}");
    });
    assert!(up(), "with the first interface");
}

#[test]
fn a_full_bridge_is_said_to_be_full() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.block_on(|| async {
        let netlink = with_bridge().await;
        // A bridge has at most 1,023 ports (BR_MAX_PORTS).
        host.sh("for i in $(seq 512); do \
               echo link add v$i master ov_gwbridge type veth peer name w$i; \
               [ $i = 512 ] || echo link set w$i master ov_gwbridge; \
             done | ip -batch -");
        let error = netlink.create_device(&spec(&web, FIRST), ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::GatewayBridgeFull), "{error:?}");
        host.sh("ip link del v1");
        assert!(bring_up(&netlink, &spec(&web, FIRST)).await.is_active(), "there is room again");
        netlink.remove_device(id(FIRST)).await.unwrap();
    });
    assert!(!host.succeeds("ip link show ovgw00000001"));
    assert!(!web.succeeds("ip link show eth1"));
}
