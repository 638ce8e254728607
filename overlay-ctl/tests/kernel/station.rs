//! The gateway bridge has a permanent entry for each leg's MAC.

use std::{convert::Infallible, net::Ipv4Addr};

use ipnet::Ipv4Net;
use overlay_ctl::{
    dataplane::{
        kernel::{DeviceId, DeviceSpec, PairSizes, Station, Stations, SuperPackets},
        netlink::{GATEWAY_BRIDGE, Netlink},
    },
    model::LegId,
};

use crate::lab::{Netns, skip};

/// The bridge's entry for the leg's MAC.
fn station(host: &Netns, leg: &str, mac: &str) -> Option<String> {
    let table = host.sh(&format!("bridge fdb show dev {leg}"));
    table.lines().find(|line| line.starts_with(mac)).map(|line| line.trim().to_owned())
}

#[test]
fn a_leg_is_never_forgotten_by_its_bridge() {
    if skip() {
        return;
    }
    let (host, web) = (Netns::new("host"), Netns::new("web"));
    let subnet = "172.18.0.0/16".parse().unwrap();
    let mac = "02:42:ac:12:00:03";
    let (address, nothing) = (Ipv4Addr::new(172, 18, 0, 3), SuperPackets::default());
    let spec = DeviceSpec {
        id: DeviceId::leg(LegId::of_addresses(address.into())),
        netns: web.name.clone().into(),
        addresses: vec![Ipv4Net::new_assert(address, 16).into()],
        mac: [2, 0x42, 172, 18, 0, 3],
        gateway: Some(Ipv4Addr::new(172, 18, 0, 1)),
        sizes: PairSizes { mtu: 1500, outside: nothing, inside: nothing },
    };
    host.block_on(|| async {
        let netlink = Netlink::open().await.unwrap();
        let bridge = netlink.ensure_gateway_bridge(subnet, 1500, &Stations::new()).await.unwrap();
        let attach = |_: &str, _: u32| -> Result<(), Infallible> { Ok(()) };
        let leg = netlink.create_device(&spec, attach).await.unwrap();
        assert_eq!(leg.bridge, bridge.ifindex);
        let known = Some(format!("{mac} master {GATEWAY_BRIDGE} static"));
        assert_eq!(station(&host, &leg.ifname, mac), known);

        // Somebody takes the leg out of the bridge, and the node puts it back.
        host.sh(&format!("ip link set {} nomaster", leg.ifname));
        assert_eq!(station(&host, &leg.ifname, mac), None);
        assert_eq!(netlink.device(spec.id).await.unwrap().unwrap().bridge, 0);
        // A leg whose MAC is not given is not put back, because the bridge would send its frames to all legs.
        netlink.ensure_gateway_bridge(subnet, 1500, &Stations::new()).await.unwrap();
        assert_eq!(netlink.device(spec.id).await.unwrap().unwrap().bridge, 0);
        let stations = [(spec.id, Station { mac: spec.mac, address })].into();
        netlink.ensure_gateway_bridge(subnet, 1500, &stations).await.unwrap();
        assert_eq!(station(&host, &leg.ifname, mac), known);

        // The leg was put into the bridge without an entry, which it gets in a later pass.
        host.sh(&format!("ip link set {} nomaster", leg.ifname));
        host.sh(&format!("ip link set {} master {GATEWAY_BRIDGE}", leg.ifname));
        netlink.ensure_gateway_bridge(subnet, 1500, &Stations::new()).await.unwrap();
        assert_eq!(station(&host, &leg.ifname, mac), None);
        netlink.ensure_gateway_bridge(subnet, 1500, &stations).await.unwrap();
        assert_eq!(station(&host, &leg.ifname, mac), known);
        netlink.remove_device(leg.id).await.unwrap();
        netlink.remove_gateway_bridge().await.unwrap();
    });
}
