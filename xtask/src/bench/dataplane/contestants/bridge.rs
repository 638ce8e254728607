//! Two containers on a plain bridge of one host, as any container engine connects two ends on one host.

use std::net::Ipv4Addr;

use anyhow::Result;
use overlay_lab::Lab;

use super::{Contestant, bridged_container};
use crate::bench::dataplane::scene::{BRIDGE, Place};

const MTU: u32 = 1500;

pub(in crate::bench) fn build(lab: &Lab) -> Result<Contestant> {
    let host = lab.container("bh1")?;
    // As on the hosts of the lab, the firewall does not see frames that cross the bridge. An error only
    // means that the kernel has no such firewall.
    drop(host.sysctl("net.bridge.bridge-nf-call-iptables", "0"));
    host.ip(&["link", "add", "br0", "type", "bridge"])?;
    host.ip(&["link", "set", "br0", "up"])?;
    let server_address = Ipv4Addr::new(10, 0, 0, 2);
    let client = (Ipv4Addr::new(10, 0, 0, 1), "02:42:0a:00:00:01");
    let client = bridged_container(lab, &host, "bc1", client, ("br0", "v1", MTU))?;
    let server = (server_address, "02:42:0a:00:00:02");
    let server = bridged_container(lab, &host, "bc2", server, ("br0", "v2", MTU))?;
    Ok(Contestant {
        name: BRIDGE,
        place: Place::OneHost,
        client,
        server,
        server_address,
        wired: Vec::new(),
        _engines: Vec::new(),
    })
}
