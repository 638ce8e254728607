use super::gateway::SharedPorts;
use crate::{
    dataplane::{
        gateway::{HostPort, busy_ports},
        netlink::{Netlink, PortError},
    },
    model::Transport,
    proto::internal::{self, CheckEndpointRequest, CheckEndpointResponse},
};
use std::{collections::BTreeSet, net::Ipv4Addr, num::NonZeroU16, path::Path};

/// Says whether this node could make an endpoint, before anything is logged.
#[derive(Clone)]
pub struct EndpointCheck {
    ports: SharedPorts,
}

impl EndpointCheck {
    pub(crate) fn new(ports: SharedPorts) -> Self {
        Self { ports }
    }

    pub(crate) fn ports(&self) -> SharedPorts {
        self.ports.clone()
    }

    /// Looks at the namespace and at the ports that are asked for.
    pub async fn check(&self, request: CheckEndpointRequest) -> CheckEndpointResponse {
        let CheckEndpointRequest { netns, ports, list_busy, needs_leg } = request;
        let problem = match check_netns(Path::new(&netns), needs_leg).await {
            Ok(()) => self.check_ports(&ports),
            Err(error) => Err(crate::error_chain(&error)),
        };
        let busy = if list_busy { busy_ports() } else { BTreeSet::new() };
        let busy = busy.into_iter().map(|(transport, port)| internal::HostPort {
            transport: transport.to_string(),
            address: Ipv4Addr::UNSPECIFIED.to_string(),
            port: port.get().into(),
        });
        CheckEndpointResponse {
            netns,
            problem: problem.err().unwrap_or_default(),
            busy: busy.collect(),
        }
    }

    fn check_ports(&self, asked: &[internal::HostPort]) -> Result<(), String> {
        let ports: Option<BTreeSet<HostPort>> = asked.iter().map(host_port).collect();
        let ports = ports.ok_or("a port that this version can't read: update the node")?;
        let free = self.ports.lock().check_free(&ports);
        free.map_err(|taken| crate::error_chain(&taken))
    }
}

/// Over a connection of its own: on one socket the kernel lists one thing at a time, and answers a second
/// wish with EBUSY.
async fn check_netns(netns: &Path, needs_leg: bool) -> Result<(), PortError> {
    Netlink::open().await?.check_netns(netns, needs_leg).await
}

/// The words of a peer; `None` where this version can't read them.
pub(crate) fn host_port(port: &internal::HostPort) -> Option<HostPort> {
    let transport: Transport = port.transport.parse().ok()?;
    let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new)?;
    Some((transport, port.address.parse().ok()?, number))
}
