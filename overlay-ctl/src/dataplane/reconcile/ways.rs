//! The ways to other nodes: looked up in each pass, and alone where nothing else changed.

use super::{Reconciler, hop::hop_entry, scope::Scope};
use crate::{
    control::state::View,
    dataplane::kernel::{Kernel, KernelError, Mtus, Outside as _, TableChange, Tables, Ways},
    model::{NodeId, Vtep},
};
use overlay_common::{HopEntry, NodeKey};

impl<K: Kernel> Reconciler<K> {
    /// The MTUs that follow from the ways, which are looked up where they are in `scope` or where endpoints are behind
    /// other VTEPs than before.
    pub(super) async fn mtus_for(&mut self, scope: &Scope) -> Mtus {
        match &self.looked_up {
            Some((vteps, mtus)) if !scope.has_ways() && *vteps == self.held.sites.vteps() => *mtus,
            _ => self.look_at_ways().await,
        }
    }

    /// Looks up the ways to the VTEPs of all endpoints, and this node's own address, and returns the MTUs that follow from
    /// them. A way that cannot be found out stays as it was. The way to a lost node counts like any other, so that the MTUs
    /// of endpoints do not change twice with its lease.
    pub(super) async fn look_at_ways(&mut self) -> Mtus {
        let vteps = self.held.sites.vteps();
        let found = self.kernel.outside().ways(&vteps).await;
        let Ways { own, is_own_gone, device_mtu, outward_mtu, .. } = found;
        let Ways { mut ways, without, unknown, mut trouble, .. } = found;
        if let Some(own) = own {
            self.node.vtep.address = own;
        }
        self.is_own_gone = is_own_gone;
        ways.extend(unknown.iter().filter_map(|vtep| Some((*vtep, *self.ways.get(vtep)?))));
        let name =
            |(vtep, why): (Vtep, String)| format!("nothing is sent to the VTEP {vtep}: {why}");
        // To a lost node nothing is sent anyhow.
        let reachable = self.held.sites.reachable_vteps();
        trouble.extend(without.into_iter().filter(|(vtep, _)| reachable.contains(vtep)).map(name));
        // Before anything is sent by a device by which the answers come back.
        let devices = ways.values().map(|way| way.device).collect();
        let attached = self.kernel.outside().attach_uplinks(&devices).await;
        let is_sure = unknown.is_empty() && attached.is_ok();
        if let Err(error) = attached {
            trouble.push(crate::error_chain(&error));
        }
        if trouble != self.ways_trouble && !trouble.is_empty() {
            tracing::warn!(?trouble, "some ways to other nodes are not known");
        }
        (self.ways, self.ways_trouble) = (ways, trouble);
        let mtus = Mtus::new(device_mtu, self.node.asked_mtu, &self.ways);
        let mtus = mtus.with_outward(outward_mtu);
        // What could not be found out is asked again by the next pass.
        self.looked_up = is_sure.then_some((vteps, mtus));
        mtus
    }

    /// Follows the ways, where the view differs from the last one by no more than [`Reconciler::follow`] follows: only
    /// their entries change. Returns false if more changed, so that a pass is due.
    ///
    /// # Errors
    /// The kernel refused a change.
    pub(super) async fn follow_ways(&mut self, view: &View) -> Result<bool, KernelError> {
        if !self.follow(view).await? {
            return Ok(false);
        }
        let mtus = self.look_at_ways().await;
        if self.is_own_gone || self.status.borrow().mtus != mtus {
            return Ok(false);
        }
        let mut changes = Vec::new();
        for (vtep, index) in &self.held.placement.hops {
            if let Some(entry) = hop_entry(self.node.vtep, *vtep, self.ways.get(vtep).copied())
                && self.held.tables.hops.get(index) != Some(&entry)
            {
                changes.push(TableChange::PutHop(*index, entry));
            }
        }
        self.held.write(self.kernel.maps(), &changes).await?;
        let (unresolved, fallbacks) = (self.unresolved(), self.fallbacks());
        self.status.send_if_modified(|now| {
            let changed = now.unresolved != unresolved || now.fallbacks != fallbacks;
            (now.unresolved, now.fallbacks) = (unresolved, fallbacks);
            changed
        });
        Ok(true)
    }

    /// The nodes to which packets take the slower path, because their next hop is not resolved.
    pub(super) fn unresolved(&self) -> Vec<NodeId> {
        let Tables { nodes, hops, .. } = &self.held.tables;
        let keys = self.held.sites.reachable_vteps().into_iter();
        keys.filter_map(|vtep| nodes.get(&NodeKey { vtep: vtep.ip16() }))
            .filter(|node| node.node != 0)
            .filter(|node| hops.get(&node.hop).is_none_or(is_unresolved))
            .map(|node| node.node)
            .collect()
    }
}

/// Returns true if the kernel looks the next hop up for each packet. Where packets leave without an Ethernet header there
/// is none to resolve.
fn is_unresolved(hop: &HopEntry) -> bool {
    hop.ifindex == 0 && hop.via_device() != 0 && !hop.is_bare()
}
