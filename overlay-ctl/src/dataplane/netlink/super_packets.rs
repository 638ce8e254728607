//! Reads and sets the sizes of packets of a single device.

use netlink_packet_route::link::LinkAttribute;
use rtnetlink::{Handle, LinkUnspec};

use super::{
    Netlink, NetlinkError,
    link::{self, Link},
};
use crate::dataplane::kernel::SuperPackets;

fn attributes(sizes: SuperPackets) -> impl Iterator<Item = LinkAttribute> {
    // Where one size for every protocol is at most 64 KiB, the kernel also takes it for IPv4. It reads the attributes
    // in this order, whatever their order in the message.
    [
        sizes.gso.map(LinkAttribute::GsoMaxSize),
        sizes.gro.map(LinkAttribute::GroMaxSize),
        sizes.gso_ipv4.map(LinkAttribute::GsoIpv4MaxSize),
        sizes.gro_ipv4.map(LinkAttribute::GroIpv4MaxSize),
    ]
    .into_iter()
    .flatten()
}

/// Gives a device that has the sizes `has` those of `wanted` for which the kernel has attributes.
pub(super) async fn set(
    handle: &Handle,
    index: u32,
    has: &SuperPackets,
    wanted: &SuperPackets,
) -> Result<(), NetlinkError> {
    if has.satisfies(wanted) {
        return Ok(());
    }
    let mut message = LinkUnspec::new_with_index(index);
    for attribute in attributes(has.possible(wanted)) {
        message = message.append_extra_attribute(attribute);
    }
    link::change(handle, message.build(), "change how large a device's super-packets may be").await
}

/// The sizes of packets of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSizes {
    /// The largest packet, in bytes.
    pub mtu: u32,
    /// The largest super-packet that the device takes (IFLA_TSO_MAX_SIZE), in bytes; `None` where the kernel does not
    /// tell (before 5.19).
    pub takes: Option<u32>,
    /// The largest super-packets that it is given.
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
    /// The sizes of a device; `None` where it is gone.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn device_sizes(&self, ifindex: u32) -> Result<Option<DeviceSizes>, NetlinkError> {
        let link = link::link_by_index(&self.handle, ifindex, None).await?;
        Ok(link.as_ref().map(DeviceSizes::from))
    }

    /// Gives a device super-packets of the wanted sizes, as far as the kernel has attributes for them. It is no error
    /// when the device is gone.
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
