//! The only way to a packet's bytes, with their bounds checked.

use crate::headers::{Ipv6, L3, Tag, TcpStart};
use aya_ebpf::programs::{TcContext, XdpContext};
use overlay_common::{DropReason, Ip16, MacBytes};

/// A header at an offset, checked to lie within the packet.
///
/// The reference is void after any helper that changes the packet; the verifier sees to that.
#[expect(
    clippy::mut_from_ref,
    reason = "the packet is not the context's: it is the kernel's, and ours while we run"
)]
#[inline(always)]
pub fn header<T>(ctx: &TcContext, offset: usize) -> Result<&mut T, DropReason> {
    const { assert!(align_of::<T>() == 1, "nothing in a packet is aligned") };
    let start = data(ctx) + offset;
    if start + size_of::<T>() > data_end(ctx) {
        return Err(DropReason::Malformed);
    }
    // SAFETY: in bounds (above), of alignment one, and of a type that any bytes are a value of; no
    // two live references overlap, since each handler takes one header at a time.
    Ok(unsafe { &mut *(start as *mut T) })
}

/// A header at an offset, which may still lie in other pages: it is pulled into the first.
#[inline(always)]
pub fn pulled<T>(ctx: &TcContext, offset: usize) -> Result<&mut T, DropReason> {
    if let Ok(found) = header(ctx, offset) {
        return Ok(found);
    }
    linear(ctx, offset + size_of::<T>())?;
    header(ctx, offset)
}

/// A header at an offset, checked to lie within the packet's first buffer: of a packet at XDP.
#[inline(always)]
pub fn in_first_buffer<T>(ctx: &XdpContext, offset: usize) -> Option<&T> {
    const { assert!(align_of::<T>() == 1, "nothing in a packet is aligned") };
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: in bounds (above), of alignment one, and of a type that any bytes are a value of;
    // nothing writes to the packet at XDP.
    Some(unsafe { &*(start as *const T) })
}

/// Makes sure that the first `len` bytes can be read directly.
#[inline(always)]
pub fn linear(ctx: &TcContext, len: usize) -> Result<(), DropReason> {
    if data(ctx) + len <= data_end(ctx) {
        return Ok(());
    }
    if (ctx.len() as usize) < len || ctx.pull_data(len as u32).is_err() {
        return Err(DropReason::Malformed);
    }
    Ok(())
}

/// Takes the first `len` bytes, which the packet has, into the packet's own buffer. What lies behind that may be in pages
/// that its sender can still write to (splice into a socket, and a tunnel's end inside the endpoint), and would then not
/// be what was checked. What [`header`] reads is in that buffer; what is read by `ctx.load` need not be.
#[inline(always)]
pub fn keep(ctx: &TcContext, len: usize) -> Result<(), DropReason> {
    ctx.pull_data(len as u32).map_err(|_| DropReason::Malformed)
}

/// Pulls the headers that are read where they lie directly, as far as the packet is that long: for a packet of which
/// nothing was checked. Its network card may have left any part of them in other pages.
#[inline(always)]
pub fn pull_start(ctx: &TcContext) {
    const START: usize = L3 + size_of::<Ipv6>() + size_of::<TcpStart>();
    if data(ctx) + START > data_end(ctx) {
        // Where that fails, the headers are not found later, as in a packet that is too short for them.
        _ = ctx.pull_data(ctx.len().min(START as u32));
    }
}

/// Start of the packet. Volatile, so that the compiler never merges the reads of two branches into one
/// word and widens that: the verifier would no longer know it for a packet's pointer.
#[inline(always)]
fn data(ctx: &TcContext) -> usize {
    // SAFETY: the context is valid while the program runs.
    unsafe { (&raw const (*ctx.skb.skb).data).read_volatile() as usize }
}

/// End of what can be read directly. Volatile for the same reason.
#[inline(always)]
fn data_end(ctx: &TcContext) -> usize {
    // SAFETY: the context is valid while the program runs.
    unsafe { (&raw const (*ctx.skb.skb).data_end).read_volatile() as usize }
}

/// Returns true if a VLAN tag lies beside the frame: the device, or the kernel, took it out.
#[inline(always)]
pub fn has_stripped_tag(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).vlan_present != 0 }
}

/// The tag that lies beside the frame.
#[inline(always)]
pub fn stripped_tag(ctx: &TcContext) -> Option<Tag> {
    if !has_stripped_tag(ctx) {
        return None;
    }
    // SAFETY: the context is valid while the program runs.
    let (tpid, control) = unsafe { ((*ctx.skb.skb).vlan_proto, (*ctx.skb.skb).vlan_tci) };
    Some(Tag::new(u16::from_be(tpid as u16), control as u16))
}

/// The index of the device on which the frame came in.
#[inline(always)]
pub fn ifindex(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).ifindex }
}

/// Bytes of payload of each segment into which GSO will cut the packet; 0 if it will not.
#[inline(always)]
pub fn gso_size(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).gso_size }
}

/// The flow's hash, if the kernel has one already; else 0.
#[inline(always)]
pub fn hash(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).hash }
}

/// The protocol that the kernel takes the packet for, host byte order.
#[inline(always)]
pub fn protocol(ctx: &TcContext) -> u16 {
    // SAFETY: the context is valid while the program runs.
    u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16)
}

/// [`packet_type`] of a frame for this host, by its Ethernet destination (linux/if_packet.h).
pub const PACKET_HOST: u32 = 0;
/// [`packet_type`] of a frame for one that is not this host.
pub const PACKET_OTHERHOST: u32 = 3;

/// The kernel's opinion of who the frame is for.
#[inline(always)]
pub fn packet_type(ctx: &TcContext) -> u32 {
    // SAFETY: the context is valid while the program runs.
    unsafe { (*ctx.skb.skb).pkt_type }
}

/// Compares two addresses in two loads each; the slice comparison of `core` would be a call.
#[inline(always)]
pub fn same_mac(a: &MacBytes, b: &MacBytes) -> bool {
    let halves = |mac: &MacBytes| {
        (u32::from_ne_bytes([mac[0], mac[1], mac[2], mac[3]]), u16::from_ne_bytes([mac[4], mac[5]]))
    };
    halves(a) == halves(b)
}

/// Compares two addresses in two loads each.
#[inline(always)]
pub fn same_ip(a: &Ip16, b: &Ip16) -> bool {
    halves(a) == halves(b)
}

/// Whether `ip` is the mapped form of `v4`.
#[inline(always)]
pub fn is_v4(ip: &Ip16, v4: [u8; 4]) -> bool {
    same_ip(ip, &overlay_common::ip16_from_v4(v4))
}

/// The IPv4 address in `ip`, which must be a mapped one.
#[inline(always)]
pub fn v4(ip: &Ip16) -> [u8; 4] {
    [ip[12], ip[13], ip[14], ip[15]]
}

#[inline(always)]
fn halves(ip: &Ip16) -> (u64, u64) {
    // SAFETY: sixteen bytes are two words of eight; the reads ask for no alignment.
    unsafe {
        let words = ip.as_ptr().cast::<u64>();
        (words.read_unaligned(), words.add(1).read_unaligned())
    }
}
