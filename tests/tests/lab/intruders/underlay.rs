//! VXLAN that a stranger on the underlay forges.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{ArpOperation, IpNumber};
use overlay_lab::transfer;

use super::{
    packets::{self, fragmentation_needed, vxlan, vxlan_datagram, vxlan_in_pieces},
    scene::{Scene, host_party, party},
};
use crate::{
    attack::Attack,
    frames::{self, BROADCAST, Party},
    support::{OUTSIDE, scenario},
};

/// Counters of both programs, because either may be the one that drops a packet.
const IN: &[&str] = &["from_underlay", "guard_underlay"];

/// VXLAN packets to h1 that are no faithful copies of a node's packet. Each is right except for one thing.
fn forged(scene: &Scene) -> Result<Attack> {
    let Scene { hosts: [h1, h2, h3], stranger, vni, other_vni, .. } = scene;
    let (h1, h2, h3) = (host_party(h1)?, host_party(h2)?, host_party(h3)?);
    let stranger = host_party(stranger)?;
    let (web1, neighbour) = (party(&scene.web1)?, party(&scene.neighbour)?);
    let (web2, web3) = (party(&scene.web2)?, party(&scene.web3)?);
    let (near, far) = (party(&scene.near)?, party(&scene.far)?);
    // h2's address with the stranger's MAC, because the frame really comes from the stranger.
    let as_h2 = h2.behind(stranger.mac);
    let good = frames::udp(web2, web1, 7);
    let mut attack = Attack::default();
    attack.extend([
        ("unknown_vtep", vxlan(stranger, h1, *vni, &good)),
        ("unknown_vtep", vxlan(stranger.with([0, 0, 0, 0]), h1, *vni, &good)),
        ("unknown_vtep", vxlan(stranger.with([127, 0, 0, 1]), h1, *vni, &good)),
        ("unknown_vtep", vxlan(stranger.with([224, 0, 0, 1]), h1, *vni, &good)),
        // The address of the gateway bridge, and that of an endpoint.
        ("unknown_vtep", vxlan(stranger.with([172, 18, 0, 1]), h1, *vni, &good)),
        ("unknown_vtep", vxlan(stranger.with(web2.ip), h1, *vni, &good)),
        ("own_vtep", vxlan(h1.behind(stranger.mac), h1, *vni, &good)),
        ("own_vtep", vxlan(h1.behind(stranger.mac), h1, *vni, &frames::udp(neighbour, web1, 7))),
        ("unknown_vni", vxlan(as_h2, h1, other_vni + 1, &good)),
        ("unknown_vni", vxlan(as_h2, h1, 0, &good)),
        ("unknown_vni", vxlan(as_h2, h1, 0x00ff_ffff, &good)),
        // The network is right, but the endpoint is behind another VTEP; then the VTEP is that of another
        // endpoint.
        ("source_not_behind_vtep", vxlan(as_h2, h1, *vni, &frames::udp(web3, web1, 7))),
        ("source_not_behind_vtep", vxlan(h3.behind(stranger.mac), h1, *vni, &good)),
        // The source is an endpoint of h1 itself.
        ("source_not_behind_vtep", vxlan(as_h2, h1, *vni, &frames::udp(neighbour, web1, 7))),
        ("source_not_behind_vtep", vxlan(as_h2, h1, *vni, &frames::udp(web1, neighbour, 7))),
        ("source_not_behind_vtep", vxlan(as_h2, h1, *vni, &frames::udp(web1, web1, 7))),
        // An endpoint of one network as the source in the other network.
        ("source_not_behind_vtep", vxlan(as_h2, h1, *other_vni, &frames::udp(web2, near, 7))),
        ("source_not_behind_vtep", vxlan(as_h2, h1, *vni, &frames::udp(far, near, 7))),
        ("unknown_destination", vxlan(as_h2, h1, *vni, &frames::udp(web2, near, 7))),
        ("unknown_destination", vxlan(as_h2, h1, *other_vni, &frames::udp(far, web1, 7))),
        ("not_local_destination", vxlan(as_h2, h1, *vni, &frames::udp(web2, web3, 7))),
        ("spoofed_ip", vxlan(as_h2, h1, *vni, &frames::udp(web2.with(web3.ip), web1, 7))),
        ("spoofed_ip", vxlan(as_h2, h1, *vni, &frames::udp(web2.with(neighbour.ip), web1, 7))),
        ("broadcast_off", vxlan(as_h2, h1, *vni, &frames::udp(web2, web1.behind(BROADCAST), 7))),
        (
            "arp_from_underlay",
            vxlan(as_h2, h1, *vni, &frames::arp(ArpOperation::REPLY, web2, web1, web1.mac)?),
        ),
        (
            "arp_from_underlay",
            vxlan(as_h2, h1, *vni, &frames::arp(ArpOperation::REQUEST, web2, web1, BROADCAST)?),
        ),
        // A packet to h1 in a frame to everybody.
        ("outer_group_frame", vxlan(as_h2, h1.behind(BROADCAST), *vni, &good)),
        ("malformed", vxlan(as_h2, h1, *vni, &good[..10])),
    ]);
    let flagless = packets::udp(50_000, packets::VXLAN_PORT, &[&[0; 8][..], &good].concat());
    attack.add("vxlan_flags", packets::ipv4(as_h2, h1, IpNumber::UDP, &flagless, |_| {}));
    let datagram = vxlan_datagram(*vni, &good);
    let with_options = |from: Party, options: [u8; 4]| {
        packets::ipv4(from, h1, IpNumber::UDP, &datagram, |ip| {
            ip.options = options.as_slice().try_into().expect("a whole word");
        })
    };
    attack.add("outer_options", with_options(as_h2, [1; 4]));
    attack.add("outer_options", with_options(stranger, [1; 4]));
    Ok(attack)
}

#[test]
fn forged_vxlan_is_dropped_for_what_is_wrong_with_it() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        for guard in ["off", "generic"] {
            // The results are the same, whichever program drops the packets.
            if guard != "off" {
                h1.stop()?;
                h1.start_node(&["--xdp", guard])?;
            }
            let mut victims = scene.victims()?;
            victims.listen("web1", &scene.web1.netns, "eth0")?;
            scene.works()?;
            forged(&scene)?.is_counted((&scene.stranger.netns, "eth0"), h1, IN)?;
            victims.heard_nothing()?;
        }
        ensure!(h1.counters("guard_underlay")?.contains_key("unknown_vtep"), "the guard ran");
        scene.works()
    });
}

#[test]
fn forged_vxlan_in_pieces_is_never_put_together() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let (to, as_h2) = (host_party(h1)?, host_party(&scene.hosts[1])?);
        let as_h2 = as_h2.behind(host_party(&scene.stranger)?.mac);
        let good = frames::udp(party(&scene.web2)?, party(&scene.web1)?, 7);
        let mut victims = scene.victims()?;
        victims.listen("web1", &scene.web1.netns, "eth0")?;
        scene.works()?;
        for guard in ["off", "generic"] {
            if guard != "off" {
                h1.stop()?;
                h1.start_node(&["--xdp", guard])?;
            }
            for first in [8, 16, 48, 64] {
                let pieces = vxlan_in_pieces(as_h2, to, scene.vni, &good, first);
                let [head, tail] = pieces.clone();
                let mut attack = Attack::default();
                attack.add("outer_fragment", head);
                // The tail is sent before the head, and again after it.
                scene.stranger.netns.send_frame("eth0", &tail)?;
                attack.is_counted((&scene.stranger.netns, "eth0"), h1, IN)?;
                scene.stranger.netns.send_frames("eth0", pieces.iter())?;
            }
            let counters = h1.overlay(&["status"])?;
            scene.works().with_context(|| format!("guard {guard}, h1 before: {counters}"))?;
        }
        scene.works()?;
        victims.heard_nothing()
    });
}

/// A node decapsulates VXLAN and nothing else for endpoints: no tunnel of another kind ends on a node.
#[test]
fn no_other_tunnel_leads_in() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let (to, as_h2) = (host_party(h1)?, host_party(&scene.hosts[1])?);
        let as_h2 = as_h2.behind(host_party(&scene.stranger)?.mac);
        let good = frames::udp(party(&scene.web2)?, party(&scene.web1)?, 7);
        let inner_ip = &good[14..];
        let mut victims = scene.victims()?;
        victims.listen("web1", &scene.web1.netns, "eth0")?;
        victims.listen("web1", &scene.web1.netns, "eth1")?;
        scene.works()?;
        scene.web1.netns.reaches(scene.stranger.address)?;
        let vni = scene.vni.to_be_bytes();
        let geneve = [&[0, 0, 0x65, 0x58], &vni[1..], &[0], &good[..]].concat();
        let gre_ethernet = [&[0x20, 0, 0x65, 0x58], &vni[..], &good[..]].concat();
        let gre_ip = [&[0, 0, 0x08, 0][..], inner_ip].concat();
        let ip = |protocol, payload: &[u8]| packets::ipv4(as_h2, to, protocol, payload, |_| {});
        let frames = [
            ip(IpNumber::IPV4, inner_ip),
            ip(IpNumber::GRE, &gre_ethernet),
            ip(IpNumber::GRE, &gre_ip),
            ip(IpNumber::UDP, &packets::udp(50_000, 6081, &geneve)),
            // The port of Linux's older VXLAN, and that of VXLAN-GPE.
            ip(IpNumber::UDP, &packets::udp(50_000, 8472, &vxlan_datagram(scene.vni, &good)[8..])),
            ip(IpNumber::UDP, &packets::udp(50_000, 4790, &vxlan_datagram(scene.vni, &good)[8..])),
            // A frame on a VLAN is not even addressed to the node's device.
            packets::tagged(&vxlan(as_h2, to, scene.vni, &good), packets::VLAN, 7),
            packets::tagged(&vxlan(as_h2, to, scene.vni, &good), packets::QINQ, 7),
            // The endpoint's own addresses, as if the host routed packets for strangers.
            frames::udp(as_h2, to.with(party(&scene.web1)?.ip), 7),
            frames::udp(as_h2, to.with(crate::support::leg(&scene.web1.netns)?.address), 7),
        ];
        scene.stranger.netns.send_frames("eth0", frames.iter())?;
        scene.works()?;
        victims.heard_nothing()
    });
}

/// Anybody can send ICMP, but its effect is limited: a stream goes on in smaller packets, whatever MTU an
/// error claims, also where an honest router does not tell the MTU (RFC 1191, section 5).
#[test]
fn a_stranger_does_not_close_a_path_by_icmp() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, _] = &scene.hosts;
        let (to, far) = (host_party(h1)?, host_party(h2)?);
        let stranger = host_party(&scene.stranger)?;
        scene.works()?;
        let inner = frames::udp(party(&scene.web1)?, party(&scene.web2)?, 7);
        let long = [&inner[..], &[0; 1500]].concat();
        let sent = vxlan(to, far, scene.vni, &long[..1464]);
        for mtu in [1499, 0, 68, 552, 1279, 1329] {
            let said = fragmentation_needed(stranger, to, mtu, &sent);
            scene.stranger.netns.send_frame("eth0", &said)?;
            let address = SocketAddr::new(scene.web2.address.into(), 4000);
            transfer::stream(&scene.web1.netns, &scene.web2.netns, address, 2 << 20)
                .with_context(|| format!("after it was said that {mtu} bytes get through"))?;
        }
        // The errors had an effect, but only down to 1330 bytes of the outer packet and 1280 of the inner one.
        let to = scene.web2.address.to_string();
        let ping = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-M", "do", "-s"];
        scene.web1.netns.run(&[&ping[..], &["1252", &to]].concat())?;
        let told = scene.web1.netns.output(&[&ping[..], &["1253", &to]].concat())?;
        let said = told.stdout + &told.stderr;
        ensure!(said.contains("mtu = 1280") || said.contains("mtu=1280"), "{said}");
        scene.works()
    });
}
