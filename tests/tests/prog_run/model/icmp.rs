//! What an endpoint may say in an ICMP error (RFC 792): it speaks about packets that were sent to it, and of those
//! it does not say what only a router says.

use overlay_common::{DropReason, Ip16};

use super::bytes::Bytes;

/// A router's words that the sender may say.
#[derive(Clone, Copy, Debug)]
pub(super) struct May {
    /// That a packet was too big, but not for less than 1280 bytes, which each way carries.
    pub(super) report_mtu: bool,
    /// That there is a shorter way.
    pub(super) redirect: bool,
}

/// Checks a message. Errors quote a packet: destination unreachable, source quench, redirect, time exceeded, parameter
/// problem. `is_its`: a packet to this address may have been sent to the sender.
pub(super) fn check(
    is_its: impl Fn(Ip16) -> bool,
    icmp: Bytes<'_>,
    may: May,
) -> Result<(), DropReason> {
    let Ok(kind @ (3 | 4 | 5 | 11 | 12)) = icmp.byte(0) else { return Ok(()) };
    let quoted = icmp.from(8);
    quoted.at_least(20)?;
    if !is_its(quoted.ip(16)?) {
        return Err(DropReason::IcmpAboutOthers);
    }
    match (kind, icmp.byte(1)?) {
        (5, _) if !may.redirect => Err(DropReason::IcmpFromRouter),
        (3, 4) if !may.report_mtu || icmp.be16(6)? < 1280 => Err(DropReason::IcmpFromRouter),
        _ => Ok(()),
    }
}

/// The destination of the packet that an ICMPv6 error quotes, if this is an error (RFC 4443). Only a router says
/// that a packet was too big.
pub(super) fn about_v6(ip: Bytes<'_>, is_router: bool) -> Result<Option<[u8; 16]>, DropReason> {
    let icmp = ip.from(40);
    match icmp.byte(0) {
        Ok(2) if ip.byte(6)? == 58 && !is_router => Err(DropReason::IcmpFromRouter),
        Ok(0..=127) if ip.byte(6)? == 58 => icmp.array(8 + 24).map(Some),
        _ => Ok(None),
    }
}
