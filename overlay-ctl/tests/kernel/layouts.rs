//! An upgrade to another layout of the maps: programs and maps of the old layout stay until the new ones are
//! filled.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::maps::{Map, MapData, PerCpuArray};
use overlay_common::{Counter, Direction, DropReason, map, metric_index};
use overlay_ctl::dataplane::{
    datapath::{Datapath, GuardMode, Hook, maps_folder},
    kernel::{Program, Tables},
};

use crate::{
    datapath::{BOUND, Host, program_ids, seen, seen_more, some_of_everything, uplink},
    lab::{sh, skip},
};

const HOOKS: [Hook; 2] = [Hook::Tcx, Hook::Clsact];

fn open(host: &Host, hook: Hook) -> Datapath {
    Datapath::open_on(host.config_for("eth7"), hook).unwrap()
}

/// Makes a data path that another version left: its programs are attached, and its maps are in that version's
/// folder.
fn leave_another_layout(host: &Host, hook: Hook, folder: &str) -> PathBuf {
    let mut datapath = open(host, hook);
    host.attach_endpoint(&mut datapath);
    datapath.write(&some_of_everything().0).unwrap();
    let old = host.bpffs.join(folder);
    fs::rename(maps_folder(&host.bpffs), &old).unwrap();
    old
}

/// The identities of the programs on underlay, port and leg, which change when a program is replaced.
fn running(host: &Host, hook: Hook) -> BTreeSet<String> {
    match hook {
        Hook::Tcx => program_ids(host),
        Hook::Clsact => ["eth7", "port0", "leg0"].map(|device| host.filters(device)).into(),
    }
}

/// The names directly below the node's folder.
fn folders(host: &Host) -> BTreeSet<String> {
    let entries = fs::read_dir(&host.bpffs).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The folders that remain when no swap is due.
fn settled(host: &Host) -> BTreeSet<String> {
    let maps = maps_folder(&host.bpffs);
    [maps.file_name().unwrap().to_str().unwrap(), "links"].map(str::to_owned).into()
}

/// Frames of unknown devices that were dropped at ports and at legs, as this map counts them.
fn dropped(metrics: &Path) -> [u64; 2] {
    let data = MapData::from_pin(metrics).unwrap();
    let metrics: PerCpuArray<_, Counter> = Map::PerCpuArray(data).try_into().unwrap();
    [Direction::FromEndpoint, Direction::FromGateway].map(|direction| {
        let index = metric_index(DropReason::UnknownPort as u32, direction);
        metrics.get(&index, 0).unwrap().iter().map(|cpu| cpu.packets).sum()
    })
}

#[test]
fn programs_of_another_layout_stay_until_the_new_maps_are_filled() {
    if skip() {
        return;
    }
    // The folders are those of a layout without a version, of an earlier one, and of a later one, which makes
    // this a downgrade.
    for (hook, folder) in
        HOOKS.into_iter().zip(["maps", "maps-4711"]).chain([(Hook::Tcx, "maps-1")])
    {
        let host = Host::new();
        host.run(|| {
            let old = leave_another_layout(&host, hook, folder);
            let running = || running(&host, hook);
            let (programs, entries) = (running(), host.entries());
            // A process may be started several times before a quorum answers.
            for _ in 0..2 {
                let mut datapath = open(&host, hook);
                assert!(datapath.is_swap_due());
                let newest = some_of_everything().1.fdb.values().map(|entry| entry.endpoint).max();
                assert_eq!(datapath.newest_of_other_layouts().unwrap(), newest);
                assert_eq!(datapath.reader().tables().unwrap(), Tables::default(), "new maps");
                assert!(host.is_attached(&datapath), "{datapath:?}");
                host.attach_endpoint(&mut datapath);
                let deaf = datapath.ensure_uplinks();
                assert!(deaf.is_empty(), "{deaf:?}");
                assert_eq!(running(), programs, "{hook:?}: they stay");
                let old = old.join(map::METRICS::NAME);
                let before = dropped(&old);
                host.make_traffic();
                let start = Instant::now();
                while dropped(&old).iter().zip(before).any(|(now, before)| *now == before) {
                    assert!(start.elapsed() < BOUND, "{hook:?}: the old programs count");
                    std::thread::yield_now();
                }
                assert_eq!(seen(&datapath), [0; 3], "{hook:?}: by the old maps alone");
            }
            let mut datapath = open(&host, hook);
            datapath.write(&some_of_everything().0).unwrap();
            assert!(datapath.swap_programs().unwrap());
            assert!(!datapath.is_swap_due() && !datapath.swap_programs().unwrap(), "once");
            assert_eq!(datapath.newest_of_other_layouts().unwrap(), None);
            assert!(host.is_attached(&datapath), "{datapath:?}");
            assert!(running().is_disjoint(&programs), "{hook:?}: {programs:?}, {:?}", running());
            assert_eq!(host.entries(), entries);
            host.make_traffic();
            seen_more(&datapath, [0; 3]);
            assert_eq!(folders(&host), settled(&host), "nothing is left");
            drop(datapath);
            let datapath = open(&host, hook);
            assert!(!datapath.is_swap_due());
            assert_eq!(datapath.reader().tables().unwrap(), some_of_everything().1);
        });
    }
}

/// An earlier version had `from_underlay` on a veth. While its maps count, `from_veth` must not come in front of it.
#[test]
fn an_uplink_gets_another_program_when_the_new_maps_are_filled() {
    if skip() {
        return;
    }
    for hook in HOOKS {
        let host = Host::new();
        host.run(|| {
            leave_another_layout(&host, hook, "maps");
            let (programs, entries) = (running(&host, hook), host.entries());
            let mut config = host.config_for("eth7");
            config.underlay.is_veth = true;
            let mut datapath = Datapath::open_on(config.clone(), hook).unwrap();
            assert!(datapath.is_swap_due());
            let deaf = datapath.set_uplinks(vec![config.underlay.clone()]);
            assert!(deaf.is_empty(), "{deaf:?}");
            assert_eq!(running(&host, hook), programs, "{hook:?}: the old one stays, alone");
            assert_eq!(host.entries(), entries);
            datapath.write(&some_of_everything().0).unwrap();
            assert!(datapath.swap_programs().unwrap());
            let index = config.underlay.ifindex;
            let has = |entry: String| host.entries().contains(&entry);
            assert!(has(format!("veth-{index}")) && !has(format!("underlay-{index}")), "{hook:?}");
            host.make_traffic();
            seen_more(&datapath, [0; 3]);
        });
    }
}

#[test]
fn no_packet_passes_by_while_layouts_change() {
    if skip() {
        return;
    }
    for hook in HOOKS {
        let host = Host::new();
        // Without IPv6, only the test's own frames come out of port and leg.
        host.peer.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
        let folder = tempfile::tempdir().unwrap();
        let stop = folder.path().join("stop");
        let maps = host.run(|| leave_another_layout(&host, hook, "maps"));
        // The test pins the old counters elsewhere, because the swap removes the maps' own pins.
        let old = host.bpffs.join("held");
        MapData::from_pin(maps.join(map::METRICS::NAME)).unwrap().pin(&old).unwrap();
        let before = dropped(&old);
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| host.send_until(&stop));
            host.run(|| {
                let wait = |counted: &dyn Fn() -> u64| {
                    let (start, before) = (Instant::now(), counted());
                    while counted() == before && start.elapsed() < BOUND {
                        std::thread::yield_now();
                    }
                };
                wait(&|| dropped(&old)[0]);
                let mut datapath = open(&host, hook);
                host.attach_endpoint(&mut datapath);
                wait(&|| dropped(&old)[0]);
                assert!(datapath.swap_programs().unwrap());
                wait(&|| seen(&datapath)[0]);
            });
            fs::write(&stop, "").unwrap();
            sender.join().unwrap()
        });
        let by_old = dropped(&old);
        let by_old = [by_old[0] - before[0], by_old[1] - before[1]];
        fs::remove_file(&old).unwrap();
        let by_new = dropped(&maps_folder(&host.bpffs).join(map::METRICS::NAME));
        assert!(by_old[0] > 0 && by_new[0] > 0, "{hook:?}: frames came before and after");
        assert_eq!([by_old[0] + by_new[0], by_old[1] + by_new[1]], [sent; 2], "{hook:?}");
    }
}

#[test]
fn what_comes_while_a_swap_is_due_gets_a_program_at_once() {
    if skip() {
        return;
    }
    for hook in HOOKS {
        let host = Host::new();
        host.netns.join("eth8", &host.peer, "eth8");
        host.netns.join("port1", &host.peer, "port1");
        let [port, new, eth] = ["port0", "port1", "eth8"].map(|device| host.ifindex(device));
        host.run(|| {
            leave_another_layout(&host, hook, "maps");
            // Meanwhile a device was removed, and the underlay changed.
            host.netns.sh("ip link del leg0");
            let mut datapath = Datapath::open_on(host.config_for("eth8"), hook).unwrap();
            assert_eq!(datapath.attached(Program::FromGateway), BTreeSet::new(), "{hook:?}");
            datapath.attach(Program::FromEndpoint, "port1", new).unwrap();
            assert_eq!(datapath.attached(Program::FromEndpoint), [port, new].into());
            let eth7 = host.ifindex("eth7");
            let underlays = [format!("underlay-{eth7}"), format!("underlay-{eth}")];
            assert!(host.entries().is_superset(&underlays.clone().into()), "{hook:?}: both");
            datapath.set_uplinks(vec![uplink("eth8", eth)]);
            assert!(host.entries().is_superset(&underlays.clone().into()), "{hook:?}: still both");
            datapath.swap_programs().unwrap();
            let [old, now] = underlays;
            let entries = host.entries();
            assert!(entries.contains(&now) && !entries.contains(&old), "{hook:?}: {entries:?}");
            datapath.detach(Program::FromEndpoint, new).unwrap();
            assert_eq!(datapath.attached(Program::FromEndpoint), [port].into());
        });
    }
}

#[test]
fn the_guard_is_swapped_with_the_other_programs() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let mut datapath = open(&host, Hook::Tcx);
        datapath.attach_guard("eth7", GuardMode::Generic).unwrap();
        drop(datapath);
        leave_another_layout(&host, Hook::Tcx, "maps");
        let entry = format!("guard-generic-{}", host.ifindex("eth7"));
        let guard = || {
            let path = host.bpffs.join("links").join(&entry);
            let text = sh(&format!("bpftool link show pinned {}", path.display()));
            let mut words = text.split_whitespace().skip_while(|word| *word != "prog");
            words.nth(1).unwrap().parse::<u32>().unwrap()
        };
        let before = guard();
        let mut datapath = open(&host, Hook::Tcx);
        assert_eq!(guard(), before, "it stays");
        datapath.swap_programs().unwrap();
        assert_ne!(guard(), before);
        assert_eq!(datapath.guard_id(GuardMode::Generic), Some(guard()));
    });
}

#[test]
fn a_pin_of_another_shape_is_replaced_as_a_layout_is() {
    if skip() {
        return;
    }
    let host = Host::new();
    let fdb = maps_folder(&host.bpffs).join("FDB");
    host.run(|| {
        let mut datapath = open(&host, Hook::Tcx);
        host.attach_endpoint(&mut datapath);
        datapath.write(&some_of_everything().0).unwrap();
        drop(datapath);
        fs::remove_file(&fdb).unwrap();
        sh(&format!(
            "bpftool map create {} type hash key 12 value 40 entries 16 name FDB flags 1",
            fdb.display()
        ));
        let programs = program_ids(&host);
        let mut datapath = open(&host, Hook::Tcx);
        assert!(datapath.is_swap_due());
        assert_eq!(program_ids(&host), programs, "they have the old map still");
        assert!(datapath.reader().tables().unwrap().fdb.is_empty(), "a new map");
        datapath.swap_programs().unwrap();
        assert!(program_ids(&host).is_disjoint(&programs));
        assert_eq!(folders(&host), settled(&host));
    });
}

/// A version without layouts ran in between, and its programs are attached.
#[test]
fn own_maps_beside_those_of_another_layout_are_filled_first() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let old = leave_another_layout(&host, Hook::Tcx, "maps");
        let mut datapath = open(&host, Hook::Tcx);
        datapath.swap_programs().unwrap();
        drop(datapath);
        fs::create_dir(&old).unwrap();
        let pin = old.join("FDB");
        sh(&format!(
            "bpftool map create {} type hash key 12 value 56 entries 9 name FDB flags 1",
            pin.display()
        ));
        let programs = program_ids(&host);
        let mut datapath = open(&host, Hook::Tcx);
        assert!(datapath.is_swap_due());
        assert_eq!(program_ids(&host), programs, "they stay");
        datapath.swap_programs().unwrap();
        assert_eq!(folders(&host), settled(&host));
    });
}

#[test]
fn maps_of_another_layout_without_a_program_are_dropped_at_once() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        drop(open(&host, Hook::Tcx));
        fs::rename(maps_folder(&host.bpffs), host.bpffs.join("maps")).unwrap();
        for entry in host.entries() {
            fs::remove_file(host.bpffs.join("links").join(entry)).unwrap();
        }
        assert!(!open(&host, Hook::Tcx).is_swap_due(), "nothing is attached");
        assert_eq!(folders(&host), settled(&host));
        // The maps of all layouts are removed with the node.
        leave_another_layout(&host, Hook::Tcx, "maps");
        drop(open(&host, Hook::Tcx));
        Datapath::remove_all(&host.bpffs).unwrap();
        assert!(!host.bpffs.exists());
    });
}
