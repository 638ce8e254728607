//! Pushing the outer headers. User space has them ready for each VTEP (HOPS): what is left for a packet
//! are its own five fields, and they are put in while the rest is copied, word by word.

use crate::{
    frame::{self, header},
    headers::{ETH_P_IP, ETH_P_IPV6, Eth, IPPROTO_TCP, IPPROTO_UDP, Ipv4, Ports, Tag, Udp, Vxlan},
    jumbo,
    verdict::Decision,
    vlan::{self, TAGS_MAX, Tags},
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_set_hash, bpf_skb_adjust_room,
        bpf_skb_change_head,
    },
    programs::TcContext,
};
use overlay_common::{DropReason, HopEntry, SOURCE_PORT_MIN, VXLAN_OVERHEAD};

const ENCAP_FLAGS: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64
    | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 as u64
    | BPF_F_ADJ_ROOM_ENCAP_L4_UDP as u64
    | BPF_F_ADJ_ROOM_ENCAP_L2_ETH as u64;

/// What encapsulation adds to a frame's length to make the outer IPv4 packet's.
pub const OUTER_L3: u32 = (size_of::<Ipv4>() + size_of::<Udp>() + size_of::<Vxlan>()) as u32;
const OUTER_L4: u32 = (size_of::<Udp>() + size_of::<Vxlan>()) as u32;

/// What the outer headers say of one packet.
#[derive(Clone, Copy)]
pub struct Fields {
    pub vni: u32,
    /// Type of service.
    pub tos: u8,
    /// Hash of the inner flow.
    pub hash: u32,
    /// Bytes of the inner frame.
    pub len: u32,
}

/// The type of service to show outside: the inner packet's, ECN included (RFC 6040, section 4.1). Of a
/// tagged frame none, and so "not ECN-capable": nobody would look for it behind the tag on the way back.
#[inline(always)]
pub fn outer_tos(ctx: &TcContext, eth: Eth) -> u8 {
    if frame::has_stripped_tag(ctx) {
        return 0;
    }
    match (eth.ethertype(), header::<[u8; 2]>(ctx, size_of::<Eth>())) {
        (ETH_P_IP, Ok(start)) => start[1],
        (ETH_P_IPV6, Ok(start)) => start[0] << 4 | start[1] >> 4,
        _ => 0,
    }
}

/// The kernel remembers an IP packet for what it is now, but any other frame for the protocol that it
/// came with, and redirect_neigh would drop it where nobody counts. It goes out only by a next hop
/// that is resolved.
#[inline(always)]
pub fn needs_next_hop(ctx: &TcContext, eth: Eth) -> bool {
    !matches!(eth.ethertype(), ETH_P_IP | ETH_P_IPV6) || frame::has_stripped_tag(ctx)
}

/// A hash of the frame's flow. The kernel's own where it has one: of a connected socket it does. Else the
/// addresses and ports do, in a tenth of the instructions that its dissector takes.
#[inline(always)]
pub fn flow_hash(ctx: &TcContext, eth: Eth) -> u32 {
    let known = frame::hash(ctx);
    if known != 0 {
        return known;
    }
    if eth.ethertype() != ETH_P_IP {
        // SAFETY: the context is valid while the program runs.
        return unsafe { bpf_get_hash_recalc(ctx.skb.skb) };
    }
    let Ok(ip) = header::<Ipv4>(ctx, size_of::<Eth>()) else { return 0 };
    let mut flow = u32::from_ne_bytes(ip.src) ^ u32::from_ne_bytes(ip.dst).rotate_left(16);
    let has_ports = matches!(ip.protocol, IPPROTO_TCP | IPPROTO_UDP);
    // All fragments of a packet must go one way, and only the first has ports.
    if has_ports && !ip.has_options() && !ip.is_fragment() {
        let ports = header::<Ports>(ctx, size_of::<Eth>() + size_of::<Ipv4>());
        flow ^= ports.map_or(0, |ports| ports.word());
    }
    // Fibonacci hashing: the upper bits of the product depend on all of the factor's.
    let hash = flow.wrapping_mul(0x9e37_79b1).rotate_left(16);
    // The kernel has the hash for its own choices, of a transmit queue for one.
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_set_hash(ctx.skb.skb, hash) };
    hash
}

/// Makes room for the outer headers in front of the frame, and takes in the tags that lay beside it.
/// Returns the frame's own header, which is to be written behind the outer ones, and the tags.
#[inline(always)]
pub fn make_room(ctx: &TcContext, eth: Eth, forwards: bool) -> Result<(Eth, Tags), DropReason> {
    if frame::has_stripped_tag(ctx) {
        return make_room_for_tags(ctx, forwards);
    }
    // What a packet without tags asks for are constants.
    make_room_of(ctx, eth, 0, forwards)?;
    Ok((eth, Tags::NONE))
}

#[inline(always)]
fn make_room_for_tags(ctx: &TcContext, forwards: bool) -> Result<(Eth, Tags), DropReason> {
    let tags = vlan::take(ctx)?;
    let eth = *header(ctx, 0)?;
    make_room_of(ctx, eth, tags.count, forwards)?;
    Ok((eth, tags))
}

#[inline(always)]
fn make_room_of(ctx: &TcContext, eth: Eth, tags: usize, forwards: bool) -> Result<(), DropReason> {
    let room = i32::from(VXLAN_OVERHEAD as i16) + (tags * size_of::<Tag>()) as i32;
    // Length of the inner link header, in the flags' upper bits: of what is before the IP header alone.
    // With the VXLAN header counted in, GSO would cut segments in the wrong place.
    let link = (size_of::<Eth>() + tags * size_of::<Tag>()) as u64;
    let flags = ENCAP_FLAGS | link << 56;
    let made = match eth.ethertype() {
        // A packet that was decapsulated here and that an endpoint forwards is marked as encapsulated
        // still, and with the mark come the offsets of its inner headers, which lie where they lay:
        // the kernel refuses to mark it again (EALREADY), and plain room is what it needs. A large
        // packet of an endpoint's own tunnel is marked as well, but its inner headers lie deeper than
        // GSO would look for them: it is refused.
        ETH_P_IP => {
            grow(ctx, room, flags)
                || (forwards || frame::gso_size(ctx) == 0)
                    && grow(ctx, room, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO))
        }
        ETH_P_IPV6 => {
            jumbo::take_out(ctx)?;
            grow(ctx, room, flags)
        }
        // A third tag, which GSO would not see.
        _ if frame::gso_size(ctx) != 0 => return Err(DropReason::VlanUnsupported),
        // adjust_room takes IP only.
        // SAFETY: the context is valid while the program runs.
        _ => unsafe { bpf_skb_change_head(ctx.skb.skb, room as u32, 0) == 0 },
    };
    if made { Ok(()) } else { Err(DropReason::EncapFailed) }
}

#[inline(always)]
fn grow(ctx: &TcContext, room: i32, flags: u64) -> bool {
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_skb_adjust_room(ctx.skb.skb, room, BPF_ADJ_ROOM_MAC, flags) == 0 }
}

/// Pushes the headers that lead to `hop`.
#[inline(always)]
pub fn push(
    ctx: &TcContext,
    hop: &HopEntry,
    eth: Eth,
    fields: Fields,
    forwards: bool,
) -> Result<(), DropReason> {
    if frame::has_stripped_tag(ctx) {
        let (eth, tags) = make_room_for_tags(ctx, forwards)?;
        write_inner(ctx, eth, &tags)?;
        return write_outer(ctx, hop, with_tags(ctx, fields));
    }
    make_room_of(ctx, eth, 0, forwards)?;
    let all: &mut [Word; 8] = header(ctx, 0)?;
    let (outer, last) = outer_words(hop, fields);
    all[0] = outer[0];
    all[1] = outer[1];
    all[2] = outer[2];
    all[3] = outer[3];
    all[4] = outer[4];
    all[5] = outer[5];
    let inner = eth.words();
    all[6] = Word(u64::from(last) | inner.0 << 16);
    all[7] = Word(inner.0 >> 48 | inner.1 << 16);
    Ok(())
}

/// The fields of a packet that room was made for, and its tags taken into it: some of them may have been
/// counted in its length already.
#[inline(always)]
pub fn with_tags(ctx: &TcContext, fields: Fields) -> Fields {
    Fields { len: ctx.len() - u32::from(VXLAN_OVERHEAD), ..fields }
}

/// Writes the frame's own link header behind the room for the outer ones.
#[inline(always)]
pub fn write_inner(ctx: &TcContext, eth: Eth, tags: &Tags) -> Result<(), DropReason> {
    const INNER: usize = VXLAN_OVERHEAD as usize;
    const MACS: usize = size_of::<Eth>() - size_of::<u16>();
    *header::<Eth>(ctx, INNER)? = eth;
    for slot in 0..TAGS_MAX {
        if slot < tags.count {
            *header::<Tag>(ctx, INNER + MACS + slot * size_of::<Tag>())? = tags.tags[slot];
            *header::<[u8; 2]>(ctx, INNER + MACS + (slot + 1) * size_of::<Tag>())? =
                eth.ethertype().to_be_bytes();
        }
    }
    Ok(())
}

/// Writes the outer headers alone.
#[inline(always)]
pub fn write_outer(ctx: &TcContext, hop: &HopEntry, fields: Fields) -> Result<(), DropReason> {
    let outer: &mut OuterWords = header(ctx, 0)?;
    let (words, last) = outer_words(hop, fields);
    *outer = OuterWords { words, last };
    Ok(())
}

/// Eight bytes of a packet, as they are loaded.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Word(u64);

#[repr(C, packed)]
struct OuterWords {
    words: [Word; 6],
    last: u16,
}

/// The outer headers with the packet's fields in their places, which `header` leaves zero. Where they
/// lie (RFC 791, 768, 7348), from the outer Ethernet header's start: type of service 15, total length 16,
/// checksum 24, source port 34, UDP length 38, VNI 46 to 48.
#[inline(always)]
fn outer_words(hop: &HopEntry, fields: Fields) -> ([Word; 6], u16) {
    const { assert!(cfg!(target_endian = "little"), "shifts below are a little-endian machine's") };
    // A super-packet of more than 65,535 bytes has length 0, as the kernel has it (6.3, commit
    // b1a78b9b9886); GSO cuts it and fills it in.
    let length = |len: u32| u64::from(if len > 0xffff { 0 } else { (len as u16).to_be() });
    let total_len = length(fields.len + OUTER_L3);
    let udp_len = length(fields.len + OUTER_L4);
    let mut sum = hop.csum + (u32::from(fields.tos) << 8) + total_len as u32;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let check = u64::from(!(sum as u16));
    let source_port =
        u64::from((SOURCE_PORT_MIN | (fields.hash as u16 & !SOURCE_PORT_MIN)).to_be());
    let vni = (fields.vni << 8).to_be();
    let at = |index: usize| -> u64 {
        // SAFETY: `header` has 50 bytes and begins the entry, which is aligned to eight bytes as all map
        // values are; the index is below six.
        unsafe { *hop.header.as_ptr().cast::<u64>().add(index) }
    };
    let words = [
        Word(at(0)),
        Word(at(1) | u64::from(fields.tos) << 56),
        Word(at(2) | total_len),
        Word(at(3) | check),
        Word(at(4) | source_port << 16 | udp_len << 48),
        Word(at(5) | u64::from(vni & 0xffff) << 48),
    ];
    (words, (vni >> 16) as u16)
}

/// Sends the encapsulated packet straight out of the device that its next hop is behind, or, where that
/// is not resolved, by way of the kernel's own routes and neighbours, which is slower and always right.
#[inline(always)]
pub fn send(hop: &HopEntry, underlay: u32) -> Decision {
    // SAFETY: no parameters but flags and a device.
    let action = unsafe {
        if hop.ifindex != 0 {
            bpf_redirect(hop.ifindex, 0)
        } else {
            bpf_redirect_neigh(underlay, core::ptr::null_mut(), 0, 0)
        }
    };
    Decision::Redirect(action as i32)
}
