//! Gateway legs: one veth pair a namespace, from its eth1 to the gateway bridge. All its endpoints
//! that are on a network with a way out share it.
//!
//! What goes from a leg to a neighbour on the bridge is dropped by `from_gateway`; that the host's side
//! is an isolated port of the bridge only holds where that program is missing.

use std::{net::Ipv4Addr, path::PathBuf};

use nix::errno::Errno;

use super::{
    Netlink, NetnsId, ObservedPeer, PortError, SuperPackets,
    link::{self, ALIAS_PREFIX, Link, Owner},
    netns::Netns,
    observe::{self, Wanted},
    pair::{GATEWAY_INTERFACE, Pair, Raise},
};

/// Every host-side device's name begins with this; the rest is the leg's address, as 8 hex digits.
const LEG_PREFIX: &str = "ovgw";

/// A gateway leg as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegSpec {
    /// Path of the namespace, or its bare name below /run/netns.
    pub netns: PathBuf,
    /// Address of eth1, on the gateway bridge's subnet.
    pub address: Ipv4Addr,
    /// Length of that subnet's prefix; the kernel adds the route to it.
    pub prefix: u8,
    /// MAC of eth1, in transmission order.
    pub mac: [u8; 6],
    /// The bridge's address: where the default route leads.
    pub gateway: Ipv4Addr,
    /// MTU of both sides, in bytes: the underlay's.
    pub mtu: u32,
}

/// A gateway leg as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedLeg {
    /// Its address, as its mark says.
    pub address: Ipv4Addr,
    /// Name of the host's side.
    pub ifname: String,
    /// Index of the host's side.
    pub ifindex: u32,
    /// The host's side is up.
    pub up: bool,
    /// It is up, and what the host gives it is sent.
    pub running: bool,
    /// [`Netlink::activate_leg`] came to its end: the device is marked so by its alias.
    pub complete: bool,
    /// MTU of the host's side, in bytes.
    pub mtu: u32,
    /// How large its super-packets may be.
    pub super_packets: SuperPackets,
    /// Index of the bridge that the host's side is in; 0 where it is in none.
    pub bridge: u32,
    /// The other side; None where the kernel shows none (somebody moved it into our own namespace, or
    /// it is just going).
    pub peer: Option<ObservedPeer>,
}

impl ObservedLeg {
    pub(super) fn new(address: Ipv4Addr, link: Link, peer: Option<ObservedPeer>) -> Self {
        let complete = link.owner(&alias(address)) == Owner::Ours;
        let running = link.is_running();
        let Link { name: ifname, index: ifindex, up, mtu, super_packets, controller, .. } = link;
        let bridge = controller.unwrap_or(0);
        Self { address, ifname, ifindex, up, running, complete, mtu, super_packets, bridge, peer }
    }

    /// The first thing, in words, in which the leg is not as `spec` wants it; None where it is.
    /// Neither whether the two sides are up is looked at, nor the routes inside, nor the bridge, which
    /// [`Netlink::ensure_gateway_bridge`] puts right. `netns` is the number of the namespace that
    /// `spec` names.
    #[must_use]
    pub fn difference(&self, spec: &LegSpec, netns: NetnsId) -> Option<&'static str> {
        let wanted = Wanted {
            netns,
            has_name: &|name| name == GATEWAY_INTERFACE,
            mac: spec.mac,
            address: (spec.address, spec.prefix),
            mtu: spec.mtu,
        };
        observe::difference(self.mtu, self.peer.as_ref(), &wanted)
    }

    /// It was brought up, and the host's side is up still. The other side is the endpoint's to take down.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.up && self.complete
    }
}

/// Name of the host's side of the leg with that address: 172.18.0.3 is ovgwac120003.
#[must_use]
pub fn leg_name(address: Ipv4Addr) -> String {
    format!("{LEG_PREFIX}{:08x}", u32::from(address))
}

fn alias(address: Ipv4Addr) -> String {
    format!("{ALIAS_PREFIX}gateway:{address}")
}

fn address_in(name: &str) -> Option<Ipv4Addr> {
    let address = Ipv4Addr::from(u32::from_str_radix(name.strip_prefix(LEG_PREFIX)?, 16).ok()?);
    (leg_name(address) == name).then_some(address)
}

/// The address of a leg that is ours by name and alias, half made included.
pub(super) fn leg_of(link: &Link) -> Option<Ipv4Addr> {
    let address = address_in(&link.name)?;
    (link.owner(&alias(address)) != Owner::Foreign).then_some(address)
}

impl Netlink {
    /// The gateway legs that are ours, in the order of their addresses. [`Netlink::observe`] gives the
    /// ports as well, for the price of one.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn legs(&self) -> Result<Vec<ObservedLeg>, PortError> {
        Ok(self.observe().await?.1)
    }

    /// The leg with that address, where there is one that is ours.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn leg(&self, address: Ipv4Addr) -> Result<Option<ObservedLeg>, PortError> {
        match link::link_by_name(&self.handle, &leg_name(address)).await? {
            Some(link) if leg_of(&link) == Some(address) => {
                let peer = self.peer(&link).await?;
                Ok(Some(ObservedLeg::new(address, link, peer)))
            }
            _ => Ok(None),
        }
    }

    /// Makes a leg, both sides down and the host's an isolated port of the gateway bridge, and calls
    /// `attach` with the name and the index of the host's side: there the caller attaches the program
    /// and fills maps. [`Netlink::activate_leg`] follows. What is left of an earlier leg with this
    /// address is removed first. On any error nothing is left.
    ///
    /// # Errors
    /// [`PortError::NoGatewayBridge`], [`PortError::GatewayBridgeFull`],
    /// [`PortError::InterfaceExists`] where the namespace has an eth1 (also a leg of ours with another
    /// address: a namespace has one), and what else of the namespace does not fit or the kernel refused.
    pub async fn create_leg<E>(
        &self,
        spec: &LegSpec,
        attach: impl FnOnce(&str, u32) -> Result<(), E>,
    ) -> Result<ObservedLeg, PortError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let ifname = leg_name(spec.address);
        let netns = Netns::open(&spec.netns)?;
        self.delete_leg(&ifname).await?;
        let bridge = self.gateway_bridge().await?.ok_or(PortError::NoGatewayBridge)?.index;
        let inside = netns.connect()?;
        let pair = Pair {
            ifname: &ifname,
            netns: &netns,
            interface: GATEWAY_INTERFACE,
            mac: spec.mac,
            address: (spec.address, spec.prefix),
            mtu: spec.mtu,
        };
        self.make_pair(&pair, Some(bridge)).await.map_err(|error| match error {
            PortError::Netlink(error) if error.errno() == Some(Errno::EXFULL) => {
                PortError::GatewayBridgeFull
            }
            other => other,
        })?;
        let (link, peer) = self.prepare_pair(&pair, &inside, true, attach).await?;
        Ok(ObservedLeg::new(spec.address, link, peer))
    }

    /// Brings both sides of a leg up, the namespace's loopback too, leads the namespace's default route to
    /// the gateway, and returns when packets pass. No effect where that was done and the host's side is up still.
    ///
    /// A namespace that has a default route of its own keeps it; that is logged.
    ///
    /// # Errors
    /// [`PortError::Gone`] where the leg, or its namespace, is not there any more. [`PortError::NotRunning`].
    pub async fn activate_leg(&self, spec: &LegSpec) -> Result<(), PortError> {
        let ifname = leg_name(spec.address);
        let leg = self.leg(spec.address).await?.ok_or_else(|| PortError::Gone(ifname.clone()))?;
        let sides = Raise {
            ifname: &ifname,
            ifindex: leg.ifindex,
            up: leg.up,
            complete: leg.complete,
            peer: leg.peer.as_ref(),
            alias: &alias(spec.address),
            netns: &spec.netns,
            gateway: Some(spec.gateway),
        };
        self.raise_pair(&sides).await
    }

    /// Removes a leg, both sides, and with it the routes inside that lead through it. It is no error
    /// when it is gone already, as it is when the namespace is.
    ///
    /// # Errors
    /// [`PortError::NameTaken`] where the device is not ours; it is left alone.
    pub async fn delete_leg(&self, ifname: &str) -> Result<(), PortError> {
        self.delete_pair(ifname, |link| leg_of(link).is_some()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::netlink::link::GROUP;

    #[test]
    fn names_lead_back_to_the_address() {
        let address = Ipv4Addr::new(172, 18, 0, 3);
        assert_eq!(leg_name(address), "ovgwac120003");
        assert_eq!(leg_name(Ipv4Addr::new(10, 0, 0, 2)), "ovgw0a000002");
        let link = |name: &str, alias: &str, group| Link {
            name: name.to_owned(),
            alias: alias.to_owned(),
            group,
            ..Link::default()
        };
        let ours = "overlay:gateway:172.18.0.3";
        assert_eq!(leg_of(&link("ovgwac120003", ours, 0)), Some(address));
        assert_eq!(leg_of(&link("ovgwac120003", "", GROUP)), Some(address), "half made");
        for (name, alias) in [
            ("ovgwac120004", ours),
            ("ovgwac120003", "overlay:gateway"),
            ("ovgwac120003", ""),
            ("ovgwAC120003", ours),
            ("ovgw+c120003", ours),
            ("ovg4789", "overlay:gro"),
        ] {
            assert_eq!(leg_of(&link(name, alias, 0)), None, "{name} {alias}");
        }
    }
}
