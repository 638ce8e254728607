//! A kernel VXLAN device in a bridge with the container's veth: the data path of Docker and Flannel, without
//! the other parts that they add.
//!
//! This contestant is made as fast as possible: forwarding and neighbour entries are static, so that there is
//! no learning and no ARP; there is no outer checksum; and netfilter does not see the bridge, which is off on
//! all hosts of a lab.

use std::net::Ipv4Addr;

use anyhow::Result;
use overlay_lab::Lab;

use super::{Contestant, OVERHEAD, bridged_container, pair_of_hosts};
use crate::bench::dataplane::scene::{KERNEL, Place, Underlay};

const VNI: &str = "100";

pub(in crate::bench) fn build(lab: &mut Lab, underlay: Underlay) -> Result<Contestant> {
    let hosts = pair_of_hosts(lab, "k", underlay)?;
    let ends: [(Ipv4Addr, &str); 2] = [
        (Ipv4Addr::new(10, 0, 0, 1), "02:42:0a:00:00:01"),
        (Ipv4Addr::new(10, 0, 0, 2), "02:42:0a:00:00:02"),
    ];
    let inner = underlay.mtu - OVERHEAD;
    let side = |this: usize| {
        let (host, other) = (&hosts[this].netns, 1 - this);
        host.ip(&["link", "add", "br0", "mtu", &inner.to_string(), "type", "bridge"])?;
        host.ip(&["link", "set", "br0", "up"])?;
        let name = format!("{}c", hosts[this].name);
        let container = bridged_container(lab, host, &name, ends[this], ("br0", "v0", inner))?;
        let (peer, peer_mac) = (ends[other].0.to_string(), ends[other].1);
        container.ip(&["neigh", "add", &peer, "lladdr", peer_mac, "dev", "eth0"])?;
        let (local, remote) = (hosts[this].address.to_string(), hosts[other].address.to_string());
        let tunnel = ["id", VNI, "dstport", "4789", "local", &local, "dev", "eth0"];
        let quick = ["nolearning", "noudpcsum"];
        host.ip(&[&["link", "add", "vx0", "type", "vxlan"][..], &tunnel, &quick].concat())?;
        host.ip(&["link", "set", "vx0", "mtu", &inner.to_string(), "master", "br0", "up"])?;
        host.run(&["bridge", "fdb", "add", peer_mac, "dev", "vx0", "dst", &remote])?;
        anyhow::Ok(container)
    };
    let (client, server) = (side(0)?, side(1)?);
    Ok(Contestant {
        name: KERNEL,
        place: Place::TwoHosts(underlay),
        client,
        server,
        server_address: ends[1].0,
        wired: hosts.into(),
        _engines: Vec::new(),
    })
}
