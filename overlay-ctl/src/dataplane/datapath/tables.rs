//! The maps that the controller fills, as a whole: taken from the object, read, counted, and written in batches.

use std::{borrow::Borrow as _, collections::BTreeMap};

use aya::Ebpf;
use overlay_common::{HopEntry, NodeEntry, NodeKey, map};

use super::{
    DatapathError,
    table::{Hops, MapUsage, NO_HOP, Table},
};
use crate::dataplane::kernel::{TableChange, Tables};

/// Defines the handles of the hash maps that the controller fills, from one row a map: the name that it has
/// here and in [`Tables`], the map, and the changes that write it.
macro_rules! hash_tables {
    ($($(#[$doc:meta])* $table:ident: $map:ident, $put:ident, $delete:ident;)*) => {
        /// Handles of all maps that the controller fills.
        #[derive(Clone)]
        pub(super) struct HashTables {
            $($(#[$doc])* pub(super) $table: Table<map::$map>,)*
            hops: Hops,
        }

        impl HashTables {
            pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
                Ok(Self { $($table: Table::take(ebpf)?,)* hops: Hops::take(ebpf)? })
            }

            /// How full each is.
            pub(super) fn usage(&self) -> Result<Vec<MapUsage>, DatapathError> {
                Ok(vec![$(self.$table.usage()?,)*])
            }

            /// Makes changes of one kind.
            fn write_alike(&self, changes: &[TableChange]) -> Result<(), DatapathError> {
                match changes.first() {
                    None => Ok(()),
                    Some(TableChange::PutHop(..) | TableChange::DeleteHop(_)) => {
                        changes.iter().try_for_each(|change| match change {
                            TableChange::PutHop(index, hop) => self.hops.set(*index, hop),
                            TableChange::DeleteHop(index) => self.hops.set(*index, &NO_HOP),
                            _ => Ok(()),
                        })
                    }
                    $(
                        Some(TableChange::$put(..)) => {
                            let entry = |change: &TableChange| match change {
                                TableChange::$put(key, value) => Some((*key, *value.borrow())),
                                _ => None,
                            };
                            self.$table.put(&changes.iter().filter_map(entry).collect::<Vec<_>>())
                        }
                        Some(TableChange::$delete(..)) => {
                            let key = |change: &TableChange| match change {
                                TableChange::$delete(key) => Some(*key),
                                _ => None,
                            };
                            self.$table.delete(&changes.iter().filter_map(key).collect::<Vec<_>>())
                        }
                    )*
                }
            }
        }
    };
}

hash_tables! {
    fdb: FDB, PutFdb, DeleteFdb;
    neigh: NEIGH, PutNeigh, DeleteNeigh;
    ports: PORTS, PutPort, DeletePort;
    nodes: NODES, PutNode, DeleteNode;
    flood: FLOOD, PutFlood, DeleteFlood;
    bridges: BRIDGES, PutBridge, DeleteBridge;
    gateway_ports: GATEWAY_PORTS, PutGatewayPort, DeleteGatewayPort;
    apis: APIS, PutApi, DeleteApi;
}

impl HashTables {
    /// Every entry of the tables that grow with the node: of all but the FDB and the neighbours.
    pub(super) fn small(&self) -> Result<Tables, DatapathError> {
        let nodes = self.nodes.read()?;
        Ok(Tables {
            ports: self.ports.read()?,
            hops: self.hops(&nodes)?,
            nodes,
            flood: self.flood.read()?,
            bridges: self.bridges.read()?,
            gateway_ports: self.gateway_ports.read()?,
            apis: self.apis.read()?,
            ..Tables::default()
        })
    }

    /// The elements of HOPS that these nodes name.
    fn hops(
        &self,
        nodes: &BTreeMap<NodeKey, NodeEntry>,
    ) -> Result<BTreeMap<u32, HopEntry>, DatapathError> {
        nodes.values().map(|node| Ok((node.hop, self.hops.get(node.hop)?))).collect()
    }

    /// Makes the changes in their order. Changes of one kind that follow each other go to the kernel together.
    pub(super) fn write(&self, changes: &[TableChange]) -> Result<(), DatapathError> {
        let is_alike = |a: &TableChange, b: &TableChange| {
            std::mem::discriminant(a) == std::mem::discriminant(b)
        };
        changes.chunk_by(is_alike).try_for_each(|alike| self.write_alike(alike))
    }
}
