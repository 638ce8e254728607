//! The sizes of packets that a device has: its MTU, and how large its super-packets may be.
//!
//! A super-packet is what the stack hands to a device as one packet, and the device, or GSO, cuts into packets of its
//! MTU. Super-packets above 64 KiB are what Linux calls BIG TCP.

use serde::{Deserialize, Serialize};

/// The size that every device starts with, and the largest on a kernel without BIG TCP, in bytes.
pub const SUPER_PACKET_MAX: u32 = 65_536;

/// The sizes of super-packets that can be set on a device, in bytes. `None` in what is seen: the kernel has no such
/// attribute (those of IPv4 came with 6.3, the others with 5.19). `None` in what is wanted: any size is fine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuperPackets {
    /// Sent, of any protocol but IPv4 (IFLA_GSO_MAX_SIZE).
    pub gso: Option<u32>,
    /// Merged on reception, of any protocol but IPv4 (IFLA_GRO_MAX_SIZE).
    pub gro: Option<u32>,
    /// Sent, IPv4 (IFLA_GSO_IPV4_MAX_SIZE).
    pub gso_ipv4: Option<u32>,
    /// Merged on reception, IPv4 (IFLA_GRO_IPV4_MAX_SIZE).
    pub gro_ipv4: Option<u32>,
}

impl SuperPackets {
    /// The sizes that a device of the kernel starts with.
    pub const DEFAULT: Self = {
        let all = Some(SUPER_PACKET_MAX);
        Self { gso: all, gro: all, gso_ipv4: all, gro_ipv4: all }
    };

    /// Returns true if a device that has `self` needs no change to have `wanted`.
    #[must_use]
    pub fn satisfies(&self, wanted: &Self) -> bool {
        let pairs = self.pairs(wanted);
        pairs.into_iter().all(|(has, wants)| wants.is_none_or(|_| has.is_none() || has == wants))
    }

    /// The part of `wanted` for which the kernel has attributes.
    #[must_use]
    pub fn possible(&self, wanted: &Self) -> Self {
        let [gso, gro, gso_ipv4, gro_ipv4] = self.pairs(wanted).map(|(has, wants)| has.and(wants));
        Self { gso, gro, gso_ipv4, gro_ipv4 }
    }

    /// These sizes, reduced to what a device can be given that takes super-packets of at most `takes` bytes.
    #[must_use]
    pub fn within(self, takes: Option<u32>) -> Self {
        let least = |size: Option<u32>| size.map(|size| takes.map_or(size, |most| size.min(most)));
        Self { gso: least(self.gso), gso_ipv4: least(self.gso_ipv4), ..self }
    }

    fn pairs(&self, other: &Self) -> [(Option<u32>, Option<u32>); 4] {
        [
            (self.gso, other.gso),
            (self.gro, other.gro),
            (self.gso_ipv4, other.gso_ipv4),
            (self.gro_ipv4, other.gro_ipv4),
        ]
    }
}

/// The sizes that a veth pair must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairSizes {
    /// MTU of both sides, in bytes.
    pub mtu: u32,
    /// Super-packets that the host's side gives to the endpoint.
    pub outside: SuperPackets,
    /// Super-packets that the endpoint's side gives to the host.
    pub inside: SuperPackets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_not_asked_of_it() {
        let old = SuperPackets { gso: Some(65_536), ..SuperPackets::default() };
        let big = Some(262_144);
        let ipv4 = SuperPackets { gso_ipv4: big, gro_ipv4: big, ..SuperPackets::default() };
        assert!(old.satisfies(&ipv4), "nothing that could be changed differs");
        assert_eq!(old.possible(&ipv4), SuperPackets::default());
        let all = SuperPackets { gso: big, gro: big, ..ipv4 };
        assert!(!old.satisfies(&all));
        assert_eq!(old.possible(&all), SuperPackets { gso: big, ..SuperPackets::default() });
        assert!(!SuperPackets::DEFAULT.satisfies(&ipv4));
        assert!(all.satisfies(&ipv4), "what is left alone may have any size");
    }
}
