//! A node's own view of itself.

use super::{NONE, View, columns, fields, node::role_name, non_empty, or_dash, or_none};
use crate::proto::v1;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Status {
    cluster: String,
    node: String,
    node_id: u64,
    /// voter, agent, leader
    role: &'static str,
    /// None = none known.
    leader: Option<String>,
    term: u64,
    revision: u64,
    programmed_revision: u64,
    version: String,
    /// None = not started.
    datapath: Option<Datapath>,
}

#[derive(Debug, Serialize)]
struct Datapath {
    /// tcx, clsact
    hook: String,
    underlay: String,
    underlay_mtu: u32,
    vtep: String,
    vxlan_port: u32,
    gro_device: Option<String>,
    /// native, generic, off
    xdp: String,
    /// Why it is not native; None where it is.
    xdp_reason: Option<String>,
    bpffs: String,
    maps: Vec<Map>,
    counters: Vec<Counter>,
    /// What keeps the kernel from the desired state.
    error: Option<String>,
    endpoint_mtu: u32,
    unresolved_next_hops: Vec<String>,
    fallbacks: Vec<String>,
    /// None = a node of a version without one.
    gateway: Option<Gateway>,
}

#[derive(Debug, Serialize)]
struct Gateway {
    bridge: String,
    subnet: String,
    published_ports: u32,
    /// Devices whose IPv4 forwarding the node switched on.
    forwarding_devices: Vec<String>,
    /// Namespaces in which names resolve.
    resolvers: u32,
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
            datapath,
        } = status;
        Self {
            cluster,
            node,
            node_id,
            role: role_name(role),
            leader: non_empty(leader),
            term,
            revision,
            programmed_revision,
            version,
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
        } = datapath;
        Self {
            hook,
            underlay,
            underlay_mtu,
            vtep,
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
            unresolved_next_hops,
            fallbacks,
            gateway: gateway.map(Into::into),
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

impl View for Status {
    fn text(&self) -> String {
        let node = fields([
            ("node", format!("{} (id {})", self.node, self.node_id)),
            ("cluster", self.cluster.clone()),
            ("role", self.role.to_owned()),
            ("leader", or_dash(self.leader.as_ref())),
            ("term", self.term.to_string()),
            ("revision", self.revision.to_string()),
            ("programmed", self.programmed_revision.to_string()),
            ("version", self.version.clone()),
            (
                "data plane",
                self.datapath.as_ref().map_or("not started", Datapath::health).to_owned(),
            ),
        ]);
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

    fn text(&self) -> String {
        let slow: Vec<&str> =
            self.unresolved_next_hops.iter().chain(&self.fallbacks).map(String::as_str).collect();
        let slow = if slow.is_empty() { NONE.to_owned() } else { slow.join(", ") };
        let mut parts = vec![fields([
            ("hook", self.hook.clone()),
            ("underlay", format!("{} (MTU {})", self.underlay, self.underlay_mtu)),
            ("VTEP", format!("{}, UDP port {}", self.vtep, self.vxlan_port)),
            ("endpoint MTU", self.endpoint_mtu.to_string()),
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
        if !self.maps.is_empty() {
            parts.push(columns(
                ["MAP", "ENTRIES", "CAPACITY"],
                self.maps.iter().map(|map| {
                    [map.name.clone(), map.entries.to_string(), map.capacity.to_string()]
                }),
            ));
        }
        // Most reasons never happen: people see those that did, programs see all.
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
