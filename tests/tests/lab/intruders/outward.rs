//! Frames that web1 sends on the leg that leads out, and that lead nowhere: a row for each way around.

use anyhow::Result;
use etherparse::ArpOperation;

use super::{
    destinations::{addresses, services},
    packets::{
        self, OLD_QINQ, QINQ, VLAN, ethernet, icmpv6, ipv6, link_local, llc, patched, tagged,
    },
    scene::{Outward, Scene, party},
    table::{self, Leg, Table},
};
use crate::{
    frames::{self, BROADCAST, MARK},
    support::{OUTSIDE, scenario},
};

/// Where fields lie in a frame of ARP.
const HARDWARE_AT: usize = 14;
const OPERATION_AT: usize = 20;
const SENDER_MAC_AT: usize = 22;
const SENDER_IP_AT: usize = 28;

/// A group that no bridge forwards (IEEE 802.1Q, table 8-1).
const SPANNING_TREE: [u8; 6] = [1, 0x80, 0xc2, 0, 0, 0];
const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Tags, foreign protocols, and Ethernet addresses of others.
fn links(scene: &Scene, ends: &Outward) -> Result<Table> {
    let Outward { own, neighbour, gateway, stranger, .. } = *ends;
    let mut table = Table::by(Leg::Gateway);
    let good = frames::udp(own, stranger, 7);
    let to_neighbour = frames::udp(own, neighbour, 7);
    for protocol in [VLAN, QINQ] {
        for id in [0, 1, 7, 0x0fff, 0xe000] {
            let frames = [&good, &to_neighbour].map(|frame| tagged(frame, protocol, id));
            table.rows(format!("tag {protocol:#x} {id:#x}"), "vlan_unsupported", frames);
        }
        let double = tagged(&tagged(&good, VLAN, 7), protocol, 8);
        table.row(format!("a tag in a tag {protocol:#x}"), "vlan_unsupported", double);
        let arp = frames::arp(ArpOperation::REQUEST, own, gateway, BROADCAST)?;
        table.row(
            format!("ARP in a tag {protocol:#x}"),
            "vlan_unsupported",
            tagged(&arp, protocol, 0),
        );
    }
    table.row("a tag that is none", "gateway_protocol", tagged(&good, OLD_QINQ, 0));
    for (name, ethertype) in [
        ("RARP", 0x8035),
        ("a bridged frame", 0x6558),
        ("MPLS", 0x8847),
        ("PPPoE", 0x8864),
        ("a pause", 0x8808),
        ("EAPOL", 0x888e),
        ("LLDP", 0x88cc),
        ("MACsec", 0x88e5),
        ("TIPC", 0x88ca),
        ("an experiment", 0x88b5),
    ] {
        let frames = [gateway.mac, neighbour.mac, BROADCAST, SPANNING_TREE]
            .map(|to| ethernet(own.mac, to, ethertype, MARK.as_bytes()));
        table.rows(name, "gateway_protocol", frames);
    }
    let in_snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &to_neighbour[14..]].concat();
    let frames = [neighbour.mac, gateway.mac, BROADCAST, SPANNING_TREE];
    table.rows("IPv4 in LLC", "gateway_protocol", frames.map(|to| llc(own.mac, to, &in_snap)));

    let on_network = party(&scene.web1)?;
    for (name, mac) in [
        ("the gateway's MAC", gateway.mac),
        ("a neighbour's MAC", neighbour.mac),
        ("web1's other MAC", on_network.mac),
        ("no MAC", [0; 6]),
        ("a group's MAC", BROADCAST),
    ] {
        let from = own.behind(mac);
        let arp = frames::arp(ArpOperation::REQUEST, from, gateway, BROADCAST)?;
        let frames = [frames::udp(from, stranger, 7), frames::udp(from, neighbour, 7), arp];
        table.rows(format!("from {name}"), "spoofed_mac", frames);
    }
    for (name, mac) in [("a neighbour's MAC", neighbour.mac), ("a stray MAC", [2, 0, 0, 0, 0, 9])] {
        let frames = [stranger, gateway, neighbour].map(|to| frames::udp(own, to.behind(mac), 7));
        table.rows(format!("to {name}"), "gateway_neighbour", frames);
    }
    for mac in [BROADCAST, SPANNING_TREE, [1, 0, 0x5e, 0, 0, 0xfb]] {
        let frames = [stranger, gateway, neighbour].map(|to| frames::udp(own, to.behind(mac), 7));
        table.rows(format!("to the group {mac:02x?}"), "broadcast_off", frames);
    }
    Ok(table)
}

/// ARP, by which web1 would pass as the gateway or as a neighbour; and IPv6, which the leg has none of.
fn neighbours(ends: &Outward) -> Result<Table> {
    let Outward { own, neighbour, near, gateway, nodes: [h1, ..], .. } = *ends;
    let (request, reply) = (ArpOperation::REQUEST, ArpOperation::REPLY);
    let mut table = Table::by(Leg::Gateway);
    for (name, victim) in [("the gateway", gateway), ("a neighbour", neighbour), ("its node", h1)] {
        let as_victim = own.with(victim.ip);
        let frames = [
            frames::arp(reply, as_victim, gateway, gateway.mac)?,
            frames::arp(reply, as_victim, near, near.mac)?,
            frames::arp(reply, as_victim, as_victim, BROADCAST)?,
            frames::arp(request, as_victim, as_victim, BROADCAST)?,
            frames::arp(request, as_victim, gateway, BROADCAST)?,
            frames::arp(request, as_victim, near, near.mac)?,
        ];
        table.rows(format!("ARP as {name}"), "spoofed_ip", frames);
        let frames = [
            frames::arp(request, own, gateway, gateway.mac)?,
            frames::arp(reply, own, gateway, gateway.mac)?,
        ]
        .map(|frame| patched(frame, SENDER_MAC_AT, &[2, 0, 0, 0, 0, 9]));
        table.rows(format!("ARP of a stray MAC about {name}"), "spoofed_mac", frames);
    }
    for victim in [neighbour, near] {
        let probe = frames::arp(request, own.with([0; 4]), victim, BROADCAST)?;
        let frames = [
            probe,
            frames::arp(request, own, victim, BROADCAST)?,
            frames::arp(request, own, victim, victim.mac)?,
            frames::arp(reply, own, victim, victim.mac)?,
            frames::arp(reply, own, gateway, victim.mac)?,
            frames::arp(reply, own, gateway, BROADCAST)?,
        ];
        table.rows(format!("ARP to {}", victim.ip), "gateway_neighbour", frames);
    }
    let frames =
        [request, reply].map(|what| frames::arp(what, own, own, BROADCAST).expect("an ARP frame"));
    table.rows("an announcement", "arp_own_address", frames);
    let probe = frames::arp(reply, own.with([0; 4]), gateway, gateway.mac)?;
    table.row("an answer from no address", "spoofed_ip", probe);
    let good = frames::arp(request, own, gateway, BROADCAST)?;
    for operation in [0, 3, 4, 8, 9, 10, 0x0100] {
        let frame = patched(good.clone(), OPERATION_AT, &u16::to_be_bytes(operation));
        table.row(format!("ARP operation {operation}"), "arp_not_request", frame);
    }
    table.row(
        "ARP of another medium",
        "arp_not_request",
        patched(good.clone(), HARDWARE_AT, &[0, 6]),
    );
    table.row(
        "ARP for IPv6",
        "arp_not_request",
        patched(good.clone(), HARDWARE_AT + 2, &[0x86, 0xdd]),
    );
    table.row(
        "ARP of longer addresses",
        "arp_not_request",
        patched(good.clone(), HARDWARE_AT + 4, &[8]),
    );
    table.row("ARP cut short", "malformed", good[..40].to_vec());
    let patched = patched(good, SENDER_IP_AT, &near.ip.octets());
    table.row("ARP as an endpoint of the other network", "spoofed_ip", patched);

    let (from, all) = ((own.mac, link_local([0, 9])), (ALL_NODES, [0xff; 16]));
    for to in [all, (gateway.mac, link_local([0, 1])), (neighbour.mac, link_local([0, 2]))] {
        let message = |kind: u8, flags: u8| {
            let target = [link_local([0, 1]), link_local([0, 2])].concat();
            let option = [&[2, 1][..], &own.mac].concat();
            icmpv6(
                from,
                to,
                &[&[kind, 0, 0, 0, flags, 0, 0, 0], &target[..], &option, MARK.as_bytes()].concat(),
            )
        };
        // Solicitations and advertisements of routers and neighbours, a redirect, a report of listeners.
        let frames = [133, 134, 135, 136, 137, 143, 128].map(|kind| message(kind, 0xe0));
        table.rows(format!("ICMPv6 to {:02x?}", to.0), "gateway_protocol", frames);
        let dhcp = packets::udp(547, 546, MARK.as_bytes());
        let frames = [
            ipv6(from, to, 17, 1, &dhcp),
            ipv6(from, to, 6, 64, &[0; 20]),
            ipv6(from, to, 41, 64, &[0; 40]),
        ];
        table.rows(format!("IPv6 to {:02x?}", to.0), "gateway_protocol", frames);
    }
    Ok(table)
}

#[test]
fn nothing_passes_the_leg_that_is_not_for_the_outside() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let ends = scene.outward()?;
        let [h1, h2, h3] = &scene.hosts;
        h2.netns.ip(&["addr", "add", "10.10.10.111/24", "dev", "eth0"])?;
        let mut victims = scene.victims()?;
        scene.outward_victims(&mut victims)?;
        victims.listen("h1", &h1.netns, "ov_gwbridge")?;
        for host in [h1, h2, h3, &scene.stranger] {
            victims.listen(&host.name, &host.netns, "eth0")?;
        }
        let tables = [
            links(&scene, &ends)?,
            neighbours(&ends)?,
            addresses(&scene, &ends)?,
            services(&scene, &ends)?,
        ];
        table::try_all(&scene, &tables, victims)
    });
}
