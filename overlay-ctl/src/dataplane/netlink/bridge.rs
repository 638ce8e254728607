//! The gateway bridge: the node's end of every gateway leg, the same on every node.
//!
//! It works like a port of a router rather than like a bridge: its ports are isolated, and `from_gateway` lets nothing
//! pass between them. To netfilter, packets from it come in by a device like any other.

use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoKind, LinkAttribute, LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::{
    BridgeError, LinkList, Netlink, NetlinkError, bridge_port,
    link::{self, Address, Link, Owner},
    marks::{id_of, is_gateway_bridge},
    names::{GATEWAY_BRIDGE, GATEWAY_BRIDGE_ALIAS, GROUP},
    super_packets, sysctl,
};
use crate::{
    dataplane::kernel::{Bridge, DeviceId, Stations, SuperPackets},
    model::{Mac, Subnet},
};
use std::collections::BTreeMap;

/// The sysctls that the bridge needs, each with its reason.
const SYSCTLS: [(&str, &str); 5] = [
    // What endpoints send is routed on.
    ("forwarding", "1"),
    // A published port on 127.0.0.1 leads to an endpoint. `from_gateway` drops 127.0.0.0/8, so that
    // no endpoint can speak to the host's loopback for it.
    ("route_localnet", "1"),
    // An endpoint's only neighbour is the gateway: there is no better way to tell it of.
    ("send_redirects", "0"),
    ("accept_source_route", "0"),
    // The host asks with the bridge's own address, whichever it sends from: `from_gateway` lets
    // endpoints answer that one alone.
    ("arp_announce", "2"),
];

/// The gateway bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayBridge {
    /// Its index.
    pub ifindex: u32,
    /// Its MAC, in transmission order: 02:42 and its address.
    pub mac: [u8; 6],
}

impl Netlink {
    /// Creates the bridge where it is missing, with the first address of `subnet`, and repairs what differs of it or of
    /// the legs' place in it. Where the subnet changed, the old address is removed; the caller has to rebuild legs
    /// whose addresses are outside of the subnet. `mtu` is the underlay's, in bytes; the bridge gets a smaller one where
    /// a leg in it has a smaller one, because a packet that the bridge takes and the leg does not is lost without an
    /// answer to its sender.
    ///
    /// `stations` are the MACs of the legs that the caller knows. A leg that is outside of the bridge and is not among
    /// them stays outside.
    ///
    /// Its sysctls are written through /proc/sys of the calling thread's network namespace.
    ///
    /// # Errors [`BridgeError::NameTaken`] where a device of that name is not the overlay's; it is left alone. Where
    /// the bridge was missing, nothing is left on any error.
    pub async fn ensure_gateway_bridge(
        &self,
        subnet: Subnet,
        mtu: u32,
        stations: &Stations,
    ) -> Result<GatewayBridge, BridgeError> {
        let links = self.link_list().await?;
        self.ensure_gateway_bridge_among(&links, subnet, mtu, stations).await
    }

    /// The same, among these devices of the host.
    ///
    /// # Errors
    /// As [`Netlink::ensure_gateway_bridge`].
    pub async fn ensure_gateway_bridge_among(
        &self,
        LinkList(links): &LinkList,
        subnet: Subnet,
        mtu: u32,
        stations: &Stations,
    ) -> Result<GatewayBridge, BridgeError> {
        let mac = Mac::of_endpoint(subnet.gateway()).octets();
        let bridge = match link::named(&self.handle, links, GATEWAY_BRIDGE).await? {
            Some(link) if !is_gateway_bridge(&link) => return Err(BridgeError::NameTaken),
            Some(link) => {
                let mtu = legs_in(links, link.index).map(|leg| leg.mtu).fold(mtu, u32::min);
                let repaired = self.repair(&link, subnet, mac, mtu).await?;
                if !repaired.is_empty() && link.owner(GATEWAY_BRIDGE_ALIAS) == Owner::Ours {
                    tracing::warn!(
                        ?repaired,
                        "{GATEWAY_BRIDGE} was not as it should be and was repaired"
                    );
                }
                link.index
            }
            None => {
                let link = self.make_bridge(mac, mtu).await?;
                let finished = self.repair(&link, subnet, mac, mtu).await;
                if finished.is_err() {
                    link::delete(&self.handle, link.index).await?;
                }
                finished?;
                link.index
            }
        };
        self.take_legs_in(links, bridge, stations).await?;
        Ok(GatewayBridge { ifindex: bridge, mac })
    }

    /// The subnet of the bridge, where it exists and is the overlay's.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn gateway_bridge_subnet(&self) -> Result<Option<Ipv4Net>, BridgeError> {
        let Some(bridge) = self.gateway_bridge().await? else { return Ok(None) };
        let addresses = link::addresses(&self.handle, bridge.index, None).await?;
        let first = addresses.iter().find(|address| address.global);
        Ok(first.and_then(|first| Ipv4Net::new(first.ip, first.prefix).ok()).map(|net| net.trunc()))
    }

    /// Removes the bridge, where it exists and is the overlay's. Legs stay, outside of it. Returns true if it did.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_gateway_bridge(&self) -> Result<bool, BridgeError> {
        match self.gateway_bridge().await? {
            Some(bridge) => {
                link::delete(&self.handle, bridge.index).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Gives the bridge this MTU, in bytes, and super-packets of these sizes. No effect where there is no bridge.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn update_gateway_bridge(
        &self,
        mtu: u32,
        super_packets: &SuperPackets,
    ) -> Result<(), BridgeError> {
        let Some(bridge) = self.gateway_bridge().await? else { return Ok(()) };
        if bridge.mtu != mtu {
            let message = LinkUnspec::new_with_index(bridge.index).mtu(mtu).build();
            link::change(&self.handle, message, "change the gateway bridge's MTU").await?;
        }
        let has = &bridge.super_packets;
        // A bridge takes what all of its ports take, and before it has one no more than any device.
        let wanted = super_packets.within(bridge.tso_max);
        Ok(super_packets::set(&self.handle, bridge.index, has, &wanted).await?)
    }

    pub(super) async fn gateway_bridge(&self) -> Result<Option<Link>, NetlinkError> {
        Ok(link::link_by_name(&self.handle, GATEWAY_BRIDGE).await?.filter(is_gateway_bridge))
    }

    async fn make_bridge(&self, mac: [u8; 6], mtu: u32) -> Result<Link, BridgeError> {
        let message = LinkMessageBuilder::<LinkBridge>::new(GATEWAY_BRIDGE)
            .address(mac.to_vec())
            .mtu(mtu)
            .forward_delay(0)
            .stp_state(BridgeStpState::Disabled)
            .mcast_snooping(false)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .build();
        let made = self.handle.link().add(message).execute().await;
        match made.map_err(|error| NetlinkError::new("create the gateway bridge", error)) {
            Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => {
                return Err(BridgeError::NoBridges);
            }
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                return Err(BridgeError::NameTaken);
            }
            done => done?,
        }
        self.gateway_bridge().await?.ok_or(BridgeError::NameTaken)
    }

    /// Repairs the bridge, and sets it up in the end. Returns what had to be repaired.
    async fn repair(
        &self,
        link: &Link,
        subnet: Subnet,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<Vec<&'static str>, BridgeError> {
        let index = link.index;
        let mut repaired = Vec::new();
        if link.owner(GATEWAY_BRIDGE_ALIAS) != Owner::Ours {
            link::set_alias(&self.handle, index, GATEWAY_BRIDGE_ALIAS).await?;
            repaired.push("alias");
        }
        if !link.addr_gen_none {
            link::set_addr_gen_none(&self.handle, index).await?;
            repaired.push("IPv6 address generation");
        }
        let action = "configure the gateway bridge";
        for (what, message) in differences(link, mac, mtu) {
            link::change(&self.handle, message, action).await?;
            repaired.push(what);
        }
        for (name, value) in SYSCTLS {
            if sysctl::ensure(GATEWAY_BRIDGE, name, value)? {
                repaired.push(name);
            }
        }
        // Before the new address: removing an older one of the same prefix would take it along.
        let wanted = Ipv4Net::new_assert(subnet.gateway(), subnet.net().prefix_len()).into();
        let is_wanted = |address: &Address| address.net() == Some(wanted);
        let addresses = link::addresses(&self.handle, index, None).await?;
        for other in addresses.iter().filter(|address| !is_wanted(address)) {
            link::delete_address(&self.handle, *other).await?;
            repaired.push("other addresses");
        }
        if !addresses.iter().any(|address| is_wanted(address) && address.global) {
            self.give_address(index, wanted).await?;
            repaired.push("address");
        }
        if !link.up {
            link::set_up(&self.handle, index).await?;
            repaired.push("state");
        }
        Ok(repaired)
    }

    async fn give_address(&self, index: u32, address: IpNet) -> Result<(), NetlinkError> {
        match link::add_address(&self.handle, index, address).await {
            // It was a secondary one, which the kernel may have made the first meanwhile.
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            added => added,
        }
    }

    /// Puts legs that are outside of the bridge back into it, as isolated ports, and tells the bridge the legs' MACs that
    /// it does not know. Of a leg whose MAC is not among `stations` it only makes sure that it is isolated where it is
    /// in the bridge: without the MAC the bridge would send what is for that leg out of all ports.
    ///
    /// The host gets a permanent neighbour for each such leg, and for no leg that is gone: permanent ones do not count in
    /// the table that all namespaces share.
    async fn take_legs_in(
        &self,
        links: &[Link],
        bridge: u32,
        stations: &Stations,
    ) -> Result<(), BridgeError> {
        let legs = legs(links).map(|(id, link)| (link, stations.get(&id)));
        let known = bridge_port::stations(&self.handle, bridge).await?;
        let mut neighbours = BTreeMap::new();
        for (leg, station) in legs {
            neighbours.extend(station.map(|station| (station.address, station.mac)));
            let mac = station.map(|station| &station.mac);
            let is_in = leg.controller == Some(bridge);
            let is_known = mac.is_none_or(|mac| known.contains(&(leg.index, *mac)));
            let repaired = match (is_in, leg.isolated, is_known) {
                (false, ..) if mac.is_none() => continue,
                (false, ..) => "its place in the bridge",
                (true, false, _) => "its isolation",
                (true, true, false) => "its MAC in the bridge",
                (true, true, true) => continue,
            };
            let taken_in = async {
                if !is_in {
                    bridge_port::set_controller(&self.handle, leg.index, bridge).await?;
                }
                bridge_port::set_isolated(&self.handle, leg.index).await?;
                match mac {
                    Some(mac) => bridge_port::set_station(&self.handle, leg.index, *mac).await,
                    None => Ok(()),
                }
            }
            .await;
            match taken_in {
                // It went meanwhile.
                Err(error) if error.is_gone() => {}
                done => {
                    done?;
                    tracing::warn!(leg = leg.name, repaired, "a gateway leg was repaired");
                }
            }
        }
        Ok(self.keep_fixed(bridge, &neighbours).await?)
    }
}

/// The gateway legs among these devices.
fn legs(links: &[Link]) -> impl Iterator<Item = (DeviceId, &Link)> {
    let is_leg = |id: &DeviceId| id.kind.row().bridge == Bridge::Gateway;
    links.iter().filter_map(move |link| Some((id_of(link).filter(is_leg)?, link)))
}

/// The gateway legs in this bridge.
fn legs_in(links: &[Link], bridge: u32) -> impl Iterator<Item = &Link> {
    legs(links).map(|(_, link)| link).filter(move |leg| leg.controller == Some(bridge))
}

/// The properties that differ, each with the request that sets it.
fn differences(link: &Link, mac: [u8; 6], mtu: u32) -> Vec<(&'static str, LinkMessage)> {
    let base =
        || LinkMessageBuilder::<LinkBridge>::new_with_info_kind(InfoKind::Bridge).index(link.index);
    let has = |wrong: &dyn Fn(&InfoBridge) -> bool| link.bridge.iter().flatten().any(wrong);
    let mut differences = Vec::new();
    if link.mac != mac {
        differences.push(("MAC", base().address(mac.to_vec()).build()));
    }
    if link.mtu != mtu {
        differences.push(("MTU", base().mtu(mtu).build()));
    }
    // Before the delay, for which the kernel has a minimum where STP is on.
    if has(
        &|option| matches!(option, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled),
    ) {
        differences.push(("STP", base().stp_state(BridgeStpState::Disabled).build()));
    }
    if has(&|option| matches!(option, InfoBridge::ForwardDelay(delay) if *delay != 0)) {
        differences.push(("forward delay", base().forward_delay(0).build()));
    }
    // A kernel without snooping does not show it.
    if has(&|option| matches!(option, InfoBridge::MulticastSnooping(true))) {
        differences.push(("multicast snooping", base().mcast_snooping(false).build()));
    }
    differences
}
