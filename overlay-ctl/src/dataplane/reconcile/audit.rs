//! Reads the large tables on and on, a part at each look at the kernel, and puts right what is not as
//! the view has it.
//!
//! A part is as large as most clusters are whole, and takes some milliseconds; a million endpoints take
//! some minutes. In one round every entry of the kernel is held against the view, and every endpoint of
//! the view against the kernel: what a full reading would find is found, without ever holding up for a
//! second what changes meanwhile.

use super::{LocalNode, desired, kept::Kept};
use crate::{
    dataplane::kernel::{Kernel, KernelError, TableChange},
    model::{Endpoint, EndpointId, Network, NetworkId},
};
use overlay_common::{FdbEntry, FdbKey, NeighEntry, NeighKey};
use std::collections::BTreeMap;

/// Entries of each table, and endpoints, that one look takes.
const PART: usize = 1 << 14;

/// How far the round is.
pub(super) struct Audit<C> {
    fdb: Option<C>,
    neigh: Option<C>,
    /// The last endpoint that was looked at.
    endpoint: (NetworkId, EndpointId),
    part: usize,
}

impl<C> Default for Audit<C> {
    fn default() -> Self {
        Self::with_part(PART)
    }
}

impl<C> Audit<C> {
    /// At the beginning of a round in such parts.
    pub(super) fn with_part(part: usize) -> Self {
        Self { fdb: None, neigh: None, endpoint: (0, 0), part }
    }
}

/// What is wrong with the kernel's entries.
#[derive(Default)]
struct Wrong {
    puts: Vec<TableChange>,
    deletes: Vec<TableChange>,
}

impl<C: Copy + Send> Audit<C> {
    /// Looks at the next part. What it returns puts it right, in that order.
    pub(super) async fn next(
        &mut self,
        kernel: &mut impl Kernel<Cursor = C>,
        kept: &Kept,
        local: &LocalNode,
    ) -> Result<Vec<TableChange>, KernelError> {
        let truth = Truth::new(kept, local);
        let (mut fdb, mut neigh) = (Wrong::default(), Wrong::default());

        let mut seen = 0;
        while seen < self.part {
            let entries;
            (entries, self.fdb) = kernel.fdb_behind(self.fdb).await?;
            seen += entries.len();
            for (key, entry) in entries {
                match truth.fdb(key, &entry) {
                    Some(right) if right == entry => {}
                    Some(right) => fdb.puts.push(TableChange::PutFdb(key, right)),
                    None => fdb.deletes.push(TableChange::DeleteFdb(key)),
                }
            }
            if self.fdb.is_none() {
                break;
            }
        }
        let mut seen = 0;
        while seen < self.part {
            let entries;
            (entries, self.neigh) = kernel.neigh_behind(self.neigh).await?;
            seen += entries.len();
            for (key, entry) in entries {
                match truth.neigh(key, entry) {
                    Some(right) if right == entry => {}
                    Some(right) => neigh.puts.push(TableChange::PutNeigh(key, right)),
                    None => neigh.deletes.push(TableChange::DeleteNeigh(key)),
                }
            }
            if self.neigh.is_none() {
                break;
            }
        }

        let (wanted_fdb, wanted_neigh): (Vec<_>, Vec<_>) =
            self.next_endpoints(kept).filter_map(|endpoint| truth.entries(endpoint)).unzip();
        let held = kernel.fdb(wanted_fdb.iter().map(|(key, _)| *key).collect()).await?;
        for ((key, entry), held) in wanted_fdb.into_iter().zip(held) {
            if held != Some(entry) {
                fdb.puts.push(TableChange::PutFdb(key, entry));
            }
        }
        let held = kernel.neigh(wanted_neigh.iter().map(|(key, _)| *key).collect()).await?;
        for ((key, entry), held) in wanted_neigh.into_iter().zip(held) {
            if held != Some(entry) {
                neigh.puts.push(TableChange::PutNeigh(key, entry));
            }
        }
        Ok([fdb.puts, neigh.puts, neigh.deletes, fdb.deletes].concat())
    }

    /// The endpoints whose turn it is, beginning anew after the last one.
    fn next_endpoints<'a>(
        &mut self,
        kept: &'a Kept,
    ) -> impl Iterator<Item = &'a Endpoint> + use<'a, C> {
        let (network, after) = self.endpoint;
        let of_first = kept.view.endpoints.get(&network);
        let of_first = of_first.into_iter().flat_map(move |all| all.range(after + 1..));
        let of_others = kept.view.endpoints.range(network + 1..).flat_map(|(_, all)| all.iter());
        let part: Vec<&Endpoint> =
            of_first.chain(of_others).map(|(_, endpoint)| &**endpoint).take(self.part).collect();
        let last = part.last().filter(|_| part.len() == self.part);
        self.endpoint = last.map_or((0, 0), |last| (last.network, last.id));
        part.into_iter()
    }
}

/// What the entries must be.
struct Truth<'a> {
    kept: &'a Kept,
    local: &'a LocalNode,
    networks: BTreeMap<u32, &'a Network>,
}

type Entries = ((FdbKey, FdbEntry), (NeighKey, NeighEntry));

impl<'a> Truth<'a> {
    fn new(kept: &'a Kept, local: &'a LocalNode) -> Self {
        let networks = kept.view.networks.values().map(|network| (network.vni.get(), &**network));
        Self { kept, local, networks: networks.collect() }
    }

    fn entries(&self, endpoint: &Endpoint) -> Option<Entries> {
        let Kept { view, placement, .. } = self.kept;
        let network = view.networks.get(&endpoint.network)?;
        let (fdb_key, neigh_key) = desired::keys(network, endpoint);
        let (fdb, neigh) = desired::entries(view, self.local, endpoint, placement)?;
        Some(((fdb_key, fdb), (neigh_key, neigh)))
    }

    /// What has to be under `key`: by the endpoint that the `found` entry says it is of, or the one
    /// that is remembered.
    fn fdb(&self, key: FdbKey, found: &FdbEntry) -> Option<FdbEntry> {
        let endpoints = self.kept.view.endpoints.get(&self.networks.get(&key.vni)?.id)?;
        let of = |id: EndpointId| {
            let ((of, entry), _) = self.entries(endpoints.get(&id)?)?;
            (of == key).then_some(entry)
        };
        of(found.endpoint).or_else(|| of(self.kept.tables.fdb.get(&key)?.endpoint))
    }

    /// The same of a neighbour entry, by the FDB entry of the MAC that it says or that is remembered.
    fn neigh(&self, key: NeighKey, found: NeighEntry) -> Option<NeighEntry> {
        let of = |entry: NeighEntry| {
            let fdb_key = FdbKey { vni: key.vni, mac: entry.mac, pad: [0; 2] };
            let held = self.kept.tables.fdb.get(&fdb_key)?;
            let right = NeighEntry { mac: entry.mac, pad: [0; 2] };
            (self.fdb(fdb_key, held)?.ip == key.ip).then_some(right)
        };
        of(found).or_else(|| of(*self.kept.tables.neigh.get(&key)?))
    }
}
