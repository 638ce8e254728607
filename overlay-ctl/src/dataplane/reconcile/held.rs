//! What the reconciler remembers of the kernel from one pass to the next, and what a new view changes in the tables.

use super::{
    LocalNode,
    desired::{self, Placement, Port},
    diff::{Rows, changes},
    sites::Sites,
};
use crate::{
    control::state::{Changed, View},
    dataplane::kernel::{
        DeviceId, DeviceKind, KernelError, Maps, ObservedDevice, TableChange, Tables,
    },
    model::{Endpoint, EndpointId, NodeId, Vtep},
};
use overlay_common::{FdbEntry, NODES_MAX, NodeKey, TRAFFIC_MAX, map};
use std::collections::{BTreeMap, BTreeSet};

/// Changes that are written at once. Others who need the data path wait that long.
const WRITE: usize = 4096;

/// The tables in the kernel, and what they were made of.
pub(super) struct Held {
    /// What the kernel holds, as last read or written.
    pub(super) tables: Tables,
    /// The view that `tables` are of.
    pub(super) view: View,
    /// The sites of the view that was last looked at.
    pub(super) sites: Sites,
    pub(super) placement: Placement,
    /// The tables were read from the kernel; the next sync deletes what the view does not name.
    pub(super) may_hold_stale_entries: bool,
    /// `tables` are what the kernel holds.
    is_certain: bool,
}

impl Held {
    /// Nothing is known of the kernel yet.
    pub(super) fn unknown(local: &LocalNode) -> Self {
        Self { is_certain: false, ..Self::read(Tables::default(), local) }
    }

    /// After the tables were read.
    pub(super) fn read(tables: Tables, local: &LocalNode) -> Self {
        Self {
            tables,
            view: View::default(),
            sites: Sites::new(local.id),
            placement: Placement::default(),
            may_hold_stale_entries: true,
            is_certain: true,
        }
    }

    /// Returns true if the tables are what the kernel holds; otherwise they must be read again.
    pub(super) fn is_certain(&self) -> bool {
        self.is_certain
    }

    /// Notes that the kernel may hold something else.
    pub(super) fn doubt(&mut self) {
        self.is_certain = false;
    }

    /// Takes over all tables but the large ones, as read.
    pub(super) fn replace_small(&mut self, small: Tables) {
        let Tables { fdb, neigh, .. } = std::mem::take(&mut self.tables);
        self.tables = Tables { fdb, neigh, ..small };
    }

    /// Gives each VTEP and each port its index. A VTEP or a port that has an index keeps it. An index is free when no
    /// entry of the kernel names it any more.
    ///
    /// # Errors
    /// There are more VTEPs than indexes; nothing is sent to those without an index.
    pub(super) fn place(
        &mut self,
        view: &View,
        local: &LocalNode,
        devices: &BTreeMap<DeviceId, ObservedDevice>,
    ) -> Result<(), KernelError> {
        let nodes = view.nodes.values().filter(|node| node.id != local.id);
        let vteps: BTreeSet<Vtep> =
            nodes.map(|node| node.vtep).chain(self.sites.externals()).collect();
        let held = |vtep: &Vtep| {
            let key = NodeKey { vtep: vtep.ip16() };
            self.tables.nodes.get(&key).map(|node| node.hop)
        };
        let mut taken: BTreeSet<u32> = self.tables.nodes.values().map(|node| node.hop).collect();
        if self.may_hold_stale_entries {
            // Another program may have deleted the NODES entries of their VTEPs.
            let entries = self.tables.fdb.values().chain(self.tables.bridges.values());
            let remote = entries.filter(|entry| !entry.is_here());
            taken.extend(remote.map(FdbEntry::hop));
        }
        let hops = indexes(vteps.iter().copied(), held, taken, NODES_MAX);

        let ports: BTreeMap<EndpointId, &ObservedDevice> = devices
            .values()
            .filter(|device| device.id.kind == DeviceKind::Port)
            .map(|device| (device.id.number, device))
            .collect();
        let macs: BTreeMap<EndpointId, [u8; 6]> =
            self.sites.here().map(|endpoint| (endpoint.id, endpoint.mac.octets())).collect();
        let held = |endpoint: &EndpointId| {
            let port = self.tables.ports.get(&ports.get(endpoint)?.ifindex)?;
            // Another device may have had this index before.
            (macs.get(endpoint) == Some(&port.mac)).then_some(port.slot)
        };
        let taken = self.tables.ports.values().map(|port| port.slot).collect();
        let slots = indexes(macs.keys().copied(), held, taken, TRAFFIC_MAX);
        let port = |(id, device): (&EndpointId, &&ObservedDevice)| {
            let slot = slots.get(id).copied().unwrap_or(0);
            (*id, Port { ifindex: device.ifindex, queued: device.queued, slot })
        };
        let without = vteps.len() - hops.len();
        self.placement = Placement { hops, ports: ports.iter().map(port).collect() };
        if without > 0 {
            let why = format!(
                "the map {} holds {}, which is what this version can carry on one node: {without} are not reached",
                map::HOPS::NAME,
                NODES_MAX - 1
            );
            return Err(KernelError::new("there are too many VTEPs", why));
        }
        Ok(())
    }

    /// The endpoints that differ between `view` and the tables' view, or whose entries depend on something that
    /// differs: the VTEP of their node, the options of their network. Where `is_whole`, all endpoints of this node are
    /// among them, because their devices may have changed.
    pub(super) fn touched<'a>(
        &self,
        older: &'a View,
        view: &'a View,
        is_whole: bool,
    ) -> Vec<Changed<'a, Endpoint>> {
        let mut touched: Vec<_> = view.changed_endpoints(older).collect();
        let same = |endpoint: &'a Endpoint| Changed { old: Some(endpoint), new: Some(endpoint) };
        for change in view.changed_networks(older) {
            if let (Some(_), Some(network)) = (change.old, change.new) {
                touched.extend(view.endpoints_of(network.id).map(same));
            }
        }
        let moved: BTreeSet<NodeId> = view
            .changed_nodes(older)
            .filter(|change| change.old.map(|node| node.vtep) != change.new.map(|node| node.vtep))
            .filter_map(|change| Some(change.new.or(change.old)?.id))
            .filter(|node| self.sites.has(*node))
            .collect();
        if !moved.is_empty() {
            let is_on =
                |endpoint: &&Endpoint| endpoint.node().is_some_and(|id| moved.contains(&id));
            touched.extend(view.all_endpoints().filter(is_on).map(same));
        }
        if is_whole {
            let here = self.sites.here().filter_map(|endpoint| {
                let endpoints = view.endpoints.get(&endpoint.network)?;
                endpoints.get(&endpoint.id).map(AsRef::as_ref)
            });
            touched.extend(here.map(same));
        }
        touched
    }

    /// What the entries of the touched endpoints must be in `view`.
    pub(super) fn rows(
        &self,
        older: &View,
        view: &View,
        local: &LocalNode,
        touched: &[Changed<'_, Endpoint>],
    ) -> Rows {
        let mut rows = Rows::default();
        if self.may_hold_stale_entries {
            rows.fdb.extend(self.tables.fdb.keys().map(|key| (*key, None)));
            rows.neigh.extend(self.tables.neigh.keys().map(|key| (*key, None)));
        }
        let keys = |view: &View, endpoint: &Endpoint| {
            view.networks.get(&endpoint.network).map(|network| desired::keys(network, endpoint))
        };
        // All removals before any addition: a key may pass from one endpoint to another.
        let old = touched.iter().filter_map(|change| keys(older, change.old?));
        let new = touched.iter().filter_map(|change| keys(view, change.new?));
        for (fdb, neigh) in old.chain(new) {
            rows.fdb.insert(fdb, None);
            rows.neigh.insert(neigh, None);
        }
        for endpoint in touched.iter().filter_map(|change| change.new) {
            if let Some((fdb, neigh)) = keys(view, endpoint)
                && let Some((fdb_entry, neigh_entry)) =
                    desired::entries(view, local, endpoint, &self.placement)
            {
                rows.fdb.insert(fdb, Some(fdb_entry));
                rows.neigh.insert(neigh, Some(neigh_entry));
            }
        }
        rows
    }

    /// Writes the changes to the kernel, and remembers them. After a failure the tables are uncertain.
    pub(super) async fn write(
        &mut self,
        maps: &mut impl Maps,
        changes: &[TableChange],
    ) -> Result<(), KernelError> {
        for some in changes.chunks(WRITE) {
            if let Err(error) = maps.write(some).await {
                self.doubt();
                return Err(error);
            }
            some.iter().for_each(|change| change.apply_to(&mut self.tables));
        }
        Ok(())
    }

    /// The slots that ports have.
    pub(super) fn slots(&self) -> BTreeSet<u32> {
        let slots = self.tables.ports.values().map(|port| port.slot);
        slots.filter(|slot| *slot != 0).collect()
    }

    /// What turns the kernel's tables into those of the rows and, where given, of the small ones.
    pub(super) fn changes(&self, small: Option<&Tables>, rows: &Rows) -> Vec<TableChange> {
        changes(&self.tables, small, rows)
    }
}

/// Gives each of `wanted` an index in 1..max: the index that it has, unless one before it has the same; otherwise the
/// lowest that is not `taken`. Those for which no index is left are missing in the result.
fn indexes<K: Ord + Copy>(
    wanted: impl Iterator<Item = K>,
    held: impl Fn(&K) -> Option<u32>,
    mut taken: BTreeSet<u32>,
    max: u32,
) -> BTreeMap<K, u32> {
    let (mut indexes, mut used, mut without) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
    for key in wanted {
        match held(&key) {
            Some(index) if (1..max).contains(&index) && used.insert(index) => {
                indexes.insert(key, index);
            }
            _ => without.push(key),
        }
    }
    taken.extend(used);
    let mut free = (1..max).filter(|index| !taken.contains(index));
    indexes.extend(without.into_iter().map_while(|key| Some((key, free.next()?))));
    indexes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_stays_and_is_not_given_twice() {
        let held: BTreeMap<char, u32> =
            [('a', 3), ('b', 3), ('c', 0), ('d', 8), ('e', 1), ('f', 99)].into();
        let given = |taken: &[u32], wanted: &str| {
            indexes(
                wanted.chars(),
                |key| held.get(key).copied(),
                taken.iter().copied().collect(),
                8,
            )
        };
        assert_eq!(
            given(&[3], "ab"),
            [('a', 3), ('b', 1)].into(),
            "one that two have is the first's"
        );
        assert_eq!(given(&[], "ce"), [('c', 2), ('e', 1)].into(), "kept before any is given");
        assert_eq!(given(&[1, 2], "df"), [('d', 3), ('f', 4)].into(), "out of bounds is none");
        assert_eq!(given(&[1, 2, 3, 4, 5, 6], "xyz"), [('x', 7)].into(), "there are no more");
    }
}
