//! What has to be done to the devices: a pure function of what is wanted and what is seen.

use crate::dataplane::kernel::{
    Bridge, DeviceId, DeviceSpec, Interface, NetnsId, Observed, ObservedDevice, WantedDevices,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// The steps of one pass, in the order in which the pass carries them out.
///
/// Between creating and removing, the pass writes the tables: a device exists before an entry names it, and no entry
/// names a device that is removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// The gateway bridge gets its smaller MTU before the legs get theirs, so that at no moment it takes packets that
    /// a leg does not take. Otherwise it gets its MTU after them.
    pub(super) bridge_first: bool,
    /// Devices that stay.
    pub(super) keep: BTreeMap<DeviceId, ObservedDevice>,
    /// Those of them that get other sizes.
    pub(super) update: BTreeSet<DeviceId>,
    /// Devices to create at once.
    pub(super) create: BTreeSet<DeviceId>,
    /// Devices to remove, and why.
    pub(super) remove: Vec<(ObservedDevice, &'static str)>,
    /// Devices to create when the others are removed, because one of those is in their place.
    pub(super) recreate: BTreeSet<DeviceId>,
    /// Devices to set up in the end.
    pub(super) raise: BTreeSet<DeviceId>,
    /// The gateway bridge is gone, or a leg is outside of it, which a pass does not repair.
    pub(super) is_displaced: bool,
}

/// Plans one pass.
pub(super) fn plan(wanted: &WantedDevices, observed: Observed) -> Plan {
    let Observed { devices, namespaces, bridge, trouble: _ } = observed;
    let mut plan = Plan {
        bridge_first: bridge.is_some_and(|bridge| wanted.gateway.mtu < bridge.mtu),
        ..Plan::default()
    };
    for device in devices {
        let reason = match wanted.devices.get(&device.id) {
            Some(spec) => fault(&device, spec, &namespaces),
            None => Some("its endpoint is gone"),
        };
        match reason {
            Some(reason) => plan.remove.push((device, reason)),
            None => _ = plan.keep.insert(device.id, device),
        }
    }
    let is_out = |device: &ObservedDevice| {
        let is_leg = device.id.kind.row().bridge == Bridge::Gateway;
        is_leg && bridge.is_some_and(|bridge| bridge.ifindex != device.bridge)
    };
    plan.is_displaced = bridge.is_none() || plan.keep.values().any(is_out);
    for (id, spec) in &wanted.devices {
        match plan.keep.get(id) {
            Some(device) => {
                if !device.has(&spec.sizes) {
                    plan.update.insert(*id);
                }
                // What is outside of its bridge is raised by the pass after the repair.
                if !device.is_active() && !is_out(device) {
                    plan.raise.insert(*id);
                }
            }
            None => {
                let netns = namespaces.get(&spec.netns).copied();
                let waits = plan.remove.iter().any(|(device, _)| blocks(device, spec, netns));
                if waits { &mut plan.recreate } else { &mut plan.create }.insert(*id);
                plan.raise.insert(*id);
            }
        }
    }
    plan
}

/// The reason why a device has to be rebuilt; `None` where it can stay.
///
/// Inside, only the namespace counts once the device was raised: what the endpoint does to its own interface is its
/// own business, and the data path enforces its addresses. A device that never was raised is compared with the whole
/// spec.
fn fault(
    device: &ObservedDevice,
    spec: &DeviceSpec,
    namespaces: &BTreeMap<PathBuf, NetnsId>,
) -> Option<&'static str> {
    let Some(peer) = &device.peer else { return Some("the endpoint's interface is gone") };
    // A path may be gone while the namespace lives on with the processes inside: so does the device.
    let netns = *namespaces.get(&spec.netns)?;
    if peer.netns != netns {
        return Some("the namespace was made anew");
    }
    if device.complete { None } else { device.difference(spec, netns) }
}

/// Returns true if the new device can only be created when `removed` is gone: the two have one id, or the interface
/// of one has the only name that the interface of the other can have.
fn blocks(removed: &ObservedDevice, spec: &DeviceSpec, netns: Option<NetnsId>) -> bool {
    let is_in_its_place = match (spec.id.kind.row().interface, &removed.peer) {
        (Interface::Named(name), Some(peer)) => peer.ifname == name && Some(peer.netns) == netns,
        (Interface::Named(_) | Interface::FirstFree, _) => false,
    };
    removed.id == spec.id || is_in_its_place
}
