//! The writes that turn the tables in the kernel into the wanted tables, and their order.

use crate::dataplane::kernel::{TableChange, Tables};
use overlay_common::{
    FLAG_BRIDGING, FLAG_ROUTING, FLOOD_BRIDGING, FdbEntry, FdbKey, FloodKey, GatewayPortEntry,
    NeighEntry, NeighKey, PortEntry,
};
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
/// In this order no entry ever names something unknown: VTEPs, networks and ports come before the entries that name them.
/// NEIGH and FDB say which addresses and MACs are endpoints', so what lets somebody use others comes after them: ports and
/// legs with a permission, the entries of BRIDGES, and the page of bridging endpoints. Their own FDB entry is there a
/// moment before their port is. ARP requests are answered once an endpoint has an entry in both tables.
///
/// Of the removals, what lets somebody send comes first, and then what names others comes before what it names. What makes
/// room in BRIDGES is removed before anything is put there.
pub(super) fn changes(held: &Tables, small: Option<&Tables>, rows: &Rows) -> Vec<TableChange> {
    let mut changes = Vec::new();
    let all = &mut changes;
    let parts = small.map(|small| Parts { held, small });
    if let Some(parts) = parts {
        let Parts { held, small } = parts;
        puts(all, &held.apis, &small.apis, |_, _| true, TableChange::PutApi);
        puts(all, &held.hops, &small.hops, |_, _| true, TableChange::PutHop);
        puts(all, &held.nodes, &small.nodes, |_, _| true, TableChange::PutNode);
        parts.put_flood(all, is_of_all);
        parts.put_ports(all, is_plain);
    }
    row_puts(all, &held.neigh, &rows.neigh, TableChange::PutNeigh);
    row_puts(all, &held.fdb, &rows.fdb, TableChange::PutFdb);
    if let Some(parts) = parts {
        let Parts { held, small } = parts;
        parts.put_ports(all, is_permitted);
        parts.delete_flood(all, is_bridging);
        deletes(all, &held.bridges, &small.bridges, TableChange::DeleteBridge);
        puts(all, &held.bridges, &small.bridges, |_, _| true, TableChange::PutBridge);
        parts.put_flood(all, is_bridging);
    }
    row_deletes(all, &held.neigh, &rows.neigh, TableChange::DeleteNeigh);
    row_deletes(all, &held.fdb, &rows.fdb, TableChange::DeleteFdb);
    if let Some(parts) = parts {
        let Parts { held, small } = parts;
        deletes(all, &held.ports, &small.ports, TableChange::DeletePort);
        deletes(all, &held.gateway_ports, &small.gateway_ports, TableChange::DeleteGatewayPort);
        parts.delete_flood(all, is_of_all);
        deletes(all, &held.nodes, &small.nodes, TableChange::DeleteNode);
        deletes(all, &held.hops, &small.hops, TableChange::DeleteHop);
        deletes(all, &held.apis, &small.apis, TableChange::DeleteApi);
    }
    changes
}

/// The small tables as they are and as they shall be.
#[derive(Clone, Copy)]
struct Parts<'a> {
    held: &'a Tables,
    small: &'a Tables,
}

impl Parts<'_> {
    /// The ports and legs whose flags are meant.
    fn put_ports(self, changes: &mut Vec<TableChange>, is_meant: fn(u32) -> bool) {
        let Self { held, small } = self;
        let leg = |_: &u32, entry: &GatewayPortEntry| is_meant(entry.flags);
        puts(changes, &held.gateway_ports, &small.gateway_ports, leg, TableChange::PutGatewayPort);
        let port = |_: &u32, entry: &PortEntry| is_meant(entry.flags);
        puts(changes, &held.ports, &small.ports, port, TableChange::PutPort);
    }

    fn put_flood(self, changes: &mut Vec<TableChange>, is_meant: fn(&FloodKey) -> bool) {
        let Self { held, small } = self;
        let put = |key, entry| TableChange::PutFlood(key, Box::new(entry));
        puts(changes, &held.flood, &small.flood, |key, _| is_meant(key), put);
    }

    fn delete_flood(self, changes: &mut Vec<TableChange>, is_meant: fn(&FloodKey) -> bool) {
        let stale = self.held.flood.keys().filter(|key| !self.small.flood.contains_key(key));
        changes.extend(stale.filter(|key| is_meant(key)).copied().map(TableChange::DeleteFlood));
    }
}

/// Whether the flags let an endpoint use addresses or MACs that are not its own.
fn is_permitted(flags: u32) -> bool {
    flags & (FLAG_ROUTING | FLAG_BRIDGING) != 0
}

fn is_plain(flags: u32) -> bool {
    !is_permitted(flags)
}

fn is_bridging(key: &FloodKey) -> bool {
    key.page == FLOOD_BRIDGING
}

fn is_of_all(key: &FloodKey) -> bool {
    !is_bridging(key)
}

fn puts<K: Ord + Copy, V: PartialEq + Copy>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    is_meant: impl Fn(&K, &V) -> bool,
    put: impl Fn(K, V) -> TableChange,
) {
    let missing =
        desired.iter().filter(|(key, value)| is_meant(key, value) && held.get(key) != Some(value));
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
