//! The wire alone, which is the limit for all others.

use anyhow::Result;
use overlay_lab::Lab;

use super::{Contestant, wired_pair};
use crate::bench::dataplane::scene::{Place, UNDERLAY};

pub(in crate::bench) fn build(lab: &mut Lab, mtu: u32) -> Result<Contestant> {
    let hosts = wired_pair(lab, "u", mtu)?;
    let [client, server] = hosts.each_ref().map(|host| host.netns.clone());
    Ok(Contestant {
        name: UNDERLAY,
        place: Place::TwoHosts { mtu },
        client,
        server,
        server_address: hosts[1].address,
        wired: hosts.into(),
        _engines: Vec::new(),
    })
}
