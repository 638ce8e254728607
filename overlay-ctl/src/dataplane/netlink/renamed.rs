//! Devices of the overlay that somebody else renamed: they are known by alias and group, and get their names back.
//!
//! Everything that asks for a device by its name, as the rules of nftables for the gateway bridge do, would otherwise miss
//! it, and the node would make a second one beside it.

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

impl Netlink {
    /// Gives the devices among these that somebody renamed their names back.
    ///
    /// A name that another device has by now stays with that one, and the device keeps the name that it has.
    ///
    /// # Errors
    /// rtnetlink's.
    pub(super) async fn restore_names(&self, links: &mut [Link]) -> Result<(), NetlinkError> {
        for place in 0..links.len() {
            let link = &links[place];
            let Some(name) = given_name(link).filter(|name| *name != link.name) else { continue };
            if links.iter().any(|link| link.name == name) {
                continue;
            }
            let link = &mut links[place];
            match self.rename(link, &name).await {
                Ok(()) => {
                    let (device, found) = (&name, &link.name);
                    tracing::warn!(
                        device,
                        found,
                        "a device of the overlay was renamed, and got its name back"
                    );
                    link.name = name;
                }
                Err(error) if error.is_gone() || error.errno() == Some(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
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
                link::set_up(&self.handle, link.index).await?;
                renamed
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
}
