//! Foreign firewalls on a node's host, with the rules that the programs themselves wrote: what they drop is named, and the
//! advice lets it through.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Requirement, eventually, mirror};

use crate::{
    forwarding::{AT_HOST, IN_LAN, two_networks},
    support::{NODES, scenario},
};

const BOUND: Duration = Duration::from_secs(60);
/// Time after which a node that has not answered counts as not reached.
const ANSWER: Duration = Duration::from_secs(2);
/// The folder of the rules; the head of each file names the program, its version and what was run.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../overlay-ctl/tests/firewalls");

/// A firewall, and what it drops as it starts.
struct Firewall {
    name: &'static str,
    /// The ending of its files, and the command that loads them.
    loading: [&'static str; 2],
    removing: &'static str,
    drops_ports: bool,
    drops_api: bool,
}

const FIREWALLS: [Firewall; 4] = [
    Firewall {
        name: "firewalld",
        loading: ["nft", "nft -f"],
        removing: "nft delete table inet firewalld",
        drops_ports: false,
        drops_api: true,
    },
    Firewall {
        name: "ufw",
        loading: ["rules", "iptables-nft-restore"],
        removing: "nft delete table ip filter",
        drops_ports: true,
        drops_api: true,
    },
    Firewall {
        name: "docker",
        loading: ["rules", "iptables-nft-restore"],
        removing: "nft delete table ip filter; nft delete table ip nat",
        drops_ports: true,
        drops_api: false,
    },
    Firewall {
        name: "docker",
        loading: ["rules", "iptables-legacy-restore"],
        removing: "iptables-legacy -P FORWARD ACCEPT; iptables-legacy -F; iptables-legacy -t nat -F",
        drops_ports: true,
        drops_api: false,
    },
];

impl Firewall {
    fn load(&self, host: &Host, state: &str) -> Result<()> {
        let Self { name, loading: [ending, load], .. } = self;
        let command = format!("{load} {FOLDER}/{name}{state}.{ending}");
        host.netns.run(&["sh", "-ec", &command]).map(drop)
    }

    fn remove(&self, host: &Host) -> Result<()> {
        host.netns.run(&["sh", "-ec", self.removing]).map(drop)
    }

    /// The commands that were run before the rules of the second file were recorded.
    fn advice(&self) -> Result<Vec<String>> {
        let Self { name, loading: [ending, load], .. } = self;
        let text = fs::read_to_string(format!("{FOLDER}/{name}-advised.{ending}"))?;
        let head = text.lines().map_while(|line| line.strip_prefix("# ")).skip(1);
        let of_legacy = |line: &str| match load.contains("legacy") {
            true => line.replace("iptables ", "iptables-legacy "),
            false => line.to_owned(),
        };
        Ok(head.map(of_legacy).collect())
    }
}

#[test]
fn what_a_real_firewall_drops_is_named_and_the_advice_helps() {
    let mut needs = NODES.to_vec();
    needs.push(Requirement::Tool("iptables-nft-restore"));
    needs.push(Requirement::Tool("iptables-legacy-restore"));
    scenario(&needs, |lab| {
        let ([h1, h2], [web1, _], lan) = two_networks(lab)?;
        mirror::tcp(&lan, 80)?;
        let at_host: Ipv4Addr = AT_HOST.parse()?;
        let out = || web1.netns.seen_over_tcp(IN_LAN, 80).map(drop).context("out");
        let port = || lan.seen_over_tcp(at_host, 8080).map(drop).context("a published port");
        let api = |is_open: bool| -> Result<()> {
            let to = SocketAddr::from((h1.address, 7400));
            let opened = h2.netns.enter(|| Ok(TcpStream::connect_timeout(&to, ANSWER)))?;
            ensure!(opened.is_ok() == is_open, "the API: {opened:?}");
            Ok(())
        };
        for firewall in &FIREWALLS {
            let status = |what: &str, is_right: &dyn Fn(&str) -> bool| {
                eventually(&format!("{}: {what}", firewall.name), BOUND, || {
                    let said = h1.overlay(&["status"])?;
                    ensure!(is_right(&said), "{said}");
                    Ok(())
                })
            };
            (|| -> Result<()> {
                (out().and(port()).and(api(true))).context("before")?;
                firewall.load(&h1, "")?;
                ensure!(out().is_err(), "what endpoints send passes");
                ensure!(port().is_err() == firewall.drops_ports, "published ports");
                api(!firewall.drops_api)?;
                let advice = firewall.advice()?;
                status("named, with what to do", &|said| {
                    let is_shut = said.contains("what other nodes send to this one");
                    said.contains("what endpoints send to the outside")
                        && said.contains("what is for published ports") == firewall.drops_ports
                        && is_shut == firewall.drops_api
                        && advice.iter().all(|command| said.contains(&format!("run `{command}`")))
                })?;
                firewall.remove(&h1)?;
                firewall.load(&h1, "-advised")?;
                (out().and(port()).and(api(true))).context("with what is advised")?;
                status("not named any more", &|said| !said.contains("the firewall's table"))?;
                firewall.remove(&h1)
            })()
            .with_context(|| format!("{} by {}", firewall.name, firewall.loading[1]))?;
        }
        Ok(())
    });
}
