//! Who holds the log changes: by command, and by itself when a voter is down for good. The endpoints do not notice.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail, ensure};
use overlay_lab::{
    Host, eventually, number, patient,
    probe::{Prober, SteadyProbe},
    rows, text,
};

use crate::support::{Endpoint, NODES, attach, cluster, create_network, refused_with, scenario};

/// A node is asked within seconds whether it has a seat, and a learner catches up within one.
const BOUND: Duration = Duration::from_secs(40);
const EVERY: Duration = Duration::from_millis(5);

fn roles(asked: &Host) -> Result<Vec<(String, String)>> {
    let nodes = asked.overlay_json(&["node", "ls"])?;
    let role = |node| (text(node, "name").to_owned(), text(node, "role").to_owned());
    Ok(rows(&nodes).iter().map(role).collect())
}

/// Waits until just these nodes vote and all others are agents, by what the cluster says and by what each node says itself.
fn vote(hosts: &[&Arc<Host>], voters: &[&str]) -> Result<()> {
    for asked in hosts {
        eventually(&format!("{} sees {voters:?} vote", asked.name), BOUND, || {
            for (name, role) in roles(asked)? {
                let votes = ["leader", "voter"].contains(&role.as_str());
                ensure!(votes == voters.contains(&name.as_str()), "{name} is {role}");
                ensure!(votes || role == "agent", "{name} is {role}");
            }
            let own = asked.overlay_json(&["status"])?;
            let (role, is_voter) = (text(&own, "role"), voters.contains(&asked.name.as_str()));
            ensure!((role == "agent") != is_voter, "{} says that it is {role}", asked.name);
            Ok(())
        })?;
    }
    Ok(())
}

/// Writes something, and waits until each node shows it.
fn writes(hosts: &[&Arc<Host>], network: &str) -> Result<()> {
    eventually("a write succeeds", BOUND, || hosts[0].overlay(&["network", "create", network]))?;
    for host in hosts {
        eventually(&format!("{} has the write", host.name), BOUND, || {
            let held = host.overlay_json(&["network", "ls"])?;
            ensure!(rows(&held).iter().any(|row| text(row, "name") == network), "{held}");
            Ok(())
        })?;
    }
    Ok(())
}

fn raft_id(asked: &Host, node: &str) -> Result<u64> {
    Ok(number(&asked.overlay_json(&["node", "inspect", node])?, "raft_id"))
}

fn pings(web1: &Endpoint, web2: &Endpoint) -> Result<[SteadyProbe; 2]> {
    let ping = |from: &Endpoint, to: &Endpoint| -> Result<SteadyProbe> {
        Ok(Prober::new(&from.netns, to.address)?.start(patient(EVERY)))
    };
    Ok([ping(web1, web2)?, ping(web2, web1)?])
}

#[test]
fn seats_are_given_and_taken_by_command_and_no_packet_is_lost() {
    scenario(NODES, |lab| {
        let cluster = cluster(lab)?;
        let [h1, h2, h3, h4] = &cluster.hosts;
        let all = [h1, h2, h3, h4];
        vote(&all, &["h1", "h2", "h3"])?;
        let probes = pings(&cluster.web1, &cluster.web2)?;
        let pids = [h3.node_pid(), h4.node_pid()];
        refused_with(&h4.overlay_fails(&["node", "promote", "h4"])?, "has its 3 voters already")?;

        // h3 has web2.
        h4.overlay(&["node", "demote", "h3"])?;
        // Of those that are left one votes, and h4 moves up by itself.
        vote(&all, &["h1", "h2", "h4"])?;
        ensure!(raft_id(h1, "h4")? == 4, "it has a Raft id of its own");
        writes(&all, "after-demote")?;
        h1.overlay(&["node", "demote", "h4"])?;
        h1.overlay(&["node", "promote", "h3"])?;
        vote(&all, &["h1", "h2", "h3"])?;
        ensure!(raft_id(h1, "h3")? == 5, "not the one that it had");
        writes(&all, "after-promote")?;

        // The leader gives its seat up, too.
        let leader = h4.leader()?;
        h4.overlay(&["node", "demote", &leader])?;
        eventually("another leads", BOUND, || {
            let now = h4.leader()?;
            ensure!(now != leader, "{now} leads");
            Ok(())
        })?;
        h4.overlay(&["node", "promote", &leader])?;
        vote(&all, &["h1", "h2", "h3"])?;

        // One voter, and three again.
        h4.overlay(&["cluster", "voters", "1"])?;
        // The others first lose their votes, and then their seats.
        eventually("one has a seat", BOUND, || {
            let found = roles(h4)?;
            let agents = found.iter().filter(|(_, role)| role == "agent").count();
            ensure!(agents + 1 == found.len(), "{found:?}");
            Ok(())
        })?;
        let last = h4.leader()?;
        refused_with(&h4.overlay_fails(&["node", "demote", &last])?, "the cluster's only voter")?;
        h4.overlay(&["cluster", "voters", "3"])?;
        eventually("three vote", BOUND, || {
            let voters = h4.voters()?;
            ensure!(voters.len() == 3, "{voters:?}");
            Ok(())
        })?;
        writes(&all, "at-last")?;
        ensure!(pids == [h3.node_pid(), h4.node_pid()], "no node was started again");
        for probe in probes {
            probe.stop()?.none_lost()?;
        }
        // What a node is, it is also after a restart.
        let voters = h1.voters()?;
        for host in all {
            host.kill9()?;
            host.restart()?;
        }
        let voters: Vec<&str> = voters.iter().map(String::as_str).collect();
        vote(&all, &voters)?;
        writes(&all, "after-restarts")
    });
}

#[test]
fn a_voter_that_is_down_for_good_is_replaced_and_comes_back_as_an_agent() {
    scenario(NODES, |lab| {
        let hosts = lab.four_hosts()?;
        lab.start_cluster_with(&hosts, &["--replace-voter-after", "3"])?;
        let [h1, h2, h3, h4] = &hosts;
        create_network(h1)?;
        let web1 = attach(lab, h1, "web1", &[])?;
        let web2 = attach(lab, h4, "web2", &[])?;
        let web3 = attach(lab, h3, "web3", &[])?;
        vote(&[h1, h2, h3, h4], &["h1", "h2", "h3"])?;
        let probes = pings(&web1, &web2)?;
        let of_the_dead = pings(&web1, &web3)?;
        h3.kill9()?;
        let left = [h1, h2, h4];
        vote(&left, &["h1", "h2", "h4"])?;
        writes(&left, "replaced")?;
        // Three vote, so that one more may go.
        h2.kill9()?;
        writes(&[h1, h4], "two-are-away")?;
        h2.restart()?;

        h3.restart()?;
        vote(&[h1, h2, h3, h4], &["h1", "h2", "h4"])?;
        writes(&[h1, h2, h3, h4], "it-is-back")?;
        for probe in probes.into_iter().chain(of_the_dead) {
            probe.stop()?.none_lost()?;
        }
        // It holds the log again as the fourth of five, and has no vote, since the number would be even.
        h1.overlay(&["cluster", "voters", "5"])?;
        eventually("h3 is a learner", BOUND, || {
            let found = roles(h1)?;
            let learner = found.iter().any(|(name, role)| name == "h3" && role == "learner");
            if learner { Ok(()) } else { bail!("{found:?}") }
        })?;
        h1.overlay(&["cluster", "voters", "3"])?;
        vote(&[h1, h2, h3, h4], &["h1", "h2", "h4"])?;

        // The seat of a node that is removed is another's.
        h2.kill9()?;
        h1.overlay(&["node", "rm", "h2"])?;
        vote(&[h1, h3, h4], &["h1", "h3", "h4"])?;
        writes(&[h1, h3, h4], "after-rm")
    });
}
