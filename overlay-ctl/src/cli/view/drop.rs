//! Dropped packets.

use super::{NONE, View, non_empty};
use crate::proto::v1;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(in super::super) struct Drop {
    /// Nanoseconds since the node booted.
    time_ns: u64,
    reason: String,
    direction: String,
    network: Option<String>,
    /// Endpoint that the source address belongs to.
    endpoint: Option<String>,
    interface: Option<String>,
    /// Bytes of the frame.
    length: u32,
    ethertype: u32,
    src_mac: String,
    dst_mac: String,
    src_ip: Option<String>,
    dst_ip: Option<String>,
}

impl From<v1::DropEvent> for Drop {
    fn from(event: v1::DropEvent) -> Self {
        let v1::DropEvent {
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
        } = event;
        Self {
            time_ns,
            reason,
            direction,
            network: non_empty(network),
            endpoint: non_empty(endpoint),
            interface: non_empty(interface),
            length,
            ethertype,
            src_mac,
            dst_mac,
            src_ip: non_empty(src_ip),
            dst_ip: non_empty(dst_ip),
        }
    }
}

impl View for Drop {
    fn text(&self) -> String {
        let seconds = self.time_ns / 1_000_000_000;
        let micros = self.time_ns / 1_000 % 1_000_000;
        let none = || NONE.to_owned();
        let addresses = match (&self.src_ip, &self.dst_ip) {
            (None, None) => String::new(),
            (src, dst) => format!(
                " {} > {}",
                src.clone().unwrap_or_else(none),
                dst.clone().unwrap_or_else(none)
            ),
        };
        format!(
            "{seconds}.{micros:06} {} {} network {} endpoint {} dev {} ethertype {:#06x} length {} {} > {}{addresses}",
            self.reason,
            self.direction,
            self.network.clone().unwrap_or_else(none),
            self.endpoint.clone().unwrap_or_else(none),
            self.interface.clone().unwrap_or_else(none),
            self.ethertype,
            self.length,
            self.src_mac,
            self.dst_mac,
        )
    }
}
