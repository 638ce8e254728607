//! The real underlay, and the real way to and from the outside world.

use super::{
    big_tcp::SuperPacketPlan, datapath::SharedDatapath, gateway::HostGateway, guard::GuardKeeper,
    merge_pair::MergePairKeeper, merging::MergeKeeper, neighbours::NeighbourPressure,
    own_address::OwnAddress,
};
use crate::{
    config::Xdp,
    dataplane::{
        datapath::DatapathError,
        kernel::{
            GatewayUse, KernelError, LinkLayer, LocalGateway, Outside, OutsideHealth, Stations,
            Uplink, Ways,
        },
        netlink::{
            Interest, LinkList, Netlink, Underlay, UnderlayChoice, UnderlayError, vxlan_user,
        },
    },
    model::Vtep,
};
use overlay_common::{Counter, ip16_from_v4};
use std::{collections::BTreeSet, net::IpAddr};

/// Why nothing is sent to a VTEP.
const NO_ROUTE: &str = "the host has no route to it from the node's VTEP address";
const IPSEC: &str =
    "an IPsec policy of this host covers the way, and VXLAN would pass it by (`ip xfrm policy`)";
const FOREIGN_LINK_LAYER: &str =
    "its route leads by a device with a link layer for which the overlay has no program";

/// The underlay, the gateway bridge, and published ports.
pub struct HostOutside {
    datapath: SharedDatapath,
    netlink: Netlink,
    underlay: Underlay,
    own: OwnAddress,
    vxlan_port: u16,
    super_packets: SuperPacketPlan,
    gateway: HostGateway,
    guard: GuardKeeper,
    /// The changes of the ways that the node is told of.
    interest: Interest,
    neighbours: NeighbourPressure,
    merging: MergeKeeper,
    merge_pair: MergePairKeeper,
    outward_mtu: Option<u32>,
    /// Another program's VXLAN device on the VXLAN port, as last seen.
    port_user: Option<String>,
    /// Uplinks without a program, in words.
    deaf: Vec<String>,
}

impl HostOutside {
    /// Of a node with this underlay.
    #[must_use]
    pub fn new(
        datapath: SharedDatapath,
        netlink: Netlink,
        (underlay, own, vxlan_port): (Underlay, OwnAddress, u16),
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
            own,
            vxlan_port,
            super_packets,
            gateway,
            guard,
            interest,
            neighbours,
            merging,
            merge_pair: MergePairKeeper::default(),
            outward_mtu: None,
            port_user: None,
            deaf: Vec::new(),
        }
    }

    /// Attaches `guard_underlay` to the underlay device or detaches it, as `--xdp` says.
    pub(super) async fn guard_underlay(&mut self) {
        self.guard.keep(&self.datapath, &self.netlink).await;
    }

    /// Finds the device that has the node's address now: it may have another name, may have been made anew, or may be
    /// another device. Where the address is on none, and there is none that takes its place, the last device counts, and
    /// the rest goes on; the result says why.
    async fn follow_the_address(&mut self, links: &LinkList) -> Option<String> {
        let choice = UnderlayChoice::Address(self.underlay.address);
        let now = match self.netlink.underlay_among(links, &choice).await {
            Err(UnderlayError::NoSuchAddress(_)) => {
                self.own.after(&self.netlink, links, &self.underlay).await
            }
            found => found.map_err(|error| crate::error_chain(&error)),
        };
        match now {
            Ok(now) => self.move_to(now).err().map(|error| crate::error_chain(&error)),
            Err(why) => Some(why),
        }
    }

    fn move_to(&mut self, now: Underlay) -> Result<(), KernelError> {
        let before = std::mem::replace(&mut self.underlay, now);
        let (now, address) = (self.underlay.uplink(), self.underlay.address);
        if (&now, address) == (&before.uplink(), before.address) {
            return Ok(());
        }
        if address == before.address {
            tracing::info!(from = %before.name, to = %now.name, ifindex = now.ifindex, "the VTEP's address is on another device, or its device has another name");
        } else {
            tracing::info!(from = %before.address, to = %address, device = %now.name, "the node's own address on the underlay is another one");
        }
        self.guard.follow(now.ifindex);
        let moved = self.datapath.lock().move_underlay(now, ip16_from_v4(address.octets()));
        if let Err(error) = moved {
            // The next look tries again.
            self.underlay = before;
            return Err(KernelError::new("following the VTEP's address failed", error));
        }
        self.own.tell(address);
        Ok(())
    }

    /// Notes on which uplinks no VXLAN is received, and logs it when they change.
    fn note_deaf(&mut self, failed: &[(Uplink, DatapathError)]) {
        let deaf = failed.iter().map(|(uplink, error)| {
            format!("VXLAN that comes by {} is lost: {}", uplink.name, crate::error_chain(error))
        });
        let deaf: Vec<String> = deaf.collect();
        if deaf != self.deaf {
            if !deaf.is_empty() {
                tracing::warn!(?deaf, "an uplink has no program");
            }
            self.deaf = deaf;
        }
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
        let address_trouble = self.follow_the_address(&links).await;
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
        match address_trouble {
            Some(why) => trouble.0.push(why),
            None => {
                self.guard_underlay().await;
                self.merging.look(&self.netlink, &links, self.underlay.ifindex).await;
                let kept = self.super_packets.keep(&self.netlink, self.underlay.ifindex).await;
                trouble.note("changing the underlay device failed", kept);
            }
        }
        self.merge_pair.look(&self.datapath, &self.netlink, &links).await;
        let deaf = self.datapath.lock().ensure_uplinks();
        self.note_deaf(&deaf);
        trouble.0
    }

    async fn ways(&mut self, vteps: &BTreeSet<Vtep>) -> Ways {
        let mut trouble = Trouble::default();
        // Where there is no answer the last MTU stands: `repair` reports that the device is gone.
        if !self.underlay.is_silent {
            let sizes = self.netlink.device_sizes(self.underlay.ifindex).await;
            if let Some(Some(sizes)) = trouble.note("looking at the underlay failed", sizes) {
                self.underlay.mtu = sizes.mtu;
            }
        }
        let has_own = self.netlink.has_address(self.underlay.address).await;
        let has_own = trouble.note("listing the addresses of the host failed", has_own);
        self.merging.keep().await;
        let policies = trouble.note("reading IPsec policies failed", Netlink::ipsec_policies());
        let is_covered = |vtep: &Vtep| match (vtep.ip(), &policies) {
            (IpAddr::V4(to), Some(policies)) => {
                policies.cover(self.underlay.address, to, self.vxlan_port)
            }
            _ => false,
        };
        let (covered, open): (BTreeSet<Vtep>, BTreeSet<Vtep>) =
            vteps.iter().copied().partition(is_covered);
        let from = (&self.underlay, self.vxlan_port);
        let mut found = self.netlink.ways(&open, from, &self.interest).await;
        found.without.extend(covered.into_iter().map(|vtep| (vtep, IPSEC.to_owned())));
        for vtep in open.difference(&found.unknown) {
            let why = match found.ways.get(vtep) {
                Some(way) if way.link_layer == LinkLayer::Foreign => FOREIGN_LINK_LAYER,
                Some(_) => continue,
                None => NO_ROUTE,
            };
            found.ways.remove(vtep);
            found.without.insert(*vtep, why.to_owned());
        }
        if self.underlay.is_silent
            && let Some(least) = found.ways.values().map(|way| way.mtu).min()
        {
            self.underlay.mtu = least;
        }
        found.own = Some(self.underlay.address.into());
        found.is_own_gone = has_own == Some(false);
        found.device_mtu = self.underlay.mtu;
        found.outward_mtu = self.outward_mtu;
        found.trouble.extend(trouble.0);
        found
    }

    async fn attach_uplinks(&mut self, devices: &BTreeSet<u32>) -> Result<(), KernelError> {
        let failed = |error| KernelError::new("looking for the uplinks failed", error);
        let links = self.netlink.link_list().await.map_err(failed)?;
        let uplinks = self.netlink.vxlan_uplinks(&links, self.underlay.address, devices).await;
        let mut uplinks = uplinks.map_err(failed)?;
        let doors = (&self.datapath, &self.netlink);
        uplinks.extend(self.merge_pair.follow(doors, &links, &uplinks).await);
        let deaf = self.datapath.lock().set_uplinks(uplinks);
        self.merge_pair.use_it(&self.datapath, &deaf);
        self.note_deaf(&deaf);
        Ok(())
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

    async fn publish(&mut self, wanted: &GatewayUse) -> Result<(), KernelError> {
        self.gateway.publish(wanted).await
    }

    fn health(&self) -> OutsideHealth {
        let guard = self.datapath.lock().guard().clone();
        let guard = guard.is_fallback.then(|| format!("no XDP guard: {}", guard.why));
        let is_shared = self.datapath.lock().shares_port();
        let shared = is_shared.then(|| {
            let user = self.port_user.as_ref().map(|device| format!("the VXLAN device {device}"));
            format!(
                "{} has UDP port {} as well: VXLAN that is not of this overlay goes up the stack",
                user.unwrap_or_else(|| "another program".to_owned()),
                self.vxlan_port
            )
        });
        OutsideHealth {
            underlay: self.underlay.name.clone(),
            vtep: Some(self.underlay.address.into()),
            unseen: if is_shared { Counter::default() } else { self.gateway.unseen() },
            fallbacks: guard
                .into_iter()
                .chain(shared)
                .chain(self.deaf.iter().cloned())
                .chain(self.merging.trouble())
                .chain(self.merge_pair.trouble())
                .chain(self.gateway.trouble())
                .collect(),
            published: self.gateway.published(),
            forwarding: self.gateway.forwarding(),
        }
    }
}
