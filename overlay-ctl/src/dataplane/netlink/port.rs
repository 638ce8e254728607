//! Ports: one veth pair an endpoint. The host's side is named after the endpoint's id, the other is
//! the first free of eth0, eth2, eth3 and so on in the endpoint's namespace.

use std::{net::Ipv4Addr, path::PathBuf};

use nix::errno::Errno;

use super::{
    Netlink, NetnsId, ObservedPeer, PortError, SuperPackets, features,
    link::{self, ALIAS_PREFIX, Link, Owner},
    netns::Netns,
    observe::{self, Wanted},
    pair::{self, FIRST_INTERFACE, Pair, Raise},
};

/// Every host-side device's name begins with this; the rest is the endpoint's id in hexadecimal.
pub const PORT_PREFIX: &str = "ovp";
/// IFNAMSIZ less the terminating zero.
const NAME_MAX: usize = 15;

/// A port as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortSpec {
    /// The endpoint's id.
    pub endpoint: u64,
    /// Path of the endpoint's namespace, or its bare name below /run/netns.
    pub netns: PathBuf,
    /// MAC of the endpoint's side, in transmission order.
    pub mac: [u8; 6],
    /// Its address.
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
    /// It is up, and what the host gives it is sent.
    pub running: bool,
    /// [`Netlink::activate_port`] came to its end: the device is marked so by its alias. That the host's side is up
    /// says nothing of it: network managers set any new device up.
    pub complete: bool,
    /// MTU of the host's side, in bytes.
    pub mtu: u32,
    /// How large its super-packets may be.
    pub super_packets: SuperPackets,
    /// The other side; None where the kernel shows none (somebody moved it into our own namespace, or
    /// it is just going).
    pub peer: Option<ObservedPeer>,
}

impl ObservedPort {
    pub(super) fn new(endpoint: u64, link: Link, peer: Option<ObservedPeer>) -> Self {
        let complete = link.owner(&alias(endpoint)) == Owner::Ours;
        let running = link.is_running();
        let Link { name: ifname, index: ifindex, up, mtu, super_packets, .. } = link;
        Self { endpoint, ifname, ifindex, up, running, complete, mtu, super_packets, peer }
    }

    /// The first thing, in words, in which the port is not as `spec` wants it; None where it is.
    /// Whether the two sides are up is not looked at. `netns` is the number of the namespace that
    /// `spec` names.
    #[must_use]
    pub fn difference(&self, spec: &PortSpec, netns: NetnsId) -> Option<&'static str> {
        let wanted = Wanted {
            netns,
            has_name: &pair::is_port_interface,
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
pub(super) fn endpoint_of(link: &Link) -> Option<u64> {
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
    /// The ports that are ours, in the order of their endpoints' ids. [`Netlink::observe`] gives the
    /// gateway legs as well, for the price of one.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn ports(&self) -> Result<Vec<ObservedPort>, PortError> {
        Ok(self.observe().await?.0)
    }

    /// The port of one endpoint, where there is one that is ours.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn port(&self, endpoint: u64) -> Result<Option<ObservedPort>, PortError> {
        match link::link_by_name(&self.handle, &port_name(endpoint)?).await? {
            Some(link) if endpoint_of(&link) == Some(endpoint) => {
                let peer = self.peer(&link).await?;
                Ok(Some(ObservedPort::new(endpoint, link, peer)))
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
        let inside = netns.connect()?;
        let interfaces = link::links(&inside, None).await?;
        self.check_free(&netns, &interfaces, FIRST_INTERFACE).await?;
        let pair = Pair {
            ifname: &ifname,
            netns: &netns,
            interface: &pair::free_interface(&interfaces),
            mac: spec.mac,
            address: (spec.address, spec.prefix),
            mtu: spec.mtu,
        };
        match self.make_pair(&pair, self.barrier().await?).await {
            // The barrier takes no more: `ensure_barrier` says so.
            Err(PortError::Netlink(error)) if error.errno() == Some(Errno::EXFULL) => {
                self.make_pair(&pair, None).await?;
            }
            made => made?,
        }
        let (link, peer) = self.prepare_pair(&pair, &inside, false, attach).await?;
        if let Some(peer) = link.peer {
            cut_datagrams(&pair, peer).await;
        }
        Ok(ObservedPort::new(spec.endpoint, link, peer))
    }

    /// Brings both sides of a port up, and the namespace's loopback, and returns when packets pass. No effect where
    /// that was done and the host's side is up still.
    ///
    /// # Errors
    /// [`PortError::Gone`] where the port, or its namespace, is not there any more. [`PortError::NotRunning`].
    pub async fn activate_port(&self, spec: &PortSpec) -> Result<(), PortError> {
        let ifname = port_name(spec.endpoint)?;
        let port =
            self.port(spec.endpoint).await?.ok_or_else(|| PortError::Gone(ifname.clone()))?;
        let sides = Raise {
            ifname: &ifname,
            ifindex: port.ifindex,
            up: port.up,
            complete: port.complete,
            peer: port.peer.as_ref(),
            alias: &alias(spec.endpoint),
            netns: &spec.netns,
            gateway: None,
        };
        self.raise_pair(&sides).await
    }

    /// Removes a port, both sides. It is no error when it is gone already, as it is when the
    /// endpoint's namespace is.
    ///
    /// # Errors
    /// [`PortError::NameTaken`] where the device is not ours; it is left alone.
    pub async fn delete_port(&self, ifname: &str) -> Result<(), PortError> {
        self.delete_pair(ifname, is_port).await
    }
}

/// Has the endpoint's side cut super-packets of datagrams itself. One that crosses the underlay whole, as
/// from a veth to a veth, comes to its receiver marked as a tunnel's still: no program can take the mark off
/// (`bpf_skb_adjust_room`, kernel 6.18), and the kernel, which has to cut it for its receiver then, looks
/// for the inner headers behind the only ones there are, and drops it (`udp4_ufo_fragment`).
async fn cut_datagrams(pair: &Pair<'_>, peer: u32) {
    if let Err(error) = features::switch_off(pair.netns, peer, features::UDP_SEGMENTATION).await {
        tracing::warn!(
            device = pair.ifname,
            error = crate::error_chain(&error),
            "cannot have an endpoint's interface cut UDP super-packets: those that cross the underlay \
             whole are lost"
        );
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
            running: true,
            mac: spec.mac.to_vec(),
            mtu: 1450,
            super_packets: SuperPackets::DEFAULT,
            addresses: vec![(spec.address, 24)],
        };
        let port = ObservedPort {
            endpoint: 42,
            ifname: "ovp2a".to_owned(),
            ifindex: 7,
            up: true,
            running: true,
            complete: true,
            mtu: 1450,
            super_packets: SuperPackets::DEFAULT,
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
