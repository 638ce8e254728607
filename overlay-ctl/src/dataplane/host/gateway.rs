//! The node's own way to and from the outside: the gateway bridge, the nftables table, the host's ports
//! that are kept, the resolvers of the endpoints' namespaces.

use crate::dataplane::{
    dns::Resolvers,
    gateway::{GatewayError, HostPort, Reservations, Rules, Table},
    kernel::{GatewayHealth, KernelError, Names, PublishedPorts},
    netlink::{self, GATEWAY_BRIDGE, Netlink, SuperPackets},
    reconcile::LocalGateway,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The ports of the host that are kept for endpoints: written by the reconciler, asked by the API.
#[derive(Clone, Default)]
pub struct SharedPorts(Arc<Mutex<Reservations>>);

impl SharedPorts {
    /// See [`Reservations::new`].
    #[must_use]
    pub fn new(vxlan_port: u16) -> Self {
        Self(Arc::new(Mutex::new(Reservations::new(vxlan_port))))
    }

    /// Holds them. No use waits.
    pub fn lock(&self) -> MutexGuard<'_, Reservations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub struct HostGateway {
    netlink: Netlink,
    place: LocalGateway,
    vxlan_port: u16,
    table: Table,
    ports: SharedPorts,
    resolvers: Resolvers,
    /// What they were last given and had no trouble with, since they were last looked at.
    resolved: Option<Arc<Names>>,
    published: usize,
    /// Devices whose forwarding this node switched on, or is about to.
    forwarding: BTreeSet<String>,
    /// Ports that could not be kept, and namespaces in which names do not resolve.
    unkept: Vec<String>,
    unresolved: Vec<String>,
}

impl HostGateway {
    pub(crate) fn new(
        netlink: Netlink,
        place: LocalGateway,
        vxlan_port: u16,
        table: Table,
        ports: SharedPorts,
        resolvers: Resolvers,
    ) -> Self {
        let forwarding = table.forwarding();
        Self {
            netlink,
            place,
            vxlan_port,
            table,
            ports,
            resolvers,
            resolved: None,
            published: 0,
            forwarding,
            unkept: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    /// Looks at the bridge, at the table when it is next written, and at the devices that the outside
    /// comes by.
    pub(crate) async fn read_back(&mut self, underlay: &str) -> Result<(), KernelError> {
        let LocalGateway { subnet, mtu } = self.place;
        let ensured = self.netlink.ensure_gateway_bridge(subnet, mtu).await;
        ensured.map_err(|e| KernelError::new("making the gateway bridge failed", e))?;
        self.table.doubt();
        self.resolved = None;
        let uplinks = self.netlink.uplinks(underlay).await.map_err(uplinks_failed)?;
        if Netlink::forwarding("all").map_err(uplinks_failed)? {
            // The host routes for others, and means to: no device is ours to open or to guard.
            self.forwarding.clear();
        } else {
            for device in &uplinks {
                if !Netlink::forwarding(device).map_err(uplinks_failed)? {
                    self.forwarding.insert(device.clone());
                }
            }
        }
        let gone: Vec<String> = self.forwarding.difference(&uplinks).cloned().collect();
        for device in gone {
            close(&device);
            self.forwarding.remove(&device);
        }
        Ok(())
    }

    /// Bytes: the MTU of the bridge, and of legs.
    pub(crate) fn mtu(&self) -> u32 {
        self.place.mtu
    }

    /// Lets the bridge have this MTU, and super-packets of these sizes.
    pub(crate) async fn fit(
        &mut self,
        mtu: u32,
        super_packets: &SuperPackets,
    ) -> Result<(), KernelError> {
        self.place.mtu = mtu;
        let fitted = self.netlink.fit_gateway_bridge(mtu, super_packets).await;
        fitted.map_err(|e| KernelError::new("changing the gateway bridge failed", e))
    }

    /// Somebody wrote to nftables.
    pub(crate) fn doubt(&mut self) {
        self.table.doubt();
    }

    pub(crate) async fn publish(&mut self, published: &PublishedPorts) -> Result<(), KernelError> {
        let wanted: BTreeSet<HostPort> = published.keys().copied().collect();
        let unkept: Vec<String> =
            self.ports.lock().hold(&wanted).iter().map(|taken| crate::error_chain(taken)).collect();
        if unkept != self.unkept {
            if !unkept.is_empty() {
                tracing::warn!(ports = ?unkept, "published ports are not kept from other programs");
            }
            self.unkept = unkept;
        }
        let rules = Rules {
            bridge: GATEWAY_BRIDGE.to_owned(),
            subnet: self.place.subnet,
            vxlan_port: self.vxlan_port,
            forwarding: self.forwarding.clone(),
            published: published.clone(),
        };
        let synced = self.table.sync(&rules).await;
        synced.map_err(|e| KernelError::new("writing the nftables table failed", e))?;
        self.published = published.len();
        // Only now that the rules keep the host from routing for others.
        for device in &self.forwarding {
            if !Netlink::forwarding(device).map_err(uplinks_failed)? {
                Netlink::set_forwarding(device, true).map_err(uplinks_failed)?;
                tracing::info!(%device, "forwarding switched on: to and from endpoints only");
            }
        }
        Ok(())
    }

    pub(crate) async fn resolve(&mut self, names: &Arc<Names>, is_whole: bool) {
        // A pass asks twice, and most passes change no name.
        if self.resolved.as_ref().is_some_and(|resolved| Arc::ptr_eq(resolved, names)) {
            return;
        }
        let mut unresolved = self.resolvers.answer(Arc::clone(names)).await;
        if is_whole {
            unresolved.extend(self.resolvers.write_files().await);
        }
        self.resolved = (is_whole && unresolved.is_empty()).then(|| Arc::clone(names));
        if unresolved != self.unresolved {
            if !unresolved.is_empty() {
                tracing::warn!(trouble = ?unresolved, "names do not resolve everywhere");
            }
            self.unresolved = unresolved;
        }
    }

    pub(crate) fn health(&self) -> GatewayHealth {
        GatewayHealth {
            published: self.published,
            forwarding: self.forwarding.clone(),
            resolvers: self.resolvers.count(),
        }
    }

    pub(crate) fn trouble(&self) -> impl Iterator<Item = String> {
        self.unkept.iter().chain(&self.unresolved).cloned()
    }
}

/// Removes the table that stands in this namespace, and switches the forwarding off that its maker
/// switched on.
pub(crate) async fn remove(mut table: Table) -> Result<(), GatewayError> {
    for device in table.forwarding() {
        close(&device);
    }
    table.remove().await
}

/// Switches forwarding off again. A device that is gone has none.
fn close(device: &str) {
    match Netlink::set_forwarding(device, false) {
        Ok(()) => tracing::info!(%device, "forwarding switched off again"),
        Err(error) => {
            tracing::debug!(%device, error = %crate::error_chain(&error), "forwarding left as it is");
        }
    }
}

fn uplinks_failed(error: netlink::NetlinkError) -> KernelError {
    KernelError::new("looking at the devices of the host failed", error)
}
