//! The bridge that carries no packet: a bridge that is down, with every port of ours in it.
//!
//! It does two things by its mere presence.
//!
//! - A port that belongs to a bridge hands nothing to the host's own stack, and a bridge that is down
//!   forwards nothing. `from_endpoint` takes every frame before the bridge could; were it not there,
//!   the frame would end here and not in the host's routing.
//! - A bridge asks of all its ports the room before a packet that its hungriest one needs
//!   (`br_add_if`, kernel commit 45493d47c3c7). The VXLAN device that only exists is in it, so that an
//!   endpoint's socket leaves room for the outer headers when it makes a packet. Without it, the
//!   programs' first step would be to copy the head of each small packet to a larger buffer.

use netlink_packet_route::link::LinkAttribute;
use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::{
    GroError, Netlink, NetlinkError,
    link::{self, GROUP, Link, Owner},
    port,
};

/// There is one node in a namespace, and so one of these.
const BARRIER: &str = "ovbarrier";
const BARRIER_ALIAS: &str = "overlay:barrier";

impl Netlink {
    /// Makes the bridge where it is missing, and puts the GRO device and every port of ours into it.
    ///
    /// # Errors
    /// [`GroError::NameTaken`] where a device of that name is not ours; rtnetlink's.
    pub async fn ensure_barrier(&self, gro_device: &str) -> Result<(), GroError> {
        let links = link::links(&self.handle).await?;
        let existing = links.iter().find(|link| link.name == BARRIER);
        let barrier = match existing.map(|link| (link, link.owner(BARRIER_ALIAS))) {
            Some((_, Owner::Foreign)) => return Err(GroError::NameTaken(BARRIER.to_owned())),
            Some((link, _)) => link.index,
            None => self.make_barrier().await?,
        };
        link::set_alias(&self.handle, barrier, BARRIER_ALIAS).await?;
        let belongs = |link: &&Link| link.name == gro_device || port::is_port(link);
        // The device that needs the most room first: the others are told when they come.
        let (gro, ports): (Vec<&Link>, Vec<&Link>) =
            links.iter().filter(belongs).partition(|link| link.name == gro_device);
        for link in gro.into_iter().chain(ports) {
            if link.controller != Some(barrier) {
                link::set_controller(&self.handle, link.index, barrier).await?;
            }
        }
        Ok(())
    }

    /// Removes the bridge. Its ports stay, outside of it.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_barrier(&self) -> Result<(), GroError> {
        match link::link_by_name(&self.handle, BARRIER).await? {
            Some(link) if link.owner(BARRIER_ALIAS) != Owner::Foreign => {
                Ok(link::delete(&self.handle, link.index).await?)
            }
            _ => Ok(()),
        }
    }

    /// The bridge's index, where it stands.
    pub(super) async fn barrier(&self) -> Result<Option<u32>, NetlinkError> {
        let link = link::link_by_name(&self.handle, BARRIER).await?;
        Ok(link.filter(|link| link.owner(BARRIER_ALIAS) == Owner::Ours).map(|link| link.index))
    }

    async fn make_barrier(&self) -> Result<u32, GroError> {
        // Down, and never brought up.
        let message = LinkMessageBuilder::<LinkBridge>::new(BARRIER)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .build();
        let made = self.handle.link().add(message).execute().await;
        made.map_err(|error| NetlinkError::new("create the barrier bridge", error))?;
        let link = link::link_by_name(&self.handle, BARRIER).await?;
        link.map(|link| link.index).ok_or_else(|| GroError::NameTaken(BARRIER.to_owned()))
    }
}
