//! Frames that are too long for the path, and the answers to their senders (RFC 1191, RFC 8201).

use overlay_common::DropReason;

use super::{
    End, Frame, Incoming, Way,
    bytes::{Bytes, ETHERNET, IPV4, IPV6, checksum},
    vlan::{self, TAG, is_tag},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Bytes of the packet that the answer quotes.
const QUOTED: usize = 456;

/// Returns `fits` if the frame or a segment of it is longer than that.
pub(super) fn limit(frame: Incoming<'_>, fits: usize) -> Option<usize> {
    let longest = match frame.skb.gso_size {
        0 => Some(frame.bytes.len()),
        // Each segment will have the tag that lies beside the frame.
        size => match vlan::beside(frame) {
            Some((_, untagged)) => segment(Bytes(&untagged), size as usize).map(|len| len + TAG),
            None => segment(Bytes(frame.bytes), size as usize),
        },
    };
    // A frame as small as this fits every path, and no segments are computed. With outer IPv4, UDP and VXLAN
    // it has 552 bytes, which is the least MTU that the kernel accepts for a path.
    let is_small = frame.bytes.len() + 20 + 8 + 8 <= 552;
    (!is_small && longest? > fits).then_some(fits)
}

/// Bytes of the tag that lies beside the frame.
pub(super) fn tag_beside(frame: Incoming<'_>) -> usize {
    let is_tagged = frame.tag_beside && Bytes(frame.bytes).be16(12).is_ok_and(is_tag);
    if is_tagged { TAG } else { 0 }
}

/// Bytes of a segment as the kernel will cut it. `None` if the headers are not the plain ones.
fn segment(frame: Bytes<'_>, size: usize) -> Option<usize> {
    let ip = frame.from(ETHERNET);
    let (protocol, l4) = match frame.be16(12).ok()? {
        IPV4 if ip.byte(0) == Ok(0x45) => (ip.byte(9).ok()?, 20),
        IPV6 => (ip.byte(6).ok()?, 40),
        _ => return None,
    };
    ip.at_least(l4).ok()?;
    let header = match protocol {
        // The TCP header must be there up to its flags.
        TCP => {
            ip.at_least(l4 + 14).ok()?;
            usize::from(ip.byte(l4 + 12).ok()? >> 4) * 4
        }
        UDP => 8,
        _ => return None,
    };
    Some(ETHERNET + l4 + header + size)
}

/// The ICMP message that goes back to the sender in the destination's name. Returns an error for a frame
/// about which there must be no message, and which is dropped without one.
pub(super) fn answer(frame: Incoming<'_>, fits: usize) -> Result<End, DropReason> {
    // A tag that lies beside the frame stays there, so that the answer is on the same VLAN.
    let tag = tag_beside(frame);
    let (link, packet) = frame.bytes.split_at(ETHERNET + tag);
    let mtu = (fits - ETHERNET - tag) as u16;
    let message = match Bytes(link).be16(12 + tag)? {
        IPV4 => ipv4(Bytes(packet), mtu)?,
        IPV6 => ipv6(Bytes(packet), mtu)?,
        _ => return Err(DropReason::TooBig),
    };
    let bytes = [&link[6..12], &link[..6], &link[12..], &message].concat();
    let way = Way::OutOf(frame.skb.ifindex);
    Ok(End::Told(way, Frame::plain(&bytes)))
}

fn ipv4(ip: Bytes<'_>, mtu: u16) -> Result<Vec<u8>, DropReason> {
    ip.at_least(20)?;
    // There is no message about a later fragment or an ICMP error. Anything but an echo request or reply is
    // taken for an error (RFC 1122, section 3.2.2).
    let kind = ip.byte(usize::from(ip.byte(0)? & 0xf) * 4);
    let is_error = ip.byte(9)? == 1 && !matches!(kind, Ok(0 | 8));
    if ip.be16(6)? & 0x1fff != 0 || is_error {
        return Err(DropReason::TooBig);
    }
    let quoted = &ip.0[..QUOTED];
    let mut icmp = [&[3, 4, 0, 0, 0, 0], &mtu.to_be_bytes()[..], quoted].concat();
    let sum = checksum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&sum);
    let total = (20 + icmp.len()) as u16;
    let start =
        [0x45, 0, total.to_be_bytes()[0], total.to_be_bytes()[1], 0, 0, 0x40, 0, 64, 1, 0, 0];
    let mut header = [&start[..], &ip.0[16..20], &ip.0[12..16]].concat();
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    Ok([header, icmp].concat())
}

fn ipv6(ip: Bytes<'_>, mtu: u16) -> Result<Vec<u8>, DropReason> {
    ip.at_least(40)?;
    // Types below 128 are errors (RFC 4443, section 2.1).
    const ICMPV6: u8 = 58;
    if ip.byte(6)? == ICMPV6 && !matches!(ip.byte(40), Ok(128..)) {
        return Err(DropReason::TooBig);
    }
    let (from, to) = (&ip.0[24..40], &ip.0[8..24]);
    let mut icmp = [&[2, 0, 0, 0, 0, 0], &mtu.to_be_bytes()[..], &ip.0[..QUOTED]].concat();
    let length = (icmp.len() as u16).to_be_bytes();
    // The pseudo-header of RFC 8200, section 8.1.
    let pseudo = [from, to, &[0, 0], &length, &[0, 0, 0, ICMPV6], &icmp].concat();
    icmp[2..4].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    Ok([&[0x60, 0, 0, 0], &length[..], &[ICMPV6, 64], from, to, &icmp].concat())
}
