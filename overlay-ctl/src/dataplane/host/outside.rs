//! The real underlay, and the real way to and from the outside world.

use super::{
    big_tcp::SuperPacketPlan, datapath::SharedDatapath, gateway::HostGateway, guard::GuardKeeper,
    merging::MergeKeeper, neighbours::NeighbourPressure,
};
use crate::{
    config::Xdp,
    dataplane::{
        kernel::{
            KernelError, Legs, LocalGateway, Outside, OutsideHealth, PublishedPorts, Stations, Ways,
        },
        netlink::{Interest, LinkList, Netlink, Underlay, UnderlayChoice, vxlan_user},
    },
    model::Vtep,
};
use std::collections::BTreeSet;

/// The underlay, the gateway bridge, and published ports.
pub struct HostOutside {
    datapath: SharedDatapath,
    netlink: Netlink,
    underlay: Underlay,
    vxlan_port: u16,
    super_packets: SuperPacketPlan,
    gateway: HostGateway,
    guard: GuardKeeper,
    /// The changes of the ways that the node is told of.
    interest: Interest,
    neighbours: NeighbourPressure,
    merging: MergeKeeper,
    outward_mtu: Option<u32>,
    /// Another program's VXLAN device on the VXLAN port, as last seen.
    port_user: Option<String>,
}

impl HostOutside {
    /// Of a node with this underlay.
    #[must_use]
    pub fn new(
        datapath: SharedDatapath,
        netlink: Netlink,
        (underlay, vxlan_port): (Underlay, u16),
        (super_packets, merging): (SuperPacketPlan, MergeKeeper),
        gateway: HostGateway,
        xdp: Xdp,
        interest: Interest,
    ) -> Self {
        let guard = GuardKeeper::new(xdp, underlay.ifindex);
        let neighbours = NeighbourPressure::default();
        Self {
            datapath,
            netlink,
            underlay,
            vxlan_port,
            super_packets,
            gateway,
            guard,
            interest,
            neighbours,
            merging,
            outward_mtu: None,
            port_user: None,
        }
    }

    /// Attaches `guard_underlay` to the underlay device or detaches it, as `--xdp` says.
    pub(super) async fn guard_underlay(&mut self) {
        self.guard.keep(&self.datapath, &self.netlink).await;
    }

    /// Checks that the node's address is still on the same device, which may have been renamed.
    async fn check_underlay(&mut self, links: &LinkList) -> Result<(), KernelError> {
        let choice = UnderlayChoice::Address(self.underlay.address);
        let found = self.netlink.underlay_among(links, &choice).await;
        let now =
            found.map_err(|e| KernelError::new("the underlay device can't be used any more", e))?;
        if now.ifindex != self.underlay.ifindex {
            let (address, name) = (now.address, now.name);
            let why = format!("{address} is on another device now, {name}: restart the node");
            return Err(KernelError::new("the underlay changed", why));
        }
        self.underlay.name = now.name;
        Ok(())
    }
}

/// What could not be done, in words.
#[derive(Default)]
struct Trouble(Vec<String>);

impl Trouble {
    /// Notes a failure. Returns what was done, if it was.
    fn note<T>(
        &mut self,
        what: &'static str,
        outcome: Result<T, impl std::error::Error + Send + Sync + 'static>,
    ) -> Option<T> {
        match outcome {
            Ok(done) => Some(done),
            Err(error) => {
                self.0.push(crate::error_chain(&KernelError::new(what, error)));
                None
            }
        }
    }
}

impl Outside for HostOutside {
    async fn repair(&mut self, gateway: &LocalGateway, stations: &Stations) -> Vec<String> {
        let mut trouble = Trouble::default();
        // Of a node with many endpoints this list is long, so it is made once.
        let listed = self.netlink.link_list().await;
        let Some(links) = trouble.note("listing the devices of the host failed", listed) else {
            self.gateway.doubt();
            return trouble.0;
        };
        let barrier = self.netlink.ensure_barrier_among(&links).await;
        // Without the barrier what reaches the GRO device would reach the host's own stack.
        if let Some(gap) = trouble.note("the barrier bridge could not be kept", barrier) {
            trouble.0.extend(gap.map(|gap| gap.to_string()));
            let (underlay, port) = (&self.underlay, self.vxlan_port);
            let gro = self.netlink.ensure_gro_device_among(&links, underlay, port).await;
            trouble.note("the GRO device could not be kept", gro);
        }
        self.port_user = vxlan_user(&links, self.vxlan_port);
        if self.port_user.is_some() {
            let shared = self.datapath.lock().share_port();
            trouble.note("packets of another program on the VXLAN port are dropped", shared);
        }
        for failure in self.gateway.repair(&links, gateway, stations).await {
            trouble.0.push(crate::error_chain(&failure));
        }
        let cleared = self.netlink.clear_addresses(&links).await;
        trouble.note("an address on one of the overlay's devices could not be taken away", cleared);
        let outward = self.netlink.outward_mtu().await;
        if let Some(mtu) = trouble.note("looking at the default route failed", outward) {
            self.outward_mtu = mtu;
        }
        let table = self.netlink.neighbour_table().await;
        let table = trouble.note("looking at the neighbour table failed", table).flatten();
        let ours = (stations.len(), self.interest.hops());
        trouble.0.extend(table.and_then(|table| self.neighbours.judge(table, ours)));
        // The underlay is left as it is until its device has the node's address again.
        match self.check_underlay(&links).await {
            Err(error) => trouble.0.push(crate::error_chain(&error)),
            Ok(()) => {
                self.guard_underlay().await;
                self.merging.look(&self.netlink, &links, self.underlay.ifindex).await;
                let kept = self.super_packets.keep(&self.netlink, self.underlay.ifindex).await;
                trouble.note("changing the underlay device failed", kept);
                let attached = self.datapath.lock().ensure_underlay(&self.underlay.name);
                trouble.note("attaching to the underlay failed", attached);
            }
        }
        trouble.0
    }

    async fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> Ways {
        let sizes = self.netlink.device_sizes(self.underlay.ifindex).await;
        let mut trouble = Trouble::default();
        // Where the device is gone its last MTU stands: `repair` reports the loss.
        if let Some(Some(sizes)) = trouble.note("looking at the underlay failed", sizes) {
            self.underlay.mtu = sizes.mtu;
        }
        self.merging.keep().await;
        let mut ways = self.netlink.ways(vteps, &self.underlay, &self.interest).await;
        ways.outward_mtu = self.outward_mtu;
        ways.trouble.extend(trouble.0);
        ways
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

    fn doubt_forwarding(&mut self) {
        self.gateway.doubt_forwarding();
    }

    async fn publish(&mut self, ports: &PublishedPorts, legs: &Legs) -> Result<(), KernelError> {
        self.gateway.publish(ports, legs).await
    }

    fn health(&self) -> OutsideHealth {
        let guard = self.datapath.lock().guard().clone();
        let guard = guard.is_fallback.then(|| format!("no XDP guard: {}", guard.why));
        let shared = self.datapath.lock().shares_port().then(|| {
            let user = self.port_user.as_ref().map(|device| format!("the VXLAN device {device}"));
            format!(
                "{} has UDP port {} as well: VXLAN that is not of this overlay goes up the stack",
                user.unwrap_or_else(|| "another program".to_owned()),
                self.vxlan_port
            )
        });
        OutsideHealth {
            fallbacks: guard
                .into_iter()
                .chain(shared)
                .chain(self.merging.trouble())
                .chain(self.gateway.trouble())
                .collect(),
            published: self.gateway.published(),
            forwarding: self.gateway.forwarding(),
        }
    }
}
