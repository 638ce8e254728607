//! The outside world: a host behind the router that runs no node, with [`mirror`] servers and a DNS server of
//! its own.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context as _, Result};

use super::{Lab, dns, mirror, netns::Netns, process::Process};

/// A name that only the outside's DNS server knows, and its address.
pub const OUTSIDE_NAME: (&str, &str) = ("www.example.test", "198.51.100.7");
/// A name whose text records are too long for any datagram.
pub const LONG_NAME: &str = "long.example.test";
/// Number of strings in that name's text records, of 200 characters each.
pub const LONG_TEXTS: usize = 30;
/// A domain whose name server never answers.
pub const MUTE_DOMAIN: &str = "mute.test";
/// Seconds that the hosts wait for a resolver: the time-out in [`Outside::resolv_conf`].
pub const RESOLVER_TIMEOUT_S: u64 = 1;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const MUTE_PORT: u16 = 5399;

/// The outside host. Its [`mirror`]s are on TCP port 80 and UDP port 7.
#[derive(Debug)]
pub struct Outside {
    /// The outside host's namespace.
    pub netns: Netns,
    /// The outside host's address, from which it reaches the hosts only through the router.
    pub address: Ipv4Addr,
    /// A file like /etc/resolv.conf that names its DNS server.
    pub resolv_conf: PathBuf,
    /// The outside host's DNS server.
    pub dns: Process,
    _mute: UdpSocket,
}

impl Lab {
    /// Builds the outside host, on a subnet of the router that has no other host.
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
        // dnsmasq would split a string of more than 255 characters.
        let text = vec!["x".repeat(200); LONG_TEXTS].join(",");
        let long = format!("--txt-record={LONG_NAME},{text}");
        // dnsmasq is the only authority of these domains: it answers NXDOMAIN for names that it does not know.
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
