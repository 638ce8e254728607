//! The node's own way to and from the outside: the gateway bridge, the nftables table, and the reserved ports of the
//! host.

use crate::{
    dataplane::{
        gateway::{Connections, GatewayError, Reservations, Rules, Table},
        kernel::{HostPort, KernelError, Legs, LocalGateway, PublishedPorts, Stations},
        netlink::{self, GATEWAY_BRIDGE, LinkList, Netlink},
    },
    model::Subnet,
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The ports of the host that are reserved for endpoints: written by the reconciler, read by the API.
#[derive(Clone, Default)]
pub struct SharedPorts(Arc<Mutex<Reservations>>);

impl SharedPorts {
    /// No port is reserved yet; see [`Reservations::new`].
    #[must_use]
    pub fn new(vxlan_port: u16) -> Self {
        Self(Arc::new(Mutex::new(Reservations::new(vxlan_port))))
    }

    /// Locks them. No use of them waits.
    pub fn lock(&self) -> MutexGuard<'_, Reservations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way to and from the outside world.
pub struct HostGateway {
    netlink: Netlink,
    subnet: Subnet,
    vxlan_port: u16,
    table: Table,
    connections: Connections,
    ports: SharedPorts,
    published: usize,
    /// Devices whose forwarding this node switched on, or switches on with the next publication.
    forwarding: BTreeSet<String>,
    /// Ports that could not be reserved, in words.
    unkept: Vec<String>,
    /// Devices whose forwarding could not be switched on, in words.
    unopened: Vec<String>,
}

impl HostGateway {
    pub(crate) fn new(
        netlink: Netlink,
        subnet: Subnet,
        vxlan_port: u16,
        table: Table,
        ports: SharedPorts,
    ) -> Self {
        let forwarding = table.forwarding();
        Self {
            netlink,
            subnet,
            vxlan_port,
            table,
            connections: Connections::default(),
            ports,
            published: 0,
            forwarding,
            unkept: Vec::new(),
            unopened: Vec::new(),
        }
    }

    /// Creates or repairs the bridge, switches forwarding on or off for the devices by which the outside comes, and
    /// marks the table as to be read again. Returns what failed; one of these does not depend on the others.
    pub(super) async fn repair(
        &mut self,
        links: &LinkList,
        gateway: &LocalGateway,
        stations: &Stations,
        underlay: &str,
    ) -> Vec<KernelError> {
        self.table.doubt();
        let LocalGateway { subnet, mtu } = *gateway;
        let ensured = self.netlink.ensure_gateway_bridge_among(links, subnet, mtu, stations).await;
        let ensured = ensured.map_err(|e| KernelError::new("making the gateway bridge failed", e));
        let opened = self.open_uplinks(links, underlay).await;
        [ensured.map(drop), opened].into_iter().filter_map(Result::err).collect()
    }

    /// Finds out for which devices forwarding is to be switched on, and switches it off for those that are no uplinks any
    /// more.
    async fn open_uplinks(&mut self, links: &LinkList, underlay: &str) -> Result<(), KernelError> {
        let uplinks = self.netlink.uplinks(links, underlay).await.map_err(uplinks_failed)?;
        if Netlink::forwarding("all").map_err(uplinks_failed)? {
            // The host is meant to be a router: forwarding is not the node's to switch on or to guard.
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

    /// Marks the table as to be read again, because another program wrote to nftables.
    pub(super) fn doubt(&mut self) {
        self.table.doubt();
    }

    /// Makes exactly these ports of the host lead to endpoints, reserves them, and ends the connections that are out of
    /// date.
    pub(super) async fn publish(
        &mut self,
        published: &PublishedPorts,
        legs: &Legs,
    ) -> Result<(), KernelError> {
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
            subnet: self.subnet,
            vxlan_port: self.vxlan_port,
            forwarding: self.forwarding.clone(),
            published: published.clone(),
        };
        let synced = self.table.sync(&rules).await;
        synced.map_err(|e| KernelError::new("writing the nftables table failed", e))?;
        self.published = published.len();
        self.connections.settle(&mut self.table, &rules, legs).await;
        // Only now that the rules keep the host from routing for others. A device that is gone, or has another name now,
        // holds up nobody: the next repair finds the devices anew.
        self.unopened.clear();
        for device in &self.forwarding {
            if let Err(error) = open(device) {
                let why = crate::error_chain(&error);
                self.unopened
                    .push(format!("forwarding of {device} could not be switched on: {why}"));
            }
        }
        Ok(())
    }

    /// The number of published ports.
    pub(super) fn published(&self) -> usize {
        self.published
    }

    /// Devices whose forwarding this node switched on.
    pub(super) fn forwarding(&self) -> &BTreeSet<String> {
        &self.forwarding
    }

    /// Published ports that other programs have, devices whose forwarding could not be switched on, and why connections
    /// were not ended, in words.
    pub(super) fn trouble(&self) -> impl Iterator<Item = String> {
        let noted = self.unkept.iter().chain(&self.unopened).cloned();
        noted.chain(self.connections.trouble().map(str::to_owned))
    }
}

/// Removes the table in this namespace, and switches off the forwarding that the node switched on.
pub(crate) async fn remove(mut table: Table) -> Result<(), GatewayError> {
    for device in table.forwarding() {
        close(&device);
    }
    table.remove().await
}

/// Switches forwarding on.
fn open(device: &str) -> Result<(), netlink::NetlinkError> {
    if !Netlink::forwarding(device)? {
        Netlink::set_forwarding(device, true)?;
        tracing::info!(%device, "forwarding switched on: to and from endpoints only");
    }
    Ok(())
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
