//! The gateway bridge, and the host's devices and settings around it.

use overlay_ctl::dataplane::kernel::Stations;
use std::{collections::BTreeSet, net::Ipv4Addr};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use overlay_ctl::{
    dataplane::netlink::{BridgeError, Forwarding, GATEWAY_BRIDGE, Netlink, NetlinkError},
    model::Subnet,
};

use super::pair_of_hosts;
use crate::lab::{Netns, skip};

const MTU: u32 = 1500;

pub(super) fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

/// The visible state of the bridge: options, addresses and the settings that the node makes.
fn seen(host: &Netns) -> String {
    host.sh(&format!(
        "ip -d link show dev {GATEWAY_BRIDGE} | sed \"s/[a-z_]*_timer *[0-9.]*//g\"; ip addr show dev {GATEWAY_BRIDGE}; \
         cd /proc/sys/net/ipv4/conf/{GATEWAY_BRIDGE}; \
         grep . forwarding route_localnet send_redirects accept_source_route arp_announce"
    ))
}

fn assert_stands(host: &Netns, mac: &str, address: &str) {
    let seen = seen(host);
    let parts = [
        "state UP",
        "mtu 1500",
        "alias overlay:gateway",
        "stp_state 0",
        "forward_delay 0",
        "mcast_snooping 0",
        "forwarding:1",
        "route_localnet:1",
        "send_redirects:0",
        "accept_source_route:0",
        "arp_announce:2",
        mac,
        address,
    ];
    for part in parts {
        // Without a port the bridge has no carrier, but it is up.
        let holds = seen.contains(part) || (part == "state UP" && seen.contains(",UP>"));
        assert!(holds, "{part} in {seen}");
    }
    assert_eq!(seen.matches("inet ").count(), 1, "{seen}");
    assert!(!seen.contains("inet6"), "{seen}");
}

#[test]
fn the_gateway_bridge_is_made_and_put_right_again() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    let first = "inet 172.18.0.1/16";
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        assert_eq!(netlink.gateway_bridge_subnet().await.unwrap(), None);
        let stations = Stations::new();
        let ensure = || netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &stations);
        let made = ensure().await.unwrap();
        assert_eq!(made.mac, [0x02, 0x42, 172, 18, 0, 1]);
        assert_stands(&host, "02:42:ac:12:00:01", first);
        let stands = netlink.gateway_bridge_subnet().await.unwrap();
        assert_eq!(stands, Some("172.18.0.0/16".parse().unwrap()));
        let before = seen(&host);
        assert_eq!(ensure().await.unwrap(), made);
        assert_eq!(seen(&host), before, "nothing differs, nothing is done");

        let conf = format!("/proc/sys/net/ipv4/conf/{GATEWAY_BRIDGE}");
        for damage in [
            "ip link set ov_gwbridge down".to_owned(),
            "ip addr flush dev ov_gwbridge".to_owned(),
            "ip addr add 192.0.2.1/24 dev ov_gwbridge".to_owned(),
            "ip addr flush dev ov_gwbridge; ip addr add 172.18.0.9/16 dev ov_gwbridge; \
             ip addr add 172.18.0.1/16 dev ov_gwbridge"
                .to_owned(),
            "ip addr add 172.18.0.1/24 dev ov_gwbridge".to_owned(),
            "ip link set ov_gwbridge address 02:00:00:00:00:01".to_owned(),
            "ip link set ov_gwbridge mtu 1280".to_owned(),
            "ip link set ov_gwbridge type bridge stp_state 1".to_owned(),
            "ip link set ov_gwbridge type bridge forward_delay 1500".to_owned(),
            "ip link set ov_gwbridge type bridge mcast_snooping 1".to_owned(),
            "ip link set ov_gwbridge addrgenmode eui64; ip link set ov_gwbridge down; \
             ip -6 addr flush dev ov_gwbridge"
                .to_owned(),
            "echo 0 >/proc/sys/net/ipv4/ip_forward".to_owned(),
            format!("for name in forwarding route_localnet; do echo 0 >{conf}/$name; done"),
            format!(
                "for name in send_redirects accept_source_route; do echo 1 >{conf}/$name; done"
            ),
        ] {
            host.sh(&damage);
            assert_eq!(ensure().await.unwrap(), made, "the same device after {damage}");
            assert_stands(&host, "02:42:ac:12:00:01", first);
        }

        netlink.remove_gateway_bridge().await.unwrap();
        netlink.remove_gateway_bridge().await.unwrap();
    });
    assert_eq!(
        host.sh("ls /sys/class/net /proc/sys/net/ipv4/conf | grep -c ov_ || true").trim(),
        "0"
    );
    assert!(!host.succeeds("ip link show ov_gwbridge"));
}

#[test]
fn the_gateway_bridge_follows_the_subnet() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let ensure = async |net| {
            netlink.ensure_gateway_bridge(subnet(net), MTU, &Stations::new()).await.unwrap()
        };
        let old = ensure("172.18.0.0/16").await;
        for (net, mac, address) in [
            ("172.25.0.0/16", "02:42:ac:19:00:01", "inet 172.25.0.1/16"),
            // The same address with another prefix length.
            ("172.25.0.0/24", "02:42:ac:19:00:01", "inet 172.25.0.1/24"),
            ("172.25.0.0/16", "02:42:ac:19:00:01", "inet 172.25.0.1/16"),
        ] {
            let new = ensure(net).await;
            assert_eq!(new.ifindex, old.ifindex);
            assert_stands(&host, mac, address);
            let stands = netlink.gateway_bridge_subnet().await.unwrap();
            assert_eq!(stands, Some(net.parse().unwrap()));
        }
    });
    assert!(!host.sh("ip route").contains("172.18."));
}

#[test]
fn a_foreign_gateway_bridge_is_refused_and_left_alone() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    let group = u32::from_be_bytes(*b"ovly");
    for foreign in [
        "ip link add ov_gwbridge type bridge".to_owned(),
        "ip link add ov_gwbridge type bridge; ip link set ov_gwbridge alias overlay:barrier"
            .to_owned(),
        // The device of that name is not a bridge at all.
        format!("ip link add ov_gwbridge group {group} type veth peer name other"),
    ] {
        host.sh(&foreign);
        host.sh("ip addr add 172.18.0.1/16 dev ov_gwbridge; ip link set ov_gwbridge up");
        let before = host.sh("ip addr; ip route");
        host.block_on(|| async {
            let netlink = Netlink::open().await.unwrap();
            let made =
                netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &Stations::new()).await;
            let error = made.unwrap_err();
            assert!(matches!(error, BridgeError::NameTaken), "{error:?}");
            assert!(error.to_string().contains("ov_gwbridge exists and is not ours"), "{error}");
            assert_eq!(netlink.gateway_bridge_subnet().await.unwrap(), None);
            netlink.remove_gateway_bridge().await.unwrap();
            let taken = netlink.taken_prefixes().await.unwrap();
            assert!(!taken.is_empty(), "what another's device of that name has is taken");
        });
        assert_eq!(host.sh("ip addr; ip route"), before);
        host.sh("ip link del ov_gwbridge");
    }
}

#[test]
fn a_half_made_gateway_bridge_is_completed() {
    if skip() {
        return;
    }
    let host = Netns::new("host");
    let group = u32::from_be_bytes(*b"ovly");
    host.sh(&format!("ip link add ov_gwbridge group {group} type bridge"));
    let index = host.sh("ip -o link show dev ov_gwbridge | cut -d: -f1");
    let made = host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &Stations::new()).await.unwrap()
    });
    assert_eq!(index.trim(), made.ifindex.to_string());
    assert_stands(&host, "02:42:ac:12:00:01", "inet 172.18.0.1/16");
}

/// Makes the sysctls read-only, as they are in a container, for the calling thread alone.
fn make_sysctls_read_only() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let set = |from: Option<&str>, to: &str, flags| {
        mount(from, to, None::<&str>, flags, None::<&str>).unwrap();
    };
    set(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    set(Some("/proc/sys"), "/proc/sys", MsFlags::MS_BIND);
    set(None, "/proc/sys", MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
}

#[test]
fn where_sysctls_are_read_only_nothing_is_left_and_nothing_right_is_refused() {
    if skip() {
        return;
    }
    let (host, made) = (Netns::new("host"), Netns::new("made"));
    let ensure = async || {
        let netlink = Netlink::open().await.unwrap();
        netlink.ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &Stations::new()).await
    };
    host.block_on(|| async {
        make_sysctls_read_only();
        let error = ensure().await.unwrap_err();
        assert!(matches!(error, BridgeError::Netlink(NetlinkError::Sysctl { .. })), "{error:?}");
        assert!(error.to_string().contains("conf/ov_gwbridge/"), "{error}");
    });
    assert!(!host.succeeds("ip link show ov_gwbridge"));

    made.block_on(ensure).unwrap();
    made.block_on(|| async {
        make_sysctls_read_only();
        ensure().await.expect("there is nothing to write");
    });
    made.sh("echo 0 >/proc/sys/net/ipv4/conf/ov_gwbridge/forwarding");
    made.block_on(|| async {
        make_sysctls_read_only();
        assert!(ensure().await.is_err());
    });
    assert!(made.succeeds("ip link show ov_gwbridge"), "one that stands stays");
}

#[test]
fn taken_prefixes_are_the_routes_and_addresses_that_are_not_ours() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.sh("ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0");
    host.sh("ip addr add 198.51.100.7/32 dev lo");
    host.sh("ip route add default via 10.0.0.2; ip route add 0.0.0.0/1 via 10.0.0.2");
    host.sh("ip route add 128.0.0.0/1 via 10.0.0.2; ip route add 172.20.0.0/16 via 10.0.0.2");
    host.sh("ip route add 172.21.8.0/24 via 10.0.0.2 table 77");
    host.sh("ip route add blackhole 172.22.0.0/15; ip route add local 172.24.0.0/16 dev lo");
    host.sh("ip link set docker0 up; ip link set docker0 down");
    let taken = host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let before = netlink.taken_prefixes().await.unwrap();
        netlink
            .ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &Stations::new())
            .await
            .unwrap();
        assert_eq!(netlink.taken_prefixes().await.unwrap(), before, "our own is not taken");
        before
    });
    let taken: Vec<String> = taken.iter().map(|(net, by)| format!("{net} {by}")).collect();
    let expected = [
        "10.0.0.0/24 address of eth7",
        "10.0.0.0/24 route via eth7",
        "172.17.0.0/16 address of docker0",
        "172.20.0.0/16 route via eth7",
        "172.21.8.0/24 route via eth7",
        "172.22.0.0/15 route (blackhole)",
        "172.24.0.0/16 route via lo",
        "198.51.100.7/32 address of lo",
    ];
    assert_eq!(taken, expected);
}

#[test]
fn the_devices_of_others_are_known_with_what_leads_by_them() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.sh("ip addr add 198.51.100.7/32 dev lo; ip link add bare type bridge");
    host.sh("ip link add eth0.5 type bridge; ip addr add 10.0.5.1/24 dev eth0.5");
    for device in ["tun9", "down9", "group9"] {
        host.sh(&format!("ip link add {device} type bridge; ip link set {device} up"));
    }
    host.sh("ip route add default dev tun9 table 51820; ip route add 224.0.0.0/4 dev group9");
    host.sh("ip route add 10.9.0.0/24 dev down9; ip link set down9 down");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink
            .ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &Stations::new())
            .await
            .unwrap();
        let devices = netlink.outer_devices().await.unwrap();
        let all: BTreeSet<&str> = devices.iter().map(|device| &*device.name).collect();
        let expected = ["bare", "down9", "eth0.5", "eth7", "group9", "tun9"];
        assert_eq!(all, BTreeSet::from(expected), "neither lo nor the overlay's own");
        for device in &devices {
            let is_used = ["eth0.5", "eth7", "tun9"].contains(&&*device.name);
            assert_eq!(device.has_address, is_used && device.name != "tun9", "{device:?}");
            assert_eq!(netlink.is_used(device).await.unwrap(), is_used, "{device:?}");
            let bridge = (device.name != "eth7").then_some(&device.name);
            assert_eq!(device.bridge.as_ref(), bridge, "{device:?}");
        }
    });
}

#[test]
fn forwarding_tells_who_switched_it_on() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.sh("echo 0 >/proc/sys/net/ipv4/ip_forward");
    host.block_on(|| async {
        let is = |device| Netlink::forwarding(device).unwrap();
        assert_eq!(is("eth7"), Forwarding::Off);
        for wanted in [Forwarding::ByNode, Forwarding::ByOthers, Forwarding::ByNode] {
            Netlink::set_forwarding("eth7", wanted).unwrap();
            assert_eq!(is("eth7"), wanted);
        }
        host.sh("echo 1 >/proc/sys/net/ipv4/conf/eth7/forwarding");
        assert_eq!(is("eth7"), Forwarding::ByOthers);
        // A device that does not exist, and two names that look like devices but are none.
        for none in ["eth99", "all", "default"] {
            Netlink::set_forwarding(none, Forwarding::ByNode).unwrap();
            assert_eq!(is(none), Forwarding::Off, "{none}");
        }
        assert!(!Netlink::is_router().unwrap());
        host.sh("echo 1 >/proc/sys/net/ipv4/ip_forward");
        assert!(Netlink::is_router().unwrap(), "somebody made the host a router");
        assert_eq!(is("eth7"), Forwarding::ByOthers);
    });
}

#[test]
fn the_host_asks_endpoints_with_the_gateways_address() {
    if skip() {
        return;
    }
    // The host's other addresses must not appear in its ARP requests on the bridge.
    let (host, _peer) = pair_of_hosts();
    let web = Netns::new("web");
    let spec = super::leg::spec(&web, Ipv4Addr::new(172, 18, 0, 3));
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink
            .ensure_gateway_bridge(subnet("172.18.0.0/16"), MTU, &Stations::new())
            .await
            .unwrap();
        netlink.create_device(&spec, super::ready).await.unwrap();
        super::raise(&netlink, &spec).await.unwrap();
    });
    host.sh("ping -c 1 -W 5 -I 10.0.0.1 172.18.0.3");
    let known = web.sh("ip neigh show dev eth1");
    assert!(known.contains("172.18.0.1") && !known.contains("10.0.0.1"), "{known}");
}
