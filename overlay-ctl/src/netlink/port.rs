//! Ports: one veth pair an endpoint. The host's side is named after the endpoint's id, the other is
//! eth0 in the endpoint's namespace.
//!
//! The pair is made in one request, its far end directly inside the namespace, so that nobody ever
//! sees half a device there; it stays down until its programs and its map entries are in place.

use std::{net::Ipv4Addr, path::PathBuf};

use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkUnspec, LinkVeth};

use super::{
    Netlink, NetlinkError, PortError,
    link::{self, ALIAS_PREFIX, GROUP, Link, Owner},
    netns::{Netns, NetnsId},
};

/// Every host-side device's name begins with this; the rest is the endpoint's id in hexadecimal.
pub const PORT_PREFIX: &str = "ovp";
/// What an endpoint's interface is named in its namespace.
pub(super) const ENDPOINT_INTERFACE: &str = "eth0";
/// IFNAMSIZ less the terminating zero.
const NAME_MAX: usize = 15;

/// A port as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// The endpoint's id.
    pub endpoint: u64,
    /// Path of the endpoint's namespace, or its bare name below /run/netns.
    pub netns: PathBuf,
    /// MAC of eth0, in transmission order.
    pub mac: [u8; 6],
    /// Address of eth0.
    pub address: Ipv4Addr,
    /// Length of the network's prefix; the kernel adds the route to it.
    pub prefix: u8,
    /// MTU of both sides, in bytes.
    pub mtu: u32,
}

/// A port as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPort {
    /// The endpoint's id.
    pub endpoint: u64,
    /// Name of the host's side.
    pub ifname: String,
    /// Index of the host's side.
    pub ifindex: u32,
    /// The host's side is up.
    pub up: bool,
    /// MTU of the host's side, in bytes.
    pub mtu: u32,
    /// The other side; None where the kernel shows none (somebody moved it into our own namespace, or
    /// it is just going).
    pub peer: Option<ObservedPeer>,
}

/// The endpoint's side of a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedPeer {
    /// The namespace it is in; [`Netlink::netns_id`] tells which that is.
    pub netns: NetnsId,
    /// Its index there.
    pub ifindex: u32,
    /// Its name there.
    pub ifname: String,
    /// It is up.
    pub up: bool,
    /// Its MAC, in transmission order; empty where it has none.
    pub mac: Vec<u8>,
    /// Its MTU, in bytes.
    pub mtu: u32,
    /// Its IPv4 addresses and their prefix lengths.
    pub addresses: Vec<(Ipv4Addr, u8)>,
}

impl ObservedPort {
    /// The first thing, in words, in which the port is not as `spec` wants it; None where it is.
    /// Whether the two sides are up is not looked at. `netns` is the number of the namespace that
    /// `spec` names.
    #[must_use]
    pub fn difference(&self, spec: &PortSpec, netns: NetnsId) -> Option<&'static str> {
        let Some(peer) = &self.peer else { return Some("the endpoint's interface is gone") };
        let checks = [
            (peer.netns == netns, "the endpoint's interface is in another namespace"),
            (peer.ifname == ENDPOINT_INTERFACE, "the endpoint's interface is not named eth0"),
            (peer.mac == spec.mac, "the endpoint's interface has another MAC"),
            (
                peer.addresses.contains(&(spec.address, spec.prefix)),
                "the endpoint's interface lacks its address",
            ),
            (peer.mtu == spec.mtu && self.mtu == spec.mtu, "the MTU differs"),
        ];
        checks.into_iter().find_map(|(holds, difference)| (!holds).then_some(difference))
    }

    /// Both sides are up.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.up && self.peer.as_ref().is_some_and(|peer| peer.up)
    }
}

/// Name of the host's side of an endpoint's port.
///
/// # Errors
/// [`PortError::IdTooLarge`] where it would not fit a device name.
pub fn port_name(endpoint: u64) -> Result<String, PortError> {
    let name = format!("{PORT_PREFIX}{endpoint:x}");
    if name.len() > NAME_MAX { Err(PortError::IdTooLarge(endpoint)) } else { Ok(name) }
}

fn alias(endpoint: u64) -> String {
    format!("{ALIAS_PREFIX}endpoint:{endpoint}")
}

/// The endpoint of a device that is ours by name and alias.
fn endpoint_of(link: &Link) -> Option<u64> {
    let id = link.name.strip_prefix(PORT_PREFIX)?;
    let id = u64::from_str_radix(id, 16).ok()?;
    // Half made counts: whoever finds it completes it or removes it.
    (link.owner(&alias(id)) != Owner::Foreign).then_some(id)
}

/// Whether the device is the host's side of a port of ours.
pub(super) fn is_port(link: &Link) -> bool {
    endpoint_of(link).is_some()
}

impl Netlink {
    /// The ports that are ours, in the order of their endpoints' ids.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn ports(&self) -> Result<Vec<ObservedPort>, PortError> {
        let mut ports = Vec::new();
        for link in link::links(&self.handle).await? {
            if let Some(endpoint) = endpoint_of(&link) {
                ports.push(self.observe(endpoint, link).await?);
            }
        }
        ports.sort_by_key(|port| port.endpoint);
        Ok(ports)
    }

    /// The port of one endpoint, where there is one that is ours.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn port(&self, endpoint: u64) -> Result<Option<ObservedPort>, PortError> {
        match link::link_by_name(&self.handle, &port_name(endpoint)?).await? {
            Some(link) if endpoint_of(&link) == Some(endpoint) => {
                Ok(Some(self.observe(endpoint, link).await?))
            }
            _ => Ok(None),
        }
    }

    /// Makes a port, both sides down, and calls `attach` with the name and the index of the host's
    /// side: there the caller attaches programs and fills maps. [`Netlink::activate_port`] follows.
    /// What is left of an earlier port of this endpoint is removed first. On any error nothing is left.
    ///
    /// # Errors
    /// [`PortError`]: what of the namespace does not fit, or what the kernel refused.
    pub async fn create_port<E>(
        &self,
        spec: &PortSpec,
        attach: impl FnOnce(&str, u32) -> Result<(), E>,
    ) -> Result<ObservedPort, PortError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let ifname = port_name(spec.endpoint)?;
        let netns = Netns::open(&spec.netns)?;
        self.delete_port(&ifname).await?;
        netns.check_free()?;
        self.make_pair(&ifname, &netns, spec).await?;
        let Some(link) = link::link_by_name(&self.handle, &ifname).await? else {
            return Err(PortError::Gone(ifname));
        };
        let index = link.index;
        let prepared = async {
            link::set_alias(&self.handle, index, &alias(spec.endpoint)).await?;
            link::set_addr_gen_none(&self.handle, index).await?;
            self.configure_peer(&link, &netns, spec).await?;
            attach(&ifname, index).map_err(|error| PortError::Attach(error.into()))?;
            self.port(spec.endpoint).await?.ok_or_else(|| PortError::Gone(ifname.clone()))
        }
        .await;
        if prepared.is_err() {
            link::delete(&self.handle, index).await?;
        }
        prepared
    }

    /// Brings both sides of a port up. No effect where they are.
    ///
    /// # Errors
    /// [`PortError::Gone`] where the port, or its namespace, is not there any more.
    pub async fn activate_port(&self, spec: &PortSpec) -> Result<(), PortError> {
        let gone = || port_name(spec.endpoint).map(PortError::Gone).unwrap_or_else(|error| error);
        let port = self.port(spec.endpoint).await?.ok_or_else(gone)?;
        let peer = port.peer.ok_or_else(gone)?;
        let gone_or = |error: NetlinkError| if error.is_gone() { gone() } else { error.into() };
        // The host's side last: that it is up says that the whole port is.
        if !peer.up {
            let inside = Netns::open(&spec.netns)?.connect()?;
            link::set_up(&inside, peer.ifindex).await.map_err(gone_or)?;
        }
        if !port.up {
            link::set_up(&self.handle, port.ifindex).await.map_err(gone_or)?;
        }
        Ok(())
    }

    /// Removes a port, both sides. It is no error when it is gone already, as it is when the
    /// endpoint's namespace is.
    ///
    /// # Errors
    /// [`PortError::NameTaken`] where the device is not ours; it is left alone.
    pub async fn delete_port(&self, ifname: &str) -> Result<(), PortError> {
        let Some(link) = link::link_by_name(&self.handle, ifname).await? else { return Ok(()) };
        let id = ifname.strip_prefix(PORT_PREFIX).and_then(|id| u64::from_str_radix(id, 16).ok());
        match id.map(|id| link.owner(&alias(id))) {
            Some(Owner::Ours | Owner::HalfMade) => {
                Ok(link::delete(&self.handle, link.index).await?)
            }
            Some(Owner::Foreign) | None => Err(PortError::NameTaken(ifname.to_owned())),
        }
    }

    async fn observe(&self, endpoint: u64, link: Link) -> Result<ObservedPort, NetlinkError> {
        let mut port = ObservedPort {
            endpoint,
            ifname: link.name,
            ifindex: link.index,
            up: link.up,
            mtu: link.mtu,
            peer: None,
        };
        let Some((index, netns)) = link.peer.zip(link.peer_netns) else { return Ok(port) };
        let Some(peer) = link::link_by_index(&self.handle, index, Some(netns)).await? else {
            return Ok(port);
        };
        let addresses = link::addresses(&self.handle, index, Some(netns)).await?;
        port.peer = Some(ObservedPeer {
            netns,
            ifindex: index,
            ifname: peer.name,
            up: peer.up,
            mac: peer.mac,
            mtu: peer.mtu,
            addresses: addresses.into_iter().map(|address| (address.ip, address.prefix)).collect(),
        });
        Ok(port)
    }

    async fn make_pair(
        &self,
        ifname: &str,
        netns: &Netns,
        spec: &PortSpec,
    ) -> Result<(), PortError> {
        let peer = LinkUnspec::new_with_name(ENDPOINT_INTERFACE)
            .address(spec.mac.to_vec())
            .mtu(spec.mtu)
            .setns_by_fd(netns.fd())
            .build();
        let plain = LinkVeth::new(ifname, ENDPOINT_INTERFACE)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .mtu(spec.mtu)
            .append_extra_attribute(LinkAttribute::Group(GROUP))
            .build();
        let mut made = match self.barrier().await? {
            Some(barrier) => {
                let mut message = plain.clone();
                message.attributes.push(LinkAttribute::Controller(barrier));
                self.make_link(message).await
            }
            None => self.make_link(plain.clone()).await,
        };
        if made.as_ref().is_err_and(|error| error.errno() == Some(Errno::EXFULL)) {
            // The barrier takes no more: `ensure_barrier` says so.
            made = self.make_link(plain).await;
        }
        match made {
            Ok(()) => Ok(()),
            // Both names were free a moment ago; whose is not any more?
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                if link::link_by_name(&self.handle, ifname).await?.is_some() {
                    Err(PortError::NameTaken(ifname.to_owned()))
                } else {
                    Err(PortError::InterfaceExists(netns.path().to_owned()))
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn make_link(&self, message: LinkMessage) -> Result<(), NetlinkError> {
        let made = self.handle.link().add(message).execute().await;
        made.map_err(|error| NetlinkError::new("create a veth pair", error))
    }

    async fn configure_peer(
        &self,
        link: &Link,
        netns: &Netns,
        spec: &PortSpec,
    ) -> Result<(), PortError> {
        let index = link.peer.ok_or_else(|| PortError::Gone(link.name.clone()))?;
        let inside = netns.connect()?;
        link::set_addr_gen_none(&inside, index).await?;
        let added = inside.address().add(index, spec.address.into(), spec.prefix).execute().await;
        let action = format!("give {} to {ENDPOINT_INTERFACE}", spec.address);
        Ok(added.map_err(|error| NetlinkError::new(action, error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_lead_back_to_the_endpoint() {
        for id in [0, 1, 0xdead_beef, (1 << 48) - 1] {
            let name = port_name(id).unwrap();
            assert!(name.len() <= NAME_MAX, "{name}");
            let link = Link { name, alias: alias(id), ..Link::default() };
            assert_eq!(endpoint_of(&link), Some(id));
        }
        assert!(matches!(port_name(1 << 48), Err(PortError::IdTooLarge(_))));
    }

    #[test]
    fn a_device_is_ours_only_with_its_own_alias() {
        let named = |alias: &str| Link {
            name: "ovp2a".to_owned(),
            alias: alias.to_owned(),
            ..Link::default()
        };
        assert_eq!(endpoint_of(&named("overlay:endpoint:42")), Some(42));
        assert_eq!(endpoint_of(&named("overlay:endpoint:43")), None);
        assert_eq!(endpoint_of(&named("")), None);
        let other = Link { name: "veth1".to_owned(), ..named("overlay:endpoint:42") };
        assert_eq!(endpoint_of(&other), None);
    }

    #[test]
    fn every_difference_is_named() {
        let spec = PortSpec {
            endpoint: 42,
            netns: "web1".into(),
            mac: [2, 0x42, 172, 16, 16, 129],
            address: Ipv4Addr::new(172, 16, 16, 129),
            prefix: 24,
            mtu: 1450,
        };
        let netns = NetnsId::new(3).unwrap();
        let peer = ObservedPeer {
            netns,
            ifindex: 2,
            ifname: "eth0".to_owned(),
            up: true,
            mac: spec.mac.to_vec(),
            mtu: 1450,
            addresses: vec![(spec.address, 24)],
        };
        let port = ObservedPort {
            endpoint: 42,
            ifname: "ovp2a".to_owned(),
            ifindex: 7,
            up: true,
            mtu: 1450,
            peer: Some(peer.clone()),
        };
        assert_eq!(port.difference(&spec, netns), None);
        let with = |peer| ObservedPort { peer, ..port.clone() }.difference(&spec, netns);
        let differences = [
            with(None),
            port.difference(&spec, NetnsId::new(4).unwrap()),
            with(Some(ObservedPeer { ifname: "eth1".to_owned(), ..peer.clone() })),
            with(Some(ObservedPeer { mac: vec![2; 6], ..peer.clone() })),
            with(Some(ObservedPeer { addresses: vec![(spec.address, 16)], ..peer.clone() })),
            with(Some(ObservedPeer { mtu: 1500, ..peer.clone() })),
        ];
        let distinct: std::collections::BTreeSet<_> =
            differences.iter().map(|difference| difference.unwrap()).collect();
        assert_eq!(distinct.len(), differences.len());
    }
}
