//! The next hop of outer packets. It is cached in HOPS, which spares `from_endpoint` a lookup for each packet.

use futures::TryStreamExt as _;
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
};
use nix::errno::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use super::{
    Interest, Netlink, NetlinkError, Underlay,
    link::{self, Link},
    neighbour::{Key, Neighbour},
};
use crate::{
    dataplane::kernel::{LinkLayer, NextHop, Way, Ways},
    model::{Encapsulation, Vtep},
};

/// UDP's number at IANA.
const UDP: u8 = 17;

/// A route to one address.
struct Route {
    device: u32,
    /// The on-link address that the route leads to; `None` where only the kernel's own lookup knows it.
    hop: Option<Ipv4Addr>,
    /// The configured MTU of the route (RTAX_MTU).
    mtu: Option<u32>,
}

impl Netlink {
    /// The ways to these VTEPs from the node's address. A VTEP without a route has none, as an IPv6 one has none from an
    /// IPv4 address.
    ///
    /// A way has no hop where the neighbour does not answer (yet), or where the hop is not an Ethernet hop: the
    /// programs then let the kernel look it up for every packet, on the route's device, which is slower. The resolution of an unresolved
    /// neighbour is started, and the kernel is told to keep it resolved (NTF_MANAGED, kernel 5.16), because it does not
    /// see that BPF uses the neighbour. A neighbour of an earlier look that is no hop of these ways is released.
    ///
    /// What cannot be found out of one VTEP does not affect the others. `interest` is told what to look out for:
    /// [`Change`](super::Change)`::Way` then tells when to look again.
    pub async fn ways(
        &self,
        vteps: &BTreeSet<Vtep>,
        (underlay, port): (&Underlay, u16),
        interest: &Interest,
    ) -> Ways {
        interest.expect(vteps, underlay);
        let mut look = Look::new(self, interest);
        let listed = self.neighbours().await;
        let is_listed = listed.is_ok();
        match listed {
            Ok(known) => look.known = known,
            Err(error) => look.note(None, &error),
        }
        let mut found = Ways { device_mtu: underlay.mtu, ..Ways::default() };
        for vtep in vteps {
            match look.way(*vtep, underlay, port).await {
                Ok(way) => found.ways.extend(way.map(|way| (*vtep, way))),
                Err(error) => {
                    look.note(Some(*vtep), &error);
                    found.unknown.insert(*vtep);
                }
            }
        }
        // Nothing is released while the hop of any way is not known.
        if is_listed && found.unknown.is_empty() {
            interest.retain(&look.used, look.devices.keys().copied().collect());
            if let Err(error) = self.release(&look.known, &look.used).await {
                look.note(None, &error);
            }
        } else {
            interest.keep();
        }
        found.trouble = lines(look.failures);
        found
    }

    /// The way to one VTEP; see [`Netlink::ways`].
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn way(
        &self,
        vtep: Vtep,
        underlay: &Underlay,
        port: u16,
    ) -> Result<Option<Way>, NetlinkError> {
        Look::new(self, &Interest::default()).way(vtep, underlay, port).await
    }
}

/// One look at the ways. What several of them have in common is asked for once.
struct Look<'a> {
    netlink: &'a Netlink,
    interest: &'a Interest,
    known: BTreeMap<Key, Neighbour>,
    devices: BTreeMap<u32, Option<Link>>,
    /// The hops of the ways.
    used: BTreeSet<Key>,
    /// What could not be done, each with the VTEPs that it is about.
    failures: BTreeMap<String, Vec<Vtep>>,
}

impl<'a> Look<'a> {
    fn new(netlink: &'a Netlink, interest: &'a Interest) -> Self {
        Self {
            netlink,
            interest,
            known: BTreeMap::new(),
            devices: BTreeMap::new(),
            used: BTreeSet::new(),
            failures: BTreeMap::new(),
        }
    }

    async fn way(
        &mut self,
        vtep: Vtep,
        underlay: &Underlay,
        port: u16,
    ) -> Result<Option<Way>, NetlinkError> {
        let IpAddr::V4(to) = vtep.ip() else { return Ok(None) };
        let Some(route) = self.netlink.route(to, underlay, port).await? else { return Ok(None) };
        let Some(device) = self.device(route.device).await? else { return Ok(None) };
        let mtu = route.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu));
        let hop = match route.hop {
            Some(hop) if device.link_layer == LinkLayer::Ethernet => {
                self.next_hop(vtep, &device, hop).await?
            }
            Some(_) | None => None,
        };
        let (device, link_layer) = (device.index, device.link_layer);
        Ok(Some(Way { mtu, encapsulation: Encapsulation::VxlanIpv4, device, link_layer, hop }))
    }

    async fn device(&mut self, index: u32) -> Result<Option<Link>, NetlinkError> {
        if let Some(known) = self.devices.get(&index) {
            return Ok(known.clone());
        }
        // Before it is looked at, so that no change of it is missed.
        self.interest.watch_device(index);
        let device = link::link_by_index(&self.netlink.handle, index, None).await?;
        self.devices.insert(index, device.clone());
        Ok(device)
    }

    async fn next_hop(
        &mut self,
        vtep: Vtep,
        device: &Link,
        hop: Ipv4Addr,
    ) -> Result<Option<NextHop>, NetlinkError> {
        let Ok(source_mac) = <[u8; 6]>::try_from(device.mac.as_slice()) else { return Ok(None) };
        let ifindex = device.index;
        let key = (ifindex, hop);
        // Before it is looked at, so that no change of it is missed.
        self.interest.watch(key);
        let neighbour = match self.known.get(&key) {
            Some(known) => Some(known.clone()),
            None => self.netlink.neighbour(key).await?,
        };
        let is_kept = neighbour.as_ref().is_some_and(Neighbour::is_kept);
        let is_of_others = neighbour.as_ref().is_some_and(Neighbour::is_of_others);
        let mac = neighbour.and_then(|neighbour| neighbour.mac);
        self.interest.saw(key, mac);
        let is_first = self.used.insert(key);
        if is_first
            && !is_of_others
            && (!is_kept || mac.is_none())
            && let Err(error) = self.netlink.keep_resolved(key).await
        {
            self.note(Some(vtep), &error);
        }
        Ok(mac.map(|mac| NextHop { mac, source_mac }))
    }

    /// Notes what could not be done, and of which VTEP, where it is about one.
    fn note(&mut self, vtep: Option<Vtep>, error: &NetlinkError) {
        self.failures.entry(crate::error_chain(error)).or_default().extend(vtep);
    }
}

/// The failures in words, one line for each reason, with the VTEPs that it is about.
fn lines(failures: BTreeMap<String, Vec<Vtep>>) -> Vec<String> {
    let line = |(reason, vteps): (String, Vec<Vtep>)| match &vteps[..] {
        [] => format!("ways to other nodes: {reason}"),
        [one] => format!("way to {one}: {reason}"),
        [first, others @ ..] => format!("way to {first} and {} others: {reason}", others.len()),
    };
    failures.into_iter().map(line).collect()
}

impl Netlink {
    /// The route of VXLAN to `to`, as routing rules choose it for that port, too.
    async fn route(
        &self,
        to: Ipv4Addr,
        underlay: &Underlay,
        port: u16,
    ) -> Result<Option<Route>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.source_prefix_length = 32;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(to)),
            RouteAttribute::Source(RouteAddress::Inet(underlay.address)),
            RouteAttribute::IpProto(UDP),
            RouteAttribute::Dport(port),
        ];
        // The index of a VRF stands for its table. That of another device would exclude all routes by others.
        message.attributes.extend(underlay.vrf.map(RouteAttribute::Oif));
        let answer = self.handle.route().get(message).execute().try_next().await;
        let route = match answer.map_err(|e| NetlinkError::new("look a route up", e)) {
            Ok(Some(route)) => route,
            Ok(None) => return Ok(None),
            // EINVAL: the node's address is not (any more) one of this host.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EACCES | Errno::EINVAL)
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if route.header.kind != RouteType::Unicast {
            return Ok(None);
        }
        let mut device = None;
        let mut hop = Some(to);
        let mut mtu = None;
        let mut is_learnt = false;
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Oif(index) => device = Some(index),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => hop = Some(gateway),
                // An IPv6 router for an IPv4 route (RFC 8950): the kernel's lookup knows how.
                RouteAttribute::Via(_) => hop = None,
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                        _ => None,
                    });
                }
                // What the host itself learnt on the way (RFC 1191) expires. The programs learn for
                // themselves, from answers to what they sent.
                RouteAttribute::CacheInfo(info) => is_learnt = info.expires != 0,
                _ => {}
            }
        }
        let mtu = mtu.filter(|_| !is_learnt);
        Ok(device.map(|device| Route { device, hop, mtu }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_once_however_many_ways_it_is_about() {
        let vteps = |last: &[u8]| last.iter().map(|last| [10, 0, 0, *last].into()).collect();
        let failures = [
            ("a".to_owned(), vteps(&[])),
            ("b".to_owned(), vteps(&[7])),
            ("c".to_owned(), vteps(&[7, 8, 9])),
        ];
        let wanted =
            ["ways to other nodes: a", "way to 10.0.0.7: b", "way to 10.0.0.7 and 2 others: c"];
        assert_eq!(lines(failures.into()), wanted);
    }
}
