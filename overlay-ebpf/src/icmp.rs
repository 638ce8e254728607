//! What an endpoint may say about a packet, in ICMP errors (RFC 792, RFC 4443).
//!
//! Who gets an error believes it, whoever sent it: it ends the flow that it quotes, or makes the packets of a whole
//! way smaller for ten minutes. So an endpoint speaks only about packets that it was sent. And of those it does not say
//! what only a router says: "too big" counts for everything between the two hosts, not for the endpoint's flow alone.

use crate::{
    claim::{self, Speaker},
    frame::{self, header, linear},
    headers::{IcmpAbout, Icmpv6About},
};
use aya_ebpf::programs::TcContext;
use overlay_common::{DropReason, IPV6_MTU_MIN, Ip16};

/// Checks the ICMP message of `len` bytes at `at`, from the endpoint with this address. Of a router's words,
/// `reports_mtu` allows "fragmentation needed", for a packet size that any way may have.
///
/// What is read lies in the packet's own buffer.
#[inline(always)]
pub fn check(
    ctx: &TcContext,
    at: usize,
    len: usize,
    own: &Ip16,
    reports_mtu: bool,
) -> Result<(), DropReason> {
    let malformed = |_| DropReason::Malformed;
    if len == 0 {
        return Ok(());
    }
    let kind: u8 = ctx.load(at).map_err(malformed)?;
    if !IcmpAbout::is(kind) {
        return Ok(());
    }
    if len < size_of::<IcmpAbout>() {
        return Err(DropReason::Malformed);
    }
    let destination = ctx.load(at + IcmpAbout::DESTINATION_AT).map_err(malformed)?;
    if !frame::is_v4(own, destination) {
        return Err(DropReason::IcmpAboutOthers);
    }
    let code: u8 = ctx.load(at + 1).map_err(malformed)?;
    let is_routers = if IcmpAbout::is_too_big(kind, code) {
        // 0 from one that does not say it.
        let mtu: u16 = ctx.load(at + IcmpAbout::MTU_AT).map_err(malformed)?;
        !reports_mtu || u32::from(u16::from_be(mtu)) < IPV6_MTU_MIN
    } else {
        IcmpAbout::is_redirect(kind)
    };
    if is_routers { Err(DropReason::IcmpFromRouter) } else { Ok(()) }
}

/// Checks the ICMPv6 error of this kind at `at`, whose sender is no router. The maps do not know which IPv6 addresses are
/// the sender's, so it may speak about every address but those that another endpoint speaks for.
#[cold]
#[inline(always)]
pub fn check_v6(ctx: &TcContext, at: usize, kind: u8, speaker: Speaker) -> Result<(), DropReason> {
    if !Icmpv6About::is(kind) {
        return Ok(());
    }
    if kind == Icmpv6About::TOO_BIG {
        return Err(DropReason::IcmpFromRouter);
    }
    linear(ctx, at + size_of::<Icmpv6About>())?;
    let destination = *header(ctx, at + Icmpv6About::DESTINATION_AT)?;
    if claim::is_anothers(speaker, destination) {
        return Err(DropReason::IcmpAboutOthers);
    }
    Ok(())
}
