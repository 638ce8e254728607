//! Checks whether this node can create an endpoint, before the command is logged.

use super::gateway::SharedPorts;
use crate::{
    dataplane::{
        kernel::HostPort,
        netlink::{DeviceError, HeldNamespaces, Netlink, Netns},
    },
    model::{Subnet, Transport},
    proto::internal::{self, CheckEndpointRequest, CheckEndpointResponse},
};
use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    num::NonZeroU16,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

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
    absence: watch::Receiver<Option<String>>,
}

impl EndpointCheck {
    /// Of a node whose data plane stands.
    pub(crate) fn new(ports: SharedPorts, namespaces: SharedNamespaces) -> Self {
        Self { ports, namespaces, absence: watch::channel(None).1 }
    }

    /// The same check, which refuses every endpoint for as long as `absence` says why there is no data plane.
    pub(crate) fn unless(self, absence: watch::Receiver<Option<String>>) -> Self {
        Self { absence, ..self }
    }

    pub(crate) fn namespaces(&self) -> SharedNamespaces {
        self.namespaces.clone()
    }

    pub(crate) fn ports(&self) -> SharedPorts {
        self.ports.clone()
    }

    /// Checks that there is a data plane, the wanted ports and the namespace. The answer has the path of the namespace with which the endpoint is
    /// to be stored.
    pub async fn check(&self, request: CheckEndpointRequest) -> CheckEndpointResponse {
        let CheckEndpointRequest { netns, ports, list_busy, needs_leg, subnet } = request;
        // A peer of before says none.
        let subnet = subnet.parse().ok();
        let absence = self.absence.borrow().clone();
        let checked = match absence.map_or_else(|| self.check_ports(&ports), Err) {
            Ok(()) => {
                let path = self.check_netns(Path::new(&netns), needs_leg, subnet).await;
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
    async fn check_netns(
        &self,
        path: &Path,
        needs_leg: bool,
        subnet: Option<Subnet>,
    ) -> Result<PathBuf, DeviceError> {
        let netns = Netns::open_now(path)?;
        Netlink::open().await?.check_inside(&netns, needs_leg, subnet).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_endpoint_is_made_while_there_is_no_data_plane() {
        let dir = tempfile::tempdir().unwrap();
        let held = SharedNamespaces::new(HeldNamespaces::new(dir.path().join("netns")));
        let (absent, absence) = watch::channel(None);
        let check = EndpointCheck::new(SharedPorts::default(), held).unless(absence);
        let problem = async || {
            let netns = "/nowhere".to_owned();
            check.check(CheckEndpointRequest { netns, ..Default::default() }).await.problem
        };
        assert!(problem().await.contains("/nowhere"), "what is wrong with the namespace is said");
        absent.send_replace(Some("the data plane is not up".to_owned()));
        assert_eq!(problem().await, "the data plane is not up");
        absent.send_replace(None);
        assert!(problem().await.contains("/nowhere"));
    }
}
