//! The printed form of published ports.

use super::View;
use crate::proto::v1;
use serde::Serialize;
use std::fmt;

/// A port of an endpoint that is reached at a port of its node.
#[derive(Debug, Serialize)]
pub(in super::super) struct PublishedPort {
    /// 80/tcp
    pub(super) port: String,
    /// 0.0.0.0 = all addresses of the node.
    host_ip: String,
    host_port: u32,
}

impl PublishedPort {
    /// The port in the form of `docker ps`: `0.0.0.0:32768->80/tcp`.
    pub(super) fn arrow(&self) -> String {
        format!("{}:{}->{}", self.host_ip, self.host_port, self.port)
    }
}

impl fmt::Display for PublishedPort {
    /// Writes the port in the form of `docker port`: `80/tcp -> 0.0.0.0:32768`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}:{}", self.port, self.host_ip, self.host_port)
    }
}

impl From<v1::PublishedPort> for PublishedPort {
    fn from(port: v1::PublishedPort) -> Self {
        let v1::PublishedPort { port, host_ip, host_port } = port;
        Self { port, host_ip, host_port }
    }
}

impl View for Vec<PublishedPort> {
    fn text(&self) -> String {
        let lines: Vec<String> = self.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}
