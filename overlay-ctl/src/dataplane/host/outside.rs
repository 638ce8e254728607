//! The real underlay, and the real way to and from the outside world.

use super::{
    big_tcp::SuperPacketPlan, datapath::SharedDatapath, gateway::HostGateway, guard::GuardKeeper,
};
use crate::{
    config::Xdp,
    dataplane::{
        kernel::{
            KernelError, Legs, LocalGateway, Outside, OutsideHealth, PublishedPorts, Stations, Ways,
        },
        netlink::{Netlink, Underlay, UnderlayChoice},
    },
    model::Vtep,
};
use std::collections::{BTreeMap, BTreeSet};

/// The underlay, the gateway bridge, and published ports.
pub struct HostOutside {
    datapath: SharedDatapath,
    netlink: Netlink,
    underlay: Underlay,
    vxlan_port: u16,
    super_packets: SuperPacketPlan,
    gateway: HostGateway,
    guard: GuardKeeper,
    /// Ports that the barrier does not hold, in words.
    fallbacks: Vec<String>,
}

impl HostOutside {
    /// Of a node with this underlay.
    #[must_use]
    pub fn new(
        datapath: SharedDatapath,
        netlink: Netlink,
        (underlay, vxlan_port): (Underlay, u16),
        super_packets: SuperPacketPlan,
        gateway: HostGateway,
        xdp: Xdp,
    ) -> Self {
        let guard = GuardKeeper::new(xdp, underlay.ifindex);
        let fallbacks = Vec::new();
        Self { datapath, netlink, underlay, vxlan_port, super_packets, gateway, guard, fallbacks }
    }

    /// Attaches `guard_underlay` to the underlay device or detaches it, as `--xdp` says.
    pub(super) async fn guard_underlay(&mut self) {
        self.guard.keep(&self.datapath, &self.netlink).await;
    }

    /// Checks that the node's address is still on the same device.
    async fn check_underlay(&self) -> Result<(), KernelError> {
        let choice = UnderlayChoice::Address(self.underlay.address);
        let found = self.netlink.underlay(&choice).await;
        let now =
            found.map_err(|e| KernelError::new("the underlay device can't be used any more", e))?;
        if now.ifindex != self.underlay.ifindex {
            let (address, name) = (now.address, now.name);
            let why = format!("{address} is on another device now, {name}: restart the node");
            return Err(KernelError::new("the underlay changed", why));
        }
        Ok(())
    }
}

impl Outside for HostOutside {
    async fn repair(
        &mut self,
        gateway: &LocalGateway,
        stations: &Stations,
    ) -> Result<(), KernelError> {
        let failed =
            |e| KernelError::new("creating the barrier bridge or the GRO device failed", e);
        let gap = self.netlink.ensure_barrier().await.map_err(failed)?;
        self.netlink.ensure_gro_device(&self.underlay, self.vxlan_port).await.map_err(failed)?;
        self.gateway.repair(gateway, stations, &self.underlay.name).await?;
        let fallbacks: Vec<String> = gap.iter().map(ToString::to_string).collect();
        if fallbacks != self.fallbacks {
            tracing::warn!(?fallbacks, "packets take a slower path");
            self.fallbacks = fallbacks;
        }
        self.check_underlay().await?;
        self.guard_underlay().await;
        let kept = self.super_packets.keep(&self.netlink, self.underlay.ifindex).await;
        kept.map_err(|e| KernelError::new("changing the underlay device failed", e))?;
        let attached = self.datapath.lock().ensure_underlay(&self.underlay.name);
        attached.map_err(|e| KernelError::new("attaching to the underlay failed", e))
    }

    async fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> Result<Ways, KernelError> {
        let mut ways = BTreeMap::new();
        for vtep in vteps {
            let way = self.netlink.way(*vtep, &self.underlay).await;
            if let Some(way) = way.map_err(|e| KernelError::new("looking up a route failed", e))? {
                ways.insert(*vtep, way);
            }
        }
        let sizes = self.netlink.device_sizes(self.underlay.ifindex).await;
        let sizes = sizes.map_err(|e| KernelError::new("looking at the underlay failed", e))?;
        // Where the device is gone its last MTU stands: `repair` reports the loss.
        if let Some(sizes) = sizes {
            self.underlay.mtu = sizes.mtu;
        }
        Ok(Ways { device_mtu: self.underlay.mtu, ways })
    }

    async fn swap_programs(&mut self) -> Result<(), KernelError> {
        let swapped = self.datapath.lock().swap_programs();
        if swapped.map_err(|e| KernelError::new("replacing the programs failed", e))? {
            // The guard was left alone until now.
            self.guard_underlay().await;
        }
        Ok(())
    }

    async fn update_bridge(&mut self, gateway: &LocalGateway) -> Result<(), KernelError> {
        let super_packets = &self.super_packets.devices().gateway;
        let updated = self.netlink.update_gateway_bridge(gateway.mtu, super_packets).await;
        updated.map_err(|e| KernelError::new("changing the gateway bridge failed", e))
    }

    fn doubt_rules(&mut self) {
        self.gateway.doubt();
    }

    async fn publish(&mut self, ports: &PublishedPorts, legs: &Legs) -> Result<(), KernelError> {
        self.gateway.publish(ports, legs).await
    }

    fn health(&self) -> OutsideHealth {
        let guard = self.datapath.lock().guard().clone();
        let guard = guard.is_fallback.then(|| format!("no XDP guard: {}", guard.why));
        let fallbacks = self.fallbacks.iter().cloned().chain(guard);
        OutsideHealth {
            fallbacks: fallbacks.chain(self.gateway.trouble()).collect(),
            published: self.gateway.published(),
            forwarding: self.gateway.forwarding().clone(),
        }
    }
}
