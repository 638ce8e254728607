//! VXLAN that an endpoint makes itself, and sends over the leg that leads out.

use std::{net::Ipv4Addr, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use etherparse::IpNumber;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use overlay_lab::{Netns, capture::Capture};

use super::{
    packets::{self, offset, vxlan, vxlan_datagram, vxlan_in_pieces},
    scene::{GATEWAY, Scene, host_side, party},
};
use crate::{
    attack::Attack,
    frames::{self, MARK, Party},
    support::{OUTSIDE, leg, mac_of, scenario},
};

/// Sends a whole IPv4 packet through a raw socket, along the routes of the namespace.
fn send_raw(netns: &Netns, to: Ipv4Addr, packet: &[u8]) -> Result<()> {
    netns.enter(|| {
        // With this protocol the kernel takes the protocol from the packet's own header.
        let (kind, protocol) = (SockType::Raw, SockProtocol::Raw);
        let raw = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
        sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).context("to send")?;
        Ok(())
    })
}

/// Masquerading would give such a packet a node's source address, so that it would pass as a node's packet.
#[test]
fn an_endpoint_sends_no_vxlan_whole_or_in_pieces() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, _] = &scene.hosts;
        let out = leg(&scene.web1.netns)?;
        let own = Party::new(&out.mac, out.address)?;
        let gateway = Party::new(&mac_of(GATEWAY), GATEWAY)?;
        let inner = frames::udp(party(&scene.web1)?, party(&scene.far)?, 7);
        let router = lab.router()?;
        let wire = Capture::start(&router, "any", "")?;
        let victims = scene.others()?;
        scene.works()?;
        scene.web1.netns.reaches(scene.stranger.address)?;

        let mut attack = Attack::default();
        let mut loose = Vec::new();
        for node in [h1, h2] {
            let node = gateway.with(node.address);
            attack.add("vxlan_from_endpoint", vxlan(own, node, scene.other_vni, &inner));
            for first in [8, 16, 64] {
                let [head, tail] = vxlan_in_pieces(own, node, scene.other_vni, &inner, first);
                // Tails are sent before the heads and after them.
                loose.push(tail.clone());
                attack.add("vxlan_from_endpoint", head);
                loose.push(tail);
            }
            // The first fragment shows another port, and a second one overwrites it with VXLAN's port (RFC
            // 1858), so that the whole packet would differ from the part that was checked.
            let innocent = packets::udp(50_000, 7, &vxlan_datagram(scene.other_vni, &inner)[8..]);
            let whole = vxlan_datagram(scene.other_vni, &inner);
            let piece = |bytes: &[u8], at: u16, more: bool| {
                packets::ipv4(own, node, IpNumber::UDP, bytes, |ip| {
                    ip.identification = 0x6666;
                    ip.fragment_offset = offset(at);
                    ip.more_fragments = more;
                })
            };
            loose.push(piece(&innocent[..24], 0, true));
            attack.add("vxlan_from_endpoint", piece(&whole[..16], 0, true));
            loose.push(piece(&whole[8..], 8, false));
        }
        let eth1 = (&scene.web1.netns, "eth1");
        scene.web1.netns.send_frames("eth1", loose.iter())?;
        attack.is_counted(eth1, h1, &["from_gateway"])?;
        scene.web1.netns.send_frames("eth1", loose.iter())?;

        // Packets from a raw socket, along the routes of the endpoint's own stack.
        let before = h1.counter("vxlan_from_endpoint")?;
        let node = gateway.with(h2.address);
        for packet in [
            vxlan(own, node, scene.other_vni, &inner),
            vxlan_in_pieces(own, node, scene.other_vni, &inner, 8)[0].clone(),
        ] {
            send_raw(&scene.web1.netns, h2.address, &packet[14..])?;
        }
        let counted = h1.counter("vxlan_from_endpoint")? - before;
        ensure!(counted >= 2, "{counted}");

        scene.works()?;
        victims.heard_nothing()?;
        let packets = wire.stop()?;
        let seen = packets.fields("icmp", &["frame.number"])?;
        ensure!(!seen.is_empty(), "nothing was captured");
        // The nodes' own VXLAN contains no mark and is never fragmented.
        let passed = format!("frame contains \"{MARK}\" || ip.flags.mf == 1 || ip.frag_offset > 0");
        let passed = packets.fields(&passed, &["ip.src", "ip.dst", "_ws.col.Info"])?;
        ensure!(passed.is_empty(), "left the host: {passed:?}");
        Ok(())
    });
}

/// The host is not reachable over the network's leg, whatever routes the endpoint sets for itself.
#[test]
fn no_service_of_the_host_is_on_the_overlay() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let h1 = &scene.hosts[0];
        let web1 = &scene.web1.netns;
        overlay_lab::page::serve_in(&h1.netns, "the host's own")?;
        let host_mac = h1.netns.mac(&host_side(&scene.web1)?)?;
        let bridge = mac_of(GATEWAY);
        let before = h1.counters("from_endpoint")?;
        for address in [h1.address, GATEWAY] {
            let to = address.to_string();
            for lladdr in [&host_mac, &bridge] {
                web1.ip(&["route", "replace", &to, "dev", "eth0"])?;
                web1.ip(&["neigh", "replace", &to, "lladdr", lladdr, "dev", "eth0"])?;
                ensure!(web1.ping(address, 2)?.received == 0, "{address} answers on the overlay");
                for port in [80, 7400] {
                    web1.no_tcp(address, port)?;
                }
            }
            web1.ip(&["route", "del", &to, "dev", "eth0"])?;
        }
        let count = |counters: &std::collections::BTreeMap<String, u64>| {
            counters.get("unknown_destination").copied().unwrap_or_default()
        };
        let counted = count(&h1.counters("from_endpoint")?) - count(&before);
        ensure!(counted >= 16, "{counted}");
        // The page exists, and a host on the underlay can read it.
        scene.stranger.netns.curl(&format!("http://{}/", h1.address))?;
        scene.works()
    });
}
