//! The wire alone, which is the limit for all others.

use anyhow::Result;
use overlay_lab::Lab;

use super::{Contestant, pair_of_hosts};
use crate::bench::dataplane::scene::{Place, UNDERLAY, Underlay};

pub(in crate::bench) fn build(lab: &mut Lab, underlay: Underlay) -> Result<Contestant> {
    let hosts = pair_of_hosts(lab, "u", underlay)?;
    let [client, server] = hosts.each_ref().map(|host| host.netns.clone());
    Ok(Contestant {
        name: UNDERLAY,
        place: Place::TwoHosts(underlay),
        client,
        server,
        server_address: hosts[1].address,
        wired: hosts.into(),
        _engines: Vec::new(),
    })
}
