//! The second half of the demo: the outside world, published ports, isolation on the gateway bridge, and
//! names.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Lab, eventually, text};

use super::{
    endpoint::{Endpoint, NETWORK},
    shell::{Shell, heading},
};
use crate::outside::{OUTSIDE_NAME, serve_names};

pub(super) const OUTSIDE: &str = "outside";
/// The port at which web1 publishes its port 80; web2 gets a free port.
const WEB1_PORT: u16 = 8080;

/// A host that is not a node, in a subnet of its own, with a name server.
pub(super) struct Outside {
    host: Arc<Host>,
    /// Path of a resolv.conf that names this server; the nodes are started with it.
    pub(super) resolv_conf: String,
}

impl Outside {
    pub(super) fn new(lab: &mut Lab) -> Result<Self> {
        let subnet = lab.subnet("203.0.113.1/24")?;
        let host = lab.host(&subnet, OUTSIDE, "203.0.113.10")?;
        let resolv_conf = serve_names(lab, &host.netns, host.address)?.display().to_string();
        Ok(Self { host, resolv_conf })
    }

    fn shell(&self) -> Shell {
        Shell::in_namespace(OUTSIDE, &self.host.netns)
    }
}

pub(super) fn tell(
    lab: &mut Lab,
    h1: &Host,
    outside: &Outside,
    [web1, web2, _]: &[Endpoint; 3],
) -> Result<()> {
    look_at_the_bridge(h1, web1)?;
    out(outside, h1, web1)?;
    inward(outside, h1, web1, web2)?;
    isolated(lab, h1, web1)?;
    names(h1, web1, web2)
}

fn look_at_the_bridge(h1: &Host, web1: &Endpoint) -> Result<()> {
    let on_h1 = Shell::on_host(h1);
    heading("The gateway bridge of h1, and web1's leg on it");
    on_h1.run("ip -4 -br addr show dev ov_gwbridge")?;
    on_h1.run("ip -d link show master ov_gwbridge")?;
    on_h1.run(&format!("overlay endpoint inspect {}", web1.name))?;

    heading(
        "What nftables does for it: one table, each rule and each port with a word on what for",
    );
    let table = on_h1.run("nft list table ip overlay")?;
    ensure!(table.contains("masquerade"), "nothing is masqueraded");

    heading("The host reaches an endpoint by its gateway address, never by its overlay address");
    let gateway_address = web1.gateway_address(h1)?;
    on_h1.run(&format!("curl -sS http://{gateway_address}/"))?;
    on_h1.refused(&format!("curl -sS --max-time 1 http://{}/", web1.address(h1)?))?;
    Ok(())
}

fn out(outside: &Outside, h1: &Host, web1: &Endpoint) -> Result<()> {
    heading("Out: masqueraded as h1");
    let on_outside = outside.shell();
    let line = "tcpdump -nn -t -c 1 -i eth0 icmp";
    on_outside.print(&format!("{line} &"));
    let words: Vec<&str> = line.split(' ').collect();
    let mut tcpdump = outside.host.netns.start(&words)?;
    eventually("tcpdump listens", Duration::from_secs(10), || {
        if tcpdump.log().contains("listening on") { Ok(()) } else { bail!("not yet") }
    })?;
    web1.shell.run(&format!("ping -c 1 {}", outside.host.address))?;
    tcpdump.wait(Duration::from_secs(10))?;
    let log = tcpdump.log();
    let seen = log.lines().find(|line| line.starts_with("IP ")).context("a captured packet")?;
    println!("{seen}");
    ensure!(seen.starts_with(&format!("IP {} > ", h1.address)), "it came from somebody else");
    Ok(())
}

fn inward(outside: &Outside, h1: &Host, web1: &Endpoint, web2: &Endpoint) -> Result<()> {
    heading("In: published ports, reached from a host that is no node");
    let (on_h1, on_outside) = (Shell::on_host(h1), outside.shell());
    on_h1.run(&format!("overlay port {}", web1.name))?;
    let given = on_h1.run(&format!("overlay port {}", web2.name))?;
    let (_, given) = given.trim().rsplit_once(':').context("the port that web2 was given")?;
    on_outside.run(&format!("curl -sS http://{}:{WEB1_PORT}/", h1.address))?;
    let web2_host = web2_host_address(h1, web2)?;
    on_outside.run(&format!("curl -sS http://{web2_host}:{given}/"))?;

    heading("The server's log has the client's own address");
    let log = web1.netns.log_file("xtask.log");
    let line = web1.shell.run(&format!("tail -n 1 {}", log.display()))?;
    let client = outside.host.address.to_string();
    ensure!(line.starts_with(&format!("{client} GET ")), "the log does not name {client}");

    heading("From the host itself, and from the endpoint to its own published port");
    on_h1.run(&format!("curl -sS http://127.0.0.1:{WEB1_PORT}/"))?;
    web1.shell.run(&format!("curl -sS http://{}:{WEB1_PORT}/", h1.address))?;
    Ok(())
}

/// The node's address by which a published port of web2 is reached.
fn web2_host_address(h1: &Host, web2: &Endpoint) -> Result<String> {
    let endpoint = h1.overlay_json(&["endpoint", "inspect", web2.name])?;
    Ok(text(&endpoint, "vtep").to_owned())
}

/// Two endpoints of one host, which are both on the bridge but do not reach each other there.
fn isolated(lab: &Lab, h1: &Host, web1: &Endpoint) -> Result<()> {
    heading("A port of the host is taken once");
    let on_h1 = Shell::on_host(h1);
    let web3 = Endpoint::new(lab, "web3")?;
    on_h1.refused(&web3.create_line(web3.name, &format!("-p {WEB1_PORT}:80")))?;

    heading("Two endpoints of one host can't reach each other over eth1: ICC is off there");
    on_h1.run(&web3.create_line(web3.name, ""))?;
    let (over_eth1, over_eth0) = (web3.gateway_address(h1)?, web3.address(h1)?);
    let before = h1.counter("gateway_neighbour")?;
    web1.shell.refused(&format!("ping -c 2 -i 0.2 -W 1 {over_eth1}"))?;
    web1.shell.run("ip neigh show dev eth1")?;
    let dropped = h1.counter("gateway_neighbour")? - before;
    println!("(h1 counted {dropped} packets under gateway_neighbour)");
    ensure!(dropped > 0, "nothing was counted");
    println!("On the overlay they may, unless the network was made with --no-icc:");
    web1.shell.run(&format!("ping -c 1 {over_eth0}"))?;
    Ok(())
}

fn names(h1: &Host, web1: &Endpoint, web2: &Endpoint) -> Result<()> {
    heading("Names: 127.0.0.11 answers inside each endpoint's namespace");
    let shell = &web1.shell;
    let web2_address = web2.address(h1)?.to_string();
    shell.run("cat /etc/resolv.conf")?;
    for name in ["web2".to_owned(), format!("web2.{NETWORK}")] {
        let answer = shell.run(&format!("getent hosts {name}"))?;
        ensure!(answer.starts_with(&web2_address), "{name} is not {web2_address}");
    }
    let pointer = shell.run(&format!("dig +short -x {web2_address}"))?;
    ensure!(pointer.trim() == format!("web2.{NETWORK}."), "the PTR is another");
    println!("An alias that two share, asked twice:");
    for _ in 0..2 {
        let answer = shell.run("dig +short web")?;
        ensure!(answer.lines().count() == 2, "not both");
    }
    println!(
        "A name of the outside goes to the resolvers of the host; one that is nobody's does not:"
    );
    let answer = shell.run(&format!("dig +short {OUTSIDE_NAME}"))?;
    ensure!(!answer.trim().is_empty(), "{OUTSIDE_NAME} has no address");
    let nobody = shell.run("dig +noall +comments web9")?;
    ensure!(nobody.contains("NXDOMAIN"), "web9 is not NXDOMAIN");
    shell.run("curl -sS http://web2/")?;
    Ok(())
}
