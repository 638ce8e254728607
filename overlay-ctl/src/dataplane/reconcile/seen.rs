//! The devices as the looks saw them, with what passes changed since. So a pass for one event need not look at all of them.

use super::{pass_state::PassState, plan::Plan, scope::Scope};
use crate::dataplane::kernel::{DeviceId, Observed, Part, WantedDevices};
use std::collections::BTreeSet;

/// More devices than this are no part any more: then everything is looked at.
const PART_MAX: usize = 256;

/// What is remembered of the devices. It is known only from the end of one pass that failed nowhere to the begin of the
/// next.
#[derive(Debug, Default)]
pub(super) struct Seen {
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    observed: Observed,
    /// What the last pass wanted.
    wanted: WantedDevices,
    /// The devices that the last pass changed and did not read back.
    doubted: BTreeSet<DeviceId>,
}

impl Seen {
    /// The part that is to be looked at. `None`: everything is.
    pub(super) fn part(&self, wanted: &WantedDevices, scope: &Scope) -> Option<Part> {
        let known = self.known.as_ref().filter(|_| !scope.is_whole())?;
        let mut ids = known.doubted.clone();
        let (before, now) = (&known.wanted.devices, &wanted.devices);
        let is_other = |id: &&DeviceId| before.get(id) != now.get(id);
        ids.extend(before.keys().chain(now.keys()).filter(is_other));
        let may_concern =
            |id: &DeviceId| now.get(id).is_some_and(|spec| scope.may_concern(&spec.netns));
        ids.extend(now.keys().filter(|id| may_concern(id)));
        let mut indexes = scope.devices().clone();
        for device in &known.observed.devices {
            if indexes.contains(&device.ifindex) {
                ids.insert(device.id);
            } else if ids.contains(&device.id) {
                // It may have another name by now.
                indexes.insert(device.ifindex);
            }
        }
        if ids.len() + indexes.len() > PART_MAX {
            return None;
        }
        let specs = ids.iter().filter_map(|id| now.get(id));
        let paths = specs.map(|spec| spec.netns.clone()).collect();
        Some(Part { indexes, ids, paths })
    }

    /// Returns true if the scope may have something in it that the node has or wants: a device, the namespace of an
    /// endpoint, or a way.
    pub(super) fn is_concerned(&self, scope: &Scope) -> bool {
        let Some(known) = &self.known else { return true };
        let mut specs = known.wanted.devices.values();
        scope.has_ways()
            || !scope.devices().is_empty()
            || specs.any(|spec| scope.may_concern(&spec.netns))
    }

    /// What was seen of everything, now that `fresh` was seen of `part`. Until the pass ends nothing is known.
    pub(super) fn with(&mut self, part: &Part, fresh: Observed) -> Observed {
        let Some(Known { mut observed, .. }) = self.known.take() else { return fresh };
        let Observed { devices, namespaces, bridge, trouble } = fresh;
        let Part { indexes, ids, paths } = part;
        observed.devices.retain(|device| {
            let is_asked = indexes.contains(&device.ifindex) || ids.contains(&device.id);
            !is_asked && devices.iter().all(|fresh| fresh.id != device.id)
        });
        observed.devices.extend(devices);
        observed.devices.sort_by_key(|device| device.id);
        observed.namespaces.retain(|path, _| !paths.contains(path));
        observed.namespaces.extend(namespaces);
        observed.bridge = bridge;
        for why in trouble {
            if !observed.trouble.contains(&why) {
                observed.trouble.push(why);
            }
        }
        observed
    }

    /// Remembers how a pass left the devices. To be called only after one that was complete.
    pub(super) fn remember(
        &mut self,
        mut observed: Observed,
        wanted: WantedDevices,
        (plan, state): (&Plan, &PassState),
    ) {
        observed.devices = state.devices.values().cloned().collect();
        for (id, device) in &state.devices {
            // It was just made in the namespace that the path leads to.
            if plan.keep.contains_key(id) {
                continue;
            }
            if let (Some(spec), Some(peer)) = (wanted.devices.get(id), &device.peer) {
                observed.namespaces.insert(spec.netns.clone(), peer.netns);
            }
        }
        let touched = plan.update.iter().chain(state.refused.keys());
        let doubted = touched.filter(|id| state.devices.contains_key(id)).copied().collect();
        self.known = Some(Known { observed, wanted, doubted });
    }

    /// Forgets everything: the next pass looks at everything.
    pub(super) fn forget(&mut self) {
        self.known = None;
    }
}
