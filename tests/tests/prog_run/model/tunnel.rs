//! VXLAN around a frame (RFC 7348, section 5), and the known properties of its UDP source port.

use overlay_common::{HopEntry, VXLAN_OVERHEAD};

use super::{
    Frame,
    bytes::{Bytes, ETHERNET, IPV4, IPV6, checksum},
};

/// Offset of the outer UDP source port.
pub(crate) const SOURCE_PORT_AT: usize = 34;

/// The frame in a packet to a VTEP: the headers of HOPS, with the packet's own fields filled in. The outer type of
/// service has those bits of the inner one that `tos_mask` has.
pub(super) fn around(inner: &[u8], hop: &HopEntry, vni: u32, tos_mask: u8) -> Frame {
    let mut outer = hop.header;
    // The field of a super-packet that is too long for it is 0 until the packet is cut.
    let be = |len: usize| u16::try_from(len).unwrap_or(0).to_be_bytes();
    outer[15] = tos(inner) & tos_mask;
    outer[16..18].copy_from_slice(&be(20 + 8 + 8 + inner.len()));
    outer[38..40].copy_from_slice(&be(8 + 8 + inner.len()));
    outer[46..49].copy_from_slice(&vni.to_be_bytes()[1..]);
    let sum = checksum(&outer[14..34]);
    outer[24..26].copy_from_slice(&sum.to_be_bytes());
    Frame { tunnelled: true, ..Frame::plain(&[&outer, inner].concat()) }
}

/// DSCP and ECN of an IP packet. The outer header has the same ECN (RFC 6040, section 4.1, normal mode). Both are 0
/// for a tagged frame, because the receiving node does not look for marks behind the tag.
fn tos(inner: &[u8]) -> u8 {
    let frame = Bytes(inner);
    let start = frame.be16(ETHERNET);
    match (frame.be16(12), start) {
        (Ok(IPV4), Ok(start)) => start as u8,
        (Ok(IPV6), Ok(start)) => (start >> 4) as u8,
        _ => 0,
    }
}

/// The fields that identify the flow of an encapsulated frame, where they are easy to find: UDP and TCP in
/// whole IPv4 packets without options. Such a flow keeps its outer source port, whatever other fields change.
pub(crate) fn flow(packet: &[u8]) -> Option<[u8; 13]> {
    let frame = Bytes(packet).from(VXLAN_OVERHEAD.into());
    let ip = frame.from(ETHERNET);
    let protocol = ip.byte(9).ok()?;
    let whole = ip.be16(6).ok()? & 0x3fff == 0;
    if frame.be16(12) != Ok(IPV4) || ip.byte(0) != Ok(0x45) || !whole {
        return None;
    }
    let ports: [u8; 4] = ip.array(20).ok()?;
    let addresses: [u8; 8] = ip.array(12).ok()?;
    matches!(protocol, 6 | 17).then(|| {
        let mut flow = [0; 13];
        flow[0] = protocol;
        flow[1..9].copy_from_slice(&addresses);
        flow[9..].copy_from_slice(&ports);
        flow
    })
}
