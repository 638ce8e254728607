//! The devices of the overlay as they are, and the namespaces that they should lead into.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    DeviceError, Netlink, NetlinkError,
    link::{self, Link},
    marks::{self, device_name, id_of},
};
use crate::dataplane::kernel::{
    DeviceId, Observed, ObservedBridge, ObservedDevice, ObservedPeer, Part,
};

/// The devices of the node's namespace at one moment.
#[derive(Clone, Debug, Default)]
pub struct LinkList(pub(super) Vec<Link>);

impl Netlink {
    /// Lists the devices of the node's namespace, for several questions about them. Devices of the overlay that somebody
    /// renamed first get their names back; so it is with [`Netlink::observe`] and [`Netlink::observe_part`].
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn link_list(&self) -> Result<LinkList, NetlinkError> {
        Ok(LinkList(self.own_links().await?))
    }
}

/// A device as the kernel shows it.
pub(super) fn observed(id: DeviceId, link: Link, peer: Option<ObservedPeer>) -> ObservedDevice {
    let complete = marks::is_raised(&link, id);
    let running = link.is_running();
    ObservedDevice {
        id,
        ifname: link.name,
        ifindex: link.index,
        up: link.up,
        running,
        complete,
        queued: link.queued,
        mtu: link.mtu,
        super_packets: link.super_packets,
        bridge: link.controller.unwrap_or(0),
        peer,
    }
}

impl Netlink {
    /// All devices of the overlay, the gateway bridge, and the namespaces that `paths` lead to.
    ///
    /// # Errors
    /// rtnetlink's. A path that leads to no namespace is no error: it is missing in the result.
    pub async fn observe(&self, paths: &BTreeSet<PathBuf>) -> Result<Observed, DeviceError> {
        let links = self.own_links().await?;
        let bridge = links.iter().find(|link| marks::is_gateway_bridge(link));
        let bridge = bridge.map(|link| ObservedBridge { ifindex: link.index, mtu: link.mtu });
        self.observed(links, bridge, paths).await
    }

    /// The same of a part: each device and each namespace is asked for alone.
    ///
    /// # Errors
    /// As [`Netlink::observe`].
    pub async fn observe_part(&self, part: &Part) -> Result<Observed, DeviceError> {
        let Part { indexes, ids, paths } = part;
        let mut named = Vec::with_capacity(indexes.len());
        for index in indexes {
            named.extend(link::link_by_index(&self.handle, *index, None).await?);
        }
        self.restore_names(&mut named).await;
        let bridge = self.gateway_bridge().await?;
        let bridge = bridge.map(|link| ObservedBridge { ifindex: link.index, mtu: link.mtu });
        let mut links: BTreeMap<u32, Link> =
            named.into_iter().map(|link| (link.index, link)).collect();
        for id in ids {
            // There is no device whose number has no name.
            let Ok(name) = device_name(*id) else { continue };
            if links.values().any(|link: &Link| link.name == name) {
                continue;
            }
            let link = link::link_by_name(&self.handle, &name).await?;
            links.extend(link.map(|link| (link.index, link)));
        }
        self.observed(links.into_values().collect(), bridge, paths).await
    }

    /// The devices of the node's namespace; the overlay's have their names.
    async fn own_links(&self) -> Result<Vec<Link>, NetlinkError> {
        let mut links = link::links(&self.handle, None).await?;
        self.restore_names(&mut links).await;
        Ok(links)
    }

    /// The devices of the overlay among these, and the namespaces that `paths` lead to.
    async fn observed(
        &self,
        mut links: Vec<Link>,
        bridge: Option<ObservedBridge>,
        paths: &BTreeSet<PathBuf>,
    ) -> Result<Observed, DeviceError> {
        let mut seen = Observed { bridge, ..Observed::default() };
        links.retain(|link| id_of(link).is_some());
        let mut peers = self.peers(&links).await?;
        for link in links {
            if let Some(id) = id_of(&link) {
                let peer = peers.remove(&link.index);
                seen.devices.push(observed(id, link, peer));
            }
        }
        seen.devices.sort_by_key(|device| device.id);
        for path in paths {
            match self.netns_id(path).await {
                Ok(netns) => _ = seen.namespaces.insert(path.clone(), netns),
                // One namespace that the kernel tells nothing of is no reason to look at no other.
                Err(DeviceError::Netlink(error)) => {
                    let (path, why) = (path.display(), crate::error_chain(&error));
                    seen.trouble
                        .push(format!("the namespace {path} could not be looked at: {why}"));
                }
                Err(_) => {}
            }
        }
        Ok(seen)
    }

    /// All devices of the overlay, in the order of their ids.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn devices(&self) -> Result<Vec<ObservedDevice>, DeviceError> {
        Ok(self.observe(&BTreeSet::new()).await?.devices)
    }

    /// Returns true if the device with this index is a device of the overlay in an endpoint's namespace.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn is_one_of_ours(&self, ifindex: u32) -> Result<bool, NetlinkError> {
        let link = link::link_by_index(&self.handle, ifindex, None).await?;
        Ok(link.is_some_and(|link| id_of(&link).is_some()))
    }

    /// One device of the overlay, where it exists.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn device(&self, id: DeviceId) -> Result<Option<ObservedDevice>, DeviceError> {
        match link::link_by_name(&self.handle, &device_name(id)?).await? {
            Some(link) if id_of(&link) == Some(id) => {
                let peer = self.peer(&link).await?;
                Ok(Some(observed(id, link, peer)))
            }
            _ => Ok(None),
        }
    }
}
