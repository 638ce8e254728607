//! Veth pairs into endpoints' namespaces: the steps of which `device.rs` composes the life of a device.
//!
//! A pair is created in one request, its far end directly inside the namespace, so that no program ever sees half a
//! device there. It stays down until its programs and its map entries are in place.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use ipnet::IpNet;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, State};
use nix::errno::Errno;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use tokio::time::{Instant, sleep};

use super::{
    DeviceError, Netlink, NetlinkError, bridge_port,
    link::{self, Link},
    marks::id_of,
    names::GROUP,
    netns::Netns,
    route,
};
use crate::{
    dataplane::kernel::{
        DeviceSpec, FIRST_INTERFACE, GATEWAY_INTERFACE, ObservedDevice, ObservedPeer,
    },
    model::Subnet,
};

/// The time within which packets must pass through a pair that was set up. On a quiet machine it takes the kernel some
/// microseconds; the work waits for a lock (RTNL).
const RUNNING_DEADLINE: Duration = Duration::from_secs(2);
/// The pause between the first two looks; each pause is twice the one before, up to the second value.
const RUNNING_PAUSE: Duration = Duration::from_micros(100);
const RUNNING_PAUSE_MAX: Duration = Duration::from_millis(20);
/// How long the interface of an endpoint that was removed may still be in the way of another on its subnet.
const GOING: Duration = Duration::from_secs(1);

/// A pair that is to be created.
pub(super) struct Pair<'a> {
    /// Name of the host's side.
    pub(super) ifname: &'a str,
    pub(super) netns: &'a Netns,
    /// Name of the endpoint's side.
    pub(super) interface: &'a str,
    pub(super) mac: [u8; 6],
    pub(super) addresses: &'a [IpNet],
    /// Of both sides.
    pub(super) mtu: u32,
}

impl Netlink {
    /// Creates a pair, both sides down, the host's side in `bridge`. It gets its alias when it is raised.
    ///
    /// # Errors
    /// EXFULL where the bridge takes no more, ENODEV where it is gone.
    pub(super) async fn make_pair(
        &self,
        pair: &Pair<'_>,
        bridge: Option<u32>,
    ) -> Result<(), DeviceError> {
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
            // Both names were free a moment ago. Which one is taken now?
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                if link::link_by_name(&self.handle, pair.ifname).await?.is_some() {
                    Err(DeviceError::NameTaken(pair.ifname.to_owned()))
                } else {
                    Err(exists(pair.netns, pair.interface))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Configures both sides of a new pair, and lets the caller attach its program. Where asked, the host's side
    /// becomes an isolated port of its bridge, which is told the MAC. On any error the pair is removed.
    pub(super) async fn prepare_pair<E>(
        &self,
        pair: &Pair<'_>,
        inside: &Handle,
        is_isolated: bool,
        attach: impl FnOnce(&str, u32) -> Result<(), E>,
    ) -> Result<(Link, Option<ObservedPeer>), DeviceError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let gone = || DeviceError::Gone(pair.ifname.to_owned());
        let Some(link) = link::link_by_name(&self.handle, pair.ifname).await? else {
            return Err(gone());
        };
        let index = link.index;
        let prepared = async {
            link::set_addr_gen_none(&self.handle, index).await?;
            if is_isolated {
                bridge_port::set_isolated(&self.handle, index).await?;
                bridge_port::set_station(&self.handle, index, pair.mac).await?;
                if let (Some(bridge), Some(IpNet::V4(net))) =
                    (link.controller, pair.addresses.first())
                {
                    self.fix((bridge, net.addr()), pair.mac).await?;
                }
            }
            let peer = link.peer.ok_or_else(gone)?;
            link::set_addr_gen_none(inside, peer).await?;
            for address in pair.addresses {
                link::add_address(inside, peer, *address).await?;
            }
            attach(pair.ifname, index).map_err(|error| DeviceError::Attach(error.into()))?;
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

    /// Sets up both sides, waits until packets pass, and sets the alias `mark`, which is the last step: a device
    /// without it is raised again, or replaced. No effect where the device has its mark and the host's side is up.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] where the device, or its namespace, is not there any more. [`DeviceError::NotRunning`].
    pub(super) async fn raise_pair(
        &self,
        seen: &ObservedDevice,
        spec: &DeviceSpec,
        mark: &str,
    ) -> Result<(), DeviceError> {
        if seen.is_active() {
            return Ok(());
        }
        let peer = seen.peer.as_ref().ok_or_else(|| DeviceError::Gone(seen.ifname.clone()))?;
        // The endpoint's side last: a side that is set up before its other end has no carrier yet, and drops what it
        // is given until the kernel has taken note of the carrier, which it does later, in a work queue
        // (linkwatch, kernel 6.18).
        if !seen.up {
            raise(&self.handle, seen.ifindex, &seen.ifname).await?;
        }
        if seen.complete && peer.up {
            return Ok(());
        }
        let inside = self.connect_in_peer_netns(peer, &spec.netns, &seen.ifname).await?;
        raise_loopback(&inside).await?;
        // A network manager in the namespace may have taken it away from an interface that it did not know.
        for address in spec.addresses.iter().filter(|address| !peer.addresses.contains(address)) {
            match link::add_address(&inside, peer.ifindex, *address).await {
                Err(error) if error.errno() == Some(Errno::EEXIST) => {}
                added => added?,
            }
        }
        if !peer.up {
            raise(&inside, peer.ifindex, &seen.ifname).await?;
        }
        if let Some(gateway) = spec.gateway {
            ensure_default_route(&inside, peer.ifindex, gateway, &spec.netns).await?;
        }
        self.wait_until_running(seen, peer.ifindex, &inside).await?;
        Ok(link::set_alias(&self.handle, seen.ifindex, mark).await?)
    }

    /// Waits until the kernel sends what both sides of a pair are given. If the endpoint takes its own side down
    /// meanwhile, or makes it dormant, the wait ends: no endpoint can hold up the others.
    async fn wait_until_running(
        &self,
        pair: &ObservedDevice,
        peer: u32,
        inside: &Handle,
    ) -> Result<(), DeviceError> {
        let gone = || DeviceError::Gone(pair.ifname.clone());
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
                return Err(DeviceError::NotRunning(pair.ifname.clone()));
            }
            sleep(pause).await;
            pause = (pause * 2).min(RUNNING_PAUSE_MAX);
        }
    }

    /// Opens a socket in the namespace that `path` leads to, provided that the endpoint's side of the device `ifname`
    /// is in that namespace.
    ///
    /// # Errors
    /// [`DeviceError::Gone`] where the path leads to another namespace now.
    pub(super) async fn connect_in_peer_netns(
        &self,
        peer: &ObservedPeer,
        path: &Path,
        ifname: &str,
    ) -> Result<Handle, DeviceError> {
        let netns = Netns::open(path)?;
        if self.known_netns_id(&netns).await? != Some(peer.netns) {
            return Err(DeviceError::Gone(ifname.to_owned()));
        }
        netns.connect()
    }

    /// Fails where the namespace has an interface `name` that is not the other side of a device of the overlay.
    pub(super) async fn check_free(
        &self,
        netns: &Netns,
        inside: &[Link],
        name: &str,
    ) -> Result<(), DeviceError> {
        let Some(found) = inside.iter().find(|link| link.name == name) else { return Ok(()) };
        let Some(id) = self.known_netns_id(netns).await? else {
            return Err(exists(netns, name));
        };
        let is_ours = |link: &Link| {
            id_of(link).is_some() && link.peer.zip(link.peer_netns) == Some((found.index, id))
        };
        let links = link::links(&self.handle, None).await?;
        if links.iter().any(is_ours) { Ok(()) } else { Err(exists(netns, name)) }
    }

    /// Checks whether an endpoint can be created in `path` (or in the namespace of that bare name): it exists, is a
    /// network namespace, is not the node's own, has no foreign eth0, nor a foreign eth1 where it needs a gateway
    /// leg, and no address on the endpoint's `subnet`, if that is known: of two interfaces on one subnet only one is used.
    ///
    /// Enters the namespace on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub async fn check_netns(
        &self,
        path: &Path,
        needs_leg: bool,
        subnet: Option<Subnet>,
    ) -> Result<(), DeviceError> {
        self.check_inside(&Netns::open_now(path)?, needs_leg, subnet).await
    }

    /// The same of an open namespace.
    pub(crate) async fn check_inside(
        &self,
        netns: &Netns,
        needs_leg: bool,
        subnet: Option<Subnet>,
    ) -> Result<(), DeviceError> {
        let handle = netns.connect()?;
        let inside = link::links(&handle, None).await?;
        self.check_free(netns, &inside, FIRST_INTERFACE).await?;
        if needs_leg {
            self.check_free(netns, &inside, GATEWAY_INTERFACE).await?;
        }
        let Some(subnet) = subnet else { return Ok(()) };
        let until = Instant::now() + GOING;
        loop {
            match check_subnet(netns, &handle, &inside, subnet).await {
                // It may be that of an endpoint that is being removed.
                Err(DeviceError::SubnetInUse { .. }) if Instant::now() < until => {
                    sleep(RUNNING_PAUSE_MAX).await;
                }
                checked => return checked,
            }
        }
    }

    /// Sets up `lo` in the namespace, because 127.0.0.11 is there and a new namespace has it down. No effect where it
    /// is up.
    ///
    /// # Errors
    /// [`DeviceError::NoNamespace`] and its like where there is no such namespace.
    pub async fn raise_loopback(netns: &Path) -> Result<(), DeviceError> {
        Ok(raise_loopback(&Netns::open(netns)?.connect()?).await?)
    }
}

/// Fails if an interface of the namespace has addresses of the subnet on its link.
async fn check_subnet(
    netns: &Netns,
    inside: &Handle,
    links: &[Link],
    subnet: Subnet,
) -> Result<(), DeviceError> {
    let addresses = link::addresses(inside, 0, None).await?;
    match addresses.iter().find(|address| subnet.meets(address.ip, address.prefix)) {
        None => Ok(()),
        Some(address) => Err(DeviceError::SubnetInUse {
            netns: netns.path().to_owned(),
            interface: links
                .iter()
                .find(|link| link.index == address.index)
                .map_or_else(|| format!("number {}", address.index), |link| link.name.clone()),
            address: format!("{}/{}", address.ip, address.prefix),
            subnet,
        }),
    }
}

pub(super) fn exists(netns: &Netns, interface: &str) -> DeviceError {
    DeviceError::InterfaceExists { netns: netns.path().to_owned(), interface: interface.to_owned() }
}

/// Sets a device up; `ifname` is the host's side of its pair.
pub(super) async fn raise(handle: &Handle, index: u32, ifname: &str) -> Result<(), DeviceError> {
    link::set_up(handle, index).await.map_err(|error| {
        if error.is_gone() { DeviceError::Gone(ifname.to_owned()) } else { error.into() }
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
) -> Result<(), DeviceError> {
    let routes = route::routes(inside, route::MAIN).await?;
    let defaults: Vec<_> = routes.into_iter().filter(route::Route::is_default).collect();
    if defaults.is_empty() {
        let added = route::add_default(inside, index, gateway).await;
        match added {
            Ok(()) => {}
            // A program in the namespace was quicker: it added a route of its own, took eth1 down, or removed its
            // address. That is its own business.
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
