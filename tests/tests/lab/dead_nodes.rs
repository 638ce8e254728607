//! A node that will not come back, and one that is alive, are removed with their endpoints.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use overlay_lab::{Host, Netns, Requirement, eventually, rows, text};
use serde_json::Value;

use crate::support::{
    CATCH_UP, ELECTION, Endpoint, NETWORK, address, attach, cluster, knows, refused_with, scenario,
};

const NEEDS: &[Requirement] = &[
    Requirement::Root,
    Requirement::Bpffs,
    Requirement::Binary,
    Requirement::Tool("ping"),
    Requirement::Tool("bpftool"),
    Requirement::Tool("dig"),
];

/// A removed node finds out within seconds, because it hears from no leader and asks the others.
const BOUND: Duration = Duration::from_secs(30);

fn names(host: &Host) -> Result<Vec<String>> {
    let endpoints = host.overlay_json(&["endpoint", "ls"])?;
    Ok(rows(&endpoints).iter().map(|row| text(row, "name").to_owned()).collect())
}

/// The node ends by itself, and its endpoint's namespace is as it was before.
fn is_gone(host: &Host, netns: &Netns) -> Result<()> {
    eventually(&format!("{} ends", host.name), BOUND, || {
        ensure!(!host.is_running()?, "it runs");
        ensure!(netns.links()? == ["lo"], "{:?}", netns.links()?);
        Ok(())
    })
}

/// None of the hosts has an entry of the endpoint, and its name is nobody's.
fn is_forgotten(endpoint: &Endpoint, hosts: &[&Host], inside: &Netns) -> Result<()> {
    eventually(&format!("{} is forgotten", endpoint.name), CATCH_UP, || {
        for host in hosts {
            ensure!(!knows(host, endpoint.address)?, "{} has its neighbour entry", host.name);
            let entries: Value = serde_json::from_str(&host.map_dump("FDB")?)?;
            let (found, names) = (rows(&entries).len(), names(host)?);
            ensure!(found == names.len(), "{}: {found} entries for {names:?}", host.name);
        }
        inside.dig(&[&endpoint.name])?.is_empty("NXDOMAIN")
    })
}

#[test]
fn a_dead_node_goes_with_its_endpoints_and_a_living_one_by_force() {
    scenario(NEEDS, |lab| {
        let cluster = cluster(lab)?;
        let [h1, h2, h3, h4] = &cluster.hosts;
        let web1 = &cluster.web1;
        let web4 = attach(lab, h4, "web4", &["-p", "8080:80"])?;
        let web5 = attach(lab, h4, "web5", &[])?;
        web1.netns.reaches(web4.address)?;
        web1.netns.dig(&["web4"])?.is(&[&web4.address.to_string()])?;
        h4.kill9()?;
        eventually("it counts as down", ELECTION, || {
            let node = h1.overlay_json(&["node", "inspect", "h4"])?;
            if text(&node, "state") == "down" { Ok(()) } else { bail!("{node}") }
        })?;
        // No packet is lost for its process' sake, until it is removed.
        web1.netns.reaches(web4.address)?;
        let revision = |host: &Host| -> Result<u64> {
            host.overlay_json(&["status"])?["revision"].as_u64().context("a number")
        };
        let before = revision(h1)?;
        h1.overlay(&["node", "rm", "h4"])?;
        ensure!(names(h1)? == ["web1", "web2", "web2-2"], "{:?}", names(h1)?);
        // The change of the members is an entry, too, where h4 was one.
        ensure!(revision(h1)? <= before + 2, "{before}, and {} after it", revision(h1)?);
        for gone in [&web4, &web5] {
            is_forgotten(gone, &[h1, h2, h3], &web1.netns)?;
        }

        // What it had is somebody else's, while its own kernel still holds it.
        let ip = web4.address.to_string();
        let heir = attach(lab, h3, "heir", &["--ip", &ip, "-p", "8080:80"])?;
        ensure!(heir.address == web4.address);
        web1.netns.reaches(heir.address)?;

        // It comes back, hears of it, and takes away what it made.
        h4.spawn_again()?;
        is_gone(h4, &web4.netns)?;
        ensure!(web5.netns.links()? == ["lo"], "{:?}", web5.netns.links()?);
        web1.netns.reaches(heir.address)?;

        // A node that is alive.
        let refused = h1.overlay_fails(&["node", "rm", "h2"])?;
        refused_with(&refused, "node h2 has 1 endpoints; remove them first, or all with it by")?;
        web1.netns.reaches(cluster.web2_2.address)?;
        h1.overlay(&["node", "rm", "--force", "h2"])?;
        is_gone(h2, &cluster.web2_2.netns)?;
        is_forgotten(&cluster.web2_2, &[h1, h3], &web1.netns)?;
        // Two voters of three: the cluster still decides.
        let netns = lab.container("next")?;
        let create = ["endpoint", "create", "next", "--network", NETWORK, "--netns", netns.name()];
        let created = h1.overlay_json(&create)?;
        web1.netns.reaches(address(created.get("endpoint").unwrap_or(&created))?)
    });
}
