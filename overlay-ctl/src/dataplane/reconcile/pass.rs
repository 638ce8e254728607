//! One pass: it looks at the kernel, plans, and carries the plan out.

use super::{
    Reconciler, desired, names,
    pass_state::{PassState, reason},
    plan::{Plan, plan},
    scope::Scope,
};
use crate::{
    control::state::View,
    dataplane::kernel::{
        Bridge, DeviceFailure, DeviceId, DeviceKind, Devices as _, GatewayHealth, GatewayUse,
        Kernel, KernelError, LocalGateway, LocalStatus, Mtus, Observed, Outside as _, Resolved,
        WantedDevices,
    },
};
use std::collections::{BTreeMap, BTreeSet};

impl<K: Kernel> Reconciler<K> {
    /// Makes one pass over everything.
    ///
    /// # Errors
    /// The kernel could not be looked at, or a change of it failed.
    pub async fn pass(&mut self, view: &View) -> Result<bool, KernelError> {
        self.pass_over(view, &Scope::whole()).await
    }

    /// Makes one pass, which looks at what is in `scope` and at what the view wants otherwise than before, and reports
    /// what it reached. Returns false if something is left undone that the kernel refused for one device, which the
    /// status names.
    ///
    /// # Errors
    /// The kernel refused something that is not the problem of one endpoint alone.
    pub(super) async fn pass_over(
        &mut self,
        view: &View,
        scope: &Scope,
    ) -> Result<bool, KernelError> {
        if !self.held.is_certain() {
            self.read_all().await?;
        }
        self.held.sites.update(view);
        let mtus = self.mtus_for(scope).await;
        self.adopt_mtus(&mtus);
        let wanted = desired::devices(view, &self.node, self.held.sites.here());
        let observed = self.look_at_devices(&wanted, scope).await?;
        let mut state = PassState::default();
        state.left.clone_from(&observed.trouble);
        let plan = plan(&wanted, observed.clone());
        self.is_displaced = plan.is_displaced;
        self.keep(&plan, &wanted, &mut state).await;
        self.create(&plan.create, &wanted, &mut state).await;
        self.program(view, &wanted, &plan, &mut state).await?;
        self.remove(&plan, &mut state).await;
        let mut again = plan.recreate.clone();
        if !plan.remove.is_empty() {
            // What was removed may have stood in the way, as the last free port of the gateway bridge does.
            again.extend(plan.create.iter().filter(|id| !state.devices.contains_key(id)));
        }
        if self.create(&again, &wanted, &mut state).await {
            self.program(view, &wanted, &plan, &mut state).await?;
        }
        // Before packets flow: whoever waits for an endpoint finds its names.
        self.tell_names(true).await;
        self.raise(&plan, &wanted, &mut state).await;
        if let Some(published) = &mut self.published {
            published.legs = names::set_up_legs(&wanted, &state.devices);
        }
        self.judge(&state);
        if !state.is_incomplete && state.failed.is_none() {
            self.seen.remember(observed, wanted, (&plan, &state));
        }
        self.report(view, mtus, state)
    }

    /// The devices, the namespaces and the bridge: what is to be looked at as it is now, and the rest as it was seen last.
    async fn look_at_devices(
        &mut self,
        wanted: &WantedDevices,
        scope: &Scope,
    ) -> Result<Observed, KernelError> {
        let paths = wanted.paths();
        self.kernel.devices().release_namespaces(&paths);
        if let Some(part) = self.seen.part(wanted, scope) {
            let fresh = self.kernel.devices().observe_part(&part).await?;
            return Ok(self.seen.with(&part, fresh));
        }
        self.seen.forget();
        self.kernel.devices().observe(&paths).await
    }

    /// Makes whatever is created from here on have these MTUs.
    fn adopt_mtus(&mut self, mtus: &Mtus) {
        let now = (self.node.endpoint_mtu, self.node.gateway.mtu);
        if now != (mtus.endpoint, mtus.outward) {
            let Mtus { underlay, source, device, endpoint, outward } = mtus;
            tracing::info!(underlay, %source, device, endpoint, outward, "the MTU changed");
        }
        self.node.adopt_mtus(mtus);
    }

    /// Makes sure of the programs and the sizes of the devices that stay.
    async fn keep(&mut self, plan: &Plan, wanted: &WantedDevices, state: &mut PassState) {
        state.devices.clone_from(&plan.keep);
        if std::mem::replace(&mut self.is_program_due, false) {
            for (id, device) in &plan.keep {
                if let Err(error) = self.kernel.devices().attach(device).await {
                    self.is_program_due = true;
                    state.refuse(*id, DeviceFailure::Kernel(error));
                }
            }
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
                Err(failure) => {
                    state.is_incomplete |= matches!(failure, DeviceFailure::Kernel(_));
                    let reason = reason(&failure);
                    if self.unchanged.get(id) != Some(&reason) {
                        tracing::warn!(device = %id, reason, "a device keeps its MTU");
                    }
                    unchanged.insert(*id, reason);
                }
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
                Err(failure) => state.refuse(spec.id, failure),
            }
        }
        any
    }

    /// Makes the maps and the published ports those of the view and the devices.
    async fn program(
        &mut self,
        view: &View,
        wanted: &WantedDevices,
        plan: &Plan,
        state: &mut PassState,
    ) -> Result<(), KernelError> {
        self.sync_all(view, wanted, state).await?;
        let swapped = self.kernel.outside().swap_programs().await;
        state.note(swapped);
        let ports = names::desired_ports(self.held.sites.here(), &state.devices);
        let legs = names::set_up_legs(wanted, &state.devices);
        // One that is about to be removed may send until then.
        let removed = plan.remove.iter().map(|(device, _)| &device.id);
        let mut devices = wanted.devices.keys().chain(state.devices.keys()).chain(removed);
        let translates = devices.any(|id| id.kind == DeviceKind::Leg);
        let wanted = GatewayUse { ports, legs, translates };
        let published = self.kernel.outside().publish(&wanted).await;
        self.published = Some(wanted);
        state.note(published);
        Ok(())
    }

    async fn remove(&mut self, plan: &Plan, state: &mut PassState) {
        for (device, reason) in &plan.remove {
            match self.kernel.devices().remove(device).await {
                Ok(()) => tracing::info!(device = %device.ifname, reason, "device removed"),
                Err(error) => {
                    let (ifname, why) = (&device.ifname, crate::error_chain(&error));
                    state.left.push(format!("{ifname} could not be removed ({reason}): {why}"));
                    state.is_incomplete = true;
                }
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
                // As it was read back, and not as it was meant to be.
                Ok(raised) => *device = raised,
                Err(failure) => state.refuse(*id, failure),
            }
        }
    }

    /// Finds out which endpoints are up, and logs what changed.
    fn judge(&mut self, state: &PassState) {
        let mut health = BTreeMap::new();
        for endpoint in self.held.sites.here() {
            let before = self.health.get(&endpoint.id);
            let mut now = state.health(DeviceId::port(endpoint.id), endpoint.leg.map(|leg| leg.id));
            now.was_up |= before.is_some_and(|before| before.was_up);
            if before != Some(&now) {
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
    fn report(&mut self, view: &View, mtus: Mtus, state: PassState) -> Result<bool, KernelError> {
        let endpoints = self.health.clone();
        if let Some(error) = state.failed {
            self.status.send_modify(|status| status.endpoints = endpoints);
            return Err(error);
        }
        if state.left != self.left && !state.left.is_empty() {
            tracing::warn!(left = ?state.left, "something of a device is left undone");
        }
        self.left = state.left;
        let outside = self.kernel.outside().health();
        let status = LocalStatus {
            run: self.run,
            programmed: view.revision,
            endpoints,
            error: None,
            lacks_data_plane: false,
            underlay: outside.underlay,
            vtep: outside.vtep,
            unseen: outside.unseen,
            fallbacks: self.fallbacks(),
            unresolved: self.unresolved(),
            gateway: GatewayHealth {
                published: outside.published,
                forwarding: outside.forwarding,
                resolvers: self.resolved.resolvers,
            },
            mtus,
            super_packets: self.node.super_packets.clone(),
            probes: Vec::new(),
            probing_trouble: None,
        };
        self.status.send_if_modified(|now| {
            // Somebody else's.
            let probes = std::mem::take(&mut now.probes);
            let probing_trouble = now.probing_trouble.take();
            let changed = *now != status;
            *now = LocalStatus { probes, probing_trouble, ..status };
            changed
        });
        Ok(!state.is_incomplete)
    }

    /// What is done in a slower way than possible, or not at all, in words.
    pub(super) fn fallbacks(&mut self) -> Vec<String> {
        let mut fallbacks = self.kernel.outside().health().fallbacks;
        let Resolved { resolvers: _, trouble, fallbacks: of_names } = &self.resolved;
        let others = [&self.repair_trouble, &self.ways_trouble, &self.left, trouble, of_names];
        fallbacks.extend(others.into_iter().flatten().cloned());
        fallbacks
    }
}
