//! What a pass has made so far: the devices that stand, with the indexes that the tables name.

use crate::dataplane::kernel::{
    DeviceId, EndpointHealth, KernelError, LegHealth, ObservedDevice, Way,
};
use std::{collections::BTreeMap, net::Ipv4Addr};

/// What a pass has found and made so far.
#[derive(Default)]
pub(super) struct Made {
    pub(super) devices: BTreeMap<DeviceId, ObservedDevice>,
    /// How each VTEP is reached.
    pub(super) ways: BTreeMap<Ipv4Addr, Way>,
    /// What could not be made, and why.
    pub(super) refused: BTreeMap<DeviceId, String>,
    /// One device's failure must not keep the others from what they need: the pass goes on, and says
    /// at its end that it failed.
    pub(super) failed: Option<KernelError>,
}

impl Made {
    pub(super) fn note(&mut self, outcome: Result<(), KernelError>) {
        if let Err(error) = outcome {
            self.failed.get_or_insert(error);
        }
    }

    /// An endpoint is up when its port and, where it has one, its gateway leg are.
    pub(super) fn health(&self, port: DeviceId, leg: Option<Ipv4Addr>) -> EndpointHealth {
        let leg = leg.map(DeviceId::Leg);
        let down = |id: DeviceId| match (self.devices.get(&id), self.refused.get(&id)) {
            (Some(device), _) if device.up => None,
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
            interface: device.interface.clone(),
            gateway: leg.and_then(|leg| self.devices.get(&leg)).map(|leg| LegHealth {
                interface: leg.interface.clone(),
                ifname: leg.ifname.clone(),
                ifindex: leg.ifindex,
                mtu: leg.mtu,
            }),
        }
    }
}
