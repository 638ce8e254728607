//! What is written into the maps is read, walked and deleted.

use std::collections::BTreeMap;

use aya::maps::{Array, Map, MapData, PerCpuArray};
use overlay_common::{
    Arrivals, Counter, Direction, ENOUGH, FdbEntry, FdbKey, HopEntry, IP16_NONE, NODES_MAX,
    PORTS_MAX, PathMtu, PortEntry, TRAFFIC_MAX, Traffic, VXLAN_OVERHEAD, map,
};
use overlay_ctl::dataplane::{
    datapath::{Datapath, DatapathError, maps_folder},
    kernel::{TableChange, Tables},
};

use super::{Host, some_of_everything};
use crate::lab::skip;

#[test]
fn what_is_written_is_read_and_deleted() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let mut datapath = host.open();
        assert_eq!(datapath.reader().tables().unwrap(), Tables::default());
        let (changes, tables) = some_of_everything();
        datapath.write(&changes).unwrap();
        datapath.write(&changes).unwrap();
        assert_eq!(datapath.reader().tables().unwrap(), tables);
        let usage = datapath.reader().usage().unwrap();
        assert!(usage.iter().all(|map| map.entries == 1), "{usage:?}");
        assert_eq!(usage.iter().find(|map| map.name == "NODES").unwrap().capacity, NODES_MAX);

        for change in changes.iter().chain(&changes) {
            let delete = match change.clone() {
                TableChange::PutFdb(key, _) => TableChange::DeleteFdb(key),
                TableChange::PutNeigh(key, _) => TableChange::DeleteNeigh(key),
                TableChange::PutPort(key, _) => TableChange::DeletePort(key),
                TableChange::PutHop(key, _) => TableChange::DeleteHop(key),
                TableChange::PutNode(key, _) => TableChange::DeleteNode(key),
                TableChange::PutFlood(key, _) => TableChange::DeleteFlood(key),
                TableChange::PutBridge(key, _) => TableChange::DeleteBridge(key),
                TableChange::PutGatewayPort(key, _) => TableChange::DeleteGatewayPort(key),
                TableChange::PutApi(key, _) => TableChange::DeleteApi(key),
                other => unreachable!("only puts: {other:?}"),
            };
            datapath.write(&[delete]).unwrap();
        }
        assert_eq!(datapath.reader().tables().unwrap(), Tables::default());
    });
}

#[test]
fn many_entries_are_written_walked_and_deleted() {
    if skip() {
        return;
    }
    const MANY: u32 = 10_000;
    let host = Host::new();
    host.run(|| {
        let mut datapath = host.open();
        let reader = datapath.reader();
        let key = |n: u32| FdbKey { vni: n, mac: [2; 6], pad: [0; 2] };
        let entry = |n: u32| FdbEntry::behind(n.into(), IP16_NONE, 0, IP16_NONE, 1);
        let puts: Vec<_> = (0..MANY).map(|n| TableChange::PutFdb(key(n), entry(n))).collect();
        datapath.write(&puts).unwrap();
        let held = reader.tables().unwrap().fdb;
        assert_eq!(held, (0..MANY).map(|n| (key(n), entry(n))).collect());

        let (mut walked, mut place, mut steps) = (Vec::new(), None, 0);
        loop {
            let some;
            (some, place) = reader.fdb_behind(place).unwrap();
            walked.extend(some);
            steps += 1;
            if place.is_none() {
                break;
            }
        }
        assert!(steps > 1, "in parts");
        assert_eq!(walked.len(), held.len(), "each once");
        assert_eq!(walked.into_iter().collect::<BTreeMap<_, _>>(), held);
        let found = reader.fdb([key(MANY), key(7)]).unwrap();
        assert_eq!(found, [None, Some(entry(7))]);

        // A row that does not exist may be deleted, in the middle of the others and at the end.
        let deletes: Vec<_> = (0..MANY + 3).map(|n| TableChange::DeleteFdb(key(n))).collect();
        let odd: Vec<_> = deletes.iter().skip(1).step_by(2).cloned().collect();
        datapath.write(&odd).unwrap();
        assert_eq!(reader.tables().unwrap().fdb.len(), MANY as usize / 2);
        datapath.write(&deletes).unwrap();
        assert_eq!(reader.tables().unwrap(), Tables::default());
    });
}

#[test]
fn what_a_slot_counted_is_the_nodes_when_it_is_freed() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let mut datapath = host.open();
        let pin = maps_folder(&host.bpffs).join(map::TRAFFIC::NAME);
        let map = Map::PerCpuArray(MapData::from_pin(pin).unwrap());
        let mut traffic: PerCpuArray<_, Traffic> = map.try_into().unwrap();
        let count = |n| Counter { packets: n, bytes: 100 * n };
        let of = |n| Traffic {
            sent: count(n),
            received: count(10 * n),
            from_neighbours: count(1),
            dropped: count(2),
        };
        let mut all = 0;
        for slot in [3, 4, 2048, TRAFFIC_MAX - 1] {
            let cpus = traffic.get(&slot, 0).unwrap().len() as u64;
            let counted: Vec<_> = (1..=cpus).map(of).collect();
            all += (1..=cpus).sum::<u64>();
            traffic.set(slot, counted.try_into().unwrap(), 0).unwrap();
        }
        let counted = datapath.counters().unwrap();
        let sent = counted.iter().find(|(reason, direction, _)| {
            reason.is_none() && *direction == Direction::FromEndpoint
        });
        assert_eq!(sent.unwrap().2, count(all), "slots count");
        datapath.free_slots(&[3, 5].into()).unwrap();
        assert_eq!(datapath.counters().unwrap(), counted, "nothing is lost, nothing counts twice");
        let left = |slot| -> u64 {
            traffic.get(&slot, 0).unwrap().iter().map(|cpu| cpu.sent.packets).sum()
        };
        assert_eq!((left(3), left(4) > 0), (0, true));
        // So many slots that the map is read as a whole.
        datapath.free_slots(&(3..TRAFFIC_MAX).filter(|slot| *slot != 2048).collect()).unwrap();
        assert_eq!(datapath.counters().unwrap(), counted);
        assert_eq!([3, 4, TRAFFIC_MAX - 1].map(left), [0; 3]);
        assert!(left(2048) > 0, "it was not asked for");
    });
}

/// What routers reported about the path to one VTEP must not limit the path to the next VTEP at the same
/// index, even if the index was free for a while.
#[test]
fn what_was_said_of_a_way_goes_with_its_vtep() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let mut datapath = host.open();
        let pin = maps_folder(&host.bpffs).join(map::PATHS::NAME);
        let mut paths: Array<_, PathMtu> =
            Map::Array(MapData::from_pin(pin).unwrap()).try_into().unwrap();
        let arrivals = Arrivals { tick: 7, now: ENOUGH, before: 0 };
        let said = PathMtu { mtu: 1400, arrivals, until_ns: u64::MAX };
        let way = |last: u8, ifindex, mtu| {
            let mut header = [0; VXLAN_OVERHEAD as usize];
            header[30..34].copy_from_slice(&[10, 0, 0, last]);
            HopEntry { header, mtu, csum: 0, ifindex, via: ifindex }
        };
        let mut after = |datapath: &mut Datapath, change| {
            paths.set(1, said, 0).unwrap();
            paths.set(2, said, 0).unwrap();
            datapath.write(&[change]).unwrap();
            assert_eq!(paths.get(&2, 0).unwrap(), said, "another way's");
            paths.get(&1, 0).unwrap()
        };
        let none = PathMtu::default();
        let put = |hop| TableChange::PutHop(1, hop);
        assert_eq!(after(&mut datapath, put(way(2, 7, 1500))), none, "somebody had it before");
        assert_eq!(after(&mut datapath, put(way(2, 7, 1450))), said, "the same VTEP");
        assert_eq!(after(&mut datapath, put(way(2, 0, 1450))), said, "its next hop is lost");
        assert_eq!(after(&mut datapath, put(way(3, 7, 1500))), none, "another VTEP");
        assert_eq!(after(&mut datapath, TableChange::DeleteHop(1)), none, "nobody");
        datapath.write(&[put(way(3, 7, 1500))]).unwrap();
        drop(datapath);
        let mut datapath = host.open();
        assert_eq!(after(&mut datapath, put(way(3, 7, 1500))), said, "the same after a restart");
        assert_eq!(after(&mut datapath, put(way(4, 7, 1500))), none, "another after a restart");
    });
}

#[test]
fn a_full_map_says_so() {
    if skip() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let mut datapath = host.open();
        let port = PortEntry {
            ip: IP16_NONE,
            vni: 1,
            flags: 0,
            mac: [0; 6],
            pad: [0; 2],
            slot: 0,
            pad2: 0,
        };
        let puts: Vec<_> =
            (0..=PORTS_MAX).map(|ifindex| TableChange::PutPort(ifindex, port)).collect();
        let error = datapath.write(&puts).unwrap_err();
        // Everything before the row that does not fit is written, and existing rows can still be written.
        assert_eq!(datapath.reader().small().unwrap().ports.len(), PORTS_MAX as usize);
        datapath.write(&puts[..1]).unwrap();
        assert!(
            matches!(error, DatapathError::TableFull { name: "PORTS", capacity: PORTS_MAX }),
            "{error:?}"
        );
    });
}
