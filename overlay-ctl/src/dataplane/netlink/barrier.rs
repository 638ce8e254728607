//! The barrier: a bridge that is down and carries no packet, with every endpoint's port and the merge pair in it.
//!
//! It does two things by its mere presence.
//!
//! - A port that belongs to a bridge hands nothing to the host's own stack, and a bridge that is down
//!   forwards nothing. `from_endpoint` takes every frame before the bridge could; if the program is missing,
//!   the frame ends here and not in the host's routing.
//! - A bridge makes all its ports reserve as much room before a packet as the port with the largest need
//!   (`br_add_if`, kernel commit 45493d47c3c7). The GRO device, a VXLAN device, is in it, so that an endpoint's
//!   socket leaves room for the outer headers when it makes a packet. Otherwise the programs would first have to
//!   copy the head of each small packet to a larger buffer.

use netlink_packet_route::link::LinkAttribute;
use nix::errno::Errno;
use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::{
    GroError, LinkList, Netlink, NetlinkError, bridge_port,
    link::{self, Link, Owner},
    marks::{self, id_of},
    merge_pair::is_merge_end,
    names::{BARRIER, BARRIER_ALIAS, GROUP},
};
use crate::dataplane::kernel::{Bridge, DeviceId};

/// The reason why some or all ports are outside of the barrier. Packets flow all the same, small ones a little slower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BarrierGap {
    /// The kernel has no bridges.
    NoBridges,
    /// A bridge takes 1,023 ports (`BR_MAX_PORTS`) and has them.
    Full,
}

impl std::fmt::Display for BarrierGap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBridges => write!(f, "no {BARRIER}: the kernel has no bridges"),
            Self::Full => write!(f, "{BARRIER} is full: some ports are outside of it"),
        }
    }
}

impl Netlink {
    /// Creates the bridge where it is missing, sets it down where it is up, and puts the GRO device, the merge
    /// pair and every endpoint's port into it. Returns why ports had to stay outside, if some had.
    ///
    /// # Errors
    /// [`GroError::NameTaken`] where a device of that name is not ours; rtnetlink's.
    pub async fn ensure_barrier(&self) -> Result<Option<BarrierGap>, GroError> {
        self.ensure_barrier_among(&self.link_list().await?).await
    }

    /// The same, among these devices of the host.
    ///
    /// # Errors
    /// As [`Netlink::ensure_barrier`].
    pub async fn ensure_barrier_among(
        &self,
        LinkList(links): &LinkList,
    ) -> Result<Option<BarrierGap>, GroError> {
        let existing = link::named(&self.handle, links, BARRIER).await?;
        let existing = existing.as_ref();
        let barrier = match existing.map(|link| (link, link.owner(BARRIER_ALIAS))) {
            Some((_, Owner::Foreign)) => return Err(GroError::NameTaken(BARRIER.to_owned())),
            Some((link, _)) => {
                if link.up {
                    link::set_down(&self.handle, link.index).await?;
                }
                link.index
            }
            None => match self.make_barrier().await? {
                Some(barrier) => barrier,
                None => return Ok(Some(BarrierGap::NoBridges)),
            },
        };
        if existing.is_none_or(|link| link.owner(BARRIER_ALIAS) == Owner::HalfMade) {
            link::set_addr_gen_none(&self.handle, barrier).await?;
            link::set_alias(&self.handle, barrier, BARRIER_ALIAS).await?;
        }
        // The device that needs the most room first: each other device learns of it when it is put in.
        let (gro, others): (Vec<&Link>, Vec<&Link>) =
            links.iter().partition(|link| marks::is_gro_device(link));
        let belongs = |id: DeviceId| id.kind.row().bridge == Bridge::Barrier;
        let belongs = |link: &&Link| id_of(link).is_some_and(belongs) || is_merge_end(link);
        let ports = others.into_iter().filter(belongs);
        for link in gro.into_iter().chain(ports) {
            if link.controller == Some(barrier) {
                continue;
            }
            match bridge_port::set_controller(&self.handle, link.index, barrier).await {
                Err(error) if error.errno() == Some(Errno::EXFULL) => {
                    return Ok(Some(BarrierGap::Full));
                }
                // It went meanwhile.
                Err(error) if error.is_gone() => {}
                done => done?,
            }
        }
        Ok(None)
    }

    /// Removes the bridge, where it exists and is the overlay's. Its ports stay, outside of it. Returns true if it did.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_barrier(&self) -> Result<bool, GroError> {
        match link::link_by_name(&self.handle, BARRIER).await? {
            Some(link) if link.owner(BARRIER_ALIAS) != Owner::Foreign => {
                link::delete(&self.handle, link.index).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The bridge's index, where it stands.
    pub(super) async fn barrier(&self) -> Result<Option<u32>, NetlinkError> {
        let link = link::link_by_name(&self.handle, BARRIER).await?;
        Ok(link.filter(|link| link.owner(BARRIER_ALIAS) == Owner::Ours).map(|link| link.index))
    }

    /// `None` where the kernel has no bridges.
    async fn make_barrier(&self) -> Result<Option<u32>, GroError> {
        // Down, and never brought up.
        let message = LinkMessageBuilder::<LinkBridge>::new(BARRIER)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .build();
        let made = self.handle.link().add(message).execute().await;
        match made.map_err(|error| NetlinkError::new("create the barrier bridge", error)) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => return Ok(None),
            done => done?,
        }
        let link = link::link_by_name(&self.handle, BARRIER).await?;
        let made = link.map(|link| link.index);
        made.map(Some).ok_or_else(|| GroError::NameTaken(BARRIER.to_owned()))
    }
}
