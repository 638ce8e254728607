//! The real devices: veth pairs made by rtnetlink, with programs attached by the data path.

use super::{check::SharedNamespaces, datapath::SharedDatapath};
use crate::dataplane::{
    kernel::{
        DeviceFailure, DeviceKind, DeviceSpec, Devices, KernelError, Observed, ObservedDevice, Part,
    },
    netlink::{DeviceError, Interest, Netlink},
};
use std::{collections::BTreeSet, path::PathBuf, time::Instant};

/// The reason why an endpoint is down whose namespace was held (see `netlink::HeldNamespaces`).
const PROCESS_ENDED: &str = "its namespace was given by way of a process, which has ended, or the host was started anew: remove the endpoint, and create it again where it is to be";

/// The devices of endpoints.
pub struct HostDevices {
    datapath: SharedDatapath,
    netlink: Netlink,
    namespaces: SharedNamespaces,
    interest: Interest,
}

impl HostDevices {
    /// The devices in the network namespace of `netlink`. Those that are found are told to `interest`.
    #[must_use]
    pub fn new(
        datapath: SharedDatapath,
        netlink: Netlink,
        namespaces: SharedNamespaces,
        interest: Interest,
    ) -> Self {
        Self { datapath, netlink, namespaces, interest }
    }

    /// Removes the programs' links of devices that are gone, among all or among those with these indexes. Returns what
    /// could not be done, in words.
    async fn detach_gone(
        &self,
        devices: &[ObservedDevice],
        among: Option<&BTreeSet<u32>>,
    ) -> Vec<String> {
        let mut trouble = Vec::new();
        let present = devices.iter().map(|device| device.ifindex).collect();
        for program in DeviceKind::ALL.map(|kind| kind.row().program) {
            let mut attached = self.datapath.lock().attached(program);
            attached.retain(|index| among.is_none_or(|among| among.contains(index)));
            for missing in attached.difference(&present) {
                // A list that was interrupted may lack a device that stands.
                let outcome = match self.netlink.is_one_of_ours(*missing).await {
                    Ok(true) => continue,
                    Ok(false) => {
                        let detached = self.datapath.lock().detach(program, *missing);
                        detached.map_err(|error| crate::error_chain(&error))
                    }
                    Err(error) => Err(crate::error_chain(&error)),
                };
                if let Err(why) = outcome {
                    trouble.push(format!(
                        "removing the link of a device that is gone (index {missing}) failed: {why}"
                    ));
                }
            }
        }
        trouble
    }
}

/// Distinguishes a problem of one endpoint from one of the kernel.
fn failure(what: &'static str, error: DeviceError) -> DeviceFailure {
    match error {
        DeviceError::Netlink(error) => DeviceFailure::Kernel(KernelError::new(what, error)),
        DeviceError::Attach(error) => {
            DeviceFailure::Kernel(KernelError::new("attaching to a device failed", error))
        }
        error => DeviceFailure::Endpoint(crate::error_chain(&error)),
    }
}

impl Devices for HostDevices {
    async fn observe(&mut self, paths: &BTreeSet<PathBuf>) -> Result<Observed, KernelError> {
        let observed = self.netlink.observe(paths).await;
        let mut observed =
            observed.map_err(|e| KernelError::new("reading the devices failed", e))?;
        self.interest.has(observed.devices.iter().map(|device| device.ifindex));
        observed.trouble.extend(self.detach_gone(&observed.devices, None).await);
        Ok(observed)
    }

    async fn observe_part(&mut self, part: &Part) -> Result<Observed, KernelError> {
        let observed = self.netlink.observe_part(part).await;
        let mut observed =
            observed.map_err(|e| KernelError::new("reading some devices failed", e))?;
        self.interest.has(observed.devices.iter().map(|device| device.ifindex));
        let gone = self.detach_gone(&observed.devices, Some(&part.indexes)).await;
        observed.trouble.extend(gone);
        Ok(observed)
    }

    fn release_namespaces(&mut self, named: &BTreeSet<PathBuf>) {
        self.namespaces.lock().sweep(named, Instant::now());
    }

    async fn create(&mut self, spec: &DeviceSpec) -> Result<ObservedDevice, DeviceFailure> {
        let program = spec.id.kind.row().program;
        let attach = |ifname: &str, ifindex| self.datapath.lock().attach(program, ifname, ifindex);
        let created = self.netlink.create_device(spec, attach).await;
        created.map_err(|error| match error {
            DeviceError::NoNamespace(_) | DeviceError::NotNamespace(_)
                if self.namespaces.lock().has(&spec.netns) =>
            {
                DeviceFailure::Endpoint(PROCESS_ENDED.to_owned())
            }
            error => failure("creating a device failed", error),
        })
    }

    async fn attach(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        let program = seen.id.kind.row().program;
        let attached = self.datapath.lock().attach(program, &seen.ifname, seen.ifindex);
        attached.map_err(|e| KernelError::new("attaching to a device failed", e))
    }

    async fn update(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<(), DeviceFailure> {
        let updated = self.netlink.update_device(seen, spec).await;
        updated.map_err(|error| failure("changing a device's sizes failed", error))
    }

    async fn raise(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceFailure> {
        let raised = self.netlink.raise_device(seen, spec).await;
        raised.map_err(|error| failure("setting a device up failed", error))
    }

    async fn remove(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        let removed = self.netlink.remove_seen(seen).await;
        removed.map_err(|e| KernelError::new("removing a device failed", e))?;
        let detached = self.datapath.lock().detach(seen.id.kind.row().program, seen.ifindex);
        detached.map_err(|e| KernelError::new("removing a device's link failed", e))
    }
}
