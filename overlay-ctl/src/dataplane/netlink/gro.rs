//! The VXLAN device that carries no packet.
//!
//! Its socket on the VXLAN port makes the underlay device's GRO merge VXLAN packets before TC sees them.
//! `from_underlay` takes the packets before they could reach the device.

use netlink_packet_route::link::{InfoVxlan, LinkAttribute};
use nix::errno::Errno;
use overlay_common::VNI_RESERVED;
use rtnetlink::LinkVxlan;
use std::net::Ipv4Addr;

use super::{
    GroError, LinkList, Netlink, NetlinkError, Underlay,
    link::{self, Link, Owner},
    marks::is_gro_device,
    names::{GRO_ALIAS, GRO_PREFIX, GROUP},
};

impl Netlink {
    /// Creates the device where it is missing, replaces it where its options differ, and returns its name. `port` is
    /// VXLAN's UDP port.
    ///
    /// # Errors
    /// [`GroError::PortTaken`] where the port is in use: by a UDP socket that is no VXLAN device's, or by a VXLAN device
    /// for any VNI (`external`), with which no other device shares a port.
    pub async fn ensure_gro_device(
        &self,
        underlay: &Underlay,
        port: u16,
    ) -> Result<String, GroError> {
        self.ensure_gro_device_among(&self.link_list().await?, underlay, port).await
    }

    /// The same, among these devices of the host.
    ///
    /// # Errors
    /// As [`Netlink::ensure_gro_device`].
    pub async fn ensure_gro_device_among(
        &self,
        LinkList(links): &LinkList,
        underlay: &Underlay,
        port: u16,
    ) -> Result<String, GroError> {
        let name = format!("{GRO_PREFIX}{port}");
        if let Some(holder) = links.iter().find(|link| link.name != name && conflicts(link, port)) {
            return Err(conflict(holder, port));
        }
        // Of a node that used another port: it would keep that port taken.
        for old in links.iter().filter(|link| is_gro_device(link) && link.name != name) {
            link::delete(&self.handle, old.index).await?;
        }
        let existing = link::named(&self.handle, links, &name).await?;
        match existing.as_ref().map(|link| (link, link.owner(GRO_ALIAS))) {
            Some((_, Owner::Foreign)) => return Err(GroError::NameTaken(name)),
            Some((link, Owner::Ours)) if is_current(link, underlay.address, port) => {
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

    /// Returns true if another VXLAN device of this namespace receives on the port, or if a UDP socket does while the
    /// overlay's own device does not exist: a device that was moved to another namespace leaves its socket here. While
    /// the own device exists, both have one socket, and such a device can't be seen; the event of its creation
    /// ([`super::Change::Vxlan`]) can.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn shares_vxlan_port(&self, port: u16) -> Result<bool, GroError> {
        let links = self.link_list().await?;
        if vxlan_user(&links, port).is_some() {
            return Ok(true);
        }
        let has_own = links.0.iter().any(|link| is_gro_device(link) && receives(link, port));
        Ok(!has_own && socket_is_open(port))
    }

    /// Removes the device of that port, where it exists and is the overlay's. Returns true if it did.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_gro_device(&self, port: u16) -> Result<bool, GroError> {
        let name = format!("{GRO_PREFIX}{port}");
        match link::link_by_name(&self.handle, &name).await? {
            Some(link) if link.owner(GRO_ALIAS) != Owner::Foreign => {
                link::delete(&self.handle, link.index).await?;
                Ok(true)
            }
            _ => Ok(false),
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

/// Returns true if the device has the options that a new one would get.
fn is_current(link: &Link, vtep: Ipv4Addr, port: u16) -> bool {
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

/// The VXLAN device of another program on this port, if one of these devices is one.
#[must_use]
pub fn vxlan_user(LinkList(links): &LinkList, port: u16) -> Option<String> {
    let user = links.iter().find(|link| !is_gro_device(link) && receives(link, port));
    user.map(|link| link.name.clone())
}

/// Returns true for a VXLAN device on this port.
fn receives(link: &Link, port: u16) -> bool {
    link.vxlan.as_ref().is_some_and(|data| data.contains(&InfoVxlan::Port(port)))
}

/// Returns true for a foreign VXLAN device beside which the overlay's can't be: one with the VNI that the overlay keeps
/// for itself, or one for any VNI, which shares no socket. Others share the socket, and each gets its own VNI.
fn conflicts(link: &Link, port: u16) -> bool {
    let Some(data) = &link.vxlan else { return false };
    let is_exclusive = data.contains(&InfoVxlan::Id(VNI_RESERVED))
        || data.contains(&InfoVxlan::CollectMetadata(true));
    data.contains(&InfoVxlan::Port(port)) && is_exclusive
}

/// Returns true if a UDP socket of IPv4 is bound to the port in this namespace: one line a socket, with the local
/// address and port in hexadecimal as the second word.
fn socket_is_open(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
    let suffix = format!(":{port:04X}");
    let local = |line: &str| line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&suffix));
    sockets.lines().skip(1).any(local)
}

fn conflict(holder: &Link, port: u16) -> GroError {
    let data = holder.vxlan.as_deref().unwrap_or_default();
    if data.contains(&InfoVxlan::Id(VNI_RESERVED)) {
        GroError::VniTaken { device: holder.name.clone(), port }
    } else {
        GroError::PortTaken { port, holder: format!("the VXLAN device {}", holder.name) }
    }
}
