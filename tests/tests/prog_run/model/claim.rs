//! IPv6 addresses and the endpoints that speak for them (RFC 4861). The first endpoint that speaks for an address has it
//! (RFC 6620), as long as it is in the network. A claim holds for five minutes, which is longer than the model runs.

use std::collections::BTreeMap;

use overlay_common::{DropReason, FdbKey, MacBytes};

use super::{
    bytes::{Bytes, IPV6},
    icmp,
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
    if let Some(address) = icmp::about_v6(frame.from(at))? {
        return if is_anothers(world, memory, (vni, sender), address) {
            Err(DropReason::IcmpAboutOthers)
        } else {
            Ok(())
        };
    }
    let Some((address, is_question)) = claimed(frame.from(at)) else { return Ok(()) };
    // A question whether anybody has an address must reach who has it.
    let if_others = if is_question { Ok(()) } else { Err(DropReason::SpoofedNeighbour) };
    if maker(address) == Some(sender) {
        return Ok(());
    }
    if is_anothers(world, memory, (vni, sender), address) {
        return if_others;
    }
    let is_new = !memory.claims.contains_key(&(vni, address));
    if is_new && slot.is_some_and(|slot| !memory.allows_claim(world, slot)) {
        return Err(DropReason::NeighbourLimit);
    }
    memory.claims.insert((vni, address), sender);
    Ok(())
}

/// The MAC that an address is made of.
fn maker(address: [u8; 16]) -> Option<MacBytes> {
    // The universal bit is inverted (RFC 4291, appendix A).
    let [.., a, b, c, 0xff, 0xfe, d, e, f] = address else { return None };
    Some([a ^ 2, b, c, d, e, f])
}

/// Whether another endpoint of the network than the sender has an address: it is made of that one's MAC, or else that
/// one spoke for it.
fn is_anothers(
    world: &World,
    memory: &Memory,
    (vni, sender): (u32, MacBytes),
    address: [u8; 16],
) -> bool {
    let is_here = |mac: &MacBytes| world.fdb.contains_key(&FdbKey { vni, mac: *mac, pad: [0; 2] });
    let maker = maker(address);
    let owner = maker.filter(is_here);
    let owner = owner.or_else(|| memory.claims.get(&(vni, address)).copied().filter(is_here));
    maker != Some(sender) && owner.is_some_and(|owner| owner != sender)
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
