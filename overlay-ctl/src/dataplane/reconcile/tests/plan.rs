//! The plan for devices: a table of cases, and what holds for every plan.

use crate::dataplane::{
    kernel::{
        DeviceId, DeviceKind, DeviceSpec, LargePackets, LocalGateway, NetnsId, Observed,
        ObservedBridge, ObservedDevice, ObservedPeer, SuperPackets, WantedDevices,
    },
    reconcile::plan::{Plan, plan},
};
use crate::model::LegId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const MTU: u32 = 1450;

fn path(netns: i32) -> std::path::PathBuf {
    format!("/run/netns/{netns}").into()
}

/// The port of an endpoint, or the leg with that last octet, in a namespace.
fn spec(id: DeviceId, netns: i32) -> DeviceSpec {
    let number = u8::try_from(id.number & 0xff).unwrap();
    DeviceSpec {
        id,
        netns: path(netns),
        mac: [2, 0, 0, 0, 0, number],
        addresses: vec![format!("172.16.16.{number}/24").parse().unwrap()],
        gateway: None,
        sizes: LargePackets::default().sizes(id.kind, MTU),
    }
}

fn port(number: u64) -> DeviceId {
    DeviceId::port(number)
}

fn leg(number: u8) -> DeviceId {
    DeviceId::leg((0..number).fold(LegId::default(), |id, _| id.next()))
}

/// A device that is as its spec wants it.
pub(super) fn good(spec: &DeviceSpec, netns: i32) -> ObservedDevice {
    let peer = ObservedPeer {
        netns: NetnsId::new(netns).unwrap(),
        ifindex: 2,
        ifname: spec.id.kind.row().interface.required().to_owned(),
        up: true,
        running: true,
        mac: spec.mac.to_vec(),
        mtu: spec.sizes.mtu,
        super_packets: SuperPackets::DEFAULT,
        addresses: spec.addresses.clone(),
    };
    ObservedDevice {
        id: spec.id,
        ifname: spec.id.to_string(),
        ifindex: 7,
        up: true,
        running: true,
        complete: true,
        queued: false,
        mtu: spec.sizes.mtu,
        super_packets: SuperPackets::DEFAULT,
        bridge: 0,
        peer: Some(peer),
    }
}

fn wanted(specs: impl IntoIterator<Item = DeviceSpec>) -> WantedDevices {
    let devices = specs.into_iter().map(|spec| (spec.id, spec)).collect();
    let gateway = LocalGateway { subnet: "172.18.0.0/16".parse().unwrap(), mtu: 1500 };
    WantedDevices { devices, gateway }
}

/// Namespaces 0 to 3 exist.
fn observed(devices: impl IntoIterator<Item = ObservedDevice>) -> Observed {
    Observed {
        devices: devices.into_iter().collect(),
        namespaces: (0..4).map(|n| (path(n), NetnsId::new(n).unwrap())).collect(),
        bridge: None,
        trouble: Vec::new(),
    }
}

/// The plan in short: kept, updated, created, removed, recreated, raised.
type Short = [Vec<String>; 6];

/// A case: its name, what is wanted, what is seen, and the plan in short.
type Case = (&'static str, Vec<DeviceSpec>, Vec<ObservedDevice>, [&'static [&'static str]; 6]);

fn short(plan: &Plan) -> Short {
    let ids = |ids: &BTreeSet<DeviceId>| ids.iter().map(ToString::to_string).collect();
    let removed = |(device, why): &(ObservedDevice, &str)| format!("{}: {why}", device.id);
    [
        plan.keep.keys().map(ToString::to_string).collect(),
        ids(&plan.update),
        ids(&plan.create),
        plan.remove.iter().map(removed).collect(),
        ids(&plan.recreate),
        ids(&plan.raise),
    ]
}

#[test]
fn each_case_has_its_steps() {
    let (web, db) = (spec(port(1), 1), spec(port(2), 2));
    let (first, second) = (spec(leg(3), 1), spec(leg(4), 1));
    let kept = |device: ObservedDevice| (web.clone(), device);
    let with = |change: &dyn Fn(&mut ObservedDevice)| {
        let mut device = good(&web, 1);
        change(&mut device);
        kept(device)
    };
    let cases: [Case; 5] = [
        ("nothing", vec![], vec![], [&[], &[], &[], &[], &[], &[]]),
        (
            "a new endpoint",
            vec![web.clone(), db.clone()],
            vec![good(&web, 1)],
            [&["port 1"], &[], &["port 2"], &[], &[], &["port 2"]],
        ),
        (
            "an endpoint that was removed",
            vec![web.clone()],
            vec![good(&web, 1), good(&db, 2)],
            [&["port 1"], &[], &[], &["port 2: its endpoint is gone"], &[], &[]],
        ),
        (
            "another leg in the place of one",
            vec![second.clone()],
            vec![good(&first, 1)],
            [&[], &[], &[], &["leg 3: its endpoint is gone"], &["leg 4"], &["leg 4"]],
        ),
        (
            "another leg elsewhere",
            vec![spec(leg(4), 2)],
            vec![good(&first, 1)],
            [&[], &[], &["leg 4"], &["leg 3: its endpoint is gone"], &[], &["leg 4"]],
        ),
    ];
    for (case, specs, devices, expected) in cases {
        let expected: Short = expected.map(|ids| ids.iter().map(|id| (*id).to_owned()).collect());
        assert_eq!(short(&plan(&wanted(specs), observed(devices))), expected, "{case}");
    }

    let stays: [(&str, (DeviceSpec, ObservedDevice), [bool; 2]); 7] = [
        ("as wanted", with(&|_| {}), [false, false]),
        ("another MTU", with(&|device| device.mtu = 1300), [true, false]),
        ("taken down", with(&|device| device.up = false), [false, true]),
        ("never raised", with(&|device| device.complete = false), [false, true]),
        (
            "the endpoint changed its own side",
            with(&|device| {
                let peer = device.peer.as_mut().unwrap();
                (peer.mtu, peer.up, peer.running) = (1200, false, false);
                (peer.mac, peer.addresses) = (vec![6; 6], vec![]);
                peer.ifname = "wan".to_owned();
            }),
            [false, false],
        ),
        (
            "its namespace lost its name",
            (spec(port(1), 9), good(&spec(port(1), 9), 3)),
            [false, false],
        ),
        (
            "never raised, its namespace lost its name",
            {
                let mut device = good(&spec(port(1), 9), 3);
                device.complete = false;
                (spec(port(1), 9), device)
            },
            [false, true],
        ),
    ];
    for (case, (spec, device), [updated, raised]) in stays {
        let id = spec.id;
        let plan = plan(&wanted([spec]), observed([device]));
        assert_eq!(plan.keep.keys().collect::<Vec<_>>(), [&id], "{case}");
        assert_eq!(
            (plan.update.contains(&id), plan.raise.contains(&id)),
            (updated, raised),
            "{case}"
        );
        assert!(plan.remove.is_empty() && plan.create.is_empty(), "{case}");
    }

    let rebuilt: [(&str, (DeviceSpec, ObservedDevice)); 4] = [
        ("the endpoint's interface is gone", with(&|device| device.peer = None)),
        ("the namespace was made anew", (web.clone(), good(&web, 3))),
        (
            "the endpoint's interface has another MAC",
            with(&|device| {
                device.complete = false;
                device.peer.as_mut().unwrap().mac = vec![6; 6];
            }),
        ),
        ("the MTU differs", with(&|device| (device.complete, device.mtu) = (false, 1300))),
    ];
    for (reason, (spec, device)) in rebuilt {
        let plan = plan(&wanted([spec]), observed([device]));
        let [kept, _, created, removed, recreated, raised] = short(&plan);
        assert_eq!(removed, [format!("port 1: {reason}")]);
        assert_eq!((kept, created), (vec![], vec![]), "{reason}: only when the old one is gone");
        assert_eq!((recreated, raised), (vec!["port 1".to_owned()], vec!["port 1".to_owned()]));
    }
}

#[test]
fn the_bridge_shrinks_before_its_legs_and_grows_after_them() {
    let plan = |mtu: Option<u32>| {
        let bridge = mtu.map(|mtu| ObservedBridge { ifindex: 9, mtu });
        plan(&wanted([]), Observed { bridge, ..observed([]) }).bridge_first
    };
    assert_eq!(
        [plan(None), plan(Some(1400)), plan(Some(1500)), plan(Some(9000))],
        [false, false, false, true]
    );
}

/// Ids, each with one of so many namespaces, and what is wrong with the device.
fn devices(namespaces: i32) -> impl Strategy<Value = BTreeMap<DeviceId, (i32, u8)>> {
    let id = prop_oneof![(1..6u64).prop_map(port), (2..5u8).prop_map(leg)];
    proptest::collection::btree_map(id, (0..namespaces, 0..6u8), 0..8)
}

fn take(wanted: &BTreeMap<DeviceId, (i32, u8)>) -> WantedDevices {
    // A namespace has one leg.
    let mut legs = BTreeSet::new();
    let one_leg = |(id, (netns, _)): &(&DeviceId, &(i32, u8))| {
        id.kind == DeviceKind::Port || legs.insert(*netns)
    };
    self::wanted(wanted.iter().filter(one_leg).map(|(id, (netns, _))| spec(*id, *netns)))
}

fn see(devices: &BTreeMap<DeviceId, (i32, u8)>) -> Vec<ObservedDevice> {
    let device = |(id, (netns, wrong)): (&DeviceId, &(i32, u8))| {
        let mut device = good(&spec(*id, *netns), *netns);
        match wrong {
            1 => device.peer = None,
            2 => device.mtu = 1300,
            3 => device.up = false,
            4 => device.complete = false,
            5 => device.peer.as_mut().unwrap().netns = NetnsId::new(77).unwrap(),
            _ => {}
        }
        device
    };
    devices.iter().map(device).collect()
}

/// What exists after the plan was carried out without a failure. Panics where a step is not possible.
fn carry_out(
    plan: &Plan,
    wanted: &WantedDevices,
    before: Vec<ObservedDevice>,
) -> Vec<ObservedDevice> {
    let mut devices: BTreeMap<DeviceId, ObservedDevice> =
        before.into_iter().map(|device| (device.id, device)).collect();
    let netns =
        |spec: &DeviceSpec| spec.netns.file_name().unwrap().to_str().unwrap().parse().unwrap();
    for id in &plan.update {
        devices.get_mut(id).unwrap().mtu = wanted.devices[id].sizes.mtu;
    }
    let create = |devices: &mut BTreeMap<DeviceId, ObservedDevice>, ids: &BTreeSet<DeviceId>| {
        for id in ids {
            let mut device = good(&wanted.devices[id], netns(&wanted.devices[id]));
            (device.up, device.complete) = (false, false);
            let peer = device.peer.as_ref().unwrap();
            let is_in_the_way = |other: &ObservedDevice| {
                let other = other.peer.as_ref();
                other
                    .is_some_and(|other| (other.netns, &other.ifname) == (peer.netns, &peer.ifname))
            };
            let is_leg = id.kind == DeviceKind::Leg;
            assert!(!is_leg || !devices.values().any(is_in_the_way), "{id} has no room");
            assert!(devices.insert(*id, device).is_none(), "{id} exists");
        }
    };
    create(&mut devices, &plan.create);
    for (device, _) in &plan.remove {
        devices.remove(&device.id).unwrap();
    }
    create(&mut devices, &plan.recreate);
    for id in &plan.raise {
        let device = devices.get_mut(id).unwrap();
        (device.up, device.complete) = (true, true);
    }
    devices.into_values().collect()
}

proptest! {
    #[test]
    fn a_plan_leads_to_what_is_wanted(specs in devices(4), seen in devices(5)) {
        let (wanted, before) = (take(&specs), see(&seen));
        let first = plan(&wanted, observed(before.clone()));
        let removed: BTreeSet<DeviceId> = first.remove.iter().map(|(device, _)| device.id).collect();
        for id in wanted.devices.keys() {
            let times = [first.keep.contains_key(id), first.create.contains(id), first.recreate.contains(id)];
            prop_assert_eq!(times.iter().filter(|is| **is).count(), 1, "{}", id);
        }
        for device in &before {
            prop_assert!(first.keep.contains_key(&device.id) != removed.contains(&device.id));
        }
        prop_assert!(first.create.is_disjoint(&removed), "the old one goes first");
        let after = carry_out(&first, &wanted, before);
        let second = plan(&wanted, observed(after));
        // There is no bridge in these observations.
        let nothing = Plan { keep: second.keep.clone(), is_displaced: true, ..Plan::default() };
        prop_assert_eq!(&second, &nothing, "one pass is enough");
        prop_assert_eq!(second.keep.keys().collect::<Vec<_>>(), wanted.devices.keys().collect::<Vec<_>>());
    }
}
