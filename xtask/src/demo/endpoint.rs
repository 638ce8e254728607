//! An endpoint of the demo: a namespace, its prompt, and its addresses.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use overlay_lab::{Host, Lab, Netns, text};

use super::shell::Shell;

pub(super) const NETWORK: &str = "myoverlay";

pub(super) struct Endpoint {
    pub(super) name: &'static str,
    pub(super) netns: Netns,
    pub(super) shell: Shell,
}

impl Endpoint {
    pub(super) fn new(lab: &Lab, name: &'static str) -> Result<Self> {
        let netns = lab.container(name)?;
        let shell = Shell::in_container(name, &netns);
        Ok(Self { name, netns, shell })
    }

    /// The command that attaches the endpoint, with these further options.
    pub(super) fn create_line(&self, name: &str, options: &str) -> String {
        let netns = self.netns.name();
        let line = format!("overlay endpoint create {name} --network {NETWORK} --netns {netns}");
        if options.is_empty() { line } else { format!("{line} {options}") }
    }

    /// The endpoint's address on the overlay, which any node can tell.
    pub(super) fn address(&self, host: &Host) -> Result<Ipv4Addr> {
        let endpoint = host.overlay_json(&["endpoint", "inspect", self.name])?;
        without_length(text(&endpoint, "address"))
    }

    /// The endpoint's address on its node's gateway bridge.
    pub(super) fn gateway_address(&self, host: &Host) -> Result<Ipv4Addr> {
        let endpoint = host.overlay_json(&["endpoint", "inspect", self.name])?;
        without_length(text(&endpoint["gateway"], "address"))
    }
}

fn without_length(cidr: &str) -> Result<Ipv4Addr> {
    let (address, _) = cidr.split_once('/').context("an address with a length")?;
    Ok(address.parse()?)
}
