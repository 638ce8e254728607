//! Super-packets on VLANs that an endpoint makes itself. They arrive unchanged, whether they are cut on the
//! way or not.

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use overlay_lab::{Netns, capture::Capture, transfer};

use crate::{
    frames::Party,
    offloads::NEEDS,
    support::{Endpoint, pair, scenario},
};

/// A tag: its TPID and its VLAN.
type Tag = (u16, u16);
/// The tags of each sort of frame, the outermost first.
const TAGGED: [&[Tag]; 3] =
    [&[(0x8100, 7)], &[(0x8100, 7), (0x8100, 9)], &[(0x88a8, 5), (0x8100, 6)]];
/// Bytes of a super-packet's payload, and bytes of a segment's payload.
const PAYLOAD: usize = 20_000;
const SEGMENT: u16 = 1300;

#[test]
fn super_packets_come_out_with_their_tags() {
    scenario(NEEDS, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        let all = |how: &str| come_out(&web1, &web2).with_context(|| how.to_owned());
        all("every offload on")?;
        for host in &hosts {
            switch(&host.netns, "tx-udp_tnl-segmentation", false)?;
        }
        all("cut before the underlay")?;
        for host in &hosts {
            switch(&host.netns, "tx-udp_tnl-segmentation", true)?;
        }
        switch(&web1.netns, "tso", false)?;
        all("cut in the endpoint")
    });
}

fn switch(netns: &Netns, offload: &str, on: bool) -> Result<()> {
    ensure!(netns.switch_offload("eth0", offload, on)?, "{offload} is fixed");
    Ok(())
}

/// Sends one super-packet of each sort and waits for all of them.
fn come_out(from: &Endpoint, to: &Endpoint) -> Result<()> {
    let capture = Capture::start(&to.netns, "eth0", "")?;
    let ends = [Party::new(&from.mac, from.address)?, Party::new(&to.mac, to.address)?];
    let sorts = TAGGED.iter().flat_map(|tags| [(*tags, false), (*tags, true)]);
    // Each sort has its own port.
    let sorts: Vec<_> = (1..).zip(sorts).collect();
    for &(port, (tags, v6)) in &sorts {
        let frame = super_packet(ends, (tags, v6, port), &payload(port))?;
        from.netns.send_super_packet("eth0", &frame, SEGMENT)?;
    }
    let (last, _) = sorts.last().context("some")?;
    capture.wait_for(&format!("tcp.dstport == {last} && tcp.seq_raw + tcp.len == {PAYLOAD}"))?;
    let fields = ["tcp.dstport", "tcp.seq_raw", "ieee8021ad.id", "vlan.id", "tcp.payload"];
    let rows = capture.stop()?.fields("tcp", &fields)?;
    for (port, (tags, v6)) in sorts {
        let rows = rows.iter().filter(|row| row.first() == Some(&port.to_string()));
        is_whole(rows, tags, &payload(port)).with_context(|| format!("{tags:x?}, IPv6 {v6}"))?;
    }
    Ok(())
}

fn payload(port: u16) -> Vec<u8> {
    transfer::pattern(PAYLOAD, u64::from(port))
}

fn is_whole<'a>(
    rows: impl Iterator<Item = &'a Vec<String>>,
    tags: &[Tag],
    sent: &[u8],
) -> Result<()> {
    let of = |tpid| {
        let tags = tags.iter().filter(|tag| tag.0 == tpid);
        tags.map(|(_, vlan)| vlan.to_string()).collect::<Vec<_>>().join(",")
    };
    let vlans = [of(0x88a8), of(0x8100)];
    let mut received = String::new();
    for row in rows {
        let [_, at, service, customer, bytes] = &row[..] else { anyhow::bail!("{row:?}") };
        ensure!([service, customer] == vlans.each_ref(), "on {service:?}, {customer:?}");
        ensure!(2 * at.parse::<usize>()? == received.len(), "{at} after {}", received.len() / 2);
        received += bytes;
    }
    let sent: String = sent.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(received == sent, "{} of {PAYLOAD} bytes came", received.len() / 2);
    Ok(())
}

/// A TCP super-packet. Its checksum field holds the sum of the pseudo-header alone (CHECKSUM_PARTIAL),
/// because the device that cuts the packet makes the checksums.
fn super_packet(
    [from, to]: [Party; 2],
    (tags, v6, port): (&[Tag], bool, u16),
    payload: &[u8],
) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2(from.mac, to.mac);
    let (packet, addresses, l4) = if v6 {
        let ends = [from.ip, to.ip].map(|ip| ip.to_ipv6_mapped().octets());
        (link.ipv6(ends[0], ends[1], 64), ends.concat(), 54)
    } else {
        let ends = [from.ip, to.ip].map(|ip| ip.octets());
        (link.ipv4(ends[0], ends[1], 64), ends.concat(), 34)
    };
    let mut frame = Vec::new();
    packet.tcp(40_000, port, 0, 1024).write(&mut frame, payload)?;
    let protocol_and_length = (6 + frame.len() - l4) as u32;
    let words = addresses.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1]));
    let mut sum = words.sum::<u32>() + protocol_and_length;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[l4 + 16..l4 + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    let tags = tags.iter().flat_map(|(tpid, vlan)| [tpid.to_be_bytes(), vlan.to_be_bytes()]);
    frame.splice(12..12, tags.flatten());
    Ok(frame)
}
