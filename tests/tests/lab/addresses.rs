//! Addresses of a node that are not simply its host's for ever: those behind 1:1 NAT, those that change while the node
//! runs, and packets that come to an address by a way on which no program is.

use std::{net::Ipv4Addr, process::Command, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Lab, Netns, Requirement, attainable, eventually, rows, text};

use crate::support::{
    Endpoint, NETWORK, NODES, answer_probes, attach, create_network, follows, pair, refused_with,
    scenario,
};

/// Longest time until a node has seen a change of the host's addresses, and the others have heard of it. Connections to
/// the former address are given up within a few seconds, and another voter may have to be elected.
const SEEN: Duration = Duration::from_secs(40);

const MEASURED: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("iperf3"),
    Requirement::Tool("curl"),
];

/// The address of h1 that others see.
const PUBLIC: &str = "203.0.113.101";

/// A router that translates h1's address in both directions, towards the other subnet.
const NAT: &str = "
table ip nat {
    chain prerouting {
        type nat hook prerouting priority -100;
        ip daddr 203.0.113.101 dnat to 10.10.10.101
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        oifname lan1 ip saddr 10.10.10.101 snat to 203.0.113.101
    }
}";

fn nft(netns: &Netns, lab: &Lab, ruleset: &str) -> Result<()> {
    let file = lab.folder().join("ruleset.nft");
    std::fs::write(&file, ruleset)?;
    netns.run(&["nft", "-f", &file.display().to_string()]).map(drop)
}

pub(crate) fn reach_each_other(web1: &Endpoint, web2: &Endpoint) -> Result<()> {
    web1.netns.reaches(web2.address).context("there")?;
    web2.netns.reaches(web1.address).context("back")
}

/// What the cluster knows of a node, as another one shows it: where it is sent VXLAN, and where its API is.
fn registered(asked: &Host, name: &str) -> Result<[String; 2]> {
    let nodes = asked.overlay_json(&["node", "ls"])?;
    let node = rows(&nodes).iter().find(|node| text(node, "name") == name);
    let node = node.with_context(|| format!("no {name}: {nodes}"))?;
    Ok([text(node, "vtep").to_owned(), text(node, "listen").to_owned()])
}

pub(crate) fn is_registered(asked: &Host, name: &str, address: &str) -> Result<()> {
    let found = registered(asked, name)?;
    ensure!(found == [address.to_owned(), format!("{address}:7400")], "{name}: {found:?}");
    Ok(())
}

/// Gives eth0 another address in place of the one that it has, as a DHCP client does. Returns the new one.
pub(crate) fn move_away(host: &Host) -> Result<String> {
    let [a, b, c, d] = host.address.octets();
    let (to, router) = (Ipv4Addr::new(a, b, c, d + 10), format!("{a}.{b}.{c}.1"));
    host.netns.ip(&["addr", "del", &format!("{}/24", host.address), "dev", "eth0"])?;
    host.netns.ip(&["addr", "add", &format!("{to}/24"), "dev", "eth0"])?;
    host.netns.ip(&["route", "replace", "default", "via", &router])?;
    Ok(to.to_string())
}

#[test]
fn a_node_behind_nat_is_reached_at_its_advertised_address() {
    scenario(MEASURED, |lab| {
        let (left, right) = (lab.subnet("10.10.10.1/24")?, lab.subnet("192.168.50.1/24")?);
        let h1 = lab.host(&left, "h1", "10.10.10.101")?;
        let h2 = lab.host(&right, "h2", "192.168.50.101")?;
        nft(&lab.router()?, lab, NAT)?;
        // Nothing goes to h1 by the address that its host has.
        h2.netns.ip(&["route", "add", "blackhole", "10.10.10.0/24"])?;
        for (wrong, words) in [
            ("127.0.0.1", "no other node reaches that"),
            ("224.0.0.5", "no other node reaches that"),
            ("fd00::1", "only IPv4"),
        ] {
            refused_with(&h1.node_fails(&["--advertise", wrong])?, words)?;
        }
        h1.netns.ip(&["addr", "add", "10.77.0.1/32", "dev", "lo"])?;
        refused_with(&h1.node_fails(&["--advertise", "10.77.0.1"])?, "--underlay")?;

        h1.start_node(&["--advertise", PUBLIC])?;
        h2.start_node(&["--join", &format!("{PUBLIC}:7400")])?;
        create_network(&h1)?;
        let (web1, web2) = (attach(lab, &h1, "web1", &[])?, attach(lab, &h2, "web2", &[])?);
        is_registered(&h2, "h1", PUBLIC)?;
        let status = h1.overlay_json(&["status"])?;
        ensure!(text(&status["datapath"], "vtep") == "10.10.10.101", "{status}");
        ensure!(text(&status["datapath"], "advertised_vtep") == PUBLIC, "{status}");
        reach_each_other(&web1, &web2)?;
        for (client, server) in [(&web1, &web2), (&web2, &web1)] {
            let _server = server.netns.iperf_server(None)?;
            let run = client.netns.iperf(server.address, 1, &[])?;
            ensure!(run.bits_per_second > attainable(50e6), "{}: {run:?}", client.name);
        }
        // Endpoints reach the API neither by the address that the host has nor by the one that others use.
        for (endpoint, host, address) in
            [(&web1, &h1, "10.10.10.101"), (&web1, &h1, PUBLIC), (&web2, &h2, PUBLIC)]
        {
            let before = host.counter("controller_port")?;
            let url = format!("http://{address}:7400/");
            let refused = endpoint.netns.output(&["curl", "-sS", "--max-time", "1", &url])?;
            ensure!(!refused.status.success(), "{refused:?}");
            ensure!(host.counter("controller_port")? > before, "{url}: no packet came so far");
        }
        answer_probes(&[Arc::clone(&h1), Arc::clone(&h2)])?;
        h1.kill9()?;
        reach_each_other(&web1, &web2).context("without the controller")?;
        h1.restart()?;
        eventually("h2 follows h1 again", SEEN, || {
            is_registered(&h2, "h1", PUBLIC)?;
            follows(&h2, &h1, SEEN)
        })?;
        reach_each_other(&web1, &web2).context("after a restart")
    });
}

/// Four nodes that were told no address: their underlay by the device's name, or nothing, and where the API is not at all.
pub(crate) fn without_addresses(lab: &mut Lab) -> Result<[Arc<Host>; 4]> {
    let hosts = lab.four_hosts()?;
    let founder = hosts[0].listen();
    for (host, underlay) in hosts.iter().zip(["eth0", "", "eth0", "eth0"]) {
        let args = ["--underlay", underlay, "--listen", "", "--join", &founder];
        let count = if host.name == "h1" { args.len() - 2 } else { args.len() };
        host.start_node(&args[..count])?;
    }
    create_network(&hosts[0])?;
    eventually("three vote", SEEN, || {
        let voters = hosts[3].voters()?;
        ensure!(voters.len() == 3, "{voters:?}");
        Ok(())
    })?;
    Ok(hosts)
}

#[test]
fn an_agent_whose_address_changes_is_reached_again() {
    scenario(NODES, |lab| {
        let hosts = without_addresses(lab)?;
        let [h1, _, _, h4] = &hosts;
        let (web1, web2) = (attach(lab, h4, "web1", &[])?, attach(lab, h1, "web2", &[])?);
        reach_each_other(&web1, &web2)?;
        let now = move_away(h4)?;
        eventually("h4 is known by its new address", SEEN, || is_registered(h1, "h4", &now))?;
        eventually("packets flow again", SEEN, || reach_each_other(&web1, &web2))?;
        follows(h4, h1, SEEN)?;
        // Asked by the leader, and shown by itself.
        let inside = lab.container("web3")?;
        let create = ["endpoint", "create", "web3", "--network", NETWORK, "--node", "h4"];
        h1.overlay(&[&create[..], &["--netns", inside.name()]].concat())?;
        inside.reaches(web2.address)?;
        let status = h4.overlay_json(&["status"])?;
        ensure!(text(&status["datapath"], "vtep") == now, "{status}");
        Ok(())
    });
}

#[test]
fn a_voter_whose_address_changes_is_reached_again_and_votes() {
    scenario(NODES, |lab| {
        let hosts = without_addresses(lab)?;
        let h4 = &hosts[3];
        let leads = h4.leader()?;
        let (moved, others): (Vec<_>, Vec<_>) =
            hosts[..3].iter().partition(|host| host.name == leads);
        let moved = moved.first().context("a leader")?;
        let (web1, web2) = (attach(lab, moved, "web1", &[])?, attach(lab, h4, "web2", &[])?);
        reach_each_other(&web1, &web2)?;
        let now = move_away(moved)?;
        eventually("the voter is known by its new address", SEEN, || {
            is_registered(h4, &moved.name, &now)
        })?;
        eventually("packets flow again", SEEN, || reach_each_other(&web1, &web2))?;
        follows(moved, others[0], SEEN)?;
        // Its vote counts: without one of the others it is needed.
        others[1].kill9()?;
        eventually("two decide", SEEN, || h4.overlay(&["network", "create", "more"]))?;
        follows(moved, others[0], SEEN)
    });
}

#[test]
fn an_address_that_was_named_is_not_replaced_and_the_status_says_what_to_do() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        reach_each_other(&web1, &web2)?;
        let named = |is_named: bool| {
            eventually("the status says so, or is silent", SEEN, || {
                let status = h1.overlay_json(&["status"])?["datapath"]["fallbacks"].to_string();
                let words = ["10.10.10.101 is on no device", "another --underlay"];
                let found = words.iter().all(|words| status.contains(words));
                ensure!(found == is_named, "{status}");
                Ok(())
            })
        };
        h1.netns.ip(&["addr", "del", "10.10.10.101/24", "dev", "eth0"])?;
        h1.netns.ip(&["addr", "add", "10.10.10.111/24", "dev", "eth0"])?;
        named(true)?;
        h1.netns.ip(&["addr", "add", "10.10.10.101/24", "dev", "eth0"])?;
        named(false)?;
        reach_each_other(&web1, &web2)
    });
}

#[test]
fn vxlan_that_no_program_sees_is_counted() {
    scenario(NODES, |lab| {
        let ([h1, _], [web1, web2]) = pair(lab)?;
        // A machine behind a bridge of the host, by which no VXLAN is received.
        let guest = lab.container("guest")?;
        h1.netns.ip(&["link", "add", "br0", "type", "bridge"])?;
        let veth = ["link", "add", "port0", "type", "veth", "peer", "name", "eth0", "netns"];
        h1.netns.ip(&[&veth[..], &[guest.name()]].concat())?;
        h1.netns.ip(&["link", "set", "port0", "master", "br0", "up"])?;
        h1.netns.ip(&["addr", "add", "10.66.0.1/24", "dev", "br0"])?;
        h1.netns.ip(&["link", "set", "br0", "up"])?;
        guest.ip(&["addr", "add", "10.66.0.2/24", "dev", "eth0"])?;
        guest.ip(&["link", "set", "eth0", "up"])?;
        guest.ip(&["route", "add", "default", "via", "10.66.0.1"])?;
        eventually("the guest reaches its host", SEEN, || guest.reaches("10.10.10.101"))?;
        let unseen = || h1.counter("unseen_vxlan");
        reach_each_other(&web1, &web2)?;
        ensure!(unseen()? == 0, "what a program takes does not count");
        let send = "for _ in 1 2 3 4 5; do echo vxlan > /dev/udp/10.10.10.101/4789; done";
        let mut sender: Command = guest.command(&["bash", "-c", send]);
        ensure!(sender.status()?.success(), "sent");
        eventually("they are counted", SEEN, || {
            let found = unseen()?;
            ensure!(found == 5, "{found}");
            Ok(())
        })
    });
}
