//! What one pass has found and made so far.

use crate::{
    dataplane::kernel::{
        DeviceFailure, DeviceId, EndpointHealth, KernelError, LegHealth, ObservedDevice,
    },
    model::LegId,
};
use std::collections::BTreeMap;

/// The devices that exist, and the failures of a pass.
#[derive(Default)]
pub(super) struct PassState {
    pub(super) devices: BTreeMap<DeviceId, ObservedDevice>,
    /// The devices that could not be created or raised, or that have no program, and why.
    pub(super) refused: BTreeMap<DeviceId, String>,
    /// What could not be done, in words, and is no endpoint's problem.
    pub(super) left: Vec<String>,
    /// The kernel refused something for one device. The pass is complete for all others, and is made again soon.
    pub(super) is_incomplete: bool,
    /// The first failure that is not the problem of one device. The pass goes on, and reports at its end that it failed.
    pub(super) failed: Option<KernelError>,
}

/// The reason why a device could not be created or changed, in words.
pub(super) fn reason(failure: &DeviceFailure) -> String {
    match failure {
        DeviceFailure::Endpoint(reason) => reason.clone(),
        DeviceFailure::Kernel(error) => crate::error_chain(error),
    }
}

impl PassState {
    /// Notes that a device is not as it must be, whose endpoint is down for that.
    pub(super) fn refuse(&mut self, id: DeviceId, failure: DeviceFailure) {
        self.is_incomplete |= matches!(failure, DeviceFailure::Kernel(_));
        self.refused.insert(id, reason(&failure));
    }

    /// Remembers the first failure.
    pub(super) fn note(&mut self, outcome: Result<(), KernelError>) {
        if let Err(error) = outcome {
            self.failed.get_or_insert(error);
        }
    }

    /// The state of an endpoint, which is up when its port and, where it has one, its gateway leg are up.
    pub(super) fn health(&self, port: DeviceId, leg: Option<LegId>) -> EndpointHealth {
        let leg = leg.map(DeviceId::leg);
        let down = |id: DeviceId| match (self.devices.get(&id), self.refused.get(&id)) {
            (_, Some(reason)) => Some(reason.clone()),
            (Some(device), None) => device.ailment(),
            (None, None) => Some(
                "its address is not of this node's gateway subnet: the node is to register again"
                    .to_owned(),
            ),
        };
        let legs_down = leg.and_then(down).map(|reason| format!("gateway leg: {reason}"));
        if let Some(reason) = down(port).or(legs_down) {
            return EndpointHealth { down: Some(reason), ..EndpointHealth::default() };
        }
        let Some(device) = self.devices.get(&port) else { return EndpointHealth::default() };
        EndpointHealth {
            down: None,
            was_up: true,
            ifname: device.ifname.clone(),
            ifindex: device.ifindex,
            mtu: device.mtu,
            interface: device.interface().to_owned(),
            gateway: leg.and_then(|leg| self.devices.get(&leg)).map(|leg| LegHealth {
                interface: leg.interface().to_owned(),
                ifname: leg.ifname.clone(),
                ifindex: leg.ifindex,
                mtu: leg.mtu,
            }),
        }
    }
}
