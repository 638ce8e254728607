//! The contestants, which are different connections between two containers. Each has hosts of its own, and
//! all exist at the same time.

mod bridge;
mod crowd;
mod docker;
pub(in crate::bench) mod kernel;
pub(in crate::bench) mod ours;
pub(in crate::bench) mod underlay;

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Lab, Netns};

use self::docker::Engine;
use super::scene::{BESIDE, HUNDRED, MILLION, Place, Topology, UNDERLAY, Underlay, Wire};

/// Bytes that VXLAN over IPv4 adds to each packet.
const OVERHEAD: u32 = 50;

/// One contestant: its two ends, and the wire between them.
pub(in crate::bench) struct Contestant {
    pub(in crate::bench) name: &'static str,
    pub(in crate::bench) place: Place,
    pub(in crate::bench) client: Netns,
    pub(in crate::bench) server: Netns,
    pub(in crate::bench) server_address: Ipv4Addr,
    /// The hosts whose eth0 is the wire; empty if both ends are on one host.
    pub(in crate::bench) wired: Vec<Arc<Host>>,
    /// The Docker engines that the contestant needs.
    _engines: Vec<Engine>,
}

/// The contestants that take part besides the underlay and the kernel, and what all of them have.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Entrants {
    pub(in crate::bench) ours: bool,
    pub(in crate::bench) docker: bool,
    pub(in crate::bench) sizes: Sizes,
}

/// The size of super-packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Sizes {
    /// What each contestant chooses by default.
    Default,
    /// 256 KiB (BIG TCP), on the wire and on the devices of each contestant.
    Large,
}

/// Returns true if a Docker engine is installed.
pub(in crate::bench) fn docker_is_installed() -> bool {
    docker::is_installed()
}

/// Builds all contestants for these places, and checks that they work.
pub(in crate::bench) fn build(
    lab: &mut Lab,
    places: &[Place],
    entrants: Entrants,
) -> Result<Vec<Contestant>> {
    let mut contestants = Vec::new();
    for &place in places {
        match place {
            Place::TwoHosts(underlay) => {
                contestants.push(underlay::build(lab, underlay)?);
                contestants.push(kernel::build(lab, underlay)?);
                if entrants.docker {
                    contestants.push(docker::build(lab, underlay).context(
                        "Docker's overlay does not come up; --without-docker leaves it out",
                    )?);
                }
                if entrants.ours {
                    contestants.extend(ours::two_hosts(lab, underlay, entrants.sizes)?);
                }
            }
            Place::OneHost => {
                contestants.push(bridge::build(lab)?);
                if entrants.ours {
                    contestants.push(ours::one_host(lab, entrants.sizes)?);
                }
            }
            Place::Crowd if entrants.ours => {
                contestants.push(ours::crowd(lab, (HUNDRED, "c"), 100, entrants.sizes)?);
                contestants.push(ours::crowd(lab, (MILLION, "m"), 1_000_000, entrants.sizes)?);
            }
            Place::Crowd => {}
        }
    }
    if entrants.sizes == Sizes::Large {
        for contestant in &contestants {
            contestant.enlarge()?;
        }
    }
    for contestant in &contestants {
        contestant
            .check()
            .with_context(|| format!("{} is not fit to be measured", contestant.name))?;
    }
    Ok(contestants)
}

impl Contestant {
    /// An endpoint on each of two hosts that a wire of 1500 bytes joins.
    pub(in crate::bench) fn of_two_hosts(
        name: &'static str,
        (client, server): (Netns, Netns),
        server_address: Ipv4Addr,
        hosts: [Arc<Host>; 2],
    ) -> Self {
        Self {
            name,
            place: Place::TwoHosts(Underlay::USUAL),
            client,
            server,
            server_address,
            wired: hosts.into(),
            _engines: Vec::new(),
        }
    }

    /// Chooses whether super-packets or real packets cross the wire. Real packets need a device that segments
    /// nothing, neither itself nor by the kernel's software. The receiver merges in both cases.
    pub(in crate::bench) fn set_wire(&self, wire: Wire) -> Result<()> {
        let state = if wire == Wire::Tso { "on" } else { "off" };
        for host in &self.wired {
            let mut words = vec!["ethtool", "-K", "eth0", "gro", "on"];
            let features =
                ["tso", "gso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
            words.extend(features.iter().flat_map(|feature| [feature, state]));
            host.netns.run(&words)?;
        }
        Ok(())
    }

    /// Lets the two ends and the wire have super-packets of 256 KiB. The kernel's own devices between them follow
    /// the wire's.
    fn enlarge(&self) -> Result<()> {
        let hosts = self.wired.iter().map(|host| &host.netns);
        for netns in hosts.chain([&self.client, &self.server]) {
            for link in netns.ip_json(&["link", "show"])?.as_array().into_iter().flatten() {
                let Some(name) = link["ifname"].as_str().filter(|name| *name != "lo") else {
                    continue;
                };
                let mut words = vec!["link", "set", name];
                for size in SIZES {
                    words.extend([size, LARGE]);
                }
                // A device that takes no larger ones keeps its own.
                drop(netns.ip(&words));
            }
        }
        Ok(())
    }

    /// Checks that the ends reach each other and that their MTU is as large as the wire allows. With smaller
    /// packets, a contestant's figure would not be that of the row.
    fn check(&self) -> Result<()> {
        self.client.reaches(self.server_address)?;
        let Place::TwoHosts(Underlay { mtu, .. }) = self.place else { return Ok(()) };
        let is_underlay = [UNDERLAY, BESIDE].contains(&self.name);
        let wanted = if is_underlay { mtu } else { mtu - OVERHEAD };
        for end in [&self.client, &self.server] {
            let link = end.ip_json(&["link", "show", "dev", "eth0"])?;
            let found = &link[0]["mtu"];
            ensure!(*found == wanted, "{}'s eth0 has MTU {found}, not {wanted}", end.name());
        }
        Ok(())
    }
}

/// The sizes of super-packets, as `ip link` calls them, and the large value of each.
const SIZES: [&str; 4] = ["gso_max_size", "gro_max_size", "gso_ipv4_max_size", "gro_ipv4_max_size"];
const LARGE: &str = "262144";

/// Two hosts joined by this underlay. Their names start with the contestant's letter.
fn pair_of_hosts(
    lab: &mut Lab,
    letter: &str,
    Underlay { topology, mtu }: Underlay,
) -> Result<[Arc<Host>; 2]> {
    let hosts = match topology {
        Topology::Wire => {
            let [first, second] = [1, 2].map(|number| format!("{letter}{mtu}h{number}"));
            lab.wired_pair((&first, "10.9.0.1"), (&second, "10.9.0.2"))?
        }
        Topology::Router => {
            // All contestants share the router, so each of their hosts is in a subnet of its own.
            let number = lab.hosts().len();
            let mut host = |side: usize| {
                let subnet = lab.subnet(&format!("10.{}.{number}.1/24", 20 + side))?;
                let address = format!("10.{}.{number}.2", 20 + side);
                lab.host(&subnet, &format!("{letter}r{mtu}h{side}"), &address)
            };
            [host(1)?, host(2)?]
        }
    };
    for host in &hosts {
        host.netns.ip(&["link", "set", "eth0", "mtu", &mtu.to_string()])?;
    }
    Ok(hosts)
}

/// A container with an address on its eth0, whose peer is a port of a bridge on the host.
fn bridged_container(
    lab: &Lab,
    host: &Netns,
    name: &str,
    (address, mac): (Ipv4Addr, &str),
    (bridge, port, mtu): (&str, &str, u32),
) -> Result<Netns> {
    let container = lab.container(name)?;
    let (inside, mtu) = (container.name(), mtu.to_string());
    let pair = ["type", "veth", "peer", "name", "eth0", "netns", inside];
    host.ip(&[&["link", "add", port][..], &pair].concat())?;
    container.ip(&["link", "set", "eth0", "address", mac, "mtu", &mtu, "up"])?;
    container.ip(&["addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
    host.ip(&["link", "set", port, "mtu", &mtu, "master", bridge, "up"])?;
    Ok(container)
}
