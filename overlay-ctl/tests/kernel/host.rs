//! The devices as the reconciler uses them. Each call gets all that it needs, and works whatever calls came
//! before.

use ipnet::Ipv4Net;
use overlay_ctl::{dataplane::kernel::Stations, model::LegId};
use std::{collections::BTreeSet, net::Ipv4Addr};

use overlay_ctl::dataplane::{
    host::{HostDevices, SharedDatapath, SharedNamespaces},
    kernel::{
        DeviceId, DeviceKind, DeviceSpec, Devices as _, LargePackets, PairSizes, SuperPackets,
    },
    netlink::{HeldNamespaces, Interest, Netlink},
};

use crate::{
    datapath::Host,
    lab::{Netns, skip},
};

/// Number of attempts to attach a program to a device that another program has just left.
const PATIENCE: usize = 10_000;
const LEG: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 3);

fn specs(netns: &Netns) -> [DeviceSpec; 2] {
    let large = LargePackets::default();
    let port = DeviceSpec {
        id: DeviceId::port(9),
        netns: netns.path(),
        mac: [0x02, 0x42, 172, 16, 16, 129],
        addresses: vec!["172.16.16.129/24".parse().unwrap()],
        gateway: None,
        sizes: large.sizes(DeviceKind::Port, 1450),
    };
    let leg = DeviceSpec {
        id: DeviceId::leg(LegId::of_addresses(LEG.into())),
        netns: netns.path(),
        mac: [0x02, 0x42, 172, 18, 0, 3],
        addresses: vec![Ipv4Net::new_assert(LEG, 16).into()],
        gateway: Some(Ipv4Addr::new(172, 18, 0, 1)),
        sizes: large.sizes(DeviceKind::Leg, 1500),
    };
    [port, leg]
}

/// The devices of a process that has just started and has not been asked anything yet.
async fn door(datapath: &SharedDatapath, host: &Host) -> HostDevices {
    let held = SharedNamespaces::new(HeldNamespaces::new(host.bpffs.join("none")));
    HostDevices::new(datapath.clone(), Netlink::open().await.unwrap(), held, Interest::default())
}

#[test]
fn no_call_needs_one_before_it() {
    if skip() {
        return;
    }
    let (host, web) = (Host::new(), Netns::new("web"));
    let [port, leg] = specs(&web);
    let paths = BTreeSet::from([web.path(), "/run/netns/ovk-none".into()]);
    host.netns.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        netlink
            .ensure_gateway_bridge("172.18.0.0/16".parse().unwrap(), 1500, &Stations::new())
            .await
            .unwrap();
        let datapath = SharedDatapath::new(host.open());
        for spec in [&port, &leg] {
            let seen = door(&datapath, &host).await.create(spec).await.unwrap();
            assert!(!seen.is_active());
            door(&datapath, &host).await.raise(&seen, spec).await.unwrap();
            let now = netlink.device(spec.id).await.unwrap().unwrap();
            assert!(now.is_active() && now.peer.as_ref().unwrap().running, "{now:?}");

            let nothing = SuperPackets::default();
            let sizes = PairSizes { mtu: 1400, outside: nothing, inside: nothing };
            let smaller = DeviceSpec { sizes, ..spec.clone() };
            door(&datapath, &host).await.update(&now, &smaller).await.unwrap();
            let now = netlink.device(spec.id).await.unwrap().unwrap();
            assert_eq!((now.mtu, now.peer.as_ref().unwrap().mtu), (1400, 1400));

            let program = spec.id.kind.row().program;
            assert_eq!(datapath.lock().attached(program), [now.ifindex].into());
            datapath.lock().detach(program, now.ifindex).unwrap();
            // The kernel detaches a program a moment after the program's link is gone.
            let mut attached = door(&datapath, &host).await.attach(&now).await;
            for _ in 0..PATIENCE {
                if attached.is_ok() {
                    break;
                }
                attached = door(&datapath, &host).await.attach(&now).await;
            }
            attached.unwrap();
            assert_eq!(datapath.lock().attached(program), [now.ifindex].into());
        }
        let observed = door(&datapath, &host).await.observe(&paths).await.unwrap();
        let ids: Vec<DeviceId> = observed.devices.iter().map(|device| device.id).collect();
        assert_eq!(ids, [port.id, leg.id]);
        let netns = netlink.netns_id(&web.path()).await.unwrap();
        assert_eq!(observed.namespaces, [(web.path(), netns)].into(), "the other is none");
        assert_eq!(observed.bridge.unwrap().mtu, 1400, "a bridge follows its ports");
        for seen in &observed.devices {
            door(&datapath, &host).await.remove(seen).await.unwrap();
            assert_eq!(datapath.lock().attached(seen.id.kind.row().program), BTreeSet::new());
        }
        assert_eq!(netlink.devices().await.unwrap(), []);
    });
}
