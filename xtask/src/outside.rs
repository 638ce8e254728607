//! The world beyond the nodes: a name server that knows what the cluster does not.

use std::{fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use overlay_lab::{Lab, Netns, eventually};

/// A name that only the outside's name server knows; it is the server's own address.
pub(crate) const OUTSIDE_NAME: &str = "www.example.net";

/// Starts a name server in a namespace that has this address. Returns a resolv.conf that names it, to
/// start nodes with.
pub(crate) fn serve_names(lab: &mut Lab, netns: &Netns, address: Ipv4Addr) -> Result<PathBuf> {
    let listen = format!("--listen-address={address}");
    let record = format!("--host-record={OUTSIDE_NAME},{address}");
    let server = netns.start(&[
        "dnsmasq",
        "--keep-in-foreground",
        "--log-facility=-",
        // Nothing of this machine: no file, no user, no resolver.
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--local=/net/",
        "--bind-interfaces",
        &listen,
        &record,
    ])?;
    lab.adopt(server);
    eventually("the outside's name server answers", Duration::from_secs(10), || {
        let server = format!("@{address}");
        let answer = netns.run(&["dig", "+short", "+tries=1", "+time=1", &server, OUTSIDE_NAME])?;
        if answer.trim() == address.to_string() { Ok(()) } else { bail!("it says: {answer}") }
    })?;
    let file = lab.folder().join("resolv.conf");
    fs::write(&file, format!("nameserver {address}\n"))?;
    Ok(file)
}
