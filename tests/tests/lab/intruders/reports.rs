//! What an endpoint says about packets, in ICMP errors: it ends nobody's flow but its own, and makes no way smaller.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use etherparse::IpNumber;
use overlay_lab::{Netns, eventually};

use super::{
    packets::{
        self, Party6, fragmentation_needed, icmp, icmp_error, icmpv6, ipv4, made_of, patched,
    },
    scene::{Scene, party},
    table::{self, Leg, Table},
};
use crate::{
    attack::Victims,
    frames::{MARK, Party},
    support::{Endpoint, OUTSIDE, attach, leg, scenario},
};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// Where the hop limit lies in a frame of IPv6.
const HOP_LIMIT_AT: usize = 14 + 7;
/// The identifier of the echoes, and their payload, which is longer than any of the sizes that are reported.
const ECHO: [u8; 4] = [0x12, 0x34, 0, 1];
const LONG: [u8; 1440] = [0x5a; 1440];

fn echo(kind: u8, from: Party, to: Party) -> Vec<u8> {
    icmp(from, to, &[&[kind, 0, 0, 0][..], &ECHO, &LONG].concat())
}

/// The packet size that a host has noted for the way to an address, as `ip route` says it.
fn believes_in_mtu(netns: &Netns, to: Ipv4Addr) -> Result<bool> {
    Ok(netns.ip(&["route", "get", &to.to_string()])?.contains("mtu"))
}

/// The host translates such a report as it translates the flow that is quoted, so that it would count for all traffic
/// between the two hosts.
#[test]
fn an_endpoint_s_report_of_a_small_mtu_slows_no_host() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, _] = &scene.hosts;
        let ends = scene.outward()?;
        let [_, node, _] = ends.nodes;
        // It began the flow that it reports about.
        scene.web1.netns.send_frames("eth1", [echo(8, ends.own, node)].iter())?;
        scene.web1.netns.reaches(h2.address)?;
        let answer = echo(0, node, ends.own);
        let mut table = Table::by(Leg::Gateway);
        for mtu in [0, 68, 552, 1279, 1280, 1400, u16::MAX] {
            let report = fragmentation_needed(ends.own, node, mtu, &answer);
            table.row(format!("an MTU of {mtu}"), "icmp_from_router", report);
        }
        let redirect = packets::redirect(ends.own, node, ends.stranger, &answer);
        table.row("a redirect", "icmp_from_router", redirect);
        table::try_all(&scene, &[table], Victims::default())?;
        ensure!(!believes_in_mtu(&h2.netns, h1.address)?, "h2 believes it for all of h1");

        // One that may forward is believed, as a router behind the host would be, but not in less than each way carries.
        let router = attach(lab, h1, "forwarder", &["--forwards"])?;
        let out = leg(&router.netns)?;
        let own = Party::new(&out.mac, out.address)?;
        router.netns.send_frames("eth1", [echo(8, own, node)].iter())?;
        router.netns.reaches(h2.address)?;
        let answer = echo(0, node, own);
        let count = || h1.counter("icmp_from_router");
        let before = count()?;
        let less = fragmentation_needed(own, node, 1279, &answer);
        router.netns.send_frames("eth1", [less].iter())?;
        eventually("it is counted", PATIENCE, || {
            ensure!(count()? > before, "not counted");
            Ok(())
        })?;
        ensure!(!believes_in_mtu(&h2.netns, h1.address)?, "h2 believes in 1279 bytes");
        let said = fragmentation_needed(own, node, 1400, &answer);
        router.netns.send_frames("eth1", [said].iter())?;
        eventually("h2 believes it", PATIENCE, || {
            let route = h2.netns.ip(&["route", "get", &h1.address.to_string()])?;
            ensure!(route.contains("mtu 1400"), "{route}");
            Ok(())
        })
    });
}

/// What one endpoint sent to another, as errors quote it.
fn sent(from: Party, to: Party) -> [Vec<u8>; 2] {
    let datagram = packets::udp(6000, 6001, b"what was sent");
    [ipv4(from, to, IpNumber::UDP, &datagram, |_| {}), echo(0, from, to)]
}

/// Errors to the victim about what it sent to another.
fn about_others(own: Party, victim: Party, other: Party) -> Table {
    let mut table = Table::by(Leg::Network);
    let kinds = (0..=15).map(|code| (3, code)).chain((0..=3).map(|code| (5, code)));
    for (kind, code) in kinds.chain([(4, 0), (11, 0), (11, 1), (12, 0)]) {
        let [datagram, answer] = sent(victim, other);
        let mut frames = vec![icmp_error(own, victim, kind, code, &datagram)];
        frames.push(icmp_error(own, victim, kind, code, &answer));
        let whole = frames[0][34..].to_vec();
        frames.push(packets::with_options(own, victim, IpNumber::ICMP, &whole, &[1; 12]));
        frames.push(packets::tagged(&frames[0], packets::VLAN, 0));
        let first = &whole[..32];
        frames.push(packets::fragment(own, victim, IpNumber::ICMP, first, (0, true)));
        table.rows(format!("ICMP {kind}/{code} to {}", victim.ip), "icmp_about_others", frames);
    }
    let reports = sent(victim, other).map(|lost| fragmentation_needed(own, victim, 552, &lost));
    table.rows("a small MTU", "icmp_about_others", reports);
    let own_flow = sent(victim, own);
    let reports = own_flow.clone().map(|lost| fragmentation_needed(own, victim, 552, &lost));
    table.rows("a small MTU of its own flow", "icmp_from_router", reports);
    let redirects = own_flow.map(|lost| packets::redirect(own, victim, other, &lost));
    table.rows("a redirect of its own flow", "icmp_from_router", redirects);
    table
}

/// The same in IPv6.
fn about_others_v6(own: Party, victim: Party, other: Party) -> Table {
    let mut table = Table::by(Leg::Network);
    let [from, to, third]: [Party6; 3] =
        [own, victim, other].map(|who| (who.mac, made_of(who.mac)));
    let lost = icmpv6(to, third, &[&[129, 0, 0, 0][..], &ECHO, b"an answer"].concat());
    let error = |kind: u8, code: u8, rest: u32| {
        let start = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), &lost[14..]].concat();
        let frame = icmpv6(from, to, &[&start[..], MARK.as_bytes()].concat());
        patched(frame, HOP_LIMIT_AT, &[64])
    };
    for kind in [1, 3, 4, 5, 100, 127] {
        let frames = [0, 1, 4].map(|code| error(kind, code, 0));
        table.rows(format!("ICMPv6 {kind} to {}", victim.ip), "icmp_about_others", frames);
    }
    let frames = [0, 68, 1280, 1400].map(|mtu| error(2, 0, mtu));
    table.rows("a small MTU of IPv6", "icmp_from_router", frames);
    table
}

/// Both sockets of a UDP flow between two endpoints.
fn flow(from: &Endpoint, to: &Endpoint) -> Result<[UdpSocket; 2]> {
    let bind = |who: &Endpoint, port: u16| {
        let address = who.address;
        who.netns.enter(move || Ok(UdpSocket::bind((address, port))?))
    };
    let [client, server] = [bind(from, 6000)?, bind(to, 6001)?];
    client.connect(server.local_addr()?)?;
    server.connect(client.local_addr()?)?;
    Ok([client, server])
}

#[test]
fn nobody_slows_or_ends_a_neighbour_s_flow() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let own = party(&scene.web1)?;
        let pairs = [(&scene.neighbour, &scene.web2), (&scene.web2, &scene.neighbour)];
        let sockets = flow(&scene.neighbour, &scene.web2)?;
        let mut tables = Vec::new();
        for (victim, other) in pairs {
            let (victim, other) = (party(victim)?, party(other)?);
            tables.push(about_others(own, victim, other));
            tables.push(about_others_v6(own, victim, other));
        }
        let victims = scene.victims()?;
        table::try_all(&scene, &tables, victims)?;
        for socket in &sockets {
            let error = socket.take_error()?;
            ensure!(error.is_none(), "a flow has ended: {error:?}");
        }
        for (victim, other) in pairs {
            let believes = believes_in_mtu(&victim.netns, other.address).context("the route")?;
            ensure!(!believes, "{} believes it", victim.name);
        }
        Ok(())
    });
}
