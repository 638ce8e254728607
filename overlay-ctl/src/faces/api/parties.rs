//! Names for the two ends of an event: endpoint, network and node.

use crate::{
    control::state::View,
    dataplane::{datapath::Whereabouts, kernel::EndpointHealth},
    faces::ServedNode,
    model::{Endpoint, NodeId},
    proto::v1,
};
use overlay_common::{
    Direction, DropReason, Event, FORWARDED, IP16_NONE, Ip16, MacBytes, ip16_to_v4,
};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// An endpoint by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) name: String,
    pub(super) network: String,
}

impl Party {
    fn full_name(&self) -> String {
        format!("{}.{}", self.name, self.network)
    }
}

/// The two ends of an event, as far as this node knows them.
#[derive(Debug, Default)]
pub(super) struct Parties {
    pub(super) network: Option<String>,
    /// There are several only if they share a gateway leg.
    senders: Vec<Party>,
    receiver: Option<Party>,
    /// The VTEP on the other side of the underlay.
    vtep: Ip16,
    node: Option<String>,
}

impl Parties {
    /// Finds the ends. A source address can be forged, so that a sender on this node is found by its device. The sender
    /// of a packet from the underlay is found by the frame's source address.
    pub(super) fn of(event: &Event, served: &ServedNode) -> Self {
        let Some(view) = served.view.borrow().clone() else { return Self::default() };
        let Some(plane) = served.data_plane.get() else { return Self::default() };
        let maps = &plane.whereabouts;
        let names = Names { served, maps, view };
        let direction = Direction::ALL.into_iter().find(|d| *d as u32 == event.direction);
        let from = maps.endpoint(event.vni, event.src_mac);
        let to = maps.endpoint(event.vni, event.dst_mac);
        let senders = match direction {
            Some(Direction::FromEndpoint) => maps
                .port(event.ifindex)
                .and_then(|port| names.party(port.vni, port.mac))
                .into_iter()
                .collect(),
            Some(Direction::FromGateway) => names.behind_leg(event.ifindex),
            _ => from
                .and_then(|entry| names.endpoint(event.vni, entry.endpoint))
                .into_iter()
                .collect(),
        };
        let is_incoming =
            matches!(direction, Some(Direction::FromUnderlay | Direction::GuardUnderlay));
        let other_side = if is_incoming { from } else { to };
        let vtep = match event.vtep {
            IP16_NONE => other_side.map_or(IP16_NONE, |entry| entry.vtep),
            vtep => vtep,
        };
        Self {
            network: names.network(event.vni),
            senders,
            receiver: to.and_then(|entry| names.endpoint(event.vni, entry.endpoint)),
            vtep,
            node: names.node(vtep),
        }
    }

    /// Senders and receiver.
    pub(super) fn ends(&self) -> impl Iterator<Item = &Party> {
        self.senders.iter().chain(&self.receiver)
    }

    /// The event as the API has it.
    pub(super) fn show(self, event: &Event) -> v1::Event {
        let direction = Direction::ALL.iter().find(|d| **d as u32 == event.direction);
        let reason = match event.reason {
            FORWARDED => DropReason::name_of(None),
            number => DropReason::from_number(number).map_or("unknown", DropReason::name),
        };
        let (src_ip, dst_ip) = (address(&event.src_ip), address(&event.dst_ip));
        let (src_mac, dst_mac) = (mac(&event.src_mac), mac(&event.dst_mac));
        let vtep = address(&self.vtep);
        let sender = self.senders.first();
        v1::Event {
            time_ns: event.time_ns,
            reason: reason.to_owned(),
            direction: direction.map_or("unknown", |d| d.name()).to_owned(),
            network: self.network.unwrap_or_default(),
            interface: interface(event.ifindex),
            length: event.len,
            ethertype: event.ethertype.into(),
            endpoint: sender.map(|party| party.name.clone()).unwrap_or_default(),
            source: sender.map_or_else(|| known(&src_ip, &src_mac, &vtep), Party::full_name),
            destination: self
                .receiver
                .map_or_else(|| known(&dst_ip, &dst_mac, ""), |party| party.full_name()),
            src_mac,
            dst_mac,
            src_ip,
            dst_ip,
            protocol: event.protocol.into(),
            src_port: event.src_port.into(),
            dst_port: event.dst_port.into(),
            vtep,
            node: self.node.unwrap_or_default(),
            vni: event.vni,
            sample: event.sample,
            vlan: event.vlan.into(),
            lost: 0,
        }
    }
}

/// The names that a node knows.
struct Names<'a> {
    served: &'a ServedNode,
    maps: &'a Whereabouts,
    view: Arc<View>,
}

impl Names<'_> {
    fn network(&self, vni: u32) -> Option<String> {
        let network = self.view.networks.values().find(|network| network.vni.get() == vni)?;
        Some(network.name.to_string())
    }

    fn party(&self, vni: u32, mac: MacBytes) -> Option<Party> {
        let entry = self.maps.endpoint(vni, mac)?;
        self.endpoint(vni, entry.endpoint)
    }

    /// The endpoint with this id, as an FDB entry has it.
    fn endpoint(&self, vni: u32, id: u64) -> Option<Party> {
        let network = self.view.networks.values().find(|network| network.vni.get() == vni)?;
        self.named(self.view.endpoints.get(&network.id)?.get(&id)?)
    }

    fn named(&self, endpoint: &Endpoint) -> Option<Party> {
        let network = self.view.networks.get(&endpoint.network)?.name.to_string();
        Some(Party { name: endpoint.name.to_string(), network })
    }

    /// The endpoints whose gateway leg this device is.
    fn behind_leg(&self, ifindex: u32) -> Vec<Party> {
        let status = self.served.status.borrow().clone();
        let is_on = |health: &EndpointHealth| {
            health.gateway.as_ref().is_some_and(|leg| leg.ifindex == ifindex)
        };
        let ids = status.endpoints.iter().filter(|(_, health)| is_on(health)).map(|(id, _)| id);
        let endpoints =
            ids.filter_map(|id| self.view.endpoints.values().find_map(|network| network.get(id)));
        endpoints.filter_map(|endpoint| self.named(endpoint)).collect()
    }

    fn node(&self, vtep: Ip16) -> Option<String> {
        let id: NodeId = match vtep {
            IP16_NONE => return None,
            own if self.served.vtep().is_some_and(|vtep| own == vtep.ip16()) => {
                self.served.controller.id()
            }
            _ => self.maps.node(vtep)?.node,
        };
        Some(self.view.nodes.get(&id)?.name.to_string())
    }
}

/// What an end that has no name is called by: the first of its addresses that is known.
fn known(address: &str, mac: &str, vtep: &str) -> String {
    let words = [address, mac, vtep];
    let word = words.into_iter().find(|word| !word.is_empty() && *word != NO_MAC);
    word.unwrap_or_default().to_owned()
}

/// The MAC of an event whose frame was not read.
const NO_MAC: &str = "00:00:00:00:00:00";

fn interface(ifindex: u32) -> String {
    let name = nix::net::if_::if_indextoname(ifindex).ok();
    // nix gives an empty name where the device is gone.
    let name = name.and_then(|name| name.into_string().ok()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| ifindex.to_string())
}

fn mac(mac: &MacBytes) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

fn address(ip: &Ip16) -> String {
    match ip16_to_v4(ip) {
        Some(v4) => Ipv4Addr::from(v4).to_string(),
        None if *ip == IP16_NONE => String::new(),
        None => Ipv6Addr::from(*ip).to_string(),
    }
}
