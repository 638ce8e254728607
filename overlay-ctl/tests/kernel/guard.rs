//! `guard_underlay` on a device: taken over, changed, left alone, and removed.

use std::time::Instant;

use overlay_common::{Direction, DropReason};
use overlay_ctl::dataplane::{
    datapath::{Datapath, DatapathError, GuardMode},
    netlink::{Netlink, offloads},
};

use crate::{
    datapath::{BOUND, Host},
    lab::{sh, skip},
};

/// The strangers' VXLAN packets that the guard dropped.
fn dropped(datapath: &Datapath) -> u64 {
    let counters = datapath.counters().unwrap();
    let of_guard = counters.into_iter().filter(|(reason, direction, _)| {
        *direction == Direction::GuardUnderlay && *reason == Some(DropReason::UnknownVtep)
    });
    of_guard.map(|(_, _, counter)| counter.packets).sum()
}

/// Sends packets and waits until the guard has counted more.
fn drops_more(host: &Host, datapath: &Datapath) {
    let (before, start) = (dropped(datapath), Instant::now());
    host.make_traffic();
    while dropped(datapath) == before {
        assert!(start.elapsed() < BOUND, "the guard drops nothing");
        std::thread::yield_now();
    }
}

/// The mode of the program on the device: `xdp` for native, `xdpgeneric`, or nothing if there is none.
fn xdp(host: &Host) -> String {
    host.netns.sh("ip link show eth7 | grep -o \" xdp[a-z]* \" | tr -d \"\\n \"")
}

#[test]
fn a_guard_outlives_its_process_and_is_replaced_in_place() {
    if skip() {
        return;
    }
    for (mode, shown) in [(GuardMode::Native, "xdp"), (GuardMode::Generic, "xdpgeneric")] {
        let host = Host::new();
        let entry = format!("guard-{}-{}", mode.name(), host.ifindex("eth7"));
        let (link, id) = host.run(|| {
            let mut datapath = host.open();
            assert_eq!(datapath.guard_id(mode), None, "nobody asked for it");
            datapath.attach_guard("eth7", mode).unwrap();
            drops_more(&host, &datapath);
            (host.link_id(&entry), datapath.guard_id(mode))
        });
        assert_eq!(xdp(&host), shown);
        host.run(|| {
            let mut datapath = host.open();
            drops_more(&host, &datapath);
            datapath.attach_guard("eth7", mode).unwrap();
            drops_more(&host, &datapath);
            assert_eq!(host.link_id(&entry), link, "the same link");
            assert_ne!(datapath.guard_id(mode), id, "with this process' program");
            datapath.attach_guard("eth7", mode).unwrap();
            Datapath::remove_all(&host.bpffs).unwrap();
        });
        assert_eq!(xdp(&host), "");
    }
}

#[test]
fn a_guard_changes_its_mode_and_goes() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let mut datapath = host.open();
        for (mode, shown) in [
            (GuardMode::Native, "xdp"),
            (GuardMode::Generic, "xdpgeneric"),
            (GuardMode::Native, "xdp"),
        ] {
            datapath.attach_guard("eth7", mode).unwrap();
            assert_eq!(xdp(&host), shown);
            let guards = host.entries().iter().filter(|entry| entry.starts_with("guard")).count();
            assert_eq!(guards, 1, "{:?}", host.entries());
            drops_more(&host, &datapath);
        }
        datapath.detach_guard().unwrap();
        datapath.detach_guard().unwrap();
        assert_eq!(xdp(&host), "");
        assert!(!host.entries().iter().any(|entry| entry.starts_with("guard")));
    });
}

/// The foreign program is that of another data path, which is easy to get. The kernel cannot tell the
/// difference.
#[test]
fn a_program_of_others_is_never_replaced() {
    if skip() {
        return;
    }
    let (host, other) = (Host::new(), Host::new());
    host.run(|| {
        let config = overlay_ctl::dataplane::datapath::DatapathConfig {
            bpffs: other.bpffs.clone(),
            ..host.config_for("eth7")
        };
        let mut theirs = Datapath::open(config).unwrap();
        let mut ours = host.open();
        for (their_mode, our_mode) in [
            (GuardMode::Generic, GuardMode::Generic),
            (GuardMode::Generic, GuardMode::Native),
            (GuardMode::Native, GuardMode::Native),
            (GuardMode::Native, GuardMode::Generic),
        ] {
            theirs.attach_guard("eth7", their_mode).unwrap();
            let refused = ours.attach_guard("eth7", our_mode).unwrap_err();
            assert!(matches!(refused, DatapathError::Guard { .. }), "{refused:?}");
            assert!(refused.to_string().contains("another XDP program"), "{refused}");
            drops_more(&host, &theirs);
            assert!(!host.entries().iter().any(|entry| entry.starts_with("guard")));
        }
    });
}

#[test]
fn one_that_was_taken_off_behind_our_back_is_attached_again() {
    if skip() {
        return;
    }
    let host = Host::new();
    let ifindex = host.ifindex("eth7");
    let entry = format!("guard-native-{ifindex}");
    host.run(|| {
        let mut datapath = host.open();
        datapath.attach_guard("eth7", GuardMode::Native).unwrap();
        let pin = host.bpffs.join("links").join(&entry);
        sh(&format!("bpftool link detach pinned {}", pin.display()));
        assert_eq!(xdp(&host), "");
        datapath.attach_guard("eth7", GuardMode::Native).unwrap();
        drops_more(&host, &datapath);
    });
}

#[test]
fn a_device_is_described() {
    if skip() {
        return;
    }
    let host = Host::new();
    let ifindex = host.ifindex("eth7");
    host.netns.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let device = netlink.xdp_device(ifindex).await.unwrap().unwrap();
        assert_eq!(device.name, "eth7");
        assert!(!device.has_hardware, "a veth");
        assert!(device.programs.is_empty());
        let before = offloads("eth7").await.unwrap();
        assert!(before.contains("tx-tcp-segmentation"), "{before:?}");
        assert!(!before.contains("rx-gro"), "{before:?}");
        offloads("nosuch").await.unwrap_err();

        let mut datapath = host.open();
        datapath.attach_guard("eth7", GuardMode::Native).unwrap();
        let device = netlink.xdp_device(ifindex).await.unwrap().unwrap();
        assert_eq!(device.programs, datapath.guard_id(GuardMode::Native).into_iter().collect());
        // A native program on a veth costs its peer the offloads.
        let far = host.peer.sh("ethtool -k eth7");
        assert!(far.contains("tcp-segmentation-offload: off"), "{far}");
        datapath.detach_guard().unwrap();
        let far = host.peer.sh("ethtool -k eth7");
        assert!(far.contains("tcp-segmentation-offload: on"), "{far}");
        assert_eq!(netlink.xdp_device(u32::MAX >> 1).await.unwrap(), None);
    });
}
