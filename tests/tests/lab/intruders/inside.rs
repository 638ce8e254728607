//! Frames by which an endpoint on its own network's leg would pass as another endpoint, or would reach places
//! outside its network.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use etherparse::{ArpOperation, IpNumber};
use overlay_lab::probe::Prober;

use super::{
    packets::{self, QINQ, VLAN, ethernet, llc, tagged, vxlan},
    scene::{Scene, host_party, host_side, party},
};
use crate::{
    attack::Attack,
    frames::{self, BROADCAST, MARK, Party},
    support::{OUTSIDE, leg, scenario},
};

const SENT: &[&str] = &["from_endpoint"];
/// More source MACs than any bridge would keep in its table.
const FLOOD: u32 = 5_000;

/// Group addresses that no bridge forwards (IEEE 802.1Q, table 8-1), and one of Cisco's.
const LINK_LOCAL: [[u8; 6]; 5] = [
    [1, 0x80, 0xc2, 0, 0, 0],
    [1, 0x80, 0xc2, 0, 0, 1],
    [1, 0x80, 0xc2, 0, 0, 3],
    [1, 0x80, 0xc2, 0, 0, 0x0e],
    [1, 0, 0x0c, 0xcc, 0xcc, 0xcc],
];

/// Frames by which web1 would pass as another endpoint.
fn in_disguise(scene: &Scene) -> Result<Attack> {
    let own = party(&scene.web1)?;
    let mut attack = Attack::default();
    for victim in [&scene.neighbour, &scene.web2] {
        let victim = party(victim)?;
        let (request, reply) = (ArpOperation::REQUEST, ArpOperation::REPLY);
        attack.extend([
            ("spoofed_mac", frames::udp(victim, victim, 7)),
            ("spoofed_mac", frames::udp(own.behind(BROADCAST), victim, 7)),
            ("spoofed_mac", frames::udp(own.behind([0; 6]), victim, 7)),
            ("spoofed_ip", frames::udp(own.with(victim.ip), victim, 7)),
            ("spoofed_ip", frames::udp(own.with([127, 0, 0, 1]), victim, 7)),
            ("spoofed_ip", frames::udp(own.with([255; 4]), victim, 7)),
            // A receiver that believes one of these would send web1 the packets for the victim.
            ("arp_not_request", frames::arp(reply, own.with(victim.ip), own, own.mac)?),
            ("arp_not_request", frames::arp(reply, own.with(victim.ip), victim, victim.mac)?),
            ("arp_not_request", frames::arp(reply, own.with(victim.ip), victim, BROADCAST)?),
            ("spoofed_ip", frames::arp(request, own.with(victim.ip), victim, BROADCAST)?),
            ("spoofed_mac", frames::arp(request, victim, own, BROADCAST)?),
            ("arp_own_address", frames::arp(request, own, own, BROADCAST)?),
            // A redirect to a better route, from an address that is no gateway's.
            (
                "spoofed_ip",
                packets::redirect(
                    own.with([172, 16, 16, 1]),
                    victim,
                    own,
                    &frames::udp(victim, own, 7),
                ),
            ),
        ]);
    }
    Ok(attack)
}

/// Frames by which web1 would reach the other network, its own host, or another host.
fn elsewhere(scene: &Scene) -> Result<Attack> {
    let own = party(&scene.web1)?;
    let neighbour = party(&scene.neighbour)?;
    let mut attack = Attack::default();
    for victim in [party(&scene.near)?, party(&scene.far)?] {
        attack.extend([
            ("unknown_destination", frames::udp(own, victim, 7)),
            ("unknown_destination", frames::udp(own, neighbour.behind(victim.mac), 7)),
            ("unknown_destination", llc(own.mac, victim.mac, &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0])),
            ("unknown_destination", ethernet(own.mac, victim.mac, 0x88b5, MARK.as_bytes())),
            ("broadcast_off", frames::udp(own, victim.behind(BROADCAST), 7)),
            ("broadcast_off", llc(own.mac, BROADCAST, &[0x42, 0x42, 3])),
            ("arp_unknown_target", frames::arp(ArpOperation::REQUEST, own, victim, BROADCAST)?),
            // A frame of the other network inside a VXLAN packet to an endpoint, as if web1 were a VTEP.
            (
                "unknown_destination",
                vxlan(own, victim, scene.other_vni, &frames::udp(own, victim, 7)),
            ),
        ]);
    }
    // The host's MAC is that of its only device on this wire, the host's side of web1's veth.
    let host = Party::new(&scene.web1.host.netns.mac(&host_side(&scene.web1)?)?, own.ip)?;
    for node in &scene.hosts {
        let node = host.with(node.address);
        attack.extend([
            ("unknown_destination", frames::syn(own, node, 7400)),
            ("unknown_destination", frames::udp(own, node, packets::VXLAN_PORT)),
            (
                "unknown_destination",
                vxlan(own, node, scene.other_vni, &frames::udp(own, party(&scene.near)?, 7)),
            ),
        ]);
        for tunnel in [IpNumber::IPV4, IpNumber::GRE] {
            let inner = frames::udp(own, party(&scene.near)?, 7);
            attack
                .add("unknown_destination", packets::ipv4(own, node, tunnel, &inner[14..], |_| {}));
        }
    }
    for to in [[1, 0, 0x5e, 0, 0, 0xfb], [0x33, 0x33, 0, 0, 0, 1]].into_iter().chain(LINK_LOCAL) {
        attack.extend([
            ("broadcast_off", frames::udp(own, own.with([224, 0, 0, 251]).behind(to), 5353)),
            ("broadcast_off", llc(own.mac, to, &[0x42, 0x42, 3])),
        ]);
    }
    // LLDP, and a frame that asks the sender to pause.
    attack.add("broadcast_off", ethernet(own.mac, LINK_LOCAL[3], 0x88cc, MARK.as_bytes()));
    attack.add("broadcast_off", ethernet(own.mac, LINK_LOCAL[1], 0x8808, MARK.as_bytes()));
    Ok(attack)
}

#[test]
fn an_endpoint_is_nobody_else_and_nowhere_else() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let victims = scene.victims()?;
        scene.works()?;
        in_disguise(&scene)?.is_counted((&scene.web1.netns, "eth0"), h1, SENT)?;
        elsewhere(&scene)?.is_counted((&scene.web1.netns, "eth0"), h1, SENT)?;
        // No receiver believed any of them, also where nothing was counted.
        scene.works()?;
        for victim in [&scene.neighbour, &scene.web2] {
            let known = victim.netns.ip(&["neigh", "show", "dev", "eth0"])?;
            let wrong = known.lines().find(|line| {
                line.contains(&scene.web1.mac) && !line.starts_with(&scene.web1.address.to_string())
            });
            ensure!(wrong.is_none(), "{} believes {wrong:?}", victim.name);
        }
        victims.heard_nothing()
    });
}

#[test]
fn nobody_learns_from_a_flood_of_macs() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        scene.works()?;
        let before = what_bridges_know(&scene)?;
        let fdb = h1.map_dump("FDB")?;
        let probe = Prober::new(&scene.neighbour.netns, scene.web2.address)?
            .start(Duration::from_millis(5));
        let (own, to) = (party(&scene.web1)?, party(&scene.web2)?);
        let out = leg(&scene.web1.netns)?;
        let (own_out, gateway) =
            (Party::new(&out.mac, out.address)?, Party::new("02:42:ac:12:00:01", out.address)?);
        for (device, from, to, direction) in
            [("eth0", own, to, "from_endpoint"), ("eth1", own_out, gateway, "from_gateway")]
        {
            let mut flood = Attack::default();
            flood.extend((0..FLOOD).map(|number| {
                let [_, a, b, c] = number.to_be_bytes();
                let reason = "spoofed_mac";
                (reason, frames::udp(from.behind([2, 0x77, device.len() as u8, a, b, c]), to, 7))
            }));
            flood.is_counted((&scene.web1.netns, device), h1, &[direction])?;
        }
        probe.stop()?.none_lost()?;
        ensure!(h1.map_dump("FDB")? == fdb, "FDB changed");
        let after = what_bridges_know(&scene)?;
        ensure!(after == before, "learnt: {:?}", after.difference(&before));
        scene.works()
    });
}

/// The MACs in the forwarding tables of h1's bridges.
fn what_bridges_know(scene: &Scene) -> Result<BTreeSet<String>> {
    let shown = scene.hosts[0].netns.run(&["bridge", "fdb", "show"])?;
    Ok(shown.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect())
}

/// With broadcast switched on, a network's broadcast still stays within that network.
#[test]
fn broadcast_of_one_network_is_not_the_others() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::with_networks(lab, &["--multicast"])?;
        let [h1, h2, _] = &scene.hosts;
        let own = party(&scene.web1)?;
        let mut victims = scene.others()?;
        for endpoint in [&scene.neighbour, &scene.web2, &scene.web3] {
            victims.listen(&endpoint.name, &endpoint.netns, "eth0")?;
        }
        scene.works()?;
        let sent = frames::udp(own, own.with([255; 4]).behind(BROADCAST), 7);
        scene.web1.netns.send_frame("eth0", &sent)?;
        let heard = ["neighbour's eth0", "web2's eth0", "web3's eth0"];
        for who in heard {
            victims.hears(who)?;
        }
        // The same frame comes back, as if it were reflected: from this node, and from the node to which it
        // was sent.
        let (to, stranger) = (host_party(h1)?, host_party(&scene.stranger)?);
        let as_h2 = host_party(h2)?.behind(stranger.mac);
        let mut reflected = Attack::default();
        reflected.add("own_vtep", vxlan(to.behind(stranger.mac), to, scene.vni, &sent));
        reflected.add("source_not_behind_vtep", vxlan(as_h2, to, scene.vni, &sent));
        let on_the_other =
            frames::udp(party(&scene.web2)?, own.with([255; 4]).behind(BROADCAST), 7);
        let on_the_other = vxlan(as_h2, to, scene.other_vni, &on_the_other);
        reflected.add("source_not_behind_vtep", on_the_other);
        let by = (&scene.stranger.netns, "eth0");
        reflected.is_counted(by, h1, &["from_underlay", "guard_underlay"])?;
        scene.works()?;
        victims.without(&heard).heard_nothing()
    });
}

/// Frames of protocols between neighbouring bridges (spanning tree, LACP, 802.1X, LLDP) end at the first one, also where
/// broadcast is on.
#[test]
fn no_frame_between_bridges_is_passed_on() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::with_networks(lab, &["--multicast"])?;
        let own = party(&scene.web1)?;
        let victims = scene.victims()?;
        scene.works()?;
        let mut attack = Attack::default();
        for to in LINK_LOCAL.into_iter().filter(|to| to[1] == 0x80) {
            attack.add("reserved_group", llc(own.mac, to, &[0x42, 0x42, 3]));
            attack.add("reserved_group", ethernet(own.mac, to, 0x88cc, MARK.as_bytes()));
        }
        attack.is_counted((&scene.web1.netns, "eth0"), &scene.hosts[0], SENT)?;
        scene.works()?;
        victims.heard_nothing()
    });
}

/// A VLAN tag leads a frame to no place where it would not have gone without the tag.
#[test]
fn no_tag_leads_to_another_network() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let own = party(&scene.web1)?;
        let victims = scene.victims()?;
        scene.works()?;
        let mut attack = Attack::default();
        for victim in [party(&scene.near)?, party(&scene.far)?] {
            let frame = frames::udp(own, victim, 7);
            for id in [0, 1, 7, 4095] {
                attack.add("unknown_destination", tagged(&frame, VLAN, id));
                attack.add("unknown_destination", tagged(&frame, QINQ, id));
            }
            attack.add("unknown_destination", tagged(&tagged(&frame, VLAN, 7), QINQ, 8));
            let spoofed = frames::udp(victim, victim, 7);
            attack.add("spoofed_mac", tagged(&spoofed, VLAN, 7));
        }
        // A tag of VLAN 0 means no VLAN, so the frame inside is checked as if it had no tag.
        let neighbour = party(&scene.neighbour)?;
        let spoofed = frames::udp(own.with(neighbour.ip), neighbour, 7);
        attack.add("spoofed_ip", tagged(&spoofed, VLAN, 0));
        attack.add("spoofed_ip", tagged(&spoofed, QINQ, 0));
        let reply =
            frames::arp(ArpOperation::REPLY, own.with(neighbour.ip), neighbour, neighbour.mac)?;
        for protocol in [VLAN, QINQ] {
            attack.add("priority_tag", tagged(&reply, protocol, 0));
            attack.add("priority_tag", tagged(&tagged(&spoofed, VLAN, 0), protocol, 0));
        }
        attack.is_counted((&scene.web1.netns, "eth0"), h1, SENT)?;
        scene.works()?;
        victims.heard_nothing()
    });
}

#[test]
fn an_endpoint_is_no_server_of_addresses_and_no_router() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let own = party(&scene.web1)?;
        let victims = scene.victims()?;
        scene.works()?;
        let mut attack = Attack::default();
        for victim in [&scene.neighbour, &scene.web2] {
            let victim = party(victim)?;
            attack.add("dhcp_server", dhcp_reply(own, victim));
            attack.add("dhcp_server", dhcp_reply(own, victim.with([255; 4])));
            attack.add("dhcp_server", tagged(&dhcp_reply(own, victim), VLAN, 0));
            // A client that asks for an address while it uses another endpoint's.
            let asks = packets::udp(68, 67, &bootp(1, victim));
            attack.add(
                "spoofed_ip",
                packets::ipv4(own.with(victim.ip), victim, IpNumber::UDP, &asks, |_| {}),
            );
            attack.add("router_advertisement", router_advertisement(own.mac, victim.mac));
        }
        attack.is_counted((&scene.web1.netns, "eth0"), h1, SENT)?;
        scene.works()?;
        victims.heard_nothing()
    });
}

fn dhcp_reply(from: Party, to: Party) -> Vec<u8> {
    let says = packets::udp(67, 68, &bootp(2, to));
    packets::ipv4(from, to, IpNumber::UDP, &says, |_| {})
}

/// The fixed part of a DHCP message (RFC 2131, section 2) that gives a client another address.
fn bootp(operation: u8, client: Party) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[operation, 1, 6]);
    message[16..20].copy_from_slice(&[172, 16, 16, 66]);
    message[28..34].copy_from_slice(&client.mac);
    message[44..44 + MARK.len()].copy_from_slice(MARK.as_bytes());
    message[236..].copy_from_slice(&[99, 130, 83, 99]);
    message
}

/// A router advertisement (RFC 4861, section 4.2), by which the sender would become the receiver's router.
fn router_advertisement(from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
    let mut source = [0; 16];
    source[..2].copy_from_slice(&[0xfe, 0x80]);
    source[15] = 0x66;
    let mut target = [0; 16];
    target[..2].copy_from_slice(&[0xff, 2]);
    target[15] = 1;
    let advertisement = [&[64, 0, 7, 8][..], &[0; 8], MARK.as_bytes()].concat();
    let packet = etherparse::PacketBuilder::ethernet2(from, to)
        .ipv6(source, target, 255)
        .icmpv6_raw(134, 0, advertisement[..4].try_into().expect("four bytes"));
    let mut frame = Vec::new();
    packet.write(&mut frame, &advertisement[4..]).expect("memory takes every byte");
    frame
}
