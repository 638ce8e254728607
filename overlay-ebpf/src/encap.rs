//! Encapsulation. User space keeps the outer headers ready for each VTEP (HOPS), except for the five fields
//! that differ from packet to packet; these are put in while the rest is copied, word by word.

use crate::{
    frame::{self, header},
    headers::{ETH_P_IP, ETH_P_IPV6, Eth, IPPROTO_TCP, IPPROTO_UDP, Ipv4, Ipv6, L3, Ports, Tag},
    jumbo,
    kernel::{field, layout},
    outer::ipv4::{self as outer, Fields, Packed, Word},
    verdict::Decision,
    vlan::{self, TAGS_MAX, Tags},
};
use aya_ebpf::{
    bindings::{
        BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_FIXED_GSO, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    cty::c_long,
    helpers::{
        bpf_get_hash_recalc, bpf_redirect, bpf_redirect_neigh, bpf_set_hash, bpf_skb_adjust_room,
        bpf_skb_change_head, bpf_skb_change_proto,
    },
    programs::TcContext,
};
use core::hint::black_box;
use overlay_common::{DropReason, HopEntry, VIA_BARE};

/// The outer type of service: the inner packet's, ECN included (RFC 6040, section 4.1). A tagged frame
/// gets none, which means "not ECN-capable", because decapsulation does not look behind the tag.
#[inline(always)]
pub fn outer_tos(ctx: &TcContext, eth: Eth) -> u8 {
    if frame::has_stripped_tag(ctx) {
        return 0;
    }
    match (eth.ethertype(), header::<[u8; 2]>(ctx, L3)) {
        (ETH_P_IP, Ok(start)) => start[1],
        (ETH_P_IPV6, Ok(start)) => start[0] << 4 | start[1] >> 4,
        _ => 0,
    }
}

/// Whether the frame can be sent only by an Ethernet hop that is resolved.
///
/// The kernel takes an encapsulated IP packet for IP, but any other frame for the protocol that it had
/// before, and `bpf_redirect_neigh` would drop that without a count.
#[inline(always)]
pub fn needs_next_hop(ctx: &TcContext, eth: Eth) -> bool {
    !matches!(eth.ethertype(), ETH_P_IP | ETH_P_IPV6) || frame::has_stripped_tag(ctx)
}

/// A hash of the frame's flow. The kernel has one already for a connected socket. Otherwise it is made of
/// addresses and ports, in a tenth of the instructions that the kernel's dissector takes.
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
    let Ok(ip) = header::<Ipv4>(ctx, L3) else { return 0 };
    let mut flow = u32::from_ne_bytes(ip.src) ^ u32::from_ne_bytes(ip.dst).rotate_left(16);
    let has_ports = matches!(ip.protocol, IPPROTO_TCP | IPPROTO_UDP);
    // All fragments of a packet must go one way, and only the first has ports.
    if has_ports && !ip.has_options() && !ip.is_fragment() {
        let ports = header::<Ports>(ctx, L3 + size_of::<Ipv4>());
        flow ^= ports.map_or(0, |ports| ports.word());
    }
    // Fibonacci hashing: the upper bits of the product depend on all of the factor's.
    let hash = flow.wrapping_mul(0x9e37_79b1).rotate_left(16);
    // The kernel has the hash for its own choices, of a transmit queue for one.
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_set_hash(ctx.skb.skb, hash) };
    hash
}

/// Makes room for the outer headers in front of the frame, and for the tags that lie beside it. Returns the
/// frame's own Ethernet header and the tags, which must be written behind the outer headers.
#[inline(always)]
pub fn make_room(ctx: &TcContext, eth: Eth) -> Result<(Eth, Tags), DropReason> {
    if frame::has_stripped_tag(ctx) {
        return make_room_for_tags(ctx);
    }
    // Without tags, all lengths are constants.
    make_room_of(ctx, eth, 0)?;
    Ok((eth, Tags::NONE))
}

#[inline(always)]
fn make_room_for_tags(ctx: &TcContext) -> Result<(Eth, Tags), DropReason> {
    let tags = vlan::take(ctx)?;
    let eth = *header(ctx, 0)?;
    make_room_of(ctx, eth, tags.count)?;
    Ok((eth, tags))
}

#[inline(always)]
fn make_room_of(ctx: &TcContext, eth: Eth, tags: usize) -> Result<(), DropReason> {
    let room = (outer::LEN + tags * size_of::<Tag>()) as i32;
    // Length of the inner link header, in the flags' upper bits: of what is before the IP header alone.
    // With the VXLAN header counted in, GSO would cut segments in the wrong place.
    let link = (size_of::<Eth>() + tags * size_of::<Tag>()) as u64;
    let flags = outer::ROOM_FLAGS | link << 56;
    match eth.ethertype() {
        ETH_P_IP => match adjust(ctx, room, flags) {
            0 => Ok(()),
            refused => make_plain_room(ctx, refused, tags, || adjust(ctx, room, FIXED_GSO) == 0),
        },
        ETH_P_IPV6 => {
            jumbo::take_out(ctx)?;
            match adjust(ctx, room, flags) {
                0 => Ok(()),
                refused => make_plain_room(ctx, refused, tags, || grow_as_ipv4(ctx, room)),
            }
        }
        // A third tag, which GSO would not see.
        _ if frame::gso_size(ctx) != 0 => Err(DropReason::VlanUnsupported),
        // adjust_room takes IP only.
        // SAFETY: the context is valid while the program runs.
        _ if unsafe { bpf_skb_change_head(ctx.skb.skb, room as u32, 0) == 0 } => Ok(()),
        _ => Err(DropReason::EncapFailed),
    }
}

/// The answer of `bpf_skb_adjust_room` if the packet has the marks of a tunnel (EALREADY).
const ALREADY: c_long = -114;

/// Makes room by `grow`, without the marks of a tunnel, after the kernel has `refused` to set them.
///
/// A packet that came out of a tunnel here, and that an endpoint forwards, has the marks still, and with them the
/// places of its inner headers, at which the frame's own headers lie: plain room is what it needs. A packet of the
/// endpoint's own tunnel has the marks as well. It needs plain room too, but a super-packet's inner headers lie deeper
/// than GSO may look for them, and it is refused, as is a super-packet of SCTP, which no room can be made for.
#[cold]
#[inline(always)]
fn make_plain_room(
    ctx: &TcContext,
    refused: c_long,
    tags: usize,
    grow: impl FnOnce() -> bool,
) -> Result<(), DropReason> {
    let is_super = frame::gso_size(ctx) != 0;
    if is_super && (refused != ALREADY || !came_out_here(ctx, tags)) {
        return Err(DropReason::UncutSuperPacket);
    }
    if grow() { Ok(()) } else { Err(DropReason::EncapFailed) }
}

/// Whether a packet's marks of a tunnel are those of the one that it came out of here: GSO will find the inner headers
/// where the frame's own lie, behind as many tags as were taken out of it.
#[inline(always)]
fn came_out_here(ctx: &TcContext, tags: usize) -> bool {
    // Numbers and not options, each made at once: the compiler combines an option's two halves in ways that the verifier
    // refuses.
    const UNKNOWN: u32 = u32::MAX;
    let place = |offset| black_box(field::<u16>(ctx, offset).map_or(UNKNOWN, u32::from));
    let frame = place(layout!(mac_header));
    let inner = place(layout!(inner_mac_header));
    let packet = place(layout!(inner_network_header));
    if frame == UNKNOWN || inner == UNKNOWN || packet == UNKNOWN {
        return false;
    }
    let tags = (tags * size_of::<Tag>()) as u32;
    packet == frame + size_of::<Eth>() as u32 && inner + tags >= frame
}

/// Makes plain room for headers of IPv4 in front of IPv6. The kernel takes the packet for one of another protocol only
/// where it removes something, so more room is made, and the rest is removed.
#[inline(always)]
fn grow_as_ipv4(ctx: &TcContext, room: i32) -> bool {
    const MORE: i32 = (size_of::<Ipv6>() - size_of::<Ipv4>()) as i32;
    const AS_IPV4: u64 = FIXED_GSO | BPF_F_ADJ_ROOM_DECAP_L3_IPV4 as u64;
    if adjust(ctx, room + MORE, FIXED_GSO) != 0 {
        return false;
    }
    // Before kernel 6.3 another helper does it, which would make a super-packet of IPv6 one of IPv4.
    adjust(ctx, -MORE, AS_IPV4) == 0
        || frame::gso_size(ctx) == 0
            // SAFETY: the context is valid while the program runs.
            && unsafe { bpf_skb_change_proto(ctx.skb.skb, ETH_P_IP.to_be(), 0) == 0 }
}

const FIXED_GSO: u64 = BPF_F_ADJ_ROOM_FIXED_GSO as u64;

#[inline(always)]
fn adjust(ctx: &TcContext, by: i32, flags: u64) -> c_long {
    // SAFETY: the context is valid while the program runs.
    unsafe { bpf_skb_adjust_room(ctx.skb.skb, by, BPF_ADJ_ROOM_MAC, flags) }
}

/// Puts the outer headers that lead to `hop` in front of the frame.
#[inline(always)]
pub fn push(ctx: &TcContext, hop: &HopEntry, eth: Eth, fields: Fields) -> Result<(), DropReason> {
    if frame::has_stripped_tag(ctx) {
        let (eth, tags) = make_room_for_tags(ctx)?;
        write_inner(ctx, eth, &tags)?;
        return write_outer(ctx, hop, with_tags(ctx, fields).packed());
    }
    make_room_of(ctx, eth, 0)?;
    let all: &mut [Word; 8] = header(ctx, 0)?;
    let outer::Words { words, last } = outer::words(hop, fields.packed());
    all[0] = words[0];
    all[1] = words[1];
    all[2] = words[2];
    all[3] = words[3];
    all[4] = words[4];
    all[5] = words[5];
    // The last two bytes of the outer headers and the inner Ethernet header fill two words.
    let inner = eth.words();
    all[6] = Word(u64::from(last) | inner.0 << 16);
    all[7] = Word(inner.0 >> 48 | inner.1 << 16);
    Ok(())
}

/// Corrects the length in `fields` after room was made and the tags were taken in: a tag that lay in the
/// frame was counted before, one that lay beside it was not.
#[inline(always)]
pub fn with_tags(ctx: &TcContext, fields: Fields) -> Fields {
    Fields { len: ctx.len() - outer::LEN as u32, ..fields }
}

/// Writes the frame's own link header behind the room for the outer ones.
#[inline(always)]
pub fn write_inner(ctx: &TcContext, eth: Eth, tags: &Tags) -> Result<(), DropReason> {
    const INNER: usize = outer::LEN;
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
pub fn write_outer(ctx: &TcContext, hop: &HopEntry, packed: Packed) -> Result<(), DropReason> {
    *header::<outer::Words>(ctx, 0)? = outer::words(hop, packed);
    Ok(())
}

/// Where an encapsulated packet leaves: a device, and in the topmost bit, which no index has, whether the kernel
/// has to look the next hop up there. It is read from the hop once, since user space may change that meanwhile.
#[derive(Clone, Copy)]
pub struct Exit(u32);

impl Exit {
    const ASK: u32 = 1 << 31;

    /// The device of the next hop, or of the route where the next hop is not resolved.
    #[inline(always)]
    pub fn of(ctx: &TcContext, eth: Eth, hop: &HopEntry) -> Result<Self, DropReason> {
        let device = read_once(&hop.ifindex);
        if device != 0 {
            return Ok(Self(device));
        }
        match read_once(&hop.via) & !VIA_BARE {
            // An earlier version wrote the entry.
            0 => Err(DropReason::UnknownNode),
            _ if needs_next_hop(ctx, eth) => Err(DropReason::UnresolvedNextHop),
            via => Ok(Self(via | Self::ASK)),
        }
    }

    /// The device for a copy of a packet, for which the kernel looks up no next hop; 0 where there is none. A device
    /// without Ethernet headers needs no next hop. It takes IP alone: `bare_mask` is all ones for IP, else 0. (A mask,
    /// because the verifier would walk a loop once for each outcome of a comparison.)
    #[inline(always)]
    pub fn of_copy(hop: &HopEntry, bare_mask: u32) -> u32 {
        let device = read_once(&hop.ifindex);
        if device != 0 {
            return device;
        }
        let via = read_once(&hop.via);
        // The topmost bit says that the device is bare: all ones or 0.
        let is_bare = (via.cast_signed() >> VIA_BARE.trailing_zeros()).cast_unsigned();
        via & !VIA_BARE & is_bare & bare_mask
    }
}

/// Reads a field of an entry that user space may change at any moment, so that all that follows is about one value.
#[inline(always)]
fn read_once(field: &u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { (&raw const *field).read_volatile() }
}

/// Sends the encapsulated packet out. If its next hop is not resolved, the kernel's own routes and neighbours
/// decide, which is slower, but never on another device than the route's.
#[inline(always)]
pub fn send(exit: Exit) -> Decision {
    let device = exit.0 & !Exit::ASK;
    // SAFETY: no parameters but flags and a device.
    let action = unsafe {
        if exit.0 & Exit::ASK != 0 {
            bpf_redirect_neigh(device, core::ptr::null_mut(), 0, 0)
        } else {
            bpf_redirect(device, 0)
        }
    };
    Decision::Redirect(action as i32)
}
