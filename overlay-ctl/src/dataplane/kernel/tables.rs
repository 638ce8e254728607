//! The contents of the maps that the controller fills, and one change to them.

use overlay_common::{
    ApiKey, FdbEntry, FdbKey, FloodEntry, GatewayPortEntry, HopEntry, NeighEntry, NeighKey,
    NodeEntry, NodeKey, PortEntry,
};
use std::{borrow::Borrow as _, collections::BTreeMap};

/// The contents of the maps that the controller fills.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// (VNI, MAC) -> the place of the endpoint.
    pub fdb: BTreeMap<FdbKey, FdbEntry>,
    /// (VNI, IP) -> MAC.
    pub neigh: BTreeMap<NeighKey, NeighEntry>,
    /// Host-side ifindex -> the endpoint.
    pub ports: BTreeMap<u32, PortEntry>,
    /// VTEP -> node and next hop.
    pub nodes: BTreeMap<NodeKey, NodeEntry>,
    /// VNI -> the VTEPs and ports that want broadcast.
    pub flood: BTreeMap<u32, FloodEntry>,
    /// Host-side ifindex -> the gateway leg.
    pub gateway_ports: BTreeMap<u32, GatewayPortEntry>,
    /// Index that FDB and NODES name -> the next hop of the VTEP.
    pub hops: BTreeMap<u32, HopEntry>,
    /// Address of a node's API -> the node's id.
    pub apis: BTreeMap<ApiKey, u64>,
}

macro_rules! table_changes {
    ($($table:ident: $put:ident($key:ty, $value:ty), $delete:ident;)*) => {
        /// One write to one map.
        #[derive(Clone, Debug, PartialEq)]
        pub enum TableChange {
            $(
                /// Sets an entry.
                $put($key, $value),
                /// Deletes an entry.
                $delete($key),
            )*
        }

        impl TableChange {
            /// Makes the same change to `tables`.
            pub fn apply_to(&self, tables: &mut Tables) {
                match self {
                    $(
                        Self::$put(key, value) => { tables.$table.insert(*key, *value.borrow()); }
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
    flood: PutFlood(u32, Box<FloodEntry>), DeleteFlood;
    gateway_ports: PutGatewayPort(u32, GatewayPortEntry), DeleteGatewayPort;
    hops: PutHop(u32, HopEntry), DeleteHop;
    apis: PutApi(ApiKey, u64), DeleteApi;
}
