//! The contestants that drop forged VXLAN: the project's programs, with and without the guard, and a rule of
//! nftables in front of the kernel's VXLAN device.

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Lab, Netns, number, rows, text};

use crate::bench::{
    dataplane::{
        contestants::{Contestant as Pair, kernel},
        scene::{Underlay, Wire},
    },
    endpoint::create_endpoint,
};

pub(super) const NO_GUARD: &str = "ours, no guard";
pub(super) const GENERIC: &str = "ours, generic guard";
pub(super) const NATIVE: &str = "ours, native guard";
pub(super) const INGRESS: &str = "kernel, nft ingress";
pub(super) const PREROUTING: &str = "kernel, nft prerouting";
/// All contestants, in the order in which they are printed.
pub(super) const ALL: [&str; 5] = [NO_GUARD, GENERIC, NATIVE, INGRESS, PREROUTING];

/// Two hosts on a wire, with an endpoint on each. The flood is on the same wire as the endpoints' packets.
pub(super) struct Contestant {
    pub(super) name: &'static str,
    drops: Drops,
    pair: Arc<Pair>,
}

/// The part that drops packets and counts them.
enum Drops {
    /// The project's programs, which count in METRICS.
    Programs,
    /// The only rule of this ruleset.
    Rule(String),
}

/// Builds all contestants, and checks that they work.
pub(super) fn build(lab: &mut Lab) -> Result<Vec<Contestant>> {
    let mut all = Vec::new();
    for (name, prefix, mode) in
        [(NO_GUARD, "f", "off"), (GENERIC, "g", "generic"), (NATIVE, "n", "native")]
    {
        let pair = Arc::new(ours(lab, name, prefix, mode)?);
        all.push(Contestant { name, drops: Drops::Programs, pair });
    }
    // One pair with the kernel's VXLAN device, which has one or the other of the two rules.
    let pair = Arc::new(kernel::build(lab, Underlay::USUAL)?);
    for (name, family, hook) in [
        (INGRESS, "netdev", "hook ingress device eth0 priority 0"),
        (PREROUTING, "ip", "hook prerouting priority raw"),
    ] {
        let from = pair.wired[0].address;
        let rules = format!(
            "flush ruleset\ntable {family} guard {{\n chain strangers {{\n type filter {hook};\n \
             ip saddr != {{ {from} }} udp dport 4789 counter drop\n }}\n}}\n"
        );
        all.push(Contestant { name, drops: Drops::Rule(rules), pair: Arc::clone(&pair) });
    }
    for contestant in &all {
        // Real packets cross the wire, and the receiver merges them, so that sizes of super-packets do not
        // influence the comparison.
        contestant.pair.set_wire(Wire::Packets)?;
        contestant.arrange()?;
        contestant.client().reaches(contestant.server_address())?;
    }
    Ok(all)
}

fn ours(lab: &mut Lab, name: &'static str, prefix: &str, mode: &str) -> Result<Pair> {
    let names = [format!("{prefix}1"), format!("{prefix}2")];
    let hosts = lab.wired_pair((&names[0], "10.9.0.1"), (&names[1], "10.9.0.2"))?;
    lab.start_cluster_with(&hosts, &["--xdp", mode])?;
    let status = hosts[1].overlay_json(&["status"])?;
    ensure!(text(&status["datapath"], "xdp") == mode, "--xdp {mode} is not in force: {status}");
    hosts[0].overlay(&["network", "create", "bench", "--subnet", "10.0.0.0/24"])?;
    let attach = |host: &Host, name: &str| {
        let netns = lab.container(&format!("{prefix}{name}"))?;
        anyhow::Ok((create_endpoint(host, name, &netns, &[])?, netns))
    };
    let ((_, client), (server_address, server)) =
        (attach(&hosts[0], "c")?, attach(&hosts[1], "s")?);
    Ok(Pair::of_two_hosts(name, (client, server), server_address, hosts))
}

impl Contestant {
    pub(super) fn client(&self) -> &Netns {
        &self.pair.client
    }

    pub(super) fn server(&self) -> &Netns {
        &self.pair.server
    }

    pub(super) fn server_address(&self) -> Ipv4Addr {
        self.pair.server_address
    }

    /// The host that sends the flood.
    pub(super) fn sender(&self) -> &Host {
        &self.pair.wired[0]
    }

    /// The host that receives the flood.
    pub(super) fn receiver(&self) -> &Host {
        &self.pair.wired[1]
    }

    /// Loads the contestant's rule, if it has one.
    pub(super) fn arrange(&self) -> Result<()> {
        let Drops::Rule(rules) = &self.drops else { return Ok(()) };
        let netns = &self.receiver().netns;
        let file = netns.log_file("guard.nft");
        std::fs::write(&file, rules)?;
        netns.run(&["nft", "-f", &file.display().to_string()]).map(drop)
    }

    /// Number of forged packets that have been dropped.
    pub(super) fn dropped(&self) -> Result<u64> {
        let Drops::Rule(_) = self.drops else { return self.receiver().counter("unknown_vtep") };
        let listed = self.receiver().netns.run(&["nft", "-j", "list", "ruleset"])?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let counter = rows(&listed["nftables"]).iter().find_map(|row| {
            let expressions = row["rule"]["expr"].as_array()?;
            expressions.iter().find(|expression| expression.get("counter").is_some())
        });
        Ok(number(&counter.context("no rule with a counter")?["counter"], "packets"))
    }
}
