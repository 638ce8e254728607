//! The events that a node's monitor prints, and the metrics that it offers.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, ensure};
use overlay_lab::{Host, Process, Requirement, eventually, text};
use serde_json::Value;

use crate::support::{Cluster, NETWORK, attach, cluster, create_network, refused_with, scenario};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("curl"),
    Requirement::Tool("nft"),
];
/// Longest time until an event is printed.
const PATIENCE: Duration = Duration::from_secs(10);
/// An address that belongs to no endpoint.
const NOBODY: &str = "172.16.16.77";
const METRICS: &str = "http://127.0.0.1:7401/metrics";

/// A running `overlay monitor -o json`.
struct Monitor(Process);

impl Monitor {
    fn start(host: &Host, name: &str, args: &[&str]) -> Result<Self> {
        let mut command = host.overlay_command(&[&["-o", "json", "monitor"], args].concat());
        Ok(Self(Process::start(&mut command, &host.netns.log_file(name))?))
    }

    fn events(&self) -> Result<Vec<Value>> {
        let log = self.0.log();
        // The last line may be incomplete.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// The first event of the kind. `provoke` is called until the event is printed, because a monitor that
    /// was just started hears nothing yet.
    fn wait_for(
        &self,
        what: &str,
        provoke: impl Fn() -> Result<()>,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        eventually(what, PATIENCE, || {
            provoke()?;
            let events = self.events()?;
            let found = events.iter().find(|event| is_wanted(event)).cloned();
            found.with_context(|| format!("not among {} events", events.len()))
        })
    }
}

#[test]
fn a_monitor_names_who_sends_what_to_whom() {
    scenario(NEEDS, |lab| {
        let Cluster { hosts: [h1, h2, h3, _], web1, web2, web2_2 } = cluster(lab)?;
        let every_packet = ["--flows", "--sample", "1"];
        let flows = Monitor::start(&h1, "flows", &every_packet)?;
        let drops = Monitor::start(
            &h1,
            "drops",
            &["--reason", "arp_unknown_target", "--endpoint", "web1", "--network", NETWORK],
        )?;
        let of_web2_2 = [&every_packet[..], &["--endpoint", "web2-2"]].concat();
        let of_web2_2 = Monitor::start(&h1, "of_web2_2", &of_web2_2)?;

        let ping = || web1.netns.reaches(web2.address);
        let sent = flows.wait_for("web1's echo is told", ping, |event| {
            text(event, "direction") == "from_endpoint" && text(event, "protocol") == "icmp"
        })?;
        for (field, value) in [
            ("reason", "forwarded"),
            ("source", &format!("web1.{NETWORK}")),
            ("destination", &format!("web2.{NETWORK}")),
            ("network", NETWORK),
            ("node", "h3"),
            ("vtep", &h3.address.to_string()),
            ("src_ip", &web1.address.to_string()),
            ("dst_ip", &web2.address.to_string()),
        ] {
            ensure!(text(&sent, field) == value, "{field} is not {value}: {sent}");
        }
        ensure!((&sent["length"], &sent["sample"]) == (&98.into(), &1.into()), "{sent}");
        let answer = flows.wait_for("web2's answer is told", ping, |event| {
            text(event, "direction") == "from_underlay" && text(event, "protocol") == "icmp"
        })?;
        let ends = (text(&answer, "source"), text(&answer, "destination"));
        ensure!(ends == (&format!("web2.{NETWORK}"), &format!("web1.{NETWORK}")), "{answer}");
        ensure!((text(&answer, "node"), &answer["length"]) == ("h3", &148.into()), "{answer}");

        let ask = || web1.netns.ping(NOBODY, 1).map(drop);
        let is_drop = |event: &Value| text(event, "reason") == "arp_unknown_target";
        let dropped = drops.wait_for("a drop is told", ask, is_drop)?;
        ensure!(text(&dropped, "source") == format!("web1.{NETWORK}"), "{dropped}");
        ensure!(text(&dropped, "destination") == NOBODY, "{dropped}");
        flows.wait_for("who listens to flows hears of drops as well", ask, is_drop)?;
        for event in drops.events()? {
            ensure!(is_drop(&event), "{event}");
        }
        let name = format!("web2-2.{NETWORK}");
        let ping = || {
            web1.netns.reaches(web2.address)?;
            web1.netns.reaches(web2_2.address)
        };
        of_web2_2
            .wait_for("web2-2's answer is told", ping, |event| text(event, "source") == name)?;
        for event in of_web2_2.events()? {
            let ends = [text(&event, "source"), text(&event, "destination")];
            ensure!(ends.contains(&name.as_str()), "{event}");
        }

        let refused = h2.overlay_fails(&["monitor", "--endpoint", "web9"])?;
        refused_with(&refused, "no endpoint named web9")?;
        let refused = h1.overlay_fails(&["monitor", "--reason", "because"])?;
        refused_with(&refused, "`because` is no drop reason")?;
        Ok(())
    });
}

/// Reads the node's metrics on the host itself.
fn scrape(host: &Host) -> Result<String> {
    host.netns.curl(METRICS)
}

/// The value of a series.
fn value(scrape: &str, series: &str) -> Result<f64> {
    let line = scrape.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("{series} is not in {scrape}"))?.parse()?)
}

#[test]
fn every_node_has_metrics_that_only_its_host_reads() {
    scenario(NEEDS, |lab| {
        let Cluster { hosts, web1, web2, .. } = cluster(lab)?;
        web1.netns.reaches(web2.address)?;
        for host in &hosts {
            let scrape = scrape(host)?;
            ensure!(value(&scrape, "overlay_map_capacity{map=\"FDB\"}")? > 1e6, "{scrape}");
        }
        let forwarded =
            "overlay_packets_total{direction=\"from_endpoint\",verdict=\"forwarded\",reason=\"\"}";
        ensure!(value(&scrape(&hosts[0])?, forwarded)? >= 1.0);
        ensure!(value(&scrape(&hosts[2])?, forwarded)? >= 1.0);

        let elsewhere = format!("http://{}:7401/metrics", hosts[0].address);
        for netns in [&hosts[1].netns, &web1.netns] {
            let refused = netns.output(&["curl", "-sS", "--max-time", "2", &elsewhere])?;
            ensure!(!refused.status.success(), "{refused:?}");
        }
        Ok(())
    });
}

/// Metrics at an address of the underlay are meant for hosts, and no endpoint reaches those of any node.
#[test]
fn endpoints_reach_no_nodes_metrics() {
    scenario(NEEDS, |lab| {
        let hosts = lab.wired_pair(("h1", "10.10.10.101"), ("h2", "10.10.10.102"))?;
        let metrics = |host: &Arc<Host>| format!("{}:7401", host.address);
        hosts[0].start_node(&["--metrics", &metrics(&hosts[0])])?;
        let join = hosts[0].listen();
        hosts[1].start_node(&["--join", &join, "--metrics", &metrics(&hosts[1])])?;
        create_network(&hosts[0])?;
        let web1 = attach(lab, &hosts[0], "web1", &[])?;
        for host in &hosts {
            let url = format!("http://{}/metrics", metrics(host));
            let before = hosts[0].counter("controller_port")?;
            for host in &hosts {
                host.netns.curl(&url)?;
            }
            let refused = web1.netns.output(&["curl", "-sS", "--max-time", "1", &url])?;
            ensure!(!refused.status.success(), "{refused:?}");
            ensure!(hosts[0].counter("controller_port")? > before, "{url}: no packet came so far");
        }
        let refused = hosts[0].node_fails(&["--metrics", "0.0.0.0:7401"])?;
        refused_with(&refused, "--metrics 0.0.0.0:7401 would be served to endpoints")
    });
}
