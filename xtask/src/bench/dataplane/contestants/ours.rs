//! The contestants with real nodes of this project.

use std::{slice, sync::Arc};

use anyhow::{Context as _, Result};
use overlay_lab::{Host, Lab};

use super::{Contestant, crowd, wired_pair};
use crate::bench::{
    dataplane::scene::{OURS, Place},
    endpoint::attach,
};

const MTU: u32 = 1500;

/// An endpoint on each of two hosts.
pub(in crate::bench) fn two_hosts(lab: &mut Lab, mtu: u32) -> Result<Contestant> {
    let hosts = wired_pair(lab, "o", mtu)?;
    start(lab, &hosts)?;
    between(lab, (OURS, Place::TwoHosts { mtu }), [&hosts[0], &hosts[1]], hosts.to_vec())
}

/// Both endpoints on one host.
pub(in crate::bench) fn one_host(lab: &mut Lab) -> Result<Contestant> {
    // The other host is only the far end of the underlay that a node must have.
    let [host, _] = wired_pair(lab, "ob", MTU)?;
    start(lab, slice::from_ref(&host))?;
    between(lab, (OURS, Place::OneHost), [&host, &host], Vec::new())
}

/// An endpoint on each of two hosts, whose maps hold `endpoints` endpoints.
///
/// The nodes are killed first, because they would remove the entries that the cluster does not know; the data
/// path goes on without them. The contestant with a hundred entries is made in the same way, so that the
/// two can be compared.
pub(in crate::bench) fn crowd(
    lab: &mut Lab,
    (name, letter): (&'static str, &str),
    endpoints: usize,
) -> Result<Contestant> {
    let hosts = wired_pair(lab, letter, MTU)?;
    start(lab, &hosts)?;
    let ends = [&*hosts[0], &*hosts[1]];
    let contestant = between(lab, (name, Place::Crowd), ends, hosts.to_vec())?;
    for host in &hosts {
        host.kill9()?;
        crowd::fill(host, endpoints).with_context(|| format!("{}'s maps", host.name))?;
    }
    Ok(contestant)
}

fn start(lab: &Lab, hosts: &[Arc<Host>]) -> Result<()> {
    // The rows show what the data path can do. On a veth a node has larger super-packets only with this
    // option.
    lab.start_cluster_with(hosts, &["--big-tcp", "on"])?;
    let founder = hosts.first().context("no host")?;
    founder.overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/24"])?;
    Ok(())
}

fn between(
    lab: &Lab,
    (name, place): (&'static str, Place),
    [client_host, server_host]: [&Host; 2],
    wired: Vec<Arc<Host>>,
) -> Result<Contestant> {
    let (client, _) = attach(lab, client_host, &format!("{}c1", client_host.name))?;
    let (server, server_address) = attach(lab, server_host, &format!("{}c2", server_host.name))?;
    Ok(Contestant { name, place, client, server, server_address, wired, _engines: Vec::new() })
}
