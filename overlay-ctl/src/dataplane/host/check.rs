//! Checks whether this node can create an endpoint, before the command is logged.

use super::gateway::SharedPorts;
use crate::{
    dataplane::{
        kernel::HostPort,
        netlink::{DeviceError, HeldNamespaces, Netlink, Netns},
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

/// The namespaces that are held for endpoints. The API holds them before their endpoint is created, and the reconciler
/// releases them.
#[derive(Clone, Debug)]
pub struct SharedNamespaces(Arc<Mutex<HeldNamespaces>>);

impl SharedNamespaces {
    /// Shares these.
    #[must_use]
    pub fn new(held: HeldNamespaces) -> Self {
        Self(Arc::new(Mutex::new(held)))
    }

    /// Locks them. No use of them waits.
    pub(super) fn lock(&self) -> MutexGuard<'_, HeldNamespaces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The check of one node.
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

    /// Checks the wanted ports and the namespace. The answer has the path of the namespace with which the endpoint is
    /// to be stored.
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

    /// Checks the namespace, over a connection of its own: on one socket the kernel makes one list at a time, and
    /// answers a second request with EBUSY.
    async fn check_netns(&self, path: &Path, needs_leg: bool) -> Result<PathBuf, DeviceError> {
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

/// A port as a peer names it; `None` where this version cannot read it.
pub(crate) fn host_port(port: &internal::HostPort) -> Option<HostPort> {
    let transport: Transport = port.transport.parse().ok()?;
    let number = u16::try_from(port.port).ok().and_then(NonZeroU16::new)?;
    Some((transport, port.address.parse().ok()?, number))
}
