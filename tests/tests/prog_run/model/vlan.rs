//! VLAN tags (IEEE 802.1Q). On a VLAN that an endpoint makes, only its MAC is checked. VLAN 0 means no VLAN:
//! a receiver takes such a frame as untagged, so it is checked like an untagged one.

use overlay_common::DropReason;

use super::{
    Incoming,
    bytes::{ARP, Bytes, ETHERNET},
};

/// Length of a tag.
pub(super) const TAG: usize = 4;

/// Returns true for the ethertypes of 802.1Q and 802.1ad.
pub(super) fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, 0x8100 | 0x88a8)
}

/// The part of a frame that is checked against the sender's known addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inside {
    /// A packet of this ethertype, which begins at this offset.
    Packet(u16, usize),
    /// Nothing, because the frame is on a VLAN.
    OnVlan,
}

/// The part behind the first tag, or the whole contents of a frame without a tag.
pub(super) fn inside(frame: Bytes<'_>) -> Result<Inside, DropReason> {
    let ethertype = frame.be16(12)?;
    if !is_tag(ethertype) {
        return Ok(Inside::Packet(ethertype, ETHERNET));
    }
    let (control, behind) = (frame.be16(ETHERNET)?, frame.be16(ETHERNET + 2)?);
    if control & 0xfff != 0 {
        return Ok(Inside::OnVlan);
    }
    if behind == ARP || is_tag(behind) {
        return Err(DropReason::PriorityTag);
    }
    Ok(Inside::Packet(behind, ETHERNET + TAG))
}

/// The number of the VLAN whose tag lies beside the frame, and the frame without the tag.
pub(super) fn beside(incoming: Incoming<'_>) -> Option<(u16, Vec<u8>)> {
    let frame = Bytes(incoming.bytes);
    let tagged = incoming.tag_beside && frame.be16(12).is_ok_and(is_tag);
    let control = frame.be16(ETHERNET).ok().filter(|_| tagged)?;
    let mut untagged = incoming.bytes.to_vec();
    untagged.drain(12..12 + TAG);
    Some((control & 0xfff, untagged))
}
