//! The values that one scrape reads, and their encoding for Prometheus.

use super::{
    alarms::AlarmReadings,
    raft::RaftReadings,
    traffic::{FormerEndpoints, TrafficReadings},
};
use crate::{
    dataplane::datapath::{DatapathError, MapUsage, ProgramStatus, run_time_is_counted},
    faces::{ServedDataPlane, ServedNode},
    model::Revision,
};
use overlay_common::{Counter, Direction, DropReason};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use std::fmt;

/// The values of one scrape.
#[derive(Debug)]
pub(super) struct Readings {
    counters: Vec<(Option<DropReason>, Direction, Counter)>,
    maps: Vec<MapUsage>,
    revision: Revision,
    programmed: Revision,
    /// What reached the VXLAN port of the host's own stack.
    unseen: Counter,
    is_leader: bool,
    alarms: AlarmReadings,
    /// `None` on an agent.
    raft: Option<RaftReadings>,
    endpoints: EndpointCounts,
    traffic: TrafficReadings,
    /// The fates of questions for names.
    questions: Vec<(&'static str, u64)>,
    /// Empty if the kernel has never counted run time.
    programs: Vec<ProgramStatus>,
}

/// What only a data plane has. Without one there is nothing of it, and the rest is scraped all the same.
#[derive(Debug, Default)]
struct DataPlaneReadings {
    counters: Vec<(Option<DropReason>, Direction, Counter)>,
    maps: Vec<MapUsage>,
    programs: Vec<ProgramStatus>,
    questions: Vec<(&'static str, u64)>,
}

impl DataPlaneReadings {
    fn take(plane: &ServedDataPlane) -> Result<Self, DatapathError> {
        let datapath = plane.datapath.lock();
        let (counters, reader) = (datapath.counters()?, datapath.reader());
        let programs = datapath.programs()?;
        drop(datapath);
        Ok(Self { counters, maps: reader.usage()?, programs, questions: plane.questions.read() })
    }
}

/// This node's endpoints.
#[derive(Debug, Default)]
struct EndpointCounts {
    up: u64,
    down: u64,
    /// Endpoints that the reconciler has not reported yet.
    pending: u64,
}

impl Readings {
    /// `free` is what the disk of the state folder says.
    pub(super) fn take(
        node: &ServedNode,
        former: &mut FormerEndpoints,
        free: Option<u64>,
    ) -> Result<Self, DatapathError> {
        let plane = node.data_plane.get();
        let DataPlaneReadings { counters, maps, mut programs, questions } =
            plane.map(DataPlaneReadings::take).transpose()?.unwrap_or_default();
        if !run_time_is_counted().unwrap_or(false) {
            // The numbers from before the kernel stopped counting stay valid.
            programs.retain(|program| program.run_count > 0);
        }
        let view = node.view.borrow().clone();
        let status = node.status.borrow().clone();
        let mut endpoints = EndpointCounts::default();
        let all = view.iter().flat_map(|view| view.all_endpoints());
        for endpoint in all.filter(|endpoint| endpoint.node() == Some(node.controller.id())) {
            match status.endpoints.get(&endpoint.id) {
                None => endpoints.pending += 1,
                Some(health) if health.down.is_none() => endpoints.up += 1,
                Some(_) => endpoints.down += 1,
            }
        }
        Ok(Self {
            counters,
            maps,
            revision: view.map_or(0, |view| view.revision),
            programmed: status.programmed,
            unseen: status.unseen,
            is_leader: node.controller.is_leader(),
            alarms: AlarmReadings::take(node, free),
            raft: RaftReadings::take(node),
            endpoints,
            traffic: TrafficReadings::take(node, former),
            questions,
            programs,
        })
    }

    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&Counter) -> u64,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, direction, counter) in &self.counters {
            let (verdict, reason) = match reason {
                None => (DropReason::name_of(None), ""),
                Some(reason) => ("dropped", reason.name()),
            };
            let labels =
                [("direction", direction.name()), ("verdict", verdict), ("reason", reason)];
            ConstCounter::new(value(counter)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn programs(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        if self.programs.is_empty() {
            return Ok(());
        }
        let while_counted = "while the kernel counted (kernel.bpf_stats_enabled)";
        let help = format!("Runs of a BPF program {while_counted}");
        let mut family =
            encoder.encode_descriptor("overlay_program_runs", &help, None, MetricType::Counter)?;
        for program in &self.programs {
            let labels = [("program", program.name)];
            ConstCounter::new(program.run_count).encode(family.encode_family(&labels)?)?;
        }
        let help = format!("Seconds that a BPF program ran {while_counted}");
        let name = "overlay_program_run_seconds";
        let mut family = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
        for program in &self.programs {
            let labels = [("program", program.name)];
            let seconds = ConstCounter::new(program.run_time.as_secs_f64());
            seconds.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn maps(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        value: impl Fn(&MapUsage) -> u32,
    ) -> fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for map in &self.maps {
            let labels = [("map", map.name)];
            ConstGauge::new(value(map)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let counted = "since the maps were made, by direction, verdict and reason of the drop";
        let packets = format!("Packets {counted}");
        self.counter(encoder, "overlay_packets", &packets, |counter| counter.packets)?;
        let bytes = format!("Bytes {counted}");
        self.counter(encoder, "overlay_bytes", &bytes, |counter| counter.bytes)?;
        for (name, help, value) in [
            ("overlay_unseen_vxlan_packets", "Packets", self.unseen.packets),
            ("overlay_unseen_vxlan_bytes", "Bytes", self.unseen.bytes),
        ] {
            let help = format!("{help} to the VXLAN port that reached the host's own stack");
            let counter = encoder.encode_descriptor(name, &help, None, MetricType::Counter)?;
            ConstCounter::new(value).encode(counter)?;
        }
        let entries = "Entries in a BPF map";
        self.maps(encoder, "overlay_map_entries", entries, |map| map.entries)?;
        let capacity = "Entries that fit into a BPF map";
        self.maps(encoder, "overlay_map_capacity", capacity, |map| map.capacity)?;

        self.alarms.encode(encoder)?;
        if let Some(raft) = &self.raft {
            raft.encode(encoder)?;
        }
        self.traffic.encode(encoder)?;
        let help = "Questions that endpoints asked their DNS resolvers, by what became of them";
        let mut family =
            encoder.encode_descriptor("overlay_dns_queries", help, None, MetricType::Counter)?;
        for (outcome, count) in &self.questions {
            let labels = [("outcome", *outcome)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        self.programs(encoder)?;
        let mut build = encoder.encode_descriptor(
            "overlay_build",
            "The version that runs",
            None,
            MetricType::Gauge,
        )?;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauge(1, build.encode_family(&version)?)?;

        let single = [
            ("overlay_revision", "Revision of the state that the node knows", self.revision),
            ("overlay_programmed_revision", "Revision that the kernel holds", self.programmed),
            (
                "overlay_endpoints_uncounted",
                "Endpoints on this node that have no counters of their own",
                self.traffic.uncounted,
            ),
            ("overlay_is_leader", "1 on the node that leads the voters", self.is_leader.into()),
        ];
        for (name, help, value) in single {
            gauge(value, encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let EndpointCounts { up, down, pending } = self.endpoints;
        let help = "Endpoints on this node, by state";
        let mut family =
            encoder.encode_descriptor("overlay_endpoints", help, None, MetricType::Gauge)?;
        for (state, count) in [("up", up), ("down", down), ("pending", pending)] {
            gauge(count, family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

fn gauge(value: u64, encoder: MetricEncoder<'_>) -> fmt::Result {
    ConstGauge::new(value).encode(encoder)
}
