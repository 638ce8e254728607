use super::{DeviceId, LocalNode, ObservedDevice, PublishedPorts, Tables};
use crate::{
    dns::{Names, Namespace, NetworkNames},
    gateway::Target,
    model::{Endpoint, EndpointId, Location, Network},
    state::View,
};
use overlay_common::FdbKey;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// The names that resolve on this node: those of endpoints that its data path `held`, in the
/// namespaces of those that are here.
pub(super) fn desired_names(
    view: &View,
    local: &LocalNode,
    held: &Tables,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
) -> Names {
    let mut names = Names::default();
    // Ids are given in order: in this order the networks of a namespace are asked.
    let mut here: BTreeMap<EndpointId, (&Endpoint, &PathBuf)> = BTreeMap::new();
    for network in view.networks.values() {
        let mut told = NetworkNames {
            name: network.name.clone(),
            subnet: network.pool.subnet,
            records: BTreeMap::new(),
            pointers: BTreeMap::new(),
        };
        for endpoint in view.endpoints.get(&network.id).into_iter().flat_map(BTreeMap::values) {
            // By its generation the entry is this endpoint's, and not that of one before or after it
            // that has the same address.
            let entry = held.fdb.get(&fdb_key(network, endpoint));
            if entry.is_none_or(|entry| entry.generation != endpoint.id) {
                continue;
            }
            for name in std::iter::once(&endpoint.name).chain(&endpoint.aliases) {
                told.records.entry(name.folded().into()).or_default().push(endpoint.address);
            }
            told.pointers.insert(endpoint.address, endpoint.name.to_string());
            if let Location::Node { node, netns } = &endpoint.location
                && *node == local.id
            {
                here.insert(endpoint.id, (endpoint, netns));
            }
        }
        names.networks.insert(network.id, told);
    }
    for (id, (endpoint, netns)) in here {
        let Some(port) = devices.get(&DeviceId::Port(id)) else { continue };
        let namespace = names
            .namespaces
            .entry(netns.clone())
            .or_insert_with(|| Namespace { networks: Vec::new(), incarnation: port.ifindex });
        namespace.networks.push(endpoint.network);
    }
    names
}

/// Whether the view knows every endpoint that the data path `held`: an older one would deny names that
/// are delivered to.
pub(super) fn is_known(view: &View, held: &Tables) -> bool {
    let known: BTreeSet<(FdbKey, EndpointId)> = view
        .networks
        .values()
        .flat_map(|network| {
            let endpoints = view.endpoints.get(&network.id).into_iter().flat_map(BTreeMap::values);
            endpoints.map(move |endpoint| (fdb_key(network, endpoint), endpoint.id))
        })
        .collect();
    held.fdb.iter().all(|(key, entry)| known.contains(&(*key, entry.generation)))
}

fn fdb_key(network: &Network, endpoint: &Endpoint) -> FdbKey {
    FdbKey { vni: network.vni.get(), mac: endpoint.mac.octets(), pad: [0; 2] }
}

/// The ports of this node that lead to endpoints whose leg stands.
pub(super) fn desired_ports(
    view: &View,
    local: &LocalNode,
    devices: &BTreeMap<DeviceId, ObservedDevice>,
) -> PublishedPorts {
    let here = view.all_endpoints().filter(|endpoint| endpoint.node() == Some(local.id));
    let mut ports = PublishedPorts::new();
    for endpoint in here {
        let Some(address) = endpoint.gateway else { continue };
        if !devices.contains_key(&DeviceId::Leg(address)) {
            continue;
        }
        for published in &endpoint.published {
            let key = (published.port.transport, published.host, published.host_port);
            let comment = format!("{} {}", endpoint.name, published.port);
            ports.insert(key, Target { address, port: published.port.port, comment });
        }
    }
    ports
}
