//! The printed form of events: dropped and forwarded packets.

use super::{NONE, View, non_empty, non_zero};
use crate::proto::v1;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Event {
    /// Nanoseconds since the node booted.
    time_ns: u64,
    /// forwarded, or a drop reason
    reason: String,
    direction: String,
    network: Option<String>,
    /// Name of the endpoint that sent it.
    endpoint: Option<String>,
    /// The sender: NAME.NETWORK, an address, a MAC, or a VTEP.
    source: Option<String>,
    /// The receiver, in the same forms.
    destination: Option<String>,
    /// The node on the other side of the underlay.
    node: Option<String>,
    vtep: Option<String>,
    interface: Option<String>,
    /// Bytes of the frame.
    length: u32,
    ethertype: u32,
    /// None = untagged.
    vlan: Option<u32>,
    src_mac: String,
    dst_mac: String,
    src_ip: Option<String>,
    dst_ip: Option<String>,
    /// tcp, udp, sctp, icmp, ipv6-icmp, or the number.
    protocol: Option<String>,
    src_port: Option<u32>,
    dst_port: Option<u32>,
    /// Number of packets that the event stands for.
    sample: u32,
    /// Number of events that were lost directly before this one.
    lost: u64,
}

impl From<v1::Event> for Event {
    fn from(event: v1::Event) -> Self {
        let v1::Event {
            time_ns,
            reason,
            direction,
            network,
            interface,
            length,
            ethertype,
            src_mac,
            dst_mac,
            src_ip,
            dst_ip,
            endpoint,
            source,
            destination,
            protocol,
            src_port,
            dst_port,
            vtep,
            node,
            vni: _,
            sample,
            vlan,
            lost,
        } = event;
        Self {
            time_ns,
            reason,
            direction,
            network: non_empty(network),
            endpoint: non_empty(endpoint),
            source: non_empty(source),
            destination: non_empty(destination),
            node: non_empty(node),
            vtep: non_empty(vtep),
            interface: non_empty(interface),
            length,
            ethertype,
            vlan: non_zero(vlan),
            src_mac,
            dst_mac,
            src_ip: non_empty(src_ip),
            dst_ip: non_empty(dst_ip),
            protocol: non_zero(protocol).map(protocol_name),
            src_port: non_zero(src_port),
            dst_port: non_zero(dst_port),
            sample,
            lost,
        }
    }
}

/// The protocol's name in /etc/protocols.
fn protocol_name(number: u32) -> String {
    match number {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "ipv6-icmp".to_owned(),
        132 => "sctp".to_owned(),
        other => other.to_string(),
    }
}

impl Event {
    /// The address and port of one end, or its MAC.
    fn end(ip: Option<&String>, port: Option<u32>, mac: &str) -> String {
        match (ip, port) {
            (None, _) => mac.to_owned(),
            (Some(ip), None) => ip.clone(),
            (Some(ip), Some(port)) if ip.contains(':') => format!("[{ip}]:{port}"),
            (Some(ip), Some(port)) => format!("{ip}:{port}"),
        }
    }

    /// The type of the frame's contents: the IP protocol, else the ethertype.
    fn payload(&self) -> String {
        self.protocol.clone().unwrap_or_else(|| format!("{:#06x}", self.ethertype))
    }
}

impl View for Event {
    fn text(&self) -> String {
        let seconds = self.time_ns / 1_000_000_000;
        let micros = self.time_ns / 1_000 % 1_000_000;
        let or_none = |word: &Option<String>| word.clone().unwrap_or_else(|| NONE.to_owned());
        let mut line = format!(
            "{seconds}.{micros:06} {} {} {} > {} network {} node {} dev {} {} {} > {} length {}",
            self.reason,
            self.direction,
            or_none(&self.source),
            or_none(&self.destination),
            or_none(&self.network),
            or_none(if self.node.is_some() { &self.node } else { &self.vtep }),
            or_none(&self.interface),
            self.payload(),
            Self::end(self.src_ip.as_ref(), self.src_port, &self.src_mac),
            Self::end(self.dst_ip.as_ref(), self.dst_port, &self.dst_mac),
            self.length,
        );
        if let Some(vlan) = self.vlan {
            line += &format!(" VLAN {vlan}");
        }
        if self.sample > 1 {
            line += &format!(" sample 1/{}", self.sample);
        }
        if self.lost > 0 {
            line += &format!(" ({} events before it were lost)", self.lost);
        }
        line
    }
}
