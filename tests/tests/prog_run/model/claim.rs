//! IPv6 addresses and the endpoints that speak for them (RFC 4861). The first endpoint that speaks for an address has it
//! (RFC 6620), as long as it is in the network. A claim holds for five minutes, which is longer than the model runs.

use std::collections::BTreeMap;

use overlay_common::{DropReason, FdbKey, MacBytes};

use super::{
    bytes::{Bytes, IPV6},
    icmp,
    memory::Memory,
    sender::Sender,
    vlan::Inside,
};
use crate::world::World;

/// The owner of each address, by network.
pub(super) type Claims = BTreeMap<(u32, [u8; 16]), MacBytes>;

/// Checks a frame whose packet was checked by [`super::fence`]. The claims of endpoints of this node are limited.
pub(super) fn check(
    world: &World,
    memory: &mut Memory,
    sender: &Sender,
    frame: Bytes<'_>,
    inside: Inside,
) -> Result<(), DropReason> {
    let Inside::Packet(IPV6, at) = inside else { return Ok(()) };
    let is_router = sender.routes();
    let Sender { vni, mac: sender, slot, .. } = *sender;
    if let Some(address) = icmp::about_v6(frame.from(at), is_router)? {
        return if is_anothers(world, memory, (vni, sender), address) {
            Err(DropReason::IcmpAboutOthers)
        } else {
            Ok(())
        };
    }
    let Some((address, speaks)) = claimed(frame.from(at)) else { return Ok(()) };
    // A question whether anybody has an address must reach who has it.
    let if_others = match speaks {
        Speaks::AsksFor => Ok(()),
        Speaks::Claims | Speaks::Names => Err(DropReason::SpoofedNeighbour),
    };
    // Whoever names another router must be one itself: it may not speak as a router that it is not.
    if speaks == Speaks::Names
        && let Ok(source) = frame.from(at).array(8)
        && is_anothers(world, memory, (vni, sender), source)
    {
        return if_others;
    }
    if maker(address) == Some(sender) {
        return Ok(());
    }
    if is_anothers(world, memory, (vni, sender), address) {
        return if_others;
    }
    if speaks == Speaks::Names {
        return Ok(());
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

/// What a message says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    /// That it is the sender's.
    Claims,
    /// That the sender would like to have it.
    AsksFor,
    /// Where it is.
    Names,
}

/// The address of which a message speaks: the target of a neighbour's advertisement or of a redirect, the source of a
/// solicitation or of a router's advertisement, or the target of a solicitation that has no source.
fn claimed(ip: Bytes<'_>) -> Option<([u8; 16], Speaks)> {
    const ICMPV6: u8 = 58;
    let is_believed = ip.byte(6) == Ok(ICMPV6) && ip.byte(7) == Ok(255);
    let icmp = ip.from(40);
    let source = ip.array(8).ok().filter(|source| *source != [0; 16]);
    let target = icmp.array(8).ok();
    match icmp.byte(0).ok().filter(|_| is_believed)? {
        133 | 134 => Some((source?, Speaks::Claims)),
        135 => target.map(|target| match source {
            Some(source) => (source, Speaks::Claims),
            None => (target, Speaks::AsksFor),
        }),
        136 => Some((target?, Speaks::Claims)),
        137 => Some((target?, Speaks::Names)),
        _ => None,
    }
}
