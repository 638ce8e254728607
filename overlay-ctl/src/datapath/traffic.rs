//! TRAFFIC: what each slot's endpoint sent and received, CPU by CPU.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use aya::{
    Ebpf,
    maps::{Map, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use overlay_common::{MAP_TRAFFIC, Traffic};

use super::{DatapathError, batch};

/// Fewer slots are read one by one.
const FEW: usize = 64;

/// The map. It is read as a whole in a few calls: one for each of its slots would be thousands.
pub(super) struct TrafficMap {
    map: Map,
    /// CPUs that are possible: each has its own value of a slot.
    cpus: usize,
}

impl TrafficMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let map = ebpf.take_map(MAP_TRAFFIC).ok_or(DatapathError::Incomplete(MAP_TRAFFIC))?;
        let failed = DatapathError::table(MAP_TRAFFIC, "opened");
        let cpus = nr_cpus().map_err(|(_, error)| failed(MapError::IoError(error)))?;
        // The batches rely on the sizes: aya checks them.
        PerCpuArray::<_, Traffic>::try_from(&map).map_err(failed)?;
        Ok(Self { map, cpus })
    }

    /// Each slot's values, one for each CPU, slot by slot.
    pub(super) fn read(&self) -> Result<Vec<Traffic>, DatapathError> {
        let Map::PerCpuArray(data) = &self.map else {
            return Err(DatapathError::Incomplete(MAP_TRAFFIC));
        };
        batch::read_per_cpu(data.fd().as_fd(), self.cpus).map_err(|errno| {
            let error = batch::map_error("bpf_map_lookup_batch")(errno);
            DatapathError::table(MAP_TRAFFIC, "read")(error)
        })
    }

    /// Empties these slots; returns what was in those that had anything.
    pub(super) fn take_out(
        &mut self,
        slots: &BTreeSet<u32>,
    ) -> Result<Vec<Vec<Traffic>>, DatapathError> {
        let written = DatapathError::table(MAP_TRAFFIC, "written");
        let counted = if slots.len() < FEW {
            self.read_some(slots)?
        } else {
            let all = self.read()?;
            let of_slot = |&slot: &u32| {
                let start = slot as usize * self.cpus;
                Some((slot, all.get(start..start + self.cpus)?.to_vec()))
            };
            slots.iter().filter_map(of_slot).collect()
        };
        let mut typed = PerCpuArray::<_, Traffic>::try_from(&mut self.map).map_err(written)?;
        let mut taken = Vec::new();
        for (slot, counted) in counted {
            if counted.iter().all(|cpu| *cpu == Traffic::default()) {
                continue;
            }
            let empty = PerCpuValues::try_from(vec![Traffic::default(); self.cpus])
                .map_err(|error| written(MapError::IoError(error)))?;
            typed.set(slot, empty, 0).map_err(written)?;
            taken.push(counted);
        }
        Ok(taken)
    }

    fn read_some(&self, slots: &BTreeSet<u32>) -> Result<Vec<(u32, Vec<Traffic>)>, DatapathError> {
        let failed = DatapathError::table(MAP_TRAFFIC, "read");
        let typed = PerCpuArray::<_, Traffic>::try_from(&self.map).map_err(failed)?;
        let read = |&slot| Ok((slot, typed.get(&slot, 0).map_err(failed)?.to_vec()));
        slots.iter().map(read).collect()
    }
}
