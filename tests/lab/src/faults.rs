//! Faults of wires and of processes: a wire that carries nothing, or nothing in one direction, and processes
//! that are killed at one moment.
//!
//! A wire is cut at the router's port, so that neither host's device shows the cut: a node must find out by
//! itself.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Host, Lab, netns::Netns};

static CUTS: AtomicU32 = AtomicU32::new(0);

/// Which packets a cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ways {
    /// Those of both.
    Both,
    /// Those that the host sends.
    From,
    /// Those that are sent to the host.
    To,
}

/// A cut wire, which stays cut until [`Cut::heal`] is called.
#[derive(Debug)]
#[must_use = "a cut is to be healed, or kept until the lab goes"]
pub struct Cut {
    router: Netns,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The router's port to the host, which is down.
    Port(String),
    /// A table of nftables with the rules that drop packets.
    Rules(String),
}

impl Cut {
    /// Makes the wire whole again.
    pub fn heal(self) -> Result<()> {
        let Self { router, kind } = self;
        match kind {
            Kind::Port(port) => router.ip(&["link", "set", &port, "up"])?,
            Kind::Rules(table) => router.run(&["nft", "delete", "table", "netdev", &table])?,
        };
        Ok(())
    }
}

impl Lab {
    /// Cuts the wire between a host and the router, in both directions.
    pub fn cut(&self, host: &Host) -> Result<Cut> {
        let (router, port) = self.port_of(host)?;
        router.ip(&["link", "set", &port, "down"])?;
        Ok(Cut { router, kind: Kind::Port(port) })
    }

    /// Loses everything that a host sends. Packets to the host still arrive.
    pub fn cut_from(&self, host: &Host) -> Result<Cut> {
        self.lose(host, &[("ingress", "")])
    }

    /// Loses everything that is sent to a host. Packets of the host still arrive.
    pub fn cut_to(&self, host: &Host) -> Result<Cut> {
        self.lose(host, &[("egress", "")])
    }

    /// Cuts a host off from some others, in both directions. All other hosts still reach it.
    pub fn cut_between(&self, host: &Host, others: &[&Host]) -> Result<Cut> {
        let words = others.iter().flat_map(|other| {
            let address = other.address;
            [("ingress", format!("ip daddr {address}")), ("egress", format!("ip saddr {address}"))]
        });
        let words: Vec<(&str, String)> = words.collect();
        let words: Vec<(&str, &str)> =
            words.iter().map(|(hook, it)| (*hook, it.as_str())).collect();
        self.lose(host, &words)
    }

    /// Cuts a host off from all others at one TCP port, its own and theirs, in both directions. All else passes.
    pub fn cut_port(&self, host: &Host, port: u16) -> Result<Cut> {
        let (to, from) = (format!("tcp dport {port}"), format!("tcp sport {port}"));
        let both = |hook| [(hook, to.as_str()), (hook, from.as_str())];
        self.lose(host, &[both("ingress"), both("egress")].concat())
    }

    /// Cuts a host's controller off from those of some others. Between hosts only controllers use TCP, so that what
    /// endpoints send each other still arrives.
    pub fn cut_controllers(&self, host: &Host, others: &[&Host], ways: Ways) -> Result<Cut> {
        let words = others.iter().flat_map(|other| {
            let address = other.address;
            [
                (Ways::From, "ingress", format!("ip daddr {address} meta l4proto tcp")),
                (Ways::To, "egress", format!("ip saddr {address} meta l4proto tcp")),
            ]
        });
        let words: Vec<_> = words.filter(|(way, ..)| ways == Ways::Both || ways == *way).collect();
        let words: Vec<(&str, &str)> =
            words.iter().map(|(_, hook, it)| (*hook, it.as_str())).collect();
        self.lose(host, &words)
    }

    /// Loses those packets to a host that match these words of nft, such as `tcp sport 7400`.
    pub fn lose_to(&self, host: &Host, matching: &str) -> Result<Cut> {
        self.lose(host, &[("egress", matching)])
    }

    /// Drops packets at the router's port to a host. The hooks are named from the router's side, so that
    /// `ingress` is for packets that the host sends.
    fn lose(&self, host: &Host, matching: &[(&str, &str)]) -> Result<Cut> {
        let (router, port) = self.port_of(host)?;
        let table = format!("cut{}", CUTS.fetch_add(1, Ordering::Relaxed));
        let mut words = format!("add table netdev {table}");
        for hook in ["ingress", "egress"] {
            let chain = format!("type filter hook {hook} device \"{port}\" priority 0");
            words += &format!("; add chain netdev {table} {hook} {{ {chain}; }}");
        }
        for (hook, matching) in matching {
            words += &format!("; add rule netdev {table} {hook} {matching} counter drop");
        }
        router.run(&["nft", &words])?;
        Ok(Cut { router, kind: Kind::Rules(table) })
    }

    fn port_of(&self, host: &Host) -> Result<(Netns, String)> {
        let router = self.router.clone().context("a lab without a router has no wires to cut")?;
        Ok((router, format!("to-{}", host.name)))
    }

    /// Kills all nodes at one moment, as a power cut would.
    pub fn kill_all(&self) -> Result<()> {
        self.hosts.iter().try_for_each(|host| host.signal(Signal::SIGKILL))?;
        // Each process is waited for only after all have received the signal.
        self.hosts.iter().try_for_each(|host| host.kill9())
    }
}
