//! How large a super-packet may be: what the stack hands to a device as one and the device, or GSO, cuts
//! into packets of its MTU. Above 64 KiB it is what Linux calls BIG TCP.

use netlink_packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec};
use serde::{Deserialize, Serialize};

use super::{
    Netlink, NetlinkError,
    link::{self, Link},
};

/// What every device starts with, and all that a kernel without BIG TCP knows, in bytes.
pub const SUPER_PACKET_MAX: u32 = 65_536;

/// The sizes that can be set on a device, in bytes. `None`: the kernel has no such attribute (those of
/// IPv4 came with 6.3, the others with 5.19), or it is to be left alone.
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
    /// All that a device of the kernel starts with.
    pub const DEFAULT: Self = {
        let all = Some(SUPER_PACKET_MAX);
        Self { gso: all, gro: all, gso_ipv4: all, gro_ipv4: all }
    };

    /// A device that has `self` is as `wanted`, in what is wanted and the kernel has.
    #[must_use]
    pub fn fits(&self, wanted: &Self) -> bool {
        let pairs = self.pairs(wanted);
        pairs.into_iter().all(|(has, wants)| wants.is_none_or(|_| has.is_none() || has == wants))
    }

    /// What of `wanted` the kernel has attributes for.
    #[must_use]
    pub fn possible(&self, wanted: &Self) -> Self {
        let [gso, gro, gso_ipv4, gro_ipv4] = self.pairs(wanted).map(|(has, wants)| has.and(wants));
        Self { gso, gro, gso_ipv4, gro_ipv4 }
    }

    /// What of these a device may be given that `takes` so much.
    #[must_use]
    pub(super) fn within(self, takes: Option<u32>) -> Self {
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

    /// Takes the attribute in, where it is one of these.
    pub(super) fn read(&mut self, attribute: &LinkAttribute) {
        match attribute {
            LinkAttribute::GsoMaxSize(size) => self.gso = Some(*size),
            LinkAttribute::GroMaxSize(size) => self.gro = Some(*size),
            LinkAttribute::GsoIpv4MaxSize(size) => self.gso_ipv4 = Some(*size),
            LinkAttribute::GroIpv4MaxSize(size) => self.gro_ipv4 = Some(*size),
            _ => {}
        }
    }

    fn attributes(self) -> impl Iterator<Item = LinkAttribute> {
        // One size for every protocol, where it is at most 64 KiB, is IPv4's too: the kernel takes
        // these in this order, whatever order they come in.
        [
            self.gso.map(LinkAttribute::GsoMaxSize),
            self.gro.map(LinkAttribute::GroMaxSize),
            self.gso_ipv4.map(LinkAttribute::GsoIpv4MaxSize),
            self.gro_ipv4.map(LinkAttribute::GroIpv4MaxSize),
        ]
        .into_iter()
        .flatten()
    }
}

/// Sets what of `wanted` the device, which has `has`, has attributes for and otherwise.
pub(super) async fn set(
    handle: &Handle,
    index: u32,
    has: &SuperPackets,
    wanted: &SuperPackets,
) -> Result<(), NetlinkError> {
    if has.fits(wanted) {
        return Ok(());
    }
    let mut message = LinkUnspec::new_with_index(index);
    for attribute in has.possible(wanted).attributes() {
        message = message.append_extra_attribute(attribute);
    }
    link::change(handle, message.build(), "change how large a device's super-packets may be").await
}

/// A device as far as its size of packets goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSizes {
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Bytes of the largest super-packet that the device takes (IFLA_TSO_MAX_SIZE); `None` where the
    /// kernel does not say (before 5.19).
    pub takes: Option<u32>,
    /// Those that it is given.
    pub super_packets: SuperPackets,
}

impl DeviceSizes {
    /// Of a device that is gone.
    pub const NONE: Self = Self {
        mtu: 0,
        takes: None,
        super_packets: SuperPackets { gso: None, gro: None, gso_ipv4: None, gro_ipv4: None },
    };
}

impl From<&Link> for DeviceSizes {
    fn from(link: &Link) -> Self {
        Self { mtu: link.mtu, takes: link.tso_max, super_packets: link.super_packets }
    }
}

impl Netlink {
    /// What sizes a device has; `None` where it is gone.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn device_sizes(&self, ifindex: u32) -> Result<Option<DeviceSizes>, NetlinkError> {
        let link = link::link_by_index(&self.handle, ifindex, None).await?;
        Ok(link.as_ref().map(DeviceSizes::from))
    }

    /// Lets a device have super-packets of the wanted sizes, as far as the kernel knows of such. It is
    /// no error when the device is gone.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn set_super_packets(
        &self,
        ifindex: u32,
        wanted: &SuperPackets,
    ) -> Result<(), NetlinkError> {
        let Some(sizes) = self.device_sizes(ifindex).await? else { return Ok(()) };
        match set(&self.handle, ifindex, &sizes.super_packets, wanted).await {
            Err(error) if error.is_gone() => Ok(()),
            set => set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_is_not_asked_of_it() {
        let old = SuperPackets { gso: Some(65_536), ..SuperPackets::default() };
        let big = Some(262_144);
        let ipv4 = SuperPackets { gso_ipv4: big, gro_ipv4: big, ..SuperPackets::default() };
        assert!(old.fits(&ipv4), "nothing that could be changed differs");
        assert_eq!(old.possible(&ipv4), SuperPackets::default());
        let all = SuperPackets { gso: big, gro: big, ..ipv4 };
        assert!(!old.fits(&all));
        assert_eq!(old.possible(&all), SuperPackets { gso: big, ..SuperPackets::default() });
        assert!(!SuperPackets::DEFAULT.fits(&ipv4));
        assert!(all.fits(&ipv4), "what is left alone may have any size");
    }
}
