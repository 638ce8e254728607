//! The writes that turn the tables in the kernel into the wanted tables, and their order.

use crate::dataplane::kernel::{TableChange, Tables};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::collections::BTreeMap;

/// The wanted entries of the FDB and of the neighbours; `None` = no entry. An entry that is not named here stays as it
/// is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    pub(super) fdb: BTreeMap<FdbKey, Option<FdbEntry>>,
    pub(super) neigh: BTreeMap<NeighKey, Option<NeighEntry>>,
}

/// The changes that turn the entries of `held` into `rows` and, where `small` is given, the other tables into `small`.
///
/// In this order no entry ever names something unknown: VTEPs, networks and ports come before the entries of BRIDGES and
/// FDB that name them, and an FDB entry before the neighbour entry that makes peers send. Removals have the reverse order.
pub(super) fn changes(held: &Tables, small: Option<&Tables>, rows: &Rows) -> Vec<TableChange> {
    let mut changes = Vec::new();
    let all = &mut changes;
    if let Some(small) = small {
        puts(all, &held.apis, &small.apis, TableChange::PutApi);
        puts(all, &held.gateway_ports, &small.gateway_ports, TableChange::PutGatewayPort);
        puts(all, &held.hops, &small.hops, TableChange::PutHop);
        puts(all, &held.nodes, &small.nodes, TableChange::PutNode);
        puts(all, &held.flood, &small.flood, |key, entry| {
            TableChange::PutFlood(key, Box::new(entry))
        });
        puts(all, &held.ports, &small.ports, TableChange::PutPort);
        puts(all, &held.bridges, &small.bridges, TableChange::PutBridge);
    }
    row_puts(all, &held.fdb, &rows.fdb, TableChange::PutFdb);
    row_puts(all, &held.neigh, &rows.neigh, TableChange::PutNeigh);
    row_deletes(all, &held.neigh, &rows.neigh, TableChange::DeleteNeigh);
    row_deletes(all, &held.fdb, &rows.fdb, TableChange::DeleteFdb);
    if let Some(small) = small {
        deletes(all, &held.bridges, &small.bridges, TableChange::DeleteBridge);
        deletes(all, &held.ports, &small.ports, TableChange::DeletePort);
        deletes(all, &held.flood, &small.flood, TableChange::DeleteFlood);
        deletes(all, &held.nodes, &small.nodes, TableChange::DeleteNode);
        deletes(all, &held.hops, &small.hops, TableChange::DeleteHop);
        deletes(all, &held.gateway_ports, &small.gateway_ports, TableChange::DeleteGatewayPort);
        deletes(all, &held.apis, &small.apis, TableChange::DeleteApi);
    }
    changes
}

fn puts<K: Ord + Copy, V: PartialEq + Copy>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    put: impl Fn(K, V) -> TableChange,
) {
    let missing = desired.iter().filter(|(key, value)| held.get(key) != Some(value));
    changes.extend(missing.map(|(key, value)| put(*key, *value)));
}

fn deletes<K: Ord + Copy, V>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    delete: impl Fn(K) -> TableChange,
) {
    let stale = held.keys().filter(|key| !desired.contains_key(key));
    changes.extend(stale.map(|key| delete(*key)));
}

fn row_puts<K: Ord + Copy, V: PartialEq + Copy>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    rows: &BTreeMap<K, Option<V>>,
    put: impl Fn(K, V) -> TableChange,
) {
    let wanted = rows.iter().filter_map(|(key, value)| Some((key, (*value)?)));
    let missing = wanted.filter(|(key, value)| held.get(key) != Some(value));
    changes.extend(missing.map(|(key, value)| put(*key, value)));
}

fn row_deletes<K: Ord + Copy, V>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    rows: &BTreeMap<K, Option<V>>,
    delete: impl Fn(K) -> TableChange,
) {
    let gone = rows.iter().filter(|(key, value)| value.is_none() && held.contains_key(key));
    changes.extend(gone.map(|(key, _)| delete(*key)));
}
