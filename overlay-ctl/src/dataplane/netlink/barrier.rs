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
use nix::errno::Errno;
use rtnetlink::{LinkBridge, LinkMessageBuilder};

use super::{
    GroError, Netlink, NetlinkError, gro,
    link::{self, GROUP, Link, Owner},
    port,
};

/// There is one node in a namespace, and so one of these.
const BARRIER: &str = "ovbarrier";
const BARRIER_ALIAS: &str = "overlay:barrier";

/// Why a port, or all of them, can be outside of it: packets flow all the same, each small one a little
/// slower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outside {
    /// The kernel has no bridges.
    NoBridges,
    /// A bridge takes 1,023 ports (`BR_MAX_PORTS`) and has them.
    Full,
}

impl std::fmt::Display for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoBridges => write!(f, "no {BARRIER}: the kernel has no bridges"),
            Self::Full => write!(f, "{BARRIER} is full: some ports are outside of it"),
        }
    }
}

impl Netlink {
    /// Makes the bridge where it is missing, sets it down where somebody set it up, and puts the GRO
    /// device and every port of ours into it. Says what could not be put there.
    ///
    /// # Errors
    /// [`GroError::NameTaken`] where a device of that name is not ours; rtnetlink's.
    pub async fn ensure_barrier(&self) -> Result<Option<Outside>, GroError> {
        let links = link::links(&self.handle, None).await?;
        let existing = links.iter().find(|link| link.name == BARRIER);
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
                None => return Ok(Some(Outside::NoBridges)),
            },
        };
        if existing.is_none_or(|link| link.owner(BARRIER_ALIAS) == Owner::HalfMade) {
            link::set_addr_gen_none(&self.handle, barrier).await?;
            link::set_alias(&self.handle, barrier, BARRIER_ALIAS).await?;
        }
        // The device that needs the most room first: the others are told when they come.
        let (gro, others): (Vec<&Link>, Vec<&Link>) =
            links.iter().partition(|link| gro::is_gro_device(link));
        let ports = others.into_iter().filter(|link| port::is_port(link));
        for link in gro.into_iter().chain(ports) {
            if link.controller == Some(barrier) {
                continue;
            }
            match link::set_controller(&self.handle, link.index, barrier).await {
                Err(error) if error.errno() == Some(Errno::EXFULL) => {
                    return Ok(Some(Outside::Full));
                }
                // It went meanwhile.
                Err(error) if error.is_gone() => {}
                done => done?,
            }
        }
        Ok(None)
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
