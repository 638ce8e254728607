//! The contents of the maps that the controller fills, and one change to them.

use overlay_common::{MapRow, map};
use std::{borrow::Borrow as _, collections::BTreeMap};

type Key<M> = <M as MapRow>::Key;
type Value<M> = <M as MapRow>::Value;

/// Defines [`Tables`] and [`TableChange`] from one row a map: the table's name, the map, and the two changes, with the
/// value as the first one holds it.
macro_rules! tables {
    ($($(#[$doc:meta])* $table:ident: $map:ident, $put:ident($value:ty), $delete:ident;)*) => {
        /// The contents of the maps that the controller fills.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Tables {
            $($(#[$doc])* pub $table: BTreeMap<Key<map::$map>, Value<map::$map>>,)*
        }

        /// One write to one map.
        #[derive(Clone, Debug, PartialEq)]
        pub enum TableChange {
            $(
                /// Sets an entry.
                $put(Key<map::$map>, $value),
                /// Deletes an entry.
                $delete(Key<map::$map>),
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

tables! {
    /// (VNI, MAC) -> the endpoint and its place.
    fdb: FDB, PutFdb(Value<map::FDB>), DeleteFdb;
    /// (VNI, IP) -> MAC.
    neigh: NEIGH, PutNeigh(Value<map::NEIGH>), DeleteNeigh;
    /// Host-side ifindex -> the endpoint of this port.
    ports: PORTS, PutPort(Value<map::PORTS>), DeletePort;
    /// VTEP -> the node and its index in HOPS.
    nodes: NODES, PutNode(Value<map::NODES>), DeleteNode;
    /// VNI and page -> VTEPs and ports that receive broadcast.
    flood: FLOOD, PutFlood(Box<Value<map::FLOOD>>), DeleteFlood;
    /// (VNI, VTEP) -> what stations behind bridging endpoints there may send; VNI -> the only such endpoint.
    bridges: BRIDGES, PutBridge(Value<map::BRIDGES>), DeleteBridge;
    /// Host-side ifindex -> the endpoint of this gateway leg.
    gateway_ports: GATEWAY_PORTS, PutGatewayPort(Value<map::GATEWAY_PORTS>), DeleteGatewayPort;
    /// The index that FDB and NODES name -> the way to the VTEP.
    hops: HOPS, PutHop(Value<map::HOPS>), DeleteHop;
    /// Addresses of the nodes' APIs -> the node's id.
    apis: APIS, PutApi(Value<map::APIS>), DeleteApi;
}
