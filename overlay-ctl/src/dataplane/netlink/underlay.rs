//! The choice of the device that carries the encapsulated packets.

use std::net::Ipv4Addr;

use netlink_packet_route::route::RouteType;

use super::{
    LinkList, Netlink, NetlinkError, UnderlayError,
    link::{Address, Link, addresses},
    route,
};

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

/// The device that carries the encapsulated packets, and the node's VTEP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// The node's VTEP address.
    pub address: Ipv4Addr,
    /// Its MTU, in bytes.
    pub mtu: u32,
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
        Ok(Underlay { ifindex: link.index, name: link.name.clone(), address, mtu: link.mtu })
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

fn first_address(link: &Link, addresses: &[Address]) -> Result<Ipv4Addr, UnderlayError> {
    addresses
        .iter()
        .find(|address| address.index == link.index && address.global)
        .map(|address| address.ip)
        .ok_or_else(|| UnderlayError::NoAddress(link.name.clone()))
}
