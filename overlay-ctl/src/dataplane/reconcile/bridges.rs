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
    dataplane::kernel::{KernelError, Tables},
    model::{Endpoint, Network},
};
use overlay_common::{
    BRIDGES_MAX, BridgeKey, FLAG_STATIONS, FLOOD_CAPACITY, FdbEntry, FloodEntry, FloodKey,
    IP16_NONE, map,
};
use std::collections::{BTreeMap, BTreeSet};

/// Puts the entries of all networks into `tables`; none for a network without a bridging endpoint.
///
/// # Errors
/// The entries of some networks are left out, because a map has no room for them.
pub(super) fn put(
    tables: &mut Tables,
    view: &View,
    local: &LocalNode,
    sites: &Sites,
    placement: &Placement,
) -> Result<(), KernelError> {
    let mut without = 0;
    for network in view.networks.values() {
        let bridging: Vec<_> = sites.bridging_of(network.id).collect();
        if bridging.is_empty() {
            continue;
        }
        let (bridges, page) = of_network(view, local, network, &bridging, placement);
        let fits = tables.bridges.len() + bridges.len() <= BRIDGES_MAX as usize
            && tables.flood.len() < FLOOD_CAPACITY as usize;
        if !fits {
            without += 1;
            continue;
        }
        tables.bridges.extend(bridges);
        if page != FloodEntry::EMPTY {
            tables.flood.insert(FloodKey::bridging(network.vni.get()), page);
        }
    }
    if without > 0 {
        let why = format!(
            "the maps {} and {} have no room for those of {without} networks, whose stations are not reached",
            map::BRIDGES::NAME,
            map::FLOOD::NAME
        );
        return Err(KernelError::new("there are too many bridging endpoints", why));
    }
    Ok(())
}

/// The entries of one network, and its page of bridging endpoints.
fn of_network(
    view: &View,
    local: &LocalNode,
    network: &Network,
    bridging: &[&Endpoint],
    placement: &Placement,
) -> (BTreeMap<BridgeKey, FdbEntry>, FloodEntry) {
    let vni = network.vni.get();
    let mut bridges: BTreeMap<BridgeKey, FdbEntry> = BTreeMap::new();
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
        bridges.entry(key).and_modify(|entry| entry.flags |= flags).or_insert(entry);
    }
    // One of this node that is down, as a namespace that has gone, gets nothing, and changes nothing for the others. Of
    // those on other nodes nothing is known.
    let placed = bridging.iter().filter_map(|endpoint| entries(view, local, endpoint, placement));
    let placed: Vec<_> =
        placed.map(|(entry, _)| entry).filter(FdbEntry::is_somewhere).take(2).collect();
    if let [only] = &*placed
        && lost.is_empty()
    {
        bridges.insert(BridgeKey::only(vni), *only);
    }
    (bridges, flood::page(hops, ports, lost.len()))
}
