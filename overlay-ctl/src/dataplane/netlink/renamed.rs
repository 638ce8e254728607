//! Devices of the overlay that somebody else renamed: they are known by alias and group, and get their names back.
//!
//! Everything that asks for a device by its name, as the rules of nftables for the gateway bridge do, would otherwise miss
//! it, and the node would make a second one beside it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use netlink_packet_route::link::InfoVxlan;
use nix::errno::Errno;
use rtnetlink::LinkUnspec;

use super::{
    Netlink, NetlinkError,
    link::{self, Link},
    marks::{device_name, id_by_alias},
    names::{
        BARRIER, BARRIER_ALIAS, GATEWAY_BRIDGE, GATEWAY_BRIDGE_ALIAS, GRO_ALIAS, GRO_PREFIX, GROUP,
        MERGE_IN, MERGE_IN_ALIAS, MERGE_OUT, MERGE_OUT_ALIAS,
    },
};

/// A device that got its name back is not renamed again for so long, whatever another program does to it.
const REST: Duration = Duration::from_secs(10);
/// The same of a device that could not be renamed.
const REST_OF_FAILED: Duration = Duration::from_secs(120);

/// The name that the node gave to a device; `None` where alias and group do not both say that the node made it.
fn given_name(link: &Link) -> Option<String> {
    if link.group != GROUP {
        return None;
    }
    match link.alias.as_str() {
        GATEWAY_BRIDGE_ALIAS => link.bridge.as_ref().map(|_| GATEWAY_BRIDGE.to_owned()),
        BARRIER_ALIAS => link.bridge.as_ref().map(|_| BARRIER.to_owned()),
        MERGE_IN_ALIAS => Some(MERGE_IN.to_owned()),
        MERGE_OUT_ALIAS => Some(MERGE_OUT.to_owned()),
        GRO_ALIAS => link.vxlan.iter().flatten().find_map(|option| match option {
            InfoVxlan::Port(port) => Some(format!("{GRO_PREFIX}{port}")),
            _ => None,
        }),
        alias => device_name(id_by_alias(alias)?).ok(),
    }
}

/// The devices that are left alone for a while, by their indexes, each until when: another program renames them again and
/// again, or they can't be renamed.
#[derive(Debug, Default)]
pub(super) struct LeftAlone(Mutex<BTreeMap<u32, Instant>>);

impl LeftAlone {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, index: u32, now: Instant) -> bool {
        let mut devices = self.lock();
        devices.retain(|_, until| now < *until);
        devices.contains_key(&index)
    }

    fn leave(&self, index: u32, until: Instant) {
        self.lock().insert(index, until);
    }
}

impl Netlink {
    /// Gives the devices among these that somebody renamed their names back.
    ///
    /// A device whose name another one has by now, or that can't be renamed, keeps the name that it has; the log says so.
    pub(super) async fn restore_names(&self, links: &mut [Link]) {
        for link in links {
            let Some(name) = given_name(link).filter(|name| *name != link.name) else { continue };
            let now = Instant::now();
            if self.left_alone.has(link.index, now) {
                continue;
            }
            let (device, found) = (&name, &link.name);
            match self.rename(link, &name).await {
                Ok(()) => {
                    tracing::warn!(device, found, "a device was renamed, and got its name back");
                    self.left_alone.leave(link.index, now + REST);
                    link.name = name;
                }
                Err(error) if error.is_gone() => {}
                Err(error) => {
                    let error = crate::error_chain(&error);
                    tracing::warn!(
                        device,
                        found,
                        error,
                        "a device was renamed and can't get its name back: rename it, or remove it"
                    );
                    self.left_alone.leave(link.index, now + REST_OF_FAILED);
                }
            }
        }
    }

    async fn rename(&self, link: &Link, name: &str) -> Result<(), NetlinkError> {
        let rename = || {
            let message = LinkUnspec::new_with_index(link.index).name(name.to_owned()).build();
            link::change(&self.handle, message, "give a device its name back")
        };
        match rename().await {
            // Before kernel 6.2 a device that is up can't be renamed.
            Err(error) if error.errno() == Some(Errno::EBUSY) => {
                link::set_down(&self.handle, link.index).await?;
                let renamed = rename().await;
                let raised = link::set_up(&self.handle, link.index).await;
                renamed.and(raised)
            }
            renamed => renamed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(alias: &str, group: u32) -> Link {
        let (name, alias) = ("renamed0".to_owned(), alias.to_owned());
        Link { name, alias, group, bridge: Some(Vec::new()), ..Link::default() }
    }

    #[test]
    fn each_kind_of_device_is_known_by_its_alias_and_group() {
        for (alias, name) in [
            ("overlay:endpoint:42", "ovp2a"),
            ("overlay:leg:43", "ovgw0000002b"),
            (GATEWAY_BRIDGE_ALIAS, GATEWAY_BRIDGE),
            (BARRIER_ALIAS, BARRIER),
            (MERGE_IN_ALIAS, MERGE_IN),
            (MERGE_OUT_ALIAS, MERGE_OUT),
        ] {
            assert_eq!(given_name(&made(alias, GROUP)).as_deref(), Some(name), "{alias}");
            assert_eq!(given_name(&made(alias, 0)), None, "{alias} of another program");
        }
        let mut gro = made(GRO_ALIAS, GROUP);
        assert_eq!(given_name(&gro), None, "its port is not shown");
        gro.vxlan = Some(vec![InfoVxlan::Port(4789)]);
        assert_eq!(given_name(&gro).as_deref(), Some("ovg4789"));
        for alias in
            ["", "overlay:endpoint:", "overlay:endpoint:x", "overlay:other:1", "endpoint:1"]
        {
            assert_eq!(given_name(&made(alias, GROUP)), None, "{alias}");
        }
        let bare = Link { bridge: None, ..made(GATEWAY_BRIDGE_ALIAS, GROUP) };
        assert_eq!(given_name(&bare), None, "it is no bridge");
    }

    #[test]
    fn a_device_is_left_alone_for_its_time_and_no_other_is() {
        let (left, now) = (LeftAlone::default(), Instant::now());
        left.leave(3, now + REST);
        assert!(left.has(3, now) && !left.has(4, now));
        assert!(!left.has(3, now + REST));
        assert!(left.lock().is_empty(), "it is forgotten");
    }
}
