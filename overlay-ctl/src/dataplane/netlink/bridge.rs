//! The gateway bridge: the node's end of every gateway leg, the same on every node.
//!
//! It is a router's port more than a bridge: its ports are isolated, and `from_gateway` lets nothing
//! pass between them. Netfilter sees what comes by it as what any other device brings.

use ipnet::Ipv4Net;
use netlink_packet_route::link::{
    BridgeStpState, InfoBridge, InfoKind, LinkAttribute, LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::{LinkBridge, LinkMessageBuilder, LinkUnspec};

use super::{
    BridgeError, Netlink, NetlinkError, SuperPackets,
    leg::leg_of,
    link::{self, Address, GROUP, Link, Owner},
    super_packets, sysctl,
};
use crate::model::{Mac, Subnet};

/// The gateway bridge's name. There is one node in a namespace, and so one of these.
pub const GATEWAY_BRIDGE: &str = "ov_gwbridge";
const BRIDGE_ALIAS: &str = "overlay:gateway";

/// What the bridge needs of the host's IPv4, and why.
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

/// The gateway bridge, standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayBridge {
    /// Its index.
    pub ifindex: u32,
    /// Its MAC, in transmission order: 02:42 and its address.
    pub mac: [u8; 6],
}

/// Whether the device is the gateway bridge, and ours.
pub(super) fn is_bridge(link: &Link) -> bool {
    link.name == GATEWAY_BRIDGE
        && link.bridge.is_some()
        && link.owner(BRIDGE_ALIAS) != Owner::Foreign
}

impl Netlink {
    /// Makes the bridge where it is missing, with the first address of `subnet`, and puts right what
    /// of it, or of the legs' place in it, is not as it should be. Where the subnet changed the old
    /// address goes; legs whose addresses are outside are the caller's to build anew. `mtu` is the
    /// underlay's, in bytes.
    ///
    /// Its sysctls are written through /proc/sys, of the calling thread's network namespace.
    ///
    /// # Errors
    /// [`BridgeError::NameTaken`] where a device of that name is not ours, which is left alone. Where
    /// the bridge was missing, nothing is left on any error.
    pub async fn ensure_gateway_bridge(
        &self,
        subnet: Subnet,
        mtu: u32,
    ) -> Result<GatewayBridge, BridgeError> {
        let mac = Mac::of_endpoint(subnet.gateway()).octets();
        let links = link::links(&self.handle, None).await?;
        let bridge = match links.iter().find(|link| link.name == GATEWAY_BRIDGE) {
            Some(link) if !is_bridge(link) => return Err(BridgeError::NameTaken),
            Some(link) => {
                let repaired = self.put_right(link, subnet, mac, mtu).await?;
                if !repaired.is_empty() && link.owner(BRIDGE_ALIAS) == Owner::Ours {
                    tracing::warn!(
                        ?repaired,
                        "{GATEWAY_BRIDGE} was not as it should be; put right"
                    );
                }
                link.index
            }
            None => {
                let link = self.make_bridge(mac, mtu).await?;
                let finished = self.put_right(&link, subnet, mac, mtu).await;
                if finished.is_err() {
                    link::delete(&self.handle, link.index).await?;
                }
                finished?;
                link.index
            }
        };
        self.take_legs_in(&links, bridge).await?;
        Ok(GatewayBridge { ifindex: bridge, mac })
    }

    /// The prefix of the bridge that stands and is ours.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn gateway_bridge_subnet(&self) -> Result<Option<Ipv4Net>, BridgeError> {
        let Some(bridge) = self.gateway_bridge().await? else { return Ok(None) };
        let addresses = link::addresses(&self.handle, bridge.index, None).await?;
        let first = addresses.iter().find(|address| address.global);
        Ok(first.and_then(|first| Ipv4Net::new(first.ip, first.prefix).ok()).map(|net| net.trunc()))
    }

    /// Removes the bridge, where it is there and ours. Legs stay, outside of it.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn remove_gateway_bridge(&self) -> Result<(), BridgeError> {
        match self.gateway_bridge().await? {
            Some(bridge) => Ok(link::delete(&self.handle, bridge.index).await?),
            None => Ok(()),
        }
    }

    /// Makes the bridge have this MTU, in bytes, and super-packets of these sizes. No effect where there
    /// is none.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn fit_gateway_bridge(
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
        Ok(link::link_by_name(&self.handle, GATEWAY_BRIDGE).await?.filter(is_bridge))
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

    /// Gives the bridge what it lacks, and brings it up last. Says what that was.
    async fn put_right(
        &self,
        link: &Link,
        subnet: Subnet,
        mac: [u8; 6],
        mtu: u32,
    ) -> Result<Vec<&'static str>, BridgeError> {
        let index = link.index;
        let mut repaired = Vec::new();
        if link.owner(BRIDGE_ALIAS) != Owner::Ours {
            link::set_alias(&self.handle, index, BRIDGE_ALIAS).await?;
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
        let wanted = (subnet.gateway(), subnet.net().prefix_len());
        let is_wanted = |address: &Address| (address.ip, address.prefix) == wanted;
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

    async fn give_address(
        &self,
        index: u32,
        address: (std::net::Ipv4Addr, u8),
    ) -> Result<(), NetlinkError> {
        match link::add_address(&self.handle, index, address).await {
            // It was a secondary one, which the kernel may have made the first meanwhile.
            Err(error) if error.errno() == Some(Errno::EEXIST) => Ok(()),
            added => added,
        }
    }

    /// Puts legs that are outside of the bridge back into it, isolated.
    async fn take_legs_in(&self, links: &[Link], bridge: u32) -> Result<(), BridgeError> {
        for (leg, address) in links.iter().filter_map(|link| Some((link, leg_of(link)?))) {
            let is_in = leg.controller == Some(bridge);
            if is_in && leg.isolated {
                continue;
            }
            let taken_in = async {
                if !is_in {
                    link::set_controller(&self.handle, leg.index, bridge).await?;
                }
                link::set_isolated(&self.handle, leg.index).await?;
                let mac = Mac::of_endpoint(address).octets();
                link::set_station(&self.handle, leg.index, mac).await
            }
            .await;
            match taken_in {
                // It went meanwhile.
                Err(error) if error.is_gone() => {}
                done => {
                    done?;
                    tracing::warn!(leg = leg.name, "put into {GATEWAY_BRIDGE} again");
                }
            }
        }
        Ok(())
    }
}

/// What of the device differs, and the request that sets it.
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
