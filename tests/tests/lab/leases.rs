//! Nodes that no controller hears: a dead one loses its place in the names and tables of the others, and one that is cut off
//! from the controllers alone keeps it for as long as its VTEP answers.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Cut, Host, Lab, Requirement, eventually, probe::Prober, rows, text};
use serde_json::Value;

use crate::support::{
    CATCH_UP, NETWORK, attach, cluster_with, follows, leader, refused_with, scenario,
};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("nft"),
    Requirement::Tool("bpftool"),
    Requirement::Tool("dig"),
];

/// Of each node, in seconds.
const LEASE: u64 = 3;
const ARGS: &[&str] = &["--lease", "3"];
/// A node is lost after its lease and some rounds of probes, and back after it has registered.
const BOUND: Duration = Duration::from_secs(30);

fn state(asked: &Host, node: &Host) -> Result<String> {
    let node = asked.overlay_json(&["node", "inspect", &node.name])?;
    Ok(text(&node, "state").to_owned())
}

fn has_state(asked: &Host, node: &Host, expected: &str) -> Result<()> {
    eventually(&format!("{} is {expected}", node.name), BOUND, || {
        let state = state(asked, node)?;
        if state == expected { Ok(()) } else { bail!("it is {state}") }
    })
}

/// Whether the host's table leads packets for this address to a VTEP.
fn sends_to(host: &Host, address: Ipv4Addr) -> Result<bool> {
    let entries: Value = serde_json::from_str(&host.map_dump("FDB")?)?;
    let bytes = |value: &Value, field: &str| -> Vec<u64> {
        rows(&value[field]).iter().filter_map(Value::as_u64).collect()
    };
    let is_its = |entry: &&Value| {
        let octets = address.octets().map(u64::from);
        bytes(&entry["value"], "ip").ends_with(&octets)
    };
    let entry = rows(&entries).iter().find(is_its).context("no entry of it")?;
    Ok(bytes(&entry["value"], "vtep").iter().any(|byte| *byte != 0))
}

/// A power cut: the process is gone, and so is all that the host sends.
fn dies(lab: &Lab, host: &Host) -> Result<Cut> {
    host.kill9()?;
    lab.cut(host)
}

#[test]
fn the_endpoints_of_a_dead_host_leave_the_names_and_tables_until_it_is_back() {
    scenario(NEEDS, |lab| {
        let cluster = cluster_with(lab, ARGS)?;
        let [h1, h2, _, h4] = &cluster.hosts;
        let web1 = &cluster.web1;
        let web4 = attach(lab, h4, "web4", &[])?;
        web1.netns.reaches(web4.address)?;
        ensure!(sends_to(h1, web4.address)?, "h1 sends nothing to web4");

        let cut = dies(lab, h4)?;
        has_state(h1, h4, "lost")?;
        eventually("its endpoint is sent nothing, and has no name", CATCH_UP, || {
            for host in [h1, h2] {
                ensure!(!sends_to(host, web4.address)?, "{} sends to it", host.name);
            }
            web1.netns.dig(&["web4"])?.is_empty("NXDOMAIN")
        })?;
        // What it has is its own all the time.
        let shown = h1.overlay_json(&["endpoint", "inspect", "web4"])?;
        ensure!(text(&shown, "node") == "h4", "{shown}");
        let (netns, ip) = (lab.container("heir")?, web4.address.to_string());
        let create = |name: &str| {
            let words = ["endpoint", "create", name, "--network", NETWORK, "--ip", &ip, "--netns"];
            h1.overlay_fails(&[&words[..], &[netns.name()]].concat())
        };
        refused_with(&create("web4")?, "service endpoint with name web4 already exists")?;
        refused_with(&create("heir")?, "web4")?;

        cut.heal()?;
        h4.spawn_again()?;
        has_state(h1, h4, "ready")?;
        follows(h4, h1, CATCH_UP)?;
        eventually("its endpoint is reached, by its name", CATCH_UP, || {
            web1.netns.dig(&["web4"])?.is(&[&ip])?;
            web1.netns.reaches(web4.address)
        })
    });
}

/// Neither its traffic nor its names go for the controllers' sake, however long that lasts; and nothing that it goes on with
/// is given to anybody else.
#[test]
fn a_host_that_is_cut_off_from_the_controllers_alone_keeps_its_traffic_and_its_names() {
    scenario(NEEDS, |lab| {
        let cluster = cluster_with(lab, ARGS)?;
        let [h1, _, _, h4] = &cluster.hosts;
        let web1 = &cluster.web1;
        let web4 = attach(lab, h4, "web4", &[])?;
        let old = attach(lab, h4, "old", &[])?;
        let probe = Prober::new(&web1.netns, web4.address)?.start(Duration::from_millis(2));
        let cut = lab.cut_port(h4, 7400)?;
        let begun = Instant::now();
        let removed = h1.overlay_json(&["endpoint", "rm", "old"])?;
        let row = rows(&removed).first().context("a row")?;
        ensure!(row["lagging_nodes"] == serde_json::json!(["h4"]), "{removed}");
        let (netns, ip) = (lab.container("heir")?, old.address.to_string());
        let create = ["endpoint", "create", "heir", "--network", NETWORK, "--ip", &ip, "--netns"];
        let create = [&create[..], &[netns.name()]].concat();
        refused_with(&h1.overlay_fails(&create)?, "(not yet: h4)")?;

        let leads = leader_of(&cluster.hosts)?;
        eventually("the leader says that it is not heard", BOUND, || {
            ensure!(leads.log().contains("no controller hears the node"), "nothing is said");
            Ok(())
        })?;
        eventually("it lives on for many leases", BOUND, || {
            let node = h1.overlay_json(&["node", "inspect", "h4"])?;
            let answered = node["answered_ms_ago"].as_u64();
            ensure!(text(&node, "state") != "lost", "it was given up: {node}");
            ensure!(begun.elapsed() > Duration::from_secs(5 * LEASE), "not yet");
            ensure!(answered.is_some_and(|ms| ms < LEASE * 1_000), "{node}");
            Ok(())
        })?;
        ensure!(!leads.log().contains("the node is lost"), "it was given up meanwhile");
        ensure!(state(h1, h4)? == "down", "{}", state(h1, h4)?);
        web1.netns.dig(&["web4"])?.is(&[&web4.address.to_string()])?;
        // It says so itself, once.
        let said = h4.log().matches("no voter with a quorum serves this node").count();
        ensure!(said == 1, "said {said} times");
        let status = h4.overlay_json(&["status"]);
        ensure!(status.is_err() || text(&status?, "leader").is_empty(), "it knows a leader");
        // The old owner goes on there, alone.
        web4.netns.reaches(old.address)?;
        refused_with(&h1.overlay_fails(&create)?, "(not yet: h4)")?;

        cut.heal()?;
        follows(h4, h1, CATCH_UP)?;
        has_state(h1, h4, "ready")?;
        eventually("what was removed meanwhile is gone there", CATCH_UP, || {
            ensure!(old.netns.links()? == ["lo"], "{:?}", old.netns.links()?);
            Ok(())
        })?;
        h1.overlay_json(&create)?;
        web4.netns.reaches(old.address)?;
        probe.stop()?.none_lost()
    });
}

/// Where every host drops the answers to its probes, no probe shows anything, and no node is given up by it: its process is
/// gone, and its traffic is not.
#[test]
fn hosts_that_hear_no_answers_give_no_node_up() {
    const SAID: &str = "no VTEP answers this node's probes";
    scenario(NEEDS, |lab| {
        let cluster = cluster_with(lab, ARGS)?;
        let [h1, h2, h3, h4] = &cluster.hosts;
        let web1 = &cluster.web1;
        let web4 = attach(lab, h4, "web4", &[])?;
        web1.netns.reaches(web4.address)?;
        let deaf = |host: &Host| -> Result<bool> {
            let status = host.overlay_command(&["status", "-o", "json"]).output()?;
            let status: Value = serde_json::from_slice(&status.stdout)?;
            Ok(status.to_string().contains(SAID))
        };
        let times = |host: &Host| host.log().matches(SAID).count();
        let before = [h1, h2, h3].map(|host| times(host));
        for host in &cluster.hosts {
            let chain = "type filter hook input priority 0";
            let words = format!(
                "add table inet deaf; add chain inet deaf input {{ {chain}; }}; add rule inet deaf input udp sport 4789 counter drop"
            );
            host.netns.run(&["nft", &words])?;
        }
        eventually("each host says that it hears nobody", BOUND, || {
            for host in [h1, h2, h3] {
                ensure!(deaf(host)?, "{} does not say so", host.name);
            }
            Ok(())
        })?;

        let begun = Instant::now();
        h4.kill9()?;
        let leads = leader_of(&cluster.hosts)?;
        eventually("it is down for many leases, and not given up", BOUND, || {
            ensure!(begun.elapsed() > Duration::from_secs(5 * LEASE), "not yet");
            ensure!(state(h1, h4)? == "down", "it is {}", state(h1, h4)?);
            Ok(())
        })?;
        ensure!(!leads.log().contains("the node is lost"), "it was given up meanwhile");
        web1.netns.dig(&["web4"])?.is(&[&web4.address.to_string()])?;
        web1.netns.reaches(web4.address)?;
        let said = [h1, h2, h3].map(|host| times(host));
        ensure!(said == before.map(|times| times + 1), "said {said:?} times, before {before:?}");

        for host in [h1, h2, h3] {
            host.netns.run(&["nft", "delete", "table", "inet", "deaf"])?;
        }
        eventually("they hear each other again, and it", BOUND, || {
            for host in [h1, h2, h3] {
                ensure!(!deaf(host)?, "{} still says so", host.name);
            }
            let node = h1.overlay_json(&["node", "inspect", "h4"])?;
            ensure!(
                node["answered_ms_ago"].as_u64().is_some_and(|ms| ms < LEASE * 1_000),
                "{node}"
            );
            Ok(())
        })
    });
}

/// The host that leads, whichever node is asked.
fn leader_of(hosts: &[Arc<Host>; 4]) -> Result<Arc<Host>> {
    let name = hosts[0].leader()?;
    hosts.iter().find(|host| host.name == name).cloned().context("it is none of the hosts")
}

#[test]
fn where_half_of_the_hosts_are_silent_at_once_none_is_given_up() {
    scenario(NEEDS, |lab| {
        let cluster = cluster_with(lab, ARGS)?;
        let h4 = &cluster.hosts[3];
        let web4 = attach(lab, h4, "web4", &[])?;
        // A voter that does not lead, so that nobody is elected meanwhile.
        let leads = leader(&cluster)?;
        let mut voters = cluster.hosts[..3].iter();
        let voter = voters.rfind(|host| host.name != leads.name);
        let voter = voter.context("another voter")?;
        let begun = Instant::now();
        let cuts = [dies(lab, h4)?, dies(lab, voter)?];
        let alarm = || -> Result<bool> {
            let status = leads.overlay_command(&["status", "-o", "json"]).output()?;
            let status: Value = serde_json::from_slice(&status.stdout)?;
            Ok(status["alarms"].to_string().contains("half of the nodes"))
        };
        eventually("the leader suspects itself for many leases, and says so", BOUND, || {
            ensure!(alarm()?, "no alarm");
            ensure!(begun.elapsed() > Duration::from_secs(5 * LEASE), "not yet");
            Ok(())
        })?;
        for host in [h4, voter] {
            ensure!(state(&leads, host)? == "down", "{} is {}", host.name, state(&leads, host)?);
        }
        ensure!(sends_to(&leads, web4.address)?, "nothing is sent to it any more");
        let said = leads.log().matches("half of the nodes or more are silent").count();
        ensure!(said == 1, "said {said} times");

        // One of them comes back: the other is one of four.
        let [cut, _still] = cuts;
        cut.heal()?;
        h4.spawn_again()?;
        has_state(&leads, h4, "ready")?;
        has_state(&leads, voter, "lost")?;
        ensure!(!alarm()?, "the alarm stays");
        Ok(())
    });
}
