use overlay_common::{
    ApiKey, FdbEntry, FdbKey, FloodEntry, GatewayPortEntry, HopEntry, NeighEntry, NeighKey,
    NodeEntry, NodeKey, PortEntry,
};
use std::collections::BTreeMap;

/// The contents of the maps that the controller fills.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// (VNI, MAC) -> where.
    pub fdb: BTreeMap<FdbKey, FdbEntry>,
    /// (VNI, IP) -> MAC.
    pub neigh: BTreeMap<NeighKey, NeighEntry>,
    /// Host-side ifindex -> who.
    pub ports: BTreeMap<u32, PortEntry>,
    /// VTEP -> node and next hop.
    pub nodes: BTreeMap<NodeKey, NodeEntry>,
    /// A node's index -> the way to it. Only those that NODES names.
    pub hops: BTreeMap<u32, HopEntry>,
    /// VNI -> who wants broadcast.
    pub flood: BTreeMap<u32, FloodEntry>,
    /// Host-side ifindex -> whose gateway leg.
    pub gateway_ports: BTreeMap<u32, GatewayPortEntry>,
    /// Where the nodes' APIs are -> the node's id.
    pub apis: BTreeMap<ApiKey, u64>,
}

macro_rules! table_changes {
    ($($table:ident: $put:ident($key:ty, $value:ty), $delete:ident;)*) => {
        /// One write to one map.
        #[derive(Clone, Debug, PartialEq)]
        #[expect(
            clippy::large_enum_variant,
            reason = "flood entries are large, few and short-lived; a box would be no better"
        )]
        pub enum TableChange {
            $(
                /// Sets an entry.
                $put($key, $value),
                /// Deletes an entry.
                $delete($key),
            )*
        }

        impl TableChange {
            /// Does to `tables` what it does to the maps.
            pub fn apply_to(&self, tables: &mut Tables) {
                match self {
                    $(
                        Self::$put(key, value) => { tables.$table.insert(*key, *value); }
                        Self::$delete(key) => { tables.$table.remove(key); }
                    )*
                }
            }
        }
    };
}

table_changes! {
    fdb: PutFdb(FdbKey, FdbEntry), DeleteFdb;
    neigh: PutNeigh(NeighKey, NeighEntry), DeleteNeigh;
    ports: PutPort(u32, PortEntry), DeletePort;
    nodes: PutNode(NodeKey, NodeEntry), DeleteNode;
    hops: PutHop(u32, HopEntry), DeleteHop;
    flood: PutFlood(u32, FloodEntry), DeleteFlood;
    gateway_ports: PutGatewayPort(u32, GatewayPortEntry), DeleteGatewayPort;
    apis: PutApi(ApiKey, u64), DeleteApi;
}

/// What turns `held` into `desired`, in an order that never leaves an entry whose meaning hangs in
/// the air: a way, a VTEP, a network and a port are known before an FDB entry names them, the FDB before the
/// neighbour entry that makes peers send, and the other way round on the way out.
#[must_use]
pub fn changes(held: &Tables, desired: &Tables) -> Vec<TableChange> {
    let mut changes = Vec::new();
    let all = &mut changes;
    puts(all, &held.apis, &desired.apis, TableChange::PutApi);
    puts(all, &held.gateway_ports, &desired.gateway_ports, TableChange::PutGatewayPort);
    puts(all, &held.hops, &desired.hops, TableChange::PutHop);
    puts(all, &held.nodes, &desired.nodes, TableChange::PutNode);
    puts(all, &held.flood, &desired.flood, TableChange::PutFlood);
    puts(all, &held.ports, &desired.ports, TableChange::PutPort);
    puts(all, &held.fdb, &desired.fdb, TableChange::PutFdb);
    puts(all, &held.neigh, &desired.neigh, TableChange::PutNeigh);
    deletes(all, &held.neigh, &desired.neigh, TableChange::DeleteNeigh);
    deletes(all, &held.fdb, &desired.fdb, TableChange::DeleteFdb);
    deletes(all, &held.ports, &desired.ports, TableChange::DeletePort);
    deletes(all, &held.flood, &desired.flood, TableChange::DeleteFlood);
    deletes(all, &held.nodes, &desired.nodes, TableChange::DeleteNode);
    deletes(all, &held.hops, &desired.hops, TableChange::DeleteHop);
    deletes(all, &held.gateway_ports, &desired.gateway_ports, TableChange::DeleteGatewayPort);
    deletes(all, &held.apis, &desired.apis, TableChange::DeleteApi);
    changes
}

fn puts<K: Ord + Copy, V: PartialEq + Copy>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    put: fn(K, V) -> TableChange,
) {
    let missing = desired.iter().filter(|(key, value)| held.get(key) != Some(value));
    changes.extend(missing.map(|(key, value)| put(*key, *value)));
}

fn deletes<K: Ord + Copy, V>(
    changes: &mut Vec<TableChange>,
    held: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    delete: fn(K) -> TableChange,
) {
    let stale = held.keys().filter(|key| !desired.contains_key(key));
    changes.extend(stale.map(|key| delete(*key)));
}
