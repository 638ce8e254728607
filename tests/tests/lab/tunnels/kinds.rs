//! The kinds of tunnels that an endpoint may have of its own, and how each is made.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use overlay_lab::load_module;

use crate::support::Endpoint;

/// A kind of tunnel between two endpoints.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// The kernel's module, if the kernel does not load it by itself.
    module: Option<&'static str>,
    /// What `ip` is told before the device is made: the port of a tunnel in UDP.
    before: &'static [&'static str],
    /// The type of the device and its options, beside its ends.
    link: &'static [&'static str],
    /// Whether the device is told its own address, and the other one's.
    ends: [bool; 2],
    /// The addresses inside the tunnel.
    inner: [&'static str; 2],
}

const BOTH: [bool; 2] = [true, true];
const IPV4: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
const IPV6: [&str; 2] = ["fd77::1", "fd77::2"];

/// VXLAN on another port than the overlay's.
pub(super) const VXLAN: Kind = Kind {
    name: "VXLAN",
    module: None,
    before: &[],
    link: &["vxlan", "id", "9", "dstport", "8472"],
    ends: BOTH,
    inner: IPV4,
};

pub(super) const KINDS: [Kind; 9] = [
    VXLAN,
    Kind {
        name: "Geneve",
        module: None,
        before: &[],
        link: &["geneve", "id", "9"],
        ends: [false, true],
        inner: IPV4,
    },
    Kind {
        name: "GRE with Ethernet",
        module: None,
        before: &[],
        link: &["gretap"],
        ends: BOTH,
        inner: IPV4,
    },
    Kind { name: "GRE", module: None, before: &[], link: &["gre"], ends: BOTH, inner: IPV4 },
    Kind { name: "IP in IP", module: None, before: &[], link: &["ipip"], ends: BOTH, inner: IPV4 },
    Kind { name: "SIT", module: None, before: &[], link: &["sit"], ends: BOTH, inner: IPV6 },
    Kind {
        name: "FOU",
        module: Some("fou"),
        before: &["fou", "add", "port", "5555", "ipproto", "4"],
        link: &["ipip", "encap", "fou", "encap-sport", "5555", "encap-dport", "5555"],
        ends: BOTH,
        inner: IPV4,
    },
    Kind {
        name: "GUE",
        module: Some("fou"),
        before: &["fou", "add", "port", "5556", "gue"],
        link: &["ipip", "encap", "gue", "encap-sport", "5556", "encap-dport", "5556"],
        ends: BOTH,
        inner: IPV4,
    },
    Kind {
        name: "WireGuard",
        module: None,
        before: &[],
        link: &["wireguard"],
        ends: [false, false],
        inner: IPV4,
    },
];

impl Kind {
    /// Makes the tunnel, a device `own0` in each endpoint. Returns false where the kernel has none of this kind.
    pub(super) fn add(&self, ends: [&Endpoint; 2]) -> Result<bool> {
        let [one, two] = ends;
        if let Some(module) = self.module {
            load_module(module)?;
        }
        for ((own, other), address) in [(one, two), (two, one)].into_iter().zip(self.inner) {
            let told = [("local", own), ("remote", other)].into_iter().zip(self.ends);
            let told = told.filter(|(_, is_told)| *is_told);
            let told: Vec<(&str, String)> =
                told.map(|((word, end), _)| (word, end.address.to_string())).collect();
            let mut link = vec!["link", "add", "own0", "mtu", "1380", "type"];
            link.extend(self.link);
            link.extend(told.iter().flat_map(|(word, address)| [word, &**address]));
            if !(self.try_ip(own, self.before)? && self.try_ip(own, &link)?) {
                return Ok(false);
            }
            let length = if self.ip(0)?.is_ipv6() { 64 } else { 30 };
            let address = format!("{address}/{length}");
            let nodad: &[&str] = if length == 64 { &["nodad"] } else { &[] };
            own.netns.ip(&[&["addr", "add", &address, "dev", "own0"][..], nodad].concat())?;
        }
        if self.link == ["wireguard"] {
            exchange_keys(ends)?;
        }
        for end in ends {
            end.netns.ip(&["link", "set", "own0", "up"])?;
        }
        Ok(true)
    }

    pub(super) fn remove(&self, ends: [&Endpoint; 2]) -> Result<()> {
        for end in ends {
            end.netns.ip(&["link", "del", "own0"])?;
            if let ["fou", "add", port @ ..] = self.before {
                end.netns.ip(&[&["fou", "del"], &port[..2]].concat())?;
            }
        }
        Ok(())
    }

    /// The address of one end inside the tunnel.
    pub(super) fn ip(&self, end: usize) -> Result<IpAddr> {
        self.inner[end].parse().context("an address")
    }

    /// Runs `ip` in an endpoint, if there is something to run. Returns false where the kernel refuses.
    fn try_ip(&self, own: &Endpoint, args: &[&str]) -> Result<bool> {
        if args.is_empty() {
            return Ok(true);
        }
        let output = own.netns.output(&[&["ip"], args].concat())?;
        if !output.status.success() {
            eprintln!("no {} here: {}", self.name, output.stderr.trim());
        }
        Ok(output.status.success())
    }
}

/// Tells each of two WireGuard devices of the other one.
fn exchange_keys(ends: [&Endpoint; 2]) -> Result<()> {
    let wg = |end: &Endpoint, script: &str| end.netns.run(&["sh", "-ec", script]);
    let mut keys = Vec::new();
    for end in ends {
        let private = wg(end, "wg genkey")?.trim().to_owned();
        let public = wg(end, &format!("echo {private} | wg pubkey"))?.trim().to_owned();
        wg(end, &format!("echo {private} | wg set own0 listen-port 51820 private-key /dev/stdin"))?;
        keys.push(public);
    }
    let [one, two] = ends;
    for ((own, other), key) in [(one, two), (two, one)].into_iter().zip(keys.iter().rev()) {
        let to = other.address;
        wg(own, &format!("wg set own0 peer {key} endpoint {to}:51820 allowed-ips 0.0.0.0/0"))?;
    }
    Ok(())
}
