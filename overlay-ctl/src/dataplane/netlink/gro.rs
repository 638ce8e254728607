//! The VXLAN device that carries no packet.
//!
//! Its socket on the VXLAN port is what makes the underlay device's GRO merge VXLAN packets before TC
//! sees them; `from_underlay` takes them before they could reach it.

use netlink_packet_route::link::{InfoVxlan, LinkAttribute};
use nix::errno::Errno;
use overlay_common::VNI_RESERVED;
use rtnetlink::LinkVxlan;
use std::net::Ipv4Addr;

use super::{
    GroError, Netlink, NetlinkError, Underlay,
    link::{self, GROUP, Link, Owner},
};

/// Its name is this and the port.
const GRO_PREFIX: &str = "ovg";
const GRO_ALIAS: &str = "overlay:gro";

/// Whether the device is one of these, of ours.
pub(super) fn is_gro_device(link: &Link) -> bool {
    // The number tells a half-made one from a gateway leg, whose prefix begins with this one.
    let port = link.name.strip_prefix(GRO_PREFIX).map(str::parse::<u16>);
    matches!(port, Some(Ok(_))) && link.owner(GRO_ALIAS) != Owner::Foreign
}

impl Netlink {
    /// Makes the device where it is missing, replaces ours where it no longer fits, and returns its
    /// name. `port` is VXLAN's UDP port.
    ///
    /// # Errors
    /// [`GroError::PortTaken`] where somebody else uses the port: a UDP socket, or a VXLAN device
    /// whose packets we would take for strangers'.
    pub async fn ensure_gro_device(
        &self,
        underlay: &Underlay,
        port: u16,
    ) -> Result<String, GroError> {
        let name = format!("{GRO_PREFIX}{port}");
        let links = link::links(&self.handle, None).await?;
        if let Some(holder) =
            links.iter().find(|link| conflicts(link, &name, underlay.address, port))
        {
            return Err(conflict(holder, port));
        }
        // Of a node that used another port: it would keep that port taken.
        for old in links.iter().filter(|link| is_gro_device(link) && link.name != name) {
            link::delete(&self.handle, old.index).await?;
        }
        let existing = links.iter().find(|link| link.name == name);
        match existing.map(|link| (link, link.owner(GRO_ALIAS))) {
            Some((_, Owner::Foreign)) => return Err(GroError::NameTaken(name)),
            Some((link, Owner::Ours)) if fits(link, underlay.address, port) => {
                if !link.up {
                    self.bring_up(link.index, port).await?;
                }
                return Ok(name);
            }
            Some((link, Owner::Ours | Owner::HalfMade)) => {
                link::delete(&self.handle, link.index).await?;
            }
            None => {}
        }
        self.make(&name, underlay.address, port).await?;
        Ok(name)
    }

    /// Removes the device of that port, where it is there and ours.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_gro_device(&self, port: u16) -> Result<(), GroError> {
        let name = format!("{GRO_PREFIX}{port}");
        match link::link_by_name(&self.handle, &name).await? {
            Some(link) if link.owner(GRO_ALIAS) != Owner::Foreign => {
                Ok(link::delete(&self.handle, link.index).await?)
            }
            _ => Ok(()),
        }
    }

    async fn make(&self, name: &str, vtep: Ipv4Addr, port: u16) -> Result<(), GroError> {
        // `local` makes the socket an IPv4 one alone.
        let mut message = LinkVxlan::new(name, VNI_RESERVED)
            .local(vtep)
            .port(port)
            .learning(false)
            .append_extra_attribute(LinkAttribute::Group(GROUP));
        // From its first moment: what reaches it must not reach the host's stack.
        if let Some(barrier) = self.barrier().await? {
            message = message.controller(barrier);
        }
        let message = message.build();
        let made = self.handle.link().add(message).execute().await;
        match made.map_err(|error| NetlinkError::new("create the VXLAN device", error)) {
            Ok(()) => {}
            Err(error) => return Err(port_taken(error, port)),
        }
        let Some(link) = link::link_by_name(&self.handle, name).await? else {
            return Err(GroError::NameTaken(name.to_owned()));
        };
        let finished = async {
            link::set_alias(&self.handle, link.index, GRO_ALIAS).await?;
            link::set_addr_gen_none(&self.handle, link.index).await?;
            self.bring_up(link.index, port).await
        }
        .await;
        if finished.is_err() {
            link::delete(&self.handle, link.index).await?;
        }
        finished
    }

    async fn bring_up(&self, index: u32, port: u16) -> Result<(), GroError> {
        // Opening the device binds the socket.
        link::set_up(&self.handle, index).await.map_err(|error| port_taken(error, port))
    }
}

fn port_taken(error: NetlinkError, port: u16) -> GroError {
    match error.errno() {
        Some(Errno::EADDRINUSE) => {
            let holder = format!("another program (`ss -lunp sport = :{port}` shows which)");
            GroError::PortTaken { port, holder }
        }
        _ => GroError::Netlink(error),
    }
}

/// The device is as we would make it now.
fn fits(link: &Link, vtep: Ipv4Addr, port: u16) -> bool {
    let wanted = [
        InfoVxlan::Id(VNI_RESERVED),
        InfoVxlan::Local(vtep),
        InfoVxlan::Port(port),
        InfoVxlan::Learning(false),
        InfoVxlan::CollectMetadata(false),
    ];
    let has = |info| link.vxlan.as_ref().is_some_and(|data| data.contains(info));
    wanted.iter().all(has) && link.addr_gen_none
}

/// A foreign VXLAN device on our port: its packets come to our address, where `from_underlay` would
/// drop them as strangers'. One that is bound to another address of the host is left in peace.
fn conflicts(link: &Link, our_name: &str, vtep: Ipv4Addr, port: u16) -> bool {
    let Some(data) = &link.vxlan else { return false };
    let local = data.iter().find_map(|info| match info {
        InfoVxlan::Local(ip) => Some(*ip),
        _ => None,
    });
    let is_elsewhere = local.is_some_and(|ip| ip != vtep && !ip.is_unspecified());
    let has_our_vni = data.contains(&InfoVxlan::Id(VNI_RESERVED));
    link.name != our_name && data.contains(&InfoVxlan::Port(port)) && (!is_elsewhere || has_our_vni)
}

fn conflict(holder: &Link, port: u16) -> GroError {
    let data = holder.vxlan.as_deref().unwrap_or_default();
    if data.contains(&InfoVxlan::Id(VNI_RESERVED)) {
        GroError::VniTaken { device: holder.name.clone(), port }
    } else {
        GroError::PortTaken { port, holder: format!("the VXLAN device {}", holder.name) }
    }
}
