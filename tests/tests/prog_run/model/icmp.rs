//! What an endpoint may say in an ICMP error (RFC 792): it speaks about packets that were sent to it, and of those
//! it does not say what only a router says.

use overlay_common::{DropReason, Ip16};

use super::bytes::Bytes;

/// Checks a message of the endpoint with this address. Errors quote a packet: destination unreachable, source
/// quench, redirect, time exceeded, parameter problem. `reports_mtu`: the endpoint may say that a packet was too big, but
/// not for less than 1280 bytes, which each way carries.
pub(super) fn check(own: &Ip16, icmp: Bytes<'_>, reports_mtu: bool) -> Result<(), DropReason> {
    let Ok(kind @ (3 | 4 | 5 | 11 | 12)) = icmp.byte(0) else { return Ok(()) };
    let quoted = icmp.from(8);
    quoted.at_least(20)?;
    if quoted.ip(16)? != *own {
        return Err(DropReason::IcmpAboutOthers);
    }
    match (kind, icmp.byte(1)?) {
        (5, _) => Err(DropReason::IcmpFromRouter),
        (3, 4) if !reports_mtu || icmp.be16(6)? < 1280 => Err(DropReason::IcmpFromRouter),
        _ => Ok(()),
    }
}

/// The destination of the packet that an ICMPv6 error quotes, if this is an error (RFC 4443). The sender is no router, so
/// it never says that a packet was too big.
pub(super) fn about_v6(ip: Bytes<'_>) -> Result<Option<[u8; 16]>, DropReason> {
    let icmp = ip.from(40);
    match icmp.byte(0) {
        Ok(2) if ip.byte(6)? == 58 => Err(DropReason::IcmpFromRouter),
        Ok(0..=127) if ip.byte(6)? == 58 => icmp.array(8 + 24).map(Some),
        _ => Ok(None),
    }
}
