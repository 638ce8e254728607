//! Checksums that are still to be written.
//!
//! A sender may leave its checksum to the device that sends the packet on, and says where the sum begins and
//! where it goes. Nothing compares these two places with the packet: a packet socket (PACKET_VNET_HDR) may name
//! any. The device would then change two bytes of the packet after a program has checked them, for example a
//! port, to a value that the sender chooses. So a packet passes only if its unfinished checksum is the packet's
//! own, or lies in what the packet carries, where no program looks: an endpoint may run tunnels.

use crate::{
    headers::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Udp},
    kernel::{kernels_own, layout},
};
use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::TcContext};
use overlay_common::DropReason;

/// What an IP packet carries, as far as its header tells.
#[derive(Clone, Copy)]
pub struct Payload {
    /// The protocol in the IP header; [`Payload::OTHER`] if that says nothing of the first bytes.
    pub protocol: u8,
    /// Where the payload begins in the frame.
    pub at: usize,
}

impl Payload {
    /// No protocol's number that has a checksum.
    pub const OTHER: u8 = 0;
}

/// Where the checksums are (RFC 9293, section 3.1; RFC 768; RFC 9260, section 3.1).
const TCP_CHECKSUM: u32 = 16;
const UDP_CHECKSUM: u32 = 6;
const SCTP_CHECKSUM: u32 = 8;

/// Checks that an unfinished checksum, if there is one, is the payload's own or lies in what that carries.
#[inline(always)]
pub fn check(ctx: &TcContext, payload: Payload) -> Result<(), DropReason> {
    let Some(sum) = unfinished(ctx) else { return Ok(()) };
    let Payload { protocol, at } = payload;
    let is_harmless = match protocol {
        IPPROTO_TCP => sum.is_at(at, TCP_CHECKSUM),
        IPPROTO_UDP => sum.is_at(at, UDP_CHECKSUM) || sum.is_behind(at + size_of::<Udp>()),
        IPPROTO_SCTP => sum.is_at(at, SCTP_CHECKSUM),
        // Senders of ICMP finish it themselves, and programs check all of the message.
        IPPROTO_ICMP | IPPROTO_ICMPV6 => false,
        _ => sum.is_behind(at),
    };
    if is_harmless { Ok(()) } else { Err(DropReason::UnfinishedChecksum) }
}

/// Checks the unfinished checksum of a frame of which only the first `header` bytes are checked.
#[inline(always)]
pub fn check_behind(ctx: &TcContext, header: usize) -> Result<(), DropReason> {
    check(ctx, Payload { protocol: Payload::OTHER, at: header })
}

/// Checks that the frame has no unfinished checksum: its protocol has none.
#[inline(always)]
pub fn check_none(ctx: &TcContext) -> Result<(), DropReason> {
    if unfinished(ctx).is_some() { Err(DropReason::UnfinishedChecksum) } else { Ok(()) }
}

/// A checksum that is still to be written.
#[derive(Clone, Copy)]
struct Unfinished {
    /// Two numbers: in the lower half where the sum begins, counted from the start of the packet's buffer; in the
    /// upper half where the checksum goes, counted from there.
    places: u32,
    /// Where the frame begins, from the start of the packet's buffer.
    frame: u32,
}

impl Unfinished {
    /// Whether the sum begins at `at` of the frame, and the checksum goes `offset` behind that.
    #[inline(always)]
    fn is_at(self, at: usize, offset: u32) -> bool {
        self.places == self.frame + at as u32 + (offset << 16)
    }

    /// Whether all of it is behind the first `header` bytes of the frame.
    #[inline(always)]
    fn is_behind(self, header: usize) -> bool {
        self.places & 0xffff >= self.frame + header as u32
    }
}

/// The packet's unfinished checksum, if there is one.
#[inline(always)]
fn unfinished(ctx: &TcContext) -> Option<Unfinished> {
    if layout!(is_typed) == 0 {
        return probed(ctx);
    }
    // SAFETY: the context is valid while the program runs, and is the kernel's own type's.
    let skb = unsafe { kernels_own(ctx.skb.skb.cast()) };
    let at = layout!(ip_summed) as usize;
    // SAFETY: a field of that type, by its offset.
    let summed = unsafe { skb.add(at).read_volatile() };
    if !is_partial(summed) {
        return None;
    }
    let at = layout!(csum_start) as usize;
    // SAFETY: as above.
    let places = unsafe { skb.add(at).cast::<u32>().read_volatile() };
    let at = layout!(mac_header) as usize;
    // SAFETY: as above.
    let frame = unsafe { skb.add(at).cast::<u16>().read_volatile() };
    Some(Unfinished { places, frame: frame.into() })
}

/// The unfinished checksum on a kernel that gives no typed pointer.
#[inline(always)]
fn probed(ctx: &TcContext) -> Option<Unfinished> {
    /// Stands for fields that can't be read, so that the packet is refused: no checksum lies there.
    const NOWHERE: Unfinished = Unfinished { places: 0, frame: 1 << 16 };
    let skb = ctx.skb.skb.cast_const().cast::<u8>();
    let at = |offset: u32| skb.wrapping_add(offset as usize);
    let from = at(layout!(ip_summed));
    // SAFETY: the helper refuses what is no address.
    let summed = unsafe { bpf_probe_read_kernel(from) };
    let Ok(summed) = summed else { return Some(NOWHERE) };
    if !is_partial(summed) {
        return None;
    }
    let from = at(layout!(csum_start)).cast::<u32>();
    // SAFETY: as above.
    let places = unsafe { bpf_probe_read_kernel(from) };
    let from = at(layout!(mac_header)).cast::<u16>();
    // SAFETY: as above.
    let frame = unsafe { bpf_probe_read_kernel(from) };
    match (places, frame) {
        (Ok(places), Ok(frame)) => Some(Unfinished { places, frame: frame.into() }),
        _ => Some(NOWHERE),
    }
}

/// CHECKSUM_PARTIAL is both bits of the field.
#[inline(always)]
fn is_partial(summed: u8) -> bool {
    let mask = layout!(ip_summed_mask);
    u32::from(summed) & mask == mask
}
