//! The map TRAFFIC: what the endpoint of each slot sent and received, CPU by CPU.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{Map, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use overlay_common::{Traffic, map};

use super::{DatapathError, batch};

/// Fewer slots than these are read one by one.
const FEW: usize = 64;

/// The map. It is read as a whole in a few calls; one call for each slot would be thousands.
pub(super) struct TrafficMap {
    map: Map,
    /// Number of possible CPUs. Each has its own value of a slot.
    cpus: usize,
}

impl TrafficMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let map = ebpf
            .take_map(map::TRAFFIC::NAME)
            .ok_or(DatapathError::Incomplete(map::TRAFFIC::NAME))?;
        let failed = DatapathError::table(map::TRAFFIC::NAME, "opened");
        let cpus = nr_cpus().map_err(|(_, error)| failed(MapError::IoError(error)))?;
        // The batches rely on the sizes: aya checks them.
        PerCpuArray::<_, Traffic>::try_from(&map).map_err(failed)?;
        Ok(Self { map, cpus })
    }

    /// Calls `each` for every slot, with what each CPU counted.
    pub(super) fn for_each(&self, each: impl FnMut(u32, &[Traffic])) -> Result<(), DatapathError> {
        let Map::PerCpuArray(data) = &self.map else {
            return Err(DatapathError::Incomplete(map::TRAFFIC::NAME));
        };
        batch::for_each_per_cpu(data.fd().as_fd(), self.cpus, each).map_err(|errno| {
            let error = batch::map_error("bpf_map_lookup_batch")(errno);
            DatapathError::table(map::TRAFFIC::NAME, "read")(error)
        })
    }

    /// Empties these slots. Returns the counts of those that had any.
    pub(super) fn take_out(
        &mut self,
        slots: &BTreeSet<u32>,
    ) -> Result<Vec<Vec<Traffic>>, DatapathError> {
        let written = DatapathError::table(map::TRAFFIC::NAME, "written");
        let mut counted = Vec::new();
        let mut note = |slot, cpus: &[Traffic]| {
            if cpus.iter().any(|cpu| *cpu != Traffic::default()) {
                counted.push((slot, cpus.to_vec()));
            }
        };
        if slots.len() < FEW {
            let failed = DatapathError::table(map::TRAFFIC::NAME, "read");
            let typed = PerCpuArray::<_, Traffic>::try_from(&self.map).map_err(failed)?;
            for &slot in slots {
                note(slot, &typed.get(&slot, 0).map_err(failed)?);
            }
        } else {
            self.for_each(|slot, cpus| {
                if slots.contains(&slot) {
                    note(slot, cpus);
                }
            })?;
        }
        let mut typed = PerCpuArray::<_, Traffic>::try_from(&mut self.map).map_err(written)?;
        for (slot, _) in &counted {
            let empty = PerCpuValues::try_from(vec![Traffic::default(); self.cpus])
                .map_err(|error| written(MapError::IoError(error)))?;
            typed.set(*slot, empty, 0).map_err(written)?;
        }
        Ok(counted.into_iter().map(|(_, cpus)| cpus).collect())
    }
}
