//! What a view makes the kernel hold, written out field by field.

use super::{
    cluster::{behind, on_node},
    plan::good,
    *,
};
use crate::{
    dataplane::{
        kernel::{
            DeviceKind, DeviceSpec, LargePackets, LinkLayer, NextHop, ObservedDevice, TableChange,
            Way,
        },
        reconcile::{
            desired::{Placement, Port, Standing, devices, entries, keys, small_tables},
            diff::{Rows, changes},
            flood::{self, PLACES},
            sites::Sites,
        },
    },
    model::{Encapsulation, NetworkOptions, Vtep},
};
use overlay_common::{
    ApiKey, BridgeKey, FLAG_ADVERTISING, FLAG_BRIDGING, FLAG_ICC_OFF, FLAG_MULTICAST, FLAG_QUEUED,
    FLAG_ROUTING, FLOOD_BRIDGING, FLOOD_MAX, FLOOD_PAGES, FdbEntry, FloodEntry, FloodKey,
    GatewayPortEntry, HopEntry, Ip16, PortEntry,
};
use std::collections::BTreeMap;

/// A network that carries broadcast, and one whose endpoints may not reach each other. On the first are web on this
/// node, db on node 2 and a printer behind a VTEP of its own; on the other is a router on this node, which has no leg.
fn two_networks() -> (Cluster, Sites) {
    let mut cluster = Cluster::new();
    cluster.gateway();
    cluster.apply(crate::control::state::Command::RegisterNode {
        instance: [2; 16],
        name: "h2".parse().unwrap(),
        vtep: [10, 0, 0, 2].into(),
        listen: ([10, 0, 0, 2], 7400).into(),
        returning: Some(2),
        gateway: None,
        metrics: Some(([192, 168, 7, 2], 9100).into()),
        // Behind 1:1 NAT.
        local_listen: Some(([192, 168, 7, 2], 7400).into()),
        speaks: None,
    });
    let lan = NetworkOptions { multicast: true, ..NetworkOptions::default() };
    cluster.network_with("lan", "172.16.17.0/24", lan);
    let apart =
        NetworkOptions { icc: false, internal: true, mtu: Some(1300), ..NetworkOptions::default() };
    cluster.network_with("apart", "172.16.18.0/25", apart);
    cluster.endpoint_with("web", "lan", on_node(1, "/run/netns/web"), &["8080:80"]);
    cluster.endpoint("router", "apart", 1);
    cluster.endpoint("db", "lan", 2);
    cluster.endpoint_with("printer", "lan", behind([10, 9, 0, 1], 7, [172, 16, 17, 30]), &[]);
    let mut sites = Sites::new(1);
    sites.update(&cluster.view());
    (cluster, sites)
}

fn named<'a>(view: &'a View, name: &str) -> &'a Endpoint {
    view.all_endpoints().find(|endpoint| endpoint.name.as_str() == name).unwrap()
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> Ip16 {
    ip16_from_v4([a, b, c, d])
}

fn vni(view: &View, name: &str) -> u32 {
    view.networks.values().find(|network| network.name.as_str() == name).unwrap().vni.get()
}

#[test]
fn the_devices_of_a_view() {
    let (cluster, sites) = two_networks();
    let view = cluster.view();
    let (web, router) = (named(&view, "web"), named(&view, "router"));
    let leg = web.leg.unwrap();
    let sizes = |kind, mtu| LargePackets::default().sizes(kind, mtu);
    let expected = [
        DeviceSpec {
            id: DeviceId::port(web.id),
            netns: "/run/netns/web".into(),
            mac: [2, 0x42, 172, 16, 17, 2],
            addresses: vec!["172.16.17.2/24".parse().unwrap()],
            gateway: None,
            sizes: sizes(DeviceKind::Port, 1450),
        },
        DeviceSpec {
            id: DeviceId::port(router.id),
            netns: "/run/netns/router".into(),
            mac: [2, 0x42, 172, 16, 18, 2],
            addresses: vec!["172.16.18.2/25".parse().unwrap()],
            gateway: None,
            sizes: sizes(DeviceKind::Port, 1300),
        },
        DeviceSpec {
            id: DeviceId::leg(leg.id),
            netns: "/run/netns/web".into(),
            mac: [2, 0x42, 172, 18, 0, 2],
            addresses: vec!["172.18.0.2/16".parse().unwrap()],
            gateway: Some([172, 18, 0, 1].into()),
            sizes: sizes(DeviceKind::Leg, 1500),
        },
    ];
    let wanted = devices(&view, &node(), sites.here());
    assert_eq!(wanted.devices.into_values().collect::<Vec<_>>(), expected);
    assert_eq!(wanted.gateway, node().gateway);
}

/// The indexes: web is port 31, the router port 32; node 2, node 3 and the printer's VTEP are hops 1 to 3.
fn placement(view: &View) -> Placement {
    let port = |name, ifindex, slot| (named(view, name).id, Port { ifindex, queued: false, slot });
    Placement {
        ports: [
            port("web", 31, 1),
            (named(view, "router").id, Port { ifindex: 32, queued: true, slot: 2 }),
        ]
        .into(),
        hops: [([10, 0, 0, 2].into(), 1), ([10, 0, 0, 3].into(), 2), ([10, 9, 0, 1].into(), 3)]
            .into(),
    }
}

#[test]
fn the_entries_of_endpoints() {
    let (cluster, _) = two_networks();
    let view = cluster.view();
    let (lan, apart) = (vni(&view, "lan"), vni(&view, "apart"));
    let id = |name| named(&view, name).id;
    let flags = FLAG_ICC_OFF | FLAG_ROUTING | FLAG_ADVERTISING | FLAG_QUEUED;
    let (web_ip, db_ip) = (v4(172, 16, 17, 2), v4(172, 16, 17, 3));
    let (router_ip, printer_ip) = (v4(172, 16, 18, 2), v4(172, 16, 17, 30));
    let (db_vtep, printer_vtep) = (v4(10, 0, 0, 2), v4(10, 9, 0, 1));
    let expected: [(&str, u32, Ip16, [u8; 6], FdbEntry); 4] = [
        (
            "web",
            lan,
            web_ip,
            [2, 0x42, 172, 16, 17, 2],
            FdbEntry::here(id("web"), web_ip, FLAG_MULTICAST, 31, 1),
        ),
        (
            "router",
            apart,
            router_ip,
            [2, 0x42, 172, 16, 18, 2],
            FdbEntry::here(id("router"), router_ip, flags, 32, 2),
        ),
        (
            "db",
            lan,
            db_ip,
            [2, 0x42, 172, 16, 17, 3],
            FdbEntry::behind(id("db"), db_ip, FLAG_MULTICAST, db_vtep, 1),
        ),
        (
            "printer",
            lan,
            printer_ip,
            [2, 0, 0, 0, 0, 7],
            FdbEntry::behind(id("printer"), printer_ip, FLAG_MULTICAST, printer_vtep, 3),
        ),
    ];
    for (name, vni, ip, mac, fdb) in expected {
        let endpoint = named(&view, name);
        let network = &view.networks[&endpoint.network];
        let right = (FdbKey { vni, mac, pad: [0; 2] }, NeighKey { ip, vni });
        assert_eq!(keys(network, endpoint), right, "{name}");
        let found = entries(&view, &node(), endpoint, &placement(&view));
        assert_eq!(found, Some((fdb, NeighEntry { mac, pad: [0; 2] })), "{name}");
    }
}

#[test]
fn the_small_tables_of_a_view() {
    let (cluster, sites) = two_networks();
    let view = cluster.view();
    let wanted = devices(&view, &node(), sites.here());
    let leg = DeviceId::leg(named(&view, "web").leg.unwrap().id);
    let leg = ObservedDevice { ifindex: 33, bridge: 4711, ..good(&wanted.devices[&leg], 1) };
    let next = NextHop { mac: [6; 6], source_mac: [4; 6] };
    let (encapsulation, link_layer) = (Encapsulation::VxlanIpv4, LinkLayer::Ethernet);
    let way = Way { mtu: 1400, encapsulation, device: 9, link_layer, hop: Some(next) };
    let ways: BTreeMap<Vtep, Way> = [([10, 0, 0, 2].into(), way)].into();
    let devices = [(leg.id, leg)].into();
    let standing = Standing { wanted: &wanted, devices: &devices, ways: &ways };
    let tables = small_tables(&view, &node(), &sites, &standing, &placement(&view));

    let node_entry = |vtep, node, hop| (NodeKey { vtep }, NodeEntry { node, hop, pad: 0 });
    let hop = |vtep: [u8; 4], way| hop_entry(node().vtep, vtep.into(), way).unwrap();
    let api = |ip, port, node| (ApiKey { ip, port }, node);
    let port = |last_but_one, vni, flags, slot| PortEntry {
        ip: v4(172, 16, last_but_one, 2),
        vni,
        flags,
        mac: [2, 0x42, 172, 16, last_but_one, 2],
        pad: [0; 2],
        slot,
        pad2: 0,
    };
    let gateway_port = GatewayPortEntry {
        ip: v4(172, 18, 0, 2),
        gateway: v4(172, 18, 0, 1),
        bridge: 4711,
        mask: [255, 255, 0, 0],
        mac: [2, 0x42, 172, 18, 0, 2],
        gateway_mac: [2, 0x42, 172, 18, 0, 1],
        flags: 0,
    };
    let expected = Tables {
        nodes: [
            node_entry(v4(10, 0, 0, 2), 2, 1),
            node_entry(v4(10, 0, 0, 3), 3, 2),
            node_entry(v4(10, 9, 0, 1), 0, 3),
        ]
        .into(),
        hops: [
            (1, hop([10, 0, 0, 2], Some(way))),
            (2, hop([10, 0, 0, 3], None)),
            (3, hop([10, 9, 0, 1], None)),
        ]
        .into(),
        apis: [
            api(v4(10, 0, 0, 1), 7400, 1),
            api(v4(10, 0, 0, 2), 7400, 2),
            api(v4(10, 0, 0, 2), 9100, 2),
            api(v4(192, 168, 7, 2), 7400, 2),
            api(v4(192, 168, 7, 2), 9100, 2),
            api(v4(10, 0, 0, 3), 7400, 3),
        ]
        .into(),
        ports: [
            (31, port(17, vni(&view, "lan"), FLAG_MULTICAST, 1)),
            (32, port(18, vni(&view, "apart"), FLAG_ICC_OFF | FLAG_ROUTING | FLAG_ADVERTISING, 2)),
        ]
        .into(),
        gateway_ports: [(33, gateway_port)].into(),
        flood: [
            (FloodKey::first(vni(&view, "lan")), flood(&[1, 3], &[31])),
            (FloodKey::first(vni(&view, "apart")), flood(&[], &[])),
        ]
        .into(),
        ..Tables::default()
    };
    assert_eq!(tables, expected);
}

#[test]
fn a_leg_says_whether_an_endpoint_that_has_it_forwards() {
    let mut cluster = Cluster::new();
    cluster.gateway();
    cluster.endpoint("web", "net", 1);
    // In one namespace with an endpoint that does not forward.
    cluster.endpoint_with("router", "net", on_node(1, "/run/netns/both"), &[]);
    cluster.network_with("lan", "172.16.17.0/24", NetworkOptions::default());
    cluster.endpoint_with("beside", "lan", on_node(1, "/run/netns/both"), &[]);
    let view = cluster.view();
    let mut sites = Sites::new(1);
    sites.update(&view);
    let wanted = devices(&view, &node(), sites.here());
    let leg = |name, ifindex| {
        let id = DeviceId::leg(named(&view, name).leg.unwrap().id);
        (id, ObservedDevice { ifindex, ..good(&wanted.devices[&id], 1) })
    };
    assert_eq!(leg("router", 2), leg("beside", 2));
    let devices = [leg("web", 1), leg("router", 2)].into();
    let ways = BTreeMap::new();
    let standing = Standing { wanted: &wanted, devices: &devices, ways: &ways };
    let tables = small_tables(&view, &node(), &sites, &standing, &Placement::default());
    let flags: Vec<_> = tables.gateway_ports.values().map(|entry| entry.flags).collect();
    assert_eq!(flags, [0, FLAG_ROUTING]);
}

fn flood(hops: &[u32], ports: &[u32]) -> FloodEntry {
    let mut entry = FloodEntry {
        hop_count: u32::try_from(hops.len()).unwrap(),
        port_count: u32::try_from(ports.len()).unwrap(),
        ..FloodEntry::EMPTY
    };
    entry.hops[..hops.len()].copy_from_slice(hops);
    entry.ports[..ports.len()].copy_from_slice(ports);
    entry
}

/// The numbers from `from` up to `to`.
fn numbers(from: usize, to: usize) -> Vec<u32> {
    (from..to).map(|n| u32::try_from(n).unwrap()).collect()
}

#[test]
fn receivers_fill_pages_and_what_has_no_place_is_counted() {
    let mut cluster = Cluster::new();
    let lan = NetworkOptions { multicast: true, ..NetworkOptions::default() };
    cluster.network_with("lan", "172.16.17.0/24", lan);
    cluster.network_with("quiet", "172.16.18.0/24", NetworkOptions::default());
    // A node's view has the networks of its endpoints.
    cluster.endpoint("web1", "lan", 1);
    cluster.endpoint("web2", "quiet", 1);
    let view = cluster.view();
    let [lan, quiet] = ["lan", "quiet"].map(|name| {
        view.networks.values().find(|network| network.name.to_string() == name).unwrap()
    });
    let made = |network, hops: usize, ports: usize| {
        let hops = numbers(0, hops).into_iter().map(Some).chain([None]);
        flood::pages(network, hops, numbers(0, ports).into_iter())
    };
    let first = FloodKey::first(lan.vni.get());
    let one_lost = |entry: FloodEntry| FloodEntry { lost_hops: 1, ..entry };
    let page = flood(&numbers(0, 3), &numbers(0, FLOOD_MAX));
    assert_eq!(
        made(lan, 3, FLOOD_MAX),
        [(first, one_lost(page))],
        "a VTEP without an index is lost"
    );

    let (pages, next) = (made(lan, FLOOD_MAX + 2, 1), FloodKey { page: 1, ..first });
    let full = one_lost(flood(&numbers(0, FLOOD_MAX), &[0]));
    let rest = flood(&numbers(FLOOD_MAX, FLOOD_MAX + 2), &[]);
    assert_eq!(pages, [(first, full), (next, rest)]);

    let pages = made(lan, PLACES, PLACES + 5);
    assert_eq!(pages.len(), FLOOD_PAGES as usize);
    assert!(pages.iter().all(|(_, page)| (page.hop_count, page.port_count) == (64, 64)));
    let lost = |(_, page): &(FloodKey, FloodEntry)| (page.lost_hops, page.lost_ports);
    assert_eq!(lost(&pages[0]), (1, 5));
    assert!(pages[1..].iter().all(|page| lost(page) == (0, 0)), "it is said once");

    let none = (FloodKey::first(quiet.vni.get()), FloodEntry::EMPTY);
    assert_eq!(made(quiet, 3, 3), [none], "a network without broadcast");
}

/// One entry in each table.
fn full(number: u8) -> Tables {
    let n = u32::from(number);
    let (ip, mac) = ([number; 16], [number; 6]);
    let (hop, vni) = (n, n);
    let fdb = FdbEntry::behind(n.into(), ip, 0, ip, hop);
    let port = |flags| PortEntry { ip, vni, flags, mac, pad: [0; 2], slot: n, pad2: 0 };
    let leg = |flags| GatewayPortEntry {
        ip,
        gateway: ip,
        bridge: n,
        mask: [0; 4],
        mac,
        gateway_mac: mac,
        flags,
    };
    let header = [number; size_of::<HopEntry>() - 14];
    Tables {
        fdb: [(FdbKey { vni, mac, pad: [0; 2] }, fdb)].into(),
        neigh: [(NeighKey { ip, vni }, NeighEntry { mac, pad: [0; 2] })].into(),
        ports: [(n, port(FLAG_MULTICAST)), (n + 9, port(FLAG_BRIDGING))].into(),
        nodes: [(NodeKey { vtep: ip }, NodeEntry { node: n.into(), hop, pad: 0 })].into(),
        flood: [FloodKey::first(vni), FloodKey::bridging(vni)]
            .map(|key| (key, flood(&[n], &[n])))
            .into(),
        gateway_ports: [(n, leg(0)), (n + 9, leg(FLAG_ROUTING))].into(),
        bridges: [(BridgeKey::behind(vni, ip), fdb)].into(),
        hops: [(hop, HopEntry { header, mtu: 1500, csum: n, ifindex: n, via: n })].into(),
        apis: [(ApiKey { ip, port: n }, n.into())].into(),
    }
}

#[test]
fn what_an_entry_names_comes_before_it_and_goes_after_it() {
    let (old, new) = (full(1), full(2));
    let mut rows = Rows::default();
    rows.fdb.extend(old.fdb.keys().map(|key| (*key, None)));
    rows.fdb.extend(new.fdb.iter().map(|(key, entry)| (*key, Some(*entry))));
    rows.neigh.extend(old.neigh.keys().map(|key| (*key, None)));
    rows.neigh.extend(new.neigh.iter().map(|(key, entry)| (*key, Some(*entry))));
    let list = changes(&old, Some(&new), &rows);
    let kind = |change: &TableChange| {
        let name = format!("{change:?}").split('(').next().unwrap_or_default().to_owned();
        match change {
            TableChange::PutFlood(FloodKey { page: FLOOD_BRIDGING, .. }, _)
            | TableChange::DeleteFlood(FloodKey { page: FLOOD_BRIDGING, .. }) => name + "OfBridges",
            TableChange::PutPort(_, PortEntry { flags: FLAG_BRIDGING, .. })
            | TableChange::PutGatewayPort(_, GatewayPortEntry { flags: FLAG_ROUTING, .. }) => {
                name + "Permitted"
            }
            _ => name,
        }
    };
    let mut kinds: Vec<String> = list.iter().map(kind).collect();
    kinds.dedup();
    let puts = "PutApi PutHop PutNode PutFlood PutGatewayPort PutPort PutNeigh PutFdb \
                PutGatewayPortPermitted PutPortPermitted DeleteFloodOfBridges DeleteBridge \
                PutBridge PutFloodOfBridges";
    let deletes = "DeleteNeigh DeleteFdb DeletePort \
                   DeleteGatewayPort DeleteFlood DeleteNode DeleteHop DeleteApi";
    assert_eq!(kinds.join(" "), [puts, deletes].join(" "));

    let mut held = old;
    list.iter().for_each(|change: &TableChange| change.apply_to(&mut held));
    assert_eq!(held, new);
    assert_eq!(changes(&held, Some(&new), &Rows::default()), [], "what is right stays");
}
