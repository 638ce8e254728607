//! What one pass has found and made so far.

use crate::{
    dataplane::kernel::{DeviceId, EndpointHealth, KernelError, LegHealth, ObservedDevice, Way},
    model::{LegId, Vtep},
};
use std::collections::BTreeMap;

/// The devices that exist, the ways, and the failures of a pass.
#[derive(Default)]
pub(super) struct PassState {
    pub(super) devices: BTreeMap<DeviceId, ObservedDevice>,
    /// The way to each VTEP.
    pub(super) ways: BTreeMap<Vtep, Way>,
    /// The devices that could not be created or raised, and why.
    pub(super) refused: BTreeMap<DeviceId, String>,
    /// The first failure. One device's failure must not keep the others from what they need: the pass goes on, and
    /// reports at its end that it failed.
    pub(super) failed: Option<KernelError>,
}

impl PassState {
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
            (Some(device), _) if device.is_active() => None,
            (_, Some(reason)) => Some(reason.clone()),
            (Some(_), None) => Some("its device could not be set up".to_owned()),
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
