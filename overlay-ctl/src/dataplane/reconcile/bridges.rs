//! What the maps say of stations behind bridging endpoints. No row of the state has their MACs: so a node lets them come
//! from the VTEPs where such endpoints are, and sends there what is for a MAC that no endpoint has.

use super::{
    LocalNode,
    desired::{Placement, entries, network_flags},
    flood,
    sites::{Sites, site},
};
use crate::{
    control::state::View,
    dataplane::kernel::Tables,
    model::{Endpoint, Network},
};
use overlay_common::{BridgeKey, FLAG_STATIONS, FdbEntry, FloodEntry, FloodKey, IP16_NONE};
use std::collections::BTreeSet;

/// Puts the entries of all networks into `tables`; none for a network without a bridging endpoint.
pub(super) fn put(
    tables: &mut Tables,
    view: &View,
    local: &LocalNode,
    sites: &Sites,
    placement: &Placement,
) {
    for network in view.networks.values() {
        let bridging: Vec<_> = sites.bridging_of(network.id).collect();
        if !bridging.is_empty() {
            put_network(tables, view, local, network, &bridging, placement);
        }
    }
}

fn put_network(
    tables: &mut Tables,
    view: &View,
    local: &LocalNode,
    network: &Network,
    bridging: &[&Endpoint],
    placement: &Placement,
) {
    let vni = network.vni.get();
    let (mut hops, mut ports, mut lost) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for endpoint in bridging {
        let Some(site) = site(endpoint, local.id) else {
            ports.extend(placement.ports.get(&endpoint.id).map(|port| port.ifindex));
            continue;
        };
        let Some(vtep) = site.vtep(view) else { continue };
        let Some(hop) = placement.hops.get(&vtep).copied() else {
            lost.insert(vtep);
            continue;
        };
        hops.insert(hop);
        let flags = network_flags(network) | endpoint.permissions.flags() | FLAG_STATIONS;
        let entry = FdbEntry::behind(endpoint.id, IP16_NONE, flags, vtep.ip16(), hop);
        let key = BridgeKey::behind(vni, vtep.ip16());
        // Which of several endpoints there a station is behind, only the VTEP knows.
        tables.bridges.entry(key).and_modify(|entry| entry.flags |= flags).or_insert(entry);
    }
    // One that is down, as a namespace that has gone, gets nothing, and changes nothing for the others.
    let placed = bridging.iter().filter_map(|endpoint| entries(view, local, endpoint, placement));
    let placed: Vec<_> =
        placed.map(|(entry, _)| entry).filter(FdbEntry::is_somewhere).take(2).collect();
    if let [only] = &*placed
        && lost.is_empty()
    {
        tables.bridges.insert(BridgeKey::only(vni), *only);
    }
    let page = flood::page(hops, ports, lost.len());
    if page != FloodEntry::EMPTY {
        tables.flood.insert(FloodKey::bridging(vni), page);
    }
}
