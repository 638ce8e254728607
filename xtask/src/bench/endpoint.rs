//! Endpoints of a benchmark, made with the command line as a user would.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use overlay_lab::{Host, Lab, Netns, text};

/// A container on the network `bench`, and its address there.
pub(super) fn attach(lab: &Lab, host: &Host, name: &str) -> Result<(Netns, Ipv4Addr)> {
    let container = lab.container(name)?;
    let address = create_endpoint(host, name, &container, &[])?;
    Ok((container, address))
}

/// Runs `overlay endpoint create` with these further options; returns the endpoint's address.
pub(super) fn create_endpoint(
    host: &Host,
    name: &str,
    container: &Netns,
    options: &[&str],
) -> Result<Ipv4Addr> {
    let netns = container.name();
    let words = ["endpoint", "create", name, "--network", "bench", "--netns", netns];
    let created = host.overlay_json(&[&words, options].concat())?;
    let endpoint = created.get("endpoint").unwrap_or(&created);
    let address = text(endpoint, "address");
    let (address, _) = address.split_once('/').with_context(|| format!("no address: {created}"))?;
    Ok(address.parse()?)
}
