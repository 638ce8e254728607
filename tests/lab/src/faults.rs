//! Faults of wires and of processes: a wire that carries nothing, or nothing one way; a process that stands
//! still.
//!
//! A wire is cut where it enters the router, so that neither end is told: a node must find out by itself.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::{Host, Lab, netns::Netns};

static CUTS: AtomicU32 = AtomicU32::new(0);

/// A cut that stands until it is healed.
#[derive(Debug)]
#[must_use = "a cut is to be healed, or kept until the lab goes"]
pub struct Cut {
    router: Netns,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The router's port is down.
    Port(String),
    /// Rules in a table of their own.
    Rules(String),
}

impl Cut {
    /// The wire is whole again.
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
    /// Cuts the wire between a host and the router, both ways.
    pub fn cut(&self, host: &Host) -> Result<Cut> {
        let (router, port) = self.port_of(host)?;
        router.ip(&["link", "set", &port, "down"])?;
        Ok(Cut { router, kind: Kind::Port(port) })
    }

    /// Loses everything that a host sends; what is sent to it arrives.
    pub fn cut_from(&self, host: &Host) -> Result<Cut> {
        self.lose(host, &[("ingress", "")])
    }

    /// Loses everything that is sent to a host; what it sends arrives.
    pub fn cut_to(&self, host: &Host) -> Result<Cut> {
        self.lose(host, &[("egress", "")])
    }

    /// Cuts a host off from some others, both ways; everybody else reaches it.
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

    /// Loses what is sent to a host and matches these words of nft: `tcp sport 7400`.
    pub fn lose_to(&self, host: &Host, matching: &str) -> Result<Cut> {
        self.lose(host, &[("egress", matching)])
    }

    /// Loses what passes the router's port of a host. The hook is as the router sees it: `ingress` is what
    /// the host sends.
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

    /// Ends all nodes at one moment, as a power cut would.
    pub fn kill_all(&self) -> Result<()> {
        self.hosts.iter().try_for_each(|host| host.signal(Signal::SIGKILL))?;
        // Only now is each one waited for.
        self.hosts.iter().try_for_each(|host| host.kill9())
    }
}
