//! The underlay, the way to the outside and the resolvers of the kernel in memory.

use super::{BRIDGE, Call, FakeKernel, UNDERLAY, has};
use crate::{
    dataplane::kernel::{
        DeviceKind, GatewayUse, KernelError, LinkLayer, LocalGateway, Names, NextHop,
        ObservedDevice, Outside, OutsideHealth, Resolve, Resolved, Stations, Way, Ways,
    },
    model::{Encapsulation, Vtep},
};
use overlay_common::ip16_from_v4;
use std::{collections::BTreeSet, sync::Arc};

impl Outside for FakeKernel {
    async fn repair(&mut self, gateway: &LocalGateway, stations: &Stations) -> Vec<String> {
        self.repaired += 1;
        self.stations.clone_from(stations);
        let legs = self.devices.values_mut().filter(|device| device.id.kind == DeviceKind::Leg);
        self.bridge_mtu = gateway.mtu;
        for leg in legs {
            self.bridge_mtu = self.bridge_mtu.min(leg.mtu);
            if stations.contains_key(&leg.id) {
                leg.bridge = BRIDGE;
            }
        }
        self.is_bridge_gone = false;
        self.is_own_gone = false;
        self.unrepaired.clone()
    }

    async fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> Ways {
        self.looked_for_ways += 1;
        let device_mtu = self.mtu.unwrap_or(1500);
        let mac = [2, 0, 0, 0, 0, self.router];
        let hop = NextHop { mac, source_mac: [4; 6] };
        let way = |vtep: &Vtep| {
            let mtu = self.route_mtus.get(vtep).map_or(device_mtu, |mtu| device_mtu.min(*mtu));
            let hop = (!self.unresolved.contains(vtep)).then_some(hop);
            let (encapsulation, link_layer) = (Encapsulation::VxlanIpv4, LinkLayer::Ethernet);
            let device = self.uplinks.get(vtep).copied().unwrap_or(UNDERLAY);
            (*vtep, Way { mtu, encapsulation, device, link_layer, hop })
        };
        let unknown: BTreeSet<Vtep> = vteps.intersection(&self.unknown_ways).copied().collect();
        let trouble = unknown.iter().map(|vtep| format!("way to {vtep}: refused")).collect();
        let without: BTreeSet<Vtep> = vteps.intersection(&self.unreachable).copied().collect();
        let ways = (&(vteps - &unknown) - &without).iter().map(way).collect();
        let without = without.into_iter().map(|vtep| (vtep, "no route".to_owned())).collect();
        let (own, is_own_gone) = (self.own, self.is_own_gone);
        let outward_mtu = None;
        Ways { own, is_own_gone, device_mtu, outward_mtu, ways, without, unknown, trouble }
    }

    async fn attach_uplinks(&mut self, devices: &BTreeSet<u32>) -> Result<(), KernelError> {
        self.try_call(Call::AttachUplinks)?;
        self.attached_uplinks.clone_from(devices);
        Ok(())
    }

    async fn swap_programs(&mut self) -> Result<(), KernelError> {
        self.try_call(Call::SwapPrograms)?;
        let now = self.tables.clone();
        self.swapped_with.get_or_insert(now);
        Ok(())
    }

    async fn update_bridge(&mut self, gateway: &LocalGateway) -> Result<(), KernelError> {
        self.try_call(Call::UpdateBridge)?;
        let mut legs = self.devices.values().filter(|device| device.id.kind == DeviceKind::Leg);
        assert!(
            legs.all(|leg| leg.mtu >= gateway.mtu),
            "the bridge takes no more than its legs do"
        );
        self.bridge_mtu = gateway.mtu;
        Ok(())
    }

    async fn publish(&mut self, wanted: &GatewayUse) -> Result<(), KernelError> {
        let GatewayUse { ports, legs, translates } = wanted;
        self.try_call(Call::Publish)?;
        self.publications += 1;
        for target in ports.values() {
            let stands = |device: &ObservedDevice| has(device, target.address);
            assert!(self.devices.values().any(stands), "the leg stands before a port leads there");
        }
        for (leg, address) in legs {
            let is_up = |device: &ObservedDevice| device.id == *leg && device.complete;
            let stands = |device: &ObservedDevice| is_up(device) && has(device, *address);
            assert!(self.devices.values().any(stands), "{leg} is set up and has its address");
        }
        let is_leg = |device: &ObservedDevice| device.id.kind == DeviceKind::Leg;
        assert!(
            *translates || !self.devices.values().any(is_leg),
            "a leg has the rules that translate"
        );
        self.translates = *translates;
        self.published.clone_from(ports);
        self.legs.clone_from(legs);
        Ok(())
    }

    fn health(&self) -> OutsideHealth {
        OutsideHealth { published: self.published.len(), ..self.outside.clone() }
    }
}

impl Resolve for FakeKernel {
    async fn resolve(&mut self, names: &Arc<Names>, _is_whole: bool) -> Resolved {
        for network in names.networks.values() {
            for address in network.pointers.keys() {
                let ip = ip16_from_v4(address.octets());
                let held = self.tables.fdb.values().any(|entry| entry.ip == ip);
                assert!(
                    held || self.is_meddled,
                    "a name is there only while the data path has the endpoint"
                );
            }
        }
        self.told += 1;
        let addresses = names.networks.values().map(|network| network.pointers.len()).sum();
        self.fewest_names = self.fewest_names.min(addresses);
        self.names = Arc::clone(names);
        Resolved {
            resolvers: names.namespaces.len(),
            trouble: self.trouble.clone(),
            fallbacks: self.name_fallbacks.clone(),
        }
    }
}
