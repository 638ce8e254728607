//! The contestants with real nodes of this project.

use std::{slice, sync::Arc};

use anyhow::{Context as _, Result};
use overlay_lab::{Host, Lab};

use super::{Contestant, Sizes, crowd, pair_of_hosts};
use crate::bench::{
    dataplane::scene::{BESIDE, OURS, Place, Underlay},
    endpoint::attach,
};

/// An endpoint on each of two hosts; and these hosts themselves, to see what a node costs its host.
pub(in crate::bench) fn two_hosts(
    lab: &mut Lab,
    underlay: Underlay,
    sizes: Sizes,
) -> Result<[Contestant; 2]> {
    let hosts = pair_of_hosts(lab, "o", underlay)?;
    start(lab, &hosts, sizes)?;
    let place = Place::TwoHosts(underlay);
    let ours = between(lab, (OURS, place), [&hosts[0], &hosts[1]], hosts.to_vec())?;
    let [client, server] = hosts.each_ref().map(|host| host.netns.clone());
    let beside = Contestant {
        name: BESIDE,
        place,
        client,
        server,
        server_address: hosts[1].address,
        wired: hosts.into(),
        _engines: Vec::new(),
    };
    Ok([ours, beside])
}

/// Both endpoints on one host.
pub(in crate::bench) fn one_host(lab: &mut Lab, sizes: Sizes) -> Result<Contestant> {
    // The other host is only the far end of the underlay that a node must have.
    let [host, _] = pair_of_hosts(lab, "ob", Underlay::USUAL)?;
    start(lab, slice::from_ref(&host), sizes)?;
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
    sizes: Sizes,
) -> Result<Contestant> {
    let hosts = pair_of_hosts(lab, letter, Underlay::USUAL)?;
    start(lab, &hosts, sizes)?;
    let ends = [&*hosts[0], &*hosts[1]];
    let contestant = between(lab, (name, Place::Crowd), ends, hosts.to_vec())?;
    for host in &hosts {
        host.kill9()?;
        crowd::fill(host, endpoints).with_context(|| format!("{}'s maps", host.name))?;
    }
    Ok(contestant)
}

fn start(lab: &Lab, hosts: &[Arc<Host>], sizes: Sizes) -> Result<()> {
    let args: &[&str] = match sizes {
        Sizes::Default => &[],
        Sizes::Large => &["--big-tcp", "on"],
    };
    lab.start_cluster_with(hosts, args)?;
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
