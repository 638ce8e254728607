//! What must be known of a device before an XDP program is attached: the programs that are on it, and the offloads that
//! it could lose.

use std::collections::BTreeSet;

use ethtool::{EthtoolAttr, EthtoolError, EthtoolFeatureAttr};
use futures::TryStreamExt as _;

use super::{Netlink, NetlinkError, OffloadsError, link};

/// A device, as far as XDP is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XdpDevice {
    /// Its name.
    pub name: String,
    /// It is hardware, or what a virtual machine takes for hardware: not a veth, a bond or a VLAN. False also before
    /// Linux 5.14, which does not tell.
    pub has_hardware: bool,
    /// Ids of the XDP programs on it, whoever attached them.
    pub programs: BTreeSet<u32>,
}

impl Netlink {
    /// The device with that index; `None` where it is gone.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn xdp_device(&self, ifindex: u32) -> Result<Option<XdpDevice>, NetlinkError> {
        let link = link::link_by_index(&self.handle, ifindex, None).await?;
        Ok(link.map(|link| XdpDevice {
            name: link.name,
            has_hardware: link.parent.is_known(),
            programs: link.xdp,
        }))
    }
}

/// The offloads that are in force on a device of the calling thread's network namespace, by the names
/// that `ethtool -k` gives to the kernel's features (`rx-gro-hw`, `rx-lro`). Must be called within a tokio
/// runtime.
///
/// # Errors
/// [`OffloadsError`]: a kernel without ethtool's netlink family (before 5.6), or no such device.
pub async fn offloads(ifname: &str) -> Result<BTreeSet<String>, OffloadsError> {
    let (connection, mut handle, _) = ethtool::new_connection().map_err(OffloadsError::Open)?;
    // It ends with the handle.
    tokio::spawn(connection);
    let read = async {
        let answers = handle.feature().get(Some(ifname)).execute().await?;
        answers.try_collect::<Vec<_>>().await
    };
    let answers: Result<_, EthtoolError> = read.await;
    let answers = answers.map_err(|error| OffloadsError::Refused(error.to_string()))?;
    let attributes = answers.into_iter().flat_map(|answer| answer.payload.nlas);
    let active = attributes.filter_map(|attribute| match attribute {
        EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) => Some(bits),
        _ => None,
    });
    let active: BTreeSet<String> =
        active.flatten().filter(|bit| bit.value).map(|bit| bit.name).collect();
    // No device is without any: it would be an answer that was not understood.
    if active.is_empty() { Err(OffloadsError::Nothing) } else { Ok(active) }
}
