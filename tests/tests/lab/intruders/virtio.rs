//! Frames that web1 leaves unfinished: a later device is to write a checksum at any place, or to cut the frame in
//! any way. Its packet socket takes such a description (PACKET_VNET_HDR), and any protocol beside the frame.

use std::{iter, time::Duration};

use anyhow::{Result, ensure};
use etherparse::IpNumber;
use overlay_lab::{
    capture::Capture,
    eventually,
    raw::{Raw, Virtio},
};

use super::{
    forged::summing_to,
    packets::{self, VXLAN_PORT, fragment, ipv4, patched, tagged, vxlan_datagram},
    scene::{Scene, party},
    table::{self, Leg, PASSES, Table},
};
use crate::{
    frames::{self, MARK, Party},
    support::{OUTSIDE, scenario},
};

const BOUND: Duration = Duration::from_secs(5);
const API_PORT: u16 = 7400;
/// A filter for what is for a node itself, and for pings.
const SERVICES: &str = "icmp[0] == 8 or udp port 4789 or tcp port 7400";
const LINK_HEADER: u16 = 14;
const L4: u16 = 34;
const UDP_PAYLOAD: u16 = L4 + 8;
const UDP_CHECKSUM: u16 = 6;
const TCP_CHECKSUM: u16 = 16;
/// Bytes of a frame that is long enough to be cut.
const LONG: usize = 400;

/// Where the first unfinished checksum begins that a frame has when it leaves web1. `frame` may be heard.
///
/// Newer kernels refuse to send a checksum that begins in the link header. In older ones (seen on 6.1) the veth pair takes it
/// for finished (`skb_postpull_rcsum`): no device writes it any more, so the frame is as harmless as any other, and no
/// program drops it.
fn first_place(scene: &Scene, frame: &[u8]) -> Result<u16> {
    let host = &scene.hosts[0];
    let counted = || {
        let counters = host.counters("from_endpoint")?;
        let of = |reason: &str| counters.get(reason).copied().unwrap_or_default();
        anyhow::Ok([of("unfinished_checksum"), of("forwarded")])
    };
    let before = counted()?;
    let sent = scene.web1.netns.send_raw("eth0", &[described(frame, Virtio::unfinished(0, 0))])?;
    if sent == 0 {
        return Ok(0);
    }
    eventually("the frame is counted", BOUND, || {
        let [dropped, forwarded] = counted()?;
        ensure!(dropped > before[0] || forwarded > before[1], "{dropped}, {forwarded}");
        Ok(if dropped > before[0] { 0 } else { LINK_HEADER })
    })
}

/// The frame with an unfinished checksum at each place that begins between `first` and `end`, but for its own, which is
/// `own` behind [`L4`].
fn unfinished(frame: &[u8], first: u16, end: u16, own: u16) -> Vec<Raw> {
    let places = (first..end).flat_map(|start| (0..64).map(move |offset| (start, offset)));
    places
        .filter(|&place| place != (L4, own))
        .map(|(start, offset)| described(frame, Virtio::unfinished(start, offset)))
        .collect()
}

fn described(frame: &[u8], virtio: Virtio) -> Raw {
    Raw { frame: frame.to_vec(), virtio: Some(virtio), protocol: 0 }
}

/// The frame, to be cut in every way: each way that virtio names and some that it does not, each with sizes that
/// cannot be.
fn cut(frame: &[u8], checksum: u16) -> Vec<Raw> {
    let mut all = Vec::new();
    for gso_type in
        [0, 1, 2, 3, 4, 5, 6, 0x10, 0x20, 0x40, 0x60, 0x7f, 0x81, 0x83, 0x84, 0x85, 0xff]
    {
        for gso_size in [0, 1, 8, 100, 1448, 0xffff] {
            // The sender's kernel cuts fragments, and no header fits into one byte: see `outward`.
            if gso_type & 0x7f == Virtio::UDP && gso_size == 1 {
                continue;
            }
            for hdr_len in [0, 14, L4, UDP_PAYLOAD, 54, 0xffff] {
                let plain = Virtio { gso_type, gso_size, hdr_len, ..Virtio::default() };
                let sum = Virtio::unfinished(L4, checksum);
                all.push(described(frame, plain));
                all.push(described(frame, Virtio { gso_type, gso_size, hdr_len, ..sum }));
            }
        }
    }
    all
}

/// The frame, with other protocols beside it than it has: ARP, IPv6, tags, LLC, any, and none.
fn called(frame: &[u8]) -> Vec<Raw> {
    let protocols = [0x0806, 0x86dd, 0x8100, 0x88a8, 4, 1, 3, 0x88b5, 0xffff];
    let raw = |protocol| Raw { frame: frame.to_vec(), virtio: None, protocol };
    protocols.into_iter().map(raw).collect()
}

/// A UDP datagram in a frame, long enough to be cut.
fn long_udp(from: Party, to: Party, port: u16, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload.resize(LONG, 0x5a);
    ipv4(from, to, IpNumber::UDP, &packets::udp(50_000, port, &payload), |_| {})
}

/// A TCP segment in a frame, long enough to be cut.
fn long_tcp(from: Party, to: Party, port: u16) -> Vec<u8> {
    let mut segment = frames::syn(from, to, port)[usize::from(L4)..].to_vec();
    segment[13] = 0x10;
    segment.resize(LONG, 0x5a);
    ipv4(from, to, IpNumber::TCP, &segment, |_| {})
}

/// What the leg that leads out drops.
fn outward(scene: &Scene, first: u16) -> Result<Table> {
    let ends = scene.outward()?;
    let (own, [h1, h2, _]) = (ends.own, ends.nodes);
    let mut table = Table::by(Leg::Gateway);
    let inner = frames::udp(party(&scene.near)?, party(&scene.far)?, 7);
    let vxlan = &vxlan_datagram(scene.other_vni, &inner)[8..];
    for node in [h1, h2] {
        let frame = summing_to(own, node, 5000, vxlan, VXLAN_PORT);
        let everywhere = unfinished(&frame, first, UDP_PAYLOAD, UDP_CHECKSUM);
        table.described("a checksum anywhere in UDP", "unfinished_checksum", everywhere);
        let frame = frames::syn(own, node, 5000);
        let everywhere = unfinished(&frame, first, 60, TCP_CHECKSUM);
        table.described("a checksum anywhere in TCP", "unfinished_checksum", everywhere);
        let frame =
            packets::icmp(own, node, &[&[8, 0, 0, 0, 0, 0, 0, 0], MARK.as_bytes()].concat());
        let everywhere = unfinished(&frame, first, 50, 0xffff);
        table.described("a checksum anywhere in ICMP", "unfinished_checksum", everywhere);
        let piece = &packets::udp(50_000, 5000, vxlan)[8..];
        let frame = fragment(own, node, IpNumber::UDP, piece, (64, false));
        let everywhere = unfinished(&frame, first, L4, 0xffff);
        table.described("a checksum before a fragment", "unfinished_checksum", everywhere);

        let to_vxlan = long_udp(own, node, VXLAN_PORT, vxlan);
        table.described("VXLAN to be cut", "vxlan_from_endpoint", cut(&to_vxlan, UDP_CHECKSUM));
        let bytes =
            Virtio { gso_type: Virtio::UDP, gso_size: 1, ..Virtio::unfinished(L4, UDP_CHECKSUM) };
        table.described("VXLAN in bytes", "malformed", [described(&to_vxlan, bytes)]);
        let to_api = long_tcp(own, node, API_PORT);
        table.described("TCP to the API, to be cut", "controller_port", cut(&to_api, TCP_CHECKSUM));
        // A super-packet that is too long for the field of its length (6.3, commit b1a78b9b9886).
        let sizes = Virtio {
            gso_type: Virtio::TCPV4,
            gso_size: 100,
            hdr_len: 54,
            ..Virtio::unfinished(L4, 16)
        };
        let no_length = described(&patched(to_api.clone(), 16, &[0, 0]), sizes);
        table.described("TCP to the API without a length", "controller_port", [no_length]);
        table.described("VXLAN by another name", "vxlan_from_endpoint", called(&to_vxlan));
        table.described("TCP to the API by another name", "controller_port", called(&to_api));
    }
    let spoofed = long_udp(own.with(ends.neighbour.ip), ends.stranger, 7, MARK.as_bytes());
    table.described("a neighbour's address, to be cut", "spoofed_ip", cut(&spoofed, UDP_CHECKSUM));
    table.described("a neighbour's address by another name", "spoofed_ip", called(&spoofed));
    let to_neighbour = long_udp(own, ends.neighbour, 7, MARK.as_bytes());
    table.described(
        "to a neighbour, to be cut",
        "gateway_neighbour",
        cut(&to_neighbour, UDP_CHECKSUM),
    );
    let on_vlan = tagged(&to_neighbour, packets::VLAN, 0);
    table.described("in a tag, to be cut", "vlan_unsupported", cut(&on_vlan, UDP_CHECKSUM));
    Ok(table)
}

/// What the leg on web1's own network drops.
fn within(scene: &Scene, first: u16) -> Result<Table> {
    let own = party(&scene.web1)?;
    let mut table = Table::by(Leg::Network);
    for to in [party(&scene.neighbour)?, party(&scene.web2)?] {
        let frame = frames::udp(own, to, 5000);
        let everywhere = unfinished(&frame, first, UDP_PAYLOAD, UDP_CHECKSUM);
        table.described("a checksum anywhere in UDP", "unfinished_checksum", everywhere);
        let everywhere = unfinished(&frames::syn(own, to, 5000), first, 60, TCP_CHECKSUM);
        table.described("a checksum anywhere in TCP", "unfinished_checksum", everywhere);
        let spoofed = long_udp(own.with(to.ip), to, 7, MARK.as_bytes());
        table.described("another's address, to be cut", "spoofed_ip", cut(&spoofed, UDP_CHECKSUM));
        table.described("another's address by another name", "spoofed_ip", called(&spoofed));
        let spoofed = long_tcp(own.behind(to.mac), to, 7);
        table.described("another's MAC, to be cut", "spoofed_mac", cut(&spoofed, TCP_CHECKSUM));
        let server = long_udp(own, to, 68, MARK.as_bytes());
        table.described("DHCP to be cut", "dhcp_server", cut(&server, UDP_CHECKSUM));
        table.described("DHCP by another name", "dhcp_server", called(&server));
    }
    for to in [party(&scene.near)?, party(&scene.far)?] {
        let elsewhere = long_udp(own, to, 7, MARK.as_bytes());
        let all = cut(&elsewhere, UDP_CHECKSUM);
        table.described("to the other network, to be cut", "unknown_destination", all);
        let elsewhere = called(&elsewhere);
        table.described("to the other network by another name", "unknown_destination", elsewhere);
    }
    Ok(table)
}

/// Super-packets that the leg lets out, each piece of which would look like VXLAN or like a segment to an API if it
/// were cut in the wrong place.
fn pieces(scene: &Scene) -> Result<Table> {
    const PIECE: u16 = 96;
    let ends = scene.outward()?;
    let own = ends.own;
    let mut table = Table::by(Leg::Gateway);
    let inner = frames::udp(party(&scene.near)?, party(&scene.far)?, 7);
    let mut piece = vxlan_datagram(scene.other_vni, &inner);
    piece.resize(PIECE.into(), 0x5a);
    let payload: Vec<u8> = iter::repeat_n(piece, 6).flatten().collect();
    for node in ends.nodes {
        let datagram = packets::udp(50_000, 5000, &payload);
        let udp = ipv4(own, node, IpNumber::UDP, &datagram, |_| {});
        let segment = &frames::syn(own, node, 5000)[usize::from(L4)..][..20];
        let segment = [&patched(segment.to_vec(), 13, &[0x10])[..], &payload].concat();
        let tcp = ipv4(own, node, IpNumber::TCP, &segment, |_| {});
        for (gso_type, frame, hdr_len, checksum) in [
            (Virtio::UDP, &udp, UDP_PAYLOAD, UDP_CHECKSUM),
            (Virtio::UDP_L4, &udp, UDP_PAYLOAD, UDP_CHECKSUM),
            (Virtio::TCPV4, &tcp, L4 + 20, TCP_CHECKSUM),
        ] {
            for gso_size in [8, PIECE - 8, PIECE, PIECE + 8] {
                let virtio =
                    Virtio { gso_type, gso_size, hdr_len, ..Virtio::unfinished(L4, checksum) };
                let name = format!("pieces of {gso_size} by {gso_type}");
                table.described(name, PASSES, [described(frame, virtio)]);
            }
        }
    }
    Ok(table)
}

#[test]
fn what_is_finished_later_is_what_was_checked() {
    scenario(OUTSIDE, |lab| {
        let scene = Scene::build(lab)?;
        let [h1, h2, h3] = &scene.hosts;
        let mut victims = scene.victims()?;
        scene.outward_victims(&mut victims)?;
        for host in [h1, h2, h3] {
            victims.listen_for(&host.name, &host.netns, "eth0", SERVICES)?;
        }
        victims.listen_for("h1", &h1.netns, "ov_gwbridge", SERVICES)?;
        // A frame that is described as it is arrives.
        let (own, to) = (party(&scene.web1)?, party(&scene.web2)?);
        let heard = Capture::start(&scene.web2.netns, "eth0", "udp port 7")?;
        let control = packets::udp(50_000, 7, b"this may be heard");
        let control = ipv4(own, to, IpNumber::UDP, &control, |_| {});
        let virtio = Virtio::unfinished(L4, UDP_CHECKSUM);
        ensure!(scene.web1.netns.send_raw("eth0", &[described(&control, virtio)])? == 1, "refused");
        heard.wait_for("udp.dstport == 7")?;

        let first = first_place(&scene, &control)?;
        let tables = [outward(&scene, first)?, within(&scene, first)?, pieces(&scene)?];
        table::try_all(&scene, &tables, victims)
    });
}
