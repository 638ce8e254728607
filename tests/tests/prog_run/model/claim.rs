//! IPv6 addresses and the endpoints that speak for them (RFC 4861). The first endpoint that speaks for an address has it
//! (RFC 6620), as long as it is in the network. A claim holds for five minutes, which is longer than the model runs.

use std::collections::BTreeMap;

use overlay_common::{DropReason, FdbKey, MacBytes};

use super::{
    bytes::{Bytes, IPV6},
    memory::Memory,
    vlan::Inside,
};
use crate::world::World;

/// The owner of each address, by network.
pub(super) type Claims = BTreeMap<(u32, [u8; 16]), MacBytes>;

/// Checks a frame whose packet was checked by [`super::fence`]. `slot` is that of an endpoint of this node, whose claims
/// are limited.
pub(super) fn check(
    world: &World,
    memory: &mut Memory,
    (vni, sender): (u32, MacBytes),
    frame: Bytes<'_>,
    inside: Inside,
    slot: Option<u32>,
) -> Result<(), DropReason> {
    let Inside::Packet(IPV6, at) = inside else { return Ok(()) };
    let Some((address, is_question)) = claimed(frame.from(at)) else { return Ok(()) };
    // A question whether anybody has an address must reach who has it.
    let if_others = if is_question { Ok(()) } else { Err(DropReason::SpoofedNeighbour) };
    let is_here = |mac| world.fdb.contains_key(&FdbKey { vni, mac, pad: [0; 2] });
    if let [.., a, b, c, 0xff, 0xfe, d, e, f] = address {
        // The universal bit is inverted (RFC 4291, appendix A).
        let maker = [a ^ 2, b, c, d, e, f];
        if maker == sender {
            return Ok(());
        }
        if is_here(maker) {
            return if_others;
        }
    }
    match memory.claims.get(&(vni, address)).copied() {
        Some(owner) if owner != sender && is_here(owner) => return if_others,
        None if slot.is_some_and(|slot| !memory.allows_claim(world, slot)) => {
            return Err(DropReason::NeighbourLimit);
        }
        _ => {}
    }
    memory.claims.insert((vni, address), sender);
    Ok(())
}

/// The address for which a message speaks: the target of an advertisement, the source of a solicitation, or the target of
/// a solicitation that has no source. The latter only asks for it, and then the second value is true.
fn claimed(ip: Bytes<'_>) -> Option<([u8; 16], bool)> {
    const ICMPV6: u8 = 58;
    let is_believed = ip.byte(6) == Ok(ICMPV6) && ip.byte(7) == Ok(255);
    let icmp = ip.from(40);
    let source = ip.array(8).ok().filter(|source| *source != [0; 16]);
    let target = icmp.array(8).ok();
    match icmp.byte(0).ok().filter(|_| is_believed)? {
        133 => Some((source?, false)),
        135 => target.map(|target| (source.unwrap_or(target), source.is_none())),
        136 => Some((target?, false)),
        _ => None,
    }
}
