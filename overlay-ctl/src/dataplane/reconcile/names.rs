//! The names that resolve in the namespaces of this node, and the published ports and legs of this node.

use super::{LocalNode, desired, diff::Rows};
use crate::{
    control::state::{Changed, View},
    dataplane::kernel::{
        DeviceId, DeviceKind, Legs, Names, Namespace, NetworkNames, ObservedDevice, PublishedPorts,
        Tables, Target, WantedDevices,
    },
    model::{Endpoint, EndpointId, Location, Network, NetworkId},
};
use imbl::OrdMap;
use ipnet::IpNet;
use overlay_common::FdbKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

/// The names that resolve on this node: the names of the endpoints that its data path delivers to, as `held` says, in
/// the namespaces of the endpoints on this node.
pub(super) fn desired_names(
    view: &View,
    local: &LocalNode,
    held: &Tables,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
) -> Names {
    let mut names = Names::default();
    for network in view.networks.values() {
        let mut told = NetworkNames::new(network.name.clone(), network.pool.subnet);
        for endpoint in view.endpoints_of(network.id).filter(|e| is_held(network, e, held)) {
            told.insert(endpoint);
        }
        names.networks.insert(network.id, told);
    }
    let here = view.all_endpoints().filter(|endpoint| endpoint.node() == Some(local.id));
    names.namespaces = namespaces(view, here, held, devices);
    names
}

/// The namespaces in which names resolve.
pub(super) fn namespaces<'a>(
    view: &View,
    here: impl Iterator<Item = &'a Endpoint>,
    held: &Tables,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
) -> OrdMap<PathBuf, Namespace> {
    // Ids grow with time: the networks of a namespace are asked in the order in which its endpoints were created.
    let mut ordered: BTreeMap<EndpointId, (&Endpoint, &Network, &PathBuf)> = BTreeMap::new();
    for endpoint in here {
        if let Location::Node { netns, .. } = &endpoint.location
            && let Some(network) = view.networks.get(&endpoint.network)
            && is_held(network, endpoint, held)
        {
            ordered.insert(endpoint.id, (endpoint, network, netns));
        }
    }
    let mut namespaces = OrdMap::new();
    for (id, (endpoint, network, netns)) in ordered {
        let Some(port) = devices.get(&DeviceId::port(id)) else { continue };
        let namespace: &mut Namespace = namespaces.entry(netns.clone()).or_default();
        namespace.networks.push(endpoint.network);
        // All ports of a namespace lead into it, so its number does not depend on which of them goes first.
        namespace.netns = namespace.netns.or(port.peer.as_ref().map(|peer| peer.netns));
        namespace.has_outside |= !network.options.internal;
    }
    namespaces
}

/// Returns true if the data path delivers to the endpoint. The endpoint's id in the entry distinguishes it from an
/// earlier or later endpoint with the same address.
fn is_held(network: &Network, endpoint: &Endpoint, held: &Tables) -> bool {
    let entry = held.fdb.get(&desired::keys(network, endpoint).0);
    entry.is_some_and(|entry| entry.endpoint == endpoint.id && entry.is_somewhere())
}

/// Removes from `names` what must not resolve any more of the touched endpoints, whose entries become `rows`: their old
/// names, and all names of endpoints that nothing is delivered to any more.
pub(super) fn forget(
    names: &mut Arc<Names>,
    view: &View,
    touched: &[Changed<'_, Endpoint>],
    rows: &Rows,
) {
    let networks: Vec<NetworkId> =
        names.networks.keys().copied().filter(|id| !view.networks.contains_key(id)).collect();
    for network in networks {
        Arc::make_mut(names).networks.remove(&network);
    }
    for change in touched {
        let Some(old) = change.old else { continue };
        let Some(network) = view.networks.get(&old.network) else { continue };
        let goes = || {
            let row = rows.fdb.get(&desired::keys(network, old).0).copied().flatten();
            row.is_none_or(|entry| entry.endpoint != old.id || !entry.is_somewhere())
        };
        if is_told(names, old) && (change.new != Some(old) || goes()) {
            change_names(names, network, |told| told.remove(old));
        }
    }
}

/// Adds to `names` the names of the touched endpoints that resolve now that the tables are written.
pub(super) fn tell(
    names: &mut Arc<Names>,
    view: &View,
    touched: &[Changed<'_, Endpoint>],
    held: &Tables,
) {
    for network in view.networks.values() {
        if names.networks.get(&network.id).is_none_or(|told| told.name != network.name) {
            let told = NetworkNames::new(network.name.clone(), network.pool.subnet);
            Arc::make_mut(names).networks.insert(network.id, told);
        }
    }
    for endpoint in touched.iter().filter_map(|change| change.new) {
        let Some(network) = view.networks.get(&endpoint.network) else { continue };
        if !is_told(names, endpoint) && is_held(network, endpoint, held) {
            change_names(names, network, |told| told.insert(endpoint));
        }
    }
}

fn is_told(names: &Names, endpoint: &Endpoint) -> bool {
    let told = names.networks.get(&endpoint.network);
    endpoint.addresses.v4.zip(told).is_some_and(|(v4, told)| told.pointers.contains_key(&v4))
}

fn change_names(names: &mut Arc<Names>, network: &Network, change: impl FnOnce(&mut NetworkNames)) {
    if let Some(told) = Arc::make_mut(names).networks.get_mut(&network.id) {
        change(told);
    }
}

/// Returns true if the view knows every endpoint that the data path delivers to, as `held` says. An older view would
/// deny names of endpoints that are delivered to.
pub(super) fn is_known(view: &View, held: &Tables) -> bool {
    let known: BTreeSet<(FdbKey, EndpointId)> = view
        .networks
        .values()
        .flat_map(|network| {
            let endpoints = view.endpoints_of(network.id);
            endpoints.map(move |endpoint| (desired::keys(network, endpoint).0, endpoint.id))
        })
        .collect();
    let mut delivered = held.fdb.iter().filter(|(_, entry)| entry.is_somewhere());
    delivered.all(|(key, entry)| known.contains(&(*key, entry.endpoint)))
}

/// The ports of this node that lead to endpoints whose leg exists.
pub(super) fn desired_ports<'a>(
    here: impl Iterator<Item = &'a Endpoint>,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
) -> PublishedPorts {
    let mut ports = PublishedPorts::new();
    for endpoint in here {
        let Some(leg) = endpoint.leg.filter(|leg| devices.contains_key(&DeviceId::leg(leg.id)))
        else {
            continue;
        };
        let Some(address) = leg.addresses.v4 else { continue };
        for published in &endpoint.published {
            let key = (published.port.transport, published.host, published.host_port);
            let comment = format!("{} {}", endpoint.name, published.port);
            ports.insert(key, Target { address, port: published.port.port, comment });
        }
    }
    ports
}

/// The legs that were set up. One that was only created has no connection yet: whatever the kernel knows of its address
/// is a former leg's.
pub(super) fn set_up_legs(
    wanted: &WantedDevices,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
) -> Legs {
    let legs =
        devices.values().filter(|device| device.id.kind == DeviceKind::Leg && device.complete);
    let address = |leg: &ObservedDevice| {
        let addresses = &wanted.devices.get(&leg.id)?.addresses;
        addresses.iter().find_map(|net| match net {
            IpNet::V4(v4) => Some((leg.id, v4.addr())),
            IpNet::V6(_) => None,
        })
    };
    legs.filter_map(address).collect()
}
