//! Who drops forged VXLAN: the programs of ours, with and without the guard, and a rule of nftables in
//! front of the kernel's VXLAN device.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Lab, Netns, number, rows, text};

use crate::bench::contestants::{Contestant as Pair, create_endpoint};

pub(super) const NO_GUARD: &str = "ours, no guard";
pub(super) const GENERIC: &str = "ours, guard generic";
pub(super) const NATIVE: &str = "ours, guard native";
pub(super) const INGRESS: &str = "kernel + nft ingress";
pub(super) const PREROUTING: &str = "kernel + nft prerouting";
/// In the order in which they are printed.
pub(super) const ALL: [&str; 5] = [NO_GUARD, GENERIC, NATIVE, INGRESS, PREROUTING];

/// Two hosts on a wire, an endpoint on each; the flood is on the same wire as what the endpoints say.
pub(super) struct Contestant {
    pub(super) name: &'static str,
    pub(super) client: Netns,
    pub(super) server: Netns,
    pub(super) server_address: Ipv4Addr,
    /// Where the flood comes from, and where it goes to.
    pub(super) hosts: [Arc<Host>; 2],
    drops: Drops,
}

/// What counts the drops.
enum Drops {
    /// Our METRICS.
    Node,
    /// The counter of the one rule.
    Rule,
}

/// All of them, built.
pub(super) fn build(lab: &mut Lab) -> Result<Vec<Contestant>> {
    let mut all = Vec::new();
    for (name, prefix, mode) in
        [(NO_GUARD, "f", "off"), (GENERIC, "g", "generic"), (NATIVE, "n", "native")]
    {
        all.push(Contestant::ours(lab, name, prefix, mode)?);
    }
    let ingress =
        "table netdev guard { chain drop { type filter hook ingress device eth0 priority 0; ";
    all.push(Contestant::kernel(lab, INGRESS, "i", ingress)?);
    let prerouting = "table ip guard { chain drop { type filter hook prerouting priority raw; ";
    all.push(Contestant::kernel(lab, PREROUTING, "p", prerouting)?);
    for contestant in &all {
        contestant.set_wire()?;
        contestant.client.reaches(contestant.server_address)?;
    }
    Ok(all)
}

impl Contestant {
    fn ours(lab: &mut Lab, name: &'static str, prefix: &str, mode: &str) -> Result<Self> {
        let names = [format!("{prefix}1"), format!("{prefix}2")];
        let hosts = lab.wired_pair((&names[0], "10.9.0.1"), (&names[1], "10.9.0.2"))?;
        lab.start_cluster_with(&hosts, &["--xdp", mode])?;
        let status = hosts[1].overlay_json(&["status"])?;
        ensure!(text(&status["datapath"], "xdp") == mode, "--xdp {mode} is not in force: {status}");
        hosts[0].overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/24"])?;
        let mut ends = Vec::new();
        for (host, name) in hosts.iter().zip(["c", "s"]) {
            let netns = lab.container(&format!("{prefix}{name}"))?;
            let address = create_endpoint(host, name, &netns, &[])?;
            ends.push((netns, address));
        }
        let (server, server_address) = ends.pop().context("two ends")?;
        let (client, _) = ends.pop().context("two ends")?;
        Ok(Self { name, client, server, server_address, hosts, drops: Drops::Node })
    }

    /// The kernel's own overlay, with a rule that starts so.
    fn kernel(lab: &mut Lab, name: &'static str, prefix: &str, chain: &str) -> Result<Self> {
        let Pair { client, server, server_address, hosts, .. } = Pair::kernel_named(lab, prefix)?;
        let rule = "ip saddr != { 10.9.0.1 } udp dport 4789 counter drop\n} }\n";
        let file = hosts[1].netns.log_file("guard.nft");
        std::fs::write(&file, format!("{chain}\n{rule}"))?;
        hosts[1].netns.run(&["nft", "-f", &file.display().to_string()])?;
        Ok(Self { name, client, server, server_address, hosts, drops: Drops::Rule })
    }

    /// Real packets cross the wire, and the receiver merges what it can: what is measured is not how
    /// many bytes a super-packet has.
    fn set_wire(&self) -> Result<()> {
        let off = ["tso", "gso", "tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation"];
        for host in &self.hosts {
            let mut words = vec!["ethtool", "-K", "eth0", "gro", "on"];
            words.extend(off.iter().flat_map(|feature| [feature, "off"]));
            host.netns.run(&words)?;
        }
        Ok(())
    }

    /// Forged packets that have been dropped.
    pub(super) fn dropped(&self) -> Result<u64> {
        let receiver = &self.hosts[1];
        match self.drops {
            Drops::Node => receiver.counter("unknown_vtep"),
            Drops::Rule => {
                let listed = receiver.netns.run(&["nft", "-j", "list", "ruleset"])?;
                let listed: serde_json::Value = serde_json::from_str(&listed)?;
                let rule = rows(&listed["nftables"]).iter().find_map(|row| {
                    let expressions = row["rule"]["expr"].as_array()?;
                    expressions.iter().find(|expression| expression.get("counter").is_some())
                });
                Ok(number(&rule.context("no rule with a counter")?["counter"], "packets"))
            }
        }
    }
}
