//! Voters die, the leader among them, and in one scenario so many that no quorum is left.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use anyhow::{Context as _, bail, ensure};
use overlay_lab::{command, eventually, number, patient, probe::Prober, rows, text};

use crate::support::{
    ELECTION, NETWORK, NODES, address, another_leads, cluster, leader, other_voters, refused_with,
    scenario,
};

#[test]
fn traffic_and_the_cluster_survive_the_leader() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let (web1, web2, h4) = (&cluster.web1, &cluster.web2, &cluster.hosts[3]);
        web1.netns.reaches(web2.address)?;
        let probe = Prober::new(&web1.netns, web2.address)?.start(Duration::from_millis(2));
        let dead = leader(&cluster)?;
        dead.kill9()?;
        another_leads(h4, &dead)?;
        let netns = lab.container("web4")?;
        let inside = netns.name().to_owned();
        h4.overlay(&["endpoint", "create", "web4", "--network", NETWORK, "--netns", &inside])?;
        let web4 = address(&h4.overlay_json(&["endpoint", "inspect", "web4"])?)?;
        // The ping comes from a host whose node runs.
        let from = if dead.name == web2.host.name { web1 } else { web2 };
        from.netns.reaches(web4)?;
        let endpoints = h4.overlay_json(&["endpoint", "ls"])?;
        ensure!(endpoints.as_array().map(Vec::len) == Some(4), "{endpoints}");
        probe.stop()?.none_lost()?;

        // The dead node returns as a follower, and learns of the changes that it missed.
        dead.restart()?;
        eventually("the dead node's endpoint reaches web4", Duration::from_secs(10), || {
            let own = [web1, &cluster.web2_2, web2].into_iter().find(|e| e.host.name == dead.name);
            own.context("an endpoint on the dead node")?.netns.reaches(web4)
        })?;
        Ok(())
    });
}

/// When a leader that is told to end has ended, another voter leads already: nobody waits for an election.
#[test]
fn a_leader_that_is_stopped_hands_over_first() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let old = leader(&cluster)?;
        let term = number(&old.overlay_json(&["status"])?, "term");
        old.stop()?;
        let mut led = Vec::new();
        for voter in other_voters(&cluster, &old) {
            let status = voter.overlay_json(&["status"])?;
            if text(&status, "role") == "leader" {
                led.push((voter.name.clone(), number(&status, "term")));
            }
        }
        ensure!(matches!(&led[..], [(_, now)] if *now == term + 1), "{led:?} after term {term}");
        cluster.hosts[3].overlay(&["network", "create", "after"])?;
        Ok(())
    });
}

/// A leader can die at any moment of a creation. Each node therefore asks for several creations at once, so
/// that some have reached the leader, some are in the log, and some are not sent yet.
#[test]
fn a_creation_that_the_leader_dies_in_is_carried_out_once_or_not_at_all() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let dead = leader(&cluster)?;
        let alive = cluster.hosts.iter().filter(|host| host.name != dead.name);
        let mut asked = Vec::new();
        for host in alive {
            for number in 0..4 {
                let name = format!("{}-{number}", host.name);
                let netns = lab.container(&name)?.name().to_owned();
                let args = ["endpoint", "create", &name, "--network", NETWORK, "--netns", &netns];
                let mut command = host.overlay_command(&args);
                let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
                asked.push((host, name, netns, child));
            }
        }
        dead.kill9()?;
        let mut wanted = BTreeSet::new();
        for (host, name, netns, child) in asked {
            wanted.insert(name.clone());
            if child.wait_with_output()?.status.success() {
                continue;
            }
            // The caller does not know whether the creation was carried out. The repeated command creates the
            // endpoint, or finds it.
            another_leads(host, &dead)?;
            let args = ["endpoint", "create", &name, "--network", NETWORK, "--netns", &netns];
            let again = command::output(&mut host.overlay_command(&args), 4 * ELECTION)?;
            let stands = again.stderr.contains("already exists");
            ensure!(again.status.success() || stands, "{name}: {}", again.stderr);
        }
        let host = &cluster.hosts[3];
        let listed = host.overlay_json(&["endpoint", "ls"])?;
        let of = |field| rows(&listed).iter().map(move |row| text(row, field).to_owned());
        let made: Vec<String> = of("name").filter(|name| wanted.contains(name)).collect();
        ensure!(made.len() == wanted.len(), "{made:?} of {wanted:?}");
        let distinct: BTreeSet<String> = of("address").collect();
        ensure!(distinct.len() == rows(&listed).len(), "{listed}");
        Ok(())
    });
}

#[test]
fn without_a_quorum_a_write_is_refused_in_time_and_packets_flow() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let [_, h2, h3, h4] = &cluster.hosts;
        cluster.hosts[0].kill9()?;
        h2.kill9()?;
        let netns = lab.container("web4")?;
        let create = ["endpoint", "create", "web4", "--network", NETWORK, "--netns", netns.name()];
        for host in [h3, h4] {
            let refused = host.overlay_fails(&create)?;
            refused_with(&refused, "quorum")?;
            ensure!(refused.elapsed < patient(Duration::from_secs(6)), "{:?}", refused.elapsed);
        }
        ensure!(netns.links()? == ["lo"], "{:?}", netns.links()?);
        cluster.web1.netns.reaches(cluster.web2.address)?;
        // What a voter knows can be read without the others, also by way of an agent.
        for host in [h3, h4] {
            let stale = host.overlay_json(&["network", "ls", "--stale"])?;
            let names: Vec<&str> = rows(&stale["answer"]).iter().map(|n| text(n, "name")).collect();
            ensure!(stale["stale"] == true && names == [NETWORK], "{stale}");
            ensure!(number(&stale, "revision") > 0, "{stale}");
        }
        // A node shows its own status without the others.
        let status = h3.overlay_json(&["status"])?;
        ensure!(text(&status, "node") == "h3", "{status}");

        // When the quorum is back, the same command succeeds.
        h2.restart()?;
        eventually("the endpoint is made", ELECTION, || h4.overlay(&create))?;
        Ok(())
    });
}

#[test]
fn a_dead_node_is_shown_as_down_and_nothing_can_be_asked_of_it() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let [h1, _, _, h4] = &cluster.hosts;
        h4.kill9()?;
        eventually("h4 is down", Duration::from_secs(20), || {
            let node = h1.overlay_json(&["node", "inspect", "h4"])?;
            if text(&node, "state") == "down" { Ok(()) } else { bail!("{node}") }
        })?;
        let netns = lab.container("web4")?;
        let create = [
            "endpoint",
            "create",
            "web4",
            "--network",
            NETWORK,
            "--node",
            "h4",
            "--netns",
            netns.name(),
        ];
        let refused = h1.overlay_fails(&create)?;
        refused_with(&refused, "down")?;
        let endpoints = h1.overlay_json(&["endpoint", "ls"])?;
        ensure!(endpoints.as_array().map(Vec::len) == Some(3), "{endpoints}");
        Ok(())
    });
}
