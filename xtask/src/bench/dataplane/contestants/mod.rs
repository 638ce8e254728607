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
use super::scene::{HUNDRED, MILLION, Place, UNDERLAY, Wire};

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

/// The contestants that take part besides the underlay and the kernel.
#[derive(Debug, Clone, Copy)]
pub(in crate::bench) struct Entrants {
    pub(in crate::bench) ours: bool,
    pub(in crate::bench) docker: bool,
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
            Place::TwoHosts { mtu } => {
                contestants.push(underlay::build(lab, mtu)?);
                contestants.push(kernel::build(lab, mtu)?);
                if entrants.docker {
                    contestants.push(docker::build(lab, mtu).context(
                        "Docker's overlay does not come up; --without-docker leaves it out",
                    )?);
                }
                if entrants.ours {
                    contestants.push(ours::two_hosts(lab, mtu)?);
                }
            }
            Place::OneHost => {
                contestants.push(bridge::build(lab)?);
                if entrants.ours {
                    contestants.push(ours::one_host(lab)?);
                }
            }
            Place::Crowd if entrants.ours => {
                contestants.push(ours::crowd(lab, (HUNDRED, "c"), 100)?);
                contestants.push(ours::crowd(lab, (MILLION, "m"), 1_000_000)?);
            }
            Place::Crowd => {}
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
            place: Place::TwoHosts { mtu: 1500 },
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

    /// Checks that the ends reach each other and that their MTU is as large as the wire allows. With smaller
    /// packets, a contestant's figure would not be that of the row.
    fn check(&self) -> Result<()> {
        self.client.reaches(self.server_address)?;
        let Place::TwoHosts { mtu } = self.place else { return Ok(()) };
        let wanted = if self.name == UNDERLAY { mtu } else { mtu - OVERHEAD };
        for end in [&self.client, &self.server] {
            let link = end.ip_json(&["link", "show", "dev", "eth0"])?;
            let found = &link[0]["mtu"];
            ensure!(*found == wanted, "{}'s eth0 has MTU {found}, not {wanted}", end.name());
        }
        Ok(())
    }
}

/// Two hosts joined by a wire with this MTU. Their names start with the contestant's letter.
fn wired_pair(lab: &mut Lab, letter: &str, mtu: u32) -> Result<[Arc<Host>; 2]> {
    let [first, second] = [1, 2].map(|number| format!("{letter}{mtu}h{number}"));
    let hosts = lab.wired_pair((&first, "10.9.0.1"), (&second, "10.9.0.2"))?;
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
