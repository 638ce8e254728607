//! The sender of a frame, and what it may say of itself.
//!
//! A bridging endpoint stands for stations whose MACs no map has. No permission lets anybody speak as an endpoint: a MAC
//! or an address of one is its own alone.

use crate::{
    frame,
    headers::Eth,
    maps::{self, FdbWords},
};
use overlay_common::{DropReason, FLAG_ROUTING, FLAG_STATIONS, Ip16, NeighKey, ip16_from_v4};

/// First bytes of addresses that no packet comes from (RFC 1122, section 3.2.1.3; RFC 1112, section 4; RFC 919): of
/// 127.0.0.0/8, and the least one of groups, behind which are those without a use and the broadcast address.
const LOOPBACK: u8 = 127;
const FIRST_GROUP: u8 = 224;

#[derive(Clone, Copy)]
pub struct Sender {
    pub vni: u32,
    /// `FLAG_…` of the endpoint, and [`FLAG_STATIONS`] for a station behind it.
    pub flags: u32,
    /// The endpoint's IPv4 address as a number: see [`number`]. 0 for a station. A number and no reference, as the
    /// verifier would walk all that follows once for each map that it leads to.
    pub own: u32,
    pub eth: Eth,
    /// The slot of an endpoint of this node; `None` if the frame comes from another, which has its own limits.
    pub slot: Option<u32>,
}

impl Sender {
    /// Whether one of these flags is set.
    #[inline(always)]
    pub fn has(self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Checks that the sender may use this IPv4 address as its own.
    #[inline(always)]
    pub fn check_ip(self, ip: [u8; 4]) -> Result<(), DropReason> {
        if u32::from_ne_bytes(ip) == self.own || self.has_foreign(ip) {
            Ok(())
        } else {
            Err(DropReason::SpoofedIp)
        }
    }

    /// Whether the sender may use an address that is not its own: this one is no endpoint's, and none that only the
    /// gateway, or nobody, sends from.
    #[cold]
    #[inline(always)]
    fn has_foreign(self, ip: [u8; 4]) -> bool {
        let is_allowed = self.has(FLAG_ROUTING | FLAG_STATIONS);
        if !is_allowed || ip[0] == LOOPBACK || ip[0] >= FIRST_GROUP {
            return false;
        }
        let Some(config) = maps::config_or_zeros() else { return false };
        let [ip_word, net, mask] =
            [ip, config.gateway, config.gateway_mask].map(u32::from_ne_bytes);
        if mask != 0 && ip_word & mask == net {
            return false;
        }
        let key = NeighKey { vni: self.vni, ip: ip16_from_v4(ip) };
        maps::neigh(&key).is_none()
    }
}

/// The IPv4 address in `ip`, as the bytes of a packet make a number.
#[inline(always)]
pub fn number(ip: &Ip16) -> u32 {
    u32::from_ne_bytes(frame::v4(ip))
}

/// Whether the source MAC can be that of a station behind a bridging endpoint: neither an endpoint's nor a group's.
#[inline(always)]
pub fn is_station(vni: u32, eth: Eth) -> bool {
    !eth.is_from_group() && maps::fdb(FdbWords::new(vni, eth.source()).key()).is_none()
}
