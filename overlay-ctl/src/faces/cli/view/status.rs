//! The printed form of a node's status.

mod program;

use super::{View, columns, fields, node::role_name, non_empty, or_dash, or_none};
use crate::proto::v1;
use program::Program;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Status {
    cluster: String,
    node: String,
    node_id: u64,
    /// Each restore or forced recovery of the cluster adds 1.
    generation: u64,
    /// voter, agent, leader
    role: &'static str,
    /// None = no leader is known.
    leader: Option<String>,
    term: u64,
    revision: u64,
    programmed_revision: u64,
    version: String,
    /// What the cluster's log and state may hold; None = not known.
    cluster_version: Option<u32>,
    /// The oldest and the newest version of the cluster that the node's program speaks.
    oldest_version: u32,
    newest_version: u32,
    /// Of the leader: the nodes that keep the cluster at its version.
    version_waits_for: Vec<String>,
    /// Address where metrics are served; None = they are not served.
    metrics: Option<String>,
    /// On the node's own host; None = the node's version does not say it.
    state_dir: Option<String>,
    /// What must be seen to, though the node goes on.
    alarms: Vec<String>,
    /// Why the node is not ready, as it says itself; empty = it is.
    pub(in super::super) troubles: Vec<String>,
    /// None = not started.
    datapath: Option<Datapath>,
}

#[derive(Debug, Serialize)]
struct Datapath {
    /// tcx, clsact
    hook: String,
    underlay: String,
    underlay_mtu: u32,
    /// The source of the MTU.
    underlay_mtu_source: String,
    vtep: String,
    /// The address to which others send; None = vtep.
    advertised_vtep: Option<String>,
    vxlan_port: u32,
    gro_device: Option<String>,
    /// native, generic, off
    xdp: String,
    /// The reason why it is not native; None = it is.
    xdp_reason: Option<String>,
    bpffs: String,
    maps: Vec<Map>,
    counters: Vec<Counter>,
    /// The reason why the kernel does not have the desired state.
    error: Option<String>,
    endpoint_mtu: u32,
    /// None = the node's version does not change them.
    super_packets: Option<SuperPackets>,
    unresolved_next_hops: Vec<String>,
    fallbacks: Vec<String>,
    /// None = the node's version has no gateway.
    gateway: Option<Gateway>,
    programs: Vec<Program>,
    /// The kernel's release; None = the node's version does not report it.
    kernel: Option<String>,
    /// The kernel counts the programs' run time.
    run_time_counted: bool,
}

#[derive(Debug, Serialize)]
struct Gateway {
    bridge: String,
    subnet: String,
    published_ports: u32,
    /// Devices whose IPv4 forwarding the node switched on.
    forwarding_devices: Vec<String>,
    /// Number of namespaces in which names are resolved.
    resolvers: u32,
}

/// The greatest sizes of super-packets, in bytes.
#[derive(Debug, Serialize)]
struct SuperPackets {
    ipv4: u32,
    ipv6: u32,
    /// The reason why they are not above 64 KiB; None = they are.
    reason: Option<String>,
}

impl SuperPackets {
    fn text(&self) -> String {
        let Self { ipv4, ipv6, reason } = self;
        match reason {
            Some(reason) => format!("{ipv4} bytes: {reason}"),
            None => format!("IPv4 {ipv4} bytes, IPv6 {ipv6}"),
        }
    }
}

#[derive(Debug, Serialize)]
struct Map {
    name: String,
    entries: u64,
    capacity: u64,
}

#[derive(Debug, Serialize)]
struct Counter {
    /// forwarded, or a drop reason
    reason: String,
    direction: String,
    packets: u64,
    bytes: u64,
}

impl From<v1::StatusResponse> for Status {
    fn from(status: v1::StatusResponse) -> Self {
        let v1::StatusResponse {
            cluster,
            node,
            node_id,
            role,
            leader,
            term,
            revision,
            programmed_revision,
            version,
            metrics,
            datapath,
            cluster_version,
            oldest_version,
            newest_version,
            version_waits_for,
            alarms,
            troubles,
            state_dir,
            generation,
            incarnation: _,
        } = status;
        Self {
            cluster,
            node,
            node_id,
            // A program that says none knows no later one.
            generation: generation.max(1),
            role: role_name(role),
            leader: non_empty(leader),
            term,
            revision,
            programmed_revision,
            version,
            cluster_version: Some(cluster_version).filter(|version| *version != 0),
            // As with the generation.
            oldest_version: oldest_version.max(1),
            newest_version: newest_version.max(1),
            version_waits_for,
            metrics: non_empty(metrics),
            state_dir: non_empty(state_dir),
            alarms,
            troubles,
            datapath: datapath.map(Into::into),
        }
    }
}

impl From<v1::DatapathStatus> for Datapath {
    fn from(datapath: v1::DatapathStatus) -> Self {
        let v1::DatapathStatus {
            hook,
            underlay,
            underlay_mtu,
            vtep,
            vxlan_port,
            gro_device,
            bpffs,
            maps,
            counters,
            error,
            endpoint_mtu,
            unresolved_next_hops,
            fallbacks,
            gateway,
            xdp,
            xdp_reason,
            programs,
            kernel,
            run_time_counted,
            underlay_mtu_source,
            super_packets,
            advertised_vtep,
        } = datapath;
        Self {
            hook,
            underlay,
            underlay_mtu,
            underlay_mtu_source,
            vtep,
            advertised_vtep: non_empty(advertised_vtep),
            vxlan_port,
            gro_device: non_empty(gro_device),
            xdp,
            xdp_reason: non_empty(xdp_reason),
            bpffs,
            maps: maps
                .into_iter()
                .map(|v1::MapUsage { name, entries, capacity }| Map { name, entries, capacity })
                .collect(),
            counters: counters
                .into_iter()
                .map(|v1::Counter { reason, direction, packets, bytes }| Counter {
                    reason,
                    direction,
                    packets,
                    bytes,
                })
                .collect(),
            error: non_empty(error),
            endpoint_mtu,
            super_packets: super_packets.map(|v1::SuperPacketStatus { ipv4, ipv6, reason }| {
                SuperPackets { ipv4, ipv6, reason: non_empty(reason) }
            }),
            unresolved_next_hops,
            fallbacks,
            gateway: gateway.map(Into::into),
            programs: programs.into_iter().map(Into::into).collect(),
            kernel: non_empty(kernel),
            run_time_counted,
        }
    }
}

impl From<v1::GatewayStatus> for Gateway {
    fn from(gateway: v1::GatewayStatus) -> Self {
        let v1::GatewayStatus { bridge, subnet, published_ports, forwarding_devices, resolvers } =
            gateway;
        Self { bridge, subnet, published_ports, forwarding_devices, resolvers }
    }
}

impl Status {
    /// The cluster's id, and its generation if it was ever restored or recovered.
    fn cluster(&self) -> String {
        match self.generation {
            1 => self.cluster.clone(),
            generation => format!("{}, generation {generation}", self.cluster),
        }
    }

    /// The versions of the node's program and of the cluster, and what keeps the cluster's from being raised.
    fn version(&self) -> String {
        let Self { version, oldest_version, newest_version, version_waits_for, .. } = self;
        let Some(cluster) = self.cluster_version else { return version.clone() };
        let waits = match &version_waits_for[..] {
            [] => String::new(),
            nodes => format!(", waits for {}", nodes.join(", ")),
        };
        format!(
            "{version}, cluster version {cluster} (speaks {oldest_version} to {newest_version}){waits}"
        )
    }
}

impl View for Status {
    fn text(&self) -> String {
        let mut node = fields([
            ("node", format!("{} (id {})", self.node, self.node_id)),
            ("cluster", self.cluster()),
            ("role", self.role.to_owned()),
            ("leader", or_dash(self.leader.as_ref())),
            ("term", self.term.to_string()),
            ("revision", self.revision.to_string()),
            ("programmed", self.programmed_revision.to_string()),
            ("version", self.version()),
            ("metrics", self.metrics.clone().unwrap_or_else(|| "off".to_owned())),
            (
                "data plane",
                self.datapath.as_ref().map_or("not started", Datapath::health).to_owned(),
            ),
        ]);
        for alarm in &self.alarms {
            node += &format!("\nalarm        {alarm}");
        }
        match &self.datapath {
            Some(datapath) => format!("{node}\n\n{}", datapath.text()),
            None => node,
        }
    }
}

impl Datapath {
    fn health(&self) -> &str {
        self.error.as_deref().unwrap_or("in sync")
    }

    fn guard(&self) -> String {
        match &self.xdp_reason {
            Some(reason) => format!("{} ({reason})", self.xdp),
            None => self.xdp.clone(),
        }
    }

    fn vtep(&self) -> String {
        let told = self.advertised_vtep.as_ref().map(|told| format!(" (others send to {told})"));
        self.vtep.clone() + &told.unwrap_or_default()
    }

    /// Everything that is done in a slower way, or not by this version's programs.
    fn slow(&self) -> String {
        let mut slow: Vec<String> =
            self.unresolved_next_hops.iter().chain(&self.fallbacks).cloned().collect();
        for program in &self.programs {
            if !program.jited {
                slow.push(format!("{} is interpreted (net.core.bpf_jit_enable)", program.name));
            }
            for device in &program.other_devices {
                slow.push(format!("another program runs on {device} than this {}", program.name));
            }
        }
        or_none(&slow)
    }

    fn text(&self) -> String {
        let slow = self.slow();
        let mut parts = vec![fields([
            ("kernel", or_dash(self.kernel.as_ref())),
            ("hook", self.hook.clone()),
            (
                "underlay",
                format!(
                    "{} (MTU {}, {})",
                    self.underlay, self.underlay_mtu, self.underlay_mtu_source
                ),
            ),
            ("VTEP", format!("{}, UDP port {}", self.vtep(), self.vxlan_port)),
            ("endpoint MTU", self.endpoint_mtu.to_string()),
            (
                "super-packets",
                or_dash(self.super_packets.as_ref().map(SuperPackets::text).as_ref()),
            ),
            ("GRO device", or_dash(self.gro_device.as_ref())),
            ("XDP guard", self.guard()),
            ("bpffs", self.bpffs.clone()),
            ("on the slow path", slow),
        ])];
        if let Some(gateway) = &self.gateway {
            parts.push(fields([
                ("gateway bridge", format!("{}, {}", gateway.bridge, gateway.subnet)),
                ("published ports", gateway.published_ports.to_string()),
                ("forwarding opened on", or_none(&gateway.forwarding_devices)),
                ("resolvers", gateway.resolvers.to_string()),
            ]));
        }
        if !self.programs.is_empty() {
            parts.push(columns(
                ["PROGRAM", "ID", "TAG", "VERIFIED", "RUNS", "NS A RUN", "DEVICES"],
                self.programs.iter().map(|program| program.row(self.run_time_counted)),
            ));
        }
        if !self.maps.is_empty() {
            parts.push(columns(
                ["MAP", "ENTRIES", "CAPACITY"],
                self.maps.iter().map(|map| {
                    [map.name.clone(), map.entries.to_string(), map.capacity.to_string()]
                }),
            ));
        }
        // Most reasons never occur: the text shows those that did, the JSON shows all.
        let counted: Vec<_> = self.counters.iter().filter(|c| c.packets > 0).collect();
        if !counted.is_empty() {
            parts.push(columns(
                ["COUNTER", "DIRECTION", "PACKETS", "BYTES"],
                counted.into_iter().map(|counter| {
                    [
                        counter.reason.clone(),
                        counter.direction.clone(),
                        counter.packets.to_string(),
                        counter.bytes.to_string(),
                    ]
                }),
            ));
        }
        parts.join("\n\n")
    }
}
