//! The devices that send another device's packets in the end: the device itself, or the devices below a VLAN, a macvlan
//! or a bond. And those by which its packets come in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{
    LinkList, Netlink, NetlinkError,
    link::{self, Link, Parent},
};

/// The kind of a device with another end in some namespace of this machine.
pub(super) const VETH: &str = "veth";
/// Kinds of devices that hand every packet to the one device below them (IFLA_LINK).
const ON_ONE: [&str; 5] = ["vlan", "macvlan", "macvtap", "ipvlan", "ipvtap"];
/// Kinds that hand each packet to one of their members (IFLA_MASTER).
const OVER_MEMBERS: [&str; 2] = ["bond", "team"];
/// Unlike /sys/class/net it is not namespaced: it shows every device of a bus, in any network namespace.
const BUSES: &str = "/sys/bus";

/// A device at the bottom of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BottomDevice {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: BottomKind,
}

/// The kind of a device at the bottom.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum BottomKind {
    /// A device on a bus: a network card, or what a hypervisor shows as one. Its driver, as "`mlx5_core`"; empty
    /// where /sys does not tell.
    Bus(String),
    /// A device in software, by its kind: "veth", "bridge", "tun"; empty where the kernel names none.
    Software(String),
    /// The device below it cannot be seen: it is in another network namespace, or is gone.
    Hidden,
}

/// The driver of a device on a bus; empty where /sys does not tell.
fn driver(parent: &Parent) -> String {
    let place: PathBuf = [BUSES, &parent.bus, "devices", &parent.device, "driver"].iter().collect();
    let target = fs::read_link(place).unwrap_or_default();
    target.file_name().map(Path::new).map(|name| name.display().to_string()).unwrap_or_default()
}

impl Netlink {
    /// The devices that send a device's packets in the end, each once; none where the device is gone or has no
    /// members.
    ///
    /// # Errors
    /// rtnetlink's.
    pub async fn bottom_devices(
        &self,
        ifindex: u32,
    ) -> Result<BTreeSet<BottomDevice>, NetlinkError> {
        Ok(bottom_of(&link::links(&self.handle, None).await?, ifindex, driver))
    }
}

impl LinkList {
    /// The devices by which a device's packets come in, by their indices: the device itself, and all that are below it,
    /// which are the members of a bond and the ports of a bridge, too. Each may merge the packets.
    #[must_use]
    pub fn receiving_devices(&self, ifindex: u32) -> BTreeMap<u32, String> {
        receiving(&self.0, ifindex)
    }
}

fn receiving(links: &[Link], ifindex: u32) -> BTreeMap<u32, String> {
    let (mut found, mut left) = (BTreeMap::new(), vec![ifindex]);
    while let Some(index) = left.pop() {
        let Some(link) = links.iter().find(|link| link.index == index) else { continue };
        if found.insert(index, link.name.clone()).is_some() {
            continue;
        }
        if ON_ONE.contains(&link.kind.as_str()) && link.peer_netns.is_none() {
            left.extend(link.peer);
        }
        let members = links.iter().filter(|member| member.controller == Some(index));
        left.extend(members.map(|member| member.index));
    }
    found
}

pub(super) fn bottom_of(
    links: &[Link],
    ifindex: u32,
    driver: impl Fn(&Parent) -> String,
) -> BTreeSet<BottomDevice> {
    let (mut bottom, mut seen, mut left) = (BTreeSet::new(), BTreeSet::new(), vec![ifindex]);
    while let Some(index) = left.pop() {
        let Some(link) = links.iter().find(|link| link.index == index) else { continue };
        if !seen.insert(index) {
            continue;
        }
        let kind = link.kind.as_str();
        let kind = if ON_ONE.contains(&kind) {
            let is_here = |below: &u32| links.iter().any(|link| link.index == *below);
            match link.peer.filter(|below| link.peer_netns.is_none() && is_here(below)) {
                Some(below) => {
                    left.push(below);
                    continue;
                }
                None => BottomKind::Hidden,
            }
        } else if OVER_MEMBERS.contains(&kind) {
            let members = links.iter().filter(|member| member.controller == Some(index));
            left.extend(members.map(|member| member.index));
            continue;
        } else if kind.is_empty() && link.parent.is_known() {
            BottomKind::Bus(driver(&link.parent))
        } else {
            BottomKind::Software(kind.to_owned())
        };
        bottom.insert(BottomDevice { name: link.name.clone(), kind });
    }
    bottom
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::kernel::NetnsId;

    fn link(index: u32, name: &str, kind: &str) -> Link {
        Link { index, name: name.to_owned(), kind: kind.to_owned(), ..Link::default() }
    }

    fn card(index: u32, name: &str, device: &str) -> Link {
        let parent = Parent { bus: "pci".to_owned(), device: device.to_owned() };
        Link { parent, ..link(index, name, "") }
    }

    fn bottom(links: &[Link], index: u32) -> Vec<(String, BottomKind)> {
        let found = bottom_of(links, index, |parent| format!("driver of {}", parent.device));
        found.into_iter().map(|BottomDevice { name, kind }| (name, kind)).collect()
    }

    fn bus(name: &str, device: &str) -> (String, BottomKind) {
        (name.to_owned(), BottomKind::Bus(format!("driver of {device}")))
    }

    fn software(name: &str, kind: &str) -> (String, BottomKind) {
        (name.to_owned(), BottomKind::Software(kind.to_owned()))
    }

    #[test]
    fn a_device_that_is_made_on_no_other_is_its_own_bottom() {
        let veth = Link { peer: Some(9), peer_netns: NetnsId::new(0), ..link(2, "eth1", "veth") };
        let port = Link { controller: Some(4), ..card(1, "eth0", "a") };
        let links =
            [port, veth, link(3, "tap0", "tun"), link(4, "br0", "bridge"), link(5, "odd", "")];
        assert_eq!(bottom(&links, 1), [bus("eth0", "a")], "also as a port of a bridge");
        assert_eq!(bottom(&links, 2), [software("eth1", "veth")]);
        assert_eq!(bottom(&links, 3), [software("tap0", "tun")]);
        assert_eq!(bottom(&links, 4), [software("br0", "bridge")], "whatever is in it, or will be");
        assert_eq!(bottom(&links, 5), [software("odd", "")]);
        assert_eq!(bottom(&links, 6), []);
    }

    #[test]
    fn what_is_made_on_others_is_what_they_are() {
        let on = |index, name: &str, kind: &str, below| Link {
            peer: Some(below),
            ..link(index, name, kind)
        };
        let member = |bond, member: Link| Link { controller: Some(bond), ..member };
        let links = [
            member(10, card(1, "eth0", "a")),
            member(10, card(2, "eth1", "b")),
            link(3, "v0", "veth"),
            link(10, "bond0", "bond"),
            on(11, "bond0.7", "vlan", 10),
            on(12, "mac0", "macvlan", 11),
            on(13, "ipvl0", "ipvlan", 3),
            link(14, "team0", "team"),
            member(15, on(16, "v0.1", "vlan", 3)),
            member(15, card(4, "eth2", "c")),
            link(15, "bond1", "bond"),
            Link { peer_netns: NetnsId::new(1), ..on(17, "moved", "macvlan", 1) },
            on(18, "orphan", "vlan", 99),
        ];
        let both = [bus("eth0", "a"), bus("eth1", "b")];
        for top in [10, 11, 12] {
            assert_eq!(bottom(&links, top), both, "{top}");
        }
        assert_eq!(bottom(&links, 13), [software("v0", "veth")]);
        assert_eq!(bottom(&links, 14), [], "no members yet");
        assert_eq!(bottom(&links, 15), [bus("eth2", "c"), software("v0", "veth")]);
        let hidden = |name: &str| (name.to_owned(), BottomKind::Hidden);
        assert_eq!(bottom(&links, 17), [hidden("moved")], "not the device of that number here");
        assert_eq!(bottom(&links, 18), [hidden("orphan")]);
    }

    #[test]
    fn packets_come_in_by_a_device_and_by_all_below_it() {
        let veth = Link { peer: Some(9), peer_netns: NetnsId::new(0), ..link(2, "v0", "veth") };
        let links = [
            Link { controller: Some(10), ..card(1, "eth0", "a") },
            Link { controller: Some(12), ..veth },
            card(3, "eth1", "b"),
            Link { peer: Some(10), controller: Some(12), ..link(11, "bond0.7", "vlan") },
            link(10, "bond0", "bond"),
            link(12, "br0", "bridge"),
            Link { peer: Some(1), peer_netns: NetnsId::new(1), ..link(13, "moved", "macvlan") },
        ];
        let names = |index| receiving(&links, index).into_values().collect::<Vec<_>>();
        assert_eq!(names(3), ["eth1"]);
        assert_eq!(names(10), ["eth0", "bond0"]);
        assert_eq!(names(11), ["eth0", "bond0", "bond0.7"]);
        assert_eq!(names(12), ["eth0", "v0", "bond0", "bond0.7", "br0"]);
        assert_eq!(names(13), ["moved"], "not the device of that number here");
        assert_eq!(names(2), ["v0"], "the other end of a veth is not below it");
        assert_eq!(names(99), [""; 0]);
    }
}
