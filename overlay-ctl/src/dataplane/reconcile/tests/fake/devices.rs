//! The devices of the kernel in memory.

use super::{BRIDGE, Call, FakeKernel, has};
use crate::dataplane::kernel::{
    Bridge, DeviceFailure, DeviceKind, DeviceSpec, Devices, KernelError, Observed, ObservedBridge,
    ObservedDevice, ObservedPeer, Part, SuperPackets, Target,
};
use std::{collections::BTreeSet, path::PathBuf};

impl Devices for FakeKernel {
    async fn observe(&mut self, paths: &BTreeSet<PathBuf>) -> Result<Observed, KernelError> {
        self.looked += 1;
        if let Some(slow) = self.slow.take() {
            tokio::time::sleep(slow).await;
        }
        Ok(self.observed(paths, |_| true))
    }

    async fn observe_part(&mut self, part: &Part) -> Result<Observed, KernelError> {
        self.glanced += 1;
        let Part { indexes, ids, paths } = part;
        self.glanced_at.extend(ids);
        let is_asked =
            |seen: &ObservedDevice| indexes.contains(&seen.ifindex) || ids.contains(&seen.id);
        Ok(self.observed(paths, is_asked))
    }

    fn release_namespaces(&mut self, named: &BTreeSet<PathBuf>) {
        self.named.clone_from(named);
    }

    async fn create(&mut self, spec: &DeviceSpec) -> Result<ObservedDevice, DeviceFailure> {
        self.try_device(Call::Create, spec.id)?;
        let Some(netns) = self.netns(&spec.netns) else {
            return Err(DeviceFailure::Endpoint("its namespace is gone".into()));
        };
        let row = spec.id.kind.row();
        let is_inside =
            |device: &&ObservedDevice| device.peer.as_ref().is_some_and(|peer| peer.netns == netns);
        let inside: Vec<&str> =
            self.devices.values().filter(is_inside).map(ObservedDevice::interface).collect();
        let ifname = row.interface.choose(&inside);
        if inside.contains(&ifname.as_str()) {
            return Err(DeviceFailure::Endpoint(format!("{ifname} exists")));
        }
        let legs = self.devices.values().filter(|device| device.id.kind == DeviceKind::Leg);
        if spec.id.kind == DeviceKind::Leg && self.room.is_some_and(|room| legs.count() >= room) {
            return Err(DeviceFailure::Endpoint("the bridge is full".into()));
        }
        assert!(self.devices.values().all(|device| device.id != spec.id), "the old one goes first");
        self.last_ifindex += 1;
        let peer = ObservedPeer {
            netns,
            ifindex: 2,
            ifname,
            up: false,
            running: false,
            mac: spec.mac.to_vec(),
            mtu: spec.sizes.mtu,
            super_packets: SuperPackets::default(),
            addresses: spec.addresses.clone(),
        };
        let device = ObservedDevice {
            id: spec.id,
            ifname: format!("device{}", self.last_ifindex),
            ifindex: self.last_ifindex,
            up: false,
            running: false,
            complete: false,
            queued: false,
            mtu: spec.sizes.mtu,
            super_packets: SuperPackets::default(),
            bridge: if row.bridge == Bridge::Gateway { BRIDGE } else { 0 },
            peer: Some(peer),
        };
        self.devices.insert(device.ifindex, device.clone());
        self.attached.insert(device.ifindex);
        self.log.push(format!("create {}", spec.id));
        Ok(device)
    }

    async fn attach(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        self.try_device(Call::Attach, seen.id).map_err(of_the_kernel)?;
        assert!(self.devices.contains_key(&seen.ifindex));
        self.attached.insert(seen.ifindex);
        Ok(())
    }

    async fn update(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<(), DeviceFailure> {
        self.try_device(Call::Update, seen.id)?;
        let device = self.devices.get_mut(&seen.ifindex).unwrap();
        let is_leg = device.id.kind == DeviceKind::Leg;
        assert!(!is_leg || self.bridge_mtu <= spec.sizes.mtu, "the bridge shrinks before its legs");
        device.mtu = spec.sizes.mtu;
        self.log.push(format!("update {} {}", seen.id, spec.sizes.mtu));
        Ok(())
    }

    async fn raise(
        &mut self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
    ) -> Result<ObservedDevice, DeviceFailure> {
        assert_eq!(seen.id, spec.id);
        let tables = &self.tables;
        let programmed = match seen.id.kind {
            DeviceKind::Port => tables.ports.contains_key(&seen.ifindex),
            DeviceKind::Leg => {
                let leg = tables.gateway_ports.get(&seen.ifindex);
                leg.is_some_and(|leg| leg.bridge == BRIDGE)
            }
        };
        assert!(programmed, "programmed before it is up");
        self.try_device(Call::Raise, seen.id)?;
        self.up.insert(seen.ifindex);
        let device = self.devices.get_mut(&seen.ifindex).unwrap();
        (device.up, device.complete) = (!self.is_set_down, true);
        if let Some(peer) = &mut device.peer {
            peer.up = true;
        }
        Ok(device.clone())
    }

    async fn remove(&mut self, seen: &ObservedDevice) -> Result<(), KernelError> {
        self.try_device(Call::Remove, seen.id).map_err(of_the_kernel)?;
        let named = self.tables.fdb.values().any(|entry| entry.ifindex == seen.ifindex);
        assert!(!named || self.is_meddled, "the tables forget a port before it goes");
        if seen.id.kind == DeviceKind::Leg {
            let leads = |to: &Target| has(seen, to.address);
            assert!(!self.published.values().any(leads), "nothing leads there");
            assert!(!self.legs.contains_key(&seen.id), "its connections were ended");
        }
        self.devices.remove(&seen.ifindex);
        self.up.remove(&seen.ifindex);
        self.attached.remove(&seen.ifindex);
        self.log.push(format!("remove {}", seen.id));
        Ok(())
    }
}

impl FakeKernel {
    fn observed(
        &self,
        paths: &BTreeSet<PathBuf>,
        is_asked: impl Fn(&ObservedDevice) -> bool,
    ) -> Observed {
        let namespaces = paths.iter().filter_map(|path| Some((path.clone(), self.netns(path)?)));
        let devices = self.devices.values().filter(|device| is_asked(device));
        Observed {
            devices: devices.cloned().collect(),
            namespaces: namespaces.collect(),
            bridge: (!self.is_bridge_gone)
                .then_some(ObservedBridge { ifindex: BRIDGE, mtu: self.bridge_mtu }),
            trouble: Vec::new(),
        }
    }
}

fn of_the_kernel(failure: DeviceFailure) -> KernelError {
    match failure {
        DeviceFailure::Kernel(error) => error,
        DeviceFailure::Endpoint(reason) => panic!("{reason}: it is no endpoint's problem"),
    }
}
