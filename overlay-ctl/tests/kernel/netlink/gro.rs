//! The GRO device, and other VXLAN devices on its port.

use std::net::Ipv4Addr;

use overlay_ctl::dataplane::netlink::{Change, GroError, Interest, Netlink, UnderlayChoice};

use super::{BOUND, pair_of_hosts};
use crate::lab::{Netns, skip};

#[test]
fn the_gro_device_is_made_once_and_follows_the_vtep() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    let index = || {
        host.sh("cat /sys/class/net/ovg4789/ifindex 2>/dev/null || ip -o link show ovg4789 | cut -d: -f1")
    };
    let mut underlay = host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        assert_eq!(netlink.ensure_gro_device(&underlay, 4789).await.unwrap(), "ovg4789");
        underlay
    });
    let first = index();
    let text = host.sh("ip -d addr show dev ovg4789");
    for part in ["vxlan id 16777215", "local 10.0.0.1", "dstport 4789", "nolearning", "UP"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("inet") && !text.contains("external"), "{text}");
    let sockets = host.sh("ss -lun");
    assert!(sockets.contains("0.0.0.0:4789") && !sockets.contains("[::]:4789"), "{sockets}");

    host.sh("ip link set ovg4789 down");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.ensure_gro_device(&underlay, 4789).await.unwrap();
        assert_eq!(index(), first, "kept");
        assert!(host.sh("ip link show ovg4789").contains("UP"));

        underlay.address = Ipv4Addr::new(10, 0, 0, 9);
        netlink.ensure_gro_device(&underlay, 4789).await.unwrap();
        assert_ne!(index(), first, "the address changed: made anew");
        assert!(host.sh("ip -d link show dev ovg4789").contains("local 10.0.0.9"));

        netlink.remove_gro_device(4789).await.unwrap();
        netlink.remove_gro_device(4789).await.unwrap();
    });
    assert!(!host.succeeds("ip link show ovg4789"));
}

#[test]
fn a_taken_vxlan_port_is_named() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        let ensure = |port| netlink.ensure_gro_device(&underlay, port);

        let socket = std::net::UdpSocket::bind("0.0.0.0:4789").unwrap();
        let error = ensure(4789).await.unwrap_err();
        assert!(matches!(error, GroError::PortTaken { port: 4789, .. }), "{error:?}");
        assert!(error.to_string().contains("--vxlan-port"), "{error}");
        assert!(!host.succeeds("ip link show ovg4789"), "nothing is left");
        drop(socket);

        host.sh("ip link add swarm type vxlan external dstport 4789");
        let error = ensure(4789).await.unwrap_err();
        assert!(error.to_string().contains("swarm"), "{error}");
        ensure(4790).await.unwrap();
        host.sh("ip link del swarm");

        host.sh("ip link add same type vxlan id 16777215 dstport 4789 local 10.0.0.77");
        let error = ensure(4789).await.unwrap_err();
        assert!(matches!(error, GroError::VniTaken { .. }), "{error:?}");
        host.sh("ip link del same");

        host.sh("ip link add other type vxlan id 4096 dstport 4789 local 10.0.0.77");
        ensure(4789).await.unwrap();
    });
}

/// A VXLAN device that was moved to another namespace leaves its socket behind, which the GRO device then shares. It is
/// seen by this socket if it was there first, and by the event of its creation if it came later.
#[test]
fn another_vxlan_on_the_port_is_seen_in_both_orders() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    let other = Netns::new("other");
    let make = |name: &str, id: u32| {
        host.sh(&format!(
            "ip link add {name} type vxlan id {id} dstport 4789 local 10.0.0.1 remote 10.0.0.2 dev eth7;
             ip link set {name} netns {other}", other = other.name,
        ));
        other.sh(&format!("ip link set {name} up"));
    };
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        assert!(!netlink.shares_vxlan_port(4789).await.unwrap(), "nobody has the port");
        make("first", 4096);
        assert!(netlink.shares_vxlan_port(4789).await.unwrap(), "by its socket");
        assert!(!netlink.shares_vxlan_port(4790).await.unwrap(), "on another port");
        netlink.ensure_gro_device(&underlay, 4789).await.unwrap();
        other.sh("ip link del first");
        assert!(!netlink.shares_vxlan_port(4789).await.unwrap(), "the socket is ours alone");

        let mut changes = netlink.changes(Interest::default()).unwrap();
        make("second", 4097);
        let wait = async { while changes.recv().await.unwrap() != Change::Vxlan(4789) {} };
        tokio::time::timeout(BOUND, wait).await.expect("the event says it");
        netlink.ensure_gro_device(&underlay, 4789).await.unwrap();
    });
}
