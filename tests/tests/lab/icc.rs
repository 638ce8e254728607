//! Isolation of endpoints: one reaches the gateway and never a neighbour, whatever rules nftables has.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use etherparse::ArpOperation;
use overlay_lab::{Host, Lab, Netns, capture::Capture, eventually, mirror};

use crate::{
    attack::Attack,
    frames::{self, BROADCAST, MARK, Party},
    support::{Endpoint, NETWORK, OUTSIDE, World, attach, attach_to, leg, mac_of, scenario},
};

const VXLAN_PORT: u16 = 4789;
const API_PORT: u16 = 7400;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 1);

/// Endpoints of one host: the attacker, a neighbour on its network, and an endpoint of another network.
struct Bridge {
    world: World,
    web1: Endpoint,
    neighbour: Endpoint,
    stranger: Endpoint,
}

impl Bridge {
    fn build(lab: &mut Lab) -> Result<Self> {
        let world = World::build(lab)?;
        let h1 = &world.hosts[0];
        h1.overlay(&["network", "create", "other", "--subnet", "10.1.0.0/24"])?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let ports = ["-p", "8080:80", "-p", "127.0.0.1:8081:80"];
        let neighbour = attach(lab, h1, "neighbour", &ports)?;
        let stranger = attach_to("other", h1, "stranger", lab.container("stranger")?, &[])?;
        for endpoint in [&neighbour, &stranger] {
            mirror::tcp(&endpoint.netns, 80)?;
            mirror::udp(&endpoint.netns, 7)?;
        }
        Ok(Self { world, web1, neighbour, stranger })
    }

    fn host(&self) -> &Host {
        &self.world.hosts[0]
    }

    /// Frames of every kind that web1 may not send.
    fn attack(&self) -> Result<Attack> {
        let own = party(&self.web1.netns)?;
        let gateway = Party::new(&mac_of(GATEWAY), GATEWAY)?;
        let outside = gateway.with(self.world.outside.address);
        let reply = ArpOperation::REPLY;
        let mut attack = Attack::default();
        attack.extend([
            ("broadcast_off", frames::udp(own, own.with([255; 4]).behind(BROADCAST), 7)),
            ("broadcast_off", frames::udp(own, own.with([172, 18, 255, 255]).behind(BROADCAST), 7)),
            (
                "broadcast_off",
                frames::udp(own, own.with([224, 0, 0, 251]).behind([1, 0, 0x5e, 0, 0, 0xfb]), 5353),
            ),
            ("broadcast_off", frames::udp(own, gateway.with([224, 0, 0, 251]), 5353)),
            ("gateway_protocol", frames::ipv6(own)),
            ("arp_own_address", frames::arp(ArpOperation::REQUEST, own, own, BROADCAST)?),
            // A receiver that believes this answer would send web1 the packets for the gateway.
            ("spoofed_ip", frames::arp(reply, own.with(GATEWAY), own, BROADCAST)?),
            ("loopback_destination", frames::syn(own, gateway.with([127, 0, 0, 1]), API_PORT)),
            ("loopback_destination", frames::syn(own, gateway.with([127, 0, 0, 1]), 8081)),
            ("vxlan_from_endpoint", frames::udp(own, outside, VXLAN_PORT)),
            ("vxlan_from_endpoint", frames::udp(own, gateway, VXLAN_PORT)),
            ("spoofed_mac", frames::udp(own.behind(gateway.mac), outside, 7)),
        ]);
        for victim in [party(&self.neighbour.netns)?, party(&self.stranger.netns)?] {
            let request = ArpOperation::REQUEST;
            attack.extend([
                ("gateway_neighbour", frames::udp(own, victim, 7)),
                ("gateway_neighbour", frames::syn(own, victim, 80)),
                // The neighbour's address with the gateway's MAC, and the gateway's address with the
                // neighbour's MAC.
                ("gateway_neighbour", frames::syn(own, victim.behind(gateway.mac), 80)),
                ("gateway_neighbour", frames::syn(own, gateway.behind(victim.mac), 80)),
                ("broadcast_off", frames::udp(own, victim.behind(BROADCAST), 7)),
                ("gateway_neighbour", frames::arp(request, own, victim, BROADCAST)?),
                ("gateway_neighbour", frames::arp(request, own, victim, victim.mac)?),
                ("gateway_neighbour", frames::arp(reply, own, victim, victim.mac)?),
                ("spoofed_ip", frames::arp(reply, own.with(GATEWAY), victim, victim.mac)?),
                ("vlan_unsupported", frames::tagged(own, victim, 7)),
                ("spoofed_mac", frames::udp(victim, outside, 7)),
                ("spoofed_mac", frames::udp(own.behind(victim.mac), outside, 7)),
                ("spoofed_ip", frames::udp(own.with(victim.ip), outside, 7)),
                ("spoofed_ip", frames::udp(own.with(GATEWAY), victim, 7)),
            ]);
        }
        Ok(attack)
    }
}

fn party(netns: &Netns) -> Result<Party> {
    let leg = leg(netns)?;
    Party::new(&leg.mac, leg.address)
}

#[test]
fn no_frame_reaches_a_neighbour_whatever_nftables_holds() {
    scenario(OUTSIDE, |lab| {
        let bridge = Bridge::build(lab)?;
        let (h1, web1) = (bridge.host(), &bridge.web1.netns);
        let attack = bridge.attack()?;
        let router = lab.router()?;
        let heard = [
            Capture::start(&bridge.neighbour.netns, "eth1", "")?,
            Capture::start(&bridge.stranger.netns, "eth1", "")?,
        ];
        let passed = Capture::start(&h1.netns, "ov_gwbridge", "")?;
        let left = Capture::start(&router, "any", "")?;

        for (victim, own_network) in [(&bridge.neighbour, true), (&bridge.stranger, false)] {
            let (address, overlay) = (leg(&victim.netns)?.address, victim.address);
            h1.netns.reaches(address)?;
            ensure!(web1.ping(address, 2)?.received == 0, "a ping of {}", victim.name);
            web1.no_tcp(address, 80)?;
            web1.no_udp(address, 7)?;
            let arping = ["arping", "-c", "1", "-w", "1", "-I", "eth1", &address.to_string()];
            let asked = web1.output(&arping)?;
            ensure!(!asked.status.success(), "{}", asked.stdout);
            // The overlay connects the endpoints of one network, and no others.
            if own_network {
                web1.reaches(overlay)?;
            } else {
                ensure!(web1.ping(overlay, 2)?.received == 0, "a ping of {}", victim.name);
            }
        }

        attack.is_counted((web1, "eth1"), h1, &["from_gateway"])?;

        let done = AtomicBool::new(false);
        thread::scope(|scope| -> Result<()> {
            let attacker = scope.spawn(|| -> Result<()> {
                while !done.load(Ordering::Relaxed) {
                    attack.send(web1, "eth1")?;
                }
                Ok(())
            });
            let flushed = (0..3).try_for_each(|_| flush(h1));
            done.store(true, Ordering::Relaxed);
            attacker.join().map_err(|_| anyhow!("the attacker panicked"))?.and(flushed)
        })?;

        let own = party(web1)?;
        let traces = format!(
            "frame contains \"{MARK}\" || eth.src == {} || ip.addr == {ip} \
             || arp.src.proto_ipv4 == {ip}",
            mac_of(own.ip),
            ip = own.ip
        );
        for capture in heard {
            let packets = capture.stop()?;
            ensure!(!packets.fields("icmp", &["frame.number"])?.is_empty(), "nothing captured");
            let traces = packets.fields(&traces, &["frame.number", "_ws.col.Info"])?;
            ensure!(traces.is_empty(), "a neighbour heard {traces:?}");
        }
        for capture in [passed, left] {
            let marked = format!("frame contains \"{MARK}\"");
            let marked = capture.stop()?.fields(&marked, &["frame.number", "_ws.col.Info"])?;
            ensure!(marked.is_empty(), "passed: {marked:?}");
        }
        Ok(())
    });
}

/// Removes all rules, and waits until the node has restored its own.
fn flush(host: &Host) -> Result<()> {
    let rules = || host.netns.run(&["nft", "--stateless", "list", "ruleset"]);
    let before = rules()?;
    host.netns.run(&["nft", "flush", "ruleset"])?;
    eventually("the rules are back", Duration::from_secs(1), || {
        if rules()? == before { Ok(()) } else { bail!("not yet") }
    })
}

#[test]
fn no_endpoint_passes_for_a_vtep_or_reaches_a_controller() {
    scenario(OUTSIDE, |lab| {
        let bridge = Bridge::build(lab)?;
        let [h1, h2] = &bridge.world.hosts;
        let (web1, outside) = (&bridge.web1.netns, &bridge.world.outside);
        let router = lab.router()?;
        let wire = Capture::start(&router, "any", "udp port 4789 or tcp port 7400")?;
        let before = h1.counters("from_gateway")?;
        let raised = |reason: &str| -> Result<u64> {
            let now = h1.counters("from_gateway")?;
            let count = |all: &BTreeMap<String, u64>| all.get(reason).copied().unwrap_or_default();
            Ok(count(&now) - count(&before))
        };

        let vteps = [h1.address, h2.address, outside.address, GATEWAY];
        for to in vteps {
            web1.enter(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
                socket.send_to(MARK.as_bytes(), (to, VXLAN_PORT)).context("to send")?;
                Ok(())
            })?;
        }
        ensure!(raised("vxlan_from_endpoint")? == 4, "{}", raised("vxlan_from_endpoint")?);

        for node in [h1, h2] {
            web1.no_tcp(node.address, API_PORT)?;
        }
        ensure!(raised("controller_port")? >= 2, "{}", raised("controller_port")?);
        // A port published at that same address is reachable, and so is the node's API from the hosts.
        web1.seen_over_tcp(h1.address, 8080)?;
        ensure!(h2.netns.no_tcp(h1.address, API_PORT).is_err(), "h2 does not reach h1's API");

        let packets = wire.stop()?;
        let vxlan = format!("udp.dstport == 4789 && frame contains \"{MARK}\"");
        let vxlan = packets.fields(&vxlan, &["ip.src", "ip.dst"])?;
        ensure!(vxlan.is_empty(), "left the host: {vxlan:?}");
        Ok(())
    });
}

#[test]
fn endpoints_of_a_no_icc_network_reach_the_gateway_only() {
    scenario(OUTSIDE, |lab| {
        let world = World::build(lab)?;
        let [h1, h2] = &world.hosts;
        h1.overlay(&["network", "create", "quiet", "--subnet", "10.3.0.0/24", "--no-icc"])?;
        let attach = |host, name: &str, more: &[&str]| {
            attach_to("quiet", host, name, lab.container(name)?, more)
        };
        let q1 = attach(h1, "q1", &[])?;
        let near = attach(h1, "near", &["-p", "8080:80"])?;
        let far = attach(h2, "far", &["-p", "8080:80"])?;
        let mut heard = Vec::new();
        for endpoint in [&near, &far] {
            mirror::tcp(&endpoint.netns, 80)?;
            heard.push(Capture::start(&endpoint.netns, "eth0", "")?);
        }
        let before = h1.counter("icc_off")?;
        let own = Party::new(&q1.mac, q1.address)?;
        let nobody = |q1: &Netns| -> Result<()> {
            for endpoint in [&near, &far] {
                ensure!(q1.ping(endpoint.address, 2)?.received == 0, "{} answers", endpoint.name);
                q1.no_tcp(endpoint.address, 80)?;
                let victim = Party::new(&endpoint.mac, endpoint.address)?;
                q1.send_frame("eth0", &frames::udp(own, victim, 7))?;
            }
            Ok(())
        };
        nobody(&q1.netns)?;
        ensure!(h1.counter("icc_off")? >= before + 2, "{}", h1.counter("icc_off")?);
        flush(h1)?;
        nobody(&q1.netns)?;

        // Every endpoint reaches the outside, and the published ports of the two endpoints are reachable from
        // everywhere.
        q1.netns.reaches(world.outside.address)?;
        let seen = q1.netns.seen_over_tcp(world.outside.address, 80)?;
        ensure!(seen == h1.address, "{seen}");
        for host in [h1, h2] {
            q1.netns.seen_over_tcp(host.address, 8080)?;
            world.outside.netns.seen_over_tcp(host.address, 8080)?;
        }
        for capture in heard {
            let from = format!("eth.src == {} || frame contains \"{MARK}\"", q1.mac);
            let frames = capture.stop()?.fields(&from, &["frame.number", "_ws.col.Info"])?;
            ensure!(frames.is_empty(), "heard: {frames:?}");
        }
        // The other networks of these nodes still work.
        let web1 = crate::support::attach(lab, h1, "web1", &[])?;
        let web2 = crate::support::attach(lab, h2, "web2", &[])?;
        web1.netns.reaches(web2.address).context(NETWORK)
    });
}
