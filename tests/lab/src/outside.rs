//! The world beyond the hosts: one host behind the router that runs no node, with servers that tell who
//! asked, and a DNS server of its own.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::{Lab, dns, mirror, netns::Netns, process::Process};

/// A name that only the outside knows, and its address.
pub const OUTSIDE_NAME: (&str, &str) = ("www.example.test", "198.51.100.7");
/// A name whose text is too long for a datagram, however it is asked.
pub const LONG_NAME: &str = "long.example.test";
/// How many strings of 200 characters it has.
pub const LONG_TEXTS: usize = 30;
/// Names below it are asked of somebody who never answers.
pub const MUTE_DOMAIN: &str = "mute.test";
/// Seconds that a resolver of the hosts gets: the time-out in [`Outside::resolv_conf`].
pub const RESOLVER_TIMEOUT_S: u64 = 1;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const MUTE_PORT: u16 = 5399;

/// See the module. [`mirror`]s are on TCP port 80 and UDP port 7.
#[derive(Debug)]
pub struct Outside {
    /// Its namespace.
    pub netns: Netns,
    /// Its address; its only way to the hosts is the router.
    pub address: Ipv4Addr,
    /// A file like /etc/resolv.conf that names its DNS server.
    pub resolv_conf: PathBuf,
    /// Its DNS server.
    pub dns: Process,
    _mute: UdpSocket,
}

impl Lab {
    /// Builds it, on a leg of the router's own.
    pub fn outside(&mut self) -> Result<Outside> {
        let subnet = self.subnet("203.0.113.1/24")?;
        let netns = self.container("outside")?;
        self.connect(&netns, "outside", &subnet, ADDRESS)?;
        mirror::tcp(&netns, 80)?;
        mirror::udp(&netns, 7)?;
        let mute = netns.enter(|| {
            UdpSocket::bind((ADDRESS, MUTE_PORT)).context("cannot bind what never answers")
        })?;
        let known = format!("--host-record={},{}", OUTSIDE_NAME.0, OUTSIDE_NAME.1);
        let nobody = format!("--server=/{MUTE_DOMAIN}/{ADDRESS}#{MUTE_PORT}");
        // dnsmasq keeps a string of more than 255 characters as several.
        let text = vec!["x".repeat(200); LONG_TEXTS].join(",");
        let long = format!("--txt-record={LONG_NAME},{text}");
        // Of these it is the only authority: what it does not know is NXDOMAIN.
        let own = [
            "--log-queries",
            "--local=/example.test/",
            "--local=/myoverlay/",
            "--local=/in-addr.arpa/",
        ];
        let args = [&[known.as_str(), &nobody, &long][..], &own].concat();
        let dns = dns::serve(&netns, ADDRESS, &args)?;
        let resolv_conf = self.folder().join("resolv.conf");
        fs::write(
            &resolv_conf,
            format!("nameserver {ADDRESS}\noptions timeout:{RESOLVER_TIMEOUT_S} attempts:1\n"),
        )?;
        Ok(Outside { netns, address: ADDRESS, resolv_conf, dns, _mute: mute })
    }
}
