//! Frames that web1 sends on its own network, and that reach nobody: a row for each way around.

use anyhow::Result;
use etherparse::{ArpOperation, IpNumber};

use super::{
    packets::{
        self, OLD_QINQ, Party6, QINQ, VLAN, ethernet, fragment, icmpv6, ipv4, ipv6, link_local,
        llc, made_of, patched, tagged, with_options,
    },
    scene::{Scene, party},
    table::{self, Leg, Table},
};
use crate::{
    frames::{self, BROADCAST, MARK},
    support::{OUTSIDE, scenario},
};

const UDP: IpNumber = IpNumber::UDP;
const RARP: u16 = 0x8035;
const OPERATION_AT: usize = 20;
const HARDWARE_AT: usize = 14;

/// Tags, ARP, and frames without or with wrong headers.
fn links(scene: &Scene) -> Result<Table> {
    let own = party(&scene.web1)?;
    let mut table = Table::by(Leg::Network);
    for victim in [party(&scene.near)?, party(&scene.far)?] {
        let frame = frames::udp(own, victim, 7);
        let frames = [0, 7].map(|id| tagged(&frame, OLD_QINQ, id));
        table.rows("a tag that is none", "unknown_destination", frames);
        let frames =
            [VLAN, QINQ].map(|tag| tagged(&tagged(&tagged(&frame, VLAN, 7), QINQ, 8), tag, 9));
        table.rows("three tags", "unknown_destination", frames);
    }
    for victim in [party(&scene.neighbour)?, party(&scene.web2)?] {
        let spoofed = frames::udp(victim, own, 7);
        for protocol in [VLAN, QINQ, OLD_QINQ] {
            let frames = [0, 1, 7, 0x0fff, 0xe000].map(|id| tagged(&spoofed, protocol, id));
            table.rows(format!("another's MAC in a tag {protocol:#x}"), "spoofed_mac", frames);
        }
        let spoofed = frames::udp(own.with(victim.ip), victim, 7);
        for protocol in [VLAN, QINQ] {
            // Every priority of VLAN 0 (IEEE 802.1Q, section 9.6).
            let frames =
                [0, 0x1000, 0x2000, 0xe000, 0xf000].map(|id| tagged(&spoofed, protocol, id));
            table.rows(format!("another's address, {protocol:#x}"), "spoofed_ip", frames);
            let double = [VLAN, QINQ].map(|inner| tagged(&tagged(&spoofed, inner, 0), protocol, 0));
            table.rows(format!("in two priority tags, {protocol:#x}"), "priority_tag", double);
        }
        let reply = |ip| frames::arp(ArpOperation::REPLY, own.with(ip), victim, victim.mac);
        for protocol in [VLAN, QINQ] {
            let frames =
                [reply(victim.ip)?, reply(own.ip)?].map(|arp| tagged(&arp, protocol, 0xe000));
            table.rows(format!("ARP in a priority tag {protocol:#x}"), "priority_tag", frames);
        }
        let good = frames::arp(ArpOperation::REQUEST, own, victim, victim.mac)?;
        for operation in [0, 2, 3, 4, 8, 9, 10, 0x0100] {
            let frame = patched(good.clone(), OPERATION_AT, &u16::to_be_bytes(operation));
            table.row(format!("ARP operation {operation}"), "arp_not_request", frame);
        }
        let odd = [
            patched(good.clone(), HARDWARE_AT, &[0, 6]),
            patched(good.clone(), HARDWARE_AT + 2, &[0x86, 0xdd]),
            patched(good.clone(), HARDWARE_AT + 4, &[8]),
        ];
        table.rows("ARP of another medium", "arp_not_request", odd);
        let short = [20, 28, 41].map(|length| good[..length].to_vec());
        table.rows("ARP cut short", "malformed", short);
        let announce = frames::arp(ArpOperation::REQUEST, own, own, victim.mac)?;
        table.row("an announcement to one", "arp_own_address", announce);
        let frames = [15, 20, 33].map(|length| frames::udp(own, victim, 7)[..length].to_vec());
        table.rows("IPv4 cut short", "malformed", frames);
    }
    table.row("RARP to all", "broadcast_off", ethernet(own.mac, BROADCAST, RARP, MARK.as_bytes()));
    table.row("to itself", "hairpin_destination", frames::udp(own, own, 7));
    table.row("LLC to itself", "hairpin_destination", llc(own.mac, own.mac, &[0x42, 0x42, 3]));
    Ok(table)
}

/// Servers of addresses and routers, in both families, also where other headers hide them.
fn services(scene: &Scene) -> Result<Table> {
    let own = party(&scene.web1)?;
    let mut table = Table::by(Leg::Network);
    let from: Party6 = (own.mac, link_local([0, 9]));
    for victim in [party(&scene.neighbour)?, party(&scene.web2)?] {
        let reply = packets::udp(67, 68, &[&[2, 1, 6, 0][..], &[0; 236], MARK.as_bytes()].concat());
        let by_another_port = patched(reply.clone(), 0, &[0, 53]);
        let frames = [
            ipv4(own, victim, UDP, &by_another_port, |_| {}),
            with_options(own, victim, UDP, &reply, &[1; 4]),
            with_options(own, victim, UDP, &reply, &[1; 40]),
            fragment(own, victim, UDP, &reply[..8], (0, true)),
            tagged(&ipv4(own, victim, UDP, &reply, |_| {}), QINQ, 0),
            tagged(&with_options(own, victim, UDP, &reply, &[1; 12]), VLAN, 0xe000),
        ];
        table.rows("DHCP", "dhcp_server", frames);

        let to: Party6 = (victim.mac, link_local([0, 2]));
        let about =
            |kind: u8| [&[kind, 0, 0, 0, 64, 0, 7, 8][..], &[0; 32], MARK.as_bytes()].concat();
        for (name, kind) in [("an advertisement", 134), ("a redirect", 137)] {
            let plain = icmpv6(from, to, &about(kind));
            let mut frames =
                vec![plain.clone(), tagged(&plain, VLAN, 0), tagged(&plain, QINQ, 0xe000)];
            // Hop-by-hop options, a routing header, a fragment, AH, options, mobility, HIP, shim6, experiments.
            for header in [0, 43, 44, 51, 60, 135, 139, 140, 253, 254] {
                let behind = [&[58, 0, 0, 0, 0, 0, 0, 0][..], &plain[54..]].concat();
                frames.push(ipv6(from, to, header, 255, &behind));
            }
            table.rows(format!("{name} of a router"), "router_advertisement", frames);
        }
        let reply = packets::udp(547, 546, MARK.as_bytes());
        let mut frames = vec![
            ipv6(from, to, 17, 64, &reply),
            ipv6(from, to, 17, 255, &patched(reply.clone(), 0, &[0, 53])),
            tagged(&ipv6(from, to, 17, 64, &reply), VLAN, 0),
        ];
        for header in [0, 43, 44, 60] {
            let behind = [&[17, 0, 0, 0, 0, 0, 0, 0][..], &reply].concat();
            frames.push(ipv6(from, to, header, 64, &behind));
        }
        table.rows("DHCPv6", "dhcp_server", frames);
    }
    // Groups, which the network does not carry: discovery of neighbours, reports of listeners, names.
    let groups =
        [[0x33, 0x33, 0, 0, 0, 1], [0x33, 0x33, 0xff, 0, 0, 2], [0x33, 0x33, 0, 0, 0, 0x16]];
    for group in groups {
        let all: Party6 = (group, [0xff; 16]);
        let message = |kind: u8| {
            let target = [&[kind, 0, 0, 0, 0xe0, 0, 0, 0][..], &link_local([0, 2])].concat();
            icmpv6(from, all, &[&target[..], &[2, 1], &own.mac, MARK.as_bytes()].concat())
        };
        let frames = [128, 133, 135, 136, 143].map(message);
        table.rows(format!("ICMPv6 to {group:02x?}"), "broadcast_off", frames);
    }
    Ok(table)
}

/// Messages of neighbour discovery by which web1 would get a neighbour's packets, or keep it from its address.
fn as_neighbours(scene: &Scene) -> Result<Table> {
    let mut table = Table::by(Leg::Network);
    let own = party(&scene.web1)?;
    let [neighbour, web2] = [party(&scene.neighbour)?, party(&scene.web2)?];
    for (victim, receiver) in [(neighbour, web2), (web2, neighbour)] {
        let (theirs, to) = (made_of(victim.mac), (receiver.mac, made_of(receiver.mac)));
        let message =
            |from: Party6, to: Party6, kind: u8, flags: u8, target: [u8; 16], option: u8| {
                let start = [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target].concat();
                icmpv6(from, to, &[&start[..], &[option, 1], &own.mac, MARK.as_bytes()].concat())
            };
        let (honest, forged) = ((own.mac, made_of(own.mac)), (own.mac, theirs));
        let owner = (victim.mac, theirs);
        let plain = message(honest, to, 136, 0x20, theirs, 2);
        let behind = [&[58, 0, 0, 0, 0, 0, 0, 0][..], &plain[54..]].concat();
        let frames = [
            // An advertisement that overrides, from its own address, from the victim's, and solicited.
            plain.clone(),
            message(forged, to, 136, 0x20, theirs, 2),
            message(forged, to, 136, 0x60, theirs, 2),
            // The victim hears that somebody has its address.
            message(honest, owner, 136, 0x20, theirs, 2),
            // A question from the victim's address, with web1's MAC as the asker's.
            message(forged, to, 135, 0, to.1, 1),
            tagged(&plain, VLAN, 0),
            // Behind options, from an address that is not the link's.
            ipv6((own.mac, [0xfd; 16]), to, 60, 255, &behind),
        ];
        table.rows(format!("as {}", victim.ip), "spoofed_neighbour", frames);
    }
    Ok(table)
}

#[test]
fn nothing_passes_on_a_network_that_is_not_an_endpoint_s_own() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let victims = scene.victims()?;
        table::try_all(
            &scene,
            &[links(&scene)?, services(&scene)?, as_neighbours(&scene)?],
            victims,
        )
    });
}
