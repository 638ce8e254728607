//! The host around the overlay: prefixes that are in use, and devices by which the outside comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{
    LinkList, Netlink, NetlinkError,
    link::{self, Link},
    marks::{id_of, is_barrier, is_gateway_bridge, is_gro_device},
    route::{self, Route},
};

/// VPN clients split a default route into two halves, which take no prefix either.
const DEFAULT_MAX: u8 = 1;
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

impl Netlink {
    /// The IPv4 prefixes for which the host has a route or an address, each with the reason ("route via eth0", "address
    /// of docker0"). Default routes, loopback and the prefix of the gateway bridge are left out.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn taken_prefixes(&self) -> Result<Vec<(Ipv4Net, String)>, NetlinkError> {
        let links = link::links(&self.handle, None).await?;
        let addresses = link::addresses(&self.handle, 0, None).await?;
        let routes = route::routes(&self.handle, route::EVERY).await?;
        let bridge = links.iter().find(|link| is_gateway_bridge(link)).map(|link| link.index);
        let name = |index: u32| match links.iter().find(|link| link.index == index) {
            Some(link) => link.name.clone(),
            // It came after the devices were listed.
            None => format!("device {index}"),
        };
        let addresses = addresses.iter().filter_map(|address| {
            let net = Ipv4Net::new(address.ip, address.prefix).ok()?.trunc();
            let is_left_out = Some(address.index) == bridge || address.ip.is_loopback();
            (!is_left_out).then(|| (net, format!("address of {}", name(address.index))))
        });
        let routes = routes.iter().filter(|route| takes(route, bridge)).map(|route| {
            let devices: Vec<String> = route.devices.iter().map(|index| name(*index)).collect();
            let by = match &devices[..] {
                [] => format!("route ({:?})", route.kind).to_lowercase(),
                devices => format!("route via {}", devices.join(", ")),
            };
            (route.to.trunc(), by)
        });
        let taken: BTreeSet<(Ipv4Net, String)> = addresses.chain(routes).collect();
        Ok(taken.into_iter().collect())
    }

    /// Takes the IPv4 addresses away that another program gave to the host's sides of endpoints' devices, to the barrier or
    /// to the GRO device. Network managers give any device one (RFC 3927), and with it the host gets a route that leads
    /// nowhere.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn clear_addresses(&self, LinkList(links): &LinkList) -> Result<(), NetlinkError> {
        let carries_none =
            |link: &Link| id_of(link).is_some() || is_gro_device(link) || is_barrier(link);
        let ours: BTreeMap<u32, &str> = links
            .iter()
            .filter(|link| carries_none(link))
            .map(|link| (link.index, link.name.as_str()))
            .collect();
        for address in link::addresses(&self.handle, 0, None).await? {
            if let Some(device) = ours.get(&address.index) {
                link::delete_address(&self.handle, address).await?;
                let ip = address.ip;
                tracing::info!(device, %ip, "an address of another program was taken away");
            }
        }
        Ok(())
    }

    /// The devices by which the outside comes: the underlay and the devices of the default routes, where they have a
    /// global IPv4 address and are not the overlay's. Any other device, as a container bridge, belongs to others.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn uplinks(
        &self,
        LinkList(links): &LinkList,
        underlay: &str,
    ) -> Result<BTreeSet<String>, NetlinkError> {
        let addresses = link::addresses(&self.handle, 0, None).await?;
        let indices: BTreeSet<u32> = addresses
            .iter()
            .filter(|address| address.global)
            .map(|address| address.index)
            .collect();
        let routes = route::routes(&self.handle, route::MAIN).await?;
        let leads_out = |link: &Link| {
            link.name == underlay
                || routes.iter().any(|r| r.is_default() && r.devices.contains(&link.index))
        };
        let is_uplink = |link: &&Link| {
            indices.contains(&link.index) && !link.loopback && !is_ours(link) && leads_out(link)
        };
        Ok(links.iter().filter(is_uplink).map(|link| link.name.clone()).collect())
    }
}

impl Netlink {
    /// The longest packet, in bytes, that the default route takes which the host uses first: by the route's own MTU, or
    /// by that of its smallest device. `None` where there is no default route.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn outward_mtu(&self) -> Result<Option<u32>, NetlinkError> {
        let mut routes = route::routes(&self.handle, route::MAIN).await?;
        routes.retain(|route| route.is_default() && !route.devices.is_empty());
        let Some(route) = routes.into_iter().min_by_key(|route| route.metric) else {
            return Ok(None);
        };
        let mut takes = route.mtu;
        for index in route.devices {
            let link = link::link_by_index(&self.handle, index, None).await?;
            let mtu = link.map(|link| link.mtu);
            takes = [takes, mtu].into_iter().flatten().min();
        }
        Ok(takes)
    }
}

fn takes(route: &Route, bridge: Option<u32>) -> bool {
    let is_of_bridge = bridge.is_some_and(|bridge| route.devices == [bridge]);
    let is_loopback = LOOPBACK.contains(&route.to);
    let is_default = route.to.prefix_len() <= DEFAULT_MAX;
    // The addresses are listed for themselves.
    !is_default && !is_loopback && !is_of_bridge && !route.is_of_address
}
fn is_ours(link: &Link) -> bool {
    is_gateway_bridge(link) || id_of(link).is_some() || is_gro_device(link)
}
