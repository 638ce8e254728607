//! The choice of the device that carries the encapsulated packets.

use std::net::Ipv4Addr;

use netlink_packet_route::route::RouteType;

use super::{
    LinkList, Netlink, NetlinkError, UnderlayError,
    bottom::VETH,
    link::{Address, Link, addresses},
    marks::is_gateway_bridge,
    route,
};
use crate::dataplane::kernel::{LinkLayer, Uplink};

/// The MTU of Ethernet (IEEE 802.3).
const ETHERNET_MTU: u32 = 1500;

/// How the underlay is chosen (`--underlay`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayChoice {
    /// The device of the default route; without such a route, the only possible device.
    Auto,
    /// By the device's name.
    Device(String),
    /// By an address of the device.
    Address(Ipv4Addr),
}

/// The device that carries the node's VTEP address. Packets leave by the devices of their routes, which may be others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The node's VTEP address.
    pub address: Ipv4Addr,
    /// Its MTU, in bytes. Of a silent one: the least MTU of the devices by which packets leave.
    pub mtu: u32,
    /// It sends nothing, as the loopback device: it only carries the address.
    pub is_silent: bool,
    /// What packets have in front of their IP header there.
    pub link_layer: LinkLayer,
    /// It is a veth.
    pub is_veth: bool,
    /// Index of the VRF that it is in, whose routes its packets take.
    pub vrf: Option<u32>,
}

impl Underlay {
    /// The device as one of the uplinks.
    #[must_use]
    pub fn uplink(&self) -> Uplink {
        let Self { ifindex, name, link_layer, is_veth, .. } = self;
        Uplink { ifindex: *ifindex, name: name.clone(), link_layer: *link_layer, is_veth: *is_veth }
    }
}

impl Netlink {
    /// Finds the underlay device and the node's address on it.
    ///
    /// # Errors
    /// [`UnderlayError`], which says what to pass as `--underlay`.
    pub async fn underlay(&self, choice: &UnderlayChoice) -> Result<Underlay, UnderlayError> {
        self.underlay_among(&self.link_list().await?, choice).await
    }

    /// The same, among these devices of the host.
    ///
    /// # Errors
    /// As [`Netlink::underlay`].
    pub async fn underlay_among(
        &self,
        LinkList(links): &LinkList,
        choice: &UnderlayChoice,
    ) -> Result<Underlay, UnderlayError> {
        let addresses = addresses(&self.handle, 0, None).await?;
        let (link, address) = match choice {
            UnderlayChoice::Device(name) => {
                let link = links.iter().find(|link| link.name == *name);
                let link = link.ok_or_else(|| UnderlayError::NoDevice(name.clone()))?;
                (link, first_address(link, &addresses)?)
            }
            UnderlayChoice::Address(ip) => {
                let index = addresses.iter().find(|a| a.ip == *ip).map(|address| address.index);
                let link = links.iter().find(|link| Some(link.index) == index);
                (link.ok_or(UnderlayError::NoSuchAddress(*ip))?, *ip)
            }
            UnderlayChoice::Auto => {
                let link = self.guess(links, &addresses).await?;
                (link, first_address(link, &addresses)?)
            }
        };
        if !link.up {
            return Err(UnderlayError::Down(link.name.clone()));
        }
        if link.link_layer == LinkLayer::Foreign {
            return Err(UnderlayError::ForeignLinkLayer(link.name.clone()));
        }
        let is_silent = is_silent(link);
        let mtu = if is_silent { self.mtu_around(links, &addresses).await? } else { link.mtu };
        let is_vrf = |above: &&Link| Some(above.index) == link.controller && above.kind == "vrf";
        Ok(Underlay {
            ifindex: link.index,
            name: link.name.clone(),
            address,
            mtu,
            is_silent,
            link_layer: link.link_layer,
            is_veth: link.kind == VETH,
            vrf: links.iter().find(is_vrf).map(|vrf| vrf.index),
        })
    }

    /// The underlay of a node that was started with this choice, where no device has the address of the underlay `before`
    /// any more: the device that had it, with the address that it has now; without a name given, or else the device of the
    /// default route. `None` where the address itself was chosen. An address that a device gave itself (RFC 3927) does not count.
    ///
    /// # Errors
    /// As [`Netlink::underlay`].
    pub async fn underlay_after(
        &self,
        links: &LinkList,
        choice: &UnderlayChoice,
        before: &Underlay,
    ) -> Result<Option<Underlay>, UnderlayError> {
        let named = |name: &str| UnderlayChoice::Device(name.to_owned());
        let found = match choice {
            UnderlayChoice::Address(_) => return Ok(None),
            UnderlayChoice::Device(name) => self.underlay_among(links, &named(name)).await?,
            UnderlayChoice::Auto => match self.underlay_among(links, &named(&before.name)).await {
                // While there is no default route either, any device would be a guess.
                Err(UnderlayError::NoDevice(_) | UnderlayError::NoAddress(_))
                    if !self.default_route_devices().await?.is_empty() =>
                {
                    self.underlay_among(links, choice).await?
                }
                found => found?,
            },
        };
        if found.address.is_link_local() {
            return Err(UnderlayError::NoAddress(found.name));
        }
        Ok(Some(found))
    }

    /// Returns true if a device of this host has the address.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn has_address(&self, ip: Ipv4Addr) -> Result<bool, NetlinkError> {
        Ok(addresses(&self.handle, 0, None).await?.iter().any(|address| address.ip == ip))
    }

    async fn guess<'a>(
        &self,
        links: &'a [Link],
        addresses: &[Address],
    ) -> Result<&'a Link, UnderlayError> {
        let default = self.default_route_devices().await?;
        let usable = |link: &&Link| {
            if default.is_empty() {
                link.up && !link.loopback && first_address(link, addresses).is_ok()
            } else {
                default.contains(&link.index)
            }
        };
        let candidates: Vec<&Link> = links.iter().filter(usable).collect();
        match candidates[..] {
            [] => Err(UnderlayError::None),
            [link] => Ok(link),
            _ => {
                let name = |link: &&Link| match first_address(link, addresses) {
                    Ok(ip) => format!("{} ({ip})", link.name),
                    Err(_) => link.name.clone(),
                };
                Err(UnderlayError::Ambiguous { candidates: candidates.iter().map(name).collect() })
            }
        }
    }

    /// The least MTU of the devices by which packets leave this host: those of the default routes, or, where there is no
    /// such route, all with an address.
    async fn mtu_around(&self, links: &[Link], addresses: &[Address]) -> Result<u32, NetlinkError> {
        let default = self.default_route_devices().await?;
        let sends = |link: &&Link| {
            if default.is_empty() {
                link.up
                    && !is_silent(link)
                    && !is_gateway_bridge(link)
                    && first_address(link, addresses).is_ok()
            } else {
                default.contains(&link.index)
            }
        };
        let least = links.iter().filter(sends).map(|link| link.mtu).min();
        Ok(least.unwrap_or(ETHERNET_MTU))
    }

    /// Devices of the default routes with the best metric.
    async fn default_route_devices(&self) -> Result<Vec<u32>, NetlinkError> {
        let mut defaults = route::routes(&self.handle, route::MAIN).await?;
        defaults.retain(|route| route.is_default() && route.kind == RouteType::Unicast);
        let best = defaults.iter().map(|route| route.metric).min();
        let mut devices: Vec<u32> = defaults
            .into_iter()
            .filter(|route| Some(route.metric) == best)
            .flat_map(|route| route.devices)
            .collect();
        devices.sort_unstable();
        devices.dedup();
        Ok(devices)
    }
}

/// Returns true if packets that are given to the device do not leave the host.
fn is_silent(link: &Link) -> bool {
    link.loopback || link.kind == "dummy"
}

fn first_address(link: &Link, addresses: &[Address]) -> Result<Ipv4Addr, UnderlayError> {
    addresses
        .iter()
        .find(|address| address.index == link.index && address.global)
        .map(|address| address.ip)
        .ok_or_else(|| UnderlayError::NoAddress(link.name.clone()))
}
