//! The node's own way to and from the outside: the gateway bridge, the nftables table, forwarding, and the reserved ports
//! of the host.

use super::{forwarding::ForwardingKeeper, surroundings::Surroundings};
use crate::{
    dataplane::{
        gateway::{ConnectionPressure, Connections, Reservations, Rules, Table},
        kernel::{GatewayUse, HostPort, KernelError, LocalGateway, Stations},
        netlink::{GATEWAY_BRIDGE, LinkList, Netlink},
    },
    model::Subnet,
};
use overlay_common::Counter;
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
    api_port: u16,
    table: Table,
    connections: Connections,
    pressure: ConnectionPressure,
    ports: SharedPorts,
    published: usize,
    forwarding: ForwardingKeeper,
    /// Somebody may have changed forwarding or devices since the last look at them.
    is_doubted: bool,
    surroundings: Surroundings,
    /// Ports that could not be reserved, in words.
    unkept: Vec<String>,
}

impl HostGateway {
    pub(crate) fn new(
        netlink: Netlink,
        subnet: Subnet,
        (vxlan_port, api_port): (u16, u16),
        (table, forwarding): (Table, ForwardingKeeper),
        ports: SharedPorts,
    ) -> Self {
        Self {
            netlink,
            subnet,
            vxlan_port,
            api_port,
            table,
            connections: Connections::default(),
            pressure: ConnectionPressure::default(),
            ports,
            published: 0,
            forwarding,
            is_doubted: true,
            surroundings: Surroundings::default(),
            unkept: Vec::new(),
        }
    }

    /// Creates or repairs the bridge, looks at what hinders traffic, and marks forwarding and the table as to be looked at
    /// again. Returns what failed.
    pub(super) async fn repair(
        &mut self,
        links: &LinkList,
        gateway: &LocalGateway,
        stations: &Stations,
    ) -> Vec<KernelError> {
        self.table.doubt();
        self.is_doubted = true;
        let LocalGateway { subnet, mtu } = *gateway;
        let ensured = self.netlink.ensure_gateway_bridge_among(links, subnet, mtu, stations).await;
        let ensured = ensured.map_err(|e| KernelError::new("making the gateway bridge failed", e));
        self.surroundings.look(&self.netlink, self.subnet, self.api_port).await;
        let pressure = self.pressure.look(self.subnet).await;
        let pressure =
            pressure.map_err(|e| KernelError::new("looking at the table of connections failed", e));
        ensured.err().into_iter().chain(pressure.err()).collect()
    }

    /// Marks forwarding as to be looked at again, because another program may have changed it.
    pub(super) fn doubt_forwarding(&mut self) {
        self.is_doubted = true;
    }

    /// Marks the table as to be read again, because another program wrote to nftables.
    pub(super) fn doubt(&mut self) {
        self.table.doubt();
        self.surroundings.note_change();
    }

    /// Makes exactly these ports of the host lead to endpoints, reserves them, and ends the connections that are out of
    /// date.
    pub(super) async fn publish(&mut self, wanted: &GatewayUse) -> Result<(), KernelError> {
        let ports: BTreeSet<HostPort> = wanted.ports.keys().copied().collect();
        let unkept: Vec<String> =
            self.ports.lock().hold(&ports).iter().map(|taken| crate::error_chain(taken)).collect();
        if unkept != self.unkept {
            if !unkept.is_empty() {
                tracing::warn!(ports = ?unkept, "published ports are not kept from other programs");
            }
            self.unkept = unkept;
        }
        let looked = if self.is_doubted { self.look().await } else { Ok(()) };
        let mut rules = self.rules(wanted);
        let mut synced = self.table.sync(&rules).await;
        if synced.is_err() && looked.is_ok() {
            // A device may be gone since the last look.
            self.look().await?;
            rules = self.rules(wanted);
            synced = self.table.sync(&rules).await;
        }
        synced.map_err(|e| KernelError::new("writing the nftables table failed", e))?;
        self.published = wanted.ports.len();
        self.connections.settle(&mut self.table, &rules, &wanted.legs).await;
        // Only now that the rules keep the host from routing for others.
        self.forwarding.open_guarded();
        looked
    }

    async fn look(&mut self) -> Result<(), KernelError> {
        let looked = self.forwarding.look().await;
        let changed =
            looked.map_err(|e| KernelError::new("looking at the devices of the host failed", e))?;
        self.is_doubted = false;
        if changed {
            // Its elements may have other names than when they were written.
            self.table.doubt();
        }
        Ok(())
    }

    fn rules(&self, wanted: &GatewayUse) -> Rules {
        let opened = || self.forwarding.opened();
        let bridged = opened().filter_map(|d| Some((d.name.clone(), d.bridge.clone()?)));
        Rules {
            bridge: GATEWAY_BRIDGE.to_owned(),
            subnet: self.subnet,
            vxlan_port: self.vxlan_port,
            forwarding: opened().map(|device| device.name.clone()).collect(),
            bridged: bridged.collect(),
            translates: wanted.translates,
            published: wanted.ports.clone(),
        }
    }

    /// Packets to the VXLAN port that reached the host's own stack.
    pub(super) fn unseen(&self) -> Counter {
        self.table.unseen()
    }

    /// The number of published ports.
    pub(super) fn published(&self) -> usize {
        self.published
    }

    /// Devices whose forwarding this node switched on.
    pub(super) fn forwarding(&self) -> BTreeSet<String> {
        self.forwarding.opened().map(|device| device.name.clone()).collect()
    }

    /// What hinders traffic to and from the outside, in words: also published ports that other programs have, and
    /// connections that were not ended.
    pub(super) fn trouble(&self) -> impl Iterator<Item = String> {
        let around = self.forwarding.trouble().chain(self.surroundings.found());
        let noted = self.unkept.iter().chain(around).cloned();
        let about_connections =
            self.connections.trouble().into_iter().chain(self.pressure.trouble());
        noted.chain(about_connections.map(str::to_owned))
    }
}
