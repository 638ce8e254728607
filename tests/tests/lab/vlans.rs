//! Super-packets on VLANs of an endpoint's own: cut on the way or not, what comes out is what went in.

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use overlay_lab::{Netns, Requirement, capture::Capture, transfer};

use crate::{
    frames::Party,
    support::{Endpoint, pair, scenario},
};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ethtool"),
    Requirement::Tool("tcpdump"),
    Requirement::Tool("tshark"),
];
/// A tag's TPID, and its VLAN.
type Tag = (u16, u16);
/// Outermost first.
const TAGGED: [&[Tag]; 3] =
    [&[(0x8100, 7)], &[(0x8100, 7), (0x8100, 9)], &[(0x88a8, 5), (0x8100, 6)]];
/// Bytes, and of each segment.
const PAYLOAD: usize = 20_000;
const SEGMENT: u16 = 1300;

#[test]
fn super_packets_come_out_with_their_tags() {
    scenario(NEEDS, |lab| {
        let (hosts, [web1, web2]) = pair(lab)?;
        let mut sent = 0;
        let mut all = |how: &str| -> Result<()> {
            for tags in TAGGED {
                for v6 in [false, true] {
                    sent += 1;
                    let what = || format!("{how}: {tags:x?}, IPv6 {v6}");
                    comes_out(&web1, &web2, tags, v6, sent).with_context(what)?;
                }
            }
            Ok(())
        };
        all("every offload on")?;
        for host in &hosts {
            switch(&host.netns, "tx-udp_tnl-segmentation", "off")?;
        }
        all("cut before the underlay")?;
        for host in &hosts {
            switch(&host.netns, "tx-udp_tnl-segmentation", "on")?;
        }
        switch(&web1.netns, "tso", "off")?;
        all("cut in the endpoint")
    });
}

fn switch(netns: &Netns, offload: &str, state: &str) -> Result<()> {
    netns.run(&["ethtool", "-K", "eth0", offload, state]).map(drop)
}

/// Sends one and waits for all of it.
fn comes_out(from: &Endpoint, to: &Endpoint, tags: &[Tag], v6: bool, seed: u16) -> Result<()> {
    let capture = Capture::start(&to.netns, "eth0", "")?;
    let payload = transfer::pattern(PAYLOAD, u64::from(seed));
    let frame = super_packet(
        Party::new(&from.mac, from.address)?,
        Party::new(&to.mac, to.address)?,
        (tags, v6, seed),
        &payload,
    )?;
    from.netns.send_super_packet("eth0", &frame, SEGMENT)?;
    let end = PAYLOAD as u32;
    let last = format!("tcp.dstport == {seed} && tcp.seq_raw + tcp.len == {end}");
    capture.wait_for(&last)?;
    let fields = ["tcp.seq_raw", "ieee8021ad.id", "vlan.id", "tcp.payload"];
    let rows = capture.stop()?.fields(&format!("tcp.dstport == {seed}"), &fields)?;
    let of = |tpid| {
        let tags = tags.iter().filter(|tag| tag.0 == tpid);
        tags.map(|(_, vlan)| vlan.to_string()).collect::<Vec<_>>().join(",")
    };
    let vlans = [of(0x88a8), of(0x8100)];
    let mut received = String::new();
    for row in &rows {
        let [at, service, customer, bytes] = &row[..] else { anyhow::bail!("{row:?}") };
        ensure!([service, customer] == vlans.each_ref(), "on {service:?}, {customer:?}");
        ensure!(2 * at.parse::<usize>()? == received.len(), "{at} after {}", received.len() / 2);
        received += bytes;
    }
    let sent: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(received == sent, "{} of {PAYLOAD} bytes came", received.len() / 2);
    Ok(())
}

/// TCP, whose checksum is left to who cuts it: of the pseudo-header alone (CHECKSUM_PARTIAL).
fn super_packet(
    from: Party,
    to: Party,
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
