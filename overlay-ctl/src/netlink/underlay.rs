//! Which device carries the encapsulated packets.

use std::net::Ipv4Addr;

use futures::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteType},
};

use super::{
    Netlink, NetlinkError, UnderlayError,
    link::{Address, Link, addresses, links},
};

/// How the underlay is chosen (`--underlay`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnderlayChoice {
    /// The default route's device; without one, the only device that could be it.
    Auto,
    /// By the device's name.
    Device(String),
    /// By an address that one of the devices has.
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
        let links = links(&self.handle).await?;
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
                let link = self.guess(&links, &addresses).await?;
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
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        let routes: Vec<RouteMessage> = match self
            .handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(|error| NetlinkError::new("list the routes", error))
        {
            Ok(routes) => routes,
            // Under strict checking: the table does not exist, because no route was ever in it.
            Err(error) if error.is_gone() => Vec::new(),
            Err(error) => return Err(error),
        };
        let defaults = routes.into_iter().filter(|route| {
            route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
        });
        let ranked: Vec<(u32, Vec<u32>)> = defaults.map(|route| rank(&route)).collect();
        let best = ranked.iter().map(|(metric, _)| *metric).min();
        let mut devices: Vec<u32> = ranked
            .into_iter()
            .filter(|(metric, _)| Some(*metric) == best)
            .flat_map(|(_, devices)| devices)
            .collect();
        devices.sort_unstable();
        devices.dedup();
        Ok(devices)
    }
}

/// A route's metric and its devices.
fn rank(route: &RouteMessage) -> (u32, Vec<u32>) {
    let mut metric = 0;
    let mut devices = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => devices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    (metric, devices)
}

fn first_address(link: &Link, addresses: &[Address]) -> Result<Ipv4Addr, UnderlayError> {
    addresses
        .iter()
        .find(|address| address.index == link.index && address.global)
        .map(|address| address.ip)
        .ok_or_else(|| UnderlayError::NoAddress(link.name.clone()))
}
