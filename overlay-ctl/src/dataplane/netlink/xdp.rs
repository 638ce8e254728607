//! What must be known of a device before an XDP program is attached: the programs that are on it, and the offloads that
//! it could lose.

use std::collections::BTreeSet;

use super::{Netlink, NetlinkError, Offloads, OffloadsError, link};

/// A device, as far as XDP is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpDevice {
    /// Its name.
    pub name: String,
    /// It is hardware, or what a virtual machine takes for hardware: not a veth, a bond or a VLAN. False also before
    /// Linux 5.14, which does not tell.
    pub has_hardware: bool,
    /// VLAN devices are made on it.
    pub has_vlans: bool,
    /// Ids of the XDP programs on it, whoever attached them.
    pub programs: BTreeSet<u32>,
}

impl Netlink {
    /// The device with that index; `None` where it is gone.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn xdp_device(&self, ifindex: u32) -> Result<Option<XdpDevice>, NetlinkError> {
        let links = link::links(&self.handle, None).await?;
        let has_vlans = links.iter().any(|link| link.kind == "vlan" && link.peer == Some(ifindex));
        let link = links.into_iter().find(|link| link.index == ifindex);
        Ok(link.map(|link| XdpDevice {
            has_vlans,
            name: link.name,
            has_hardware: link.parent.is_known(),
            programs: link.xdp,
        }))
    }
}

/// The offloads that are in force on a device of the calling thread's network namespace (`rx-gro-hw`, `rx-lro`). Must be
/// called within a tokio runtime.
///
/// # Errors
/// Those of [`Offloads::in_force`].
pub async fn offloads(ifname: &str) -> Result<BTreeSet<String>, OffloadsError> {
    Offloads::open()?.in_force(ifname).await
}
