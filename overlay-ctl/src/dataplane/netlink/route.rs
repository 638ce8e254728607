//! IPv4 routes of a namespace.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteMetric, RouteProtocol,
        RouteScope, RouteType,
    },
};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::{NetlinkError, dump::dump};

/// The main table; [`EVERY`] asks for all.
pub(super) const MAIN: u8 = RouteHeader::RT_TABLE_MAIN;
pub(super) const EVERY: u8 = RouteHeader::RT_TABLE_UNSPEC;
/// RT_TABLE_LOCAL: destinations that are this host itself.
const LOCAL: u32 = 255;

/// The fields of RTM_NEWROUTE that are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) to: Ipv4Net,
    pub(super) kind: RouteType,
    pub(super) metric: u32,
    /// Its own MTU, in bytes.
    pub(super) mtu: Option<u32>,
    /// Its devices: several where the route has several paths, none where it leads nowhere.
    pub(super) devices: Vec<u32>,
    /// The kernel made the route for a local address.
    pub(super) is_of_address: bool,
}

impl Route {
    fn new(message: RouteMessage) -> Option<Self> {
        let header = message.header;
        let mut to = Ipv4Addr::UNSPECIFIED;
        let mut table = u32::from(header.table);
        let mut metric = 0;
        let mut mtu = None;
        let mut devices = Vec::new();
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => to = ip,
                RouteAttribute::Table(number) => table = number,
                RouteAttribute::Priority(priority) => metric = priority,
                RouteAttribute::Metrics(metrics) => {
                    mtu = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(mtu) if *mtu != 0 => Some(*mtu),
                        _ => None,
                    });
                }
                RouteAttribute::Oif(index) => devices.push(index),
                RouteAttribute::MultiPath(hops) => {
                    devices.extend(hops.iter().map(|hop| hop.interface_index));
                }
                _ => {}
            }
        }
        devices.sort_unstable();
        devices.dedup();
        let to = Ipv4Net::new(to, header.destination_prefix_length).ok()?;
        let is_of_address = table == LOCAL && header.protocol == RouteProtocol::Kernel;
        Some(Self { to, kind: header.kind, metric, mtu, devices, is_of_address })
    }

    pub(super) fn is_default(&self) -> bool {
        self.to.prefix_len() == 0
    }
}

fn read(item: RouteNetlinkMessage) -> Option<Route> {
    match item {
        RouteNetlinkMessage::NewRoute(message) => Route::new(message),
        _ => None,
    }
}

/// The IPv4 routes of one table, or of all.
pub(super) async fn routes(handle: &Handle, table: u8) -> Result<Vec<Route>, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = table;
    let request = RouteNetlinkMessage::GetRoute(message);
    match dump(handle, request, "list the routes", read).await {
        Ok(listed) => Ok(listed.items),
        // Under strict checking: the table does not exist, because no route was ever in it.
        Err(error) if error.is_gone() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Returns true if a unicast route of any table leads by this device. The kernel looks for it, so that a full table of
/// Internet routes is not listed.
pub(super) async fn any_by(handle: &Handle, index: u32) -> Result<bool, NetlinkError> {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = EVERY;
    message.attributes.push(RouteAttribute::Oif(index));
    let leads = |route: Route| route.kind == RouteType::Unicast && !route.to.addr().is_multicast();
    let request = RouteNetlinkMessage::GetRoute(message);
    match dump(handle, request, "list the routes of a device", read).await {
        Ok(listed) => Ok(listed.items.into_iter().any(leads)),
        // Without the device, or without any route.
        Err(error) if error.is_gone() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Adds a default route by a router that is on the device's link.
pub(super) async fn add_default(
    handle: &Handle,
    index: u32,
    gateway: Ipv4Addr,
) -> Result<(), NetlinkError> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(index)
        .gateway(gateway)
        .scope(RouteScope::Universe)
        .build();
    let added = handle.route().add(message).execute().await;
    added.map_err(|error| NetlinkError::new(format!("add the default route by {gateway}"), error))
}
