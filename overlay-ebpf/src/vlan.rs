//! VLAN tags (IEEE 802.1Q). Before a program sees a frame, the kernel takes the outermost tag out and keeps it
//! beside the frame; a second tag lies in the frame. On the wire both lie in it.
//!
//! Endpoints may make VLANs among themselves, and use any addresses there: of such a frame only the MAC is
//! checked. But VLAN 0 is no VLAN: a receiver treats such a frame as untagged, so it is checked as an untagged
//! one is.

use crate::{
    frame::{self, header},
    headers::{BehindTpid, ETH_P_ARP, Eth, Tag, is_vlan},
};
use aya_ebpf::{helpers::bpf_skb_vlan_pop, programs::TcContext};
use overlay_common::DropReason;

/// Greatest number of tags of one frame that are carried.
pub const TAGS_MAX: usize = 2;

/// What is checked against what is known of the endpoint.
#[derive(Clone, Copy)]
pub struct Inside {
    /// Type of the packet; [`UNCHECKED`] on a VLAN.
    pub ethertype: u16,
    /// Where its header lies.
    pub l3: usize,
}

/// No packet has this type.
const UNCHECKED: u16 = 0;

/// The packet behind the tags of a frame from an endpoint.
#[inline(always)]
pub fn inside(ctx: &TcContext, eth: Eth) -> Result<Inside, DropReason> {
    let l3 = size_of::<Eth>();
    match frame::stripped_tag(ctx) {
        Some(tag) => behind(tag.vlan(), eth.ethertype(), l3),
        None => inside_at(ctx, eth, 0),
    }
}

/// The packet behind the tags of the frame that begins at `at`.
#[inline(always)]
pub fn inside_at(ctx: &TcContext, eth: Eth, at: usize) -> Result<Inside, DropReason> {
    let l3 = at + size_of::<Eth>();
    if !is_vlan(eth.ethertype()) {
        return Ok(Inside { ethertype: eth.ethertype(), l3 });
    }
    frame::linear(ctx, l3 + size_of::<BehindTpid>())?;
    let behind_tpid: &BehindTpid = header(ctx, l3)?;
    behind(behind_tpid.vlan(), behind_tpid.ethertype(), l3 + size_of::<BehindTpid>())
}

#[inline(always)]
fn behind(vlan: u16, ethertype: u16, l3: usize) -> Result<Inside, DropReason> {
    if vlan != 0 {
        return Ok(Inside { ethertype: UNCHECKED, l3 });
    }
    if ethertype == ETH_P_ARP || is_vlan(ethertype) {
        return Err(DropReason::PriorityTag);
    }
    Ok(Inside { ethertype, l3 })
}

/// The tags that were taken out of a frame, outermost first.
#[derive(Clone, Copy)]
pub struct Tags {
    pub count: usize,
    pub tags: [Tag; TAGS_MAX],
}

impl Tags {
    pub const NONE: Self = Self { count: 0, tags: [Tag::NONE; TAGS_MAX] };
}

/// Takes out all tags of the frame. The kernel keeps one beside it; when that is taken, the kernel puts the
/// frame's next one in its place.
#[inline(always)]
pub fn take(ctx: &TcContext) -> Result<Tags, DropReason> {
    let mut taken = Tags::NONE;
    for slot in 0..TAGS_MAX {
        let Some(tag) = frame::stripped_tag(ctx) else { return Ok(taken) };
        taken.tags[slot] = tag;
        taken.count += 1;
        // SAFETY: the context is valid while the program runs.
        if unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } != 0 {
            return Err(DropReason::EncapFailed);
        }
    }
    if frame::has_stripped_tag(ctx) { Err(DropReason::VlanUnsupported) } else { Ok(taken) }
}
