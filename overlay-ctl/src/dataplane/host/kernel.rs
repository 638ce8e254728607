//! The real kernel: its four doors as one value.

use super::{devices::HostDevices, maps::HostMaps, outside::HostOutside, resolve::HostResolve};
use crate::dataplane::kernel::Kernel;

/// The real kernel.
pub struct HostKernel {
    /// The maps of the data path.
    pub maps: HostMaps,
    /// The devices of endpoints.
    pub devices: HostDevices,
    /// The underlay, the gateway bridge, and published ports.
    pub outside: HostOutside,
    /// The resolvers.
    pub resolve: HostResolve,
}

impl HostKernel {
    /// Attaches `guard_underlay` to the underlay device or detaches it, as `--xdp` says. The reconciler then keeps it
    /// so.
    pub async fn guard_underlay(&mut self) {
        self.outside.guard_underlay().await;
    }
}

impl Kernel for HostKernel {
    type Maps = HostMaps;
    type Devices = HostDevices;
    type Outside = HostOutside;
    type Resolve = HostResolve;

    fn maps(&mut self) -> &mut HostMaps {
        &mut self.maps
    }

    fn devices(&mut self) -> &mut HostDevices {
        &mut self.devices
    }

    fn outside(&mut self) -> &mut HostOutside {
        &mut self.outside
    }

    fn resolve(&mut self) -> &mut HostResolve {
        &mut self.resolve
    }
}
