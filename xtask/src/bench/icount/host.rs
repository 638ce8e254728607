//! The instructions that a message of the host's own costs more under rules of several kinds, on both hosts: what tracking
//! connections costs, what is left of it where packets are excluded from it, and what translation without it would cost.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Lab, Netns};
use serde::{Deserialize, Serialize};

use super::{figures::Protocol, inside::ping_pong};
use crate::{
    bench::dataplane::{contestants::underlay, scene::Underlay},
    ping_pong::PORT,
};

/// What a node writes without a leg: a chain that counts packets to the VXLAN port.
const INPUT: &str = "table ip node {
    chain input { type filter hook input priority 0; udp dport 4789 counter; }
}";
/// What a node writes with a leg: the states that its chain `forward` asks for, and the translation.
const STATES: &str = "table ip node {
    chain forward { type filter hook forward priority 0; oifname \"gw\" ct state established,related accept; }
}";
const MASQUERADE: &str = "table ip node {
    chain postrouting { type nat hook postrouting priority 100; ip saddr 172.18.0.0/16 masquerade; }
}";
/// No packet is tracked. No node could do that, since endpoints' answers need tracking: it is what exclusion saves at most.
const NONE_TRACKED: &str = "table ip host {
    chain prerouting { type filter hook prerouting priority -300; notrack; }
    chain output { type filter hook output priority -300; notrack; }
}";
/// The least that tells a masqueraded endpoint's answers from the host's own packets: the protocol, and the range of ports
/// among which masquerade would choose.
const BUT_A_RANGE: &str = "table ip host {
    chain prerouting { type filter hook prerouting priority -300;
        iif eth0 udp dport != 10000-32767 notrack; iif eth0 tcp dport != 10000-32767 notrack; }
    chain output { type filter hook output priority -300; oif eth0 notrack; }
}";
/// What keeps published ports, flows that began under other rules, and a host's flow by a port of the range, too.
const BUT_A_SET: &str = "table ip host {
    set tracked { type inet_service; flags interval; elements = { 600-1023, 4789, 8080, 10000-32767 }; }
    chain prerouting { type filter hook prerouting priority -300;
        iif eth0 udp dport != @tracked notrack; iif eth0 tcp dport != @tracked notrack; }
    chain output { type filter hook output priority -300;
        oif eth0 udp sport != @tracked notrack; oif eth0 tcp sport != @tracked notrack; }
}";
const CLSACT: &str = "qdisc add dev eth0 clsact";
/// Translation by tc's own tracking (act_ct), which switches on no hook: the source of what comes from the endpoints'
/// subnet, and the destination of what goes to a port between 16384 and 32767.
const OUT_BY_TC: &str = "filter add dev eth0 egress protocol ip prio 1 u32 match ip src 172.18.0.0/16 \
    action ct commit nat src addr 192.0.2.1 port 16384-32767 pipe action ok";
const IN_BY_TC: &str = "filter add dev eth0 ingress protocol ip prio 1 u32 match ip dport 16384 0xc000 \
    action ct nat pipe action ok";

/// The only rules under which the message's connection is tracked.
const TRACKED: &str = "a node with a leg: tracked";

/// Rules on both hosts.
struct Rules {
    name: &'static str,
    nft: &'static [&'static str],
    tc: &'static [&'static str],
}

const ROWS: [Rules; 10] = [
    Rules { name: "no rules", nft: &[], tc: &[] },
    Rules { name: "a node without a leg", nft: &[INPUT], tc: &[] },
    Rules { name: TRACKED, nft: &[INPUT, STATES, MASQUERADE], tc: &[] },
    Rules {
        name: "the same, nothing tracked",
        nft: &[INPUT, STATES, MASQUERADE, NONE_TRACKED],
        tc: &[],
    },
    Rules {
        name: "the same, only a range tracked",
        nft: &[INPUT, STATES, MASQUERADE, BUT_A_RANGE],
        tc: &[],
    },
    Rules {
        name: "the same, only a set tracked",
        nft: &[INPUT, STATES, MASQUERADE, BUT_A_SET],
        tc: &[],
    },
    Rules { name: "masquerade, nothing tracked", nft: &[MASQUERADE, NONE_TRACKED], tc: &[] },
    Rules { name: "nothing to track, and notrack", nft: &[NONE_TRACKED], tc: &[] },
    Rules { name: "clsact alone", nft: &[], tc: &[CLSACT] },
    Rules { name: "translation by tc", nft: &[], tc: &[CLSACT, OUT_BY_TC, IN_BY_TC] },
];

/// Instructions of a message in one direction, by the rules' name, in the order of measurement.
#[derive(Serialize, Deserialize)]
pub(super) struct HostFigures {
    kernel: String,
    instructions: BTreeMap<Protocol, Vec<(String, f64)>>,
}

impl HostFigures {
    /// Measures in the guest.
    pub(super) fn measure() -> Result<Self> {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
        let mut lab = Lab::new()?;
        let contestant = underlay::build(&mut lab, Underlay::USUAL)?;
        let mut instructions: BTreeMap<Protocol, Vec<(String, f64)>> = BTreeMap::new();
        for rules in &ROWS {
            let hosts = [&contestant.client, &contestant.server];
            hosts.iter().try_for_each(|host| rules.write(host)).context(rules.name)?;
            for protocol in Protocol::ALL {
                let before = tracked(&contestant.client)?;
                let least = ping_pong(&contestant, protocol).context(rules.name)?.min();
                let is_tracked = tracked(&contestant.client)? > before;
                ensure!(
                    is_tracked == (rules.name == TRACKED),
                    "{}: whether the connection is tracked is {is_tracked}; the rules do not do what they are for",
                    rules.name
                );
                println!("{:36} {:4} {least:8.0}", rules.name, protocol.name());
                instructions.entry(protocol).or_default().push((rules.name.to_owned(), least));
            }
        }
        Ok(Self { kernel, instructions })
    }

    /// Prints the figures as a table. The rate that is left is that of a CPU that does nothing else.
    pub(super) fn print(&self) {
        println!("\ninstructions of a 64-byte message of two hosts' own; kernel {}", self.kernel);
        for (protocol, rows) in &self.instructions {
            println!("{}", protocol.name());
            let without = rows.first().map_or(f64::NAN, |(_, instructions)| *instructions);
            for (name, instructions) in rows {
                let (more, left) = (instructions - without, without / instructions);
                println!("  {name:36} {instructions:8.0}   {more:+8.0}   rate {left:.3}");
            }
        }
    }
}

impl Rules {
    /// Makes these the only rules of a host.
    fn write(&self, host: &Netns) -> Result<()> {
        host.run(&["nft", "flush ruleset"])?;
        if host.run(&["tc", "qdisc", "show", "dev", "eth0"])?.contains("clsact") {
            host.run(&["tc", "qdisc", "del", "dev", "eth0", "clsact"])?;
        }
        for rules in self.nft {
            host.run(&["nft", rules])?;
        }
        for command in self.tc {
            let words = ["tc"].into_iter().chain(command.split_whitespace());
            host.run(&words.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// The number of connections to the answering end that a host tracks.
fn tracked(host: &Netns) -> Result<usize> {
    // There is no such file before the kernel tracks at all.
    let table = host.run(&["sh", "-c", "cat /proc/net/nf_conntrack || true"])?;
    let port = format!(" dport={PORT} ");
    Ok(table.lines().filter(|line| line.contains(&port)).count())
}
