//! The host around the overlay: prefixes that are in use, and the devices of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::{
    LinkList, Netlink, NetlinkError,
    link::{self, Address, Link},
    marks::{id_of, is_barrier, is_gateway_bridge, is_gro_device},
    merge_pair::is_merge_end,
    route::{self, Route},
};

/// VPN clients split a default route into two halves, which take no prefix either.
const DEFAULT_MAX: u8 = 1;
/// Kinds of devices.
const VRF: &str = "vrf";
const VLAN: &str = "vlan";
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

    /// Takes the IPv4 addresses away that another program gave to the host's sides of endpoints' devices, to the barrier,
    /// the merge pair or the GRO device. Network managers give any device one (RFC 3927), and with it the host gets a route that leads
    /// nowhere.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn clear_addresses(&self, LinkList(links): &LinkList) -> Result<(), NetlinkError> {
        let carries_none = |link: &Link| {
            let is_merging = is_gro_device(link) || is_merge_end(link);
            id_of(link).is_some() || is_merging || is_barrier(link)
        };
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

    /// The prefix of a route or of an address that shares addresses with the gateway bridge's subnet, with its use, as in
    /// [`Netlink::taken_prefixes`].
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn collision(
        &self,
        subnet: Ipv4Net,
    ) -> Result<Option<(Ipv4Net, String)>, NetlinkError> {
        let taken = self.taken_prefixes().await?;
        let shares = |net: &Ipv4Net| net.contains(&subnet) || subnet.contains(net);
        Ok(taken.into_iter().find(|(net, _)| shares(net)))
    }

    /// The devices that are not the overlay's, without loopback devices.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn outer_devices(&self) -> Result<Vec<OuterDevice>, NetlinkError> {
        let addresses = link::addresses(&self.handle, 0, None).await?;
        let links = link::links(&self.handle, None).await?;
        let by_index = |index: u32| links.iter().find(|link| link.index == index);
        let is_of_vrf = |link: &Link| {
            link.kind == VRF
                || link.controller.and_then(by_index).is_some_and(|above| above.kind == VRF)
        };
        let foreign = links.iter().filter(|link| !link.loopback && !is_ours(link));
        let devices = foreign.map(|link| {
            let is_of_vrf = is_of_vrf(link);
            let below = link.peer.filter(|_| link.kind == VLAN && link.peer_netns.is_none());
            let below = below.and_then(by_index);
            let bridge = [Some(link), below].into_iter().flatten().find(|l| l.bridge.is_some());
            OuterDevice {
                ifindex: link.index,
                name: link.name.clone(),
                is_of_vrf,
                is_port: link.controller.is_some(),
                has_address: !is_of_vrf && has_global(&addresses, link.index),
                bridge: bridge.map(|bridge| bridge.name.clone()),
            }
        });
        Ok(devices.collect())
    }

    /// Returns true if the host has a global IPv4 address on the device, or a route by it in any table: it has neighbours
    /// there. It is asked for this device alone, since a list of all that changed meanwhile may lack some.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn is_used(&self, device: &OuterDevice) -> Result<bool, NetlinkError> {
        let OuterDevice { ifindex, is_of_vrf, is_port, .. } = *device;
        if is_of_vrf {
            return Ok(false);
        }
        let addresses = link::addresses(&self.handle, ifindex, None).await?;
        // No route leads by a port of a bridge or of a bond.
        let leads = !is_port && route::any_by(&self.handle, ifindex).await?;
        Ok(leads || has_global(&addresses, ifindex))
    }
}

/// A device of the host that is not the overlay's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterDevice {
    /// Its index.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// It is a VRF, or a device in one. What comes in by it is routed by the VRF's table, which does not lead to the
    /// gateway bridge, and netfilter sees it come in by the VRF.
    pub is_of_vrf: bool,
    /// It is a port of a bridge, of a bond, or of a VRF.
    pub is_port: bool,
    /// It is not of a VRF, and the host has a global IPv4 address on it.
    pub has_address: bool,
    /// The bridge whose frames netfilter may see come in by this device without being routed (br_netfilter): itself, or
    /// the bridge below a VLAN device.
    pub bridge: Option<String>,
}

fn has_global(addresses: &[Address], ifindex: u32) -> bool {
    addresses.iter().any(|address| address.index == ifindex && address.global)
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
    is_gateway_bridge(link) || id_of(link).is_some() || is_gro_device(link) || is_merge_end(link)
}
