//! One pass: it looks at the kernel, plans, and carries the plan out.

use super::{
    Reconciler, desired, names,
    pass_state::PassState,
    plan::{Plan, plan},
};
use crate::{
    control::state::View,
    dataplane::kernel::{
        Bridge, DeviceFailure, DeviceId, Devices as _, GatewayHealth, Kernel, KernelError,
        LocalGateway, LocalStatus, Mtus, Outside as _, Tables, WantedDevices, Ways,
    },
    model::NodeId,
};
use overlay_common::NodeKey;
use std::collections::{BTreeMap, BTreeSet};

impl<K: Kernel> Reconciler<K> {
    /// Makes one pass, and reports what it reached.
    ///
    /// # Errors
    /// The kernel refused something that is not the problem of one endpoint alone.
    pub async fn pass(&mut self, view: &View) -> Result<(), KernelError> {
        if !self.held.is_certain() {
            self.read_all().await?;
        }
        self.held.sites.update(view);
        let vteps = self.held.sites.vteps();
        let Ways { device_mtu, ways } = self.kernel.outside().ways(&vteps).await?;
        let mtus = Mtus::new(device_mtu, self.node.asked_mtu, &ways);
        self.adopt_mtus(&mtus);
        let wanted = desired::devices(view, &self.node, self.held.sites.here());
        let paths = wanted.paths();
        self.kernel.devices().release_namespaces(&paths);
        let observed = self.kernel.devices().observe(&paths).await?;
        let plan = plan(&wanted, observed);

        let mut state = PassState { ways, ..PassState::default() };
        self.keep(&plan, &wanted, &mut state).await;
        self.create(&plan.create, &wanted, &mut state).await;
        self.program(view, &wanted, &mut state).await?;
        self.remove(&plan, &mut state).await;
        let mut again = plan.recreate.clone();
        if !plan.remove.is_empty() {
            // What was removed may have stood in the way, as the last free port of the gateway bridge does.
            again.extend(plan.create.iter().filter(|id| !state.devices.contains_key(id)));
        }
        if self.create(&again, &wanted, &mut state).await {
            self.program(view, &wanted, &mut state).await?;
        }
        // Before packets flow: whoever waits for an endpoint finds its names.
        self.tell_names(true).await;
        self.raise(&plan, &wanted, &mut state).await;
        self.legs = names::set_up_legs(&wanted, &state.devices);
        self.judge(&state);
        self.report(view, mtus, state)
    }

    /// Makes whatever is created from here on have these MTUs.
    fn adopt_mtus(&mut self, mtus: &Mtus) {
        let now = (self.node.endpoint_mtu, self.node.gateway.mtu);
        if now != (mtus.endpoint, mtus.device) {
            let Mtus { underlay, source, device, endpoint } = mtus;
            tracing::info!(underlay, %source, device, endpoint, "the MTU changed");
        }
        self.node.adopt_mtus(mtus);
    }

    /// Makes sure of the programs and the sizes of the devices that stay.
    async fn keep(&mut self, plan: &Plan, wanted: &WantedDevices, state: &mut PassState) {
        state.devices.clone_from(&plan.keep);
        for device in plan.keep.values() {
            state.note(self.kernel.devices().attach(device).await);
        }
        // At no moment may the bridge take packets that a leg which stands does not take. Where the bridge does not
        // shrink, its legs wait for a later pass; where a leg does not grow, the bridge does not either.
        let is_leg = |id: &DeviceId| id.kind.row().bridge == Bridge::Gateway;
        let mut may_shrink = true;
        if plan.bridge_first {
            let shrunk = self.kernel.outside().update_bridge(&wanted.gateway).await;
            may_shrink = shrunk.is_ok();
            state.note(shrunk);
        }
        let mut unchanged = BTreeMap::new();
        for id in plan.update.iter().filter(|id| may_shrink || !is_leg(id)) {
            let (Some(device), Some(spec)) = (state.devices.get_mut(id), wanted.devices.get(id))
            else {
                continue;
            };
            match self.kernel.devices().update(device, spec).await {
                Ok(()) => device.mtu = spec.sizes.mtu,
                Err(DeviceFailure::Endpoint(reason)) => {
                    if self.unchanged.get(id) != Some(&reason) {
                        tracing::warn!(device = %id, reason, "a device keeps its MTU");
                    }
                    unchanged.insert(*id, reason);
                }
                Err(DeviceFailure::Kernel(error)) => state.note(Err(error)),
            }
        }
        self.unchanged = unchanged;
        if !plan.bridge_first {
            let legs = state.devices.iter().filter(|(id, _)| is_leg(id));
            let mtu = legs.map(|(_, leg)| leg.mtu).fold(wanted.gateway.mtu, u32::min);
            let gateway = LocalGateway { mtu, ..wanted.gateway };
            state.note(self.kernel.outside().update_bridge(&gateway).await);
        }
    }

    /// Creates devices. Returns true if one was created.
    async fn create(
        &mut self,
        ids: &BTreeSet<DeviceId>,
        wanted: &WantedDevices,
        state: &mut PassState,
    ) -> bool {
        let mut any = false;
        for spec in ids.iter().filter_map(|id| wanted.devices.get(id)) {
            match self.kernel.devices().create(spec).await {
                Ok(device) => {
                    state.refused.remove(&spec.id);
                    state.devices.insert(spec.id, device);
                    any = true;
                }
                Err(DeviceFailure::Endpoint(reason)) => {
                    state.refused.insert(spec.id, reason);
                }
                Err(DeviceFailure::Kernel(error)) => {
                    state.refused.insert(spec.id, crate::error_chain(&error));
                    state.note(Err(error));
                }
            }
        }
        any
    }

    /// Makes the maps and the published ports those of the view and the devices.
    async fn program(
        &mut self,
        view: &View,
        wanted: &WantedDevices,
        state: &mut PassState,
    ) -> Result<(), KernelError> {
        self.sync_all(view, wanted, state).await?;
        let swapped = self.kernel.outside().swap_programs().await;
        state.note(swapped);
        self.ports = names::desired_ports(self.held.sites.here(), &state.devices);
        self.legs = names::set_up_legs(wanted, &state.devices);
        let published = self.kernel.outside().publish(&self.ports, &self.legs).await;
        state.note(published);
        Ok(())
    }

    async fn remove(&mut self, plan: &Plan, state: &mut PassState) {
        for (device, reason) in &plan.remove {
            match self.kernel.devices().remove(device).await {
                Ok(()) => tracing::info!(device = %device.ifname, reason, "device removed"),
                Err(error) => state.note(Err(error)),
            }
        }
    }

    async fn raise(&mut self, plan: &Plan, wanted: &WantedDevices, state: &mut PassState) {
        for id in &plan.raise {
            let (Some(device), Some(spec)) = (state.devices.get_mut(id), wanted.devices.get(id))
            else {
                continue;
            };
            match self.kernel.devices().raise(device, spec).await {
                Ok(()) => (device.up, device.complete) = (true, true),
                Err(DeviceFailure::Endpoint(reason)) => {
                    state.refused.insert(*id, reason);
                }
                Err(DeviceFailure::Kernel(error)) => {
                    state.failed.get_or_insert(error);
                }
            }
        }
    }

    /// Finds out which endpoints are up, and logs what changed.
    fn judge(&mut self, state: &PassState) {
        let mut health = BTreeMap::new();
        for endpoint in self.held.sites.here() {
            let now = state.health(DeviceId::port(endpoint.id), endpoint.leg.map(|leg| leg.id));
            if self.health.get(&endpoint.id) != Some(&now) {
                match &now.down {
                    None => tracing::info!(
                        endpoint = endpoint.id, device = %now.ifname, ifindex = now.ifindex,
                        "endpoint up"
                    ),
                    Some(reason) => {
                        tracing::warn!(endpoint = endpoint.id, reason, "endpoint down");
                    }
                }
            }
            health.insert(endpoint.id, now);
        }
        self.health = health;
    }

    /// Publishes the status of the node after a pass.
    fn report(&mut self, view: &View, mtus: Mtus, state: PassState) -> Result<(), KernelError> {
        let endpoints = self.health.clone();
        if let Some(error) = state.failed {
            self.status.send_modify(|status| status.endpoints = endpoints);
            return Err(error);
        }
        let mut outside = self.kernel.outside().health();
        outside.fallbacks.extend(self.resolved.trouble.iter().cloned());
        let status = LocalStatus {
            programmed: view.revision,
            endpoints,
            error: None,
            fallbacks: outside.fallbacks,
            unresolved: self.unresolved(),
            gateway: GatewayHealth {
                published: outside.published,
                forwarding: outside.forwarding,
                resolvers: self.resolved.resolvers,
            },
            mtus,
            super_packets: self.node.super_packets.clone(),
        };
        self.status.send_if_modified(|now| {
            let changed = *now != status;
            *now = status;
            changed
        });
        Ok(())
    }

    /// The nodes to which packets take the slower path, because their next hop is not resolved.
    fn unresolved(&self) -> Vec<NodeId> {
        let Tables { nodes, hops, .. } = &self.held.tables;
        let keys = self.held.sites.vteps().into_iter();
        keys.filter_map(|vtep| nodes.get(&NodeKey { vtep: vtep.ip16() }))
            .filter(|node| node.node != 0)
            .filter(|node| hops.get(&node.hop).is_none_or(|hop| hop.ifindex == 0))
            .map(|node| node.node)
            .collect()
    }
}
