//! Checks whether this node could make an endpoint, before anything is logged.

use super::gateway::SharedPorts;
use crate::{
    dataplane::{
        gateway::HostPort,
        netlink::{HeldNamespaces, Netlink, Netns, PortError},
    },
    model::Transport,
    proto::internal::{self, CheckEndpointRequest, CheckEndpointResponse},
};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The namespaces that are held for endpoints: by the API before they are created, for as long as the reconciler says.
#[derive(Clone, Debug)]
pub struct SharedNamespaces(Arc<Mutex<HeldNamespaces>>);

impl SharedNamespaces {
    pub(crate) fn new(held: HeldNamespaces) -> Self {
        Self(Arc::new(Mutex::new(held)))
    }

    /// Holds them. No use waits.
    pub(super) fn lock(&self) -> MutexGuard<'_, HeldNamespaces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether this node could make an endpoint, before anything is logged.
#[derive(Clone)]
pub struct EndpointCheck {
    ports: SharedPorts,
    namespaces: SharedNamespaces,
}

impl EndpointCheck {
    pub(crate) fn new(ports: SharedPorts, namespaces: SharedNamespaces) -> Self {
        Self { ports, namespaces }
    }

    pub(crate) fn namespaces(&self) -> SharedNamespaces {
        self.namespaces.clone()
    }

    pub(crate) fn ports(&self) -> SharedPorts {
        self.ports.clone()
    }

    /// Looks at the ports that are asked for and at the namespace, and says by which path the endpoint is to know it.
    pub async fn check(&self, request: CheckEndpointRequest) -> CheckEndpointResponse {
        let CheckEndpointRequest { netns, ports, list_busy, needs_leg } = request;
        let checked = match self.check_ports(&ports) {
            Ok(()) => {
                let path = self.check_netns(Path::new(&netns), needs_leg).await;
                path.map_err(|error| crate::error_chain(&error))
            }
            Err(problem) => Err(problem),
        };
        let (netns, problem) = match checked {
            Ok(path) => (path.display().to_string(), String::new()),
            Err(problem) => (netns, problem),
        };
        let busy = if list_busy { self.ports.lock().busy() } else { BTreeSet::new() };
        let busy = busy.into_iter().map(|(transport, port)| internal::HostPort {
            transport: transport.to_string(),
            address: Ipv4Addr::UNSPECIFIED.to_string(),
            port: port.get().into(),
        });
        CheckEndpointResponse { netns, problem, busy: busy.collect() }
    }

    /// Over a connection of its own: on one socket the kernel lists one thing at a time, and answers a second wish
    /// with EBUSY.
    async fn check_netns(&self, path: &Path, needs_leg: bool) -> Result<PathBuf, PortError> {
        let netns = Netns::open_now(path)?;
        Netlink::open().await?.check_inside(&netns, needs_leg).await?;
        self.namespaces.lock().steady_path_of(&netns)
    }

    fn check_ports(&self, asked: &[internal::HostPort]) -> Result<(), String> {
        let ports: Option<BTreeSet<HostPort>> = asked.iter().map(host_port).collect();
        let ports = ports.ok_or("a port that this version can't read: update the node")?;
        let free = self.ports.lock().check_free(&ports);
        free.map_err(|taken| crate::error_chain(&taken))
    }
}

/// The words of a peer; `None` where this version can't read them.
pub(crate) fn host_port(port: &internal::HostPort) -> Option<HostPort> {
    let transport: Transport = port.transport.parse().ok()?;
    let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new)?;
    Some((transport, port.address.parse().ok()?, number))
}
