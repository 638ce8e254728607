//! Who speaks for an IPv6 address on a network (neighbour discovery, RFC 4861).
//!
//! The maps know no IPv6 address of an endpoint. So the first endpoint that speaks for one has it (RFC 6620: first come,
//! first served), as long as it is an endpoint of the network and has spoken for it in the last minutes. An address that
//! is made of another endpoint's MAC (RFC 4291, appendix A) is never somebody else's. Each node learns from what passes,
//! and decides for its own endpoints: on the sender's node and again on the receiver's.

use crate::{
    frame::{header, linear, same_ip},
    headers::Ipv6,
    limit,
    maps::{self, CLAIMS, FdbWords},
    sender::Sender,
};
use aya_ebpf::{helpers::bpf_ktime_get_ns, programs::TcContext};
use core::mem::offset_of;
use overlay_common::{ClaimEntry, DropReason, IP16_NONE, Ip16, NeighKey};

/// ICMPv6 (RFC 4861, section 4).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const REDIRECT: u8 = 137;
/// How long a claim holds, in nanoseconds (RFC 6620, section 3.8: DEFAULT_LT). Neighbours that talk to an address ask for
/// it every half a minute.
const KEPT: u64 = 300 * 1_000_000_000;

/// Checks the ICMPv6 message behind the IPv6 header at `l3`, if it speaks for an address. Its hop limit is one with
/// which receivers believe it. One that is too short is not believed by any receiver.
///
/// A router's advertisement says which MAC its source has, and a redirect which MAC its target has: neither may be an
/// address that another endpoint has. A redirect gives the target to nobody, because it may be another router's. It
/// counts only if it comes from the router that the receiver uses (RFC 4861, section 8.1), so its source may not be
/// another's either.
#[cold]
#[inline(always)]
pub fn check(ctx: &TcContext, l3: usize, sender: Sender) -> Result<(), DropReason> {
    let message = l3 + size_of::<Ipv6>();
    let (source, target) = (l3 + offset_of!(Ipv6, src), message + 8);
    let Ok(kind) = header::<u8>(ctx, message).copied() else { return Ok(()) };
    if !matches!(kind, ROUTER_SOLICITATION..=REDIRECT) {
        return Ok(());
    }
    let has_source = !same_ip(header(ctx, source)?, &IP16_NONE);
    let is_routers = matches!(kind, ROUTER_SOLICITATION | ROUTER_ADVERTISEMENT);
    let (at, if_others) = match (kind, has_source) {
        _ if is_routers && !has_source => return Ok(()),
        _ if is_routers => (source, IF_OTHERS),
        (NEIGHBOUR_SOLICITATION, true) => (source, IF_OTHERS),
        // Asks whether anybody has the address that it would like (RFC 4862, section 5.4). It must reach who has it.
        (NEIGHBOUR_SOLICITATION, false) => (target, Ok(())),
        _ => (target, IF_OTHERS),
    };
    if !is_routers && linear(ctx, target + size_of::<Ip16>()).is_err() {
        return Ok(());
    }
    if kind == REDIRECT && is_anothers(sender, *header(ctx, source)?) {
        return IF_OTHERS;
    }
    claim(ctx, sender, at, if_others, kind != REDIRECT)
}

/// What becomes of a message that speaks for another's address.
const IF_OTHERS: Result<(), DropReason> = Err(DropReason::SpoofedNeighbour);

/// Gives the address at this place of the packet to the sender, if nobody else has it and `takes` is true. If somebody
/// else has it, the result is `if_others`.
#[inline(always)]
fn claim(
    ctx: &TcContext,
    sender: Sender,
    at: usize,
    if_others: Result<(), DropReason>,
    takes: bool,
) -> Result<(), DropReason> {
    let Sender { vni, eth, slot, .. } = sender;
    let own = eth.source();
    let key = NeighKey { ip: *header(ctx, at)?, vni };
    if mac_of(&key.ip) == Some(own) {
        return Ok(());
    }
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if has_other(&key, own, now) {
        return if_others;
    }
    if !takes {
        return Ok(());
    }
    if maps::claim(&key).is_none()
        && let Some(slot) = slot
        && let Some(config) = maps::config_or_zeros()
        && !limit::allows(config.claims, slot, |limits| &mut limits.claims_ns)
    {
        return Err(DropReason::NeighbourLimit);
    }
    let [a, b, c, d, e, f, ..] = own.to_le_bytes();
    let entry = ClaimEntry { mac: [a, b, c, d, e, f], pad: [0; 2], until_ns: now + KEPT };
    CLAIMS.insert(key, entry, 0).map_err(|_| DropReason::NeighbourLimit)
}

/// Whether another endpoint than the sender speaks for an address.
#[inline(always)]
pub fn is_anothers(sender: Sender, ip: Ip16) -> bool {
    let key = NeighKey { ip, vni: sender.vni };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    has_other(&key, sender.eth.source(), now)
}

/// Whether another endpoint than `own` has the address: it is made of that one's MAC, or that one spoke for it.
#[inline(always)]
fn has_other(key: &NeighKey, own: u64, now: u64) -> bool {
    let is_endpoint = |mac| maps::fdb(FdbWords::new(key.vni, mac).key()).is_some();
    if let Some(mac) = mac_of(&key.ip) {
        if mac == own {
            return false;
        }
        if is_endpoint(mac) {
            return true;
        }
    }
    let Some(held) = maps::claim(key) else { return false };
    let holder = word(&held.mac);
    holder != own && now < held.until_ns && is_endpoint(holder)
}

/// The MAC that an address is made of, if it is made of one.
#[inline(always)]
fn mac_of(ip: &Ip16) -> Option<u64> {
    let is_made_of_one = ip[11] == 0xff && ip[12] == 0xfe;
    is_made_of_one.then(|| word(&[ip[8] ^ 2, ip[9], ip[10], ip[13], ip[14], ip[15]]))
}

/// A MAC in the lower six bytes.
#[inline(always)]
fn word(mac: &[u8; 6]) -> u64 {
    u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0])
}
