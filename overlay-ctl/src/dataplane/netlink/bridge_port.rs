//! A device as the port of a bridge: requests about its place, and about the MACs behind it.

use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};
use rtnetlink::{Handle, LinkBridgePort, LinkUnspec};
use std::collections::BTreeSet;

use super::{NetlinkError, dump::dump, link::change};

/// Puts a device into a bridge.
pub(super) async fn set_controller(
    handle: &Handle,
    index: u32,
    bridge: u32,
) -> Result<(), NetlinkError> {
    let message = LinkUnspec::new_with_index(index).controller(bridge).build();
    change(handle, message, "put a device into a bridge").await
}

/// Keeps a bridge from forwarding between this port of it and the other isolated ones.
pub(super) async fn set_isolated(handle: &Handle, index: u32) -> Result<(), NetlinkError> {
    let message = LinkBridgePort::new(index).isolated(true).build();
    let done = handle.link().set_port(message).execute().await;
    done.map_err(|error| NetlinkError::new("isolate a port of a bridge", error))
}

/// Tells a bridge permanently which of its ports has a MAC. What a bridge learns it forgets after five quiet minutes,
/// and then it sends packets for that MAC out of all ports.
pub(super) async fn set_station(
    handle: &Handle,
    port: u32,
    mac: [u8; 6],
) -> Result<(), NetlinkError> {
    let station = handle.neighbours().add_bridge(port, &mac);
    // NOARP is what `bridge fdb` calls static. Permanent ones are the bridge's own.
    let station = station.state(NeighbourState::Noarp).flags(NeighbourFlags::Controller).replace();
    let done = station.execute().await;
    done.map_err(|error| NetlinkError::new("tell a bridge which port has a MAC", error))
}

/// The ports that a bridge was permanently told a MAC of, each with the MAC.
pub(super) async fn stations(
    handle: &Handle,
    bridge: u32,
) -> Result<BTreeSet<(u32, [u8; 6])>, NetlinkError> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.attributes.push(NeighbourAttribute::Controller(bridge));
    let request = RouteNetlinkMessage::GetNeighbour(message);
    let station = |item| {
        let RouteNetlinkMessage::NewNeighbour(entry) = item else { return None };
        let mac = entry.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => <[u8; 6]>::try_from(mac.as_slice()).ok(),
            _ => None,
        });
        (entry.header.state == NeighbourState::Noarp).then_some((entry.header.ifindex, mac?))
    };
    match dump(handle, request, "list the MACs that a bridge knows", station).await {
        Err(error) if error.is_gone() => Ok(BTreeSet::new()),
        listed => Ok(listed?.items.into_iter().collect()),
    }
}
