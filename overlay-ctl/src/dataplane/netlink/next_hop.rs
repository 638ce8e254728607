//! The next hop of outer packets. It is cached in HOPS, which spares `from_endpoint` a lookup for each packet.

use futures::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType},
};
use nix::errno::Errno;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use std::net::{IpAddr, Ipv4Addr};

use super::{
    Netlink, NetlinkError, Underlay,
    link::{self, Link},
};
use crate::{
    dataplane::kernel::{NextHop, Way},
    model::{Encapsulation, Vtep},
};

/// A route to one address.
struct Route {
    device: u32,
    /// The on-link address that the route leads to; `None` where only the kernel's own lookup knows it.
    hop: Option<Ipv4Addr>,
    /// The configured MTU of the route (RTAX_MTU).
    mtu: Option<u32>,
}

/// What the kernel knows about a neighbour.
struct Neighbour {
    mac: Option<[u8; 6]>,
    is_static: bool,
    is_managed: bool,
}

impl Netlink {
    /// The way to `vtep` from the node's address; `None` where there is no route, as from an IPv4 address to an
    /// IPv6 one.
    ///
    /// The way has no hop where the neighbour does not answer (yet), or where the hop is not an Ethernet hop: the
    /// programs then ask the kernel for every packet, which is slower and always right. The resolution of an unresolved
    /// neighbour is started, and the kernel is told to keep it resolved (NTF_MANAGED, kernel 5.16), because it does not
    /// see that BPF uses the neighbour. [`Change`](super::Change)`::Neighbour` tells when to look again.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn way(&self, vtep: Vtep, underlay: &Underlay) -> Result<Option<Way>, NetlinkError> {
        let IpAddr::V4(vtep) = vtep.ip() else { return Ok(None) };
        let Some(route) = self.route(vtep, underlay.address).await? else { return Ok(None) };
        let Some(device) = link::link_by_index(&self.handle, route.device, None).await? else {
            return Ok(None);
        };
        let mtu = route.mtu.map_or(device.mtu, |mtu| mtu.min(device.mtu));
        let hop = match route.hop {
            Some(hop) => self.next_hop(&device, hop).await?,
            None => None,
        };
        Ok(Some(Way { mtu, encapsulation: Encapsulation::VxlanIpv4, hop }))
    }

    async fn next_hop(
        &self,
        device: &Link,
        hop: Ipv4Addr,
    ) -> Result<Option<NextHop>, NetlinkError> {
        let Ok(source_mac) = <[u8; 6]>::try_from(device.mac.as_slice()) else { return Ok(None) };
        let ifindex = device.index;
        let neighbour = self.neighbour(ifindex, hop).await?;
        let is_kept = neighbour.as_ref().is_some_and(|n| n.is_static || n.is_managed);
        let mac = neighbour.and_then(|neighbour| neighbour.mac);
        if !is_kept || mac.is_none() {
            self.keep_resolved(ifindex, hop).await?;
        }
        Ok(mac.map(|mac| NextHop { ifindex, mac, source_mac }))
    }

    /// The route of a packet from `from` to `to`.
    async fn route(&self, to: Ipv4Addr, from: Ipv4Addr) -> Result<Option<Route>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = 32;
        message.header.source_prefix_length = 32;
        message.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet(to)),
            RouteAttribute::Source(RouteAddress::Inet(from)),
        ];
        let answer = self.handle.route().get(message).execute().try_next().await;
        let route = match answer.map_err(|e| NetlinkError::new("look a route up", e)) {
            Ok(Some(route)) => route,
            Ok(None) => return Ok(None),
            // EINVAL: `from` is not (any more) an address of this host.
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

    async fn neighbour(
        &self,
        ifindex: u32,
        ip: Ipv4Addr,
    ) -> Result<Option<Neighbour>, NetlinkError> {
        let action = "look a neighbour up";
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = ifindex;
        message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(ip))];
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(message));
        request.header.flags = NLM_F_REQUEST;
        let mut handle = self.handle.clone();
        let mut answers =
            handle.request(request).map_err(|error| NetlinkError::new(action, error))?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                    return Ok(Some(parse(&message)));
                }
                NetlinkPayload::Error(error) if error.code.is_some() => {
                    let error = NetlinkError::new(action, rtnetlink::Error::NetlinkError(error));
                    return if error.is_gone() { Ok(None) } else { Err(error) };
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Starts the resolution now, which NTF_USE does on every kernel; NTF_MANAGED makes newer kernels repeat it.
    async fn keep_resolved(&self, ifindex: u32, ip: Ipv4Addr) -> Result<(), NetlinkError> {
        let mut request = self
            .handle
            .neighbours()
            .add(ifindex, IpAddr::V4(ip))
            .replace()
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use);
        request
            .message_mut()
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        let done = request.execute().await;
        match done.map_err(|error| NetlinkError::new("resolve a neighbour", error)) {
            // The device went away or down in between: there is no next hop, and a change follows.
            Err(error)
                if error.is_gone()
                    || matches!(error.errno(), Some(Errno::ENETDOWN | Errno::EINVAL)) =>
            {
                Ok(())
            }
            other => other,
        }
    }
}

fn parse(message: &NeighbourMessage) -> Neighbour {
    let state = message.header.state;
    // NUD_VALID of the kernel (include/net/neighbour.h): there is an address and it may be used.
    let is_valid = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp
    );
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) if is_valid => {
            <[u8; 6]>::try_from(mac.as_slice()).ok()
        }
        _ => None,
    });
    let is_managed = message.attributes.iter().any(|attribute| {
        matches!(attribute, NeighbourAttribute::ExtFlags(flags)
            if flags.contains(NeighbourExtFlags::Managed))
    });
    // Marking a static entry would turn it into a learned one.
    let is_static = matches!(state, NeighbourState::Permanent | NeighbourState::Noarp);
    Neighbour { mac, is_static, is_managed }
}
