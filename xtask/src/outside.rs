//! The world outside the cluster: a name server with names that the cluster does not know.

use std::{fs, net::Ipv4Addr, path::PathBuf};

use anyhow::Result;
use overlay_lab::{Lab, Netns, dns};

/// A name that only the outside's name server knows. Its address is the server's own.
pub(crate) const OUTSIDE_NAME: &str = "www.example.net";

/// Starts a name server in a namespace that has this address. Returns the path of a resolv.conf that names
/// the server, which nodes can be started with.
pub(crate) fn serve_names(lab: &mut Lab, netns: &Netns, address: Ipv4Addr) -> Result<PathBuf> {
    let record = format!("--host-record={OUTSIDE_NAME},{address}");
    lab.adopt(dns::serve(netns, address, &["--local=/net/", &record])?);
    let file = lab.folder().join("resolv.conf");
    fs::write(&file, format!("nameserver {address}\n"))?;
    Ok(file)
}
