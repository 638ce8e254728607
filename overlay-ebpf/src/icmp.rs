//! What an endpoint may say about a packet, in ICMP errors (RFC 792, RFC 4443).
//!
//! Who gets an error believes it, whoever sent it: it ends the flow that it quotes, or makes the packets of a whole
//! way smaller for ten minutes. So an endpoint speaks only about packets that it was sent or, if it is a router, could have
//! been. And of those it does not say what only a router says: "too big" counts for everything between the two hosts, not
//! for the endpoint's flow alone.

use crate::{
    claim,
    frame::{header, linear},
    headers::{IcmpAbout, Icmpv6About},
    sender::Sender,
};
use aya_ebpf::programs::TcContext;
use overlay_common::{DropReason, FLAG_ROUTING, FLAG_STATIONS, IPV6_MTU_MIN};

/// What a sender may say of a router's words.
#[derive(Clone, Copy)]
pub struct May {
    /// "Fragmentation needed", for a packet size that any way may have.
    pub report_mtu: bool,
    /// That another way is shorter.
    pub redirect: bool,
}

/// Checks the ICMP message of `len` bytes at `at`. `is_about_it` says whether a packet to that address may have been sent
/// to the sender.
///
/// What is read lies in the packet's own buffer.
#[inline(always)]
pub fn check(
    ctx: &TcContext,
    at: usize,
    len: usize,
    is_about_it: impl FnOnce([u8; 4]) -> bool,
    may: May,
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
    if !is_about_it(destination) {
        return Err(DropReason::IcmpAboutOthers);
    }
    let code: u8 = ctx.load(at + 1).map_err(malformed)?;
    let is_routers = if IcmpAbout::is_too_big(kind, code) {
        // 0 from one that does not say it.
        let mtu: u16 = ctx.load(at + IcmpAbout::MTU_AT).map_err(malformed)?;
        !may.report_mtu || u32::from(u16::from_be(mtu)) < IPV6_MTU_MIN
    } else {
        IcmpAbout::is_redirect(kind) && !may.redirect
    };
    if is_routers { Err(DropReason::IcmpFromRouter) } else { Ok(()) }
}

/// Checks the ICMPv6 error of this kind at `at`. The maps do not know which IPv6 addresses are
/// the sender's, so it may speak about every address but those that another endpoint speaks for.
#[cold]
#[inline(always)]
pub fn check_v6(ctx: &TcContext, at: usize, kind: u8, sender: Sender) -> Result<(), DropReason> {
    if !Icmpv6About::is(kind) {
        return Ok(());
    }
    if kind == Icmpv6About::TOO_BIG && !sender.has(FLAG_ROUTING | FLAG_STATIONS) {
        return Err(DropReason::IcmpFromRouter);
    }
    linear(ctx, at + size_of::<Icmpv6About>())?;
    let destination = *header(ctx, at + Icmpv6About::DESTINATION_AT)?;
    if claim::is_anothers(sender, destination) {
        return Err(DropReason::IcmpAboutOthers);
    }
    Ok(())
}
