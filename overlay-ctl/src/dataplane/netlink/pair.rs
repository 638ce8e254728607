//! Veth pairs into endpoints' namespaces: what ports and gateway legs have in common.
//!
//! A pair is made in one request, its far end directly inside the namespace, so that nobody ever
//! sees half a device there; it stays down until its programs and its map entries are in place.

use std::{collections::BTreeSet, net::Ipv4Addr, path::Path, time::Duration};

use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use tokio::time::Instant;

use super::{
    Netlink, NetlinkError, ObservedPeer, PortError,
    leg::leg_of,
    link::{self, GROUP, Link},
    netns::Netns,
    port::endpoint_of,
    route,
};

/// What an endpoint's first interface is named in its namespace.
pub(super) const FIRST_INTERFACE: &str = "eth0";
/// What the way to the gateway is named there.
pub(super) const GATEWAY_INTERFACE: &str = "eth1";

/// How long the kernel is given to let packets pass through a pair that was set up. On a quiet machine it takes
/// some microseconds; it is work that waits for a lock (RTNL).
const RUNNING_DEADLINE: Duration = Duration::from_secs(2);
/// How long the first look waits for the second; each wait is twice the one before, up to the second value.
const RUNNING_PAUSE: Duration = Duration::from_micros(100);
const RUNNING_PAUSE_MAX: Duration = Duration::from_millis(20);

/// A pair as it is to be made.
pub(super) struct Pair<'a> {
    /// Name of the host's side.
    pub(super) ifname: &'a str,
    pub(super) netns: &'a Netns,
    /// Name of the endpoint's side, and what else it gets.
    pub(super) interface: &'a str,
    pub(super) mac: [u8; 6],
    pub(super) address: (Ipv4Addr, u8),
    /// Of both sides.
    pub(super) mtu: u32,
}

/// A pair that stands and is to be brought up.
pub(super) struct Raise<'a> {
    /// The host's side.
    pub(super) ifname: &'a str,
    pub(super) ifindex: u32,
    pub(super) up: bool,
    /// It has its alias.
    pub(super) complete: bool,
    /// That alias, which the pair gets when it is up.
    pub(super) alias: &'a str,
    /// The endpoint's side.
    pub(super) peer: Option<&'a ObservedPeer>,
    pub(super) netns: &'a Path,
    /// Where the namespace's default route leads, if it gets one.
    pub(super) gateway: Option<Ipv4Addr>,
}

impl Netlink {
    /// Makes a pair, both sides down, the host's side in `bridge`. It gets its alias when it is brought up.
    ///
    /// # Errors
    /// EXFULL where the bridge takes no more, ENODEV where it is gone.
    pub(super) async fn make_pair(
        &self,
        pair: &Pair<'_>,
        bridge: Option<u32>,
    ) -> Result<(), PortError> {
        let peer = LinkUnspec::new_with_name(pair.interface)
            .address(pair.mac.to_vec())
            .mtu(pair.mtu)
            .setns_by_fd(pair.netns.fd())
            .build();
        let mut message = LinkVeth::new(pair.ifname, pair.interface)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(pair.mtu)
            .append_extra_attribute(LinkAttribute::Group(GROUP));
        if let Some(bridge) = bridge {
            message = message.controller(bridge);
        }
        let made = self.handle.link().add(message.build()).execute().await;
        match made.map_err(|error| NetlinkError::new("create a veth pair", error)) {
            Ok(()) => Ok(()),
            // Both names were free a moment ago; whose is not any more?
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                if link::link_by_name(&self.handle, pair.ifname).await?.is_some() {
                    Err(PortError::NameTaken(pair.ifname.to_owned()))
                } else {
                    Err(exists(pair.netns, pair.interface))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Configures both sides of a pair that was just made, settles the host's in its bridge where asked: isolated,
    /// and its MAC known; and lets the caller attach what it attaches. On any error the pair is removed.
    pub(super) async fn prepare_pair<E>(
        &self,
        pair: &Pair<'_>,
        inside: &Handle,
        is_isolated: bool,
        attach: impl FnOnce(&str, u32) -> Result<(), E>,
    ) -> Result<(Link, Option<ObservedPeer>), PortError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let gone = || PortError::Gone(pair.ifname.to_owned());
        let Some(link) = link::link_by_name(&self.handle, pair.ifname).await? else {
            return Err(gone());
        };
        let index = link.index;
        let prepared = async {
            link::set_addr_gen_none(&self.handle, index).await?;
            if is_isolated {
                link::set_isolated(&self.handle, index).await?;
                link::set_station(&self.handle, index, pair.mac).await?;
            }
            let peer = link.peer.ok_or_else(gone)?;
            link::set_addr_gen_none(inside, peer).await?;
            link::add_address(inside, peer, pair.address).await?;
            attach(pair.ifname, index).map_err(|error| PortError::Attach(error.into()))?;
            let link = link::link_by_index(&self.handle, index, None).await?.ok_or_else(gone)?;
            let peer = self.peer(&link).await?;
            Ok((link, peer))
        }
        .await;
        if prepared.is_err() {
            link::delete(&self.handle, index).await?;
        }
        prepared
    }

    /// Brings both sides up, waits until packets pass, and marks the pair as complete, which is the last step: a pair
    /// without the mark is brought up again, or replaced. No effect where it has the mark and the host's side is up.
    ///
    /// # Errors
    /// [`PortError::Gone`] where the pair, or its namespace, is not there any more. [`PortError::NotRunning`].
    pub(super) async fn raise_pair(&self, pair: &Raise<'_>) -> Result<(), PortError> {
        if pair.complete && pair.up {
            return Ok(());
        }
        let peer = pair.peer.ok_or_else(|| PortError::Gone(pair.ifname.to_owned()))?;
        // The endpoint's side last: a side that is raised before its other end has no carrier yet, and drops what it
        // is given until the kernel has taken note of the carrier, which it does later, in a work queue
        // (linkwatch, kernel 6.18).
        if !pair.up {
            raise(&self.handle, pair.ifindex, pair.ifname).await?;
        }
        if pair.complete && peer.up {
            return Ok(());
        }
        let inside = self.beside(peer, pair.netns, pair.ifname).await?;
        raise_loopback(&inside).await?;
        if !peer.up {
            raise(&inside, peer.ifindex, pair.ifname).await?;
        }
        if let Some(gateway) = pair.gateway {
            ensure_default_route(&inside, peer.ifindex, gateway, pair.netns).await?;
        }
        self.wait_until_running(pair, peer.ifindex, &inside).await?;
        Ok(link::set_alias(&self.handle, pair.ifindex, pair.alias).await?)
    }

    /// Waits until the queues of both sides of a pair that is up are live. What the endpoint does to its own side
    /// meanwhile (takes it down, or makes it dormant) ends the wait: no endpoint can hold up the others.
    async fn wait_until_running(
        &self,
        pair: &Raise<'_>,
        peer: u32,
        inside: &Handle,
    ) -> Result<(), PortError> {
        let gone = || PortError::Gone(pair.ifname.to_owned());
        let deadline = Instant::now() + RUNNING_DEADLINE;
        let mut pause = RUNNING_PAUSE;
        loop {
            let endpoint = link::link_by_index(inside, peer, None).await?.ok_or_else(gone)?;
            let host = link::link_by_index(&self.handle, pair.ifindex, None).await?;
            let host = host.ok_or_else(gone)?;
            let is_its_own_choice =
                !endpoint.up || matches!(endpoint.oper, Some(State::Dormant | State::Testing));
            if is_its_own_choice || endpoint.is_running() && host.is_running() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(PortError::NotRunning(pair.ifname.to_owned()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RUNNING_PAUSE_MAX);
        }
    }

    /// Removes a pair of ours. It is no error when it is gone already, as it is when the namespace is.
    ///
    /// # Errors
    /// [`PortError::NameTaken`] where the device is not ours; it is left alone.
    pub(super) async fn delete_pair(
        &self,
        ifname: &str,
        is_ours: impl FnOnce(&Link) -> bool,
    ) -> Result<(), PortError> {
        let Some(link) = link::link_by_name(&self.handle, ifname).await? else { return Ok(()) };
        if !is_ours(&link) {
            return Err(PortError::NameTaken(ifname.to_owned()));
        }
        Ok(link::delete(&self.handle, link.index).await?)
    }

    /// A socket in the namespace that `path` names now, provided the endpoint's side of `ifname` is there.
    ///
    /// # Errors
    /// [`PortError::Gone`] where the path has come to name another.
    pub(super) async fn beside(
        &self,
        peer: &ObservedPeer,
        path: &Path,
        ifname: &str,
    ) -> Result<Handle, PortError> {
        let netns = Netns::open(path)?;
        if self.known_netns_id(&netns).await? != Some(peer.netns) {
            return Err(PortError::Gone(ifname.to_owned()));
        }
        netns.connect()
    }

    /// Fails where `name` is an interface in the namespace that is not the other end of a device of
    /// ours.
    pub(super) async fn check_free(
        &self,
        netns: &Netns,
        inside: &[Link],
        name: &str,
    ) -> Result<(), PortError> {
        let Some(found) = inside.iter().find(|link| link.name == name) else { return Ok(()) };
        let Some(id) = self.known_netns_id(netns).await? else {
            return Err(exists(netns, name));
        };
        let is_ours = |link: &Link| {
            (endpoint_of(link).is_some() || leg_of(link).is_some())
                && link.peer.zip(link.peer_netns) == Some((found.index, id))
        };
        let links = link::links(&self.handle, None).await?;
        if links.iter().any(is_ours) { Ok(()) } else { Err(exists(netns, name)) }
    }

    /// Brings `lo` up in the namespace, which new ones come without: 127.0.0.11 is there. No effect
    /// where it is.
    ///
    /// # Errors
    /// [`PortError::NoNamespace`] and its like where there is no such namespace.
    pub async fn raise_loopback(netns: &Path) -> Result<(), PortError> {
        Ok(raise_loopback(&Netns::open(netns)?.connect()?).await?)
    }
}

pub(super) fn exists(netns: &Netns, interface: &str) -> PortError {
    PortError::InterfaceExists { netns: netns.path().to_owned(), interface: interface.to_owned() }
}

/// The name of a port's interface inside: the first free of eth0, eth2, eth3 and so on. eth1 is kept
/// for the way to the gateway.
pub(super) fn free_interface(inside: &[Link]) -> String {
    let taken: BTreeSet<&str> = inside.iter().map(|link| link.name.as_str()).collect();
    let mut number = 0u32;
    loop {
        let name = format!("eth{number}");
        if name != GATEWAY_INTERFACE && !taken.contains(name.as_str()) {
            return name;
        }
        number += 1;
    }
}

/// Whether a port's interface may be named so.
pub(super) fn is_port_interface(name: &str) -> bool {
    let number = name.strip_prefix("eth").and_then(|number| number.parse::<u32>().ok());
    number.is_some_and(|number| format!("eth{number}") == name) && name != GATEWAY_INTERFACE
}

/// Brings a device up; `ifname` is the host's side of its pair.
pub(super) async fn raise(handle: &Handle, index: u32, ifname: &str) -> Result<(), PortError> {
    link::set_up(handle, index).await.map_err(|error| {
        if error.is_gone() { PortError::Gone(ifname.to_owned()) } else { error.into() }
    })
}

pub(super) async fn raise_loopback(inside: &Handle) -> Result<(), NetlinkError> {
    match link::link_by_name(inside, "lo").await? {
        Some(lo) if !lo.up => link::set_up(inside, lo.index).await,
        _ => Ok(()),
    }
}

async fn ensure_default_route(
    inside: &Handle,
    index: u32,
    gateway: Ipv4Addr,
    netns: &Path,
) -> Result<(), PortError> {
    let routes = route::routes(inside, route::MAIN).await?;
    let defaults: Vec<_> = routes.into_iter().filter(route::Route::is_default).collect();
    if defaults.is_empty() {
        let added = route::add_default(inside, index, gateway).await;
        match added {
            Ok(()) => {}
            // Whoever lives in the namespace was quicker: with a route of its own, or by taking eth1
            // down or its address away. That is its own business.
            Err(error)
                if matches!(
                    error.errno(),
                    Some(
                        Errno::EEXIST | Errno::ENETDOWN | Errno::ENETUNREACH | Errno::EHOSTUNREACH
                    )
                ) =>
            {
                tracing::warn!(netns = %netns.display(), error = crate::error_chain(&error), "no default route through the gateway");
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
    } else if !defaults.iter().any(|route| route.devices.contains(&index)) {
        tracing::warn!(
            netns = %netns.display(),
            "the namespace has a default route of its own and keeps it: published ports and the way out by {GATEWAY_INTERFACE} need it to lead to {gateway}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eth1_is_kept_for_the_gateway() {
        let with = |names: &[&str]| {
            let link = |name: &&str| Link { name: (*name).to_owned(), ..Link::default() };
            free_interface(&names.iter().map(link).collect::<Vec<_>>())
        };
        assert_eq!(with(&["lo"]), "eth0");
        assert_eq!(with(&["lo", "eth0"]), "eth2");
        assert_eq!(with(&["lo", "eth0", "eth1", "eth2", "eth4"]), "eth3");
        assert_eq!(with(&["eth2"]), "eth0");
        for (name, holds) in
            [("eth0", true), ("eth1", false), ("eth2", true), ("eth02", false), ("eth", false)]
        {
            assert_eq!(is_port_interface(name), holds, "{name}");
        }
    }
}
