//! The devices of endpoints: ports, and what all tests of netlink share.

mod bridge;
mod changes;
mod gro;
mod held;
mod leg;
mod merge_pair;
mod neighbours;
mod sizes;
mod underlay;
mod underlay_after;

use std::{convert::Infallible, path::Path, time::Duration};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use overlay_ctl::dataplane::{
    kernel::{DeviceId, DeviceSpec, NextHop, PairSizes, SuperPackets},
    netlink::{
        Change, DeviceError, GroError, Interest, Netlink, Underlay, UnderlayChoice, device_name,
        offloads,
    },
};

use crate::lab::{Netns, skip};

const BOUND: Duration = Duration::from_secs(10);

/// Sizes with this MTU, and without super-packets.
fn sizes(mtu: u32) -> PairSizes {
    let nothing = SuperPackets::default();
    PairSizes { mtu, outside: nothing, inside: nothing }
}

fn spec(endpoint: u64, netns: &Netns) -> DeviceSpec {
    DeviceSpec {
        id: DeviceId::port(endpoint),
        netns: netns.name.clone().into(),
        mac: [0x02, 0x42, 172, 16, 16, 129],
        addresses: vec!["172.16.16.129/24".parse().unwrap()],
        gateway: None,
        sizes: sizes(1450),
    }
}

/// Activates the device of this id, in its present state.
async fn raise(netlink: &Netlink, spec: &DeviceSpec) -> Result<(), DeviceError> {
    let seen = netlink.device(spec.id).await?.unwrap();
    netlink.raise_device(&seen, spec).await.map(drop)
}

fn ready(_: &str, _: u32) -> Result<(), Infallible> {
    Ok(())
}

/// Makes a host whose device `eth7` has 10.0.0.1/24, on a wire with `peer`'s `eth7`, which has 10.0.0.2/24.
fn pair_of_hosts() -> (Netns, Netns) {
    let (host, peer) = (Netns::new("host"), Netns::new("peer"));
    host.join("eth7", &peer, "eth7");
    host.sh("ip addr add 10.0.0.1/24 dev eth7");
    peer.sh("ip addr add 10.0.0.2/24 dev eth7");
    (host, peer)
}

#[test]
fn a_port_is_made_as_asked_and_leaves_nothing() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(0x2a, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let mut called = None;
        let port = netlink
            .create_device(&spec, |name, index| -> Result<(), Infallible> {
                called = Some((name.to_owned(), index));
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!(called, Some(("ovp2a".to_owned(), port.ifindex)));
        let netns = netlink.netns_id(&spec.netns).await.unwrap();
        assert_eq!(port.difference(&spec, netns), None, "{port:?}");
        assert!(!port.up && !port.peer.as_ref().unwrap().up, "down until it is activated");

        raise(&netlink, &spec).await.unwrap();
        raise(&netlink, &spec).await.unwrap();
        let ports = netlink.devices().await.unwrap();
        assert_eq!(ports.len(), 1);
        assert!(ports[0].is_active(), "{ports:?}");
        assert_eq!(ports[0].difference(&spec, netns), None);
    });
    let addresses = web.sh("ip addr show dev eth0");
    for part in ["mtu 1450", "02:42:ac:10:10:81", "inet 172.16.16.129/24", "UP"] {
        assert!(addresses.contains(part), "{part} in {addresses}");
    }
    assert!(!addresses.contains("inet6"), "{addresses}");
    assert!(web.sh("ip route").contains("172.16.16.0/24 dev eth0 proto kernel scope link"));
    let host_side = host.sh("ip link show dev ovp2a; ip addr show dev ovp2a");
    assert!(
        host_side.contains("overlay:endpoint:42") && !host_side.contains("inet"),
        "{host_side}"
    );

    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.remove_device(spec.id).await.unwrap();
        netlink.remove_device(spec.id).await.unwrap();
        assert_eq!(netlink.devices().await.unwrap(), []);
    });
    assert!(!web.succeeds("ip link show eth0"));
}

/// Super-packets that could not be carried to another node whole are cut before they leave the endpoint.
#[test]
fn an_endpoint_s_side_of_a_port_cuts_what_cannot_be_carried() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let whole = |netns: &Netns, device: &str| {
        let carried = netns.block_on(|| async { offloads(device).await.unwrap() });
        let is_segmentation = |name: &String| {
            name.starts_with("tx-") && name.ends_with("-segmentation") || name == "tx-gso-list"
        };
        carried.into_iter().filter(is_segmentation).collect::<Vec<_>>()
    };
    host.sh("ip link add v0 type veth peer name v1");
    let usual = whole(&host, "v0");
    assert!(usual.contains(&"tx-sctp-segmentation".to_owned()), "a veth takes all: {usual:?}");
    let made = host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.create_device(&spec(0x2a, &web), ready).await.unwrap()
    });
    // What is left is TCP's, and that the kernel may cut at all.
    let left = whole(&web, "eth0");
    let is_fine = |name: &String| name.starts_with("tx-tcp") || name == "tx-generic-segmentation";
    assert!(left.iter().all(is_fine), "{left:?}");
    assert!(left.contains(&"tx-tcp-segmentation".to_owned()), "{left:?}");
    assert_eq!(whole(&host, &made.ifname), usual, "the host's side carries what comes");
}

/// A device that is up but not yet running drops packets. If the first ARP request is lost, packets are
/// dropped for a second.
#[test]
fn packets_pass_as_soon_as_a_port_is_activated() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        // Many rounds, because the kernel is only late by chance.
        for round in 0..50 {
            netlink.create_device(&spec, ready).await.unwrap();
            raise(&netlink, &spec).await.unwrap();
            let port = netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
            let runs = (port.running, port.peer.as_ref().unwrap().running);
            assert_eq!(runs, (true, true), "round {round}: {port:?}");
            netlink.remove_device(spec.id).await.unwrap();
        }
    });
}

#[test]
fn a_port_that_somebody_else_set_up_is_not_taken_for_complete() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let seen = async || netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
        netlink.create_device(&spec, ready).await.unwrap();
        // A network manager brings up any new device in this way.
        host.sh("ip link set ovp9 up");
        assert!(!seen().await.is_active());
        raise(&netlink, &spec).await.unwrap();
        assert!(seen().await.is_active() && web.sh("ip link show eth0").contains(",UP"));
        // If a network manager takes the host's side down later, it is brought up again.
        host.sh("ip link set ovp9 down");
        assert!(!seen().await.is_active());
        raise(&netlink, &spec).await.unwrap();
        assert!(seen().await.is_active());
        // The state of the endpoint's own side is left to the endpoint.
        web.sh("ip link set eth0 down");
        assert!(seen().await.is_active());
        raise(&netlink, &spec).await.unwrap();
        assert!(!web.sh("ip link show eth0").contains(",UP"));
    });
}

#[test]
fn an_endpoint_that_takes_its_side_down_holds_nobody_up() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.create_device(&spec, ready).await.unwrap();
        // The kernel never shows a dormant device as up, so a wait for this state would never end.
        web.sh("ip link set eth0 mode dormant");
        raise(&netlink, &spec).await.unwrap();
        let port = netlink.device(DeviceId::port(9)).await.unwrap().unwrap();
        assert!(port.is_active() && !port.peer.unwrap().running);
    });
}

#[test]
fn a_port_is_made_anew_where_its_endpoint_moved() {
    if skip() {
        return;
    }
    let (host, old, new) = (Netns::new("host"), Netns::new("old"), Netns::new("new"));
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.create_device(&spec(7, &old), ready).await.unwrap();
        let moved = spec(7, &new);
        let netns = netlink.netns_id(&moved.netns).await.unwrap();
        let earlier = netlink.device(DeviceId::port(7)).await.unwrap().unwrap();
        assert!(earlier.difference(&moved, netns).unwrap().contains("another namespace"));
        let port = netlink.create_device(&moved, ready).await.unwrap();
        assert_eq!(port.difference(&moved, netns), None);
        // The device that was seen earlier is gone, although another one has its name.
        let error = netlink.raise_device(&earlier, &moved).await.unwrap_err();
        assert!(matches!(error, DeviceError::Gone(_)), "{error:?}");
    });
    assert!(!old.succeeds("ip link show eth0"));
}

#[test]
fn a_namespace_that_does_not_fit_is_refused_and_nothing_is_left() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    web.sh("ip link add eth0 type veth peer name other");
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let error = netlink.create_device(&spec, ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::InterfaceExists { .. }), "{error:?}");
        assert!(error.to_string().contains(&web.name), "{error}");
        let check =
            async |path: &str| netlink.check_netns(Path::new(path), false, None).await.unwrap_err();
        assert!(matches!(check(&web.name).await, DeviceError::InterfaceExists { .. }));
        assert!(matches!(check("ovk-no-such-namespace").await, DeviceError::NoNamespace(_)));
        assert!(matches!(check("/run/ovk/no/such").await, DeviceError::NoNamespace(_)));
        assert!(matches!(check("/etc/passwd").await, DeviceError::NotNamespace(_)));
        assert!(matches!(check("/proc/self/ns/mnt").await, DeviceError::NotNamespace(_)));
        assert!(matches!(check(&host.name).await, DeviceError::OwnNamespace(_)));
        web.sh("ip link del eth0");
        netlink.check_netns(Path::new(&web.name), true, None).await.unwrap();
        // One of two interfaces with addresses of one subnet would be mute.
        web.sh("ip link add own0 type veth peer name own1 && ip addr add 10.1.1.2/24 dev own0");
        let on = async |subnet: &str| {
            let subnet = Some(subnet.parse().unwrap());
            netlink.check_netns(Path::new(&web.name), true, subnet).await
        };
        for subnet in ["10.1.1.0/24", "10.1.0.0/16", "10.1.1.128/25"] {
            let error = on(subnet).await.unwrap_err().to_string();
            let words = ["10.1.1.2/24", "own0", subnet, &web.name];
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        on("10.1.2.0/24").await.unwrap();
        assert_eq!(netlink.devices().await.unwrap(), []);
    });
    assert!(!host.succeeds("ip link show ovp9"));
}

#[test]
fn a_port_whose_preparation_fails_is_removed() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let fail = |_: &str, _| Err("no room in the map");
        let error = netlink.create_device(&spec(9, &web), fail).await.unwrap_err();
        assert!(matches!(error, DeviceError::Attach(_)), "{error:?}");
    });
    assert!(!host.succeeds("ip link show ovp9"));
    assert!(!web.succeeds("ip link show eth0"));
}

/// The kernel's list of devices may have left it out.
#[test]
fn a_port_that_stands_is_not_made_again() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let half = netlink.create_device(&spec, ready).await.unwrap();
        let made = netlink.create_device(&spec, ready).await.unwrap();
        assert_ne!(made.ifindex, half.ifindex, "what was never raised is made again");
        let raised = netlink.raise_device(&made, &spec).await.unwrap();
        assert!(raised.is_active() && raised.peer.as_ref().unwrap().up, "{raised:?}");
        assert!(netlink.is_one_of_ours(made.ifindex).await.unwrap());
        web.sh("ip route add 198.51.100.0/24 dev eth0");
        let mut attached = None;
        let attach = |_: &str, index| -> Result<(), Infallible> {
            attached = Some(index);
            Ok(())
        };
        let again = netlink.create_device(&spec, attach).await.unwrap();
        assert_eq!((&again, attached), (&raised, Some(made.ifindex)));
        assert!(web.sh("ip route").contains("198.51.100.0/24"), "with all that was set on it");

        let other = Netns::new("other");
        let moved = DeviceSpec { netns: other.path(), ..spec.clone() };
        let elsewhere = netlink.create_device(&moved, ready).await.unwrap();
        assert_ne!(elsewhere.ifindex, made.ifindex, "it led into another namespace");
        assert!(!netlink.is_one_of_ours(made.ifindex).await.unwrap());
    });
}

/// A network manager gives each device an address if nobody else does.
#[test]
fn an_address_of_another_program_on_a_port_is_taken_away() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.sh("ip link add ovp10 type veth peer name ovp11; ip addr add 169.254.9.9/16 dev ovp10");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.create_device(&spec(9, &web), ready).await.unwrap();
        host.sh("ip link set ovp9 up; ip addr add 169.254.7.7/16 dev ovp9");
        let links = netlink.link_list().await.unwrap();
        netlink.clear_addresses(&links).await.unwrap();
    });
    assert!(!host.sh("ip addr show dev ovp9").contains("169.254"));
    assert!(host.sh("ip addr show dev ovp10").contains("169.254"), "it is not ours");
}

/// A network manager in the namespace clears interfaces that it does not know.
#[test]
fn an_address_that_was_taken_away_before_the_port_was_raised_is_there_afterwards() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let made = netlink.create_device(&spec, ready).await.unwrap();
        web.sh("ip addr flush dev eth0; ip link set eth0 up");
        host.sh("ip link set ovp9 up");
        let raised = netlink.raise_device(&made, &spec).await.unwrap();
        assert_eq!(raised.peer.unwrap().addresses, spec.addresses);
    });
}

#[test]
fn a_port_goes_with_its_namespace() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let spec = spec(9, &web);
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let mut changes = netlink.changes(Interest::default()).unwrap();
        let made = netlink.create_device(&spec, ready).await.unwrap();
        drop(web);
        let gone = async {
            while netlink.device(DeviceId::port(9)).await.unwrap().is_some() {
                changes.recv().await.unwrap();
            }
        };
        tokio::time::timeout(BOUND, gone).await.expect("the port goes when its namespace does");
        netlink.remove_device(spec.id).await.unwrap();
        let error = netlink.raise_device(&made, &spec).await.unwrap_err();
        assert!(matches!(error, DeviceError::Gone(_)), "{error:?}");
        let error = netlink.create_device(&spec, ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::NoNamespace(_)), "{error:?}");
    });
}

#[test]
fn what_a_killed_controller_left_half_made_is_replaced() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let group = u32::from_be_bytes(*b"ovly");
    host.sh(&format!("ip link add ovp9 group {group} type veth peer name eth0 netns {}", web.name));
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let ports = netlink.devices().await.unwrap();
        let [half] = &ports[..] else { panic!("it is seen, so that it does not stay: {ports:?}") };
        assert_eq!((half.id, half.up), (DeviceId::port(9), false));
        netlink.create_device(&spec(9, &web), ready).await.unwrap();
    });
}

#[test]
fn foreign_devices_with_our_prefix_are_left_alone() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    host.sh("ip link add ovp9 type veth peer name ovpa");
    host.sh("ip link set ovpa alias overlay:endpoint:9");
    host.sh("ip link add ovg4789 type veth peer name ovgx");
    host.sh("ip link add eth7 type veth peer name eth8");
    host.sh("ip addr add 10.0.0.1/24 dev eth7; ip link set eth7 up");
    let before = host.sh("ip -o link show");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        assert_eq!(netlink.devices().await.unwrap(), []);
        for id in [9, 10] {
            let error = netlink.remove_device(DeviceId::port(id)).await.unwrap_err();
            assert!(matches!(error, DeviceError::NameTaken(_)), "{error:?}");
        }
        let error = netlink.create_device(&spec(9, &web), ready).await.unwrap_err();
        assert!(matches!(error, DeviceError::NameTaken(_)), "{error:?}");
        let underlay = netlink.underlay(&UnderlayChoice::Device("eth7".to_owned())).await.unwrap();
        let error = netlink.ensure_gro_device(&underlay, 4789).await.unwrap_err();
        assert!(matches!(error, GroError::NameTaken(_)), "{error:?}");
        netlink.remove_gro_device(4789).await.unwrap();
    });
    assert_eq!(host.sh("ip -o link show"), before);
    assert!(!web.succeeds("ip link show eth0"));
}

#[test]
fn the_barrier_lets_nothing_past_a_missing_program() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    let web = Netns::new("web");
    let port = host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        // A port that was created before the barrier is put behind the barrier too.
        netlink.create_device(&spec(7, &web), ready).await.unwrap();
        raise(&netlink, &spec(7, &web)).await.unwrap();
        assert_eq!(netlink.ensure_barrier().await.unwrap(), None);
        let underlay = netlink.underlay(&UnderlayChoice::Auto).await.unwrap();
        netlink.ensure_gro_device(&underlay, 4789).await.unwrap();
        device_name(DeviceId::port(7)).unwrap()
    });
    let inside = |device: &str| host.sh("ip -o link show master ovbarrier").contains(device);
    assert!(inside(&port) && inside("ovg4789"));
    let is_up = || host.sh("ip -o link show dev ovbarrier").contains(",UP");
    assert!(!is_up());

    // No program is attached, so without the barrier the host would answer for its own address on any device
    // that leads back to the asker.
    host.sh(&format!("ip route add 172.16.16.0/24 dev {port}"));
    web.sh("ip route add 10.0.0.1 dev eth0");
    let asks = "arping -q -c 1 -w 2 -I eth0 10.0.0.1";
    assert!(!web.succeeds(asks), "the host's stack heard it");
    host.sh(&format!("ip link set {port} nomaster"));
    assert!(web.succeeds(asks), "what the barrier is for");

    host.sh("ip link set ovbarrier up");
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink.ensure_barrier().await.unwrap();
        assert!(!is_up() && inside(&port), "put right");
        netlink.remove_gro_device(4789).await.unwrap();
        netlink.remove_barrier().await.unwrap();
        netlink.remove_barrier().await.unwrap();
    });
    assert!(!host.succeeds("ip link show ovbarrier"));

    host.sh("ip link add ovbarrier type bridge");
    host.block_on(|| async {
        let error = Netlink::open().await.unwrap().ensure_barrier().await.unwrap_err();
        assert!(matches!(error, GroError::NameTaken(_)), "{error:?}");
    });
    assert!(host.succeeds("ip link show ovbarrier"), "another's is left alone");
}

async fn hop(netlink: &Netlink, vtep: [u8; 4], underlay: &Underlay) -> Option<NextHop> {
    netlink.way(vtep.into(), underlay, 4789).await.unwrap().and_then(|way| way.hop)
}

async fn resolved(netlink: &Netlink, underlay: &Underlay, vtep: [u8; 4]) -> [u8; 6] {
    let mut changes = netlink.changes(Interest::default()).unwrap();
    let wait = async {
        loop {
            let way = netlink.way(vtep.into(), underlay, 4789).await.unwrap().unwrap();
            assert_eq!(way.device, underlay.ifindex, "resolved or not");
            if let Some(hop) = way.hop {
                return hop.mac;
            }
            changes.recv().await.unwrap();
        }
    };
    tokio::time::timeout(BOUND, wait).await.expect("the neighbour is resolved")
}

fn mac(text: &str) -> [u8; 6] {
    let bytes: Vec<u8> =
        text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

const MAC_OF_ETH7: &str = "ip -o link show eth7 | sed \"s/.*ether \\([^ ]*\\).*/\\1/\"";

#[test]
fn a_change_of_each_kind_is_told() {
    if skip() {
        return;
    }
    let (host, _peer) = pair_of_hosts();
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let causes: [(Change, &dyn Fn()); 3] = [
            (Change::Any, &|| drop(host.sh("ip link add ovk1 type veth peer name ovk2"))),
            (Change::Way, &|| {
                drop(host.sh("ip neigh add 10.0.0.7 lladdr 02:00:00:00:00:07 dev eth7"));
            }),
            (Change::Way, &|| drop(host.sh("ip route add 192.0.2.0/24 via 10.0.0.2"))),
        ];
        let mut changes = netlink.changes(Interest::default()).unwrap();
        for (change, cause) in causes {
            cause();
            tell(&mut changes, change).await;
        }
        let new = Netns::new("new");
        tell(&mut changes, Change::Namespace(new.path())).await;
        // When the change is reported, the namespace can already be entered.
        netlink.check_netns(&new.path(), true, None).await.unwrap();
    });
}

async fn tell_until(
    changes: &mut tokio::sync::mpsc::Receiver<Change>,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let wait = async {
        while !holds().await {
            changes.recv().await.unwrap();
        }
    };
    tokio::time::timeout(BOUND, wait).await.expect("a change brings it");
}

async fn tell(changes: &mut tokio::sync::mpsc::Receiver<Change>, wanted: Change) {
    let wait = async { while changes.recv().await.unwrap() != wanted {} };
    tokio::time::timeout(BOUND, wait).await.unwrap_or_else(|_| panic!("{wanted:?} is told"));
}

#[test]
fn a_namespace_of_another_kind_fails_no_look_at_the_others() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("uts");
    std::fs::write(&other, "").unwrap();
    let (source, place) = (Path::new("/proc/self/ns/uts"), other.as_path());
    let none = None::<&Path>;
    mount(Some(source), place, none, MsFlags::MS_BIND, none).unwrap();
    let observed = host.block_on(|| async {
        let paths = [web.path(), other.clone()].into();
        Netlink::open().await.unwrap().observe(&paths).await
    });
    umount2(place, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(observed.unwrap().namespaces.into_keys().collect::<Vec<_>>(), [web.path()]);
}
