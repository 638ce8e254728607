//! Reads the large tables on and on, one part at each look at the kernel, and repairs the entries that differ from the
//! view.
//!
//! Most clusters are smaller than a part, which takes some milliseconds; a million endpoints take some minutes. In one
//! round every entry of the kernel is looked for in the view, and deleted where no endpoint has it; and the entries of
//! every endpoint of the view are compared with the kernel's. So a round finds what a full reading would find, without
//! blocking other changes for a second.

use super::{LocalNode, desired, held::Held};
use crate::{
    dataplane::kernel::{KernelError, Maps, TableChange},
    model::{Endpoint, EndpointId, Network, NetworkId},
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::collections::BTreeMap;

/// The number of entries of each table, and of endpoints, in a part.
const PART: usize = 1 << 14;

/// The progress of a round.
pub(super) struct Audit<C> {
    fdb: Option<C>,
    neigh: Option<C>,
    /// The last endpoint of the part before.
    endpoint: (NetworkId, EndpointId),
    part: usize,
}

impl<C> Default for Audit<C> {
    fn default() -> Self {
        Self::with_part(PART)
    }
}

impl<C> Audit<C> {
    /// The beginning of a round whose parts have this size.
    pub(super) fn with_part(part: usize) -> Self {
        Self { fdb: None, neigh: None, endpoint: (0, 0), part }
    }
}

impl<C: Copy + Send> Audit<C> {
    /// Looks at the next part. Returns the changes that repair it, in order.
    pub(super) async fn next(
        &mut self,
        maps: &mut impl Maps<Cursor = C>,
        held: &Held,
        local: &LocalNode,
    ) -> Result<Vec<TableChange>, KernelError> {
        let truth = Truth::new(held, local);
        let (mut fdb_deletes, mut neigh_deletes) = (Vec::new(), Vec::new());

        let mut seen = 0;
        while seen < self.part {
            let entries;
            (entries, self.fdb) = maps.fdb_behind(self.fdb).await?;
            seen += entries.len();
            let stale = entries.iter().filter(|(key, entry)| truth.fdb(*key, entry).is_none());
            fdb_deletes.extend(stale.map(|(key, _)| TableChange::DeleteFdb(*key)));
            if self.fdb.is_none() {
                break;
            }
        }
        let mut seen = 0;
        while seen < self.part {
            let entries;
            (entries, self.neigh) = maps.neigh_behind(self.neigh).await?;
            seen += entries.len();
            let stale = entries.iter().filter(|(key, entry)| !truth.is_neigh(*key, *entry));
            neigh_deletes.extend(stale.map(|(key, _)| TableChange::DeleteNeigh(*key)));
            if self.neigh.is_none() {
                break;
            }
        }

        let (mut fdb_puts, mut puts) = (Vec::new(), Vec::new());
        let (wanted_fdb, wanted_neigh): (Vec<_>, Vec<_>) =
            self.next_endpoints(held).filter_map(|endpoint| truth.entries(endpoint)).unzip();
        let found = maps.fdb(wanted_fdb.iter().map(|(key, _)| *key).collect()).await?;
        for ((key, entry), found) in wanted_fdb.into_iter().zip(found) {
            if found != Some(entry) {
                fdb_puts.push(TableChange::PutFdb(key, entry));
            }
        }
        let found = maps.neigh(wanted_neigh.iter().map(|(key, _)| *key).collect()).await?;
        for ((key, entry), found) in wanted_neigh.into_iter().zip(found) {
            if found != Some(entry) {
                puts.push(TableChange::PutNeigh(key, entry));
            }
        }
        Ok([puts, fdb_puts, fdb_deletes, neigh_deletes].concat())
    }

    /// The endpoints of the next part. After the last endpoint a new round begins.
    fn next_endpoints<'a>(
        &mut self,
        held: &'a Held,
    ) -> impl Iterator<Item = &'a Endpoint> + use<'a, C> {
        let (network, after) = self.endpoint;
        let of_first = held.view.endpoints.get(&network);
        let of_first = of_first.into_iter().flat_map(move |all| all.range(after + 1..));
        let of_others = held.view.endpoints.range(network + 1..).flat_map(|(_, all)| all.iter());
        let part: Vec<&Endpoint> =
            of_first.chain(of_others).map(|(_, endpoint)| &**endpoint).take(self.part).collect();
        let last = part.last().filter(|_| part.len() == self.part);
        self.endpoint = last.map_or((0, 0), |last| (last.network, last.id));
        part.into_iter()
    }
}

/// The right contents of the entries.
struct Truth<'a> {
    held: &'a Held,
    local: &'a LocalNode,
    networks: BTreeMap<u32, &'a Network>,
}

type Entries = ((FdbKey, FdbEntry), (NeighKey, NeighEntry));

impl<'a> Truth<'a> {
    fn new(held: &'a Held, local: &'a LocalNode) -> Self {
        let networks = held.view.networks.values().map(|network| (network.vni.get(), &**network));
        Self { held, local, networks: networks.collect() }
    }

    fn entries(&self, endpoint: &Endpoint) -> Option<Entries> {
        let Held { view, placement, .. } = self.held;
        let network = view.networks.get(&endpoint.network)?;
        let (fdb_key, neigh_key) = desired::keys(network, endpoint);
        let (fdb, neigh) = desired::entries(view, self.local, endpoint, placement)?;
        Some(((fdb_key, fdb), (neigh_key, neigh)))
    }

    /// The right entry for `key`: that of the endpoint which the `found` entry names, or which the remembered entry
    /// names.
    fn fdb(&self, key: FdbKey, found: &FdbEntry) -> Option<FdbEntry> {
        let endpoints = self.held.view.endpoints.get(&self.networks.get(&key.vni)?.id)?;
        let of = |id: EndpointId| {
            let ((of, entry), _) = self.entries(endpoints.get(&id)?)?;
            (of == key).then_some(entry)
        };
        of(found.endpoint).or_else(|| of(self.held.tables.fdb.get(&key)?.endpoint))
    }

    /// Whether an endpoint has the address of `key`: by the FDB entry of the MAC in the `found` or in the remembered
    /// entry.
    fn is_neigh(&self, key: NeighKey, found: NeighEntry) -> bool {
        let has = |entry: NeighEntry| {
            let fdb_key = FdbKey { vni: key.vni, mac: entry.mac, pad: [0; 2] };
            let remembered = self.held.tables.fdb.get(&fdb_key);
            let right = remembered.and_then(|remembered| self.fdb(fdb_key, remembered));
            right.is_some_and(|right| right.ip == key.ip)
        };
        has(found) || self.held.tables.neigh.get(&key).is_some_and(|entry| has(*entry))
    }
}
