//! What of a pair that stands can be made to fit while packets flow: its MTU, and how large its
//! super-packets may be.

use std::path::Path;

use netlink_packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkUnspec};

use super::{
    Netlink, NetlinkError, ObservedLeg, ObservedPeer, ObservedPort, PortError, SuperPackets, link,
    super_packets,
};

/// Sizes that a pair is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairSizes {
    /// Of both sides, in bytes.
    pub mtu: u32,
    /// What the host's side gives to the endpoint.
    pub outside: SuperPackets,
    /// What the endpoint's side gives to the host.
    pub inside: SuperPackets,
}

/// Both sides of a pair, as seen.
struct Sides<'a> {
    ifname: &'a str,
    ifindex: u32,
    mtu: u32,
    super_packets: &'a SuperPackets,
    peer: Option<&'a ObservedPeer>,
}

impl<'a> From<&'a ObservedPort> for Sides<'a> {
    fn from(port: &'a ObservedPort) -> Self {
        let ObservedPort { ifname, ifindex, mtu, super_packets, peer, .. } = port;
        Self { ifname, ifindex: *ifindex, mtu: *mtu, super_packets, peer: peer.as_ref() }
    }
}

impl<'a> From<&'a ObservedLeg> for Sides<'a> {
    fn from(leg: &'a ObservedLeg) -> Self {
        let ObservedLeg { ifname, ifindex, mtu, super_packets, peer, .. } = leg;
        Self { ifname, ifindex: *ifindex, mtu: *mtu, super_packets, peer: peer.as_ref() }
    }
}

/// The MTU of the endpoint's side where the host's goes from `old` to `new`. One that the endpoint has
/// set itself stays, unless it is too large now: a veth drops what its other side does not take.
fn inner_mtu(inner: u32, old: u32, new: u32) -> u32 {
    if inner == old || inner > new { new } else { inner }
}

impl PairSizes {
    /// Nothing of the pair has to change. What the endpoint did to its own side since is its own
    /// business.
    fn are(&self, sides: &Sides<'_>) -> bool {
        sides.mtu == self.mtu && sides.super_packets.fits(&self.outside)
    }

    /// Nothing of the port has to change.
    #[must_use]
    pub fn are_of_port(&self, port: &ObservedPort) -> bool {
        self.are(&port.into())
    }

    /// Nothing of the leg has to change.
    #[must_use]
    pub fn are_of_leg(&self, leg: &ObservedLeg) -> bool {
        self.are(&leg.into())
    }
}

impl Netlink {
    /// Makes a port have these sizes, both sides, while packets flow through it. `netns` is its
    /// endpoint's namespace.
    ///
    /// # Errors
    /// [`PortError::NoNamespace`], [`PortError::Gone`] and their like where the endpoint's side can't be
    /// reached: then the host's is left as it was, too. rtnetlink's.
    pub async fn fit_port(
        &self,
        port: &ObservedPort,
        netns: &Path,
        sizes: &PairSizes,
    ) -> Result<(), PortError> {
        self.fit(port.into(), netns, sizes).await
    }

    /// The same for a gateway leg.
    ///
    /// # Errors
    /// Those of [`Self::fit_port`].
    pub async fn fit_leg(
        &self,
        leg: &ObservedLeg,
        netns: &Path,
        sizes: &PairSizes,
    ) -> Result<(), PortError> {
        self.fit(leg.into(), netns, sizes).await
    }

    async fn fit(
        &self,
        sides: Sides<'_>,
        netns: &Path,
        sizes: &PairSizes,
    ) -> Result<(), PortError> {
        let gone = || PortError::Gone(sides.ifname.to_owned());
        let peer = sides.peer.ok_or_else(gone)?;
        let inside = self.beside(peer, netns, sides.ifname).await?;
        let inner = inner_mtu(peer.mtu, sides.mtu, sizes.mtu);
        // The side that takes comes before the side that gives, so that at no moment a packet is larger
        // than what takes it.
        let host = async || {
            set_mtu(&self.handle, sides.ifindex, sides.mtu, sizes.mtu).await?;
            let has = sides.super_packets;
            super_packets::set(&self.handle, sides.ifindex, has, &sizes.outside).await
        };
        let endpoint = async || {
            set_mtu(&inside, peer.ifindex, peer.mtu, inner).await?;
            super_packets::set(&inside, peer.ifindex, &peer.super_packets, &sizes.inside).await
        };
        let fitted = if sizes.mtu > sides.mtu {
            match host().await {
                Ok(()) => endpoint().await,
                failed => failed,
            }
        } else {
            match endpoint().await {
                Ok(()) => host().await,
                failed => failed,
            }
        };
        fitted.map_err(|error| if error.is_gone() { gone() } else { error.into() })
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
