//! What can change of a device while packets flow through it: its MTU, and the sizes of its super-packets.

use netlink_packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkUnspec};

use super::{DeviceError, Netlink, NetlinkError, link, super_packets};
use crate::dataplane::kernel::{DeviceSpec, ObservedDevice};

/// The new MTU of the endpoint's side, where the host's side goes from `old` to `new`. An MTU that the endpoint has
/// set itself stays, unless it is too large now: a veth drops what its other side does not take.
fn inner_mtu(inner: u32, old: u32, new: u32) -> u32 {
    if inner == old || inner > new { new } else { inner }
}

impl Netlink {
    /// Gives both sides of a device the sizes of its spec, while packets flow through it.
    ///
    /// # Errors
    /// [`DeviceError::NoNamespace`], [`DeviceError::Gone`] and the like where the endpoint's side cannot be reached: then
    /// the host's side stays as it was, too. rtnetlink's.
    pub async fn update_device(
        &self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<(), DeviceError> {
        let gone = || DeviceError::Gone(seen.ifname.clone());
        let sizes = &spec.sizes;
        let peer = seen.peer.as_ref().ok_or_else(gone)?;
        let inside = self.connect_in_peer_netns(peer, &spec.netns, &seen.ifname).await?;
        let inner = inner_mtu(peer.mtu, seen.mtu, sizes.mtu);
        let host = async || {
            set_mtu(&self.handle, seen.ifindex, seen.mtu, sizes.mtu).await?;
            let has = &seen.super_packets;
            super_packets::set(&self.handle, seen.ifindex, has, &sizes.outside).await
        };
        let endpoint = async || {
            set_mtu(&inside, peer.ifindex, peer.mtu, inner).await?;
            super_packets::set(&inside, peer.ifindex, &peer.super_packets, &sizes.inside).await
        };
        // The host's side grows first and shrinks last, so that it takes whatever the endpoint sends.
        let updated = if sizes.mtu > seen.mtu {
            match host().await {
                Ok(()) => match endpoint().await {
                    // The host's side is set back, so that the device is seen as not yet updated, and tried again.
                    Err(error) => {
                        let back = set_mtu(&self.handle, seen.ifindex, sizes.mtu, seen.mtu).await;
                        if let Err(back) = back {
                            let error = crate::error_chain(&back);
                            tracing::warn!(device = seen.ifname, error, "its old MTU was not set");
                        }
                        Err(error)
                    }
                    done => done,
                },
                failed => failed,
            }
        } else {
            match endpoint().await {
                Ok(()) => host().await,
                failed => failed,
            }
        };
        updated.map_err(|error| if error.is_gone() { gone() } else { error.into() })
    }
}

async fn set_mtu(handle: &Handle, index: u32, has: u32, wanted: u32) -> Result<(), NetlinkError> {
    if has == wanted {
        return Ok(());
    }
    let message: LinkMessage = LinkUnspec::new_with_index(index).mtu(wanted).build();
    link::change(handle, message, "change a device's MTU").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_of_the_endpoint_s_own_stays_unless_it_is_too_large() {
        assert_eq!(inner_mtu(1450, 1450, 8950), 8950);
        assert_eq!(inner_mtu(1450, 1450, 1350), 1350);
        assert_eq!(inner_mtu(1200, 1450, 8950), 1200, "its own");
        assert_eq!(inner_mtu(1400, 1450, 1350), 1350, "its own, but too large now");
    }
}
