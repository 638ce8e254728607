//! Typed views of all maps, and the counters in them.

use std::collections::BTreeSet;

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues},
};
use overlay_common::{Config, Counter, Direction, DropReason, FORWARDED, map, metric_index};

use super::{DatapathError, tables::HashTables, traffic::TrafficMap};

/// Views of all maps but EVENTS, which its reader opens.
pub(super) struct Maps {
    pub(super) tables: HashTables,
    traffic: TrafficMap,
    config: Array<MapData, Config>,
    metrics: PerCpuArray<MapData, Counter>,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let incomplete = |name| DatapathError::Incomplete(name);
        let config = ebpf.take_map(map::CONFIG::NAME).ok_or(incomplete(map::CONFIG::NAME))?;
        let metrics = ebpf.take_map(map::METRICS::NAME).ok_or(incomplete(map::METRICS::NAME))?;
        Ok(Self {
            tables: HashTables::take(ebpf)?,
            traffic: TrafficMap::take(ebpf)?,
            config: Array::try_from(config)
                .map_err(DatapathError::table(map::CONFIG::NAME, "opened"))?,
            metrics: PerCpuArray::try_from(metrics)
                .map_err(DatapathError::table(map::METRICS::NAME, "opened"))?,
        })
    }

    /// The configuration in the map: all zeros in a new one.
    pub(super) fn config(&self) -> Result<Config, DatapathError> {
        self.config.get(&0, 0).map_err(DatapathError::table(map::CONFIG::NAME, "read"))
    }

    pub(super) fn set_config(&mut self, config: &Config) -> Result<(), DatapathError> {
        self.config.set(0, config, 0).map_err(DatapathError::table(map::CONFIG::NAME, "written"))
    }

    /// Adds what these slots of TRAFFIC counted to METRICS, CPU by CPU, and empties them. No program counts there
    /// at the same time: on a network none counts in that element of METRICS, and no port has such a slot.
    pub(super) fn free_slots(&mut self, slots: &BTreeSet<u32>) -> Result<(), DatapathError> {
        for counted in self.traffic.take_out(slots)? {
            self.add_forwarded(Direction::FromEndpoint, counted.iter().map(|cpu| cpu.sent))?;
            self.add_forwarded(Direction::FromUnderlay, counted.iter().map(|cpu| cpu.received))?;
        }
        Ok(())
    }

    fn add_forwarded(
        &mut self,
        direction: Direction,
        counted: impl Iterator<Item = Counter>,
    ) -> Result<(), DatapathError> {
        let failed = DatapathError::table(map::METRICS::NAME, "written");
        let index = metric_index(FORWARDED, direction);
        let before = self.metrics.get(&index, 0).map_err(failed)?;
        let sums: Vec<Counter> = before.iter().zip(counted).map(|(a, b)| add(*a, &b)).collect();
        let sums =
            PerCpuValues::try_from(sums).map_err(|error| failed(MapError::IoError(error)))?;
        self.metrics.set(index, sums, 0).map_err(failed)
    }

    /// All counters, summed over the CPUs, in the order of the reasons' numbers; `None` counts forwarded packets.
    pub(super) fn counters(
        &self,
    ) -> Result<Vec<(Option<DropReason>, Direction, Counter)>, DatapathError> {
        let reasons = std::iter::once(None).chain(DropReason::ALL.iter().copied().map(Some));
        let mut counters = Vec::new();
        let (mut sent, mut received) = (Counter::default(), Counter::default());
        self.traffic.for_each(|_, cpus| {
            sent = cpus.iter().fold(sent, |sum, cpu| add(sum, &cpu.sent));
            received = cpus.iter().fold(received, |sum, cpu| add(sum, &cpu.received));
        })?;
        for reason in reasons {
            for direction in Direction::ALL {
                let index =
                    metric_index(reason.map_or(FORWARDED, |reason| reason as u32), direction);
                let cpus = self
                    .metrics
                    .get(&index, 0)
                    .map_err(DatapathError::table(map::METRICS::NAME, "read"))?;
                let mut sum = cpus.iter().fold(Counter::default(), add);
                match (reason, direction) {
                    (None, Direction::FromEndpoint) => sum = add(sum, &sent),
                    (None, Direction::FromUnderlay) => sum = add(sum, &received),
                    _ => {}
                }
                counters.push((reason, direction, sum));
            }
        }
        Ok(counters)
    }
}

fn add(sum: Counter, more: &Counter) -> Counter {
    Counter {
        packets: sum.packets.wrapping_add(more.packets),
        bytes: sum.bytes.wrapping_add(more.bytes),
    }
}
